"""The built-in networks in timm: built by its factory, with the same weights, by its interface."""

import subprocess
import sys

import pytest
import torch
from PIL import Image
from torch import nn

import towernet
from towernet.attention import ATTENTION
from towernet.engine.checkpoint import write_weights
from towernet.errors import ConfigError, MissingExtraError
from towernet.models import catalogue, timm_models

timm = pytest.importorskip("timm")
NETWORKS = ["towernet", "towernet_patch", "towernet+se", "towernet_patch+none"]


@pytest.fixture(scope="module", autouse=True)
def registered() -> list[str]:
    return towernet.register_with_timm()


def build(name: str, **options: object) -> nn.Module:
    torch.manual_seed(3)
    return timm.create_model(name, **options)


def images(num_channels: int = 3, size_px: int = 128) -> torch.Tensor:
    return torch.rand(2, num_channels, size_px, size_px)


def test_nothing_is_registered_before_the_call():
    code = (
        "import sys, towernet.models.timm_models\nassert 'timm' not in sys.modules\n"
        "import timm, towernet\nassert not timm.list_models('towernet*')\n"
        "towernet.register_with_timm()\nassert timm.is_model('towernet')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_they_are_listed_with_every_block_and_never_as_pretrained(registered):
    with_blocks = {f"towernet+{block}" for block in ATTENTION}
    assert {"towernet", "towernet_patch", "towernet+none"} | with_blocks <= set(registered)
    assert set(timm.list_models("towernet*")) == set(registered)
    assert set(timm.list_models(module="timm_models")) == set(registered)
    assert not timm.list_models("towernet*", pretrained=True)


def test_its_own_attention_can_be_named():
    assert "towernet+shuffle" in towernet.register_with_timm()
    named, plain, other = (
        build(name, num_classes=5).state_dict()
        for name in ("towernet+shuffle", "towernet", "towernet+se")
    )
    assert list(named) == list(plain) != list(other)
    assert all(torch.equal(named[key], plain[key]) for key in plain)


@pytest.mark.parametrize("name", ["resnet18+se", "towernet+se@stages"])
def test_the_names_documented_as_unknown_to_timm_are_unknown(name):
    with pytest.raises(RuntimeError, match="Unknown model"):
        timm.create_model(name)
    assert name in timm_models.register_with_timm.__doc__


def test_registering_can_be_repeated(registered):
    before = timm.list_models()
    assert towernet.register_with_timm() == registered  # a warning would be an error here
    assert timm.list_models() == before


def test_a_block_that_is_added_later_is_registered_then(monkeypatch):
    monkeypatch.setitem(ATTENTION._things, "mine", ATTENTION["se"])
    try:
        assert "towernet+mine" in towernet.register_with_timm()
        assert build("towernet+mine", num_classes=4)(images()).shape == (2, 4)
    finally:
        timm.models._registry._model_entrypoints.pop("towernet+mine")
        timm.models._registry._module_to_models["timm_models"].discard("towernet+mine")


@pytest.mark.parametrize("name", NETWORKS)
def test_it_has_the_weights_of_the_built_in_network(name):
    network = build(name, num_classes=5).eval()
    torch.manual_seed(3)
    built_in = catalogue.build(name, 5, 128).eval()
    assert list(network.state_dict()) == list(built_in.state_dict())
    assert all(torch.equal(network.state_dict()[key], built_in.state_dict()[key])
               for key in built_in.state_dict())  # fmt: skip
    x = images()
    assert torch.equal(network(x), built_in(x))
    assert not torch.equal(network(x), network(x.flip(3)))  # the comparison can fail


@pytest.mark.parametrize("name", NETWORKS)
def test_it_has_timms_interface(name):
    network = build(name, num_classes=5, in_chans=4).eval()
    x = images(4)
    features = network.forward_features(x)
    assert features.shape[1] == network.num_features
    assert torch.equal(network(x), network.forward_head(features))
    before_head = network.forward_head(features, pre_logits=True)
    assert before_head.shape == (2, network.head_hidden_size)
    assert torch.equal(network.get_classifier()(before_head), network(x))
    network.reset_classifier(7)
    assert network(x).shape == (2, network.num_classes) == (2, 7)
    assert not network.get_classifier().bias.any()  # as Paddle starts it
    network.reset_classifier(0)
    assert torch.equal(network(x), before_head)
    assert isinstance(network.get_classifier(), nn.Identity)
    network.reset_classifier(0, "")
    assert torch.equal(network(x), features)
    without = build(name, num_classes=0, in_chans=4, global_pool="")
    assert without.eval()(x).shape == features.shape


@pytest.mark.parametrize("name", NETWORKS)
def test_its_timm_configuration_is_correct(name):
    network = build(name, num_classes=5).eval()
    config = network.default_cfg
    assert (config["architecture"], network.pretrained_cfg) == (name, config)
    x = torch.rand(1, *config["input_size"])
    assert network.forward_features(x).shape[2:] == config["pool_size"]
    least = config["min_input_size"][1]
    assert network(torch.rand(1, 3, least, least)).shape == (1, 5)
    with pytest.raises((ConfigError, RuntimeError)):
        network(torch.rand(1, 3, least - 1, least - 1))
    for module in (config["first_conv"], config["classifier"]):
        assert f"{module}.weight" in network.state_dict()
    data = timm.data.resolve_model_data_config(network)
    assert (data["input_size"], data["mean"]) == ((3, 128, 128), (0.485, 0.456, 0.406))
    assert timm.data.create_transform(**data)(Image.new("RGB", (200, 160))).shape == (3, 128, 128)


@pytest.mark.parametrize("name", NETWORKS)
def test_its_feature_maps_have_the_described_sizes(name):
    network = build(name, features_only=True).eval()
    info = network.feature_info
    maps = network(images(size_px=256))
    assert [m.shape[1] for m in maps] == info.channels()
    assert [256 // m.shape[2] for m in maps] == info.reduction()
    assert len(build(name, features_only=True, out_indices=(0, 1)).eval()(images())) == 2


def test_the_weights_of_a_run_are_loaded(tmp_path):
    trained = catalogue.build("towernet_patch+se", 4, 64)
    path = tmp_path / "best.safetensors"
    write_weights(path, trained.state_dict(), {"epoch": 3})
    network = build("towernet_patch+se", num_classes=4, checkpoint_path=str(path))
    assert all(torch.equal(network.state_dict()[key], value)
               for key, value in trained.state_dict().items())  # fmt: skip
    with pytest.raises(RuntimeError, match="size mismatch for head"):
        build("towernet_patch+se", num_classes=5, checkpoint_path=str(path))
    # timm's way for another number of classes: load everything except the head.
    overlay = {"file": str(path), "num_classes": 4}
    network = build(
        "towernet_patch+se", num_classes=9, pretrained=True, pretrained_cfg_overlay=overlay
    )
    assert network.head.weight.shape == (9, 256)
    assert torch.equal(network.stem[0].weight, trained.stem[0].weight)


def test_timms_optimisers_leave_attention_without_decay():
    network = build("towernet+se", num_classes=5)
    decayed = pytest.importorskip("timm.optim").param_groups_weight_decay(
        network, 0.1, no_weight_decay_list=network.no_weight_decay()
    )[1]["params"]
    names = {name for name, p in network.named_parameters() if any(p is d for d in decayed)}
    assert "attention_3.squeeze.weight" in network.no_weight_decay()
    assert not any("attention" in name for name in names)
    assert "head.weight" in names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pretrained": True},
         r"^no weights of towernet are published; leave out pretrained=True, and for your own wei"),
        ({"drop_path_rate": 0.1}, r"^towernet has no drop_path_rate, and 0\.1 was given; leave it"),
        ({"global_pool": "max"}, r"^global_pool is 'max'; give 'avg', or '' for none$"),
        ({"num_classes": 5, "global_pool": ""},
         r"^global_pool is '' and a head for 5 classes needs pooled features; give 'avg', or num_"
         r"classes=0$"),
    ],
)  # fmt: skip
def test_unsupported_options_are_refused_in_a_sentence(options, message):
    with pytest.raises(ConfigError, match=message):
        build("towernet", **options)


def test_options_that_timms_scripts_pass_with_a_false_value_are_ignored():
    assert build("towernet", num_classes=3, drop_rate=0.0, drop_path_rate=None).num_classes == 3


def test_timms_network_of_the_same_name_is_refused(monkeypatch):
    def towernet_patch(**_: object) -> None: ...

    monkeypatch.setitem(timm.models._registry._model_entrypoints, "towernet_patch", towernet_patch)
    message = r"^timm already has another network called towernet_patch; build towernet's with"
    with pytest.raises(ConfigError, match=message):
        towernet.register_with_timm()


def test_without_timm_the_message_gives_the_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    message = (
        r"^register_with_timm needs the package timm; install it with: pip install"
        r" 'towernet\[timm\]'$"
    )
    with pytest.raises(MissingExtraError, match=message):
        timm_models.register_with_timm()

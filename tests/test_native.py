"""The kernels in C against torch's own operations, and what happens where there are none."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from crashlab.lab import compiler
from towernet.config import AugmentConfig
from towernet.data.augment import NUM_DRAWS, augment, draws, normalise, training_input
from towernet.native import library, ops, selftest
from towernet.native.library import Library, Missing

TOLERANCE = {torch.float32: 3e-5, torch.bfloat16: 1e-2}

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C compiler")


@pytest.fixture(scope="module", autouse=True)
def _kernels_are_used():
    with ops.enabled(True):
        yield


def feature_map(shape, dtype, *, offset=0.0):
    x = torch.randn(shape) * 2 + offset
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


def norm_of(channels):
    norm = torch.nn.BatchNorm2d(channels, eps=1e-3)
    with torch.no_grad():
        norm.weight.normal_()  # some fall, so the window's smallest pixel counts
        norm.bias.normal_()
    return norm


def with_gradients(forward, x, norm, weights):
    x = x.clone().requires_grad_()
    y = forward(x, norm)
    y.backward(weights[..., : y.shape[2], : y.shape[3]].to(y.dtype))
    return [y.detach(), x.grad, norm.weight.grad, norm.bias.grad, *norm.buffers()]


def by_torch(x, norm):
    return F.relu(F.max_pool2d(norm(x), 2))


def relative_error(got, wanted):
    wanted = wanted.double()
    return ((got.double() - wanted).norm() / wanted.norm().clamp_min(1e-12)).item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "shape", [(3, 16, 2, 2), (5, 48, 13, 7), (2, 32, 3, 9), (2, 64, 61, 30), (1, 256, 8, 8)]
)
def test_norm_pool_relu_is_batch_norm_pooling_and_relu(shape, dtype):
    x, weights = feature_map(shape, dtype, offset=3.0), torch.randn(shape)
    # In bfloat16 torch rounds before it chooses; a float32 reference chooses as the kernel does.
    exact = with_gradients(by_torch, x.float(), seeded(norm_of, shape[1]), weights)
    got = with_gradients(ops.norm_pool_relu, x, seeded(norm_of, shape[1]), weights)
    for mine, wanted in zip(got, exact, strict=True):
        assert relative_error(mine, wanted) < TOLERANCE[dtype]


def seeded(make, *arguments):
    torch.manual_seed(7)
    return make(*arguments)


def test_of_equal_pixels_the_first_gets_the_gradient():
    x = torch.ones(1, 16, 2, 4).contiguous(memory_format=torch.channels_last)
    x[..., 2:] = -1.0
    norm = torch.nn.BatchNorm2d(16)
    weights = torch.randn(1, 16, 1, 2)
    wanted = with_gradients(by_torch, x, norm, weights)[1]
    got = with_gradients(ops.norm_pool_relu, x, torch.nn.BatchNorm2d(16), weights)[1]
    torch.testing.assert_close(got, wanted)


def test_statistics_do_not_cancel_where_the_mean_is_large():
    x = feature_map((4, 16, 64, 64), torch.float32, offset=1000.0)
    norm = torch.nn.BatchNorm2d(16)
    ops.norm_pool_relu(x, norm)
    variance = x.double().var(dim=(0, 2, 3), correction=1)
    torch.testing.assert_close(norm.running_var.double(), 0.9 + 0.1 * variance, rtol=1e-5, atol=0)


def test_what_is_not_a_number_stays_so():
    x = feature_map((2, 16, 4, 4), torch.float32)
    x[0, 3, 1, 1] = torch.nan
    y = ops.norm_pool_relu(x, torch.nn.BatchNorm2d(16))
    assert y[:, 3].isnan().all()
    assert not y[:, :3].isnan().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("shape", "groups"),
    [((3, 32, 5, 7), 4), ((2, 256, 16, 16), 64), ((1, 64, 1, 1), 8), ((2, 96, 61, 33), 3)],
)
def test_shuffle_attention_is_its_formula(shape, groups, dtype):
    from towernet.attention.shuffle import ShuffleAttention

    block = ShuffleAttention(shape[1], groups=groups)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    x, weights = feature_map(shape, dtype, offset=1.0), torch.randn(shape)
    found = []
    for native in (True, False):
        with ops.enabled(native):
            inner = x.clone().requires_grad_() if native else x.float().requires_grad_()
            y = block(inner)
            inputs = [inner, *block.parameters()]
            found.append([y.detach(), *torch.autograd.grad((y.float() * weights).sum(), inputs)])
    for got, wanted in zip(*found, strict=True):
        assert got.isfinite().all()
        assert relative_error(got, wanted) < TOLERANCE[dtype] or wanted.norm() < 1e-3


def test_threads_change_no_bit():
    x, weights = feature_map((5, 64, 31, 29), torch.bfloat16), torch.randn(5, 64, 15, 14)
    threads = torch.get_num_threads()
    found = []
    try:
        for num in (1, 2, 3):
            torch.set_num_threads(num)
            found.append(with_gradients(ops.norm_pool_relu, x, torch.nn.BatchNorm2d(64), weights))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize(
    "config",
    [
        AugmentConfig(),
        AugmentConfig(rotation_degrees=170, brightness=0, contrast=0.9),
        AugmentConfig(
            crop_scale_min=1, flip=False, interpolation="nearest", brightness=0, contrast=0
        ),
    ],
    ids=["default", "turned", "notebook"],
)
@pytest.mark.parametrize(("stored", "wanted"), [(40, 32), (37, 47), (16, 16)])
def test_augmentation_is_its_formula(stored, wanted, config):
    pixels = np.random.default_rng(3).integers(0, 256, (9, stored, stored, 3), dtype=np.uint8)
    rows = np.array([4, 0, 8, 8, 3])
    numbers = draws(1, 2, np.array([4, 0, 8, 7, 3], np.uint64))
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    x = training_input(pixels, rows, numbers, config, size_px=wanted, mean=mean, std=std)
    formula = augment(torch.from_numpy(pixels[rows]), numbers, config, size_px=wanted)
    different = (x - normalise(formula, mean, std)).abs() > 1e-3
    # A position half way between two pixels may be rounded to the other one.
    assert different.float().mean() < (1e-3 if config.interpolation == "nearest" else 1e-9)
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_pixels_that_are_a_tensor_give_the_same_images():
    """As they are on a GPU."""
    pixels = np.random.default_rng(3).integers(0, 256, (9, 40, 40, 3), dtype=np.uint8)
    rows = np.array([4, 0, 8])
    numbers = draws(1, 2, rows.astype(np.uint64))
    options = {"size_px": 32, "mean": (0.5,) * 3, "std": (0.2,) * 3}
    mapped = training_input(pixels, rows, numbers, AugmentConfig(), **options)
    tensor = training_input(torch.from_numpy(pixels), rows, numbers, AugmentConfig(), **options)
    torch.testing.assert_close(mapped, tensor, atol=1e-3, rtol=0)


def test_the_last_picture_is_not_read_beyond_its_end():
    """Its file is mapped: the page behind it may not be there."""
    import mmap

    size, page = 64, mmap.PAGESIZE
    pixels = np.zeros((1, size, size, 3), np.uint8)
    assert pixels.nbytes % page == 0
    region = mmap.mmap(-1, pixels.nbytes)
    stored = np.frombuffer(region, np.uint8).reshape(pixels.shape)
    x = training_input(
        stored, np.array([0]), np.full((1, NUM_DRAWS), 0.99), AugmentConfig(), size_px=size,
        mean=(0.0,) * 3, std=(1.0,) * 3,
    )  # fmt: skip
    assert not x.any()


def test_maps_the_kernels_do_not_take_go_to_torch():
    x = torch.rand(2, 32, 4, 4).contiguous(memory_format=torch.channels_last)
    assert ops.usable(x)
    assert not ops.usable(x.contiguous())
    assert not ops.usable(x.half())
    assert not ops.usable(x.to("meta"))
    assert not ops.usable(x[:, :20].contiguous(memory_format=torch.channels_last))
    with ops.enabled(False):
        assert not ops.usable(x)


def test_the_self_test_agrees_here():
    assert selftest.deviation() < selftest.LARGEST_DEVIATION


@pytest.mark.parametrize("broken", ["_NormPoolRelu", "_ShuffleAttention"])
def test_the_self_test_rejects_a_wrong_gradient(broken, monkeypatch):
    original = getattr(ops, broken).backward

    def wrong(ctx, gradient):
        dx, *rest = original(ctx, gradient)
        return (dx * 1.001, *rest)

    monkeypatch.setattr(getattr(ops, broken), "backward", staticmethod(wrong))
    assert selftest.deviation() > selftest.LARGEST_DEVIATION


def in_a_new_process(code, **environment):
    import os

    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env=os.environ | environment,
    ).stdout  # fmt: skip


def test_without_a_compiler_torch_does_it_and_that_is_said():
    out = in_a_new_process(
        "from towernet.engine.device import choose_policy\n"
        "policy = choose_policy('cpu')\n"
        "print(policy.kernels, policy.reason)",
        CC="no-such-compiler",
    )
    assert out.startswith("torch ")
    assert "channels_last" not in out or "no C compiler was found (install gcc)" in out


def test_a_compiler_that_fails_is_said(tmp_path):
    failing = tmp_path / "cc"
    failing.write_text("#!/bin/sh\necho 'kernels.c:1: error: no' >&2\nexit 1\n")
    failing.chmod(0o755)
    out = in_a_new_process(
        "from towernet.native.library import load\nprint(load().reason)",
        CC=str(failing),
        TOWERNET_CACHE=str(tmp_path / "cache"),
    )
    assert out == "the kernels could not be compiled (kernels.c:1: error: no)\n"


def test_a_run_begun_with_kernels_is_not_silently_gone_on_without(monkeypatch):
    from towernet.engine.device import Policy, kernels_here
    from towernet.errors import EnvironmentFault

    policy = Policy("cpu", "float32", True, 1, "test", "native")
    assert kernels_here(policy) == "native"
    monkeypatch.setattr(library, "load", lambda: Missing("no C compiler was found (install gcc)"))
    with pytest.raises(EnvironmentFault, match=r"begun with kernels in C and no C compiler.*--acc"):
        policy.apply()
    assert kernels_here(policy) == "torch"


def test_the_library_is_compiled_once(tmp_path):
    code = "from towernet.native.library import load\nprint(load().identity)"
    first = in_a_new_process(code, TOWERNET_CACHE=str(tmp_path)).strip()
    file = tmp_path / "native" / f"{first}.so"
    made = file.stat().st_mtime_ns
    assert in_a_new_process(code, TOWERNET_CACHE=str(tmp_path)).strip() == first
    assert file.stat().st_mtime_ns == made
    assert sorted(path.name for path in file.parent.iterdir() if path.suffix != "") == [file.name]


def test_the_kernels_share_torchs_threads():
    """A second pool of threads would wait, spinning, for the cores of the first."""
    assert isinstance(library.load(), Library)
    out = in_a_new_process(
        "import torch\n"
        "from towernet.native import ops, selftest\n"
        "selftest.deviation()\n"
        "maps = open('/proc/self/maps').read()\n"
        "print(len({line.split()[-1] for line in maps.splitlines() if 'libgomp' in line}))"
    )
    assert out == "1\n"

"""The C kernels against torch's own operations, and the behaviour without kernels."""

from __future__ import annotations

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from crashlab.lab import compiler
from towernet.config import AugmentConfig
from towernet.engine.augment import NUM_DRAWS, augment, draws, normalise, training_input
from towernet.native import library, ops, selftest
from towernet.native.library import Library

TOLERANCE = {torch.float32: 3e-5, torch.bfloat16: 1e-2}

pytestmark = [
    pytest.mark.skipif(compiler() is None, reason="no C compiler"),
    pytest.mark.usefixtures("kernels_are_used"),
]


def feature_map(shape, dtype, *, offset=0.0):
    x = torch.randn(shape) * 2 + offset
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


def norm_of(channels):
    norm = torch.nn.BatchNorm2d(channels, eps=1e-3)
    with torch.no_grad():
        norm.weight.normal_()  # some are negative, so the window's smallest pixel is the maximum
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
    # In bfloat16 torch rounds before taking the maximum; a float32 reference does as the kernel.
    exact = with_gradients(by_torch, x.float(), seeded(norm_of, shape[1]), weights)
    got = with_gradients(ops.norm_pool_relu, x, seeded(norm_of, shape[1]), weights)
    for found, wanted in zip(got, exact, strict=True):
        assert relative_error(found, wanted) < TOLERANCE[dtype]


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


def test_statistics_do_not_cancel_for_a_large_mean():
    x = feature_map((4, 16, 64, 64), torch.float32, offset=1000.0)
    norm = torch.nn.BatchNorm2d(16)
    ops.norm_pool_relu(x, norm)
    variance = x.double().var(dim=(0, 2, 3), correction=1)
    torch.testing.assert_close(norm.running_var.double(), 0.9 + 0.1 * variance, rtol=1e-5, atol=0)


def test_nan_stays_nan():
    x = feature_map((2, 16, 4, 4), torch.float32)
    x[0, 3, 1, 1] = torch.nan
    y = ops.norm_pool_relu(x, torch.nn.BatchNorm2d(16))
    assert y[:, 3].isnan().all()
    assert not y[:, :3].isnan().any()


ATTENTION_TOLERANCE = {torch.float32: 3e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
LAYOUTS = [torch.channels_last, torch.contiguous_format]


def attention_of(channels, groups, *, shuffles=True):
    from towernet.attention.shuffle import ShuffleAttention

    block = ShuffleAttention(channels, groups=groups)
    block.shuffles = shuffles
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    return block


def attended(block, x, gain, weights):
    """Return the output and the gradients of map, parameters and gain."""
    x = x.clone().requires_grad_()
    if gain is None:
        y, gains = block(x), []
    else:
        gains = [gain.clone().requires_grad_()]
        y = block.blend(x, *gains)
    found = torch.autograd.grad(y, [x, *block.parameters(), *gains], weights.to(y.dtype))
    return [y.detach(), *found]


def check_attention(found, exact, tolerance):
    y, dx, *vectors = zip(found, exact, strict=True)
    for got, wanted in (y, dx):
        assert relative_error(got, wanted) < tolerance
    for got, wanted in vectors:  # sums, whose terms can cancel
        assert got.isfinite().all()
        assert (got - wanted).norm() < tolerance * (wanted.norm() + exact[0].norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", LAYOUTS, ids=["channels_last", "contiguous"])
@pytest.mark.parametrize(
    ("gain", "shuffles"), [(None, True), (None, False), (0.7, False), (-1.3, False)]
)
@pytest.mark.parametrize(
    ("shape", "groups"),
    [
        # Sixteen lanes hold whole sub-groups of 1, 2, 4, 8 or 16 channels, or do not; tails; odd
        # sides.
        ((2, 128, 5, 7), 64),
        ((2, 256, 16, 17), 64),
        ((3, 64, 13, 11), 8),
        ((2, 128, 7, 7), 8),
        ((2, 128, 3, 5), 4),
        ((2, 192, 3, 5), 6),
        ((2, 64, 3, 5), 1),
        ((2, 96, 61, 33), 3),
        ((2, 22, 7, 5), 11),
        ((3, 26, 3, 1), 1),
        ((2, 6, 31, 29), 3),
        ((1, 2, 1, 5), 1),
        ((5, 64, 1, 2), 8),
    ],
)
def test_shuffle_attention_is_its_formula(shape, groups, gain, shuffles, layout, dtype):
    block = attention_of(shape[1], groups, shuffles=shuffles)
    x = (torch.randn(shape) * 2 + 1).to(dtype).contiguous(memory_format=layout)
    weights, gain = torch.randn(shape).to(dtype), None if gain is None else torch.tensor(gain)
    found = attended(block, x, gain, weights)
    assert found[0].dtype == dtype
    assert found[0].stride() == found[1].stride() == x.stride()
    exact = attended(
        copy.deepcopy(block).double(), x.double(), None if gain is None else gain.double(), weights
    )
    check_attention(found, exact, ATTENTION_TOLERANCE[dtype])


@pytest.mark.parametrize("layout", LAYOUTS, ids=["channels_last", "contiguous"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(2, 256, 16, 17), (2, 96, 61, 33), (3, 26, 3, 1)])
def test_shuffle_attention_in_place_has_the_same_bits(shape, dtype, layout):
    block, gain = attention_of(shape[1], 1), torch.tensor(0.7)
    x = torch.randn(shape).to(dtype).contiguous(memory_format=layout)
    wanted, kept = block.blend(x, gain).detach(), x.clone()
    # With gradients enabled, x is not overwritten.
    assert torch.equal(block.blend_(x, gain), wanted) and torch.equal(x, kept)
    with torch.no_grad():
        over = block.blend_(x, gain)
    assert over.data_ptr() == x.data_ptr() and torch.equal(over, wanted)


def test_a_subclass_of_shuffle_attention_keeps_its_own_blend():
    from towernet.attention.shuffle import ShuffleAttention

    class Half(ShuffleAttention):
        def blend(self, x_BCHW, gain):
            return x_BCHW / 2

    x = torch.randn(2, 64, 5, 7)
    with torch.no_grad():
        assert torch.equal(Half(64).blend_(x, torch.tensor(1.0)), x / 2)


@pytest.mark.parametrize(
    "change", [{"shuffles": True}, {"epsilon": 4.0}, {"gain": torch.tensor(0.75)}, {"gain": None}]
)
def test_another_formula_is_detected(change, monkeypatch):
    block, gain = attention_of(64, 8, shuffles=False), torch.tensor(0.7)
    x, weights = feature_map((2, 64, 7, 5), torch.float32, offset=1.0), torch.randn(2, 64, 7, 5)
    exact = attended(copy.deepcopy(block).double(), x.double(), gain.double(), weights)
    right = ops.shuffle_attention
    monkeypatch.setattr(ops, "shuffle_attention", lambda *a, **k: right(*a, **k | change))
    with torch.no_grad():
        y = block.blend(x, gain)
    with pytest.raises(AssertionError):
        check_attention([y, *exact[1:]], exact, ATTENTION_TOLERANCE[torch.bfloat16])


@pytest.mark.parametrize("wrong", [0, 1, 5, 10])
def test_a_wrong_gradient_of_shuffle_attention_is_detected(wrong, monkeypatch):
    """For the map, the gain, and two vectors."""
    block, gain = attention_of(64, 8, shuffles=False), torch.tensor(0.7)
    x, weights = feature_map((2, 64, 7, 5), torch.float32, offset=1.0), torch.randn(2, 64, 7, 5)
    exact = attended(copy.deepcopy(block).double(), x.double(), gain.double(), weights)
    check_attention(attended(block, x, gain, weights), exact, 3e-5)
    original = ops._ShuffleAttention.backward

    def sabotaged(ctx, gradient):
        return tuple(
            g * 1.02 if place == wrong else g for place, g in enumerate(original(ctx, gradient))
        )

    monkeypatch.setattr(ops._ShuffleAttention, "backward", staticmethod(sabotaged))
    with pytest.raises(AssertionError):
        check_attention(attended(block, x, gain, weights), exact, 3e-5)


@pytest.mark.parametrize("layout", LAYOUTS, ids=["channels_last", "contiguous"])
@pytest.mark.parametrize("pixels", [(19, 23), (160, 170)])
def test_attentions_statistics_do_not_cancel_for_a_large_mean(pixels, layout):
    block = attention_of(32, 4)
    x = (torch.randn(2, 32, *pixels) + 1000).contiguous(memory_format=layout)
    exact = copy.deepcopy(block).double()(x.double())
    # a·x + d rounds by itself at 1000 standard deviations from 0: 1000·2^-24 of a gate.
    assert relative_error(block(x), exact) < 2e-4


@pytest.mark.parametrize("layout", LAYOUTS, ids=["channels_last", "contiguous"])
@pytest.mark.parametrize("special", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("gain", [None, 0.5])
def test_nan_and_inf_stay_in_their_channel(gain, special, layout):
    block = attention_of(64, 8, shuffles=False)
    x = torch.randn(2, 64, 5, 7).contiguous(memory_format=layout)
    x[0, [3, 5], 1, 1] = special  # one channel in each half
    gain = None if gain is None else torch.tensor(gain)
    weights = torch.ones_like(x)
    y, dx = attended(block, x, gain, weights)[:2]
    with ops.enabled(False):
        y_torch, dx_torch = attended(block, x, gain, weights)[:2]
    spoilt = torch.zeros_like(x, dtype=torch.bool)
    spoilt[0, [3, 5]] = True
    for got, wanted in ((y, y_torch), (dx, dx_torch)):
        torch.testing.assert_close(got[~spoilt], wanted[~spoilt], rtol=1e-5, atol=1e-5)
        assert not got[0, [3, 5], 1, 1].isfinite().any() or got is dx
        if special != special:  # the mean of infinities can be infinite or NaN
            assert torch.equal(got.isfinite(), wanted.isfinite())


@pytest.mark.parametrize("layout", LAYOUTS, ids=["channels_last", "contiguous"])
def test_gates_near_0_or_1_neither_overflow_nor_vanish(layout):
    block = attention_of(32, 4)
    x = feature_map((2, 32, 5, 7), torch.float32).contiguous(memory_format=layout)
    for bias in (-200.0, -60.0, 60.0, 200.0):
        torch.nn.init.constant_(block.spatial_bias, bias)
        torch.nn.init.constant_(block.channel_bias, bias)
        found = attended(block, x, None, torch.ones_like(x))
        exact = attended(copy.deepcopy(block).double(), x.double(), None, torch.ones_like(x))
        # A float32 has no number below exp(-87); torch's gates vanish there too.
        for got, wanted in zip(found, exact, strict=True):
            torch.testing.assert_close(got.double(), wanted, rtol=1e-3, atol=1e-30)


@pytest.mark.parametrize("stride", ["expanded", "other layout", "sliced"])
def test_a_gradient_in_another_layout_is_read_correctly(stride):
    block = attention_of(32, 4)
    x = feature_map((2, 32, 4, 6), torch.float32)
    weights = {
        "expanded": torch.randn(2, 32, 1, 1).expand_as(x),
        "other layout": torch.randn(x.shape),
        "sliced": torch.randn(2, 64, 4, 6)[:, ::2],
    }[stride]
    exact = attended(copy.deepcopy(block).double(), x.double(), None, weights)
    check_attention(attended(block, x, None, weights), exact, 3e-5)


def test_all_float16_values_are_read_and_rounded_as_in_torch():
    block = attention_of(64, 32, shuffles=False)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.zero_()
    # In the channel branch, whose gate is exactly 1/2.
    halves = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.float16)
    x = torch.stack([halves, halves]).reshape(2, -1, 32).permute(1, 2, 0).reshape(-1, 64, 1, 1)
    for gain in (0.0, 1.0, 0.3, -700.0):
        y = block.blend(x, torch.tensor(gain))[:, ::2]
        wanted = (x[:, ::2].float() * torch.tensor(1 - gain / 2)).half()
        finite = wanted.isfinite() & x[:, ::2].isfinite()
        torch.testing.assert_close(y[finite], wanted[finite], rtol=0, atol=0)
        assert not y[~finite].isfinite().any()


def test_threads_change_no_bit():
    from towernet.attention.shuffle import ShuffleAttention

    x, weights = feature_map((5, 64, 31, 29), torch.bfloat16), torch.randn(5, 64, 15, 14)
    single = feature_map((1, 320, 31, 29), torch.bfloat16)
    others = [single, single.contiguous(), feature_map((3, 40, 31, 29), torch.float32)]
    pixels = np.random.default_rng(3).integers(0, 256, (7, 40, 40, 3), dtype=np.uint8)
    rows = np.arange(7)
    numbers = draws(1, 2, rows.astype(np.uint64))
    block = ShuffleAttention(64, groups=8)
    torch.nn.init.normal_(block.spatial_weight)

    def attention():
        found = []
        for other in others:
            torch.manual_seed(3)
            block = attention_of(other.shape[1], 4)
            found += attended(block, other, torch.tensor(0.7), torch.randn(other.shape))
        return found

    def everything():
        inner = x.clone().requires_grad_()
        y = block(inner)
        y.float().square().sum().backward()
        images = training_input(
            pixels, rows, numbers, AugmentConfig(), size_px=32, mean=(0.5,) * 3, std=(0.2,) * 3,
            kernels=True,
        )  # fmt: skip
        pooled = with_gradients(ops.norm_pool_relu, x, torch.nn.BatchNorm2d(64), weights)
        spatial, block.spatial_weight.grad = block.spatial_weight.grad, None
        return [*pooled, y.detach(), inner.grad, spatial, images, *attention()]

    threads = torch.get_num_threads()
    found = []
    try:
        for num in (1, 2, 3):
            torch.set_num_threads(num)
            found.append(everything())
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
    x = training_input(
        pixels, rows, numbers, config, size_px=wanted, mean=mean, std=std, kernels=True
    )
    formula = augment(torch.from_numpy(pixels[rows]), numbers, config, size_px=wanted)
    different = (x - normalise(formula, mean, std)).abs() > 1e-3
    # A position half way between two pixels can be rounded to the other one.
    assert different.float().mean() < (1e-3 if config.interpolation == "nearest" else 1e-9)
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_pixels_in_a_tensor_give_the_same_images():
    """On a GPU they are in a tensor."""
    pixels = np.random.default_rng(3).integers(0, 256, (9, 40, 40, 3), dtype=np.uint8)
    rows = np.array([4, 0, 8])
    numbers = draws(1, 2, rows.astype(np.uint64))
    options = {"size_px": 32, "mean": (0.5,) * 3, "std": (0.2,) * 3}
    mapped = training_input(pixels, rows, numbers, AugmentConfig(), kernels=True, **options)
    tensor = training_input(torch.from_numpy(pixels), rows, numbers, AugmentConfig(), **options)
    torch.testing.assert_close(mapped, tensor, atol=1e-3, rtol=0)


def test_the_last_picture_is_not_read_beyond_its_end():
    """The file is memory-mapped, and the page after it may not exist; here it must not be read."""
    import ctypes
    import mmap

    size = 64
    num_bytes = 3 * size * size
    assert num_bytes % mmap.PAGESIZE == 0
    libc = ctypes.CDLL(None, use_errno=True)
    region = mmap.mmap(-1, num_bytes + mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(region))
    assert libc.mprotect(ctypes.c_void_p(address + num_bytes), mmap.PAGESIZE, 0) == 0
    stored = np.frombuffer(region, np.uint8, num_bytes).reshape(1, size, size, 3)
    x = training_input(
        stored, np.array([0]), np.full((1, NUM_DRAWS), 0.99), AugmentConfig(), size_px=size,
        mean=(0.0,) * 3, std=(1.0,) * 3, kernels=True,
    )  # fmt: skip
    assert not x.any()
    with pytest.raises(AssertionError):  # a row that does not exist
        training_input(
            stored, np.array([1]), np.full((1, NUM_DRAWS), 0.99), AugmentConfig(), size_px=size,
            mean=(0.0,) * 3, std=(1.0,) * 3, kernels=True,
        )  # fmt: skip


def test_maps_that_the_kernels_do_not_support_are_left_to_torch():
    x = torch.rand(2, 32, 4, 4).contiguous(memory_format=torch.channels_last)
    assert ops.usable(x, torch.ones(32))
    assert not ops.usable(x.contiguous())
    assert not ops.usable(x.half())
    assert not ops.usable(x.to("meta"))
    assert not ops.usable(x[:, :20].contiguous(memory_format=torch.channels_last))
    assert ops.usable(x, torch.ones(32).bfloat16())
    assert not ops.usable(x, torch.ones(32).int())
    assert not ops.usable(x, torch.ones(32).to(torch.float8_e5m2))
    assert not ops.usable(x, None)
    assert all(map(ops.usable_for_attention, (x, x.contiguous(), x.half(), x[:, :20].contiguous())))
    assert not any(
        map(ops.usable_for_attention, (x[:, :, 1:], x[:, ::2], x.double(), x.to("meta"), x[0]))
    )
    assert ops.usable_for_attention(x, torch.ones(32).bfloat16())
    assert not ops.usable_for_attention(x, torch.ones(32).bfloat16()[::2])
    assert (
        torch.func.vmap(lambda inner: torch.tensor(float(ops.usable(inner[None]))))(x).eq(0).all()
    )
    with ops.enabled(False):
        assert not ops.usable(x)
        assert not ops.usable_for_attention(x)


@pytest.mark.parametrize(
    "change",
    [
        lambda norm: norm.eval(),
        lambda norm: setattr(norm, "momentum", None),
        lambda norm: setattr(norm, "momentum", 1),
        lambda norm: norm.register_forward_hook(lambda *_: None),
    ],
    ids=["frozen", "cumulative average", "a whole number", "watched"],
)
def test_a_stage_with_an_unusual_norm_does_what_torch_does(change):
    from towernet.models.blocks import ConvNormPool

    x = torch.randn(3, 3, 12, 12).contiguous(memory_format=torch.channels_last)
    results = []
    for native in (True, False):
        torch.manual_seed(1)
        stage = ConvNormPool(3, 16).to(memory_format=torch.channels_last).train()
        change(stage.norm)
        with ops.enabled(native):
            results.append([stage(x).detach().float(), stage.norm.running_mean.float()])
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_an_attention_for_other_channels_is_refused_by_torch():
    from towernet.attention.shuffle import ShuffleAttention

    x = torch.rand(2, 512, 4, 4).contiguous(memory_format=torch.channels_last)
    with pytest.raises(RuntimeError):
        ShuffleAttention(256)(x)


def test_other_defaults_of_torch_change_nothing():
    x = feature_map((3, 32, 8, 8), torch.float32)
    wanted = ops.norm_pool_relu(x, torch.nn.BatchNorm2d(32))
    norm = torch.nn.BatchNorm2d(32)
    torch.set_default_dtype(torch.bfloat16)
    try:
        found = ops.norm_pool_relu(x, norm)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, wanted)


def test_the_self_test_passes_here():
    from towernet.engine import kernels

    assert selftest.excess() < 1
    assert kernels.fault() is None


@pytest.mark.parametrize("broken", ["_NormPoolRelu", "_ShuffleAttention"])
@pytest.mark.parametrize("factor", [1.02, float("nan")])
def test_the_self_test_rejects_a_wrong_gradient(broken, factor, monkeypatch):
    original = getattr(ops, broken).backward

    def wrong(ctx, gradient):
        dx, *rest = original(ctx, gradient)
        return (dx * factor, *rest)

    monkeypatch.setattr(getattr(ops, broken), "backward", staticmethod(wrong))
    assert not selftest.excess() <= 1


def test_the_self_test_rejects_a_wrong_image(monkeypatch):
    from towernet.engine import kernels

    original = ops.augment
    monkeypatch.setattr(ops, "augment", lambda *a, **k: original(*a, **k).flip(3))
    assert kernels._augmentation_excess() > 1


def in_a_new_process(code, **environment):
    import os

    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env=os.environ | environment,
    ).stdout  # fmt: skip


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("no-such-compiler", "no C compiler was found (CC is no-such-compiler)"),
        ("", "no C compiler was found (install gcc)"),
    ],
)
def test_without_a_compiler_torch_is_used_and_the_reason_is_reported(named, words, tmp_path):
    out = in_a_new_process(
        "from towernet.engine import device\n"
        "policy = device.Policy('cpu', 'float32', True, 1, '')\n"
        "print(device._choose_kernels(policy), device.kernels_here(policy))",
        CC=named,
        **({} if named else {"PATH": str(tmp_path)}),
    )
    assert out == f"('torch', ['training is slower than it could be: {words}']) torch\n"


@pytest.mark.proof
def test_cc_can_be_several_words(tmp_path):
    out = in_a_new_process(
        "from towernet.native.library import load\nprint(load().identity)",
        CC=f"env {compiler()}",
        TOWERNET_CACHE=str(tmp_path / "cache"),
    )
    assert len(out.strip()) == 16


@pytest.mark.proof
def test_a_cache_that_others_can_write_to_is_not_used(tmp_path):
    code = "from towernet.native.library import load\nprint(getattr(load(), 'reason', 'loaded'))"
    assert in_a_new_process(code, TOWERNET_CACHE=str(tmp_path)) == "loaded\n"
    (tmp_path / "native").chmod(0o777)
    assert "other users can write to" in in_a_new_process(code, TOWERNET_CACHE=str(tmp_path))


@pytest.mark.proof
def test_a_damaged_library_is_recompiled(tmp_path):
    code = "from towernet.native.library import load\nprint(getattr(load(), 'reason', 'loaded'))"
    in_a_new_process(code, TOWERNET_CACHE=str(tmp_path))
    (file,) = (tmp_path / "native").glob("*.so")
    file.write_bytes(b"no library")
    assert in_a_new_process(code, TOWERNET_CACHE=str(tmp_path)) == "loaded\n"


def test_a_failing_compiler_is_reported(tmp_path):
    failing = tmp_path / "cc"
    failing.write_text("#!/bin/sh\necho 'kernels.c:1: error: no' >&2\nexit 1\n")
    failing.chmod(0o755)
    out = in_a_new_process(
        "from towernet.native.library import load\nprint(load().reason)",
        CC=str(failing),
        TOWERNET_CACHE=str(tmp_path / "cache"),
    )
    assert out == "the kernels could not be compiled (kernels.c:1: error: no)\n"


def test_a_run_started_with_kernels_is_not_silently_resumed_without(monkeypatch):
    from towernet.engine import kernels
    from towernet.engine.device import Policy, kernels_here
    from towernet.errors import EnvironmentFault

    policy = Policy("cpu", "float32", True, 1, "test", "native")
    assert kernels_here(policy) == "native"
    monkeypatch.setattr(kernels, "fault", lambda: "no C compiler was found (install gcc)")
    refused = pytest.raises(EnvironmentFault, match=r"used the C kernels, but no C compiler.*--acc")
    with refused, policy.active():
        pass
    assert kernels_here(policy) == "torch"


@pytest.mark.proof
def test_the_library_is_compiled_once(tmp_path):
    code = "from towernet.native.library import load\nprint(load().identity)"
    first = in_a_new_process(code, TOWERNET_CACHE=str(tmp_path)).strip()
    file = tmp_path / "native" / f"{first}.so"
    made = file.stat().st_mtime_ns
    assert in_a_new_process(code, TOWERNET_CACHE=str(tmp_path)).strip() == first
    assert file.stat().st_mtime_ns == made
    assert sorted(path.name for path in file.parent.iterdir() if path.suffix != "") == [file.name]


@pytest.mark.proof
def test_the_kernels_share_torchs_threads():
    """A second pool of threads would spin, waiting for the cores of the first."""
    assert isinstance(library.load(), Library)
    out = in_a_new_process(
        "import torch\n"
        "from towernet.native import ops, selftest\n"
        "selftest.excess()\n"
        "maps = open('/proc/self/maps').read()\n"
        "print(len({line.split()[-1] for line in maps.splitlines() if 'libgomp' in line}))"
    )
    assert out == "1\n"

"""Networks converted to another number format as a whole: the same results, by the same kernels."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from crashlab.lab import compiler
from towernet.attention import fused
from towernet.engine.block_cost import kernel_of
from towernet.native import ops, selftest

FORMATS = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
# What a result rounded to the format, or sums of thousands of such numbers, can deviate by.
TOLERANCE = {
    torch.float32: 3e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3, torch.float64: 1e-12
}  # fmt: skip
LAYOUTS = [torch.channels_last, torch.contiguous_format]
LAYOUT_NAMES = ["channels_last", "contiguous"]

pytestmark = [
    pytest.mark.skipif(compiler() is None, reason="no C compiler"),
    pytest.mark.usefixtures("kernels_are_used"),
]


def attention_of(channels, groups, dtype, *, shuffles=True):
    from towernet.attention.shuffle import ShuffleAttention

    block = ShuffleAttention(channels, groups=groups)
    block.shuffles = shuffles
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    return block.to(dtype)


def drawn_map(shape, dtype, layout):
    return (
        (torch.randn(shape, dtype=torch.float64) * 2 + 1).to(dtype).contiguous(memory_format=layout)
    )


def attended(block, x, gain, weights):
    """Return what computed the output; it, and the gradients of map, parameters and gain."""
    x = x.clone().requires_grad_()
    gains = [] if gain is None else [gain.clone().requires_grad_()]
    y = block.blend(x, *gains) if gains else block(x)
    found = torch.autograd.grad(y, [x, *block.parameters(), *gains], weights.to(y.dtype))
    return kernel_of(y), [y.detach(), *found]


def exactly(block, x, gain, weights):
    """Return the same by the formula in float64."""
    with ops.enabled(False), fused.formula_only():
        gain = None if gain is None else gain.double()
        return attended(copy.deepcopy(block).double(), x.double(), gain, weights.double())[1]


def check(found, exact, dtype, of_parameters):
    """The formats, and the deviation from the exact results: of output, map, parameters, gain."""
    y, dx, *vectors = zip(found, exact, strict=True)
    for got, wanted in (y, dx):
        assert got.dtype == dtype
        assert (got - wanted).norm() < TOLERANCE[dtype] * wanted.norm()
    tolerance = max(TOLERANCE[dtype], TOLERANCE[of_parameters])
    for got, wanted in vectors:  # sums, whose terms can cancel
        assert got.dtype == of_parameters
        assert (got - wanted).norm() < tolerance * (wanted.norm() + exact[0].norm())


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("of_parameters", FORMATS)
@pytest.mark.parametrize("layout", LAYOUTS, ids=LAYOUT_NAMES)
@pytest.mark.parametrize("gain", [None, 0.7], ids=["as it is", "blended"])
@pytest.mark.parametrize(("shape", "groups"), [((2, 128, 9, 7), 16), ((3, 26, 5, 1), 1)])
def test_shuffle_attention_is_its_formula(shape, groups, gain, layout, of_parameters, dtype):
    block = attention_of(shape[1], groups, of_parameters)
    x, weights = (drawn_map(shape, dtype, layout) for _ in range(2))
    gain = None if gain is None else torch.tensor(gain, dtype=of_parameters)
    kernel, found = attended(block, x, gain, weights)
    # The kernel has no float64.
    assert kernel == ("torch" if dtype == torch.float64 else "native")
    assert found[0].stride() == found[1].stride() == x.stride()
    exact = exactly(block, x, gain, weights)
    check(found, exact, dtype, of_parameters)
    with torch.no_grad():
        y = block(x) if gain is None else block.blend_(x.clone(memory_format=layout), gain)
    assert torch.equal(y, found[0])
    wrong = [tensor * 1.05 for tensor in found]
    with pytest.raises(AssertionError):
        check([*found[:2], *wrong[2:]], exact, dtype, of_parameters)
    with pytest.raises(AssertionError):
        check([tensor.float().to(torch.float8_e5m2) for tensor in found], exact, dtype, dtype)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("of_parameters", FORMATS)
@pytest.mark.parametrize("layout", LAYOUTS, ids=LAYOUT_NAMES)
@pytest.mark.parametrize(("gain", "shuffles"), [(None, True), (None, False), (0.7, False)], ids=str)
@pytest.mark.parametrize(("shape", "groups"), [((2, 128, 9, 7), 16), ((3, 26, 5, 1), 1)])
def test_without_its_kernel_it_is_its_formula(
    shape, groups, gain, shuffles, layout, of_parameters, dtype
):
    block = attention_of(shape[1], groups, of_parameters, shuffles=shuffles)
    x, weights = (drawn_map(shape, dtype, layout) for _ in range(2))
    gain = None if gain is None else torch.tensor(gain, dtype=of_parameters)
    with ops.enabled(False):
        kernel, found = attended(block, x, gain, weights)
    assert kernel == "torch"
    assert found[0].stride() == x.stride()
    check(found, exactly(block, x, gain, weights), dtype, of_parameters)


@pytest.mark.parametrize("layout", LAYOUTS, ids=LAYOUT_NAMES)
@pytest.mark.parametrize(
    "cut", [(slice(None),) * 2 + (slice(1, None),), (slice(None), slice(4, 36))]
)
def test_a_slice_of_a_map_keeps_its_layout(cut, layout):
    block = attention_of(32, 4, torch.float32)
    x = drawn_map((2, 32 if cut[1] == slice(None) else 40, 9, 7), torch.float32, layout)[cut]
    y = block(x)
    assert y.is_contiguous(memory_format=layout)
    with fused.formula_only():
        torch.testing.assert_close(y, block(x))


def test_without_its_kernel_it_can_be_differentiated_twice():
    block, x = (
        attention_of(16, 2, torch.float64),
        drawn_map((2, 16, 3, 4), torch.float64, LAYOUTS[0]),
    )
    with ops.enabled(False):
        inputs = [x.requires_grad_(), *block.parameters()]
        assert torch.autograd.gradgradcheck(lambda x, *_: block(x), inputs)


@pytest.mark.parametrize("kernels", ["native", "torch"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_runs_compute_by_the_formula_where_no_kernel_applies(dtype, kernels):
    """The bits of runs that were started before must not change."""
    from towernet.attention.shuffle import _weighed
    from towernet.engine.device import Policy

    block = attention_of(32, 4, torch.float32)
    x = drawn_map((2, 32, 9, 7), dtype, torch.channels_last)[:, :, 1:]
    wanted = _weighed(x, block._vectors(), 4, None, True)
    with Policy("cpu", "float32", True, 1, "test", kernels).active():
        assert torch.equal(block(x), wanted)
    assert not torch.equal(block(x), wanted)


@pytest.mark.parametrize("dtype", FORMATS)
def test_each_parameter_can_have_its_own_format(dtype):
    block = attention_of(64, 8, torch.float32)
    for parameter, its_own in zip(block.parameters(), [*FORMATS, *FORMATS], strict=False):
        parameter.data = parameter.data.to(its_own)
    x = drawn_map((2, 64, 5, 7), dtype, torch.channels_last)
    _, found = attended(block, x, torch.tensor(0.5, dtype=torch.float16), torch.ones_like(x))
    gradients = [gradient.dtype for gradient in found[2:]]
    assert gradients == [*(parameter.dtype for parameter in block.parameters()), torch.float16]


@pytest.mark.parametrize("convert", ["bfloat16", "half", "double", "float"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=LAYOUT_NAMES)
def test_attention_in_a_converted_network_uses_its_kernel(convert, layout):
    from towernet.attention.attach import attach

    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 32, 3), torch.nn.Conv2d(32, 32, 3), torch.nn.Conv2d(32, 8, 1)
    )
    (attached, *_) = attach(network, "shuffle", ["1"])
    network = getattr(network, convert)().to(memory_format=layout)
    x = torch.randn(2, 3, 9, 9).to(next(network.parameters()).dtype)
    outputs = []
    attached.block.register_forward_hook(lambda block, given, y: outputs.append(y))
    network(x.contiguous(memory_format=layout)).sum().backward()
    assert kernel_of(outputs[0]) == ("torch" if convert == "double" else "native")
    assert {p.grad.dtype for p in network.parameters() if p.grad is not None} == {x.dtype}


@pytest.mark.parametrize("of_parameters", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_and_parameters_of_any_format(dtype, of_parameters):
    block = attention_of(32, 4, of_parameters)
    x = drawn_map((2, 32, 5, 7), dtype, torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        kernel, found = attended(block, x, None, torch.ones_like(x))
    assert kernel == "native"
    check(found, exactly(block, x, None, torch.ones_like(x)), dtype, of_parameters)


def stage_of(dtype, *, training):
    from towernet.models.blocks import ConvNormPool

    torch.manual_seed(1)
    stage = ConvNormPool(3, 16).to(memory_format=torch.channels_last).train(training)
    torch.nn.init.normal_(stage.norm.weight)
    stage.norm.running_mean.normal_()
    stage.norm.running_var.uniform_(1, 2)
    stage.norm.to(dtype)
    return stage


def pooled(norm, x, forward):
    x = x.clone().requires_grad_()
    y = forward(x, norm)
    gradients = torch.autograd.grad(y.double().square().sum(), [x, *norm.parameters()])
    return [y.detach(), *gradients, norm.running_mean, norm.running_var]


@pytest.mark.parametrize("of_norm", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norm_pooling_and_relu_of_a_converted_norm(dtype, of_norm):
    norm = stage_of(of_norm, training=True).norm
    x = drawn_map((3, 16, 9, 7), dtype, torch.channels_last)
    assert ops.usable(x, norm.weight, norm.bias, norm.running_mean, norm.running_var)
    exact = pooled(
        copy.deepcopy(norm).double(), x.double(), lambda x, norm: F.relu(F.max_pool2d(norm(x), 2))
    )
    found = pooled(norm, x, ops.norm_pool_relu)
    assert [tensor.dtype for tensor in found] == [dtype, dtype, *[of_norm] * 4]
    tolerance = max(TOLERANCE[dtype], TOLERANCE[of_norm])
    for got, wanted in zip(found, exact, strict=True):
        assert (got - wanted).norm() < tolerance * wanted.norm()
    assert norm.num_batches_tracked == 1


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("of_norm", FORMATS[:3])
def test_a_stage_in_bf16_is_that_of_torch_with_any_norm(of_norm, training, monkeypatch):
    stage = stage_of(of_norm, training=training)
    stage.conv.bfloat16()
    x = torch.randn(2, 3, 12, 12).bfloat16().contiguous(memory_format=torch.channels_last)
    exact = copy.deepcopy(stage).double()
    with torch.no_grad():
        convolved = stage.conv(x).double()
        wanted = F.relu(F.max_pool2d(exact.norm(convolved), 2))
        called = []
        for name in ("norm_pool_relu", "line_pool_relu"):
            kernel = getattr(ops, name)
            monkeypatch.setattr(
                ops, name, lambda *given, kernel=kernel: called.append(1) or kernel(*given)
            )
        found = stage(x)
    assert called and found.dtype == torch.bfloat16
    assert (found - wanted).norm() < TOLERANCE[torch.bfloat16] * wanted.norm()


@pytest.mark.parametrize("dtype", FORMATS[1:])
def test_the_self_test_rejects_a_wrongly_converted_parameter(dtype, monkeypatch):
    right = ops._in_float32
    monkeypatch.setattr(
        ops, "_in_float32", lambda number: right(number) * (1.05 if number.dtype == dtype else 1)
    )
    assert not selftest.excess() <= 1

"""Compare the kernels' results with torch's on this machine; once per process that uses them."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from towernet.native import ops

# Sums of thousands of float32 numbers in another order; bfloat16 has eight significant bits.
LARGEST_DEVIATION = {torch.float32: 1e-4, torch.bfloat16: 1e-2, torch.float16: 2e-3}
FORMATS_OF_PARAMETERS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def excess() -> float:
    """Return the largest relative error of outputs and gradients, divided by the allowed one.

    At most 1 is fine. NaN is returned if there is one.
    """
    generator = torch.Generator().manual_seed(0)
    # More rows than fit in a block, and odd sides.
    drawn = 3 + torch.randn(2, 32, 61, 47, generator=generator, device="cpu", dtype=torch.float32)
    errors = []
    for dtype, of_parameters in itertools.product(LARGEST_DEVIATION, FORMATS_OF_PARAMETERS):
        # Other formats are converted to float32 for the same kernel, so a small map will do.
        x = (drawn if of_parameters == torch.float32 else drawn[:, :, :9, :7]).to(dtype)
        got = x.contiguous(memory_format=torch.channels_last).requires_grad_()
        planes = x.clone(memory_format=torch.contiguous_format).requires_grad_()
        wanted = x.float().clone().requires_grad_()
        results = [
            (_shuffle(got, of_parameters), _shuffle(wanted, of_parameters, native=False)),
            (_blend(planes, of_parameters), _blend(wanted, of_parameters, native=False)),
        ]
        if dtype != torch.float16:
            by_torch = _norm_pool_relu(wanted, of_parameters, native=False)
            results += [(_norm_pool_relu(got, of_parameters), by_torch), _evaluated(got.detach())]
        pairs = [pair for result in results for pair in zip(*result, strict=True)]
        errors += [
            float((found.double() - expected).norm() / expected.norm())
            # A parameter's gradient is rounded to its own format.
            / max(LARGEST_DEVIATION[dtype], LARGEST_DEVIATION.get(found.dtype, 0))
            for found, expected in pairs
        ]
    return float(torch.tensor(errors).max())  # Python's own max can ignore NaN


def _evaluated(x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    scale, shift = torch.linspace(-1, 2, x.shape[1]), torch.linspace(-2, 1, x.shape[1])
    line = x.float() * scale[:, None, None] + shift[:, None, None]
    return [ops.line_pool_relu(x, scale, shift)], [F.relu(F.max_pool2d(line, 2))]


def _norm_pool_relu(x: Tensor, dtype: torch.dtype, *, native: bool = True) -> list[Tensor]:
    norm = nn.BatchNorm2d(x.shape[1])
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(-1, 2, x.shape[1]))
        norm.bias.copy_(torch.linspace(-0.5, 0.5, x.shape[1]))
    norm.to(dtype)
    y = ops.norm_pool_relu(x, norm) if native else F.relu(F.max_pool2d(norm.float()(x), 2))
    return _with_gradients(y, [x, *norm.parameters()]) + [*norm.buffers()][:2]


def _shuffle(x: Tensor, dtype: torch.dtype, *, native: bool = True) -> list[Tensor]:
    parameters = _vectors(4, dtype)
    if native:
        y = ops.shuffle_attention(x, parameters, groups=4, epsilon=1e-5)
    else:
        y = _plain_shuffle_attention(x, *[vector.float() for vector in parameters])
    return _with_gradients(y, [x, *parameters])


def _blend(x: Tensor, dtype: torch.dtype, *, native: bool = True) -> list[Tensor]:
    """With a gain, and unshuffled."""
    parameters, gain = _vectors(2, dtype), torch.tensor(0.6, dtype=dtype, requires_grad=True)
    if native:
        y = ops.shuffle_attention(x, parameters, groups=8, epsilon=1e-5, gain=gain, shuffles=False)
    else:
        shuffled = _plain_shuffle_attention(x, *[vector.float() for vector in parameters])
        unshuffled = shuffled.unflatten(1, (-1, 2)).transpose(1, 2).flatten(1, 2)
        y = x + gain.float() * (unshuffled - x)
    return _with_gradients(y, [x, *parameters, gain])


def _vectors(half: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    weights = torch.linspace(-1, 1.5, 6 * half).reshape(6, half).to(dtype)
    return tuple(row.clone().requires_grad_() for row in weights)


def _plain_shuffle_attention(
    x: Tensor, channel_weight: Tensor, channel_bias: Tensor, spatial_weight: Tensor,
    spatial_bias: Tensor, norm_weight: Tensor, norm_bias: Tensor,
) -> Tensor:  # fmt: skip
    """The layer as in its paper's listing."""
    b, _, h, w = x.shape
    half = len(channel_weight)

    def spread(parameter: Tensor) -> Tensor:
        return parameter[None, :, None, None]

    x_0, x_1 = x.reshape(-1, 2 * half, h, w).chunk(2, dim=1)
    gate_0 = spread(channel_weight) * x_0.mean((2, 3), keepdim=True) + spread(channel_bias)
    normed = F.group_norm(x_1, half, norm_weight, norm_bias)
    gate_1 = spread(spatial_weight) * normed + spread(spatial_bias)
    y = torch.cat([x_0 * gate_0.sigmoid(), x_1 * gate_1.sigmoid()], dim=1)
    return y.reshape(b, 2, -1, h, w).transpose(1, 2).reshape(x.shape)


def _with_gradients(y: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    weights = torch.linspace(-1, 1, y.numel()).reshape(y.shape)
    return [y.detach(), *torch.autograd.grad((y.float() * weights).sum(), inputs)]

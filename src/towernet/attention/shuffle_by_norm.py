"""Shuffle attention by torch's group norm, for a CPU where the kernel does not apply.

The formula takes 2 to 3 times as long: its maps are in fp32, and torch's `var_mean` takes as long
as a textbook's whole forward pass. Here a layer has fewer operations than the listing in its paper.
Shapes: B images, C channels, H × W pixels, G groups, k = C / 2G channels in half a group, N = B·G.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from towernet import torch_private
from towernet.attention import fused
from towernet.attention.base import weigh

_SIDE_OF_A_LARGE_MATRIX = 60  # from which on torch transposes in blocks


def usable(x_BCHW: Tensor) -> bool:
    """Whether the norm takes the formula's place.

    Not in runs, whose bits stay as they were; and not where something looks into the formula: a
    trace, a transform, one of torch's modes.
    """
    return (
        x_BCHW.is_cpu
        and type(x_BCHW) is Tensor
        and not fused.is_formula_only()
        and not fused.is_wanted(x_BCHW)
        and not torch.compiler.is_compiling()
        and not torch_private.is_transformed_or_traced()
        and not torch_private.is_watched()
    )


def shuffle_attention(
    x_BCHW: Tensor,
    vectors: tuple[Tensor, ...],
    groups: int,
    epsilon: float,
    gain: Tensor | None,
    shuffles: bool,
) -> Tensor:
    """Shuffle attention: (B, C, H, W) to the same shape, in the same layout and format.

    Statistics are computed in fp32 at least, and so are gates, unless map and parameters are in one
    narrower format. Gates are then rounded to the map's format, as those of the other blocks.

    Args:
        x_BCHW: The map; it must be `usable`.
        vectors: Channel weight and bias, spatial weight and bias, norm weight and bias, (k,).
        groups: G.
        epsilon: Added to the variance.
        gain: α, one number: the gates σ become 1 + α·(σ − 1). None: 1.
        shuffles: Whether the halves of the channels alternate in the output.
    """
    dtype = torch.promote_types(x_BCHW.dtype, torch.float32)
    channel_weight, channel_bias, spatial_weight, spatial_bias, norm_weight, norm_bias = (
        vector.to(dtype) for vector in vectors
    )
    half = len(channel_weight)
    last = not x_BCHW.is_contiguous() and x_BCHW.stride(1) < x_BCHW.stride(3)
    planes_BCHW: Tensor = _Planes.apply(x_BCHW) if last else x_BCHW
    planes_NCHW = planes_BCHW.reshape(-1, 2 * half, *x_BCHW.shape[2:])
    channel_NkHW, spatial_NkHW = planes_NCHW.chunk(2, dim=1)
    mean_Nk11 = channel_NkHW.mean((2, 3), keepdim=True, dtype=dtype)
    z_Nk11 = channel_weight[:, None, None] * mean_Nk11 + channel_bias[:, None, None]
    if x_BCHW.dtype == dtype:
        # torch's norm loses digits where the mean is large against the spread. It does not depend
        # on what is subtracted from all pixels, so neither does a gradient.
        wide_NkHW = spatial_NkHW - spatial_NkHW.detach().mean((2, 3), keepdim=True)
    elif any(vector.dtype != x_BCHW.dtype for vector in vectors):
        # A gate near 0 needs more digits of what it is the sigmoid of than bf16 has.
        wide_NkHW = spatial_NkHW.to(dtype)
    else:  # where the parameters have no more digits themselves: half the time, as in the listing
        wide_NkHW = spatial_NkHW
    # The norm's affine map and the gate's are one.
    weight, bias = spatial_weight * norm_weight, spatial_bias + spatial_weight * norm_bias
    z_NkHW = torch.group_norm(wide_NkHW, half, weight, bias, epsilon)
    halves = (channel_NkHW, z_Nk11), (spatial_NkHW, z_NkHW)
    y_NCHW = torch.cat([_gated(x, torch.sigmoid(z), gain) for x, z in halves], dim=1)
    y_BCHW = y_NCHW.view(x_BCHW.shape)
    if shuffles:
        y_BCHW = y_BCHW.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)
    if last:
        y_BCHW = _ChannelsLast.apply(y_BCHW)
    return y_BCHW


def _gated(x: Tensor, gates: Tensor, gain: Tensor | None) -> Tensor:
    if gain is None:
        return weigh(x, gates)
    # Not rounded next to 1, where a small gain would be lost.
    return torch.addcmul(x, x, (gain * (gates - 1)).to(x.dtype))


class _Planes(torch.autograd.Function):
    """From channels_last to planes; the gradient goes back to channels_last."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        if x.shape[1] < _SIDE_OF_A_LARGE_MATRIX or x[0, 0].numel() < _SIDE_OF_A_LARGE_MATRIX:
            return x.contiguous()
        planes = torch.empty_like(x, memory_format=torch.contiguous_format)
        for planes_CHW, image_CHW in zip(planes, x, strict=True):
            planes_CHW.flatten(1).copy_(image_CHW.flatten(1))
        return planes

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _ChannelsLast.apply(gradient)


class _ChannelsLast(torch.autograd.Function):
    """The way back."""

    @staticmethod
    def forward(ctx: Any, planes: Tensor) -> Tensor:
        return planes.clone(memory_format=torch.channels_last)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _Planes.apply(gradient)

"""The kernels as torch operations, with their gradients.

Where a kernel is called there is an equivalent formula; `usable` tells which of them to use.
Shapes: B images, C channels, H × W pixels, I × J = H/2 × W/2 pooled pixels.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from towernet import torch_private
from towernet.native.library import Library, load

_SUFFIX = {torch.bfloat16: "bf16", torch.float32: "f32", torch.float16: "f16"}
_OF_PARAMETERS = frozenset({*_SUFFIX, torch.float64})
_enabled = False


def enable(wanted: bool) -> None:
    """Use the kernels from now on, or torch's own operations: part of a run's policy.

    Raises:
        RuntimeError: they are wanted but not available here.
    """
    global _enabled
    if wanted and not isinstance(found := load(), Library):
        raise RuntimeError(found.reason)
    _enabled = wanted


@contextlib.contextmanager
def enabled(wanted: bool) -> Iterator[None]:
    """Use the kernels, or not, inside a `with`."""
    before = _enabled
    enable(wanted)
    try:
        yield
    finally:
        enable(before)


def usable(x_BCHW: Tensor, *parameters: Tensor | None) -> bool:
    """Whether the kernels of norm and pooling can take this map, these parameters and statistics.

    They must be enabled and the program not traced or transformed; the map channels_last on a CPU,
    in bfloat16 or float32; the parameters in any of torch's usual floating formats, as in a network
    that was converted as a whole. Everything else is left to torch.
    """
    return (
        _in_reach(x_BCHW, parameters)
        and x_BCHW.dtype != torch.float16
        and x_BCHW.shape[1] % 16 == 0
        and x_BCHW.is_contiguous(memory_format=torch.channels_last)
    )


def usable_for_attention(x_BCHW: Tensor, *parameters: Tensor | None) -> bool:
    """Whether the kernel of shuffle attention can take this map and these parameters.

    As above; the map can also be contiguous, or in float16, and have any number of channels.
    """
    return _in_reach(x_BCHW, parameters) and (
        x_BCHW.is_contiguous(memory_format=torch.channels_last) or x_BCHW.is_contiguous()
    )


def _in_reach(x_BCHW: Tensor, parameters: tuple[Tensor | None, ...]) -> bool:
    return (
        _enabled
        and type(x_BCHW) is Tensor
        and x_BCHW.dtype in _SUFFIX
        and x_BCHW.is_cpu
        and x_BCHW.dim() == 4
        and x_BCHW.numel() > 0
        and all(map(_is_plain, parameters))
        and not torch_private.is_transformed_or_traced()
        and not torch.compiler.is_compiling()
    )


def _is_plain(parameter: Tensor | None) -> bool:
    return (
        parameter is not None
        and parameter.dtype in _OF_PARAMETERS
        and parameter.is_cpu
        and parameter.is_contiguous()
    )


def _in_float32(parameter: Tensor) -> Tensor:
    """Return a parameter as the kernels read it: itself if it is in float32, else a copy."""
    return parameter if parameter.dtype == torch.float32 else parameter.float()


def _float32(*shape: int) -> Tensor:
    """Return memory for numbers, independent of torch's defaults."""
    return torch.empty(shape, dtype=torch.float32, device="cpu")


def _float64(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float64, device="cpu")


def _like(x: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
    """Return memory for a feature map, channels_last, in the number format of another tensor."""
    return torch.empty(shape, dtype=x.dtype, device="cpu", memory_format=torch.channels_last)


def _call(name: str, *arguments: Any) -> Any:
    """Call a function of the library: tensors are passed as pointers, whole numbers as int64.

    It keeps the tensors alive during the call, which a pointer alone would not.
    """
    found = load()
    assert isinstance(found, Library)
    return getattr(found.functions, name)(*[_as_c(argument) for argument in arguments])


def _call_for(x: Tensor, name: str, *arguments: Any) -> None:
    """Call a kernel for the number format of `x`; the last argument is the number of threads."""
    _call(f"{name}_{_SUFFIX[x.dtype]}", *arguments, torch.get_num_threads())


def augment(
    stored_NSSC: npt.NDArray[np.uint8],
    rows_B: npt.NDArray[np.int64],
    maps_B23: Tensor,
    colours_B33: Tensor,
    contrasts_B: Tensor,
    *,
    size_px: int,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    nearest: bool,
    clip: bool,
) -> Tensor:
    """Warp images, map their colours, normalise them: (B, 3, O, O) float32, channels_last.

    `towernet.engine.augment.augment` and `normalise` are the same in torch.

    Args:
        stored_NSSC: All the images, contiguous in memory.
        rows_B: Which of them.
        maps_B23: From output to input positions, both in [-1, 1] across the image.
        colours_B33: Linear maps of red, green and blue.
        contrasts_B: Contrast factors about the image's mean, applied after the colour maps.
        size_px: O.
        mean: Of each colour, in [0, 1].
        std: Of each colour.
        nearest: Nearest pixel and black outside, else bilinear and mirrored outside.
        clip: Clip values to [0, 1] before normalisation.
    """
    assert stored_NSSC.dtype == np.uint8 and stored_NSSC.flags.c_contiguous
    assert len(rows_B) == len(maps_B23) == len(colours_B33) == len(contrasts_B)
    assert len(rows_B) == 0 or 0 <= rows_B.min() <= rows_B.max() < len(stored_NSSC)
    size = stored_NSSC.shape[1]
    rows = np.ascontiguousarray(rows_B, np.int64)
    floats = [
        torch.as_tensor(values, dtype=torch.float32, device="cpu").contiguous()
        for values in (maps_B23, colours_B33, contrasts_B, mean, [1 / value for value in std])
    ]
    maps, colours, contrasts, centre, inverse_std = floats
    out_BOOC = _float32(len(rows), size_px, size_px, 3)
    failed = _call(
        "augment", stored_NSSC, rows, len(rows), size, maps, colours, contrasts, int(clip),
        int(nearest), centre, inverse_std, size_px, out_BOOC, torch.get_num_threads(),
    )  # fmt: skip
    if failed:
        raise MemoryError(f"not enough memory to augment {len(rows)} images of {size} pixels")
    return out_BOOC.permute(0, 3, 1, 2)


def _as_c(value: Any) -> Any:
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    if value is None:
        return None
    if isinstance(value, np.ndarray):
        return ctypes.c_void_p(value.ctypes.data)
    return ctypes.c_float(value) if isinstance(value, float) else ctypes.c_int64(value)


class _NormPoolRelu(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, running_mean: Tensor,
        running_var: Tensor, momentum: float, epsilon: float,
    ) -> Tensor:  # fmt: skip
        batch, channels, height, width = x.shape
        rows = batch * height * width
        lines = _float32(4, channels)
        line, mean, inverse_std = lines[:2], lines[2], lines[3]
        blocks = _call("num_blocks", rows, channels)
        partial, scratch = _float32(blocks, 2, channels), _float64(2, channels)
        statistics = running_mean, running_var
        updated = [_in_float32(statistic) for statistic in statistics]
        _call_for(x, "norm_moments", x, rows, channels, partial)
        _call("norm_finish", partial, rows, channels, epsilon, momentum, _in_float32(weight),
              _in_float32(bias), *updated, mean, inverse_std, line, scratch)  # fmt: skip
        for statistic, new in zip(statistics, updated, strict=True):
            if new is not statistic:
                statistic.copy_(new)
        shape = (batch, channels, height // 2, width // 2)
        chosen, y = _like(x, shape), _like(x, shape)
        _call_for(x, "norm_pool_relu", x, batch, height, width, channels, line, chosen, y)
        ctx.save_for_backward(x, chosen, lines)
        ctx.dtypes = weight.dtype, bias.dtype
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, chosen, lines = ctx.saved_tensors
        line, mean, inverse_std = lines[:2], lines[2], lines[3]
        gradient = gradient.to(x.dtype).contiguous(memory_format=torch.channels_last)
        batch, channels, height, width = x.shape
        rows = chosen.numel() // channels
        blocks = _call("num_blocks", rows, channels)
        partial, sums = _float32(blocks, 2, channels), _float32(2, channels)
        _call_for(x, "norm_pool_relu_sums", gradient, chosen, rows, channels, line, mean,
                  inverse_std, partial)  # fmt: skip
        _call("add_blocks", partial, blocks, channels, sums, _float64(2, channels))
        dx = torch.empty_like(x)
        scratch = _float32(2, channels)
        _call_for(x, "norm_pool_relu_backward", gradient, chosen, x, batch, height, width, channels,
                  line, mean, inverse_std, sums, dx, scratch)  # fmt: skip
        of_weight, of_bias = ctx.dtypes
        return dx, sums[1].to(of_weight), sums[0].to(of_bias), None, None, None, None


def norm_pool_relu(x_BCHW: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """Batch norm in training mode, 2×2 max pooling and ReLU: (B, C, H, W) to (B, C, I, J).

    Updates the norm's running statistics as torch does. The map must be `usable` with the norm's
    weight, bias and statistics. Can be differentiated once.
    """
    assert norm.momentum is not None and norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    y_BCIJ: Tensor = _NormPoolRelu.apply(
        x_BCHW,
        norm.weight,
        norm.bias,
        norm.running_mean,
        norm.running_var,
        float(norm.momentum),
        float(norm.eps),
    )
    return y_BCIJ


def line_pool_relu(x_BCHW: Tensor, scale_C: Tensor, shift_C: Tensor) -> Tensor:
    """Scale and shift each channel, 2×2 max pooling, ReLU, without a gradient: to (B, C, I, J)."""
    batch, channels, height, width = x_BCHW.shape
    shape = (batch, channels, height // 2, width // 2)
    y_BCIJ = _like(x_BCHW, shape)
    line = torch.stack([scale_C.float(), shift_C.float()])
    _call_for(x_BCHW, "norm_pool_relu", x_BCHW, batch, height, width, channels, line, None, y_BCIJ)
    return y_BCIJ


def _attend(
    x: Tensor, gain: Tensor | None, groups: int, shuffles: bool, epsilon: float,
    vectors: list[Tensor], *, in_place: bool = False,
) -> tuple[Tensor, Tensor, tuple[int, ...]]:  # fmt: skip
    """Return the output, and for the backward pass the intermediate results and all sizes.

    Gain and vectors are in float32.
    """
    batch, channels, height, width = x.shape
    assert channels == 2 * groups * len(vectors[0])
    # A map of one pixel is both contiguous and channels_last.
    planes = not x.is_contiguous(memory_format=torch.channels_last)
    sizes = (batch, height * width, channels, int(planes), groups, int(shuffles))
    kept, y = _float32(3 + 4 * batch, channels), x if in_place else torch.empty_like(x)
    _call_for(x, "shuffle_attention", x, *sizes, epsilon, *vectors, gain, kept, y)
    return y, kept, sizes


class _ShuffleAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gain: Tensor | None, groups: int, shuffles: bool, epsilon: float,
        *vectors: Tensor,
    ) -> Tensor:  # fmt: skip
        ctx.dtypes = [vector.dtype for vector in vectors]
        ctx.dtype_of_gain = None if gain is None else gain.dtype
        wide, wide_gain = _all_in_float32(vectors, gain)
        y, kept, ctx.sizes = _attend(x, wide_gain, groups, shuffles, epsilon, wide)
        ctx.save_for_backward(x, kept, wide_gain, wide[2], wide[4], wide[5])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, kept, gain, spatial_weight, norm_weight, norm_bias = ctx.saved_tensors
        batch, _, channels, planes, _, _ = ctx.sizes
        half = len(norm_bias)
        layout = torch.contiguous_format if planes else torch.channels_last
        gradient = gradient.to(x.dtype).contiguous(memory_format=layout)
        sums, dx = _float32(batch, 3, channels), torch.empty_like(x)
        gradients = _float32(6 * half + 1)
        _call_for(x, "shuffle_attention_backward", gradient, x, *ctx.sizes, spatial_weight,
                  norm_weight, norm_bias, gain, kept, sums, dx, gradients,
                  _float64(6, half))  # fmt: skip
        of_gain = None if gain is None else gradients[-1].to(ctx.dtype_of_gain)
        rows = gradients[:-1].view(6, half).unbind()
        of_vectors = [row.to(dtype) for row, dtype in zip(rows, ctx.dtypes, strict=True)]
        return dx, of_gain, None, None, None, *of_vectors


def _all_in_float32(
    vectors: tuple[Tensor, ...], gain: Tensor | None
) -> tuple[list[Tensor], Tensor | None]:
    wide = [_in_float32(vector) for vector in vectors]
    return wide, None if gain is None else _in_float32(gain)


def shuffle_attention(
    x_BCHW: Tensor,
    parameters: tuple[Tensor, ...],
    *,
    groups: int,
    epsilon: float,
    gain: Tensor | None = None,
    shuffles: bool = True,
    in_place: bool = False,
) -> Tensor:
    """Shuffle attention in one kernel: (B, C, H, W) to the same shape, in the same layout.

    Args:
        x_BCHW: The map; it must be `usable_for_attention` with the parameters and the gain.
        parameters: Channel weight and bias, spatial weight and bias, norm weight and bias, (k,).
        groups: G; C is 2·G·k.
        epsilon: Added to the variance.
        gain: α, one number: the gates σ become 1 + α·(σ − 1). None: 1.
        shuffles: Whether the halves of the channels alternate in the output.
        in_place: Overwrite the map with the output if no gradient is needed; not with `shuffles`,
            which would read overwritten values.

    Can be differentiated once. The gradients are in the formats of the parameters.
    """
    assert not (in_place and shuffles)
    if not torch.is_grad_enabled():
        wide, gain = _all_in_float32(parameters, gain)
        return _attend(x_BCHW, gain, groups, shuffles, epsilon, wide, in_place=in_place)[0]
    y_BCHW: Tensor = _ShuffleAttention.apply(x_BCHW, gain, groups, shuffles, epsilon, *parameters)
    return y_BCHW

"""Which axes of a tensor are those of an image, tracked through every change of shape.

An axis is a product of factors: an image's tokens have one of (H, 14) and (W, 14), and cut into
windows of 7 its rows are (H, 2) and, within a window, (h, 7). So a map is recognised
again after any split and merge of axes.

Letters: B images, C channels, H × W pixels; a small letter for a part split off one of these, a
question mark for unknown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from towernet import torch_private

Factor = tuple[str, int]
Axis = tuple[Factor, ...]
Axes = tuple[Axis, ...]

VIEWS = {
    "permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "unbind", "select",
    "__getitem__", "chunk", "split", "tensor_split", "narrow", "squeeze", "unsqueeze",
}  # fmt: skip
RESHAPES = {"view", "reshape", "flatten", "unflatten"}
_STEP = 64  # longer than a slice's


def image(shape: Sequence[int]) -> Axes:
    """Return the axes of B, C, H, W.

    Example:
        >>> image((2, 3, 28, 14))
        ((('B', 2),), (('C', 3),), (('H', 28),), (('W', 14),))
    """
    return tuple(((letter, size),) for letter, size in zip("BCHW", shape, strict=True))


def unknown(shape: Sequence[int]) -> Axes:
    """Return axes of which nothing is known."""
    return tuple((("?", size),) for size in shape)


def pixels(axes: Axes) -> tuple[int, int] | None:
    """Return which two of four axes are H and W, the others holding images and channels.

    Example:
        >>> pixels(image((2, 3, 28, 14))), pixels(unknown((2, 3, 28, 14)))
        ((2, 3), None)
    """
    for rows, columns in ((2, 3), (1, 2)):
        if len(axes) == 4 and _letters(axes[rows]) == "H" and _letters(axes[columns]) == "W":
            images, channels = (axis for i, axis in enumerate(axes) if i not in (rows, columns))
            # In a batch of windows no map is whole. Channels may once have been pixels.
            if set(_letters(images)) <= set("Bb?") and not set(_letters(channels)) & set("BHW"):
                return rows, columns
    return None


def regrouped(axes: Axes, shape: Sequence[int]) -> Axes:
    """Return the axes of a reshaped tensor.

    Example:
        >>> tokens = regrouped(image((2, 3, 28, 14)), (2, 3, 392))
        >>> tokens[2]
        (('H', 28), ('W', 14))
        >>> regrouped(tokens, (2, 3, 7, 4, 14))[2:]
        ((('H', 7),), (('h', 4),), (('W', 14),))
    """
    left = [factor for axis in reversed(axes) for factor in reversed(axis)]
    result: list[Axis] = []
    for size in shape:
        missing, found = size, list[Factor]()
        while missing > 1 and left:
            letter, length = left.pop()
            if length > missing and length % missing == 0:
                left.append((letter.lower(), length // missing))
                length = missing
            if length == 0 or missing % length:  # a detector without any box
                return unknown(shape)
            missing //= length
            if length > 1:
                found.append((letter, length))
        if size == 1 and left and left[-1][1] == 1:
            found.append(left.pop())
        result.append(_put_together(found) or (("?", size),))
    return tuple(result)


def _put_together(factors: list[Factor]) -> Axis:
    """Merge parts with the axis they were split off from."""
    result: list[Factor] = []
    for letter, size in factors:
        if result and letter == result[-1][0].lower():
            result[-1] = (result[-1][0], result[-1][1] * size)
        else:
            result.append((letter, size))
    return tuple(result)


def viewed(func: Callable[..., Any], axes: Axes, args: Sequence[Any], kwargs: Any) -> list[Axes]:
    """Return the axes of each view that `func(tensor, *args, **kwargs)` takes of a tensor.

    Example:
        >>> (moved,) = viewed(torch.permute, image((2, 3, 28, 14)), [(0, 2, 3, 1)], {})
        >>> pixels(moved)
        (1, 2)
    """
    # Distinct strides show where each axis went.
    strides = [_STEP**i for i in range(len(axes))]
    probe = torch.empty_strided([_size(axis) for axis in axes], strides, device="meta")
    result = func(probe, *args, **kwargs)
    views = [result] if isinstance(result, Tensor) else list(result)
    if not all(map(torch_private.is_view, views)):  # a list of indices makes a copy
        return [broadcast([axes], view.shape) for view in views]
    return [
        tuple(
            _resized(axes[_exponent(stride)], size)
            if stride and (size > 1 or stride in strides)
            else (("?", size),)
            for size, stride in zip(view.shape, view.stride(), strict=True)
        )
        for view in views
    ]


def _exponent(stride: int) -> int:
    return int(math.log2(stride)) // int(math.log2(_STEP))


def broadcast(sources: Sequence[Axes], shape: Sequence[int]) -> Axes:
    """Return the axes of an elementwise result of one or more tensors.

    Example:
        >>> gate, x = unknown((2, 3, 1, 1)), image((2, 3, 28, 14))
        >>> broadcast([gate, x], (2, 3, 28, 14)) == x
        True
    """
    fitting = [axes for axes in sources if len(axes) == len(shape)]
    if not fitting:
        return unknown(shape)
    result = []
    for i, size in enumerate(shape):
        known = [a[i] for a in fitting if _size(a[i]) == size and "?" not in _letters(a[i])]
        result.append(known[0] if known else _resized(fitting[0][i], size))
    return tuple(result)


def with_channels(axes: Axes, at: int, shape: Sequence[int]) -> Axes:
    """Return the axes of a layer's output, which has its own channels."""
    result = list(broadcast([axes], shape))
    result[at] = (("C", shape[at]),)
    return tuple(result)


def product(left: Axes, right: Axes, shape: Sequence[int]) -> Axes:
    """Return the axes of a product of matrices: rows of the left one, columns of the right."""
    if len(left) != len(shape) or len(right) != len(shape):
        return unknown(shape)
    return broadcast([(*left[:-1], right[-1])], shape)


def _letters(axis: Axis) -> str:
    return "".join(letter for letter, _ in axis)


def _size(axis: Axis) -> int:
    return math.prod(size for _, size in axis)


def _resized(axis: Axis, size: int) -> Axis:
    """Return an axis with another length; unknown where it has several factors."""
    if _size(axis) == size:
        return axis
    return ((axis[0][0], size),) if len(axis) == 1 else (("?", size),)

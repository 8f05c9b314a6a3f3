"""Values of more than 8 bits: their range, and how they become 0 … 255.

A data set has one range, chosen from all its images, so that pictures of one camera keep their
brightness; a few extreme pixels, such as hot ones, do not decide it. Shapes: H × W × C values.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from PIL import Image

from towernet.data.formats import BadImage

Range = tuple[float, float]
Values = npt.NDArray[np.float32]
EXTREME = 0.001
"""The share of the values at each end that does not count, and at least one pixel."""
_NUM_SAMPLED = 200_000
USUAL_BITS = (8, 10, 12, 14, 16)
MODES = {"I": "THIRTY_TWO_BIT", "F": "FLOAT"}


def values_of(strip: Image.Image, low: Image.Image | None = None) -> Values:
    """Return a strip's values; of 16-bit colours or grey with alpha, with the lower bits."""
    if low is None:
        return np.asarray(strip).astype(np.float32)
    upper, lower = np.asarray(strip), np.asarray(low)
    channels = np.s_[..., 0] if lower.ndim == 2 else np.s_[..., :3]
    lower = lower if lower.ndim == 2 else lower[channels]
    values: Values = (upper[channels].astype(np.uint16) << 8 | lower).astype(np.float32)
    return values


def extremes(strips: Iterable[Values]) -> Range:
    """Return the least and the greatest finite value."""
    low, high = math.inf, -math.inf
    for values in strips:
        values = values[np.isfinite(values)]
        low, high = float(values.min(initial=low)), float(values.max(initial=high))
    return _finite(low, high)


def usual_extremes(strips: Iterable[Values], num_pixels: int) -> Range:
    """Return the least and the greatest value without the share EXTREME at each end."""
    step, parts, channels = max(1, num_pixels // _NUM_SAMPLED), [], 1
    for values in strips:
        channels = values.shape[2] if values.ndim == 3 else 1
        some = values.reshape(-1, channels)[::step].reshape(-1)
        parts.append(some[np.isfinite(some)])
    found = np.concatenate(parts)
    num_out = min(max(channels, math.ceil(EXTREME * len(found))), max(0, (len(found) - 1) // 2))
    if not len(found):
        return _finite(math.inf, -math.inf)
    ordered = np.partition(found, (num_out, len(found) - 1 - num_out))
    return float(ordered[num_out]), float(ordered[len(found) - 1 - num_out])


def _finite(low: float, high: float) -> Range:
    if low > high:
        raise BadImage("CORRUPT", "no pixel is a finite number; export it again")
    return low, high


def usual_range(low: float, high: float, *, is_float: bool) -> Range:
    """Return the narrowest usual range that contains two values, or their own range.

    Usual are 0 … 1 (floats), and 8, 10, 12, 14 and 16 bits: cameras and microscopes store 12 bits
    in 16-bit files.

    Example:
        >>> usual_range(3.0, 4000.0, is_float=False)
        (0.0, 4095.0)
    """
    tops = [1.0] if is_float else []
    tops += [2.0**bits - 1 for bits in USUAL_BITS]
    usual = next((top for top in tops if low >= 0 and high <= top), None)
    return (low, high) if usual is None else (0.0, usual)


def to_bytes(values: Values, span: Range) -> npt.NDArray[np.uint8]:
    """Scale values to 0 … 255 and clip them; those that are no numbers become the least."""
    low, high = span
    values = np.where(np.isfinite(values), values, low)
    scale = 255.0 / (high - low) if high > low else 0.0
    scaled: npt.NDArray[np.uint8] = (
        np.floor((values - low) * scale + 0.5).clip(0, 255).astype(np.uint8)
    )
    return scaled

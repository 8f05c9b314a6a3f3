"""Which thumbnails are alike: candidates by perceptual hashes, confirmed by their pixels.

Shapes: N images, P pairs of them, T = 1,024 pixels of a thumbnail, L grey levels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from towernet.data.examine import THUMBNAIL_PX
from towernet.data.turns import UPRIGHT, turned

MAX_BITS = 2
# Grey levels. Measured on 356 photographs: their thumbnails differ by up to 2.2 when saved again
# as JPEG of quality 30, by 1.4 resized to a third, by 4.3 cropped by one pixel (99 % of them);
# those of different photographs with similar hashes differ by 6 or more.
MAX_MEAN_DIFFERENCE = 5.0
# Of a turned copy, also at most this share of the image's contrast: two nearly plain images are
# similar in every direction. Of copies of 800 images the thumbnails differ by up to 1.4 levels, at
# contrasts of 8 and more; of the 5,638 images in three sets no two others come below 10 levels.
MAX_SHARE_OF_CONTRAST = 0.25
# Of a lighter or darker copy, as shares of the contrast. Of 300 images made darker, or saved again,
# they differ by up to 0.05; the closest different ones in four sets, two digits, by 0.09.
MAX_DIFFERENCE_RELIT, MIN_CONTRAST = 0.06, 8.0
# Drawings of one shape in several colours would be lighter copies of each other: the entropy of
# their grey levels is about 1.4 bits, that of 97 % of the images of three sets is above 2.5.
MIN_LEVEL_BITS, _LEVELS, _LEVELS_PER_CONTRAST = 2.5, 48, 4
# Each image is compared with at most this many of those that agree in a band, to bound the work.
# Of 2,000 photos at most 5 agree; only a lump has more, and there a chain is as good.
MAX_WINDOW = 256
# Every third bit: two that differ leave one band equal, and each band has low and high frequencies.
BANDS = tuple(np.uint64(sum(1 << bit for bit in range(first, 64, 3))) for first in range(3))
_AT_ONCE = 4096

Indices = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]
Grey = npt.NDArray[np.uint8]


def perceptual_hashes(grey_NT: Grey) -> Keys:
    """Return 64 bits for each thumbnail: which low frequencies are stronger than their median.

    Like `imagehash.phash`, for many at once.
    """
    return strong_bits(low_frequencies(grey_NT))


def low_frequencies(grey_NT: Grey) -> npt.NDArray[np.float64]:
    """Return (N, 8, 8) the lowest frequencies of each thumbnail's cosine transform."""
    from scipy.fftpack import dct

    grey_NHW = grey_NT.reshape(-1, THUMBNAIL_PX, THUMBNAIL_PX)
    low_NHW: npt.NDArray[np.float64] = dct(dct(grey_NHW, axis=1), axis=2)[:, :8, :8]
    return low_NHW


def strong_bits(low_NHW: npt.NDArray[np.float64]) -> Keys:
    """Return 64 bits for each: which frequencies are stronger than their median."""
    low_NT = low_NHW.reshape(-1, 64)
    strong_NT = low_NT > np.median(low_NT, axis=1, keepdims=True)
    return np.packbits(strong_NT, axis=1).view(np.uint64)[:, 0]


def search(
    hashes: Keys, compared: Callable[[Indices], Indices], *, of_both: bool = False
) -> Indices:
    """Return (P, 2) pairs that connect all that are close, by blocks, which bounds memory.

    Args:
        hashes: (n,) what the candidates are found by.
        compared: Returns what connects the close ones among (p, 2) candidates.
        of_both: Only pairs of an even and an odd position are wanted.
    """
    pairs = [np.empty((0, 2), np.int64)]
    for number, mask in enumerate(BANDS):
        order = np.lexsort((hashes, hashes & mask))
        if of_both:
            order = order[_is_among_both(hashes[order] & mask, order % 2)]
        for start in range(0, len(order), _AT_ONCE):
            block = order[start : start + _AT_ONCE + MAX_WINDOW]
            proposed = candidates(hashes[block], number, _AT_ONCE)
            if len(proposed):
                pairs.append(compared(block[proposed]))
    return np.concatenate(pairs)


def _is_among_both(band: Keys, is_odd: Indices) -> npt.NDArray[np.bool_]:
    """Return (n,) whether even and odd positions have the value of each, sorted by it."""
    starts = np.ones(len(band), bool)
    starts[1:] = band[1:] != band[:-1]
    run = np.cumsum(starts) - 1
    num_odd, num = np.bincount(run, is_odd), np.bincount(run)
    among_both: npt.NDArray[np.bool_] = ((num_odd > 0) & (num_odd < num))[run]
    return among_both


def candidates(hashes: Keys, number: int, num_first: int) -> Indices:
    """Return (P, 2) pairs that agree in a band and differ in at most 2 bits.

    Two such hashes agree completely in one of three bands of bits. Sorted by a band, those that
    agree are adjacent; each is compared with the next one, the one after it, and so on.

    Args:
        hashes: (n,) sorted by the band.
        number: Which band; pairs that agree in an earlier one are left out, being found there.
        num_first: How many of them are compared with those after them.
    """
    band = hashes & BANDS[number]
    pairs = [np.empty((0, 2), np.int64)]
    at = np.arange(min(num_first, len(hashes)))
    for step in range(1, MAX_WINDOW + 1):
        at = at[at + step < len(hashes)]
        at = at[band[at] == band[at + step]]
        if not len(at):
            break
        different = hashes[at] ^ hashes[at + step]
        alike = np.bitwise_count(different) <= MAX_BITS
        for earlier in BANDS[:number]:
            alike &= (different & earlier) != 0
        pairs.append(np.stack([at[alike], at[alike] + step], axis=1))
    return np.concatenate(pairs)


def confirmed(grey_NT: Grey, pairs: Indices, turn: int = UPRIGHT) -> Indices:
    """Return the pairs whose thumbnails differ only slightly, once the second one is turned."""
    others_NT, limit_N = grey_NT, np.full(len(grey_NT), MAX_MEAN_DIFFERENCE)
    if turn != UPRIGHT:
        square_NHW = grey_NT.reshape(-1, THUMBNAIL_PX, THUMBNAIL_PX)
        others_NT = turned(square_NHW, turn).reshape(grey_NT.shape)
        contrast_N = np.abs(_even(grey_NT)).mean(axis=1)
        limit_N = np.minimum(limit_N, MAX_SHARE_OF_CONTRAST * contrast_N)
    kept = [np.empty((0, 2), np.int64)]
    for start in range(0, len(pairs), _AT_ONCE):
        some = pairs[start : start + _AT_ONCE]
        first, second = grey_NT[some[:, 0]], others_NT[some[:, 1]]
        difference = (np.maximum(first, second) - np.minimum(first, second)).mean(axis=1)
        kept.append(some[difference <= limit_N[some].min(axis=1)])
    return np.concatenate(kept)


def confirmed_relit(grey_NT: Grey, pairs: Indices) -> Indices:
    """Return the pairs whose thumbnails differ only slightly, once made equally light and clear."""
    even_NT = _even(grey_NT)
    contrast_N = np.abs(even_NT).mean(axis=1)
    even_NT /= np.maximum(contrast_N, 1.0)[:, None]
    is_rich_N = (contrast_N >= MIN_CONTRAST) & (_level_bits(even_NT) >= MIN_LEVEL_BITS)
    pairs = pairs[is_rich_N[pairs].all(axis=1)]
    kept = [np.empty((0, 2), np.int64)]
    for start in range(0, len(pairs), _AT_ONCE):
        some = pairs[start : start + _AT_ONCE]
        difference = np.abs(even_NT[some[:, 0]] - even_NT[some[:, 1]]).mean(axis=1)
        kept.append(some[difference <= MAX_DIFFERENCE_RELIT])
    return np.concatenate(kept)


def _even(grey_NT: Grey) -> npt.NDArray[np.float32]:
    """Return the thumbnails less their mean; a block of them has four million pixels."""
    even_NT: npt.NDArray[np.float32] = grey_NT - grey_NT.mean(
        axis=1, keepdims=True, dtype=np.float32
    )
    return even_NT


def _level_bits(even_NT: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return (N,) the entropy of the grey levels, in bits."""
    num = len(even_NT)
    level_NT = np.floor(even_NT * _LEVELS_PER_CONTRAST + _LEVELS / 2).astype(np.int32)
    level_NT = np.clip(level_NT, 0, _LEVELS - 1) + np.arange(num, dtype=np.int32)[:, None] * _LEVELS
    counts = np.bincount(level_NT.reshape(-1), minlength=num * _LEVELS)
    share_NL = counts.reshape(num, _LEVELS) / THUMBNAIL_PX**2
    bits: npt.NDArray[np.float64] = -(share_NL * np.log2(np.maximum(share_NL, 1e-9))).sum(axis=1)
    return bits

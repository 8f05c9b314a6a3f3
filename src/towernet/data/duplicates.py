"""Near duplicates: the same image in different bytes, to be kept on one side of every split.

Two images are near duplicates if their pixels are identical, or if their perceptual hashes
(64 bits, `imagehash.phash`) differ in at most 2 bits and their thumbnails differ only slightly.
Shapes: N images, P pairs of them.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from towernet.data.connected import chain, components
from towernet.data.examine import THUMBNAIL_PX
from towernet.errors import EnvironmentFault

VERSION = "1"
MAX_BITS = 2
# Grey levels. Measured on 356 photographs: their thumbnails differ by up to 2.2 when saved again
# as JPEG of quality 30, by 1.4 resized to a third, by 4.3 cropped by one pixel (99 % of them);
# those of different photographs with similar hashes differ by 6 or more.
MAX_MEAN_DIFFERENCE = 5.0
MAX_SHARE, MAX_UNQUESTIONED = 0.05, 5
# Each image is compared with at most this many of those that agree in a band, to bound the work.
# Of 2,000 photos at most 5 agree; only a lump has more, and there a chain is as good.
MAX_WINDOW = 256
# Every third bit: two that differ leave one band equal, and each band has low and high frequencies.
_BANDS = tuple(np.uint64(sum(1 << bit for bit in range(first, 64, 3))) for first in range(3))
_AT_ONCE, _HASHED_AT_ONCE = 4096, 512
_MEMORY_BYTES = 4 << 20

Indices = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]
Grey = npt.NDArray[np.uint8]


class Thumbnails:
    """N thumbnails of a kilobyte each, in an unnamed temporary file if there are many."""

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._stream = tempfile.SpooledTemporaryFile(  # noqa: SIM115 - ended by `close`
                _MEMORY_BYTES, dir=str(folder)
            )
        except OSError as error:
            raise _not_written(folder, error) from error
        self._folder = folder

    def write(self, position: int, thumbnail: bytes) -> None:
        """Store one thumbnail at its position; positions left out are undefined."""
        try:
            self._stream.seek(position * THUMBNAIL_PX**2)
            self._stream.write(thumbnail)
        except OSError as error:
            raise _not_written(self._folder, error) from error

    def read(self, positions: Indices) -> Grey:
        """Return those at some positions as (n, 1024) grey levels."""
        grey_nT = np.empty((len(positions), THUMBNAIL_PX**2), np.uint8)
        for row, position in zip(grey_nT, positions.tolist(), strict=True):
            self._stream.seek(position * THUMBNAIL_PX**2)
            row[:] = np.frombuffer(self._stream.read(THUMBNAIL_PX**2), np.uint8)
        return grey_nT

    def close(self) -> None:
        """Free the disk space."""
        self._stream.close()


def _not_written(folder: Path, error: OSError) -> EnvironmentFault:
    return EnvironmentFault(
        f"the thumbnails, a kilobyte for each image, cannot be written to {folder}:"
        f" {error.strerror}; free some space or point TOWERNET_CACHE to a larger disk"
    )


@dataclass(frozen=True)
class NearDuplicates:
    """The near duplicates found among N images.

    Args:
        clusters: (N,) a number shared by tied images, -1 for the others.
        in_lump: (N,) whether it is in a cluster too large for its class: reported, not tied.
        across_classes: (N,) whether a near duplicate of it has another class.
    """

    clusters: Indices
    in_lump: npt.NDArray[np.bool_]
    across_classes: npt.NDArray[np.bool_]


def find(
    pixel_ids: Keys,
    thumbnails: Callable[[Indices], Grey],
    classes: npt.NDArray[np.integer[Any]],
) -> NearDuplicates:
    """Tie near duplicates into clusters; the order of the images does not matter.

    A cluster with more than 5 % of a class, and more than 5 of its images, is a lump (frames of
    one video, signs in front of one wall): only its identical images are tied.

    Args:
        pixel_ids: (N,) equal for identical pixels.
        thumbnails: Returns those of some of the N images, as (n, 1024) grey levels.
        classes: (N,) the number of each one's class.
    """
    num = len(pixel_ids)
    same = chain(pixel_ids)
    near = _near(num, same, thumbnails)
    in_lump = _lumps(near, classes)
    # In a lump only identical images stay tied, unless they are a lump themselves.
    tied = np.where(in_lump, near.max(initial=0) + 1 + components(num, same), near)
    free = in_lump & _lumps(tied, classes)

    clusters, across = np.full(num, -1), np.zeros(num, bool)
    for members in groups(near):
        across[members] = (classes[members] != classes[members[0]]).any()
    tied[free] = -1
    for members in groups(tied):
        clusters[members] = members[0]
    return NearDuplicates(clusters, in_lump, across)


def _near(num: int, same: Indices, thumbnails: Callable[[Indices], Grey]) -> Indices:
    """Return (N,) the number of the cluster that each image is in, lumps included."""
    keys, hashes = np.empty(num, np.uint64), np.empty(num, np.uint64)
    for start in range(0, num, _HASHED_AT_ONCE):
        grey_nT = thumbnails(np.arange(start, min(start + _HASHED_AT_ONCE, num)))
        rows = slice(start, start + len(grey_nT))
        keys[rows] = [picture_key(grey.tobytes()) for grey in grey_nT]
        hashes[rows] = perceptual_hashes(grey_nT)
    # Identical thumbnails are compared once, in the order of their keys, so that the order of
    # the files does not matter.
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    first = np.ones(num, bool)
    first[1:] = keys[1:] != keys[:-1]
    (again,) = np.nonzero(~first)
    alike = np.stack([order[again - 1], order[again]], axis=1)
    different = order[first]
    del keys, order
    hashes = hashes[different]
    close = _close(hashes, lambda some: thumbnails(different[some]))
    return components(num, np.concatenate([same, alike, different[close]]))


def picture_key(content: bytes) -> int:
    """Return 64 bits of a hash: one in 40 million sets of a million images has a collision."""
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big")


def perceptual_hashes(grey_NT: Grey) -> Keys:
    """Return 64 bits for each thumbnail: which low frequencies are stronger than their median.

    Like `imagehash.phash`, for many at once.
    """
    from scipy.fftpack import dct

    grey_NHW = grey_NT.reshape(-1, THUMBNAIL_PX, THUMBNAIL_PX)
    low_NT = dct(dct(grey_NHW, axis=1), axis=2)[:, :8, :8].reshape(-1, 64)
    strong_NT = low_NT > np.median(low_NT, axis=1, keepdims=True)
    return np.packbits(strong_NT, axis=1).view(np.uint64)[:, 0]


def _close(hashes: Keys, thumbnails: Callable[[Indices], Grey]) -> Indices:
    """Return (P, 2) pairs that connect all near duplicates, by blocks, which bounds memory."""
    pairs = [np.empty((0, 2), np.int64)]
    for number, mask in enumerate(_BANDS):
        order = np.lexsort((hashes, hashes & mask))
        for start in range(0, len(order), _AT_ONCE):
            block = order[start : start + _AT_ONCE + MAX_WINDOW]
            proposed = _candidates(hashes[block], number, _AT_ONCE)
            if not len(proposed):
                continue
            needed, places = np.unique(proposed, return_inverse=True)
            close = _confirmed(thumbnails(block[needed]), places.reshape(-1, 2))
            # In a lump all pairs are close; a chain connects the same images.
            pairs.append(block[needed[chain(components(len(needed), close))]])
    return np.concatenate(pairs)


def _candidates(hashes: Keys, number: int, num_first: int) -> Indices:
    """Return (P, 2) pairs that agree in a band and differ in at most 2 bits.

    Two such hashes agree completely in one of three bands of bits. Sorted by a band, those that
    agree are adjacent; each is compared with the next one, the one after it, and so on.

    Args:
        hashes: (n,) sorted by the band.
        number: Which band; pairs that agree in an earlier one are left out, being found there.
        num_first: How many of them are compared with those after them.
    """
    band = hashes & _BANDS[number]
    pairs = [np.empty((0, 2), np.int64)]
    at = np.arange(min(num_first, len(hashes)))
    for step in range(1, MAX_WINDOW + 1):
        at = at[at + step < len(hashes)]
        at = at[band[at] == band[at + step]]
        if not len(at):
            break
        different = hashes[at] ^ hashes[at + step]
        alike = np.bitwise_count(different) <= MAX_BITS
        for earlier in _BANDS[:number]:
            alike &= (different & earlier) != 0
        pairs.append(np.stack([at[alike], at[alike] + step], axis=1))
    return np.concatenate(pairs)


def _confirmed(grey_NT: Grey, pairs: Indices) -> Indices:
    """Return the pairs whose thumbnails differ only slightly."""
    kept = [np.empty((0, 2), np.int64)]
    for start in range(0, len(pairs), _AT_ONCE):
        some = pairs[start : start + _AT_ONCE]
        first, second = grey_NT[some[:, 0]], grey_NT[some[:, 1]]
        difference = (np.maximum(first, second) - np.minimum(first, second)).mean(axis=1)
        kept.append(some[difference <= MAX_MEAN_DIFFERENCE])
    return np.concatenate(kept)


def _lumps(labels: Indices, classes: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.bool_]:
    """Return (N,) whether the cluster of each contains too much of any class."""
    class_sizes = np.bincount(classes)
    num_classes = max(1, len(class_sizes))
    both, counts = np.unique(labels * num_classes + classes, return_counts=True)
    allowed = np.maximum(MAX_UNQUESTIONED, MAX_SHARE * class_sizes[both % num_classes])
    return np.isin(labels, both[counts > allowed] // num_classes)


def groups(labels: npt.NDArray[Any]) -> Iterator[Indices]:
    """Yield the members of each label that has several; -1 is not a label.

    Example:
        >>> [members.tolist() for members in groups(np.array([3, 1, 3, -1, -1]))]
        [[0, 2]]
    """
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    (alike,) = np.nonzero(ordered[1:] == ordered[:-1])  # where the next one is equal
    del ordered
    for run in np.split(alike, np.flatnonzero(np.diff(alike) != 1) + 1):
        if len(run) and labels[order[run[0]]] != -1:
            yield order[run[0] : run[-1] + 2]

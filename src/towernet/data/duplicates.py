"""Near duplicates: the same picture in other bytes, to be kept on one side of every split.

Two pictures are near duplicates when their pixels are identical, or when their perceptual hashes
(64 bits, `imagehash.phash`) differ in at most 2 bits and their thumbnails differ by little.
Shapes: N pictures, P pairs of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from towernet.data.examine import THUMBNAIL_PX

VERSION = "1"
MAX_BITS = 2
# Grey levels. Measured on 356 photographs: saved anew as JPEG of quality 30 their thumbnails
# differ by up to 2.2, resized to a third by 1.4, cropped by one pixel by 4.3 (99 % of them);
# different photographs whose hashes are alike by 6 and more.
MAX_MEAN_DIFFERENCE = 5.0
MAX_SHARE, MAX_UNQUESTIONED = 0.05, 5
# Of the pictures that agree in a band each is compared with so many: bounded work. On 2,000 photos
# at most 5 agree; only a lump of look-alikes holds more, and there a chain is as good.
MAX_WINDOW = 256
# Every third bit: two wrong ones leave one band whole, and each band has low frequencies and high.
_BANDS = tuple(np.uint64(sum(1 << bit for bit in range(first, 64, 3))) for first in range(3))
_PAIRS_AT_ONCE = 1 << 16

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class NearDuplicates:
    """What was found among N pictures.

    Args:
        clusters: (N,) the content id that tied pictures share, the smallest of theirs; else ''.
        in_lump: (N,) whether it belongs to a cluster too large for its class: shown, not tied.
        across_classes: (N,) whether a near duplicate of it has another class.
    """

    clusters: list[str]
    in_lump: npt.NDArray[np.bool_]
    across_classes: npt.NDArray[np.bool_]


def find(
    content_ids: Sequence[str],
    pixel_ids: Sequence[str],
    thumbnails: Sequence[bytes],
    class_names: Sequence[str],
) -> NearDuplicates:
    """Tie near duplicates into clusters, whatever their order.

    A cluster that holds more than 5 % of a class, and more than 5 of its pictures, is a lump of
    look-alikes (frames of one film, signs before one wall): only its identical pictures are tied.

    Args:
        content_ids: (N,) no two alike.
        pixel_ids: (N,) alike for identical pixels.
        thumbnails: (N,) of 32 × 32 grey levels.
        class_names: (N,)
    """
    num = len(content_ids)
    _, pixel_groups = np.unique(np.asarray(pixel_ids, dtype=str), return_inverse=True)
    _, classes = np.unique(np.asarray(class_names, dtype=object), return_inverse=True)
    # Thumbnails that are identical are compared once.
    different, thumbnail_of = np.unique(np.asarray(thumbnails, dtype=object), return_inverse=True)
    grey_NT = np.frombuffer(b"".join(different), np.uint8).reshape(-1, THUMBNAIL_PX**2)
    close = _confirmed(grey_NT, _candidates(perceptual_hashes(grey_NT)))
    same = _chain(pixel_groups)
    first_with = np.unique(thumbnail_of, return_index=True)[1]
    near = _components(num, np.concatenate([same, _chain(thumbnail_of), first_with[close]]))
    in_lump = _lumps(near, classes)
    # Of a lump only what is identical stays together, unless that is a lump again.
    tied = np.where(in_lump, near.max(initial=0) + 1 + _components(num, same), near)
    free = in_lump & _lumps(tied, classes)

    ids = np.asarray(content_ids, dtype=object)
    clusters = [""] * num
    across = np.zeros(num, bool)
    for members in _groups(near):
        across[members] = len(set(classes[members])) > 1
    for members in _groups(np.where(free, -1, tied)):
        name = min(ids[members])
        for member in members:
            clusters[member] = name
    return NearDuplicates(clusters, in_lump, across)


def perceptual_hashes(grey_NT: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """Return 64 bits for each thumbnail: which low frequencies are stronger than their median."""
    import imagehash

    hashes = np.zeros((len(grey_NT), 8), np.uint8)
    for bits, grey in zip(hashes, grey_NT, strict=True):
        image = Image.fromarray(grey.reshape(THUMBNAIL_PX, THUMBNAIL_PX))
        bits[:] = np.packbits(imagehash.phash(image).hash)
    return hashes.view(np.uint64)[:, 0]


def _candidates(hashes: npt.NDArray[np.uint64]) -> Indices:
    """Return (P, 2) pairs whose hashes differ in at most 2 bits, without comparing all with all.

    Such a pair agrees in one of three bands of bits whole. Sorted by a band, those that agree lie
    together; each is compared with the next one, the one after it, and so on.
    """
    pairs = [np.empty((0, 2), np.int64)]
    for number, mask in enumerate(_BANDS):
        order = np.lexsort((hashes, hashes & mask))
        ordered = hashes[order]
        band = ordered & mask
        at = np.arange(len(order) - 1)
        for step in range(1, MAX_WINDOW + 1):
            at = at[at + step < len(order)]
            at = at[band[at] == band[at + step]]
            if not len(at):
                break
            wrong = ordered[at] ^ ordered[at + step]
            alike = np.bitwise_count(wrong) <= MAX_BITS
            for earlier in _BANDS[:number]:  # a pair that agrees there was found there
                alike &= (wrong & earlier) != 0
            pairs.append(np.stack([order[at[alike]], order[at[alike] + step]], axis=1))
    return np.sort(np.concatenate(pairs), axis=1)


def _confirmed(grey_NT: npt.NDArray[np.uint8], pairs: Indices) -> Indices:
    """Keep the pairs whose thumbnails differ by little."""
    kept = [np.empty((0, 2), np.int64)]
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        some = pairs[start : start + _PAIRS_AT_ONCE]
        first, second = grey_NT[some[:, 0]], grey_NT[some[:, 1]]
        difference = (np.maximum(first, second) - np.minimum(first, second)).mean(axis=1)
        kept.append(some[difference <= MAX_MEAN_DIFFERENCE])
    return np.concatenate(kept)


def _chain(labels: npt.NDArray[Any]) -> Indices:
    """Return pairs that connect all the members of each label."""
    order = np.argsort(labels, kind="stable")
    alike = labels[order[:-1]] == labels[order[1:]]
    return np.stack([order[:-1][alike], order[1:][alike]], axis=1)


def _components(num: int, pairs: Indices) -> npt.NDArray[np.int64]:
    """Return (N,) the number of the cluster that each belongs to."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(num, num))
    labels: npt.NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
    return labels


def _lumps(labels: npt.NDArray[np.int64], classes: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return (N,) whether the cluster of each holds too much of any class."""
    class_sizes = np.bincount(classes)
    both, counts = np.unique(np.stack([labels, classes], axis=1), axis=0, return_counts=True)
    allowed = np.maximum(MAX_UNQUESTIONED, MAX_SHARE * class_sizes[both[:, 1]])
    return np.isin(labels, both[counts > allowed, 0])


def _groups(labels: npt.NDArray[np.int64]) -> list[Indices]:
    """Return the members of each label that has several; -1 is no label."""
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-2))
    return [
        members
        for members in np.split(order, starts[1:])
        if len(members) > 1 and labels[members[0]] != -1
    ]

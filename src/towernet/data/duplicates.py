"""Near duplicates: the same image in different bytes, to be kept on one side of every split.

Two images are near duplicates if their pixels are identical, or if their perceptual hashes
(64 bits, `imagehash.phash`) differ in at most 2 bits and their thumbnails differ only slightly.
Turned and mirrored copies are found in the same way: the hash of a turned image follows from the
cosine transform of the upright one (`turns`), so each thumbnail is transformed only once.
Shapes: N images, P pairs of them, R = 8 turns, T = 1,024 pixels of a thumbnail.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from towernet.data.connected import chain, components, forest
from towernet.data.similar import (
    Grey,
    Indices,
    Keys,
    confirmed,
    confirmed_relit,
    low_frequencies,
    search,
    strong_bits,
)
from towernet.data.turns import NUM_TURNS, UPRIGHT, back, then, turned_frequencies

VERSION = "2"
MAX_SHARE, MAX_UNQUESTIONED = 0.05, 5
# Of a class, for clusters of turned copies: a folder that was augmented has each image eight times.
MAX_SHARE_TURNED = 0.25
# Both images turned in the same way are as alike, and their hashes differ in other bits: of copies
# at 80 % of the size as JPEG of quality 60, one hash misses 2 % and these four together none.
# Exchanging the axes as well would only exchange the bits.
_SIGNS: tuple[int, ...] = (0, 2, 4, 6)
_HASHED_AT_ONCE = 512


@dataclass(frozen=True)
class NearDuplicates:
    """The near duplicates found among N images.

    Args:
        clusters: (N,) a number shared by tied images, -1 for the others.
        turns: (N,) how each is turned, relative to one image of its cluster (see `turns`).
        in_lump: (N,) whether it is in a cluster too large for its class: reported, not tied.
        has_changed: (N,) whether its class has a copy of it that was turned, mirrored or made
            lighter or darker, tied or in a lump.
        across_classes: (N,) whether a near duplicate of it has another class.
        turned_across: (P, 3) turned copies of different classes, which are not tied: the first is
            the second one turned by the third number.
    """

    clusters: Indices
    turns: Indices
    in_lump: npt.NDArray[np.bool_]
    has_changed: npt.NDArray[np.bool_]
    across_classes: npt.NDArray[np.bool_]
    turned_across: Indices


def find(
    pixel_ids: Keys,
    thumbnails: Callable[[Indices], Grey],
    classes: npt.NDArray[np.integer[Any]],
) -> NearDuplicates:
    """Tie near duplicates into clusters; the order of the images does not matter.

    Turned, mirrored, lighter and darker copies are tied only within one class: of different classes
    they may be right, as a 9 is a turned 6. A cluster with more than 5 % of a class, and more than
    5 of its images, is a lump (frames of one video, signs in front of one wall); copies that are
    turned in different ways count separately, up to 25 % of the class. In a lump only images that
    are alike without such changes are tied, and if they are a lump too, only identical ones.

    Args:
        pixel_ids: (N,) equal for identical pixels.
        thumbnails: Returns those of some of the N images, as (n, 1024) grey levels.
        classes: (N,) the number of each one's class.
    """
    num = len(pixel_ids)
    same = chain(pixel_ids)
    keys, hashes_RN = _hashes(num, thumbnails)
    upright = _upright(same, keys, hashes_RN, thumbnails)
    copies = _changed(keys, hashes_RN, upright, thumbnails, classes)
    del keys, hashes_RN
    in_class = classes[copies[:, 0]] == classes[copies[:, 1]]
    near, turns = _joined(upright, copies[in_class])
    in_lump = _lumps(near, turns, classes)
    tied = near
    for narrower in (upright, components(num, same)):
        too_large = _lumps(tied, turns, classes)
        tied = np.where(too_large, tied.max(initial=0) + 1 + narrower, tied)
    tied = np.where(_lumps(tied, turns, classes), -1, tied)

    clusters, across, has_changed = np.full(num, -1), np.zeros(num, bool), np.zeros(num, bool)
    for members in groups(upright):
        across[members] = (classes[members] != classes[members[0]]).any()
    for members in groups(near):
        has_changed[members] = (upright[members] != upright[members[0]]).any()
    for members in groups(tied):
        clusters[members] = members[0]
    return NearDuplicates(clusters, turns, in_lump, has_changed, across, copies[~in_class])


def alike(pixel_ids: Keys, thumbnails: Callable[[Indices], Grey]) -> Indices:
    """Return (N,) a number shared by all copies of a picture, of whatever class and however many.

    Args:
        pixel_ids: (N,) equal for identical pixels.
        thumbnails: As in `find`.
    """
    num = len(pixel_ids)
    keys, hashes_RN = _hashes(num, thumbnails)
    upright = _upright(chain(pixel_ids), keys, hashes_RN, thumbnails)
    copies = _changed(keys, hashes_RN, upright, thumbnails, np.zeros(num, np.int64))
    return _joined(upright, copies)[0]


def _hashes(num: int, thumbnails: Callable[[Indices], Grey]) -> tuple[Keys, Keys]:
    """Return (N,) keys of the thumbnails, and (8, N) perceptual hashes of each of their turns."""
    keys = np.empty(num, np.uint64)
    hashes_RN = np.empty((NUM_TURNS, num), np.uint64)
    for start in range(0, num, _HASHED_AT_ONCE):
        grey_nT = thumbnails(np.arange(start, min(start + _HASHED_AT_ONCE, num)))
        rows = slice(start, start + len(grey_nT))
        keys[rows] = [picture_key(grey.tobytes()) for grey in grey_nT]
        low_nHW = low_frequencies(grey_nT)
        for turn in range(NUM_TURNS):
            hashes_RN[turn, rows] = strong_bits(turned_frequencies(low_nHW, turn))
    return keys, hashes_RN


def _upright(
    same: Indices, keys: Keys, hashes_RN: Keys, thumbnails: Callable[[Indices], Grey]
) -> Indices:
    """Return (N,) the number of the cluster that each image is in, by the least of its keys."""
    # Identical thumbnails are compared once, in the order of their keys, so that the order of
    # the files does not matter.
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    first = np.ones(len(keys), bool)
    first[1:] = ordered[1:] != ordered[:-1]
    (again,) = np.nonzero(~first)
    alike = np.stack([order[again - 1], order[again]], axis=1)
    different = order[first]
    del ordered

    def compared(pairs: Indices) -> Indices:
        needed, places = np.unique(pairs, return_inverse=True)
        close = confirmed(thumbnails(different[needed]), places.reshape(-1, 2))
        # In a lump all pairs are close; a chain connects the same images.
        return needed[chain(components(len(needed), close))]

    close = [different[search(hashes_RN[turn, different], compared)] for turn in _SIGNS]
    labels = components(len(keys), np.concatenate([same, alike, *close]))
    # Numbered in the order of the keys, too.
    _, first_of = np.unique(labels[order], return_index=True)
    rank = np.empty(len(first_of), np.int64)
    rank[np.argsort(first_of)] = np.arange(len(first_of))
    return rank[labels]


def _changed(
    keys: Keys,
    hashes_RN: Keys,
    upright: Indices,
    thumbnails: Callable[[Indices], Grey],
    classes: npt.NDArray[np.integer[Any]],
) -> Indices:
    """Return (P, 3) changed copies: the first image is the second one, turned by the third number.

    Those that are alike without a change are left out: symmetric and plain images. Lighter and
    darker copies are turned by 0.
    """
    order = np.lexsort((classes, keys))
    first = np.ones(len(keys), bool)
    first[1:] = (np.diff(keys[order]) != 0) | (np.diff(classes[order]) != 0)
    images = order[first]  # identical thumbnails of one class are compared once
    upright, classes = upright[images], classes[images]
    found = [np.empty((0, 3), np.int64)]

    def connected(pairs: Indices, turn: int, of_class: tuple[bool, ...]) -> Indices:
        pairs = pairs[upright[pairs[:, 0]] != upright[pairs[:, 1]]]
        needed, places = np.unique(pairs, return_inverse=True)
        places, grey_nT = places.reshape(-1, 2), thumbnails(images[needed])
        in_class = classes[pairs[:, 0]] == classes[pairs[:, 1]]
        close = [
            forest(
                len(needed),
                confirmed(grey_nT, places[in_class == wanted], turn)
                if turn != UPRIGHT
                else confirmed_relit(grey_nT, places[in_class == wanted]),
            )
            for wanted in of_class
        ]
        return needed[np.concatenate(close)]

    def keep(close: Indices, turn: int) -> None:
        close = images[close]
        found.append(np.concatenate([close, np.full((len(close), 1), turn)], axis=1))

    for turn in _SIGNS:
        hashes = hashes_RN[turn, images]
        keep(search(hashes, lambda pairs: connected(pairs, UPRIGHT, (True,))), UPRIGHT)
    # Each relation is looked for from both of its images, since their hashes differ by chance.
    for turn in range(1, NUM_TURNS):

        def compared(entries: Indices, turn: int = turn) -> Indices:
            # Entry 2i is image i, entry 2i + 1 the same image turned.
            entries = np.where((entries % 2)[:, :1] == 1, entries[:, ::-1], entries)
            is_of_both = (entries[:, 0] % 2 == 0) & (entries[:, 1] % 2 == 1)
            return connected(entries[is_of_both] // 2, turn, (True, False))

        both = np.stack([hashes_RN[UPRIGHT, images], hashes_RN[turn, images]], axis=1)
        keep(search(both.reshape(-1), compared, of_both=True), turn)
    return np.concatenate(found)


def _joined(upright: Indices, copies: Indices) -> tuple[Indices, Indices]:
    """Join clusters of which one has turned copies of the other.

    Returns:
        (N,) the number of each image's cluster, and (N,) how it is turned relative to the cluster
        with the least number that it was joined from.
    """
    turned_into: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for first, second, turn in zip(
        *upright[copies[:, :2]].T.tolist(), copies[:, 2].tolist(), strict=True
    ):
        turned_into[second].append((first, turn))
        turned_into[first].append((second, back(turn)))
    num = int(upright.max(initial=-1)) + 1
    label_of, turn_of = np.arange(num), np.zeros(num, np.int64)
    seen: set[int] = set()
    for root in sorted(turned_into):
        waiting = [] if root in seen else [root]
        seen.add(root)
        while waiting:
            cluster = waiting.pop()
            label_of[cluster] = root
            for other, turn in sorted(turned_into[cluster]):
                if other not in seen:
                    seen.add(other)
                    turn_of[other] = then(int(turn_of[cluster]), turn)
                    waiting.append(other)
    return label_of[upright], turn_of[upright]


def picture_key(content: bytes) -> int:
    """Return 64 bits of a hash: one in 40 million sets of a million images has a collision."""
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big")


def _lumps(
    labels: Indices, turns: Indices, classes: npt.NDArray[np.integer[Any]]
) -> npt.NDArray[np.bool_]:
    """Return (N,) whether the cluster of each contains too much of any class."""
    class_sizes = np.bincount(classes)
    num_classes = max(1, len(class_sizes))
    parts = labels * num_classes + classes
    too_large = [np.empty(0, np.int64)]
    for keys, keys_per_part, share in (
        (parts * NUM_TURNS + turns, NUM_TURNS, MAX_SHARE),
        (parts, 1, MAX_SHARE_TURNED),
    ):
        found, counts = np.unique(keys, return_counts=True)
        part = found // keys_per_part
        allowed = np.maximum(MAX_UNQUESTIONED, share * class_sizes[part % num_classes])
        too_large.append(part[counts > allowed] // num_classes)
    return np.isin(labels, np.concatenate(too_large))


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

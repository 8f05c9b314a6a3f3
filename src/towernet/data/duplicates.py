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
from towernet.data.examine import THUMBNAIL_PX
from towernet.data.turns import NUM_TURNS, UPRIGHT, back, then, turned, turned_frequencies

VERSION = "2"
MAX_BITS = 2
# Grey levels. Measured on 356 photographs: their thumbnails differ by up to 2.2 when saved again
# as JPEG of quality 30, by 1.4 resized to a third, by 4.3 cropped by one pixel (99 % of them);
# those of different photographs with similar hashes differ by 6 or more.
MAX_MEAN_DIFFERENCE = 5.0
# Of a turned copy, also at most this share of the image's contrast: two nearly plain images are
# similar in every direction. Of copies of 800 images the thumbnails differ by up to 1.4 levels, at
# contrasts of 8 and more; of the 5,638 images in three sets no two others come below 10 levels.
MAX_SHARE_OF_CONTRAST = 0.25
MAX_SHARE, MAX_UNQUESTIONED = 0.05, 5
# Of a class, for clusters of turned copies: a folder that was augmented has each image eight times.
MAX_SHARE_TURNED = 0.25
# Each image is compared with at most this many of those that agree in a band, to bound the work.
# Of 2,000 photos at most 5 agree; only a lump has more, and there a chain is as good.
MAX_WINDOW = 256
# Every third bit: two that differ leave one band equal, and each band has low and high frequencies.
_BANDS = tuple(np.uint64(sum(1 << bit for bit in range(first, 64, 3))) for first in range(3))
# Both images turned in the same way are as alike, and their hashes differ in other bits: of copies
# at 80 % of the size as JPEG of quality 60, one hash misses 2 % and these four together none.
# Exchanging the axes as well would only exchange the bits.
_SIGNS: tuple[int, ...] = (0, 2, 4, 6)
_AT_ONCE, _HASHED_AT_ONCE = 4096, 512

Indices = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]
Grey = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class NearDuplicates:
    """The near duplicates found among N images.

    Args:
        clusters: (N,) a number shared by tied images, -1 for the others.
        turns: (N,) how each is turned, relative to one image of its cluster (see `turns`).
        in_lump: (N,) whether it is in a cluster too large for its class: reported, not tied.
        has_turned: (N,) whether there is a turned copy of it in its class, tied or in a lump.
        across_classes: (N,) whether a near duplicate of it has another class.
        turned_across: (P, 3) turned copies of different classes, which are not tied: the first is
            the second one turned by the third number.
    """

    clusters: Indices
    turns: Indices
    in_lump: npt.NDArray[np.bool_]
    has_turned: npt.NDArray[np.bool_]
    across_classes: npt.NDArray[np.bool_]
    turned_across: Indices


def find(
    pixel_ids: Keys,
    thumbnails: Callable[[Indices], Grey],
    classes: npt.NDArray[np.integer[Any]],
) -> NearDuplicates:
    """Tie near duplicates into clusters; the order of the images does not matter.

    Turned and mirrored copies are tied only within one class: of different classes they may be
    right, as a 9 is a turned 6. A cluster with more than 5 % of a class, and more than 5 of its
    images, is a lump (frames of one video, signs in front of one wall); copies that are turned in
    different ways count separately, up to 25 % of the class. In a lump only images that are alike
    without being turned are tied, and if they are a lump too, only identical ones.

    Args:
        pixel_ids: (N,) equal for identical pixels.
        thumbnails: Returns those of some of the N images, as (n, 1024) grey levels.
        classes: (N,) the number of each one's class.
    """
    num = len(pixel_ids)
    same = chain(pixel_ids)
    keys, hashes_RN = _hashes(num, thumbnails)
    upright = _upright(same, keys, hashes_RN, thumbnails)
    copies = _turned(keys, hashes_RN, upright, thumbnails, classes)
    del keys, hashes_RN
    in_class = classes[copies[:, 0]] == classes[copies[:, 1]]
    near, turns = _joined(upright, copies[in_class])
    in_lump = _lumps(near, turns, classes)
    tied = near
    for narrower in (upright, components(num, same)):
        too_large = _lumps(tied, turns, classes)
        tied = np.where(too_large, tied.max(initial=0) + 1 + narrower, tied)
    tied = np.where(_lumps(tied, turns, classes), -1, tied)

    clusters, across, has_turned = np.full(num, -1), np.zeros(num, bool), np.zeros(num, bool)
    for members in groups(upright):
        across[members] = (classes[members] != classes[members[0]]).any()
    for members in groups(near):
        has_turned[members] = (turns[members] != turns[members[0]]).any()
    for members in groups(tied):
        clusters[members] = members[0]
    return NearDuplicates(clusters, turns, in_lump, has_turned, across, copies[~in_class])


def _hashes(num: int, thumbnails: Callable[[Indices], Grey]) -> tuple[Keys, Keys]:
    """Return (N,) keys of the thumbnails, and (8, N) perceptual hashes of each of their turns."""
    keys = np.empty(num, np.uint64)
    hashes_RN = np.empty((NUM_TURNS, num), np.uint64)
    for start in range(0, num, _HASHED_AT_ONCE):
        grey_nT = thumbnails(np.arange(start, min(start + _HASHED_AT_ONCE, num)))
        rows = slice(start, start + len(grey_nT))
        keys[rows] = [picture_key(grey.tobytes()) for grey in grey_nT]
        low_nHW = _low_frequencies(grey_nT)
        for turn in range(NUM_TURNS):
            hashes_RN[turn, rows] = _strong_bits(turned_frequencies(low_nHW, turn))
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
        close = _confirmed(thumbnails(different[needed]), places.reshape(-1, 2))
        # In a lump all pairs are close; a chain connects the same images.
        return needed[chain(components(len(needed), close))]

    close = [different[_search(hashes_RN[turn, different], compared)] for turn in _SIGNS]
    labels = components(len(keys), np.concatenate([same, alike, *close]))
    # Numbered in the order of the keys, too.
    _, first_of = np.unique(labels[order], return_index=True)
    rank = np.empty(len(first_of), np.int64)
    rank[np.argsort(first_of)] = np.arange(len(first_of))
    return rank[labels]


def _turned(
    keys: Keys,
    hashes_RN: Keys,
    upright: Indices,
    thumbnails: Callable[[Indices], Grey],
    classes: npt.NDArray[np.integer[Any]],
) -> Indices:
    """Return (P, 3) turned copies: the first image is the second one, turned by the third number.

    Those that are alike without being turned are left out: symmetric and plain images.
    """
    order = np.lexsort((classes, keys))
    first = np.ones(len(keys), bool)
    first[1:] = (np.diff(keys[order]) != 0) | (np.diff(classes[order]) != 0)
    images = order[first]  # identical thumbnails of one class are compared once
    upright, classes = upright[images], classes[images]
    found = [np.empty((0, 3), np.int64)]
    # Each relation is looked for from both of its images, since their hashes differ by chance.
    for turn in range(1, NUM_TURNS):

        def compared(entries: Indices, turn: int = turn) -> Indices:
            # Entry 2i is image i, entry 2i + 1 the same image turned.
            entries = np.where((entries % 2)[:, :1] == 1, entries[:, ::-1], entries)
            is_of_both = (entries[:, 0] % 2 == 0) & (entries[:, 1] % 2 == 1)
            pairs = entries[is_of_both] // 2
            pairs = pairs[upright[pairs[:, 0]] != upright[pairs[:, 1]]]
            needed, places = np.unique(pairs, return_inverse=True)
            places = places.reshape(-1, 2)
            grey_nT = thumbnails(images[needed])
            is_in_class = classes[pairs[:, 0]] == classes[pairs[:, 1]]
            close = [
                forest(len(needed), _confirmed(grey_nT, places[some], turn))
                for some in (is_in_class, ~is_in_class)
            ]
            return needed[np.concatenate(close)]

        both = np.stack([hashes_RN[UPRIGHT, images], hashes_RN[turn, images]], axis=1)
        close = images[_search(both.reshape(-1), compared, of_both=True)]
        found.append(np.concatenate([close, np.full((len(close), 1), turn)], axis=1))
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


def perceptual_hashes(grey_NT: Grey) -> Keys:
    """Return 64 bits for each thumbnail: which low frequencies are stronger than their median.

    Like `imagehash.phash`, for many at once.
    """
    return _strong_bits(_low_frequencies(grey_NT))


def _low_frequencies(grey_NT: Grey) -> npt.NDArray[np.float64]:
    from scipy.fftpack import dct

    grey_NHW = grey_NT.reshape(-1, THUMBNAIL_PX, THUMBNAIL_PX)
    low_NHW: npt.NDArray[np.float64] = dct(dct(grey_NHW, axis=1), axis=2)[:, :8, :8]
    return low_NHW


def _strong_bits(low_NHW: npt.NDArray[np.float64]) -> Keys:
    low_NT = low_NHW.reshape(-1, 64)
    strong_NT = low_NT > np.median(low_NT, axis=1, keepdims=True)
    return np.packbits(strong_NT, axis=1).view(np.uint64)[:, 0]


def _search(
    hashes: Keys, compared: Callable[[Indices], Indices], *, of_both: bool = False
) -> Indices:
    """Return (P, 2) pairs that connect all that are close, by blocks, which bounds memory.

    Args:
        hashes: (n,) what the candidates are found by.
        compared: Returns what connects the close ones among (p, 2) candidates.
        of_both: Only pairs of an even and an odd position are wanted.
    """
    pairs = [np.empty((0, 2), np.int64)]
    for number, mask in enumerate(_BANDS):
        order = np.lexsort((hashes, hashes & mask))
        if of_both:
            order = order[_is_among_both(hashes[order] & mask, order % 2)]
        for start in range(0, len(order), _AT_ONCE):
            block = order[start : start + _AT_ONCE + MAX_WINDOW]
            proposed = _candidates(hashes[block], number, _AT_ONCE)
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


def _confirmed(grey_NT: Grey, pairs: Indices, turn: int = UPRIGHT) -> Indices:
    """Return the pairs whose thumbnails differ only slightly, once the second one is turned."""
    others_NT, limit_N = grey_NT, np.full(len(grey_NT), MAX_MEAN_DIFFERENCE)
    if turn != UPRIGHT:
        square_NHW = grey_NT.reshape(-1, THUMBNAIL_PX, THUMBNAIL_PX)
        others_NT = turned(square_NHW, turn).reshape(grey_NT.shape)
        contrast_N = np.abs(grey_NT - grey_NT.mean(axis=1, keepdims=True)).mean(axis=1)
        limit_N = np.minimum(limit_N, MAX_SHARE_OF_CONTRAST * contrast_N)
    kept = [np.empty((0, 2), np.int64)]
    for start in range(0, len(pairs), _AT_ONCE):
        some = pairs[start : start + _AT_ONCE]
        first, second = grey_NT[some[:, 0]], others_NT[some[:, 1]]
        difference = (np.maximum(first, second) - np.minimum(first, second)).mean(axis=1)
        kept.append(some[difference <= limit_N[some].min(axis=1)])
    return np.concatenate(kept)


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

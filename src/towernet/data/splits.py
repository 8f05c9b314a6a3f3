"""Assignment of images to splits: for training, for choosing the epoch, for the final test.

Images are assigned in units: one image, or all images that near-duplicate clusters and groups tie
together. A unit's split depends only on the seed and its images' content, so the order in which
files were found does not matter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from towernet import rng
from towernet.config import DataConfig
from towernet.data.connected import chain, components
from towernet.data.copies import ACROSS_SPLITS
from towernet.data.table import (
    IGNORED,
    SPLITS,
    TEST,
    TRAIN,
    USED,
    VALIDATION,
    path_bytes,
)
from towernet.errors import ConfigError, DataError
from towernet.words import counted, shown

MAX_DRAWS = 64  # tried if groups span classes, until every class is on each side

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def assign(table: pd.DataFrame, config: DataConfig, *, seed: int, repetition: int) -> pd.DataFrame:
    """Return the table with every used image's split.

    The test split depends on the seed alone; the rest is divided again for each repetition.
    Splits that came with the data are kept: a missing validation or test split is drawn from
    the training images, and an image whose near duplicate is in a later split is ignored, if
    `check` did not do so (DUPLICATE_ACROSS_SPLITS; train, then validation, then test).

    Args:
        table: From `check`, perhaps through `limit`.
        config: The fractions of all images, and the rule.
        seed: The run's seed.
        repetition: Which run of a comparison it is.

    Raises:
        ConfigError: the fractions leave nothing to train on, or the data has its own splits and
            the rule is `every_fifth`.
        DataError: a class is too small for its splits.
    """
    if config.validation_fraction + config.test_fraction >= 1:
        raise ConfigError(
            f"data.validation_fraction is {config.validation_fraction:g} and data.test_fraction"
            f" {config.test_fraction:g}, which leaves nothing to train on; set less than 1 in total"
        )
    table = table.copy()
    given = set(table["given_split"][_is(table, USED)]) - {""}
    if config.split_rule == "every_fifth":
        if given:
            raise ConfigError(
                "the split rule every_fifth chooses the images to hold out and the data has its own"
                f" splits ({', '.join(sorted(given))}); pass only the training folder, or another"
                " recipe"
            )
        return _every_fifth(table)
    if given:
        table = _ignore_across(table)
        _require_whole_groups(table)
    require_training_images(table)
    rows = np.flatnonzero(_is(table, USED))
    splits = _given(table)[rows]
    units = _Units(table, rows)
    # Convert a share of all images to a share of those it is drawn from: 0.16 of all is 0.2 of
    # what a test split of 0.2 leaves, whether that was drawn here or came with the data.
    draw_validation = VALIDATION not in given and config.validation_fraction > 0
    if TEST not in given and config.test_fraction > 0:
        share = config.test_fraction / (1 - config.validation_fraction * (VALIDATION in given))
        held = units.draw(splits == TRAIN, share, 1 + draw_validation, seed, 0, TEST)
        splits[held] = TEST
    if draw_validation:
        share = config.validation_fraction / (1 - config.test_fraction)
        splits[units.draw(splits == TRAIN, share, 1, seed, repetition, VALIDATION)] = VALIDATION
    return _with_splits(table, rows, splits)


def limit(table: pd.DataFrame, images_per_class: int, seed: int) -> pd.DataFrame:
    """Return the table with at most this many used images of each class; ignore the others.

    Each split that came with the data keeps its share of the class.
    """
    rows = np.flatnonzero(_is(table, USED))
    drawn = rng.uniform(seed, 0, rng.keys(list(table["content_id"].to_numpy()[rows])), "limit")[
        :, 0
    ]
    classes = _codes(table, rows, "class_name")
    parts = _dense(classes * (len(rows) + 1) + _codes(table, rows, "given_split"))
    # Images are ranked by their relative position in their own part, so that the first N of a
    # class are taken from each part in proportion.
    share = (_rank(parts, drawn) + 0.5) / np.bincount(parts)[parts]
    left_out = rows[_rank(classes, share, drawn) >= images_per_class]
    detail = f"not among the {images_per_class:,} images per class that were drawn"
    return _ignore(table.copy(), left_out, "NOT_SAMPLED", detail)


def tied(table: pd.DataFrame) -> Ints:
    """Return a number for each used image, the same if near duplicates or groups tie them."""
    rows = np.flatnonzero(_is(table, USED))
    return connect(len(rows), [_codes(table, rows, "cluster"), _codes(table, rows, "group")])


class _Units:
    """The used rows and their units: images that clusters and groups tie are never divided."""

    def __init__(self, table: pd.DataFrame, rows: Ints) -> None:
        self.class_names = table["class_name"].to_numpy(dtype=object)[rows]
        self.classes = _codes(table, rows, "class_name")
        self.unit = tied(table)
        # The key of a unit's random draw is the smallest of its images' content ids.
        contents = table["content_id"].to_numpy(dtype=object)[rows]
        order = np.lexsort((_dense(contents), self.unit))
        _, first = np.unique(self.unit[order], return_index=True)
        self.keys = rng.keys(list(contents[order[first]]))

    def draw(
        self, pool: Bools, share: float, num_kept: int, seed: int, repetition: int, split: str
    ) -> Bools:
        """Return which rows of the pool are held out for one split.

        Args:
            pool: The rows to draw from; each unit is in it completely or not at all.
            share: How much of each class in the pool to hold out.
            num_kept: How many splits share what is left: each needs a unit of every class.
            seed: The run's seed.
            repetition: Which run of a comparison it is.
            split: Name of the split.

        Raises:
            DataError: a class has too few unshared units.
        """
        unit_ids, units = np.unique(self.unit[pool], return_inverse=True)
        pairs, num_images = np.unique(
            np.stack([units, self.classes[pool]]), axis=1, return_counts=True
        )
        parts = _Parts(pairs[0], pairs[1], num_images)
        num_units = parts.count_units(np.ones(len(unit_ids), dtype=bool))
        short = (num_units > 0) & (num_units <= num_kept)
        # One draw is enough unless units span classes: then a class may end up on one side only.
        for attempt in range(0 if short.any() else MAX_DRAWS):
            purpose = f"split {split} {attempt}"
            drawn = rng.uniform(seed, repetition, self.keys[unit_ids], purpose)[:, 0]
            held = parts.hold_out(share, drawn, num_kept)
            num_held = parts.count_units(held)
            short = (num_units > 0) & ((num_held == 0) | (num_units - num_held < num_kept))
            if not short.any():
                mask = np.zeros(len(pool), dtype=bool)
                mask[pool] = held[units]
                return mask
        code = np.flatnonzero(short)[0]
        (positions,) = np.nonzero(pool & (self.classes == code))
        which = ", some shared with other classes" if num_units[code] > num_kept else ""
        raise DataError(
            f"class {shown(self.class_names[positions[0]])} is too small for a {split} split:"
            f" near duplicates and groups stay together, so its {len(positions):,} images form only"
            f" {counted(int(num_units[code]), 'unit')}{which}, and {num_kept + 1} unshared units"
            " are needed; add images (from new groups, if a CSV defines groups)"
        )


class _Parts(NamedTuple):
    """The images of one class in one unit, for all units; most units have one such part."""

    unit: Ints
    class_code: Ints
    num_images: Ints

    def count_units(self, held: Bools) -> Ints:
        """Return how many of the held units have images of each class."""
        return np.bincount(self.class_code[held[self.unit]], minlength=self.class_code.max() + 1)

    def hold_out(self, share: float, drawn: Floats, num_kept: int) -> Bools:
        """Return which units to hold out, so that each class comes close to its share."""
        held = self._hold_spanning(share, drawn, num_kept)
        taken = held[self.unit]
        num_classes = self.class_code.max() + 1
        wanted = share * np.bincount(self.class_code, self.num_images)
        wanted -= np.bincount(self.class_code[taken], self.num_images[taken], num_classes)
        num_held = self.count_units(held)
        num_units = self.count_units(np.ones(len(held), dtype=bool))
        # The units of one class: the first ones in the order drawn, each if at least half of it
        # is still wanted; at least one, and never so many that too few are kept.
        single = self._is_single()
        unit, code, size = self.unit[single], self.class_code[single], self.num_images[single]
        order = np.lexsort((drawn[unit], code))
        unit, code, size = unit[order], code[order], size[order]
        start = np.searchsorted(code, code)
        before = np.cumsum(size) - size
        before -= before[start]
        rank = np.arange(len(code)) - start
        take = (before + size / 2 <= wanted[code]) | (rank + num_held[code] < 1)
        held[unit[take & (rank < (num_units - num_held - num_kept)[code])]] = True
        return held

    def _is_single(self) -> Bools:
        single: Bools = np.bincount(self.unit)[self.unit] == 1
        return single

    def _hold_spanning(self, share: float, drawn: Floats, num_kept: int) -> Bools:
        """Hold out units of several classes, in the order drawn, if shares come closer that way."""
        held = np.zeros(len(drawn), dtype=bool)
        parts_of: dict[int, list[tuple[int, int]]] = {}
        num_spanning: Counter[int] = Counter()
        for unit, code, num in np.stack(self, axis=1)[~self._is_single()].tolist():
            parts_of.setdefault(unit, []).append((code, num))
            num_spanning[code] += num
        # Multiply once: the last bit of a sum of shares would depend on the order of the files.
        wanted = {code: share * num for code, num in num_spanning.items()}
        num_left = self.count_units(np.ones(len(held), dtype=bool))  # undecided, or kept
        undecided, num_held = num_left.copy(), np.zeros_like(num_left)
        for unit in sorted(parts_of, key=drawn.__getitem__):
            parts = parts_of[unit]
            codes = [code for code, _ in parts]
            nearer = sum(abs(wanted[code]) - abs(wanted[code] - num) for code, num in parts)
            last_chance = np.any((num_held[codes] == 0) & (undecided[codes] == 1))
            undecided[codes] -= 1
            if (nearer >= 0 or last_chance) and np.all(num_left[codes] > num_kept):
                held[unit] = True
                num_held[codes] += 1
                num_left[codes] -= 1
                for code, num in parts:
                    wanted[code] -= num
        return held


def connect(num: int, ties: Iterable[Ints]) -> Ints:
    """Return which connected component each of `num` things is in.

    Args:
        num: How many there are.
        ties: (num,) codes; things of one code are tied, those of code -1 are not.

    Example:
        >>> connect(4, [np.array([0, 0, -1, -1]), np.array([-1, 5, -1, 5])]).tolist()
        [0, 0, 1, 0]
    """
    pairs = [np.empty((0, 2), np.int64)]
    for codes in ties:
        tied = np.flatnonzero(codes >= 0)
        pairs.append(tied[chain(codes[tied])])
    return components(num, np.concatenate(pairs))


def _every_fifth(table: pd.DataFrame) -> pd.DataFrame:
    """Hold out file i of a class, in byte order of the paths, when i is a multiple of five."""
    rows = np.flatnonzero(_is(table, USED))
    paths = table["path"].to_numpy(dtype=object)[rows]
    place = _dense(np.array([*map(path_bytes, paths)], dtype=object))
    rank = _rank(_codes(table, rows, "class_name"), place)
    return _with_splits(table, rows, np.where(rank % 5 == 0, VALIDATION, TRAIN).astype(object))


def _ignore_across(table: pd.DataFrame) -> pd.DataFrame:
    """Ignore images with a near duplicate in a later split: results are measured on later ones."""
    rows = np.flatnonzero(_is(table, USED))
    clusters = _codes(table, rows, "cluster")
    stage = _stage(table, rows)
    latest = np.zeros(len(rows) + 1, dtype=np.int64)
    np.maximum.at(latest, clusters, stage)
    earlier = (clusters >= 0) & (stage < latest[clusters])
    for number, split in enumerate(SPLITS):
        detail = f"a near duplicate of it is in the {split} split that came with the data"
        across = rows[earlier & (latest[clusters] == number)]
        table = _ignore(table, across, ACROSS_SPLITS, detail)
    return table


def _require_whole_groups(table: pd.DataFrame) -> None:
    rows = np.flatnonzero(_is(table, USED))
    groups = _codes(table, rows, "group")
    stage = _stage(table, rows)
    first, last = np.full(len(rows) + 1, len(SPLITS)), np.zeros(len(rows) + 1, dtype=np.int64)
    np.minimum.at(first, groups, stage)
    np.maximum.at(last, groups, stage)
    divided = np.flatnonzero((groups >= 0) & (first[groups] < last[groups]))
    if divided.size:
        at = divided[0]
        raise DataError(
            f"group {shown(table['group'].to_numpy(dtype=object)[rows[at]])} has images in both"
            f" {SPLITS[first[groups[at]]]} and {SPLITS[last[groups[at]]]}, and a group must stay on"
            " one side; assign all its images to one split"
        )


def require_training_images(table: pd.DataFrame) -> None:
    """Refuse a class without training images, if splits came with the data.

    Raises:
        DataError: naming the class, and where its images are.
    """
    used, classes = _is(table, USED), table["class_name"].to_numpy(dtype=object)
    splits, is_copy = _given(table), (table["reason"] == ACROSS_SPLITS).to_numpy(dtype=bool)
    lacking = sorted({*classes[used]} - {*classes[used & (splits == TRAIN)]}, key=path_bytes)
    if lacking:
        of_class = classes == lacking[0]
        where = " and ".join(sorted(set(splits[of_class & used])))
        if num_copies := int((of_class & is_copy & (splits == TRAIN)).sum()):
            raise DataError(
                f"class {shown(lacking[0])} has no training images left: all its"
                f" {counted(num_copies, 'training image')} are copies of images in {where}; remove"
                f" them from {where}, or add other training images"
            )
        raise DataError(
            f"class {shown(lacking[0])} has no training images, its"
            f" {(of_class & used).sum():,} images are assigned to {where}; move some to train"
        )


def _is(table: pd.DataFrame, status: str) -> Bools:
    return (table["status"] == status).to_numpy(dtype=bool)


def _given(table: pd.DataFrame) -> npt.NDArray[np.object_]:
    """Return the split that came with each image, or train if none did."""
    splits = table["given_split"].to_numpy(dtype=object, copy=True)
    splits[splits == ""] = TRAIN
    return splits


def _stage(table: pd.DataFrame, rows: Ints) -> Ints:
    splits = _given(table)[rows]
    return np.select([splits == split for split in SPLITS], range(len(SPLITS)))


def _codes(table: pd.DataFrame, rows: Ints, column: str) -> Ints:
    """Return a number for each text, in the order of the texts; -1 for ''."""
    values = table[column].to_numpy(dtype=object, copy=True)[rows]
    values[values == ""] = None
    codes: Ints = pd.factorize(values, sort=True)[0].astype(np.int64)
    return codes


def _dense(values: npt.NDArray[np.generic]) -> Ints:
    """Return each value's position among the distinct values."""
    places: Ints = np.unique(values, return_inverse=True)[1]
    return places


def _rank(codes: Ints, *order_by: npt.NDArray[np.generic]) -> Ints:
    """Return each item's rank within its code, by the first key, then the next."""
    order = np.lexsort((*reversed(order_by), codes))
    rank = np.empty(len(codes), dtype=np.int64)
    rank[order] = np.arange(len(codes)) - np.searchsorted(codes[order], codes[order])
    return rank


def _with_splits(table: pd.DataFrame, rows: Ints, splits: npt.NDArray[np.object_]) -> pd.DataFrame:
    values = np.full(len(table), "", dtype=object)
    values[rows] = splits
    table["split"] = pd.Series(values, index=table.index, dtype=object)
    return table


def _ignore(table: pd.DataFrame, rows: Ints, reason: str, detail: str) -> pd.DataFrame:
    for column, value in (("status", IGNORED), ("reason", reason), ("detail", detail)):
        values = table[column].to_numpy(dtype=object, copy=True)
        values[rows] = value
        # A new column: pandas would guess its type from the text, which fails for some names.
        table[column] = pd.Series(values, index=table.index, dtype=object)
    return table

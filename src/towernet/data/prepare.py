"""From a split sample table to arrays: the images of each split, the pixels, the contract."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from towernet import rng
from towernet.config import DataConfig
from towernet.data import class_sizes, splits
from towernet.data.cache import open_pixels
from towernet.data.changes import mark_removed, unmark_removed
from towernet.data.check import check
from towernet.data.ranges import rules_for, rules_of
from towernet.data.rules import BEFORE, Rules
from towernet.data.source import Source
from towernet.data.table import path_bytes
from towernet.records.contract import Contract
from towernet.records.reading import DEFAULT, Reading
from towernet.words import composed

if TYPE_CHECKING:
    from torch import Tensor

NOTEBOOK_MEAN = (0.50950350, 0.54632660, 0.57409690)
NOTEBOOK_STD = (0.26059777, 0.26041326, 0.29220656)
# More images would not change the mean's third decimal, and take long to read in a large set.
NUM_IMAGES_MEASURED = 2000


@dataclass(frozen=True)
class Part:
    """One split: N images by their rows in the pixel maps.

    Args:
        rows: (N,) int64, positions in the pixel maps.
        labels: (N,) int64, positions in the contract's class names.
        keys: (N,) uint64, the keys of their random draws.
        paths: (N,) their keys in the sample table.
    """

    rows: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    keys: npt.NDArray[np.uint64]
    paths: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Dataset:
    """Everything a run reads: parts, pixels, the class contract, the table it came from.

    Args:
        table: The sample table with its splits.
        contract: The classes, and how an image becomes a network's input.
        train: The training images.
        validation: The validation images.
        test: The test images; none if there is no such split.
        open_train_pixels: Decodes the images as they are cut from in training, or maps them.
        open_pixels: The same as they are evaluated.
        is_redrawn: Whether each repetition draws its own training and validation images.
        rules: How files become pixels.
    """

    table: pd.DataFrame
    contract: Contract
    train: Part
    validation: Part
    test: Part
    open_train_pixels: Callable[[], npt.NDArray[np.uint8] | Tensor]
    open_pixels: Callable[[], npt.NDArray[np.uint8]]
    is_redrawn: bool = False
    rules: Rules = BEFORE

    @property
    def train_pixels(self) -> npt.NDArray[np.uint8] | Tensor:
        """All used images, (N, S, S, 3), mapped from the cache, or a tensor on a GPU."""
        return self.open_train_pixels()

    @property
    def pixels(self) -> npt.NDArray[np.uint8]:
        """All used images as they are evaluated, (N, S, S, 3), mapped from the cache."""
        return self.open_pixels()

    @property
    def num_images(self) -> int:
        """How many images are used, in all splits."""
        return int((self.table.status == "used").sum())

    @property
    def final(self) -> Part:
        """The part that results are measured on: test, or the notebook's selection set."""
        return self.test if len(self.test) else self.validation

    def final_clusters(self) -> npt.NDArray[np.int64]:
        """Return a number for each image of `final`, the same if duplicates or groups tie them.

        An image has the same number in every repetition.
        """
        used = self.table[self.table.status == "used"]
        clusters: npt.NDArray[np.int64] = splits.tied(used)[self.final.rows]
        return clusters

    def with_train_share(self, share: float, *, seed: int, repetition: int) -> Dataset:
        """Return a copy with a share of each class's training images, at least one.

        Images that near duplicates or groups tie are kept or left out together. A smaller share is
        part of a larger one; each repetition draws its own. Rows and the contract do not change.
        """
        unit, order, place = self._drawn(seed, repetition, "train share")
        labels = self.train.labels
        wanted = np.maximum(1, np.round(share * np.bincount(labels)))[labels[order]]
        return self._with_train(np.flatnonzero(np.isin(unit, unit[order[place < wanted]])))

    def with_shots(self, num: int, *, seed: int, repetition: int) -> Dataset:
        """Return a copy with so many training images of each class, or all of a smaller class.

        Of images that near duplicates or groups tie, at most one is kept, so that each shows
        something else; more only where a class has too few that are not tied. A smaller number is
        part of a larger one; each repetition draws its own. Rows and the contract do not change.
        """
        unit, order, _ = self._drawn(seed, repetition, "shots")
        labels = self.train.labels[order]
        # First one image of each unit of a class, then the second ones, and so on.
        of_unit = np.zeros(len(order), np.int64)
        seen: dict[tuple[int, int], int] = {}
        for i, key in enumerate(zip(labels.tolist(), unit[order].tolist(), strict=True)):
            of_unit[i] = seen.get(key, 0)
            seen[key] = seen.get(key, 0) + 1
        again = np.lexsort((np.arange(len(order)), of_unit, labels))
        order, labels = order[again], labels[again]
        place = np.arange(len(order)) - np.searchsorted(labels, labels)
        return self._with_train(np.sort(order[place < num]))

    def repeated(self, num_images: int) -> Dataset:
        """Return a copy whose training images come several times, up to about so many in all.

        So an epoch is as long as one of all images, and is followed by as many evaluations. Each
        time has its own random draws. An image is as frequent as any other.
        """
        times = max(1, round(num_images / len(self.train)))
        part = self.train
        number = np.repeat(np.arange(times, dtype=np.uint64), len(part))
        # Odd, so that two of an image's keys never meet.
        keys = np.tile(part.keys, times) + number * np.uint64(0x9E3779B97F4A7C15)
        again = Part(
            np.tile(part.rows, times), np.tile(part.labels, times), keys, part.paths * times
        )
        return replace(self, train=again)

    def _drawn(
        self, seed: int, repetition: int, purpose: str
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return each training image's unit, a random order by class and unit, places in a class.

        The units are the images that near duplicates or groups tie; a place is that of an image in
        the order, counted within its class.
        """
        used = self.table[self.table.status == "used"]
        unit = np.unique(splits.tied(used)[self.train.rows], return_inverse=True)[1]
        least_key = np.full(unit.max() + 1, np.iinfo(np.uint64).max, dtype=np.uint64)
        np.minimum.at(least_key, unit, self.train.keys)
        drawn = rng.uniform(seed, repetition, least_key, purpose)[unit, 0]
        labels = self.train.labels
        order = np.lexsort((unit, drawn, labels))
        starts = np.searchsorted(labels[order], labels[order])  # where each one's class begins
        return unit, order, np.arange(len(order)) - starts

    def _with_train(self, kept: npt.NDArray[np.int64]) -> Dataset:
        """Return a copy with only some of the training images, by position."""
        part = Part(
            self.train.rows[kept],
            self.train.labels[kept],
            self.train.keys[kept],
            tuple(self.train.paths[i] for i in kept),
        )
        split = self.table.split.to_numpy(dtype=object).copy()
        of_used = np.flatnonzero((self.table.status == "used").to_numpy())
        split[of_used[np.setdiff1d(self.train.rows, part.rows)]] = ""
        column = pd.Series(split, index=self.table.index, dtype=object)
        return replace(self, train=part, table=self.table.assign(split=column))

    @property
    def redraws_final_split(self) -> bool:
        """Whether each repetition is judged on different images, since there is no test split."""
        return self.is_redrawn and not len(self.test)

    @property
    def final_split(self) -> str:
        """The name of `final`."""
        return "test" if len(self.test) else "validation"


def fingerprint(table: pd.DataFrame) -> str:
    """Return a hash of the used images, their classes and their splits."""
    used = table[table.status == "used"]
    columns = (used.path, used.class_name, used.content_id, used.split)
    rows = "\n".join("\0".join(row) for row in zip(*columns, strict=True))
    return hashlib.sha256(rows.encode("utf-8", "surrogatepass")).hexdigest()


def sample_table(
    source: Source,
    *,
    seed: int,
    images_per_class: int | None,
    reading: Reading | None = DEFAULT,
    workers: int,
    progress: Callable[[str, int, int], None] | None = None,
) -> pd.DataFrame:
    """Check every file and return the sample table; its splits are drawn later.

    Args:
        source: The images.
        seed: Of the choice of `images_per_class`.
        images_per_class: The most images of a class, None for all.
        reading: As recorded in the run; None for one made before there were such options.
        workers: How many processes decode.
        progress: Called as progress(what, done, total).
    """
    table = check(source, workers=workers, progress=progress, rules=rules_of(reading))
    if images_per_class is not None:
        table = splits.limit(table, images_per_class, seed)
    return table


def prepare(
    table: pd.DataFrame,
    source: Source,
    config: DataConfig,
    *,
    seed: int,
    repetition: int = 0,
    reading: Reading | None = DEFAULT,
    workers: int,
    progress: Callable[[str, int, int], None] | None = None,
) -> Dataset:
    """Draw the splits, decode the used images (or map the cache), create the class contract.

    Args:
        table: From `sample_table`.
        source: The images.
        config: How images are split and fitted.
        seed: Of the splits.
        repetition: Other splits of the same images, where they are drawn.
        reading: As recorded in the run; None for one made before there were such options.
        workers: How many processes decode.
        progress: Called as progress(what, done, total).

    Raises:
        DataError: there are too few classes or images.
    """
    class_sizes.require_trainable(table, source.options.min_images)
    table = splits.assign(unmark_removed(table), config, seed=seed, repetition=repetition)
    # Of all images the run was started with: a range that moved would change the others' pixels.
    rules = rules_for(table, reading)
    table = mark_removed(table)
    used = table[table.status == "used"].reset_index(drop=True)
    class_names = tuple(sorted(set(used.class_name), key=path_bytes))

    @functools.cache
    def cached(size_px: int, crop_share: float = 1.0) -> npt.NDArray[np.uint8]:
        return open_pixels(
            table,
            source,
            size_px=size_px,
            resize=config.resize,
            crop_share=crop_share,
            rules=rules,
            workers=workers,
            progress=progress,
        )

    open_evaluated = functools.partial(cached, config.size_px, config.crop_share)
    # Random crops of training images can reach their borders.
    open_train = functools.partial(cached, round(config.size_px * config.train_margin), 1.0)
    labels = labels_of(used, class_names)
    item_keys = rng.keys(list(used.content_id))

    def part(split: str) -> Part:
        rows = np.flatnonzero(used.split == split)
        return Part(rows, labels[rows], item_keys[rows], tuple(used.path.iloc[rows]))

    train = part("train")
    if config.normalise == "given":
        # Not opened yet: a frozen network needs no decoded images on disk.
        assert config.mean is not None and config.std is not None, "the config has checked it"
        mean, std = config.mean, config.std
    elif config.normalise == "notebook":
        mean, std = NOTEBOOK_MEAN, NOTEBOOK_STD
    else:
        mean, std = _mean_and_std(open_evaluated(), train)
        open_train()
    millions = None if reading is None else reading.max_megapixels
    contract = Contract(
        class_names, config.size_px, config.resize, mean, std, rules.background,
        value_range=rules.value_range, colour_profile=rules.colour_profile,
        max_megapixels=None if millions is None else float(millions),
        crop_share=config.crop_share,
    )  # fmt: skip
    test = part("test")
    is_redrawn = config.split_rule == "stratified" and not (used.given_split == "validation").any()
    return Dataset(
        table, contract, train, part("validation"), test, open_train, open_evaluated,
        is_redrawn=is_redrawn, rules=rules,
    )  # fmt: skip


def labels_of(table: pd.DataFrame, class_names: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """Return (N,) the position of each image's class among the names."""
    # pandas' own mapping fails for names that are not UTF-8.
    label_of = {composed(name): label for label, name in enumerate(class_names)}
    return np.array([label_of[composed(name)] for name in table.class_name], np.int64)


def _mean_and_std(
    pixels: npt.NDArray[np.uint8], train: Part
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return the mean and deviation of the training split's channels, as fractions of white."""
    chosen = np.sort(train.rows[rng.order(0, 0, train.keys, "normalise")[:NUM_IMAGES_MEASURED]])
    # Sums of integers are exact, so the result does not depend on the order.
    total, squares, count = np.zeros(3, np.int64), np.zeros(3, np.int64), 0
    for row in chosen:
        image = pixels[row].reshape(-1, 3).astype(np.int64)
        total, squares, count = (
            total + image.sum(0),
            squares + (image**2).sum(0),
            count + len(image),
        )
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1.0))  # at least one grey level
    return (
        tuple(float(value) for value in np.round(mean / 255, 6)),
        tuple(float(value) for value in np.round(std / 255, 6)),
    )  # type: ignore[return-value]

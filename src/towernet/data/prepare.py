"""From a split sample table to arrays: the images of each split, the pixels, the contract."""

from __future__ import annotations

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
from towernet.data.source import Source
from towernet.data.table import path_bytes
from towernet.records.contract import Contract
from towernet.records.reading import DEFAULT, Reading

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

    The training pixels, (N, S, S, 3), are mapped from the cache, or a tensor on a GPU. With
    `is_redrawn` each repetition draws its own training and validation images.
    """

    table: pd.DataFrame
    contract: Contract
    train: Part
    validation: Part
    test: Part
    train_pixels: npt.NDArray[np.uint8] | Tensor
    pixels: npt.NDArray[np.uint8]
    is_redrawn: bool = False

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
        used = self.table[self.table.status == "used"]
        unit = np.unique(splits.tied(used)[self.train.rows], return_inverse=True)[1]
        least_key = np.full(unit.max() + 1, np.iinfo(np.uint64).max, dtype=np.uint64)
        np.minimum.at(least_key, unit, self.train.keys)
        drawn = rng.uniform(seed, repetition, least_key, "train share")[unit, 0]
        labels = self.train.labels
        order = np.lexsort((unit, drawn, labels))
        starts = np.searchsorted(labels[order], labels[order])  # where each one's class begins
        wanted = np.maximum(1, np.round(share * np.bincount(labels)))[labels[order]]
        is_first = np.arange(len(order)) - starts < wanted
        kept = np.flatnonzero(np.isin(unit, unit[order[is_first]]))
        part = Part(
            self.train.rows[kept],
            labels[kept],
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

    def cached(size_px: int) -> npt.NDArray[np.uint8]:
        return open_pixels(
            table,
            source,
            size_px=size_px,
            resize=config.resize,
            rules=rules,
            workers=workers,
            progress=progress,
        )

    pixels = cached(config.size_px)
    train_size_px = round(config.size_px * config.train_margin)
    train_pixels = pixels if train_size_px == config.size_px else cached(train_size_px)
    labels = labels_of(used, class_names)
    item_keys = rng.keys(list(used.content_id))

    def part(split: str) -> Part:
        rows = np.flatnonzero(used.split == split)
        return Part(rows, labels[rows], item_keys[rows], tuple(used.path.iloc[rows]))

    train = part("train")
    mean, std = (
        (NOTEBOOK_MEAN, NOTEBOOK_STD)
        if config.normalise == "notebook"
        else _mean_and_std(pixels, train)
    )
    contract = Contract(
        class_names, config.size_px, config.resize, mean, std, rules.background,
        value_range=rules.value_range, colour_profile=rules.colour_profile,
    )  # fmt: skip
    test = part("test")
    is_redrawn = config.split_rule == "stratified" and not (used.given_split == "validation").any()
    return Dataset(
        table, contract, train, part("validation"), test, train_pixels, pixels,
        is_redrawn=is_redrawn,
    )  # fmt: skip


def labels_of(table: pd.DataFrame, class_names: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """Return (N,) the position of each image's class among the names."""
    # pandas' own mapping fails for names that are not UTF-8.
    label_of = {name: label for label, name in enumerate(class_names)}
    return np.array([label_of[name] for name in table.class_name], np.int64)


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

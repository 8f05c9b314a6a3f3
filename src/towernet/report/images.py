"""What the report says of the images: counts, shapes, what was left out, one of each class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from towernet.data import leaks
from towernet.data.copies import ACROSS_SPLITS, NOTES
from towernet.data.table import SPLITS
from towernet.records.leaks import Copy
from towernet.report.tables import MAX_CLASS_ROWS
from towernet.rng import keys, uniform

MAX_FILE_ROWS = 100  # so that ten thousand bad files still make a page one can open
MAX_GALLERY = 100
MAX_COPIES = 20
Tally = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class ClassCount:
    """How many images of a class are used, and for what."""

    class_name: str
    total: int
    train: int
    validation: int
    test: int


@dataclass(frozen=True)
class Range:
    """How far some sides of images go, in pixels."""

    least: int
    median: int
    most: int


@dataclass(frozen=True)
class BadFile:
    """A file that something is wrong with."""

    path: str
    class_name: str
    reason: str
    detail: str


@dataclass(frozen=True)
class DataCard:
    """What the sample table says.

    Args:
        num_found: Files, of which these were used, quarantined and ignored.
        num_used: See above.
        num_quarantined: See above.
        num_ignored: See above.
        num_classes: Classes with images that are used.
        classes: All of them by name, or the smallest ones first where they are too many.
        largest: How many images the largest class has.
        imbalance: How many times the images of the smallest.
        widths: In pixels, as the heights.
        heights: See above.
        formats: How many images of each format; so the modes, notes and reasons.
        modes: Colour modes.
        notes: What was converted while reading.
        reasons_quarantined: Why files were.
        reasons_ignored: Why files were.
        quarantined: The first of the files.
        num_duplicates: Files that are copies of others.
        num_conflicts: Files of the same content in several classes.
        num_clusters: Groups of near duplicates.
        num_clustered: Images in them.
        copies: The first of them, except the first of each group.
        leaked: The first of the images left out as copies of images in a later given split.
        num_leaked: How many there are.
    """

    num_found: int
    num_used: int
    num_quarantined: int
    num_ignored: int
    num_classes: int
    classes: tuple[ClassCount, ...]
    largest: int
    imbalance: float
    widths: Range
    heights: Range
    formats: Tally
    modes: Tally
    notes: Tally
    reasons_quarantined: Tally
    reasons_ignored: Tally
    quarantined: tuple[BadFile, ...]
    num_duplicates: int
    num_conflicts: int
    num_clusters: int
    num_clustered: int
    copies: tuple[Copy, ...]
    leaked: tuple[Copy, ...]
    num_leaked: int


@dataclass(frozen=True)
class Sample:
    """An image that stands for its class."""

    path: str
    class_name: str


def data_card(table: pd.DataFrame) -> DataCard:
    """Return what the sample table says: counts, shapes, what was left out and why."""
    used = table[table["status"] == "used"]
    counts = Counter(zip(used["class_name"], used["split"], strict=True))
    classes = tuple(
        ClassCount(
            name,
            sum(counts[name, split] for split in SPLITS),
            **{split: counts[name, split] for split in SPLITS},
        )
        for name in sorted(set(used["class_name"]))
    )
    largest = max((row.total for row in classes), default=1)
    smallest_first = tuple(sorted(classes, key=lambda row: row.total))
    quarantined = table[table["status"] == "quarantined"]
    ignored = table[table["status"] == "ignored"]
    tied = leaks.tied(table)
    copies = tuple(copy for group in leaks.alike(table) for copy in group if copy.kind)
    bad = quarantined.head(MAX_FILE_ROWS)
    return DataCard(
        num_found=len(table),
        num_used=len(used),
        num_quarantined=len(quarantined),
        num_ignored=len(ignored),
        num_classes=len(classes),
        classes=classes if len(classes) <= MAX_CLASS_ROWS else smallest_first[:MAX_CLASS_ROWS],
        largest=largest,
        imbalance=largest / max(1, smallest_first[0].total) if classes else 1.0,
        widths=_range(used["width"]),
        heights=_range(used["height"]),
        formats=_tally(used["format"]),
        modes=_tally(used["mode"]),
        notes=_tally(
            note
            for notes in used["notes"]
            for note in str(notes).split(",")
            if note and note not in NOTES
        ),
        reasons_quarantined=_tally(quarantined["reason"]),
        reasons_ignored=_tally(ignored["reason"]),
        quarantined=tuple(
            BadFile(*values)
            for values in zip(
                *(bad[name] for name in ("path", "class_name", "reason", "detail")), strict=True
            )
        ),
        num_duplicates=int((table["reason"] == "DUPLICATE").sum()),
        num_conflicts=int((table["reason"] == "LABEL_CONFLICT").sum()),
        num_clusters=len(set(tied["cluster"])),
        num_clustered=len(tied),
        copies=copies[:MAX_COPIES],
        leaked=leaks.left_out(table)[:MAX_COPIES],
        num_leaked=int((table["reason"] == ACROSS_SPLITS).sum()),
    )


def _range(values: pd.Series[Any]) -> Range:
    if values.empty:
        return Range(0, 0, 0)
    return Range(int(values.min()), int(values.median()), int(values.max()))


def _tally(values: Iterable[object]) -> Tally:
    return tuple(sorted(Counter(map(str, values)).items(), key=lambda item: (-item[1], item[0])))


def gallery(table: pd.DataFrame, *, seed: int) -> list[Sample]:
    """Return one random used image of each class, at most as many as make a 10 × 10 picture."""
    used = table[table["status"] == "used"]
    draw = uniform(seed, 0, keys(list(used["content_id"])), "report gallery")[:, 0]
    chosen: dict[str, str] = {}
    shuffled = used.iloc[np.argsort(draw, kind="stable")]
    # Not groupby: pandas' own index type cannot hold a name that is not UTF-8.
    for class_name, path in zip(shuffled["class_name"], shuffled["path"], strict=True):
        chosen.setdefault(class_name, path)
    return [Sample(chosen[name], name) for name in sorted(list(chosen)[:MAX_GALLERY])]

"""What a network's own section of the report shows: confused classes and worst mistakes.

Axes: K classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from jaxtyping import UInt8

from towernet.comparison.judging.scores import MAX_CONFUSIONS, confusions
from towernet.data.table import read_frame
from towernet.records.results import Network
from towernet.records.scores import ClassScores
from towernet.report import figures
from towernet.report.tables import MAX_CLASS_ROWS, short

Picture = Callable[[str], UInt8[npt.NDArray[np.uint8], "H W 3"] | None]

MAX_TABLE_CLASSES = 20  # a larger confusion matrix is drawn, not written
MAX_DRAWN_CLASSES = 120  # a larger one cannot be read; its most frequent mistakes are listed
_MISTAKES_IN_ALL = 120  # pictures of mistakes, shared among the networks: about half a megabyte


@dataclass(frozen=True)
class Mistake:
    """A wrong answer: the surest about its picture over all runs of a network."""

    path: str
    class_name: str
    predicted: str
    confidence: float
    num_wrong: int
    """Runs that were wrong about it."""
    num_runs: int
    """Runs that were asked about it."""


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix, as a table, as a picture, or as neither where it is too large.

    Args:
        rows: One of each true class: how often each answer was given, and which share of the row.
        paths: Of the picture, as `figures.confusion_paths` gives them.
        cell_px: Side of a cell of the picture.
        margin_px: Room for the names of the classes beside it.
        has_short_names: Whether the names fit above the table's columns as they are.
        num_right: Answers that are right.
        num_all: Answers.
        confusions: The most frequent mistakes: true class, answer, how often.
    """

    rows: tuple[tuple[tuple[int, float], ...], ...]
    paths: tuple[tuple[str, str], ...]
    cell_px: int
    margin_px: int
    has_short_names: bool
    num_right: int
    num_all: int
    confusions: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True)
class NetworkSection:
    """A network, and what its own section shows besides its entry in the results.

    Args:
        network: The entry.
        matrix: None where it failed.
        per_class: The classes it is worst at, where they are too many for a table.
        mistakes: Each with its picture as a data URI, None where that is not available.
    """

    network: Network
    matrix: Matrix | None
    per_class: tuple[ClassScores, ...]
    mistakes: tuple[tuple[Mistake, str | None], ...]


def network_sections(
    folder: Path, networks: Sequence[Network], class_names: Sequence[str], picture: Picture
) -> list[NetworkSection]:
    """Return what every network's own section shows."""
    num_mistakes = max(4, min(12, _MISTAKES_IN_ALL // max(1, len(networks))))
    return [
        NetworkSection(
            network,
            None if network.confusion is None else _matrix(network.confusion, class_names),
            _worst_classes(network.per_class or ()),
            tuple(
                (mistake, thumbnail(picture, mistake.path))
                for mistake in worst_mistakes(folder, network, limit=num_mistakes)
            ),
        )
        for network in networks
    ]


def thumbnail(picture: Picture, path: str) -> str | None:
    """Return a picture as a small data URI, None where it is not available."""
    pixels = picture(path)
    return None if pixels is None else figures.thumbnail(pixels)


def worst_mistakes(folder: Path, network: Network, *, limit: int) -> list[Mistake]:
    """Return a network's wrong answers, surest first, each picture once over all its runs."""
    wrong: dict[str, list[tuple[str, str, float]]] = {}
    num_asked: Counter[str] = Counter()  # without a test split not every run is asked all
    for run in network.runs:
        path = folder / run.folder / "predictions.parquet"
        if not path.exists():
            continue
        frame = read_frame(path)
        num_asked.update(map(str, frame["path"]))
        of_run = frame[frame["predicted"] != frame["class_name"]]
        columns = (of_run[name] for name in ("path", "class_name", "predicted", "confidence"))
        for image, class_name, predicted, confidence in zip(*columns, strict=True):
            wrong.setdefault(str(image), []).append((class_name, predicted, float(confidence)))
    surest = [
        Mistake(image, *max(found, key=lambda answer: answer[2]), len(found), num_asked[image])
        for image, found in wrong.items()
    ]
    return sorted(surest, key=lambda mistake: (-mistake.confidence, mistake.path))[:limit]


def _worst_classes(rows: tuple[ClassScores, ...]) -> tuple[ClassScores, ...]:
    if len(rows) <= MAX_CLASS_ROWS:
        return rows
    return tuple(sorted(rows, key=lambda row: row.f1)[:MAX_CLASS_ROWS])


def _matrix(confusion: tuple[tuple[int, ...], ...], class_names: Sequence[str]) -> Matrix:
    confusion_KK = np.array(confusion)
    num_classes = len(class_names)
    is_table = num_classes <= MAX_TABLE_CLASSES
    return Matrix(
        rows=tuple(
            tuple((count, count / max(1, sum(counts))) for count in counts) for counts in confusion
        )
        if is_table
        else (),
        paths=tuple(figures.confusion_paths(confusion_KK))
        if not is_table and num_classes <= MAX_DRAWN_CLASSES
        else (),
        cell_px=16 if num_classes <= 40 else 11 if num_classes <= 80 else 9,
        margin_px=12 + 6 * max(len(short(name, 17)) for name in class_names),
        has_short_names=max(map(len, class_names)) <= 3,
        num_right=int(np.trace(confusion_KK)),
        num_all=int(confusion_KK.sum()),
        confusions=tuple(
            (class_names[true], class_names[said], count)
            for true, said, count in confusions(confusion_KK)[:MAX_CONFUSIONS]
        ),
    )

"""What is known of a run's training and accuracy; no path of its machine is in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from towernet.engine.record import read_run
from towernet.predict import TRAIN_AGAIN
from towernet.records.base import Interval, read_record
from towernet.records.results import Conclusion, NumImages, Results, Split
from towernet.records.run import ImportedRun


@dataclass(frozen=True)
class RunEvidence:
    """What a comparison, or the run on its own, found of a run.

    Args:
        data: What the data is called.
        num_images: In each split.
        split: On which of them it was judged.
        accuracy: Of this run, as the next one.
        macro_f1: The mean F1 of the classes.
        majority_accuracy: How often the commonest class is right.
        epochs: Passes over the training images.
        network_accuracy: The mean over all runs of its network, as the next one.
        network_interval: 95 %.
        num_runs: How many those are.
        reason: Why its network was not ranked, '' where it was.
    """

    data: str
    num_images: NumImages
    split: Split
    accuracy: float
    macro_f1: float
    majority_accuracy: float
    epochs: float
    network_accuracy: float | None
    network_interval: Interval | None
    num_runs: int
    reason: str


@dataclass(frozen=True)
class Evidence:
    """What a model card can tell of a run.

    Args:
        origin: Whether it was trained here.
        recipe: By which recipe.
        seed: With which seed.
        versions: By which versions, of what matters to a reader.
        judged: How right it is; None where no results say.
    """

    origin: Literal["trained", "imported"]
    recipe: str
    seed: int
    versions: dict[str, str]
    judged: RunEvidence | None


def evidence(folder: Path) -> Evidence:
    """Return what a model card can tell of a run.

    Args:
        folder: The run; where it is part of a comparison, what that found is told.

    Raises:
        DataError: a record is damaged.
    """
    record = read_run(folder, todo=TRAIN_AGAIN)
    return Evidence(
        origin="imported" if isinstance(record, ImportedRun) else "trained",
        recipe=record.config.recipe_name,
        seed=record.config.seed,
        versions={
            name: version
            for name, version in record.versions.items()
            if name in ("towernet", "torch", "torchvision")
        },
        judged=_judged(folder),
    )


def _judged(folder: Path) -> RunEvidence | None:
    """Return what the nearest `results.json` says of a run; None where it says nothing."""
    for place in (folder, *folder.absolute().parents[:2]):
        path = place / "results.json"
        if path.exists():
            found = read_record(path, Conclusion, todo="restore it or delete it")
            return _judged_by(found.results, folder, place)
    return None


def _judged_by(results: Results, folder: Path, place: Path) -> RunEvidence | None:
    for network in results.networks:
        for run in network.runs:
            if (place / run.folder).resolve() == folder.resolve():
                return RunEvidence(
                    data=results.title,
                    num_images=results.num_images,
                    split=results.final_split,
                    accuracy=run.accuracy,
                    macro_f1=run.macro_f1,
                    majority_accuracy=results.majority_accuracy,
                    epochs=network.epochs,
                    network_accuracy=network.accuracy,
                    network_interval=network.interval,
                    num_runs=len(network.runs),
                    reason=network.reason,
                )
    return None

"""What is known about a run's training and accuracy, without paths of its machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from towernet.predict import TRAIN_AGAIN
from towernet.records.base import Interval, read_record
from towernet.records.results import Conclusion, NumImages, Results, Split
from towernet.records.run import ImportedRun, read_run
from towernet.records.weights import StartWeights


@dataclass(frozen=True)
class RunEvidence:
    """The results of a run, from its comparison or from the single run.

    Args:
        data: The name of the data.
        num_images: Number of images in each split.
        split: The split it was evaluated on.
        accuracy: Of this run.
        balanced_accuracy: Of this run: the mean over the classes; None in results made before it
            was computed.
        macro_f1: Of this run: the mean F1 of the classes.
        majority_accuracy: Accuracy of always predicting the most frequent class.
        epochs: Passes over the training images.
        network_accuracy: The mean over all runs of its network.
        network_interval: The 95 % interval of that mean.
        num_runs: Number of these runs.
        reason: Why its network was not ranked; '' if it was.
    """

    data: str
    num_images: NumImages
    split: Split
    accuracy: float
    balanced_accuracy: float | None
    macro_f1: float
    majority_accuracy: float
    epochs: float
    network_accuracy: float | None
    network_interval: Interval | None
    num_runs: int
    reason: str


@dataclass(frozen=True)
class Evidence:
    """The facts for a run's model card.

    Args:
        origin: Whether it was trained or imported.
        recipe: The name of the recipe.
        seed: The random seed.
        versions: The versions that matter to a reader.
        judged: Its results; None if there are none.
        started_from: The pre-trained weights it started from; None if from scratch or imported.
        start: Whether its layers were `frozen` or `finetuned`; None without pre-trained weights.
    """

    origin: Literal["trained", "imported"]
    recipe: str
    seed: int
    versions: dict[str, str]
    judged: RunEvidence | None
    started_from: StartWeights | None = None
    start: str | None = None


def evidence(folder: Path) -> Evidence:
    """Return the facts for a run's model card.

    Args:
        folder: The run; the results of its comparison are included, if any.

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
        started_from=None if isinstance(record, ImportedRun) else record.started_from,
        start=None if isinstance(record, ImportedRun) else record.config.model.start,
    )


def _judged(folder: Path) -> RunEvidence | None:
    """Return a run's results from the nearest `results.json`; None if it has none."""
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
                    balanced_accuracy=run.balanced_accuracy,
                    macro_f1=run.macro_f1,
                    majority_accuracy=results.majority_accuracy,
                    epochs=network.epochs,
                    network_accuracy=network.accuracy,
                    network_interval=network.interval,
                    num_runs=len(network.runs),
                    reason=network.reason,
                )
    return None

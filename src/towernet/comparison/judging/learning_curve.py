"""Would more images help, and of which class? The winner is also trained on fewer images.

Each run of the network that was best on validation is repeated with a half and a quarter of each
class's training images, drawn separately for each run, with the same number of steps. The gain of
the last doubling indicates what the next one could give; it rarely gives more.

Shapes: R runs, N images, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from towernet.comparison.judging.pairs import pair_of
from towernet.comparison.judging.scores import accuracy_interval, balanced_interval
from towernet.comparison.judging.significance import SIGNIFICANT, holm, min_runs
from towernet.comparison.judging.statistics import judge
from towernet.comparison.protocol import LAST_DOUBLING
from towernet.comparison.wording.learning_curve import sentence
from towernet.config import Measure
from towernet.data.balance import balanced_accuracy
from towernet.data.prepare import Dataset
from towernet.names import NetworkName
from towernet.records.results import ClassGain, CurvePoint, LearningCurve

Bools = npt.NDArray[np.bool_]


@dataclass
class FewerImages:
    """The runs with fewer images.

    Args:
        name: The network.
        folders: The folders of its runs, by the share of the training images they had.
        failure: Why there are no runs with half of the images.
    """

    name: NetworkName
    folders: dict[float, list[Path]] = field(default_factory=dict)
    failure: str | None = None


def learning_curve(
    name: str,
    right: Mapping[float, list[Bools]],
    dataset: Dataset,
    seed: int,
    equal_within: float,
    measure: Measure = "accuracy",
) -> LearningCurve:
    """Return how accuracy grew with the training images, and the gain of the last doubling.

    Args:
        name: The network.
        right: Which test images each run classified correctly, by its share of the training
            images, 1 being all of them.
        dataset: The images of the first repetition.
        seed: The seed for drawing the shares.
        equal_within: The largest difference that does not matter, a fraction.
        measure: What grew.
    """
    clusters, points = dataset.final_clusters(), []
    label_N = dataset.final.labels if measure == "balanced" else None
    for share in sorted(right):
        part = dataset.with_train_share(share, seed=seed, repetition=0)
        if label_N is None:
            accuracies = [float(run.mean()) for run in right[share]]
            interval = accuracy_interval(np.array(right[share]), clusters)
        else:
            accuracies = [balanced_accuracy(run, label_N) for run in right[share]]
            interval = balanced_interval(np.array(right[share]), clusters, label_N)
        points.append(
            CurvePoint(
                share=share,
                num_images=len(part.train),
                accuracy=float(np.mean(accuracies)),
                interval=interval,
                runs=tuple(accuracies),
            )
        )
    full, half = right[1.0], right[LAST_DOUBLING]
    family = judge(np.array([full, half]), clusters, label_N=label_N)
    gain = pair_of(family, family.differences[0], ("all", "half"), equal_within)
    classes = _classes(full, half, dataset)
    fewest = min_runs(len(classes))
    return LearningCurve(
        network=NetworkName(name),
        points=tuple(points),
        gain=gain,
        classes=tuple(classes),
        runs_for_classes=fewest if 1 < len(full) < fewest else None,
        sentence=sentence(name, points, gain, classes, equal_within, measure),
    )


def _classes(full: list[Bools], half: list[Bools], dataset: Dataset) -> list[ClassGain]:
    """Return each class's gain in recall, largest first; `is_shown` if it is more than chance."""
    right, clusters = np.array([full, half]), dataset.final_clusters()
    class_names, labels_N = dataset.contract.class_names, dataset.final.labels
    num_train = np.bincount(dataset.train.labels, minlength=len(class_names))
    images = {label: np.flatnonzero(labels_N == label) for label in np.unique(labels_N).tolist()}
    differences = [
        judge(right[:, :, of_class], clusters[of_class]).differences[0]
        for of_class in images.values()
    ]
    p_adjusted = holm([difference.p for difference in differences])
    rows = [
        ClassGain(
            class_name=class_names[label],
            num_train=int(num_train[label]),
            recall=float(right[0][:, of_class].mean()),
            gain=difference.mean,
            interval=difference.interval,
            p=difference.p,
            p_adjusted=p,
            is_shown=p < SIGNIFICANT and difference.interval[0] > 0,
        )
        for (label, of_class), difference, p in zip(
            images.items(), differences, p_adjusted, strict=True
        )
    ]
    return sorted(rows, key=lambda row: (-row.gain, row.class_name))

"""Accuracy with a few training images of each class, for every network.

Every run is repeated with so many training images of each class, with the same learning rate and
number of steps; the validation images stay the same. All are evaluated on the same test images.

Shapes: R runs, N images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from towernet.comparison.judging.scores import accuracy_interval, balanced_interval
from towernet.config import Measure
from towernet.data.balance import balanced_accuracy
from towernet.data.prepare import Dataset
from towernet.names import NetworkName
from towernet.records.results import ShotsCurve, ShotsPoint

Bools = npt.NDArray[np.bool_]


@dataclass
class FewShots:
    """The runs of a network with a few images of each class.

    Args:
        name: The network.
        folders: The folders of its runs, by the number of images of each class.
        failures: Why runs with so many images are missing.
    """

    name: NetworkName
    folders: dict[int, list[Path]] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)


def shots_curve(
    name: NetworkName,
    right: Mapping[int | None, list[Bools]],
    failures: Mapping[int, str],
    dataset: Dataset,
    measure: Measure = "accuracy",
) -> ShotsCurve:
    """Return how accurate a network is with few images of each class.

    Args:
        name: The network.
        right: Which test images each run classified correctly, by its number of training images
            of each class; None stands for all images.
        failures: Why runs with so many images are missing.
        dataset: The images of the first repetition.
        measure: What is accurate.
    """
    clusters, points = dataset.final_clusters(), []
    label_N = dataset.final.labels
    sizes = np.unique(dataset.train.labels, return_counts=True)[1]
    for shots in sorted(right, key=lambda num: math.inf if num is None else num):
        right_RN = np.array(right[shots])
        if measure == "accuracy":
            accuracies = [float(run.mean()) for run in right_RN]
            interval = accuracy_interval(right_RN, clusters)
        else:
            accuracies = [balanced_accuracy(run, label_N) for run in right_RN]
            interval = balanced_interval(right_RN, clusters, label_N)
        points.append(
            ShotsPoint(
                num_images=round(float(np.minimum(sizes, shots or sizes).mean())),
                most=shots if shots is not None and shots > sizes.min() else None,
                is_all=shots is None,
                accuracy=float(np.mean(accuracies)),
                interval=interval,
                runs=tuple(accuracies),
            )
        )
    return ShotsCurve(
        network=name,
        points=tuple(points),
        failures=tuple(f"{num} of each class: {failures[num]}" for num in sorted(failures)),
    )

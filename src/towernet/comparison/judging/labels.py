"""Labels that look wrong, according to predictions for images that were not used in training.

Source: Northcutt, Jiang, Chuang. Confident learning: estimating uncertainty in dataset labels. JAIR
2021. arXiv:1911.00068, as implemented in the package cleanlab.

Shapes: N images, K classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from towernet import files
from towernet.data.prepare import Dataset
from towernet.records.results import Suspect

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Doubt:
    """An image whose label looks wrong.

    Args:
        row: Index of the image.
        looks_like: Index of the class it looks like.
        confidence_in_label: The runs' mean probability of its label.
        confidence: Their mean probability of the class it looks like.
        num_runs: How many runs predicted it.
    """

    row: int
    looks_like: int
    confidence_in_label: float
    confidence: float
    num_runs: int


class OutOfSample:
    """The mean probabilities of each image over the runs that were not trained on it.

    Args:
        num_images: N, the number of all images.
        num_classes: K.
    """

    def __init__(self, num_images: int, num_classes: int) -> None:
        self._total_NK = np.zeros((num_images, num_classes))
        self.num_runs_N: Labels = np.zeros(num_images, dtype=np.int64)

    def add(self, rows: Labels, probabilities: Floats) -> None:
        """Add one run's probabilities for the images in these rows."""
        self._total_NK[rows] += probabilities
        self.num_runs_N[rows] += 1

    def suspects(self, labels_N: Labels) -> list[Doubt]:
        """Return the images whose label looks wrong, the most doubtful first."""
        with warnings.catch_warnings(action="ignore"):  # a warning about widgets in notebooks
            from cleanlab.filter import find_label_issues

        (seen,) = np.nonzero(self.num_runs_N)
        if len(np.unique(labels_N[seen])) < self._total_NK.shape[1]:
            return []  # a class without predictions: too few images to judge labels
        probabilities = self._total_NK[seen] / self.num_runs_N[seen, None]
        found = find_label_issues(
            labels_N[seen], probabilities, return_indices_ranked_by="self_confidence", n_jobs=1
        )
        return [
            Doubt(
                row=int(seen[i]),
                looks_like=int(probabilities[i].argmax()),
                confidence_in_label=float(probabilities[i, labels_N[seen[i]]]),
                confidence=float(probabilities[i].max()),
                num_runs=int(self.num_runs_N[seen[i]]),
            )
            for i in found
        ]


def suspect_labels(held_out: OutOfSample, dataset: Dataset) -> list[Suspect]:
    """Return the images whose label looks wrong, with names, the most doubtful first."""
    labels, paths = np.zeros(dataset.num_images, np.int64), [""] * dataset.num_images
    for part in (dataset.train, dataset.validation, dataset.test):
        labels[part.rows] = part.labels
        for row, path in zip(part.rows, part.paths, strict=True):
            paths[row] = path
    names = dataset.contract.class_names
    return [
        Suspect(
            path=paths[doubt.row],
            class_name=names[labels[doubt.row]],
            looks_like=names[doubt.looks_like],
            confidence_in_label=doubt.confidence_in_label,
            confidence=doubt.confidence,
            num_runs=doubt.num_runs,
        )
        for doubt in held_out.suspects(labels)
    ]


def write_suspects(path: Path, suspects: Sequence[Suspect]) -> None:
    """Write them as CSV, one line per image; only the header if there are none."""
    lines = (suspect.model_dump().values() for suspect in suspects)
    files.write_csv(path, [Suspect.model_fields, *lines])

"""Labels that look wrong: what networks thought of images they had not been trained on.

Source: Northcutt, Jiang, Chuang. Confident learning: estimating uncertainty in dataset labels. JAIR
2021. arXiv:1911.00068, by the package cleanlab.

Shapes: N images, K classes.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from towernet import files
from towernet.data.prepare import Dataset

COLUMNS = ("path", "class_name", "looks_like", "confidence_in_label", "confidence", "num_runs")

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class OutOfSample:
    """The mean probabilities of each image over the runs that were not trained on it.

    Args:
        num_images: N, all of them.
        num_classes: K.
    """

    def __init__(self, num_images: int, num_classes: int) -> None:
        self._total_NK = np.zeros((num_images, num_classes))
        self.num_runs_N: Labels = np.zeros(num_images, dtype=np.int64)

    def add(self, rows: Labels, probabilities: Floats) -> None:
        """Add what one run says of the images of these rows."""
        self._total_NK[rows] += probabilities
        self.num_runs_N[rows] += 1

    def suspects(self, labels_N: Labels) -> list[dict[str, Any]]:
        """Return the images whose label looks wrong, the most doubtful first.

        Each with its row, the class it looks like, how sure the runs are of the label and of that
        class, and how many runs were asked.
        """
        with warnings.catch_warnings(action="ignore"):  # in a notebook: of widgets nobody needs
            from cleanlab.filter import find_label_issues

        (seen,) = np.nonzero(self.num_runs_N)
        if len(np.unique(labels_N[seen])) < self._total_NK.shape[1]:
            return []  # a class nobody was asked about: too few images to say anything
        probabilities = self._total_NK[seen] / self.num_runs_N[seen, None]
        found = find_label_issues(
            labels_N[seen], probabilities, return_indices_ranked_by="self_confidence", n_jobs=1
        )
        return [
            {
                "row": int(seen[i]),
                "looks_like": int(probabilities[i].argmax()),
                "confidence_in_label": float(probabilities[i, labels_N[seen[i]]]),
                "confidence": float(probabilities[i].max()),
                "num_runs": int(self.num_runs_N[seen[i]]),
            }
            for i in found
        ]


def suspect_labels(asked: OutOfSample, dataset: Dataset) -> list[dict[str, Any]]:
    """Return the images whose label looks wrong by their names, the most doubtful first."""
    labels, paths = np.zeros(len(dataset.pixels), np.int64), [""] * len(dataset.pixels)
    for part in (dataset.train, dataset.validation, dataset.test):
        labels[part.rows] = part.labels
        for row, path in zip(part.rows, part.paths, strict=True):
            paths[row] = path
    names = dataset.contract.class_names
    return [
        {
            "path": paths[found["row"]],
            "class_name": names[labels[found["row"]]],
            "looks_like": names[found["looks_like"]],
            **{key: found[key] for key in COLUMNS[3:]},
        }
        for found in asked.suspects(labels)
    ]


def write_suspects(path: Path, suspects: list[dict[str, Any]]) -> None:
    """Write them as CSV, one line an image; the head alone where there are none."""
    files.write_csv(path, [COLUMNS, *([row[column] for column in COLUMNS] for row in suspects)])

"""Would more images help, and of which class? The winner again, trained on fewer of them.

Each run of the network that was best on validation is done again with a half and a quarter of each
class's training images, drawn anew for each run, in as many steps. What the last doubling of the
images gave says what the next one may give; it rarely gives more.

Shapes: R runs, N images, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from towernet.comparison.judging.scores import accuracy_interval
from towernet.comparison.judging.statistics import SIGNIFICANT, holm, judge, min_runs
from towernet.comparison.wording.verdict import (
    BETTER,
    EQUAL,
    TOO_FEW_RUNS,
    WORSE,
    in_points,
    pair_row,
)
from towernet.data.prepare import Dataset
from towernet.errors import shown

LAST_DOUBLING = 0.5  # the share that answers the question
SHARES = (LAST_DOUBLING, 0.25)
MAX_NAMED = 3

Bools = npt.NDArray[np.bool_]


@dataclass
class FewerImages:
    """The runs with fewer images.

    Args:
        name: The network.
        folders: Of its runs, by the share of the training images they had.
        failure: Why there are none with half of them.
    """

    name: str
    folders: dict[float, list[Path]] = field(default_factory=dict)
    failure: str | None = None


def learning_curve(
    name: str, right: Mapping[float, list[Bools]], dataset: Dataset, seed: int, equal_within: float
) -> dict[str, Any]:
    """Return how accuracy grew with the training images, and what the last doubling gave.

    Args:
        name: The network.
        right: Which test images each run named correctly, by its share of the training images, 1
            being all of them.
        dataset: The images of the first repetition.
        seed: What the shares were drawn by.
        equal_within: The largest difference that matters to nobody, a fraction.
    """
    clusters, points = dataset.final_clusters(), []
    for share in sorted(right):
        part = dataset.with_train_share(share, seed=seed, repetition=0)
        accuracies = [float(run.mean()) for run in right[share]]
        points.append(
            {
                "share": share,
                "num_images": len(part.train),
                "accuracy": float(np.mean(accuracies)),
                "interval": list(accuracy_interval(np.array(right[share]), clusters)),
                "runs": accuracies,
            }
        )
    full, half = right[1.0], right[LAST_DOUBLING]
    family = judge(np.array([full, half]), clusters)
    gain = pair_row(family, family.differences[0], ("all", "half"), equal_within)
    classes = _classes(full, half, dataset)
    fewest = min_runs(len(classes))
    found: dict[str, Any] = {"network": name, "points": points, "gain": gain, "classes": classes}
    found["runs_for_classes"] = fewest if 1 < len(full) < fewest else None
    found["sentence"] = _sentence(found, len(full), equal_within)
    return found


def _classes(full: list[Bools], half: list[Bools], dataset: Dataset) -> list[dict[str, Any]]:
    """Return what each class gained in recall, most first; shown where it is more than chance."""
    right, clusters = np.array([full, half]), dataset.final_clusters()
    num_train = np.bincount(dataset.train.labels, minlength=len(dataset.contract.class_names))
    rows: list[dict[str, Any]] = []
    for label, class_name in enumerate(dataset.contract.class_names):
        images = np.flatnonzero(dataset.final.labels == label)
        if len(images) == 0:
            continue
        (difference,) = judge(right[:, :, images], clusters[images]).differences
        rows.append(
            {
                "class_name": class_name,
                "num_train": int(num_train[label]),
                "recall": float(right[0][:, images].mean()),
                "gain": difference.mean,
                "interval": list(difference.interval),
                "p": difference.p,
            }
        )
    for row, p_adjusted in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_adjusted"] = p_adjusted
        row["is_shown"] = p_adjusted < SIGNIFICANT and row["interval"][0] > 0
    return sorted(rows, key=lambda row: (-row["gain"], row["class_name"]))


def _sentence(found: dict[str, Any], num_runs: int, equal_within: float) -> str:
    """Answer whether more images would help."""
    gain, points = found["gain"], found["points"]
    low, high = map(in_points, gain["interval"])
    num_half = next(point["num_images"] for point in points if point["share"] == LAST_DOUBLING)
    seen = (
        f"With {points[-1]['num_images']:,} training images instead of {num_half:,}, the accuracy"
        f" of {found['network']} changed by {in_points(gain['difference'])} points [{low}, {high}]"
    )
    if num_runs == 1:
        seen += " (two trained models only)"
    if gain["answer"] == BETTER:
        gained = [shown(row["class_name"]) for row in found["classes"] if row["is_shown"]]
        of = f" Classes that gained most: {', '.join(gained[:MAX_NAMED])}." if gained else ""
        return f"More images would probably help. {seen}; doubling them rarely brings more.{of}"
    if gain["answer"] == WORSE:
        return f"More images did not help. {seen}."
    if gain["answer"] == EQUAL:
        margin = 100 * equal_within
        return f"More images would hardly help. {seen}, within ±{margin:g} points."
    if gain["answer"] == TOO_FEW_RUNS:
        return f"{num_runs} runs are too few to tell whether more images would help. {seen}."
    return f"It is not shown whether more images would help. {seen}."

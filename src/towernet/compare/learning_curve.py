"""Would more images help, and of which class? The winner again, trained on fewer of them.

Each run of the network that was best on validation is done again with a quarter and a half of each
class's training images, the smaller part of the larger one, in as many steps. What half the images
cost is what one had before the last doubling; the next one rarely gives more.

Shapes: R runs, N images, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from towernet.compare.scores import accuracy_interval
from towernet.compare.statistics import SIGNIFICANT, Family, holm, judge, judge_resampled
from towernet.compare.verdict import BETTER, EQUAL, TOO_FEW_RUNS, in_points, pair_row
from towernet.data.prepare import Dataset
from towernet.errors import shown

SHARES = (0.25, 0.5)
MAX_NAMED = 3

Bools = npt.NDArray[np.bool_]


@dataclass
class Curve:
    """The runs with fewer images.

    Args:
        name: The network.
        folders: Of its runs, by the share of the training images they had.
        failure: Why there are none.
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
        right: Which images each run named correctly, by its share of the training images, 1 being
            all of them; run k of each share had the same validation images.
        dataset: The images of the first repetition.
        seed: What the shares were drawn by.
        equal_within: The largest difference that matters to nobody, a fraction.
    """
    points = []
    for share in sorted(right):
        accuracies = [float(run.mean()) for run in right[share]]
        points.append(
            {
                "share": share,
                "num_images": len(dataset.with_train_share(share, seed).train),
                "accuracy": float(np.mean(accuracies)),
                "interval": list(_interval(right[share], dataset)),
                "runs": accuracies,
            }
        )
    half, full = right[0.5], right[1.0]
    is_resampled = dataset.leaves_out_anew and len(full) > 1
    family = _family(full, half, dataset)
    labels = ("all", "half")
    gain = pair_row(family, family.differences[0], labels, equal_within)
    found: dict[str, Any] = {"network": name, "points": points, "gain": gain}
    # Where each run was judged on other images, a class's own are too few to tell.
    found["classes"] = [] if is_resampled else _classes(full, half, dataset)
    found["sentence"] = _sentence(found, len(full), equal_within)
    return found


def _interval(right: list[Bools], dataset: Dataset) -> tuple[float, float]:
    if dataset.leaves_out_anew:  # as one run of them all; its images are not tied among runs
        together = np.concatenate(right)[None]
        return accuracy_interval(together, np.arange(together.shape[1]))
    return accuracy_interval(np.array(right), dataset.final_clusters())


def _family(full: list[Bools], half: list[Bools], dataset: Dataset) -> Family:
    if dataset.leaves_out_anew and len(full) > 1:
        accuracies = np.array([[run.mean() for run in runs] for runs in (full, half)])
        return judge_resampled(accuracies, len(dataset.final), len(dataset.train))
    return judge(np.array([full, half]), dataset.final_clusters())


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
    seen = (
        f"{found['network']} with {points[-1]['num_images']:,} training images instead of"
        f" {points[-2]['num_images']:,}: {in_points(gain['difference'])} points [{low}, {high}]"
    )
    if gain["answer"] == BETTER and gain["difference"] > 0:
        gained = [shown(row["class_name"]) for row in found["classes"] if row["is_shown"]]
        of = f" Most gained: {', '.join(gained[:MAX_NAMED])}." if gained else ""
        return f"More images would help. {seen}; as many again rarely give more than that.{of}"
    if gain["answer"] == BETTER:
        return f"More images did not help: {seen}."
    if gain["answer"] == EQUAL:
        margin = 100 * equal_within
        return f"More images would hardly help, by no more than ±{margin:g} points. {seen}."
    if gain["answer"] == TOO_FEW_RUNS:
        return f"{num_runs} runs are too few to tell whether more images would help. {seen}."
    return f"Whether more images would help is not shown. {seen}."

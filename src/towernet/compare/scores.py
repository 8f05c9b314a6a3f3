"""How good answers are: accuracy, precision, recall and F1 with intervals, confusion.

All of them are ratios of two sums over images. Their intervals are Wilson's, with as many images as
the spread over runs and images is worth: near 0 and 1 they stay between 0 and 1.

Sources: Wilson, JASA 1927; Korn and Graubard, Confidence intervals for proportions with small
expected number of positive counts, Survey Methodology 1998 (the effective number); the ratios'
spread is that of their linear approximation.

Shapes: N images, K classes, R runs, U clusters of images that belong together.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from towernet.compare.statistics import SIGNIFICANT, spread

MAX_CONFUSIONS = 8  # shown to a person

Labels = npt.NDArray[np.int64]
Counts = npt.NDArray[np.float64]
Interval = tuple[float, float]


def confusion_matrix(labels_N: Labels, predicted_N: Labels, num_classes: int) -> Labels:
    """Return (K, K) counts, rows the true class, columns the answer."""
    pairs = np.bincount(labels_N * num_classes + predicted_N, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)


def per_class(
    labels_N: Labels, predicted_RN: Labels, cluster_N: Labels, class_names: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Return precision, recall and F1 of each class over all runs, each with its 95 % interval.

    0 where a class was never answered, without an interval where nothing could tell it.
    """
    rows = []
    for label, images in enumerate(_images_of(labels_N, predicted_RN, len(class_names))):
        answered_RN = (predicted_RN[:, images] == label).astype(np.float64)
        is_true = labels_N[images] == label
        true_RN = np.broadcast_to(is_true.astype(np.float64), answered_RN.shape)
        hits_RN = answered_RN * true_RN
        row: dict[str, Any] = {"class_name": class_names[label]}
        for key, part_RN, whole_RN in (
            ("precision", hits_RN, answered_RN),
            ("recall", hits_RN, true_RN),
            ("f1", 2 * hits_RN, true_RN + answered_RN),
        ):
            row[key] = float(part_RN.sum() / max(1.0, whole_RN.sum()))
            row[f"{key}_interval"] = interval(part_RN, whole_RN, cluster_N[images])
        rows.append(row | {"num_images": int(is_true.sum())})
    return rows


def _images_of(labels_N: Labels, predicted_RN: Labels, num_classes: int) -> list[Labels]:
    """Return, for each class, the images that are of it or were once taken for it."""
    said_RN = np.concatenate([labels_N[None], predicted_RN])
    pairs = np.unique(said_RN * len(labels_N) + np.arange(len(labels_N)))
    ends = np.searchsorted(pairs, np.arange(1, num_classes) * len(labels_N))
    return [part % len(labels_N) for part in np.split(pairs, ends)]


def confusions(confusion_KK: Labels) -> list[tuple[int, int, int]]:
    """Return the mistakes, the most frequent first: (true, answered, how often), by class.

    Example:
        >>> confusions(np.array([[9, 1, 0], [0, 5, 4], [0, 0, 7]]))
        [(1, 2, 4), (0, 1, 1)]
    """
    true, said = np.nonzero(confusion_KK)
    true, said = true[true != said], said[true != said]
    counts = confusion_KK[true, said]
    order = np.argsort(-counts, kind="stable")
    pairs = zip(true[order].tolist(), said[order].tolist(), counts[order].tolist(), strict=True)
    return list(pairs)


def macro_f1(confusion_KK: Labels) -> float:
    """Return the mean F1 over the classes that have images."""
    hits = confusion_KK.diagonal()
    sums = confusion_KK.sum(axis=0) + confusion_KK.sum(axis=1)
    present = confusion_KK.sum(axis=1) > 0
    return float(np.mean(2 * hits[present] / sums[present]))


def accuracy_interval(right_RN: npt.NDArray[np.bool_], cluster_N: Labels) -> Interval:
    """Return the 95 % interval of the mean accuracy of such runs on such images."""
    found = interval(right_RN.astype(np.float64), np.ones(right_RN.shape), cluster_N)
    assert found is not None, "there are images"
    return found


def interval(part_RN: Counts, whole_RN: Counts, cluster_N: Labels) -> Interval | None:
    """Return the 95 % interval of the sum of the parts over the sum of the wholes.

    None where the wholes are 0.

    Args:
        part_RN: What each run and image adds to the ratio's numerator.
        whole_RN: And to its denominator.
        cluster_N: Which images belong together.
    """
    asked_N = whole_RN.any(axis=0)
    if not asked_N.any():
        return None
    _, cluster_N = np.unique(cluster_N[asked_N], return_inverse=True)
    part_RU, whole_RU = (
        np.array([np.bincount(cluster_N, run) for run in counts[:, asked_N]])
        for counts in (part_RN, whole_RN)
    )
    ratio = float(part_RU.sum() / whole_RU.sum())
    most = len(cluster_N)  # never more sure than by so many images, each seen once
    num = _effective_number(ratio, part_RU - ratio * whole_RU, whole_RU.mean(axis=0), most)
    return wilson(ratio, num)


def _effective_number(ratio: float, residual_RU: Counts, whole_U: Counts, most: int) -> float:
    """Return how many independent images would leave a ratio as uncertain as it is."""
    num_runs, num_clusters = residual_RU.shape
    of_runs, of_images, of_rest = spread(residual_RU, whole_U)
    # What few runs or few clusters tell of their spread is itself uncertain.
    variance = max(0.0, of_runs - of_rest) * _widening(num_runs)
    is_binomial = num_runs == 1 and num_clusters == most  # then the ratio itself tells its spread
    variance += of_images * (1 - 1 / most if is_binomial else _widening(num_clusters))
    if variance <= 1e-12:  # all alike: as many as are certainly not the same
        return float(num_clusters)
    return max(1.0, min(float(most * num_runs), ratio * (1 - ratio) / variance))


def _widening(num: int) -> float:
    """Return by what a variance grows that so many values have to tell: Student's over normal."""
    from scipy.special import ndtri, stdtrit

    if num < 2:
        return 1.0
    return float((stdtrit(num - 1, 1 - SIGNIFICANT / 2) / ndtri(1 - SIGNIFICANT / 2)) ** 2)


def wilson(accuracy: float, num_images: int | float) -> Interval:
    """Return the 95 % Wilson interval of an accuracy over so many independent images."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(accuracy * num_images, num_images, method="wilson")
    # Rounding must not leave a perfect score outside its own interval.
    return min(float(low), accuracy), max(float(high), accuracy)

"""Scores of predictions: accuracy, precision, recall and F1 with intervals, confusion.

All scores are ratios of two sums over images. Their intervals are Wilson's, which stay between 0
and 1; the number of images is the effective number that gives the observed spread over runs and
images.

Sources: Wilson, JASA 1927; Korn and Graubard, Confidence intervals for proportions with small
expected number of positive counts, Survey Methodology 1998 (the effective number); Zou and Donner,
Construction of confidence limits about effect measures, Statistics in Medicine 2008 (a sum's
interval from those of its parts); the spread of a ratio is that of its linear approximation.

Shapes: N images, K classes, R runs, U clusters of images that belong together.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from towernet.comparison.judging.significance import SIGNIFICANT
from towernet.comparison.judging.variance import Cells, spread
from towernet.records.base import Interval
from towernet.records.scores import ClassScores

MAX_CONFUSIONS = 8  # shown in the terminal and the report

NUM_DISCOUNTED = 5  # up to this many images with differing predictions do not show their spread

Labels = npt.NDArray[np.int64]
Counts = npt.NDArray[np.float64]


def confusion_matrix(labels_N: Labels, predicted_N: Labels, num_classes: int) -> Labels:
    """Return (K, K) counts; rows are true classes, columns predicted classes."""
    pairs = np.bincount(labels_N * num_classes + predicted_N, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)


def per_class(
    labels_N: Labels, predicted_RN: Labels, cluster_N: Labels, class_names: tuple[str, ...]
) -> tuple[ClassScores, ...]:
    """Return precision, recall and F1 of each class over all runs, each with its 95 % interval.

    A score whose denominator is 0 is 0, without an interval.
    """
    rows = []
    for label, images in enumerate(_images_of(labels_N, predicted_RN, len(class_names))):
        positive_RN = (predicted_RN[:, images] == label).astype(np.float64)
        is_true = labels_N[images] == label
        true_RN = np.broadcast_to(is_true.astype(np.float64), positive_RN.shape)
        hits_RN = positive_RN * true_RN
        # F1 is 2J / (1 + J), where Jaccard's J is a share of images.
        (precision, around_precision), (recall, around_recall), (jaccard, around_jaccard) = (
            _share(hits_RN, whole_RN, cluster_N[images])
            for whole_RN in (positive_RN, true_RN, np.maximum(true_RN, positive_RN))
        )
        rows.append(
            ClassScores(
                class_name=class_names[label],
                num_images=int(is_true.sum()),
                precision=precision,
                precision_interval=around_precision,
                recall=recall,
                recall_interval=around_recall,
                f1=_f1(jaccard),
                f1_interval=around_jaccard and (_f1(around_jaccard[0]), _f1(around_jaccard[1])),
            )
        )
    return tuple(rows)


def _share(part_RN: Counts, whole_RN: Counts, cluster_N: Labels) -> tuple[float, Interval | None]:
    """Return the sum of the parts over the sum of the wholes, 0 if that is 0, and its interval."""
    share = float(part_RN.sum() / max(1.0, whole_RN.sum()))
    return share, interval(part_RN, whole_RN, cluster_N)


def _f1(jaccard: float) -> float:
    return 2 * jaccard / (1 + jaccard)


def _images_of(labels_N: Labels, predicted_RN: Labels, num_classes: int) -> list[Labels]:
    """Return, for each class, the images that have this label or were ever predicted as it."""
    classes_RN = np.concatenate([labels_N[None], predicted_RN])
    pairs = np.unique(classes_RN * len(labels_N) + np.arange(len(labels_N)))
    ends = np.searchsorted(pairs, np.arange(1, num_classes) * len(labels_N))
    return [part % len(labels_N) for part in np.split(pairs, ends)]


def confusions(confusion_KK: Labels) -> list[tuple[int, int, int]]:
    """Return the mistakes, the most frequent first: (true class, predicted class, how often).

    Example:
        >>> confusions(np.array([[9, 1, 0], [0, 5, 4], [0, 0, 7]]))
        [(1, 2, 4), (0, 1, 1)]
    """
    true, predicted = np.nonzero(confusion_KK)
    true, predicted = true[true != predicted], predicted[true != predicted]
    counts = confusion_KK[true, predicted]
    order = np.argsort(-counts, kind="stable")
    columns = (true[order].tolist(), predicted[order].tolist(), counts[order].tolist())
    return list(zip(*columns, strict=True))


def macro_f1(confusion_KK: Labels) -> float:
    """Return the mean F1 over the classes that have images."""
    hits = confusion_KK.diagonal()
    sums = confusion_KK.sum(axis=0) + confusion_KK.sum(axis=1)
    present = confusion_KK.sum(axis=1) > 0
    return float(np.mean(2 * hits[present] / sums[present]))


def majority_accuracy(train_labels: Labels, labels_N: Labels) -> float:
    """Return the accuracy of always predicting the most frequent class of the training images."""
    return float((labels_N == np.bincount(train_labels).argmax()).mean())


def accuracy_interval(right_RN: npt.NDArray[np.bool_], cluster_N: Labels) -> Interval:
    """Return the 95 % interval of the mean accuracy over runs and images."""
    found = interval(right_RN.astype(np.float64), np.ones(right_RN.shape), cluster_N)
    assert found is not None, "there are images"
    return found


def balanced_interval(
    right_RN: npt.NDArray[np.bool_], cluster_N: Labels, label_N: Labels
) -> Interval:
    """Return the 95 % interval of the mean balanced accuracy over runs and images.

    Each class's own interval gives how far its recall may be off in each direction, which holds for
    classes of a few images too; classes are then added up as independent. What they share, the
    runs and clusters that contain several classes, widens the interval.
    """
    cells = Cells.of(cluster_N, label_N)
    if len(cells.classes) == 1:
        return accuracy_interval(right_RN, cluster_N)
    recalls, bounds, varies_N, own = [], [], np.zeros(len(label_N), bool), list[float]()
    for label in np.unique(label_N):
        of_class = label_N == label
        part_RN = right_RN[:, of_class].astype(np.float64)
        # Fewer of a class's few images are discounted than of all: where those of one class are
        # misleading, those of others are not.
        found = interval(part_RN, np.ones(part_RN.shape), cluster_N[of_class], num_discounted=1)
        assert found is not None, "there are images"
        recalls.append(float(part_RN.mean()))
        bounds.append(found)
        of_one = Cells.of(cluster_N[of_class])
        # One cluster shows nothing about others; its interval says so, for its class alone.
        if of_one.num_clusters > 1:
            varies_N |= of_class
            own.append(_variance(*spread(of_one.sums(part_RN), of_one)))
    if not own:
        return _of_sum(recalls, bounds, 0.0, 0.0)
    cells = Cells.of_classes(cluster_N[varies_N], label_N[varies_N])
    together = _variance(*spread(cells.sums(right_RN[:, varies_N]), cells))
    return _of_sum(recalls, bounds, together, sum(own) / len(own) ** 2)


def _variance(of_runs: float, of_images: float, of_rest: float) -> float:
    return max(0.0, of_runs - of_rest) + of_images


def _of_sum(recalls: list[float], bounds: list[Interval], together: float, own: float) -> Interval:
    """Return the interval of the mean of some recalls, each with its own.

    Args:
        recalls: One for each class.
        bounds: Their intervals.
        together: The estimated variance of the mean, or of that of some classes.
        own: What it would be if the recalls were independent.
    """
    shared = max(1.0, together / own) if own > 0 else 1.0
    mean, low, high = np.array(recalls), *np.array(bounds).T
    below, above = (
        math.sqrt(shared * float((reach**2).sum())) / len(recalls)
        for reach in (mean - low, high - mean)
    )
    return max(0.0, float(mean.mean()) - below), min(1.0, float(mean.mean()) + above)


def interval(
    part_RN: Counts,
    whole_RN: Counts,
    cluster_N: Labels,
    *,
    num_discounted: int = NUM_DISCOUNTED,
) -> Interval | None:
    """Return the 95 % interval of the sum of the parts over the sum of the wholes.

    None if the wholes are 0.

    Args:
        part_RN: What each run and image adds to the ratio's numerator.
        whole_RN: What they add to its denominator.
        cluster_N: Which images belong together.
        num_discounted: Up to this many images with differing predictions do not show their spread.
    """
    is_counted_N = whole_RN.any(axis=0)
    if not is_counted_N.any():
        return None
    _, cluster_N = np.unique(cluster_N[is_counted_N], return_inverse=True)
    part_RU, whole_RU = (
        np.array([np.bincount(cluster_N, run) for run in counts[:, is_counted_N]])
        for counts in (part_RN, whole_RN)
    )
    ratio = float(part_RU.sum() / whole_RU.sum())
    return wilson(ratio, _effective_number(part_RU, whole_RU, len(cluster_N), num_discounted))


def _effective_number(
    part_RU: Counts, whole_RU: Counts, num_images: int, num_discounted: int
) -> float:
    """Return how many independent images would make a ratio as uncertain as it is."""
    num_runs, num_clusters = part_RU.shape
    if num_clusters == 1:
        return 1.0  # for any number of runs, since one cluster shows nothing about others
    ratio = float(part_RU.sum() / whole_RU.sum())
    of_runs, of_images, of_rest = spread(
        part_RU - ratio * whole_RU, Cells.of_sizes(whole_RU.mean(axis=0))
    )
    of_one_run = ratio * (1 - ratio) / num_images  # if the images were independent
    if num_runs == 1 and num_clusters == num_images:
        return float(num_images)
    # A spread estimated from few runs or few clusters is itself uncertain.
    variance = max(0.0, of_runs - of_rest) * _widening(num_runs)
    variance += of_images * _widening(num_clusters)
    # Several predictions for an image are worth more than one. How much more cannot be estimated
    # from only a few images on which they differ.
    missed_U, hit_U = (part_RU < whole_RU).any(axis=0), (part_RU > 0).any(axis=0)
    num_differing = int(min(missed_U.sum(), hit_U.sum()))
    if variance < of_one_run:
        weight = max(0, num_differing - num_discounted) / max(num_differing, 1)
        variance = weight * variance + (1 - weight) * of_one_run
    if variance <= 1e-12:  # all the same: count only what is certainly independent
        return float(num_clusters)
    return max(1.0, min(float(num_images * num_runs), ratio * (1 - ratio) / variance))


def resampled_interval(right: list[npt.NDArray[np.bool_]], num_train: int | float) -> Interval:
    """Return the 95 % interval of the mean accuracy of runs evaluated on different images.

    Uses Nadeau and Bengio's variance, as `statistics.judge_resampled` does.

    Args:
        right: For each run, whether it classified each of its images correctly.
        num_train: How many images a run was trained on.
    """
    accuracies, num_images = np.array([run.mean() for run in right]), len(right[0])
    accuracy, num_runs = float(accuracies.mean()), len(right)
    variance = (1 / num_runs + num_images / num_train) * float(accuracies.var(ddof=1))
    variance *= _widening(num_runs)
    most = accuracy * (1 - accuracy) / num_images  # the variance from one run's images alone
    num = accuracy * (1 - accuracy) / variance if variance > most else num_images
    return wilson(accuracy, max(1.0, float(num)))


def balanced_resampled_interval(
    right: list[npt.NDArray[np.bool_]], labels: list[Labels], num_train: int
) -> Interval:
    """Return the same of the mean balanced accuracy, as `balanced_interval` does.

    Args:
        right: For each run, whether it classified each of its images correctly.
        labels: For each run, the classes of its images.
        num_train: How many images a run was trained on.
    """
    if len(Cells.of(np.arange(len(labels[0])), labels[0]).classes) == 1:
        return resampled_interval(right, num_train)
    recalls, bounds, own = [], [], 0.0
    by_run = np.zeros(len(right))
    classes = [
        label for label in np.unique(labels[0]) if all((run == label).any() for run in labels)
    ]
    for label in classes:
        parts = [run[of_run == label] for run, of_run in zip(right, labels, strict=True)]
        recall_R = np.array([part.mean() for part in parts])
        bounds.append(resampled_interval(parts, num_train * len(parts[0]) / len(right[0])))
        recalls.append(float(recall_R.mean()))
        by_run += recall_R / len(classes)
        own += float(recall_R.var(ddof=1)) / len(classes) ** 2
    return _of_sum(recalls, bounds, float(by_run.var(ddof=1)), own)


def _widening(num: int) -> float:
    """Return the factor for a variance that was estimated from this many values.

    It is the squared ratio of Student's quantile to the normal one.
    """
    from scipy.special import ndtri, stdtrit

    if num < 2:
        return 1.0
    return float((stdtrit(num - 1, 1 - SIGNIFICANT / 2) / ndtri(1 - SIGNIFICANT / 2)) ** 2)


def wilson(accuracy: float, num_images: int | float) -> Interval:
    """Return the 95 % Wilson interval of an accuracy over this many independent images."""
    from scipy.special import ndtri

    num, z = float(num_images), -float(ndtri(SIGNIFICANT / 2))
    share = accuracy * num / num  # a count over `num`; scipy's own interval needs whole counts
    widened = 1 + z * z / num
    centre = (share + z * z / (2 * num)) / widened
    half = z * math.sqrt(share * (1 - share) / num + z * z / (4 * num * num)) / widened
    # Rounding must not leave a perfect score outside its own interval.
    return min(max(centre - half, 0.0), accuracy), max(min(centre + half, 1.0), accuracy)

"""Statistics of differences between networks, when both runs and test images are samples.

Each of K runs draws its own training images, initial weights and order, the same for every network,
and all runs predict the same N test images. A difference would change with other runs and with
other images. The interval includes both, as in the analysis of multiple readers and multiple cases,
where runs are the readers and images the cases. It applies to networks trained on draws from
*these* labelled images; no number of runs can show what other training images would give. Without a
test split, each run is evaluated on the images it left out, and K such differences are worth less
than K independent ones.

What differs is the accuracy, or the balanced accuracy: the mean over the classes of the share of a
class's images that is classified correctly.

Sources: those of `variance`; Nadeau and Bengio, Inference for the generalization error, Machine
Learning 2003 (different images left out in each run).

Shapes: M networks, K runs, N images, U cells: the images of one class that belong together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from towernet.comparison.judging.significance import (
    SIGNIFICANT,
    exact_interval,
    holm,
    mcnemar_p,
    min_runs,
    sign_flip_p,
    simultaneous_level,
    weighted_sign_p,
)
from towernet.comparison.judging.variance import (
    Bools,
    Cells,
    Floats,
    Ints,
    Variance,
    covariance,
    estimate,
)

POWER = 0.8
MAX_RUNS, MAX_IMAGES = 1_000, 10_000_000  # more than anyone can use


@dataclass(frozen=True)
class Difference:
    """The difference between two networks' accuracies, with its interval and p value.

    Args:
        first: Index of the first network.
        second: Index of the second network.
        mean: Accuracy of the first minus accuracy of the second, over all runs.
        interval: 95 % interval, simultaneous for all differences of the family.
        p: Two-sided p value of the signs of the runs' differences; with one run, of the images'.
        p_adjusted: The p value adjusted by Holm's procedure over the family.
        chance_better: Share of runs in which the first was better, a tie counting half.
        chance_interval: Its 95 % interval, exact if there is no tie.
        variance: The variance behind the interval; None if each run was evaluated on different
            images.
    """

    first: int
    second: int
    mean: float
    interval: tuple[float, float]
    p: float
    p_adjusted: float
    chance_better: float
    chance_interval: tuple[float, float]
    variance: Variance | None

    def is_shown(self) -> bool:
        """Whether the two differ, by both the signs of the runs and the interval."""
        low, high = self.interval
        return self.p_adjusted < SIGNIFICANT and (low > 0 or high < 0)

    def is_within(self, margin: float) -> bool:
        """Whether the whole interval is within ± this margin."""
        return max(map(abs, self.interval)) <= margin


@dataclass(frozen=True)
class Family:
    """Differences between some networks, judged together.

    Args:
        differences: One for each pair, in the order of the pairs.
        num_comparisons: How many there are, or will be.
        level: The error rate of each single interval, chosen so that all together have 5 %.
        num_runs: K.
        num_images: N.
    """

    differences: tuple[Difference, ...]
    num_comparisons: int
    level: float
    num_runs: int
    num_images: int

    def runs_needed(self, variance: Variance, difference: float) -> int | None:
        """Return the total number of runs, more than now, that would probably show a difference.

        None if no number of runs suffices with these images.
        """
        if variance.num_clusters < 2:
            return None
        fewest = max(self.num_runs + 1, min_runs(self.num_comparisons))
        for num_runs in range(fewest, MAX_RUNS):
            if self.detectable(variance, num_runs, self.num_images) <= difference:
                return num_runs
        return None

    def images_needed(self, variance: Variance, difference: float) -> int | None:
        """Return the total number of test images that would probably show it, with these runs.

        None if no number of images suffices with these runs.
        """
        if variance.num_clusters < 2 or 1 < self.num_runs < min_runs(self.num_comparisons):
            return None
        low, high = self.num_images + 1, MAX_IMAGES
        if self.detectable(variance, self.num_runs, high) > difference:
            return None
        while low < high:
            middle = (low + high) // 2
            if self.detectable(variance, self.num_runs, middle) <= difference:
                high = middle
            else:
                low = middle + 1
        return low

    def detectable(self, variance: Variance, num_runs: int, num_images: int) -> float:
        """Return the difference that this many runs and images show in four of five comparisons.

        The larger of what the interval and the signs of the runs require.
        """
        from scipy.special import ndtri, stdtrit

        freedom = variance.degrees_of_freedom(num_runs, num_images)
        quantiles = stdtrit(freedom, 1 - self.level / 2) + stdtrit(freedom, POWER)
        by_interval = float(quantiles) * variance.standard_error(num_runs, num_images)
        if num_runs == 1:
            return by_interval
        spread = math.sqrt(variance.run + variance.rest / num_images)
        holm_level = SIGNIFICANT / self.num_comparisons
        if 4 / 2**num_runs >= holm_level:  # then all runs must have the same sign
            by_signs = spread * float(ndtri(POWER ** (1 / num_runs)))
        else:
            freedom = num_runs - 1.0
            quantiles = stdtrit(freedom, 1 - holm_level / 2) + stdtrit(freedom, POWER)
            by_signs = float(quantiles) * spread / math.sqrt(num_runs)
        return max(by_interval, by_signs)


Pairs = Sequence[tuple[int, int]]


def judge(
    right_MKN: Bools,
    cluster_N: Ints,
    pairs: Pairs | None = None,
    *,
    label_N: Ints | None = None,
) -> Family:
    """Judge pairs of networks by which images their runs classified correctly.

    Args:
        right_MKN: Whether each run of each network classified each image correctly; run k of every
            network shares its random draws.
        cluster_N: Which images belong together: near duplicates, one person, one place.
        pairs: Which networks to compare, by position; None means all pairs.
        label_N: The class of each image, to judge by balanced accuracy; None: by accuracy.
    """
    num_networks, num_runs, num_images = right_MKN.shape
    cells = Cells.of(cluster_N, label_N)
    right_MKU = np.array([cells.sums(runs) for runs in right_MKN])
    pairs = list(combinations(range(num_networks), 2)) if pairs is None else list(pairs)
    level = simultaneous_level(covariance(right_MKU, cells), pairs)
    raw = []
    for first, second in pairs:
        net_KU = right_MKU[first] - right_MKU[second]
        raw.append(sign_flip_p(_by_run(net_KU)) if num_runs > 1 else _one_run_p(net_KU, cells))
    differences = tuple(
        _difference(pair, right_MKU[pair[0]] - right_MKU[pair[1]], cells, level, p, p_adjusted)
        for pair, p, p_adjusted in zip(pairs, raw, holm(raw), strict=True)
    )
    return Family(differences, len(pairs), level, num_runs, num_images)


def _one_run_p(net_1U: Floats, cells: Cells) -> float:
    """Return the p value of two models; where images weigh the same it is McNemar's."""
    net_C = np.bincount(cells.cluster_U, net_1U[0]).astype(np.float64)
    return mcnemar_p(net_C) if len(cells.classes) == 1 else weighted_sign_p(net_C)


def judge_resampled(
    accuracy_MK: Floats,
    num_images: int,
    num_train: int,
    pairs: Pairs | None = None,
    *,
    label_N: Ints | None = None,
) -> Family:
    """Judge pairs of networks by runs that were evaluated on different images.

    Uses Nadeau and Bengio's corrected resampled t test: training sets overlap, so the variance of
    a mean over K runs is 1/K + N / num_train of the variance of one run.

    Args:
        accuracy_MK: Accuracy of each run of each network, or its balanced accuracy; run k of every
            network left out the same images.
        num_images: N, the number of images a run left out.
        num_train: The number of images a run was trained on.
        pairs: Which networks to compare, by position; None means all pairs.
        label_N: The class of each image that a run left out, if accuracies are balanced.
    """
    from scipy.special import stdtr, stdtrit

    num_networks, num_runs = accuracy_MK.shape
    pairs = list(combinations(range(num_networks), 2)) if pairs is None else list(pairs)
    level = SIGNIFICANT / max(1, len(pairs))
    cells = Cells.of(np.arange(num_images), label_N)
    # That all runs agree does not mean that the next one will, so two images are added to the
    # variance, as in `estimate`.
    added = float(cells.added(np.zeros(num_images)).sum())
    found, raw = [], []
    for first, second in pairs:
        difference_K = accuracy_MK[first] - accuracy_MK[second]
        variance = float(difference_K.var(ddof=1)) + added
        error = math.sqrt((1 / num_runs + num_images / num_train) * variance)
        mean = float(difference_K.mean())
        raw.append(float(2 * stdtr(num_runs - 1, -abs(mean) / error)))
        found.append((mean, error * float(stdtrit(num_runs - 1, 1 - level / 2)), difference_K))
    differences = []
    for pair, (mean, reach, difference_K), p, p_adjusted in zip(
        pairs, found, raw, holm(raw), strict=True
    ):
        interval = max(-1.0, mean - reach), min(1.0, mean + reach)
        chance = _chance_better(difference_K)
        differences.append(Difference(*pair, mean, interval, p, p_adjusted, *chance, None))
    return Family(tuple(differences), len(pairs), level, num_runs, num_images)


def _by_run(net_KU: Floats) -> Floats:
    """Return (K,): how many more images the first network got right in each run, weighted."""
    return _exact_zeros(net_KU.sum(axis=1))


def _exact_zeros(sums: npt.ArrayLike) -> Floats:
    """Return sums of weights with 0 where they are 0 but for rounding."""
    return np.where(np.abs(sums) < 1e-9, 0.0, sums)


def _chance_better(difference_K: Floats) -> tuple[float, tuple[float, float]]:
    """Return how often the first was better, a tie counting half, and its interval."""
    wins = float((difference_K > 0).sum() + (difference_K == 0).sum() / 2)
    return wins / len(difference_K), exact_interval(wins, len(difference_K))


def _difference(
    pair: tuple[int, int],
    net_KU: Floats,
    cells: Cells,
    level: float,
    p: float,
    p_adjusted: float,
) -> Difference:
    from scipy.special import stdtrit

    num_runs, num_images = len(net_KU), sum(cells.num_images)
    by_run_K = _by_run(net_KU)
    mean = float(_exact_zeros(by_run_K.sum()) / (num_runs * num_images))
    variance = estimate(net_KU, cells)
    freedom = variance.degrees_of_freedom(num_runs, num_images)
    reach = float(stdtrit(freedom, 1 - level / 2)) * variance.standard_error(num_runs, num_images)
    if cells.num_clusters < 2:  # one cluster shows nothing about others
        reach = 2.0
    interval = max(-1.0, mean - reach), min(1.0, mean + reach)
    return Difference(*pair, mean, interval, p, p_adjusted, *_chance_better(by_run_K), variance)

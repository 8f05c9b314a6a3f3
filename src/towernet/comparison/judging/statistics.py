"""Statistics of differences between networks, when both runs and test images are samples.

Each of K runs draws its own training images, initial weights and order, the same for every network,
and all runs predict the same N test images. A difference would change with other runs and with
other images. The interval includes both, as in the analysis of multiple readers and multiple cases,
where runs are the readers and images the cases. It applies to networks trained on draws from
*these* labelled images; no number of runs can show what other training images would give. Without a
test split, each run is evaluated on the images it left out, and K such differences are worth less
than K independent ones.

Sources: Gallas, One-shot estimate of MRMC variance, Academic Radiology 2006 (the sum of variances);
Satterthwaite, Biometrics Bulletin 1946 (its degrees of freedom); Bonett and Price, Adjusted Wald
confidence interval for a difference of binomial proportions based on paired data, JEBS 2012 (two
images are added, one in favour of each network; here only to the variance, as clusters that differ
like the observed ones); Holm, Scandinavian Journal of Statistics 1979; Nadeau and Bengio, Inference
for the generalization error, Machine Learning 2003 (different images left out in each run).

Shapes: M networks, K runs, N images, C clusters of images that belong together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
import numpy.typing as npt

SIGNIFICANT = 0.05
POWER = 0.8
# Up to this many runs all sign flips are counted; beyond, they are drawn.
MAX_EXACT_RUNS = 16
NUM_FLIPS = 2**14
NUM_DRAWS = 2**14  # of the largest of several differences; gives the level to 0.2 points
MAX_RUNS, MAX_IMAGES = 1_000, 10_000_000  # more than anyone can use

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Variance:
    """The components of the variance of a mean difference, for one run and one image.

    Args:
        run: Variance of the expected difference from run to run.
        image: Variance of the expected difference from image to image.
        rest: Remaining variance of one run's prediction for one image.
        num_clusters: C, the number of images or clusters it was estimated from.
        num_images: N, the number of images in them.
    """

    run: float
    image: float
    rest: float
    num_clusters: int
    num_images: int

    def standard_error(self, num_runs: int, num_images: int) -> float:
        """Return the standard error of the mean difference over this many runs and images."""
        return math.sqrt(sum(self._parts(num_runs, num_images)))

    def degrees_of_freedom(self, num_runs: int, num_images: int) -> float:
        """Return Satterthwaite's degrees of freedom, for clusters as large as the observed ones."""
        run, image, rest = self._parts(num_runs, num_images)
        clusters = max(1.0, self.num_clusters * num_images / self.num_images - 1)
        total = run + image + rest
        if num_runs == 1:
            return clusters
        uncertainty = (
            (run + rest) ** 2 / (num_runs - 1)
            + (image + rest) ** 2 / clusters
            + rest**2 / ((num_runs - 1) * clusters)
        )
        return max(1.0, total**2 / uncertainty)

    def _parts(self, num_runs: int, num_images: int) -> tuple[float, float, float]:
        return (
            self.run / num_runs,
            self.image / num_images,
            self.rest / (num_runs * num_images),
        )


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


def judge(right_MKN: Bools, cluster_N: Ints, pairs: Pairs | None = None) -> Family:
    """Judge pairs of networks by which images their runs classified correctly.

    Args:
        right_MKN: Whether each run of each network classified each image correctly; run k of every
            network shares its random draws.
        cluster_N: Which images belong together: near duplicates, one person, one place.
        pairs: Which networks to compare, by position; None means all pairs.
    """
    num_networks, num_runs, num_images = right_MKN.shape
    _, cluster_N = np.unique(cluster_N, return_inverse=True)
    sizes_C = np.bincount(cluster_N)
    right_MKC = np.array(
        [[np.bincount(cluster_N, run, len(sizes_C)) for run in runs] for runs in right_MKN],
        np.float64,
    )
    pairs = list(combinations(range(num_networks), 2)) if pairs is None else list(pairs)
    level = simultaneous_level(_covariance(right_MKC, sizes_C), pairs)
    raw = []
    for first, second in pairs:
        net_KC = right_MKC[first] - right_MKC[second]
        raw.append(sign_flip_p(net_KC.sum(axis=1)) if num_runs > 1 else mcnemar_p(net_KC[0]))
    differences = tuple(
        _difference(pair, right_MKC[pair[0]] - right_MKC[pair[1]], sizes_C, level, p, p_adjusted)
        for pair, p, p_adjusted in zip(pairs, raw, holm(raw), strict=True)
    )
    return Family(differences, len(pairs), level, num_runs, num_images)


def judge_resampled(
    accuracy_MK: Floats, num_images: int, num_train: int, pairs: Pairs | None = None
) -> Family:
    """Judge pairs of networks by runs that were evaluated on different images.

    Uses Nadeau and Bengio's corrected resampled t test: training sets overlap, so the variance of
    a mean over K runs is 1/K + N / num_train of the variance of one run.

    Args:
        accuracy_MK: Accuracy of each run of each network; run k of every network left out the same
            images.
        num_images: N, the number of images a run left out.
        num_train: The number of images a run was trained on.
        pairs: Which networks to compare, by position; None means all pairs.
    """
    from scipy.special import stdtr, stdtrit

    num_networks, num_runs = accuracy_MK.shape
    pairs = list(combinations(range(num_networks), 2)) if pairs is None else list(pairs)
    level = SIGNIFICANT / max(1, len(pairs))
    found, raw = [], []
    for first, second in pairs:
        difference_K = accuracy_MK[first] - accuracy_MK[second]
        # That all runs agree does not mean that the next one will, so two images are added to the
        # variance, as in `estimate`.
        variance = float(difference_K.var(ddof=1)) + 2 / (num_images + 2) ** 2
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


def _chance_better(difference_K: Floats) -> tuple[float, tuple[float, float]]:
    """Return how often the first was better, a tie counting half, and its interval."""
    wins = float((difference_K > 0).sum() + (difference_K == 0).sum() / 2)
    return wins / len(difference_K), exact_interval(wins, len(difference_K))


def _difference(
    pair: tuple[int, int],
    net_KC: Floats,
    sizes_C: Ints,
    level: float,
    p: float,
    p_adjusted: float,
) -> Difference:
    from scipy.special import stdtrit

    num_runs, num_images = len(net_KC), int(sizes_C.sum())
    by_run_K = net_KC.sum(axis=1)
    mean = float(by_run_K.sum() / (num_runs * num_images))
    variance = estimate(net_KC, sizes_C)
    freedom = variance.degrees_of_freedom(num_runs, num_images)
    reach = float(stdtrit(freedom, 1 - level / 2)) * variance.standard_error(num_runs, num_images)
    if len(sizes_C) < 2:  # one cluster shows nothing about others
        reach = 2.0
    interval = max(-1.0, mean - reach), min(1.0, mean + reach)
    return Difference(*pair, mean, interval, p, p_adjusted, *_chance_better(by_run_K), variance)


def estimate(net_KC: Floats, sizes_C: Ints) -> Variance:
    """Estimate the components of a difference's variance.

    Args:
        net_KC: For each run and cluster, how many more images the first network got right.
        sizes_C: The number of images in each cluster.
    """
    num_runs, num_clusters = net_KC.shape
    num_images = int(sizes_C.sum())
    of_runs, of_images, of_rest = spread(net_KC, sizes_C)
    by_cluster_C = net_KC.mean(axis=0)
    # By how many images a cluster differs if it differs: 1 with one run and single images. If none
    # differs this is unknown, and whole clusters may differ.
    differing = float(np.abs(by_cluster_C).sum())
    size = float((by_cluster_C**2).sum()) / differing if differing else num_images / num_clusters
    added = 2 * size**2 / (num_images + 2) ** 2
    # The variances over runs and over images both contain the rest; neither can be negative.
    return Variance(
        run=max(0.0, of_runs - of_rest) * num_runs,
        image=(max(0.0, of_images - of_rest) + added) * num_images,
        rest=of_rest * num_runs * num_images,
        num_clusters=num_clusters,
        num_images=num_images,
    )


def spread(net_KC: Floats, sizes_C: Ints | Floats) -> tuple[float, float, float]:
    """Return the observed variances of a mean: over runs, over clusters, and the rest.

    Each of the first two contains the rest. The mean is the sum of `net_KC` over that of the sizes.
    """
    num_runs, num_clusters = net_KC.shape
    total = float(sizes_C.sum())
    by_run_K = net_KC.sum(axis=1) / total
    by_cluster_C = net_KC.mean(axis=0)
    scale = num_clusters / max(1, num_clusters - 1) / total**2
    of_images = scale * float(((by_cluster_C - sizes_C * by_run_K.mean()) ** 2).sum())
    if num_runs == 1:
        return 0.0, of_images, 0.0
    of_runs = float(by_run_K.var(ddof=1)) / num_runs
    rest_KC = net_KC - by_cluster_C - np.outer(by_run_K - by_run_K.mean(), sizes_C)
    of_rest = scale * float((rest_KC**2).sum()) / ((num_runs - 1) * num_runs)
    return of_runs, of_images, of_rest


def _covariance(right_MKC: Floats, sizes_C: Ints) -> Floats:
    """Return (M, M): the covariance of the networks' accuracies, over runs and over images."""
    num_runs, num_images = right_MKC.shape[1], int(sizes_C.sum())
    by_run_MK = right_MKC.sum(axis=2) / num_images
    by_cluster_MC = right_MKC.mean(axis=1) - np.outer(by_run_MK.mean(axis=1), sizes_C)
    spread = len(sizes_C) / max(1, len(sizes_C) - 1) / num_images**2
    total: Floats = spread * by_cluster_MC @ by_cluster_MC.T
    if num_runs > 1:
        total = total + np.atleast_2d(np.cov(by_run_MK)) / num_runs
    return total


def simultaneous_level(covariance_MM: Floats, pairs: Sequence[tuple[int, int]]) -> float:
    """Return the error rate of each interval for which all of them together have 5 %.

    Simulated from the normal distribution with the networks' covariance, with a fixed seed. It is
    never below Bonferroni's, and never above that of a single difference.
    """
    from scipy.special import ndtr

    if len(pairs) < 2:
        return SIGNIFICANT
    first, second = np.array(pairs).T
    values, vectors = np.linalg.eigh(covariance_MM)
    # The symmetric root: unlike the eigenvectors, it does not change much with rounding.
    root_MM = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    draws = _normal_draws(len(covariance_MM)) @ root_MM
    spread = np.sqrt(
        np.maximum(
            covariance_MM[first, first]
            + covariance_MM[second, second]
            - 2 * covariance_MM[first, second],
            0,
        )
    )
    varies = spread > 1e-9
    if not varies.any():
        return SIGNIFICANT / len(pairs)
    scaled = np.abs(draws[:, first[varies]] - draws[:, second[varies]]) / spread[varies]
    largest = float(np.quantile(scaled.max(axis=1), 1 - SIGNIFICANT))
    level = float(np.clip(2 * ndtr(-largest), SIGNIFICANT / len(pairs), SIGNIFICANT))
    return round(level, 6)  # the last bits depend on the order of sums in matrix products


@cache
def _normal_draws(num_networks: int) -> Floats:
    return np.random.default_rng(0).standard_normal((NUM_DRAWS, num_networks))


def sign_flip_p(differences_K: npt.NDArray[np.float64]) -> float:
    """Return the two-sided p value of paired differences by random sign flips.

    Exact up to 16 runs, with 2 / 2^K as the smallest possible value; beyond, from draws with a
    fixed seed.
    """
    num_runs = len(differences_K)
    observed = abs(float(differences_K.sum()))
    signs = _signs(num_runs)
    # Compared with a tolerance, since the same sum is rounded differently in different orders.
    is_as_large = np.abs(signs @ differences_K) >= observed * (1 - 1e-9) - 1e-15
    if num_runs <= MAX_EXACT_RUNS:
        return float(is_as_large.mean())
    return float((is_as_large.sum() + 1) / (len(signs) + 1))


@cache
def _signs(num_runs: int) -> Floats:
    """Return sign flips, one per row: all of them up to a flip of every sign, or drawn ones."""
    if num_runs > MAX_EXACT_RUNS:
        bits = np.random.default_rng(0).integers(0, 2, (NUM_FLIPS - 1, num_runs))
    else:
        bits = np.arange(2 ** (num_runs - 1))[:, None] >> np.arange(num_runs) & 1
    return (1 - 2 * bits).astype(np.float64)


def mcnemar_p(net_C: npt.NDArray[np.float64]) -> float:
    """Return McNemar's exact two-sided p value for two models; a cluster counts once.

    Source: McNemar, Psychometrika 1947; the exact form is a sign test on the images that only one
    model got right.

    Args:
        net_C: For each cluster, how many more images the first model got right.
    """
    from scipy.stats import binomtest

    only_first, only_second = int((net_C > 0).sum()), int((net_C < 0).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second).pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """Return the p values adjusted for multiple comparisons by Holm's procedure."""
    values = np.array(p, np.float64)
    order = np.argsort(values)
    # Not from statsmodels, which runs a full garbage collection on each call.
    steps = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    values[order] = np.minimum(steps, 1)
    return [float(value) for value in values]


def exact_interval(wins: float, num_runs: int) -> tuple[float, float]:
    """Return the 95 % Clopper-Pearson interval of a probability."""
    from scipy.special import betaincinv

    losses = num_runs - wins
    low = betaincinv(wins, losses + 1, SIGNIFICANT / 2) if wins else 0.0
    high = betaincinv(wins + 1, losses, 1 - SIGNIFICANT / 2) if losses else 1.0
    return float(low), float(high)


def min_runs(num_comparisons: int) -> int:
    """Return the fewest runs that can show any difference with this many comparisons.

    Example:
        >>> [min_runs(num) for num in (1, 3, 4, 6, 8, 10)]
        [6, 7, 8, 8, 9, 9]
    """
    num_runs = 2
    while 2 / 2**num_runs >= SIGNIFICANT / max(1, num_comparisons):
        num_runs += 1
    return num_runs

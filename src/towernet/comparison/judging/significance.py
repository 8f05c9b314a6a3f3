"""Tests of significance: p values of paired differences, adjusted for several comparisons.

Sources: McNemar, Psychometrika 1947; Holm, Scandinavian Journal of Statistics 1979; Clopper and
Pearson, Biometrika 1934.

Shapes: M networks, K runs, C clusters of images that belong together.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

SIGNIFICANT = 0.05
# Up to this many differences all sign flips are counted; beyond, they are drawn.
MAX_EXACT_RUNS = 16
NUM_FLIPS = 2**14
NUM_DRAWS = 2**14  # of the largest of several differences; gives the level to 0.2 points

Floats = npt.NDArray[np.float64]


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


def weighted_sign_p(net_C: Floats) -> float:
    """Return the two-sided p value of two models whose images weigh differently.

    As `mcnemar_p`, but clusters count by how much they differ. Exact up to 16 of them that do;
    beyond, from draws with a fixed seed.

    Args:
        net_C: For each cluster, how many more images the first model got right, weighted.
    """
    differing = net_C[np.abs(net_C) > 1e-9]
    if len(differing) <= MAX_EXACT_RUNS:
        return sign_flip_p(differing) if len(differing) else 1.0
    # Clusters that differ by the same amount are drawn together, since there can be millions.
    amounts, counts = np.unique(np.abs(differing).round(9), return_counts=True)
    chance = np.random.default_rng(0)
    flipped = np.zeros(NUM_FLIPS)
    for amount, count in zip(amounts, counts, strict=True):
        flipped += amount * (2 * chance.binomial(count, 0.5, NUM_FLIPS) - count)
    observed = abs(float(differing.sum()))
    return float(((np.abs(flipped) >= observed - 1e-6).sum() + 1) / (NUM_FLIPS + 1))


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

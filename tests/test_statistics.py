"""The statistics of a verdict, each checked against a reference, and the coverage of intervals."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest


def made_up(num_networks, num_runs, num_images, *, seed, cluster=1, run=0.08, taste=0.5):
    """Return (M, K, N): which images equal networks get right, about 85 %; clusters are similar."""
    chance = np.random.default_rng(seed)
    clusters = num_images // cluster
    ease = np.repeat(1.5 * chance.standard_normal(clusters), cluster)
    own = np.repeat(taste * chance.standard_normal((num_networks, clusters)), cluster, axis=1)
    luck = run * chance.standard_normal((num_networks, num_runs))
    noise = chance.standard_normal((num_networks, num_runs, num_images))
    return 1.9 + ease + own[:, None] + luck[:, :, None] + noise > 0


@pytest.mark.parametrize("num_runs", [2, 6, 9, 13])
def test_sign_flip_p_agrees_with_all_flips(num_runs):
    from scipy.stats import permutation_test

    from towernet.comparison.judging.significance import sign_flip_p

    differences = np.random.default_rng(num_runs).integers(-9, 12, num_runs) / 357
    expected = permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert sign_flip_p(differences) == pytest.approx(expected)
    assert sign_flip_p(np.full(num_runs, 0.01)) == pytest.approx(2 / 2**num_runs)
    assert sign_flip_p(np.zeros(num_runs)) == 1


def test_drawn_flips_are_close_to_all_flips():
    from towernet.comparison.judging.significance import sign_flip_p

    differences = np.random.default_rng(5).normal(0.01, 0.02, 20)
    flips = np.add.outer(*_halves(differences))
    exact = (np.abs(flips) >= abs(differences.sum()) - 1e-12).mean()
    assert sign_flip_p(differences) == pytest.approx(exact, abs=0.004)
    assert sign_flip_p(differences) == sign_flip_p(differences)


def _halves(differences):
    """Return the sums of all flips of each half; their pairs are the flips of the whole."""
    half = len(differences) // 2
    signs = np.array(list(product((-1, 1), repeat=half)))
    return signs @ differences[:half], signs @ differences[half:]


def test_mcnemar_agrees_with_statsmodels():
    from statsmodels.stats.contingency_tables import mcnemar

    from towernet.comparison.judging.significance import mcnemar_p

    draw = np.random.default_rng(3)
    one, two = draw.random(300) < 0.8, draw.random(300) < 0.7
    table = [[(one & two).sum(), (one & ~two).sum()], [(~one & two).sum(), (~one & ~two).sum()]]
    net = one.astype(float) - two
    assert mcnemar_p(net) == pytest.approx(mcnemar(table, exact=True).pvalue)
    assert mcnemar_p(np.zeros(300)) == 1.0


def test_the_exact_interval_agrees_with_statsmodels():
    from statsmodels.stats.proportion import proportion_confint

    from towernet.comparison.judging.significance import exact_interval

    for wins in (0, 1, 7, 8):
        expected = proportion_confint(wins, 8, method="beta")
        assert exact_interval(float(wins), 8) == pytest.approx(expected)
    assert exact_interval(3.0, 8)[0] < exact_interval(3.5, 8)[0] < exact_interval(4.0, 8)[0]


def test_holm_agrees_with_statsmodels_and_a_worked_example():
    from statsmodels.stats.multitest import multipletests

    from towernet.comparison.judging.significance import holm

    p = np.random.default_rng(0).random(11) ** 3
    assert holm(list(p)) == pytest.approx(list(multipletests(p, method="holm")[1]))
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_the_variance_agrees_with_a_two_way_analysis():
    """Runs and images crossed, with plain sums: (MS_run + MS_image - MS_rest) / (K N)."""
    from towernet.comparison.judging.variance import Cells, estimate

    right = made_up(2, 7, 211, seed=1).astype(float)
    net = right[0] - right[1]
    runs, images = net.shape
    mean, by_run, by_image = net.mean(), net.mean(axis=1), net.mean(axis=0)
    of_run = images * sum((value - mean) ** 2 for value in by_run) / (runs - 1)
    of_image = runs * sum((value - mean) ** 2 for value in by_image) / (images - 1)
    of_rest = sum(
        (net[k, n] - by_run[k] - by_image[n] + mean) ** 2
        for k in range(runs)
        for n in range(images)
    ) / ((runs - 1) * (images - 1))
    assert of_run > of_rest  # otherwise a component would be clipped at 0
    assert of_image > of_rest
    size = (by_image**2).sum() / abs(by_image).sum()
    expected = (of_run + of_image - of_rest) / (runs * images) + 2 * size**2 / (images + 2) ** 2
    found = estimate(net, Cells.of(np.arange(images)))
    assert found.standard_error(runs, images) ** 2 == pytest.approx(expected)
    assert found.rest == pytest.approx(of_rest)


def test_one_run_with_clusters_agrees_with_a_clustered_regression():
    import statsmodels.api as sm

    from towernet.comparison.judging.variance import Cells, estimate

    right = made_up(2, 1, 240, seed=2, cluster=4).astype(float)
    net, cluster = right[0, 0] - right[1, 0], np.repeat(np.arange(60), 4)
    fitted = sm.OLS(net, np.ones(240)).fit(cov_type="cluster", cov_kwds={"groups": cluster})
    sums = np.bincount(cluster, net)
    found = estimate(sums[None], Cells.of(cluster))
    size = (sums**2).sum() / abs(sums).sum()
    assert 1 < size < 4
    expected = fitted.bse[0] ** 2 + 2 * size**2 / 242**2
    assert found.standard_error(1, 240) ** 2 == pytest.approx(expected)
    assert found.degrees_of_freedom(1, 240) == 59


def test_few_clusters_without_differences_give_a_wide_interval():
    """Fifty clusters of forty images, no prediction different: whole clusters may still differ."""
    from towernet.comparison.judging.statistics import judge

    right = np.ones((2, 8, 2000), dtype=bool)
    (clustered,) = judge(right, np.arange(2000) // 40).differences
    (single,) = judge(right, np.arange(2000)).differences
    assert clustered.interval[1] > 5 * single.interval[1] > 0
    assert not clustered.is_within(0.005)
    assert single.is_within(0.005)


def test_simultaneous_intervals_agree_with_tukey_and_sidak():
    from scipy.stats import norm, studentized_range

    from towernet.comparison.judging.significance import simultaneous_level

    pairs = [(0, 1), (0, 2), (1, 2)]
    tukey = 2 * norm.sf(studentized_range.ppf(0.95, 3, 1e6) / np.sqrt(2))
    assert simultaneous_level(np.eye(3), pairs) == pytest.approx(tukey, abs=0.002)
    apart = simultaneous_level(np.eye(4), [(0, 1), (2, 3)])
    assert apart == pytest.approx(1 - 0.95**0.5, abs=0.002)
    assert simultaneous_level(np.eye(2), [(0, 1)]) == 0.05
    assert simultaneous_level(np.zeros((3, 3)), pairs) == pytest.approx(0.05 / 3)


def test_needed_runs_and_images_are_the_fewest_that_suffice():
    from towernet.comparison.judging.statistics import judge

    family = judge(made_up(3, 8, 350, seed=3), np.arange(350))
    variance = family.differences[0].variance
    images = family.images_needed(variance, 0.03)
    assert family.detectable(variance, 8, images) <= 0.03
    assert family.detectable(variance, 8, images - 1) > 0.03
    runs = family.runs_needed(variance, 0.06)
    assert runs > 8
    assert family.detectable(variance, runs, 350) <= 0.06
    assert runs == 9 or family.detectable(variance, runs - 1, 350) > 0.06
    assert family.runs_needed(variance, 0.001) is None  # 350 images cannot show so little


def test_the_order_of_networks_images_and_clusters_does_not_matter():
    from towernet.comparison.judging.statistics import judge

    right, cluster = made_up(2, 8, 120, seed=4, cluster=3), np.repeat(np.arange(40), 3)
    (one,) = judge(right, cluster).differences
    order = np.random.default_rng(0).permutation(120)
    (two,) = judge(right[::-1][:, :, order], (39 - cluster)[order]).differences
    assert two.mean == pytest.approx(-one.mean)
    assert two.interval == pytest.approx((-one.interval[1], -one.interval[0]))
    assert two.p == one.p


def coverage(interval_of, *, num_comparisons=200, **scene):
    covered = 0
    for seed in range(num_comparisons):
        low, high = interval_of(made_up(2, 8, 150, seed=seed, **scene))
        covered += low <= 0 <= high
    return covered / num_comparisons


def of_runs_and_images(right):
    from towernet.comparison.judging.statistics import judge

    return judge(right, np.arange(right.shape[2])).differences[0].interval


def of_runs_alone(right):
    """The common method: a t interval over the runs, which ignores the choice of test images."""
    from scipy.stats import t

    by_run = right[0].mean(axis=1) - right[1].mean(axis=1)
    reach = t.ppf(0.975, len(by_run) - 1) * by_run.std(ddof=1) / len(by_run) ** 0.5
    return by_run.mean() - reach, by_run.mean() + reach


def test_intervals_contain_the_truth_where_those_of_runs_alone_do_not():
    scene = {"run": 0.03, "taste": 0.8}
    assert coverage(of_runs_and_images, **scene) >= 0.91
    assert coverage(of_runs_alone, **scene) < 0.85


def test_ignoring_clusters_would_make_intervals_too_narrow():
    from towernet.comparison.judging.statistics import judge

    def clustered(right):
        return judge(right, np.arange(150) // 5).differences[0].interval

    scene = {"cluster": 5, "taste": 1.0}
    assert coverage(clustered, **scene) >= 0.91
    assert coverage(of_runs_and_images, **scene) < 0.86


def test_resampled_runs_are_judged_with_nadeau_and_bengio_s_test():
    from scipy.stats import t as student

    from towernet.comparison.judging.statistics import judge_resampled

    accuracies = np.random.default_rng(1).binomial(80, 0.8, (3, 6)) / 80
    family = judge_resampled(accuracies, 80, 320)
    (found,) = (d for d in family.differences if (d.first, d.second) == (0, 2))
    difference = accuracies[0] - accuracies[2]
    variance = np.var(difference, ddof=1) + 2 / 82**2
    error = np.sqrt((1 / 6 + 80 / 320) * variance)
    assert found.p == pytest.approx(2 * student.sf(abs(difference.mean()) / error, 5))
    reach = student.ppf(1 - 0.05 / 3 / 2, 5) * error
    assert found.interval == pytest.approx((difference.mean() - reach, difference.mean() + reach))
    assert found.p_adjusted >= found.p


def test_runs_that_share_images_are_not_treated_as_independent():
    """Equal networks, each run trained and evaluated on different parts of one pool."""
    from scipy.stats import ttest_rel

    from towernet.comparison.judging.statistics import judge_resampled

    chance = np.random.default_rng(7)
    num_runs, num_pool, num_held = 10, 400, 80
    false = false_by_t = 0
    for _ in range(300):
        ease = 1.5 * chance.standard_normal(num_pool) + 1.5
        taste = 0.9 * chance.standard_normal((2, num_pool))
        accuracies = np.empty((2, num_runs))
        for k in range(num_runs):
            held = chance.permutation(num_pool)[:num_held]
            noise = 0.3 * chance.standard_normal((2, num_held))
            accuracies[:, k] = (ease[held] + taste[:, held] + noise > 0).mean(axis=1)
        false += (
            judge_resampled(accuracies, num_held, num_pool - num_held).differences[0].is_shown()
        )
        false_by_t += ttest_rel(*accuracies).pvalue < 0.05
    assert false / 300 < 0.1
    assert false_by_t / 300 > 0.15

"""Scores against reference implementations, and their intervals against simulations."""

from __future__ import annotations

import numpy as np
import pytest


def test_f1_and_confusion_agree_with_scikit_learn():
    from sklearn import metrics

    from towernet.comparison.judging.scores import confusion_matrix, macro_f1, per_class

    draw = np.random.default_rng(4)
    labels, predicted = draw.integers(0, 5, 200), draw.integers(0, 5, 200)
    confusion = confusion_matrix(labels, predicted, 5)
    np.testing.assert_array_equal(confusion, metrics.confusion_matrix(labels, predicted))
    assert macro_f1(confusion) == pytest.approx(
        metrics.f1_score(labels, predicted, average="macro")
    )
    rows = per_class(labels, predicted[None], np.arange(200), tuple("abcde"))
    expected = metrics.precision_recall_fscore_support(labels, predicted)
    for i, key in enumerate(("precision", "recall", "f1", "num_images")):
        assert [getattr(row, key) for row in rows] == pytest.approx(expected[i].tolist())


def test_frequent_confusions_leave_out_the_diagonal():
    from towernet.comparison.judging.scores import confusions

    confusion = np.array([[9, 1, 0], [0, 5, 4], [0, 0, 7]])
    assert confusions(confusion) == [(1, 2, 4), (0, 1, 1)]
    assert confusions(np.diag([3, 0, 2])) == []


def test_with_one_run_and_no_clusters_an_interval_is_wilson_s():
    from statsmodels.stats.proportion import proportion_confint

    from towernet.comparison.judging.scores import accuracy_interval, per_class

    right = np.array([[True] * 83 + [False] * 17])
    expected = proportion_confint(83, 100, method="wilson")
    assert accuracy_interval(right, np.arange(100)) == pytest.approx(expected)
    labels = np.repeat([0, 1], 50)
    predicted = np.where(right[0], labels, 1 - labels)
    row = per_class(labels, predicted[None], np.arange(100), ("a", "b"))[1]
    assert row.recall_interval == pytest.approx(proportion_confint(33, 50, method="wilson"))
    assert row.precision_interval == pytest.approx(proportion_confint(33, 33, method="wilson"))


def test_wilson_s_interval_agrees_with_statsmodels_to_the_last_digit():
    from statsmodels.stats.proportion import proportion_confint

    from towernet.comparison.judging.scores import wilson

    draw = np.random.default_rng(0)
    for num in (1, 2, 10, 83, 997, 100_000, 1.5, *draw.uniform(1, 5000, 200)):
        for accuracy in (0.0, 0.25, 1 / 3, 1.0, *draw.uniform(0, 1, 5)):
            low, high = proportion_confint(accuracy * num, num, method="wilson")
            assert wilson(accuracy, num) == (min(low, accuracy), max(high, accuracy))


def test_scores_with_denominator_zero_have_no_interval():
    from towernet.comparison.judging.scores import per_class

    rows = per_class(np.array([0, 0, 1]), np.array([[0, 0, 0]]), np.arange(3), ("a", "b", "c"))
    assert rows[1].precision_interval is None
    assert rows[1].recall == 0
    assert rows[2].recall_interval is None
    assert rows[2].num_images == 0


@pytest.mark.parametrize(
    ("num_images", "num_runs", "accuracy", "luck", "cluster"),
    [(350, 8, 0.85, 0.1, 1), (350, 8, 0.85, 0.4, 1), (400, 8, 0.85, 0.1, 5)],
)
def test_intervals_contain_the_true_accuracy(num_images, num_runs, accuracy, luck, cluster):
    from scipy.special import ndtri

    from towernet.comparison.judging.scores import accuracy_interval, wilson

    chance = np.random.default_rng(0)
    cluster_N = np.arange(num_images) // cluster
    scale = np.sqrt(1 + 1.5**2 + luck**2)
    covered = covered_by_wilson = 0
    for _ in range(400):
        ease_N = 1.5 * chance.standard_normal(num_images // cluster)[cluster_N]
        run_R1 = luck * chance.standard_normal((num_runs, 1))
        noise_RN = chance.standard_normal((num_runs, num_images))
        right_RN = ndtri(accuracy) * scale + run_R1 + ease_N + noise_RN > 0
        low, high = accuracy_interval(right_RN, cluster_N)
        covered += low <= accuracy <= high
        # As if all predictions were independent.
        low, high = wilson(float(right_RN.mean()), right_RN.size)
        covered_by_wilson += low <= accuracy <= high
    assert 0.92 <= covered / 400 <= 0.985
    assert covered_by_wilson / 400 < 0.85


def test_images_shared_among_runs_do_not_count_twice():
    from towernet.comparison.judging.scores import accuracy_interval

    right = np.array([[True] * 80 + [False] * 20])
    once = accuracy_interval(right, np.arange(100))
    again = accuracy_interval(np.tile(right, 4), np.tile(np.arange(100), 4))
    independent = accuracy_interval(np.tile(right, 4), np.arange(400))
    assert again == pytest.approx(once, abs=0.006)
    assert independent[1] - independent[0] < 0.6 * (once[1] - once[0])


@pytest.mark.parametrize(
    ("num_images", "accuracy"), [(100, 0.99), (10, 0.9), (100, 0.98), (20, 0.9)]
)
def test_few_mistakes_do_not_make_the_interval_too_narrow(num_images, accuracy):
    """Images that are hard for every run: eight predictions are worth little more than one."""
    from scipy.special import ndtri

    from towernet.comparison.judging.scores import accuracy_interval

    chance = np.random.default_rng(2)
    covered = 0
    for _ in range(300):
        ease_N = 3 * chance.standard_normal(num_images)
        noise_RN = chance.standard_normal((8, num_images))
        right_RN = ndtri(accuracy) * np.sqrt(10) + ease_N + noise_RN > 0
        low, high = accuracy_interval(right_RN, np.arange(num_images))
        covered += low <= accuracy <= high
    assert covered / 300 >= 0.94


def test_one_more_mistake_lowers_the_lower_end():
    from towernet.comparison.judging.scores import accuracy_interval

    right = np.ones((8, 100), bool)
    lowest = accuracy_interval(right, np.arange(100))[0]
    for number in range(5):
        right[number % 8, number] = False
        low = accuracy_interval(right, np.arange(100))[0]
        assert low < lowest
        lowest = low


def test_many_runs_do_not_narrow_the_interval_of_a_single_cluster():
    from towernet.comparison.judging.scores import accuracy_interval

    right = np.random.default_rng(0).random((8, 20)) < 0.7
    low, high = accuracy_interval(right, np.zeros(20, int))
    assert high - low > 0.6


def test_resampled_intervals_reflect_the_spread_of_the_runs():
    from towernet.comparison.judging.scores import resampled_interval

    chance = np.random.default_rng(0)
    steady = [chance.permutation(np.arange(200) < 160) for _ in range(8)]
    shaky = [np.arange(200) < 200 * (0.8 + 0.05 * (-1) ** k) for k in range(8)]
    narrow, wide = (resampled_interval(right, 800) for right in (steady, shaky))
    assert wide[1] - wide[0] > 1.3 * (narrow[1] - narrow[0])
    assert narrow[0] < 0.8 < narrow[1]


def test_f1_and_its_interval_come_from_jaccard_s_index():
    from statsmodels.stats.proportion import proportion_confint

    from towernet.comparison.judging.scores import per_class

    labels = np.array([0] * 10 + [1] * 10)
    predicted = np.array([0] * 8 + [1] * 12)
    row = per_class(labels, predicted[None], np.arange(20), ("a", "b"))[0]
    assert row.f1 == pytest.approx(2 * 8 / 18)
    low, high = proportion_confint(8, 10, method="wilson")
    assert row.f1_interval == pytest.approx((2 * low / (1 + low), 2 * high / (1 + high)))

"""Balanced accuracy: its value, its intervals and its verdicts, each checked against plain loops.

Wrong implementations, such as one that ignores the weights, are shown to be rejected.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

SIZES = (120, 24, 8)
LABELS = np.repeat([0, 1, 2], SIZES)


def made_up(num_runs, accuracies=(0.92, 0.8, 0.6), *, seed, networks=2, class_luck=0.0, group=1):
    """Return (M, K, N): which images equal networks get right, and the images' clusters."""
    from scipy.special import ndtri

    chance = np.random.default_rng(seed)
    cluster = np.concatenate([np.arange(size) // group + 1000 * i for i, size in enumerate(SIZES)])
    place = np.unique(cluster, return_inverse=True)[1]
    scale = np.sqrt(1 + 1.5**2 + 0.5**2 + 0.08**2 + class_luck**2)
    ease = 1.5 * chance.standard_normal(place.max() + 1)[place]
    taste = 0.5 * chance.standard_normal((networks, 1, place.max() + 1))[..., place]
    luck = 0.08 * chance.standard_normal((networks, num_runs, 1))
    luck = luck + class_luck * chance.standard_normal((networks, num_runs, 3))[..., LABELS]
    noise = chance.standard_normal((networks, num_runs, len(LABELS)))
    skill = (ndtri(accuracies) * scale)[LABELS]
    return skill + ease + taste + luck + noise > 0, cluster


def recalls(right_KN):
    return [right_KN[:, label == LABELS].mean() for label in range(3)]


def test_the_difference_is_that_of_the_mean_recall():
    from towernet.comparison.judging.statistics import judge
    from towernet.data.balance import balanced_accuracy

    right, cluster = made_up(8, seed=1)
    (found,) = judge(right, cluster, label_N=LABELS).differences
    expected = np.mean(recalls(right[0])) - np.mean(recalls(right[1]))
    assert found.mean == pytest.approx(expected)
    by_run = [balanced_accuracy(run, LABELS) for run in right[0]]
    assert np.mean(by_run) == pytest.approx(np.mean(recalls(right[0])))
    (of_all,) = judge(right, cluster).differences  # a judgement that ignores the classes
    assert of_all.mean != pytest.approx(expected)
    assert of_all.mean == pytest.approx(right[0].mean() - right[1].mean())


@pytest.mark.parametrize("num_runs", [1, 8])
def test_classes_of_one_size_give_the_bits_of_the_accuracy(num_runs):
    from towernet.comparison.judging.scores import accuracy_interval, balanced_interval
    from towernet.comparison.judging.statistics import judge

    right, _ = made_up(num_runs, seed=2, networks=3)
    labels, cluster = np.arange(len(LABELS)) % 8, np.arange(len(LABELS)) // 3
    assert judge(right, cluster, label_N=labels) == judge(right, cluster)
    assert balanced_interval(right[0], cluster, labels) == accuracy_interval(right[0], cluster)
    assert judge(right, cluster, label_N=LABELS) != judge(right, cluster)


def test_one_run_has_the_variance_of_a_stratified_sample():
    """The sum over classes of s² / n, over the square of their number; n - 1 degrees each."""
    from towernet.comparison.judging.statistics import judge

    right, _ = made_up(1, seed=3)
    (found,) = judge(right, np.arange(len(LABELS)), label_N=LABELS).differences
    net = right[0, 0].astype(float) - right[1, 0]
    parts = [net[label == LABELS] for label in range(3)]
    assert all(part.any() for part in parts)
    # Two images are added, shared by three classes: an image's difference is ± 1 here.
    added = [2 / 3 / (len(part) + 2 / 3) ** 2 / 9 for part in parts]
    own = [part.var(ddof=1) / len(part) / 9 for part in parts]
    assert found.variance.standard_error(1, len(LABELS)) ** 2 == pytest.approx(sum(own + added))
    # What is added is not estimated, so it is certain.
    freedom = sum(own + added) ** 2 / sum(np.array(own) ** 2 / (np.array(SIZES) - 1))
    assert found.variance.degrees_of_freedom(1, len(LABELS)) == pytest.approx(freedom)
    assert freedom < 30  # of 446: the smallest class decides how well the variance is known


def test_several_runs_have_the_variance_of_runs_and_of_images_within_classes():
    from towernet.comparison.judging.statistics import judge

    num = 7
    right, _ = made_up(num, seed=4, class_luck=0.6)
    (found,) = judge(right, np.arange(len(LABELS)), label_N=LABELS).differences
    net = right[0].astype(float) - right[1]
    of_runs = np.var([np.mean([run[g == LABELS].mean() for g in range(3)]) for run in net], ddof=1)
    of_images = of_rest = added = 0.0
    for part in (net[:, label == LABELS] for label in range(3)):
        size = part.shape[1]
        by_image = part.mean(axis=0)
        of_images += by_image.var(ddof=1) / size / 9
        rest = part - by_image - part.mean(axis=1)[:, None] + part.mean()
        of_rest += (rest**2).sum() / ((size - 1) * (num - 1)) / (size * num) / 9
        whole = (by_image**2).sum() / abs(by_image).sum()
        added += 2 / 3 * whole**2 / (size + 2 / 3) ** 2 / 9
    assert of_images > of_rest  # otherwise it would be clipped at 0
    expected = max(0, of_runs / num - of_rest) + of_images + added
    assert found.variance.standard_error(num, len(LABELS)) ** 2 == pytest.approx(expected)


def test_the_order_of_images_does_not_matter():
    from towernet.comparison.judging.scores import balanced_interval
    from towernet.comparison.judging.statistics import judge

    right, cluster = made_up(8, seed=5, networks=3, group=2)
    order = np.random.default_rng(0).permutation(len(LABELS))
    family = judge(right, cluster, label_N=LABELS)
    other = judge(right[:, :, order], -cluster[order], label_N=5 - LABELS[order])
    for one, two in zip(family.differences, other.differences, strict=True):
        assert one.interval == pytest.approx(two.interval)
        assert one.p == two.p
    assert balanced_interval(right[0], cluster, LABELS) == pytest.approx(
        balanced_interval(right[0][:, order], cluster[order], LABELS[order])
    )


def test_what_does_not_vary_makes_the_variance_no_less_certain():
    from towernet.comparison.judging.variance import Variance

    of_images = Variance(0.0, 2.0, 3.0, 9.0, 100, runs_vary=False)
    assert of_images.degrees_of_freedom(8, 100) == pytest.approx(9 - 1)
    of_runs = Variance(2.0, 0.0, 3.0, 9.0, 100, images_vary=False)
    assert of_runs.degrees_of_freedom(8, 100) == pytest.approx(8 - 1)
    of_neither = Variance(0.0, 0.0, 3.0, 9.0, 100, runs_vary=False, images_vary=False)
    assert of_neither.degrees_of_freedom(8, 100) == pytest.approx(7 * 8)
    assert Variance(0.0, 2.0, 3.0, 9.0, 100).degrees_of_freedom(8, 100) < 8


def test_a_class_with_one_image_widens_only_its_own_share():
    from towernet.comparison.judging.scores import balanced_interval

    labels = np.repeat([0, 1, 2], [40, 40, 1])
    right = np.ones((1, 81), bool)
    right[0, [0, 1, 2, 3, 40, 41, 42, 43, 80]] = False
    low, high = balanced_interval(right, np.arange(81), labels)
    # Recalls of 0.9, 0.9 and 0; nothing is known about the third, up to 0.79.
    assert 0.5 < low < 0.57 and 0.84 < high < 0.9
    two = balanced_interval(right[:, :80], np.arange(80), labels[:80])
    assert high - low < 1 / 3 + (two[1] - two[0])


def test_equal_scores_are_a_tie_in_spite_of_rounding():
    """Sixty images weigh 2/3 each and twenty 2, so sums of thirds must not decide."""
    from towernet.comparison.judging.statistics import judge

    labels, chance = np.repeat([0, 1], [60, 20]), np.random.default_rng(0)
    for _ in range(50):
        first = np.zeros((3, 80), bool)
        second = np.zeros((3, 80), bool)
        for run in range(3):
            num = 3 * int(chance.integers(1, 20))
            first[run, chance.choice(60, num, replace=False)] = True
            second[run, chance.choice(60, num, replace=False)] = True
            for right in (first, second):
                right[run, 60 + chance.choice(20, 7, replace=False)] = True
        (found,) = judge(np.stack([first, second]), np.arange(80), label_N=labels).differences
        assert found.mean == 0 and found.chance_better == 0.5 and found.p == 1


def test_groups_with_images_of_several_classes_widen_the_intervals():
    """Eight people, each with images of every class, who are all easy or all hard."""
    from towernet.comparison.judging.scores import balanced_interval
    from towernet.comparison.judging.statistics import judge

    person = np.concatenate([np.arange(size) % 8 for size in SIZES])
    chance = np.random.default_rng(6)
    ease = 2 * chance.standard_normal((2, 1, 8))[..., person]
    right = 1 + ease + chance.standard_normal((2, 8, len(LABELS))) > 0
    (grouped,) = judge(right, person, label_N=LABELS).differences
    apart = person + 8 * LABELS  # as if a person were another one in each class
    (wrong,) = judge(right, apart, label_N=LABELS).differences
    assert np.ptp(grouped.interval) > 1.2 * np.ptp(wrong.interval)
    low, high = balanced_interval(right[0], person, LABELS)
    wrong_low, wrong_high = balanced_interval(right[0], apart, LABELS)
    assert high - low > 1.2 * (wrong_high - wrong_low)


def test_a_class_with_one_image_leaves_a_wide_interval():
    from towernet.comparison.judging.scores import balanced_interval
    from towernet.comparison.judging.statistics import judge

    labels = np.array([0] * 100 + [1])
    right = np.ones((2, 8, 101), dtype=bool)
    right[1, :, :10] = False
    (found,) = judge(right, np.arange(101), label_N=labels).differences
    assert found.mean == pytest.approx(0.05)
    assert not found.is_within(0.2)
    low, high = balanced_interval(right[0], np.arange(101), labels)
    assert low < 0.65
    assert high == 1


def test_the_weighted_sign_test_agrees_with_all_flips():
    from towernet.comparison.judging.significance import weighted_sign_p

    net = np.array([0.4, 0.4, -0.4, 2.5, 2.5, 0, 8, -2.5, 0.4])
    differing = net[net != 0]
    sums = np.array(list(product((-1, 1), repeat=len(differing)))) @ differing
    assert weighted_sign_p(net) == pytest.approx((abs(sums) >= abs(net.sum()) - 1e-9).mean())
    assert weighted_sign_p(np.zeros(9)) == 1
    many = np.tile(net, 2)[:-1]  # beyond 16 flips are drawn
    differing = many[many != 0]
    bits = (np.arange(2 ** len(differing))[:, None] >> np.arange(len(differing))) & 1
    exact = (abs((1 - 2 * bits) @ differing) >= abs(many.sum()) - 1e-9).mean()
    assert weighted_sign_p(many) == pytest.approx(exact, abs=0.012)


def test_one_run_that_is_better_at_the_rare_class_only_is_not_judged_by_the_common_one():
    from towernet.comparison.judging.statistics import judge

    labels = np.repeat([0, 1], [2000, 60])
    right = np.ones((2, 1, 2060), dtype=bool)
    right[1, 0, 2000:2040] = False  # the second misses most of the rare class
    right[0, 0, :60] = False  # and the first some more of the common one
    cluster = np.arange(2060)
    (balanced,) = judge(right, cluster, label_N=labels).differences
    (plain,) = judge(right, cluster).differences
    assert balanced.is_shown()
    assert balanced.mean > 0.3
    assert plain.mean < 0


def test_resampled_runs_add_two_images_shared_by_the_classes():
    from scipy.stats import t as student

    from towernet.comparison.judging.statistics import judge_resampled

    accuracies = np.random.default_rng(1).normal(0.8, 0.03, (2, 6))
    (found,) = judge_resampled(accuracies, len(LABELS), 608, label_N=LABELS).differences
    difference = accuracies[0] - accuracies[1]
    added = sum(2 / 3 / (size + 2 / 3) ** 2 / 9 for size in SIZES)
    error = np.sqrt((1 / 6 + len(LABELS) / 608) * (difference.var(ddof=1) + added))
    assert found.p == pytest.approx(2 * student.sf(abs(difference.mean()) / error, 5))
    assert np.ptp(found.interval) == pytest.approx(2 * student.ppf(0.975, 5) * error)
    same = judge_resampled(accuracies, 24, 96, label_N=np.arange(24) % 3)
    assert same == judge_resampled(accuracies, 24, 96)


def test_resampled_intervals_are_wider_for_small_classes():
    from towernet.comparison.judging.scores import balanced_resampled_interval, resampled_interval

    chance = np.random.default_rng(2)
    right = [chance.random(len(LABELS)) < 0.8 for _ in range(8)]
    labels = [LABELS] * 8
    low, high = balanced_resampled_interval(right, labels, 608)
    assert low < np.mean([recalls(run[None]) for run in right]) < high
    assert high - low > np.ptp(resampled_interval(right, 608))
    even = [np.arange(len(LABELS)) % 2] * 8
    assert balanced_resampled_interval(right, even, 608) == resampled_interval(right, 608)


def coverage(interval_of, num_runs=8, num=200, **scene):
    """Return how often an interval of the difference of two equal networks contains 0."""
    held = 0
    for seed in range(num):
        low, high = interval_of(*made_up(num_runs, seed=seed, **scene))
        held += low <= 0 <= high
    return held / num


def weighted(right, cluster):
    from towernet.comparison.judging.statistics import judge

    return judge(right, cluster, label_N=LABELS).differences[0].interval


def test_intervals_of_the_difference_contain_the_truth():
    """Where those around the right difference, but as wide as the accuracy's, do not."""
    from towernet.comparison.judging.statistics import judge

    def too_narrow(right, cluster):
        found = judge(right, cluster, label_N=LABELS).differences[0]
        half = np.ptp(judge(right, cluster).differences[0].interval) / 2
        return found.mean - half, found.mean + half

    assert coverage(weighted, class_luck=0.2) >= 0.91
    assert coverage(too_narrow, class_luck=0.2) < 0.85


def test_intervals_of_a_balanced_accuracy_contain_it():
    """Where those that are as wide as the accuracy's do not."""
    from towernet.comparison.judging.scores import accuracy_interval, balanced_interval

    truth, held, too_narrow = np.mean((0.92, 0.8, 0.6)), 0, 0
    for seed in range(200):
        right, cluster = made_up(8, seed=seed, networks=1)
        low, high = balanced_interval(right[0], cluster, LABELS)
        held += low <= truth <= high
        half = np.ptp(accuracy_interval(right[0], cluster)) / 2
        too_narrow += abs(np.mean(recalls(right[0])) - truth) <= half
    assert held / 200 >= 0.91
    assert too_narrow / 200 < 0.75

"""Confidence: the temperature, the calibration error and the threshold."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax


@pytest.fixture
def answers():
    """Logits of a network that is calibrated when they are divided by 3, and labels."""
    draws = np.random.default_rng(0)
    true = draws.normal(0, 1.5, (4000, 7))
    labels = np.array([draws.choice(7, p=row) for row in softmax(true, axis=1)])
    return 3 * true, labels


def test_the_true_temperature_is_found(answers):
    from towernet.comparison.judging.calibration import temperature

    assert temperature(*answers) == pytest.approx(3, rel=0.04)


def test_perfect_predictions_do_not_give_an_extreme_temperature():
    from towernet.comparison.judging.calibration import temperature

    logits = np.eye(5)[np.arange(60) % 5] * 2.0
    assert 0.2 < temperature(logits, np.arange(60) % 5) <= 1


def test_calibration_makes_the_error_small(answers):
    from towernet.comparison.judging.calibration import calibrated, calibration_error, reliability

    logits, labels = answers
    halves = (logits[:2000], labels[:2000]), (logits[2000:], labels[2000:])
    found = calibrated(*halves)
    assert found.calibration_error < 0.03 < 0.15 < found.calibration_error_before
    # Computed image by image.
    probabilities = softmax(logits, axis=1)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    gaps = 0.0
    for i in range(15):
        inside = [n for n in range(4000) if min(int(confidence[n] * 15), 14) == i]
        if inside:
            gaps += abs(sum(confidence[n] - right[n] for n in inside))
    assert calibration_error(reliability(probabilities, labels)) == pytest.approx(gaps / 4000)


def test_the_threshold_gives_the_wanted_accuracy_at_the_largest_coverage(answers):
    from towernet.comparison.judging.calibration import threshold

    logits, labels = answers
    probabilities = softmax(logits / 3, axis=1)
    sure = threshold(probabilities, labels, 0.9)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    assert right[confidence >= sure].mean() >= 0.9
    # With any lower threshold the accuracy would be too low.
    for lower in np.unique(confidence[confidence < sure]):
        assert right[confidence >= lower].mean() < 0.9
    assert threshold(probabilities, (labels + 1) % 7, 0.9) is None


def test_predictions_with_equal_confidence_are_not_separated():
    from towernet.comparison.judging.calibration import threshold

    probabilities = np.array([[0.9, 0.1]] * 10 + [[0.6, 0.4]] * 10)
    labels = np.array([0] * 10 + [0] * 5 + [1] * 5)
    assert threshold(probabilities, labels, 0.95) == 0.9
    assert threshold(probabilities, labels, 0.75) == 0.6

"""Which learning rate a network is compared with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from towernet.comparison.rates import beats_guessing, best_rate, fell_apart
from towernet.data.prepare import Dataset, Part
from towernet.names import NetworkName
from towernet.records.contract import Contract
from towernet.records.ledger import Trial
from towernet.records.run import RunSummary

RATES = (0.05 / 3, 0.05, 0.15)


def images(counts: tuple[int, ...]) -> Dataset:
    """Return this many validation images of each class, and four times as many to train."""

    def part(times: int) -> Part:
        labels = np.repeat(np.arange(len(counts)), np.multiply(counts, times))
        rows = np.arange(len(labels))
        return Part(rows, labels, rows.astype(np.uint64), tuple(map(str, rows)))

    contract = Contract(tuple(map(str, range(len(counts)))), 8, "crop", (0.5,) * 3, (0.2,) * 3)
    nothing = np.zeros((0, 8, 8, 3), dtype=np.uint8)
    parts = part(4), part(1), part(0)
    return Dataset(pd.DataFrame(), contract, *parts, lambda: nothing, lambda: nothing)


def trial(rate: float, loss: float, accuracy: float) -> Trial:
    """A trial that finished."""
    return Trial(
        network=NetworkName("resnet18"), learning_rate=rate, num_steps=5, validation_loss=loss,
        validation_accuracy=accuracy, reason=None, seconds=1.0,
    )  # fmt: skip


def trials(*figures: tuple[float, float]) -> list[Trial]:
    """Trials of the three rates with these losses and accuracies."""
    return [trial(rate, *found) for rate, found in zip(RATES, figures, strict=True)]


TEN_CLASSES = images((33,) * 10)
MOSTLY_ONE = images((128, 40, 40, 40, 39))  # 44.6 % are of the first class
GUESSES = (2.3010, 0.112), (2.3123, 0.103), (2.6719, 0.136)  # the lowest loss is the first's


@pytest.mark.parametrize(
    ("tried", "dataset", "taken"),
    [
        # Real trials: of a ResNet-18 after a quarter of an epoch, and of TowerNets after one.
        (trials(*GUESSES), TEN_CLASSES, 0.05),
        (trials((2.0355, 0.446), (3.1463, 0.453), (11.084, 0.453)), MOSTLY_ONE, 0.05),
        (trials((1.9296, 0.379), (1.3859, 0.555), (1.4454, 0.521)), TEN_CLASSES, 0.05),
        (trials((2.0715, 0.336), (2.2993, 0.100), (2.3049, 0.100)), TEN_CLASSES, 0.05 / 3),
        (trials((2.3139, 0.142), (2.1819, 0.197), (1.8099, 0.342)), TEN_CLASSES, 0.15),
        # Very high losses, as of a ResNet-50 after nine steps: the rate is too high.
        (trials((3.632, 0.446), (8.693, 0.446), (14252.8, 0.052)), MOSTLY_ONE, 0.05 / 3),
        (trials((8.874, 0.1), (28.24, 0.1), (207951.5, 0.1)), TEN_CLASSES, 0.05 / 3),
        # The low loss of a trial that learnt nothing is also chance, and decides nothing.
        (trials((2.2938, 0.100), (2.4, 0.097), (2.31, 0.336)), TEN_CLASSES, 0.15),
        # If the recipe's own rate is not among them, the nearest, and the lower of two.
        (trials((2.4, 0.112), (2.3, 0.103), (2.2, 0.1))[::2], TEN_CLASSES, 0.05 / 3),
        (trials(*GUESSES)[2:], TEN_CLASSES, 0.15),
    ],
)
def test_the_best_rate_among_trials_that_beat_guessing_is_chosen(tried, dataset, taken):
    assert best_rate(tried, 0.05, dataset) == pytest.approx(taken)


def seem_better(is_better: Callable[[Trial, Dataset], bool]) -> float:
    """Return the share of guessing trials that this function calls better than guessing."""
    right = np.random.default_rng(3).binomial(330, 0.1, 2000)
    seem = [is_better(trial(0.05, 2.3, number / 330), TEN_CLASSES) for number in right]
    return float(np.mean(seem))


def test_one_in_a_hundred_guessing_trials_seems_better():
    assert 0.001 < seem_better(beats_guessing) < 0.015
    # Without the check, by the accuracy alone, it would be every second trial.
    assert seem_better(lambda trial, dataset: trial.deciding.accuracy > 0.1) > 0.4


@pytest.mark.parametrize(("accuracy", "fell"), [(0.10, True), (0.28, True), (0.30, False)])
def test_a_run_fails_below_the_interval_of_its_trial(accuracy, fell):
    of_trial = trial(0.05, 2.3, 113 / 330)  # 34.2 %; Wilson's interval begins at 29.3 %
    run = RunSummary(
        num_steps=40, num_epochs=3.0, best_epoch=2.0, validation_accuracy=0.4, validation_loss=1.0,
        final_validation_loss=1.0, final_validation_accuracy=accuracy,
    )  # fmt: skip
    assert fell_apart(run, of_trial, TEN_CLASSES) == fell

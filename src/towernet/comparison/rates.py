"""Which learning rate a network is compared under: by its short trials, and by its first whole run.

Judged on validation images, as all that is chosen is.
"""

from __future__ import annotations

import math
from typing import Any

import scipy.special

from towernet.comparison.judging.scores import majority_accuracy, wilson
from towernet.data.prepare import Dataset

MAX_LOSS = 2.0  # times ln K, the loss of whoever holds all K classes for as likely
MAX_LUCK = 0.01  # per trial: of a hundred that guess, one may seem to be better


def best_rate(trials: list[dict[str, Any]], own_rate: float, dataset: Dataset) -> float:
    """Return the rate of lowest validation loss among the trials that beat guessing.

    Where none did, a low loss is no promise: then it is the rate nearest to the recipe's own, the
    lower of two that are as near. But not one whose trial was wrong with confidence (`MAX_LOSS`),
    a sign of too high a rate; where all were, the lowest loss.

    Args:
        trials: Those that came to an end, at least one, lowest rate first.
        own_rate: The recipe's.
        dataset: The images they were judged on.
    """
    better = [trial for trial in trials if beats_guessing(trial, dataset)]
    most = MAX_LOSS * math.log(len(dataset.contract.class_names))
    calm = [trial for trial in trials if trial["validation_loss"] <= most]
    if better or not calm:
        best = min(better or trials, key=lambda trial: trial["validation_loss"])
    else:
        best = min(
            calm, key=lambda trial: round(abs(math.log(trial["learning_rate"] / own_rate)), 6)
        )
    return float(best["learning_rate"])


def beats_guessing(trial: dict[str, Any], dataset: Dataset) -> bool:
    """Whether a trial was right more often than always naming the commonest class would be by luck
    (exact binomial test, images taken as independent).
    """
    num = len(dataset.validation)
    share = majority_accuracy(dataset.train.labels, dataset.validation.labels)
    # bdtrc is the chance of more than so many.
    luck = scipy.special.bdtrc(round(trial["validation_accuracy"] * num) - 1, num, share)
    return bool(luck < MAX_LUCK)


def fell_apart(run: dict[str, Any], trial: dict[str, Any], dataset: Dataset) -> bool:
    """Whether a whole run, many times as long as its trial, ended less accurate by more than
    chance: below the 95 % interval of the trial's accuracy.
    """
    num = len(dataset.validation)
    low, _ = wilson(round(trial["validation_accuracy"] * num) / num, num)
    return bool(run["final_validation_accuracy"] < low)

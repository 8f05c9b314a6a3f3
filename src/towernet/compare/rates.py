"""Which learning rate a network is compared under: by its short trials, and by its first whole run.

Judged on validation images, as all that is chosen is.
"""

from __future__ import annotations

import math
from typing import Any

import scipy.special

from towernet.compare.scores import majority_accuracy, wilson
from towernet.data.prepare import Dataset

GUESSED = 0.01  # of a hundred trials that guess, one may seem to have learnt


def best_rate(trials: list[dict[str, Any]], own_rate: float, dataset: Dataset) -> float:
    """Return the rate of lowest validation loss among the trials that learnt anything.

    Where none did, their losses are chance, and choosing by them would compare rates drawn by lot:
    then it is the one nearest to the recipe's own, the lower of two that are as near.

    Args:
        trials: Those that came to an end, at least one, lowest rate first.
        own_rate: The recipe's.
        dataset: The images they were judged on.
    """
    telling = [trial for trial in trials if trial_learnt(trial, dataset)]
    if telling:
        best = min(telling, key=lambda trial: trial["validation_loss"])
    else:
        best = min(
            trials, key=lambda trial: round(abs(math.log(trial["learning_rate"] / own_rate)), 6)
        )
    return float(best["learning_rate"])


def trial_learnt(trial: dict[str, Any], dataset: Dataset) -> bool:
    """Whether a trial was right so often as always naming the commonest class hardly ever would be
    (exact binomial test).
    """
    num = len(dataset.validation)
    guessed = majority_accuracy(dataset.train.labels, dataset.validation.labels)
    # bdtrc is the chance of more than so many.
    luck = scipy.special.bdtrc(round(trial["validation_accuracy"] * num) - 1, num, guessed)
    return bool(luck < GUESSED)


def fell_apart(run: dict[str, Any], trial: dict[str, Any], dataset: Dataset) -> bool:
    """Whether a whole run ended less accurate than the trial of its learning rate, many times as
    short, and not by chance: below the 95 % interval of the trial's accuracy.
    """
    num = len(dataset.validation)
    low, _ = wilson(round(trial["validation_accuracy"] * num) / num, num)
    return bool(run["final_validation_accuracy"] < low)

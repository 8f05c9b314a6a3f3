"""The choice of a network's learning rate, by short trials and by its first whole run.

It uses validation images only, like every other choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import scipy.special

from towernet.comparison.judging.networks import guessing
from towernet.comparison.judging.scores import wilson
from towernet.comparison.outcome import Failure, Finished, Outcome
from towernet.data.balance import effective_number
from towernet.data.prepare import Dataset
from towernet.names import NetworkName
from towernet.records.ledger import Ledger, RateChosen, RateFellApart, RateLasted, Trial
from towernet.records.run import RunSummary

MAX_LOSS = 2.0  # times ln K, the loss when all K classes are equally likely
MAX_LUCK = 0.01  # per trial: one of a hundred guessing trials seems better than guessing


@dataclass(frozen=True)
class RateSearch:
    """The search for a network's learning rate; every step is recorded in the ledger.

    Args:
        name: The network.
        rates: The rates to try, lowest first.
        own_rate: The recipe's rate.
        dataset: The images of the first repetition.
        ledger: The events so far.
        say: Prints messages about the progress.
        trial: Returns the trial of a rate; trains the network for a short time if there is none.
        run: Trains the network completely, with the outcome's rate.
    """

    name: NetworkName
    rates: tuple[float, ...]
    own_rate: float
    dataset: Dataset
    ledger: Ledger
    say: Callable[[str], None]
    trial: Callable[[float], Trial]
    run: Callable[[Outcome], Finished | Failure]

    def choose(self) -> Outcome:
        """Try each learning rate in a short run, and choose the best.

        Rates with which a first run has already failed are replaced.
        """
        trials = [self.trial(rate) for rate in self.rates]
        outcome = Outcome(self.name, self.rates[0], trials)
        if not outcome.finished_trials:
            return replace(outcome, failure=outcome.trials[-1].reason)
        chosen = self.ledger.find(RateChosen, network=self.name)
        if chosen is None:
            finished = outcome.finished_trials
            chosen = RateChosen(
                network=self.name,
                learning_rate=best_rate(finished, self.own_rate, self.dataset),
                by_trials=any(beats_guessing(trial, self.dataset) for trial in finished),
            )
            self.ledger.add(chosen)
        outcome.learning_rate, outcome.rate_by_trials = chosen.learning_rate, chosen.by_trials
        for event in self.ledger.find_all(RateFellApart, network=self.name):
            _replace_rate(outcome, event)
        return outcome

    def first_run(self, outcome: Outcome) -> Finished | Failure:
        """Train a network once; if that fails because of the rate, retry with the next best rate.

        A rate that does well in a short trial can be too high for a whole run, which spends more
        steps near the peak rate. The comparison would then be of rates instead of networks.
        """
        while True:
            ended = self.run(outcome)
            event = self._rate_failure(outcome, ended)
            if event is None:
                return ended
            # Recorded before the rate is replaced, so that after a kill the next start does it.
            self.ledger.add(event)
            _replace_rate(outcome, event)
            self.say(
                f"{self.name} {'diverged' if event.diverged else 'ended worse than its trial'} with"
                f" learning rate {event.learning_rate:.3g}; retrying with"
                f" {outcome.learning_rate:.3g}"
            )

    def _rate_failure(self, outcome: Outcome, ended: Finished | Failure) -> RateFellApart | None:
        """Return the event to record if a first run failed because of its rate and another is left.

        None if the run is kept.
        """
        rate = outcome.learning_rate
        trial = next((t for t in outcome.trials if t.learning_rate == rate), None)
        if trial is None or (isinstance(ended, Failure) and not ended.diverged):
            return None
        if isinstance(ended, Finished):
            if self.ledger.find(RateLasted, network=self.name, learning_rate=rate) is not None:
                return None
            if not fell_apart(ended.summary, trial, self.dataset):
                self.ledger.add(RateLasted(network=self.name, learning_rate=rate))
                return None
        accuracy = ended.summary.final_validation_accuracy if isinstance(ended, Finished) else None
        event = RateFellApart(
            network=self.name,
            learning_rate=rate,
            diverged=isinstance(ended, Failure),
            validation_accuracy=accuracy,
            instead=rate,
            seconds=ended.seconds,
        )
        left = replace(outcome, fell_apart=[*outcome.fell_apart, event]).trials_left
        if not left:
            return None
        return event.model_copy(update={"instead": best_rate(left, self.own_rate, self.dataset)})


def _replace_rate(outcome: Outcome, event: RateFellApart) -> None:
    """Switch to the rate that the event gives instead."""
    outcome.folders.clear()
    outcome.fell_apart.append(event)
    outcome.learning_rate = event.instead


def best_rate(trials: Sequence[Trial], own_rate: float, dataset: Dataset) -> float:
    """Return the rate with the lowest validation loss among the trials that beat guessing.

    If no trial beats guessing, a low loss predicts nothing. The result is then the rate nearest to
    the recipe's rate, the lower one of two that are equally near. Trials with a loss above
    `MAX_LOSS` are excluded, since such a loss is a sign of too high a rate; if all are above it,
    the lowest loss decides.

    Args:
        trials: The trials that finished, at least one, lowest rate first.
        own_rate: The recipe's rate.
        dataset: The images they were evaluated on.
    """
    better = [trial for trial in trials if beats_guessing(trial, dataset)]
    max_loss = MAX_LOSS * math.log(len(dataset.contract.class_names))
    stable = [trial for trial in trials if trial.deciding.loss <= max_loss]
    if better or not stable:
        return min(better or trials, key=lambda trial: trial.deciding.loss).learning_rate
    return min(
        stable, key=lambda trial: round(abs(math.log(trial.learning_rate / own_rate)), 6)
    ).learning_rate


def beats_guessing(trial: Trial, dataset: Dataset) -> bool:
    """Whether a trial beats always predicting the most frequent class, by more than chance.

    By an exact binomial test that treats images as independent.
    """
    is_balanced = trial.validation_balanced is not None
    num = _num_images(dataset, is_balanced=is_balanced)
    share = guessing(dataset, is_balanced=is_balanced)
    # bdtrc(k, n, p) is the probability of more than k.
    luck = scipy.special.bdtrc(round(trial.deciding.accuracy * num) - 1, num, share)
    return bool(luck < MAX_LUCK)


def fell_apart(run: RunSummary, trial: Trial, dataset: Dataset) -> bool:
    """Whether a whole run, although much longer, ended clearly less accurate than its trial.

    Clearly means below the 95 % interval of the trial's accuracy.
    """
    balanced = run.final_validation_balanced
    num = _num_images(dataset, is_balanced=balanced is not None)
    low, _ = wilson(round(trial.deciding.accuracy * num) / num, num)
    accuracy = run.final_validation_accuracy if balanced is None else balanced.accuracy
    return bool(accuracy < low)


def _num_images(dataset: Dataset, *, is_balanced: bool) -> int:
    """Return how many validation images there are; of a balanced accuracy, how many it is worth."""
    labels = dataset.validation.labels
    return max(1, int(effective_number(labels))) if is_balanced else len(labels)

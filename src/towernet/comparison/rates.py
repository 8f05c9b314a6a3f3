"""Which learning rate a network is compared under: by its short trials, and by its first whole run.

Judged on validation images, as all that is chosen is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import scipy.special

from towernet.comparison.judging.scores import majority_accuracy, wilson
from towernet.comparison.outcome import Failure, Finished, Outcome
from towernet.data.prepare import Dataset
from towernet.names import NetworkName
from towernet.records.ledger import Ledger, RateChosen, RateFellApart, RateLasted, Trial
from towernet.records.run import RunSummary

MAX_LOSS = 2.0  # times ln K, the loss of whoever holds all K classes for as likely
MAX_LUCK = 0.01  # per trial: of a hundred that guess, one may seem to be better


@dataclass(frozen=True)
class RateSearch:
    """The search for a network's learning rate; every step of it is in the ledger.

    Args:
        name: The network.
        rates: Those that are tried, lowest first.
        own_rate: The recipe's.
        dataset: The images of the first repetition.
        ledger: What happened so far.
        say: Told how it goes.
        trial: Trains it for a short time with a rate.
        run: Trains it whole, with the outcome's rate.
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
        """Try each learning rate on a short run of its own, unless that was done; take the best, or
        the next best where a first run has shown what the best is worth.
        """
        trials = []
        for rate in self.rates:
            trial = self.ledger.find(Trial, network=self.name, learning_rate=rate)
            if trial is None:
                self.say(f"{self.name}, trial of learning rate {rate:.3g}")
                trial = self.trial(rate)
                self.ledger.add(trial)
            trials.append(trial)
        outcome = Outcome(self.name, self.rates[0], trials)
        if not outcome.finished_trials:
            return replace(outcome, failure=trials[-1].reason)
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
            _leave_rate(outcome, event)
        return outcome

    def first_run(self, outcome: Outcome) -> Finished | Failure:
        """Train a network once; where that falls apart, again with the rate that did next best.

        A short trial may like a rate that a whole run, which stays longer near its height, does not
        bear: then it would be the rate that is compared, and not the network.
        """
        while True:
            ended = self.run(outcome)
            event = self._fallen(outcome, ended)
            if event is None:
                return ended
            # Written down before it is acted on: killed in between, the next start acts on it.
            self.ledger.add(event)
            _leave_rate(outcome, event)
            self.say(
                f"{self.name} {'diverged' if event.diverged else 'fell apart'} under learning"
                f" rate {event.learning_rate:.3g}: it goes on with {outcome.learning_rate:.3g}"
            )

    def _fallen(self, outcome: Outcome, ended: Finished | Failure) -> RateFellApart | None:
        """Return what is written down of a first run that fell apart while another rate is left to
        go on with; None where the run stands.
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


def _leave_rate(outcome: Outcome, event: RateFellApart) -> None:
    """Go on with the next rate."""
    outcome.folders.clear()
    outcome.fell_apart.append(event)
    outcome.learning_rate = event.instead


def best_rate(trials: Sequence[Trial], own_rate: float, dataset: Dataset) -> float:
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
    calm = [trial for trial in trials if trial.loss <= most]
    if better or not calm:
        return min(better or trials, key=lambda trial: trial.loss).learning_rate
    return min(
        calm, key=lambda trial: round(abs(math.log(trial.learning_rate / own_rate)), 6)
    ).learning_rate


def beats_guessing(trial: Trial, dataset: Dataset) -> bool:
    """Whether a trial was right more often than always naming the commonest class would be by luck
    (exact binomial test, images taken as independent).
    """
    num = len(dataset.validation)
    share = majority_accuracy(dataset.train.labels, dataset.validation.labels)
    # bdtrc is the chance of more than so many.
    luck = scipy.special.bdtrc(round(trial.accuracy * num) - 1, num, share)
    return bool(luck < MAX_LUCK)


def fell_apart(run: RunSummary, trial: Trial, dataset: Dataset) -> bool:
    """Whether a whole run, many times as long as its trial, ended less accurate by more than
    chance: below the 95 % interval of the trial's accuracy.
    """
    num = len(dataset.validation)
    low, _ = wilson(round(trial.accuracy * num) / num, num)
    return bool(run.final_validation_accuracy < low)

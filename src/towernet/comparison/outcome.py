"""The outcome of training one network of a comparison."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from towernet.names import NetworkName
from towernet.records.ledger import RateFellApart, Trial
from towernet.records.run import RunSummary


@dataclass(frozen=True)
class Failure:
    """Why a network could not be trained, and after how long.

    If it `diverged`, it is worth retrying with a lower learning rate.
    """

    reason: str
    diverged: bool
    seconds: float


@dataclass(frozen=True)
class Finished:
    """The summary of a run that finished, and how long it took."""

    summary: RunSummary
    seconds: float


@dataclass
class Outcome:
    """The outcome for one network: its chosen learning rate, its runs, or why there are none.

    `rate_by_trials`: whether the trials determined the rate, None without trials. `fell_apart`
    lists the rates with which the first run failed, and how it ended.
    """

    name: NetworkName
    learning_rate: float
    trials: list[Trial] = field(default_factory=list)
    rate_by_trials: bool | None = None
    fell_apart: list[RateFellApart] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    failure: str | None = None

    @property
    def finished_trials(self) -> list[Trial]:
        """The trials that finished, lowest rate first."""
        return [trial for trial in self.trials if trial.validation_loss is not None]

    @property
    def trials_left(self) -> list[Trial]:
        """The trials whose rates are worth trying in a whole run.

        These are neither rates with which a run failed, nor higher than one with which it diverged.
        """
        failed = {event.learning_rate for event in self.fell_apart}
        below = min((e.learning_rate for e in self.fell_apart if e.diverged), default=math.inf)
        return [
            trial
            for trial in self.finished_trials
            if trial.learning_rate not in failed and trial.learning_rate < below
        ]

"""What became of one network of a comparison while it was trained."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from towernet.names import NetworkName
from towernet.records.ledger import RateFellApart, Trial
from towernet.records.run import RunSummary


@dataclass(frozen=True)
class Failure:
    """Why a network could not be trained, and after how long; one that `diverged` may bear another
    learning rate.
    """

    reason: str
    diverged: bool
    seconds: float


@dataclass(frozen=True)
class Finished:
    """How a run ended well, and after how long."""

    summary: RunSummary
    seconds: float


@dataclass
class Outcome:
    """What became of one network: its chosen learning rate, its runs, or why there are none.

    `rate_by_trials`: whether its trials chose it, None without trials. `fell_apart` holds the rates
    under which its first run did, with how it ended.
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
        """The trials that came to an end, lowest rate first."""
        return [trial for trial in self.trials if trial.validation_loss is not None]

    @property
    def trials_left(self) -> list[Trial]:
        """The trials whose rates a whole run may bear: none that one did not, and none as high as
        one under which it diverged.
        """
        fallen = {event.learning_rate for event in self.fell_apart}
        below = min((e.learning_rate for e in self.fell_apart if e.diverged), default=math.inf)
        return [
            trial
            for trial in self.finished_trials
            if trial.learning_rate not in fallen and trial.learning_rate < below
        ]

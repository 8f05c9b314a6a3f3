"""The state of a run: what resuming needs besides its plan and its tensors."""

from __future__ import annotations

import math

from pydantic import Field

from towernet.records.base import Record
from towernet.records.run import EpochMetrics, EpochTiming
from towernet.records.scores import deciding


class State(Record, frozen=False):
    """How far a run is; with the learner's tensors, all that resuming needs. Changes every step.

    Args:
        run: Hash of the run's config and plan: a state is valid for that run only.
        step: Steps taken.
        loss_sum: Of the epoch so far, like the next two.
        seconds: Of the epoch so far, before the run was stopped; measured.
        best_accuracy: The largest so far; balanced if the run's measure is.
        best_loss: That of the same epoch; None at first, since JSON has no infinity.
        best: The file of the best weights and its hash, once a state has written any.
        metrics: The lines of `metrics.jsonl`.
        timings: The lines of `timings.jsonl`.
    """

    run: str
    step: int = 0
    loss_sum: float = 0.0
    num_correct: int = 0
    num_seen: int = 0
    seconds: float = 0.0
    best_epoch: float | None = None
    best_accuracy: float = -1.0
    best_loss: float | None = None
    best: dict[str, str] = Field(default_factory=dict)
    metrics: list[EpochMetrics] = Field(default_factory=list)
    timings: list[EpochTiming] = Field(default_factory=list)

    @property
    def train_loss(self) -> float:
        """The mean training loss of the epoch so far."""
        return self.loss_sum / self.num_seen

    @property
    def train_accuracy(self) -> float:
        """The share of the epoch's augmented images so far that were classified correctly."""
        return self.num_correct / self.num_seen

    def count(self, loss: float, num_correct: int, num_images: int) -> None:
        """Add a step's mean loss and its correct predictions to the epoch's."""
        self.loss_sum += loss * num_images
        self.num_correct += num_correct
        self.num_seen += num_images

    def is_best(self, metrics: EpochMetrics) -> bool:
        """Whether this epoch has the best accuracy so far, or the same with a smaller loss."""
        best_loss = math.inf if self.best_loss is None else self.best_loss
        found = deciding(metrics)
        return (found.accuracy, -found.loss) > (self.best_accuracy, -best_loss)

    def end_epoch(self, metrics: EpochMetrics, timing: EpochTiming) -> None:
        """Add an epoch's lines, and reset the counts for the next."""
        self.metrics.append(metrics)
        self.timings.append(timing)
        self.loss_sum, self.num_correct, self.num_seen, self.seconds = 0.0, 0, 0, 0.0

"""The events of a comparison or a run, one line of `ledger.jsonl` each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field, StrictBool, StrictFloat, StrictInt, TypeAdapter, ValidationError

from towernet import files
from towernet.names import NetworkName
from towernet.records.base import Record, Text, damaged
from towernet.records.scores import Validation


class Trial(Record):
    """A short run with one learning rate ended."""

    event: Literal["trial"] = "trial"
    network: NetworkName
    learning_rate: StrictFloat
    num_steps: StrictInt
    validation_loss: StrictFloat | None
    """Of the last evaluation, not the best: a rate that falls apart late is a bad rate."""
    validation_accuracy: StrictFloat | None
    reason: Text | None
    """Why it failed."""
    seconds: StrictFloat
    step_seconds: StrictFloat | None = Field(None, exclude_if=lambda value: value is None)
    """Measured, of one training step; None if it failed, and in trials made before."""
    image_seconds: StrictFloat | None = Field(None, exclude_if=lambda value: value is None)
    """Measured, of evaluating one image."""
    validation_balanced: Validation | None = Field(None, exclude_if=lambda value: value is None)
    """Means over the classes, if the measure is balanced accuracy."""

    @property
    def deciding(self) -> Validation:
        """The figures of a completed trial that choose, as `records.scores.deciding` does."""
        assert self.validation_loss is not None, "it failed"
        assert self.validation_accuracy is not None, "it failed"
        return self.validation_balanced or Validation(
            accuracy=self.validation_accuracy, loss=self.validation_loss
        )


class FeaturesReady(Record):
    """The features of all images but those of the test split were ready, computed or kept."""

    event: Literal["features ready"] = "features ready"
    network: Text
    """With the weights that were given."""
    num_images: StrictInt
    seconds: StrictFloat
    """Measured; short where features were kept from before."""


class CheckedSteps(Record):
    """A network's estimated and measured seconds per step, and the steps that follow."""

    network: NetworkName
    step_seconds: StrictFloat
    """Of one training step; the steps were computed from it and from the next."""
    image_seconds: StrictFloat
    """Of evaluating one image."""
    estimated_seconds: StrictFloat | None
    """Of one step with its share of the evaluations; None if the trials did not check it."""
    trial_seconds: StrictFloat | None
    """The same in the trials."""
    planned_steps: StrictInt
    """Of one run, by the estimate."""
    steps: StrictInt
    """Of one run, from now on."""
    mixes: StrictBool | None = Field(None, exclude_if=lambda value: value is None)
    """Whether a run of these steps mixes images; None if the steps are those planned, and in
    ledgers made before: as was planned."""


class StepsFixed(Record):
    """After the trials, the steps of a comparison by minutes were confirmed or corrected."""

    event: Literal["steps fixed"] = "steps fixed"
    corrected: StrictBool
    """Whether an estimate was off, so that all steps were computed from the trials."""
    networks: tuple[CheckedSteps, ...]


class RateChosen(Record):
    """The learning rate a network started with."""

    event: Literal["rate chosen"] = "rate chosen"
    network: NetworkName
    learning_rate: StrictFloat
    by_trials: StrictBool
    """Whether a trial beat guessing, so that the trials chose it."""


class RateLasted(Record):
    """A network's first run ended as well as the trial of its learning rate."""

    event: Literal["rate lasted"] = "rate lasted"
    network: NetworkName
    learning_rate: StrictFloat


class RateFellApart(Record):
    """A network's first run diverged, or ended worse than the trial of its learning rate."""

    event: Literal["rate fell apart"] = "rate fell apart"
    network: NetworkName
    learning_rate: StrictFloat
    diverged: StrictBool
    validation_accuracy: StrictFloat | None
    """At the end of the run; None if it diverged."""
    instead: StrictFloat
    """The learning rate that is tried next."""
    seconds: StrictFloat


class _Failed(Record):
    network: NetworkName
    repetition: StrictInt
    learning_rate: StrictFloat
    reason: Text
    diverged: StrictBool
    seconds: StrictFloat


class RunFailed(_Failed):
    """A network could not be trained."""

    event: Literal["run failed"] = "run failed"


class RunOnFewerFailed(_Failed):
    """The winner could not be trained on a share of the images."""

    event: Literal["run on fewer images failed"] = "run on fewer images failed"
    train_share: StrictFloat


class RunOnShotsFailed(_Failed):
    """A network could not be trained on so many images of each class."""

    event: Literal["run on few images of each class failed"] = (
        "run on few images of each class failed"
    )
    shots: StrictInt


class FinalSplitOpened(Record):
    """The final split was evaluated, once."""

    event: Literal["final split opened"] = "final split opened"
    split: str
    num_images: StrictInt


class ChangeAccepted(Record):
    """Something had changed when the comparison was continued, and was accepted."""

    event: Literal["change accepted"] = "change accepted"
    words: Text


class LaterLook(Record):
    """Test images were evaluated again after the end."""

    event: Literal["test split looked at again"] = "test split looked at again"
    run: Text
    """The folder of the evaluated run, relative to the comparison's."""
    num_images: StrictInt
    date: Text


Event = (
    FeaturesReady
    | RunOnShotsFailed
    | Trial
    | StepsFixed
    | RateChosen
    | RateLasted
    | RateFellApart
    | RunFailed
    | RunOnFewerFailed
    | FinalSplitOpened
    | ChangeAccepted
    | LaterLook
)
_E = TypeVar("_E", bound=Record)
_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


class Ledger:
    """What happened, one line per event.

    Args:
        path: `ledger.jsonl`; missing as long as nothing happened.

    Raises:
        DataError: it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.events: list[Event] = [
                _EVENT.validate_python(line) for line in files.read_jsonl(path)
            ]
        except ValidationError as error:
            raise damaged(path, error) from error

    def find(self, kind: type[_E], **fields: object) -> _E | None:
        """Return the event with these fields, None if it has not happened."""
        return next(iter(self.find_all(kind, **fields)), None)

    def find_all(self, kind: type[_E], **fields: object) -> list[_E]:
        """Return the events with these fields, in the order in which they happened."""
        return [
            event
            for event in self.events
            if isinstance(event, kind)
            and all(getattr(event, name) == value for name, value in fields.items())
        ]

    def count(self, kind: type[Record]) -> int:
        """Return how often it happened."""
        return len(self.find_all(kind))

    def add(self, event: Event) -> None:
        """Write an event."""
        self.events.append(event)
        files.write_jsonl(self.path, (event.model_dump() for event in self.events))

"""What a run says of pictures: what `towernet predict --json` prints."""

from __future__ import annotations

from pydantic import StrictBool, StrictFloat

from towernet.records.base import Record, Text


class ClassProbability(Record):
    """How probable a class is, to six digits."""

    class_name: Text
    probability: StrictFloat


class Prediction(Record):
    """What is said of one picture."""

    path: Text
    predictions: tuple[ClassProbability, ...]
    """As many as were asked for, the most probable first."""
    sure: StrictBool | None
    """Whether the first is to be believed; None where nobody knows."""


class NoPrediction(Record):
    """Why nothing is said of one."""

    path: Text
    error: Text

"""Predictions of a run, as printed by `towernet predict --json`."""

from __future__ import annotations

from pydantic import StrictBool, StrictFloat

from towernet.records.base import Record, Text


class ClassProbability(Record):
    """How probable a class is, to six digits."""

    class_name: Text
    probability: StrictFloat


class Prediction(Record):
    """The predictions for one image."""

    path: Text
    predictions: tuple[ClassProbability, ...]
    """As many as requested, the most probable first."""
    sure: StrictBool | None
    """Whether the first is reliable; None if not calibrated."""


class NoPrediction(Record):
    """Why there is no prediction for an image."""

    path: Text
    error: Text

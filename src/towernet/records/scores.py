"""Scores of predictions: of one run, of one class, and of their confidence.

Rates are fractions in [0, 1]; intervals are 95 %.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StrictFloat, StrictInt

from towernet.records.base import Fraction, Interval, Record, Text


class Band(Record):
    """Predictions of about the same confidence."""

    confidence: StrictFloat
    """Their mean."""
    accuracy: StrictFloat
    num_images: StrictInt


class Calibration(Record):
    """How reliable a run's confidence is: fitted on validation, measured on final images."""

    temperature: StrictFloat
    """What logits are divided by."""
    calibration_error_before: StrictFloat
    """Expected calibration error of the original logits."""
    calibration_error: StrictFloat
    """The same for logits divided by the temperature."""
    bands: tuple[Band, ...]
    wanted_accuracy: StrictFloat
    """The share of sure predictions that should be correct."""
    threshold: StrictFloat | None
    """The lowest confidence that counts as sure; None if no confidence is enough."""
    coverage: StrictFloat
    """Share of the predictions that are sure."""
    answered_accuracy: StrictFloat | None
    """The share of those that are correct; None if there are none."""


class KeptCalibration(Record):
    """The part of a run's calibration in `calibration.json`, for `towernet predict`."""

    temperature: Annotated[StrictFloat, Field(gt=0)]
    threshold: Fraction | None
    wanted_accuracy: Fraction


class ClassScores(Record):
    """How good the predictions of one class are, over all runs."""

    class_name: Text
    num_images: StrictInt
    precision: StrictFloat
    precision_interval: Interval | None
    recall: StrictFloat
    recall_interval: Interval | None
    f1: StrictFloat
    f1_interval: Interval | None


class RunScores(Record):
    """One run of a network, judged on the final split."""

    folder: Text
    """Relative to the comparison's."""
    accuracy: StrictFloat
    macro_f1: StrictFloat
    validation_accuracy: StrictFloat
    validation_loss: StrictFloat
    best_epoch: StrictFloat | None
    temperature: StrictFloat | None
    calibration_error: StrictFloat | None


class TrialScores(Record):
    """A short run with one learning rate, judged on validation images."""

    learning_rate: StrictFloat
    validation_loss: StrictFloat | None
    """None if it failed."""
    validation_accuracy: StrictFloat | None

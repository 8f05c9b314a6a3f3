"""How good answers are: of one run, of one class, and how sure they may be.

Rates are fractions in [0, 1]; intervals are 95 %.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StrictFloat, StrictInt

from towernet.records.base import Fraction, Interval, Record, Text


class Band(Record):
    """Answers that are about as sure as each other."""

    confidence: StrictFloat
    """Their mean."""
    accuracy: StrictFloat
    num_images: StrictInt


class Calibration(Record):
    """What a run's confidence is worth: fitted on validation images, measured on the final ones."""

    temperature: StrictFloat
    """What logits are divided by."""
    calibration_error_before: StrictFloat
    """Expected calibration error of the logits as they come."""
    calibration_error: StrictFloat
    """The same of those divided by the temperature."""
    bands: tuple[Band, ...]
    wanted_accuracy: StrictFloat
    """How many of the answers that count as sure should be right."""
    threshold: StrictFloat | None
    """The least confidence that counts as sure; None where no confidence is enough."""
    coverage: StrictFloat
    """Share of the answers that are sure."""
    answered_accuracy: StrictFloat | None
    """How many of those are right; None where there are none."""


class KeptCalibration(Record):
    """What `calibration.json` keeps of a run's calibration, for `towernet predict`."""

    temperature: Annotated[StrictFloat, Field(gt=0)]
    threshold: Fraction | None
    wanted_accuracy: Fraction


class ClassScores(Record):
    """How good the answers about one class are, over all runs."""

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
    """None where it failed."""
    validation_accuracy: StrictFloat | None

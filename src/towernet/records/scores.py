"""Scores of predictions: of one run, of one class, and of their confidence.

Rates are fractions in [0, 1]; intervals are 95 %.
"""

from __future__ import annotations

from typing import Annotated, Literal, Protocol, runtime_checkable

from pydantic import Field, StrictFloat, StrictInt

from towernet.config import Measure
from towernet.records.base import Fraction, Interval, Record, Text


class Validation(Record):
    """Figures of a network on validation images."""

    accuracy: StrictFloat
    loss: StrictFloat


@runtime_checkable
class OnValidation(Protocol):
    """A record with figures on validation images, which choose an epoch, a run or a network."""

    @property
    def validation_accuracy(self) -> float:
        """Of all images."""

    @property
    def validation_loss(self) -> float:
        """Of all images."""

    @property
    def validation_balanced(self) -> Validation | None:
        """The means over the classes, if these choose."""


def deciding(found: OnValidation) -> Validation:
    """Return the figures that choose: those in which the measure counts images or classes."""
    return found.validation_balanced or Validation(
        accuracy=found.validation_accuracy, loss=found.validation_loss
    )


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


class LastLayer(Record):
    """How the last layer of a network with pre-trained weights was fitted on features."""

    strength: StrictFloat
    """Of the regularisation: strength / 2 times the sum of the squared weights."""
    chosen_on: Literal["validation", "folds", "nothing"]
    """Which images chose it: the validation images; the training images, by cross-validation; or
    none, since no class with training images has validation images."""
    without_images: tuple[Text, ...] = Field((), exclude_if=lambda value: not value)
    """Classes without training images, which it never predicts."""


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
    balanced_accuracy: StrictFloat | None = Field(None, exclude_if=lambda value: value is None)
    """The mean over the classes; missing in results made before it was shown."""
    validation_balanced: Validation | None = Field(None, exclude_if=lambda value: value is None)
    """Means over the classes, if the measure is balanced accuracy."""
    last_layer: LastLayer | None = Field(None, exclude_if=lambda value: value is None)
    """As fitted on features, before fine-tuning; None if it started from scratch."""

    def score(self, measure: Measure) -> float | None:
        """Return the accuracy or the balanced accuracy."""
        return self.accuracy if measure == "accuracy" else self.balanced_accuracy


class TrialScores(Record):
    """A short run with one learning rate, judged on validation images."""

    learning_rate: StrictFloat
    validation_loss: StrictFloat | None
    """None if it failed."""
    validation_accuracy: StrictFloat | None
    validation_balanced: Validation | None = Field(None, exclude_if=lambda value: value is None)
    """Means over the classes, if the measure is balanced accuracy."""

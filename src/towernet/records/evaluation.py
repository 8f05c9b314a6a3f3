"""The evaluation of a run on labelled images, as printed by `towernet evaluate --json`."""

from __future__ import annotations

from pydantic import StrictFloat, StrictInt, field_serializer

from towernet.names import NetworkName
from towernet.records.base import Interval, Record, Text
from towernet.records.scores import Band, ClassScores


class Found(Record):
    """How many files were used, quarantined and ignored."""

    files: StrictInt
    used: StrictInt
    quarantined: dict[str, int]
    """By reason, like `ignored`."""
    ignored: dict[str, int]


class Confusion(Record):
    """How often one class was predicted as another."""

    class_name: Text
    predicted: Text
    num_images: StrictInt


class Figures(Record):
    """Accuracy and confidence of some predictions, with all classes and all confusions."""

    num_images: StrictInt
    num_right: StrictInt
    accuracy: StrictFloat
    interval: Interval
    balanced_accuracy: StrictFloat
    balanced_interval: Interval
    macro_f1: StrictFloat
    temperature: StrictFloat
    calibration_error: StrictFloat
    bands: tuple[Band, ...]
    threshold: StrictFloat | None
    coverage: StrictFloat
    answered_accuracy: StrictFloat | None
    per_class: tuple[ClassScores, ...]
    classes_without_images: tuple[Text, ...]
    confusions: tuple[Confusion, ...]

    @field_serializer("per_class")
    def _images_last(self, rows: tuple[ClassScores, ...]) -> list[dict[str, object]]:
        """Print a class's number of images after its scores."""
        return [
            row.model_dump(exclude={"num_images"}) | {"num_images": row.num_images} for row in rows
        ]


class Question(Record):
    """Which run is evaluated, and on which images."""

    run: Text
    model: NetworkName
    data: Text
    reading: Text
    """How the data was read."""
    split: str
    """Which images were evaluated."""
    found: Found
    asked: dict[str, int]
    """How many images were evaluated, by what they are to the run."""
    left_out: dict[str, int]


class Evaluation(Figures, Question):
    """An evaluation of a run on labelled images; printed in this order, the question first."""

    later_looks: StrictInt | None
    """How often test images were evaluated since the end, None if these are not test images."""
    remarks: tuple[Text, ...]
    predictions: Text | None
    """The file with all predictions."""

"""How right a run is about labelled images: what `towernet evaluate --json` prints."""

from __future__ import annotations

from pydantic import StrictFloat, StrictInt, field_serializer

from towernet.names import NetworkName
from towernet.records.base import Interval, Record, Text
from towernet.records.scores import Band, ClassScores


class Found(Record):
    """What became of the files."""

    files: StrictInt
    used: StrictInt
    quarantined: dict[str, int]
    """By reason, as the next one."""
    ignored: dict[str, int]


class Confusion(Record):
    """How often one class was taken for another."""

    class_name: Text
    predicted: Text
    num_images: StrictInt


class Figures(Record):
    """How right some answers are, and how sure; all classes and all confusions."""

    num_images: StrictInt
    num_right: StrictInt
    accuracy: StrictFloat
    interval: Interval
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
        """Print a class's number of images after its scores, as it was always printed."""
        return [
            row.model_dump(exclude={"num_images"}) | {"num_images": row.num_images} for row in rows
        ]


class Question(Record):
    """Which run is asked, and about which images."""

    run: Text
    model: NetworkName
    data: Text
    reading: Text
    """How the data was read."""
    split: str
    """Which images were asked about."""
    found: Found
    asked: dict[str, int]
    """How many, by what they are to the run."""
    left_out: dict[str, int]


class Evaluation(Figures, Question):
    """What a run said of labelled images; printed in this order, the question first."""

    later_looks: StrictInt | None
    """How often test images were looked at since the end, None where these are none."""
    remarks: tuple[Text, ...]
    predictions: Text | None
    """The file with every answer."""

"""What a network expects as input and what its outputs mean, the same everywhere.

Created once from the training split and stored in every run.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, StrictFloat, StrictInt, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from towernet.errors import DataError
from towernet.records.base import Text


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Contract:
    """Class names in the order of the logits, and how a picture becomes the network's input.

    Args:
        class_names: The classes, in the order of the logits.
        size_px: Side of the square input.
        resize: The rule of `decode.fit`: crop, pad, squash or squash_linear.
        mean: Per RGB channel, of values in [0, 1].
        std: Per RGB channel, of values in [0, 1].
        background: RGB that transparent pixels and padding get.
        orientation: "exif": the picture is turned as its EXIF tag says.
        value_range: Values of more than 8 bits that are black and white, clipped beyond. None: each
            file has its own range.
        colour_profile: srgb: colours are converted from an embedded profile. ignored.
        max_megapixels: The most pixels of an image, in millions; None: the default limits.
        crop_share: With crop, the side of the square that is kept, as a share of the shorter side.
    """

    class_names: tuple[Text, ...]
    size_px: StrictInt
    resize: str
    mean: tuple[StrictFloat, StrictFloat, StrictFloat]
    std: tuple[StrictFloat, StrictFloat, StrictFloat]
    background: tuple[StrictInt, StrictInt, StrictInt] = (255, 255, 255)
    orientation: str = "exif"
    # Absent in runs made before there was a choice.
    value_range: tuple[StrictFloat, StrictFloat] | None = Field(
        default=None, exclude_if=lambda value: value is None
    )
    colour_profile: str = Field(default="ignored", exclude_if=lambda value: value == "ignored")
    max_megapixels: StrictFloat | None = Field(default=None, exclude_if=lambda value: value is None)
    crop_share: Annotated[StrictFloat, Field(gt=0, le=1)] = Field(
        default=1.0, exclude_if=lambda value: value == 1
    )

    def __post_init__(self) -> None:
        if self.crop_share < 1 and self.resize != "crop":
            raise ValueError(f"crop_share is {self.crop_share:g} and resize is {self.resize}")

    @staticmethod
    def from_json(values: object) -> Contract:
        """Return the contract that JSON values describe.

        Raises:
            DataError: a value is missing, is unknown, or has the wrong type.
        """
        try:
            return TypeAdapter(Contract).validate_python(values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(map(str, first["loc"]))
            raise DataError(
                f"the class contract is damaged ({field}: {first['msg']}); train again"
            ) from error

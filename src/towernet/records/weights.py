"""Pre-trained weights that a network starts from: what they are, and what they have seen."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictFloat, StrictInt

from towernet.records.base import Record, Text

Channels = tuple[StrictFloat, StrictFloat, StrictFloat]
UNKNOWN = "unknown"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class WeightsInput(Record):
    """How images became the network's input when the weights were trained."""

    size_px: StrictInt
    """Side of the square."""
    resize: str
    """The rule of `towernet.data.decode.fit`."""
    crop_share: Annotated[StrictFloat, Field(gt=0, le=1)] = 1.0
    """With `resize` "crop": the side of the square that is kept, as a share of the shorter side."""
    mean: Channels
    """Per RGB channel, of values in [0, 1]."""
    std: Channels


class StartWeights(Record):
    """One set of pre-trained weights, for one network."""

    network: str
    """The network they belong to, without a start and a block: `NetworkName.base`."""
    sha256: str
    """Of the file, whatever its name."""
    name: Text
    """What the set is called: "torchvision IMAGENET1K_V1", or the name of the file."""
    source: Text
    """An address, a package, or the file's name; not a path of this machine."""
    licence: Text = UNKNOWN
    """Of the weights."""
    data: Text = UNKNOWN
    """The images they were trained on."""
    num_images: StrictInt | None = None
    """How many of these there were."""
    terms: Text = UNKNOWN
    """What the owners of these images allow, as far as known."""
    of_runs: Literal["all", "some"] | None = Field(None, exclude_if=lambda value: value is None)
    """Which of the images they learned from are listed by runs made here, and so are compared with
    the images that a comparison holds out; missing if they come from elsewhere."""
    input: WeightsInput

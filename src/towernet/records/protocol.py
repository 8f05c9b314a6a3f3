"""The request of a comparison and what was decided before its first step: `protocol.toml`."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import (
    BaseModel,
    Field,
    PositiveInt,
    StrictBool,
    StrictFloat,
    StrictInt,
    model_validator,
)

from towernet.config import Measure, Recipe
from towernet.names import NONE, NetworkName
from towernet.records.base import Record, Text
from towernet.records.reading import Reading
from towernet.records.results import VariantName
from towernet.records.run import CostFigures, PolicyChoices


class Request(BaseModel, frozen=True, extra="forbid"):
    """What the user requested; all of it affects the result."""

    models: tuple[NetworkName, ...] = Field(min_length=1, description="Networks, by name.")
    attention: tuple[str, ...] = Field(
        (), description="Blocks that each network was given in turn, including `none`."
    )
    runs: PositiveInt = Field(1, description="Runs of each network, K.")
    recipe_name: str = Field("default", description="Which recipe the choices are based on.")
    recipe: Recipe = Field(description="How every network is trained.")
    seed: int = Field(0, ge=0, lt=2**31, description="All random draws are functions of it.")
    images_per_class: PositiveInt | None = Field(
        None, description="Use at most this many images per class."
    )
    reading: Reading | None = Field(
        None,
        description="How images are found and read; missing if made before there was a choice.",
    )
    learning_curve: bool = Field(
        False, description="Also train the winner on fewer images, to see if more would help."
    )
    equal_within: float = Field(
        0.005, gt=0, lt=1, description="The largest difference in accuracy that does not matter."
    )
    measure: Measure = Field(
        "accuracy",
        exclude_if=lambda value: value == "accuracy",
        description="What epochs, learning rates and networks are chosen and judged by; missing if"
        " it is accuracy.",
    )

    @model_validator(mode="after")
    def _factorial(self) -> Request:
        """Check that `models` is every network with every block."""
        wanted = {
            name
            for variant in variants(self.models, self.attention)
            for name in (variant.name, variant.without)
        }
        if self.attention and wanted != set(self.models):
            raise ValueError(
                f"attention is {', '.join(self.attention)} and models are"
                f" {', '.join(self.models)}; give every network with every block, and without"
            )
        return self


def variants(models: Sequence[NetworkName], attention: Sequence[str]) -> list[VariantName]:
    """Return the networks that have a block, each with the name of the same network without it.

    Example:
        >>> (found,) = variants([NetworkName("resnet18+se")], ["none", "se"])
        >>> found.network, found.block, found.name, found.without
        ('resnet18', 'se', 'resnet18+se', 'resnet18')
    """
    return [
        VariantName(
            network=network,
            block=block,
            name=network.with_block(block),
            without=network.with_block(NONE),
        )
        for network in dict.fromkeys(NetworkName(name.base) for name in models)
        for block in attention
        if block != NONE
    ]


class Images(Record):
    """The images of a comparison."""

    fingerprint: str


class Rule(Record):
    """How networks are judged; `equal_within` is in the request."""

    measure: str
    test: str
    interval: str
    level: StrictFloat
    order: str


class Decided(Record):
    """What was measured once before the first step and then only read; by network."""

    policy: PolicyChoices
    """Device, dtype, layout and threads of all networks."""
    num_steps: dict[NetworkName, StrictInt]
    """Optimiser steps of one run."""
    steps_are_final: StrictBool = Field(True, exclude_if=lambda value: value)
    """Whether they never change; False until the trials have checked the seconds of a step."""
    mixes: dict[NetworkName, StrictBool]
    """Whether a run is long enough to mix images; its trials do the same."""
    failures: dict[NetworkName, Text]
    """Why it could not take its first step."""
    costs: dict[NetworkName, CostFigures]
    """What the dry run measured."""


class Protocol(Record):
    """A request, its images, and what was decided before the first step."""

    request: Request
    images: Images
    format: StrictInt
    rule: Rule
    versions: dict[str, str]
    """What the bits also depend on."""
    decided: Decided

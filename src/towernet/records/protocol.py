"""The request of a comparison and what was decided before its first step: `protocol.toml`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import (
    BaseModel,
    Field,
    PositiveInt,
    StrictBool,
    StrictFloat,
    StrictInt,
    model_validator,
)

from towernet.config import FINETUNE, DataConfig, Measure, Recipe
from towernet.names import NONE, NetworkName
from towernet.records.base import Record, Text
from towernet.records.reading import Reading
from towernet.records.results import VariantName
from towernet.records.run import CostFigures, PolicyChoices
from towernet.records.weights import StartWeights


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
    shots: tuple[PositiveInt, ...] = Field(
        (),
        exclude_if=lambda value: not value,
        description="Also train every network on so many images of each class, each in turn.",
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
    against: NetworkName | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="The network that the others are compared with; missing if every pair is"
        " judged.",
    )
    weights: tuple[StartWeights, ...] = Field(
        (),
        exclude_if=lambda value: not value,
        description="The pre-trained weights of the networks that start from some.",
    )
    finetune: Recipe | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="How fine-tuned networks are trained; missing if there are none.",
    )
    fixed_input: tuple[Literal["size_px", "resize"], ...] = Field(
        (),
        exclude_if=lambda value: not value,
        description="What the user gave for all networks, also for those whose weights were trained"
        " otherwise.",
    )

    def weights_of(self, name: NetworkName) -> StartWeights | None:
        """Return the weights that a network starts from; None from scratch."""
        if name.start is None:
            return None
        return next(weights for weights in self.weights if weights.network == name.base)

    def recipe_name_of(self, name: NetworkName) -> str:
        """Return which recipe the choices for a network are based on."""
        return FINETUNE if name.start == "finetuned" else self.recipe_name

    def recipe_of(self, name: NetworkName) -> Recipe:
        """Return how a network is trained; with weights, on images as these were trained on.

        Splits, flips and the budget are the same for all networks.
        """
        weights = self.weights_of(name)
        if weights is None:
            return self.recipe
        data = self.recipe.data.model_dump() | weights.input.model_dump() | {"normalise": "given"}
        data |= {key: getattr(self.recipe.data, key) for key in self.fixed_input}
        if data["resize"] != "crop":
            data["crop_share"] = 1.0
        recipe = self.recipe if name.start == "frozen" else self.finetune
        assert recipe is not None, "a request with a fine-tuned network has it"
        return recipe.model_copy(update={"data": DataConfig.model_validate(data)})

    def single(self) -> Request:
        """Return the request for one network as its run records it: with the recipe it uses."""
        (name,) = self.models
        if name.start is None:
            return self
        recipe = self.recipe_of(name)
        return self.model_copy(
            update={
                "recipe_name": self.recipe_name_of(name),
                "recipe": recipe,
                "finetune": recipe if name.start == "finetuned" else None,
                # The recipe's data are those that the run is trained on.
                "fixed_input": ("size_px", "resize"),
            }
        )

    @model_validator(mode="after")
    def _knows_all_weights(self) -> Request:
        """Check that each network that starts from weights has some, and how it is trained."""
        missing = [name for name in self.models if name.start and not self._has_weights(name)]
        if missing:
            raise ValueError(f"models has {missing[0]}, but weights has none for {missing[0].base}")
        if self.finetune is None and any(name.start == "finetuned" for name in self.models):
            raise ValueError("models has a fine-tuned network, but finetune is missing")
        return self

    @model_validator(mode="after")
    def _knows_what_it_keeps(self) -> Request:
        """Check that no network from scratch is trained as one that has learnt before."""
        scratch = [name for name in self.models if name.start is None]
        train = self.recipe.train
        if scratch and (train.norm_statistics == "fixed" or train.layer_decay < 1):
            raise ValueError(
                f"train.norm_statistics is {train.norm_statistics} and train.layer_decay is"
                f" {train.layer_decay:g}, which {scratch[0]} cannot be trained with from scratch;"
                " give them as [finetune.train], for fine-tuned networks"
            )
        return self

    def _has_weights(self, name: NetworkName) -> bool:
        return any(weights.network == name.base for weights in self.weights)

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
        if self.against is not None and (self.attention or self.against not in self.models):
            raise ValueError(
                f"against is {self.against} and models are {', '.join(self.models)}; give one of"
                " these, and no attention"
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
        for network in dict.fromkeys(name.without_block() for name in models)
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

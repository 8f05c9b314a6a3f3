"""Every choice a run makes, as frozen models that are checked when they are made.

Order: the defaults here, then the recipe (TOML), then the command line. The resolved result
is written next to the weights. The field descriptions are the reference for all values.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from towernet.errors import ConfigError, DataError
from towernet.names import NetworkName
from towernet.registry import unknown_name
from towernet.words import shown

Model = TypeVar("Model", bound=BaseModel)
Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Channels = tuple[float, float, float]
# What epochs, learning rates and networks are chosen and judged by: all images count the same, or
# all classes.
Measure = Literal["accuracy", "balanced"]
FINETUNE = "finetune"
"""The recipe of fine-tuned networks, and the table of a recipe file that changes it."""
_RECIPES = resources.files("towernet") / "recipes"


class _Frozen(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """A frozen model that refuses unknown keys."""


class DataConfig(_Frozen):
    """How images become arrays, and how they are split."""

    size_px: Annotated[int, Field(ge=8, le=2048)] = Field(
        128, description="Side of the square the network sees, in pixels."
    )
    resize: Literal["crop", "pad", "squash", "squash_linear"] = Field(
        "crop",
        description="crop: shorter side to size, centre kept. pad: the whole image, on the"
        " background. squash: aspect ratio ignored. squash_linear: the same without antialiasing"
        " (OpenCV's INTER_LINEAR, the notebook's).",
    )
    crop_share: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0,
        exclude_if=lambda value: value == 1,
        description="With crop, the side of the square that evaluation sees, as a share of the"
        " shorter side: 224/256 for most pre-trained weights.",
    )
    train_margin: Annotated[float, Field(ge=1, le=2)] = Field(
        1.25, description="Training images are cached this much larger, so that crops stay sharp."
    )
    split_rule: Literal["stratified", "every_fifth"] = Field(
        "stratified",
        description="every_fifth: the notebook's, file i of a class is held out when i % 5 == 0;"
        " there is no test split then.",
    )
    validation_fraction: Share = Field(0.16, description="Share of images for choosing the epoch.")
    test_fraction: Fraction = Field(
        0.20, description="Share of images kept for the final evaluation only; 0 keeps none."
    )
    normalise: Literal["measured", "notebook", "given"] = Field(
        "measured",
        description="measured: mean and std of the training split. notebook: its constants,"
        " which do not match its data. given: data.mean and data.std.",
    )
    mean: Channels | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="Mean of red, green and blue in [0, 1], with normalise = given.",
    )
    std: Channels | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="Standard deviation of red, green and blue, with normalise = given.",
    )

    @model_validator(mode="after")
    def _given_if_said(self) -> DataConfig:
        if (self.normalise == "given") != (self.mean is not None and self.std is not None):
            raise ValueError(
                f"data.normalise is {self.normalise}, data.mean is {self.mean} and data.std is"
                f" {self.std}; give all three or none: normalise = 'given', mean and std"
            )
        if self.crop_share < 1 and self.resize != "crop":
            raise ValueError(
                f"data.crop_share is {self.crop_share:g} and data.resize is {self.resize}; use"
                " crop_share with resize = 'crop' only"
            )
        return self


class AugmentConfig(_Frozen):
    """How training images are augmented; every draw is a function of (seed, epoch, image)."""

    crop_scale_min: Annotated[float, Field(gt=0, le=1)] = Field(
        0.35, description="Smallest share of the area a random crop keeps; 1 crops nothing."
    )
    crop_ratio_max: Annotated[float, Field(ge=1)] = Field(
        1.333, description="Aspect ratio of crops, from 1/value to value."
    )
    flip: bool = Field(
        True, description="Mirror half of the images; use --no-flip if that changes their meaning."
    )
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = Field(
        10.0, description="Rotation angle, uniform in ± value."
    )
    interpolation: Literal["bilinear", "nearest"] = Field(
        "bilinear",
        description="How a moved pixel is sampled; nearest leaves black corners (notebook).",
    )
    brightness: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.2, description="Factor, uniform in 1 ± value."
    )
    contrast: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.2, description="Factor, uniform in 1 ± value."
    )
    mixup_alpha: Annotated[float, Field(ge=0)] = Field(
        0.2,
        description="Mixup weights from Beta(value, value); the image itself gets the larger"
        " weight. 0 turns mixing off. [arXiv:1710.09412]",
    )
    mixup_from_epochs: Annotated[float, Field(ge=0)] = Field(
        30.0, description="Shorter runs (in epochs) do not mix: they have no time to overfit."
    )


class TrainConfig(_Frozen):
    """How a model is trained; in a comparison every model gets the same one."""

    epochs: PositiveInt | None = Field(None, description="Passes over the training images.")
    minutes: PositiveFloat | None = Field(
        None,
        description="Training time of one run of one network; converted to steps at its start.",
    )
    max_epochs: PositiveFloat | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="A run ends after so many passes, even if there is time for more.",
    )
    batch_size: Annotated[int, Field(ge=2)] = Field(32, description="Images per step.")
    learning_rate: PositiveFloat = Field(
        0.05, description="Peak learning rate, for any batch size."
    )
    optimizer: Literal["muon", "sgd"] = Field(
        "muon",
        description="muon: the steps of convolution filters are orthogonalised, the rest uses SGD."
        " sgd: SGD for all weights.",
    )
    muon_rate: PositiveFloat = Field(
        0.4, description="Learning rate of orthogonalised steps, as a multiple of learning_rate."
    )
    muon_weight_decay: Annotated[float, Field(ge=0)] = Field(
        5e-4, description="Decoupled weight decay of orthogonalised filters."
    )
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0,
        exclude_if=lambda value: value == 1,
        description="Learning rate of the first layer as a multiple of the last one's; it rises"
        " geometrically from layer to layer. For networks that start from pre-trained weights.",
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="Momentum of all steps.")
    nesterov: bool = Field(True, description="Use Nesterov momentum.")
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        5e-4, description="Coupled L2 weight decay, of weights that SGD updates."
    )
    weight_decay_by_network: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict,
        description="weight_decay of single networks, as in the notebook.",
    )
    decay_everything: bool = Field(
        False, description="Decay norms, biases and gates too, as the notebook did."
    )
    norm_statistics: Literal["batch", "fixed"] = Field(
        "batch",
        exclude_if=lambda value: value == "batch",
        description="What batch norms use in training. batch: the mean and variance of each batch."
        " fixed: the running ones that the network started with, which then stay as they are;"
        " only for pre-trained weights.",
    )
    schedule: Literal["cosine", "notebook"] = Field(
        "cosine",
        description="cosine: one warm-up and one anneal over the whole budget."
        " notebook: 100-batch half periods, stepped per batch.",
    )
    warmup_fraction: Fraction = Field(0.05, description="Share of all steps spent warming up.")
    small_size: Annotated[float, Field(gt=0, le=1)] = Field(
        0.75,
        description="Side of the images in the first part of a run, as a share of the full side;"
        " 1: full size throughout; always so for networks that cannot take smaller images.",
    )
    smallest_px: Annotated[int, Field(ge=0)] = Field(
        0,
        exclude_if=lambda value: value == 0,
        description="That side is not below this, in pixels: pre-trained weights do not know"
        " things that are much smaller than in the images they learnt from.",
    )
    small_share: Fraction = Field(0.6, description="That first part, as a share of all steps.")
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="Probability mass moved to all classes. [arXiv:1512.00567]"
    )
    logit_adjustment: Annotated[float, Field(ge=0)] = Field(
        0.0,
        exclude_if=lambda value: value == 0,
        description="For uneven classes: value · log of each class's share of the training images"
        " is added to the logits in the loss, so that rare classes are not neglected. 0: off; 1 is"
        " right for balanced accuracy. [arXiv:2007.07314]",
    )
    balanced_drawing: bool = Field(
        False,
        exclude_if=lambda value: not value,
        description="For uneven classes, instead of logit_adjustment: each image of an epoch is"
        " drawn from a random class, so that all classes are seen equally often.",
    )
    ema_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.03,
        description="Time constant of the weight average used for evaluation, as a share of all"
        " steps; 0: no averaging.",
    )
    initial_weights: Literal["network", "paddle"] = Field(
        "network",
        description="network: as its authors initialise it. paddle: that framework's defaults.",
    )
    trial_factors: tuple[PositiveFloat, ...] = Field(
        (1 / 3, 1.0, 3.0),
        min_length=1,
        description="Factors of learning_rate that a comparison tries, for every network.",
    )
    trial_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.125, description="Length of one such trial as a share of the run."
    )

    @property
    def balances_classes(self) -> bool:
        """Whether a setting for uneven classes is on."""
        return self.balanced_drawing or self.logit_adjustment > 0

    @model_validator(mode="after")
    def _one_rule_for_uneven_classes(self) -> TrainConfig:
        if self.balanced_drawing and self.logit_adjustment:
            raise ValueError(
                f"train.balanced_drawing is true and train.logit_adjustment is"
                f" {self.logit_adjustment:g}; give only one of them"
            )
        return self

    @model_validator(mode="after")
    def _one_budget(self) -> TrainConfig:
        if self.epochs is not None and self.minutes is not None:
            raise ValueError(
                f"train.epochs is {self.epochs} and train.minutes is {self.minutes:g};"
                " give one budget, not both"
            )
        return self


class Recipe(_Frozen):
    """How to train: the content of a recipe's TOML file."""

    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()

    def mixes(self, num_epochs: float) -> bool:
        """Whether a run of so many epochs mixes images."""
        return self.augment.mixup_alpha > 0 and num_epochs >= self.augment.mixup_from_epochs

    def unmixed(self) -> Recipe:
        """Return the same without mixing."""
        augment = self.augment.model_copy(update={"mixup_alpha": 0.0})
        return self.model_copy(update={"augment": augment})


class RunConfig(_Frozen):
    """All choices that determine a run's result, apart from the images and the versions."""

    model: NetworkName = Field(description="A name from `towernet models`.")
    recipe_name: str = Field("default", description="The recipe that the choices are based on.")
    recipe: Recipe = Field(description="How it is trained, with all overrides applied.")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(
        0, description="Random seed; all draws are functions of it."
    )
    repetition: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Index of the run in a comparison: the test split stays, the rest is redrawn.",
    )
    images_per_class: PositiveInt | None = Field(
        None, description="Use only this many images of each class, for a quick test."
    )
    train_share: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="Share of each class's training images to use, for a learning curve."
    )
    shots: PositiveInt | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="Use only this many training images of each class, for curves of starts;"
        " missing if all are used.",
    )
    measure: Measure = Field(
        "accuracy",
        exclude_if=lambda value: value == "accuracy",
        description="What chooses the epoch: accuracy, or balanced accuracy, the mean over the"
        " classes; missing if it is accuracy.",
    )
    weights_sha256: str | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="Of the pre-trained weights it starts from; missing if it starts from scratch.",
    )


def built_in_recipes() -> list[str]:
    """Return the names of the recipes that come with the program, but for fine-tuned networks'."""
    names = (entry.name for entry in _RECIPES.iterdir() if entry.name.endswith(".toml"))
    return [name for file in names if (name := file.removesuffix(".toml")) != FINETUNE]


def load_recipe(name: str) -> Recipe:
    """Read a recipe by its name or from a TOML file.

    Raises:
        UnknownNameError: no recipe has the name, or a key in it is unknown.
        ConfigError: a value in it is out of its range.
        DataError: the file is not TOML, or cannot be read.
    """
    values = _recipe_values(name)
    values.pop(FINETUNE, None)
    return make(Recipe, values, where=f"recipe {name}")


def load_finetune(name: str) -> Recipe:
    """Return how fine-tuned networks are trained, as the table `finetune` of a recipe changes it.

    Args:
        name: As for `load_recipe`.

    Raises:
        UnknownNameError: a key in the table is unknown.
        ConfigError: a value in it is out of its range, or it is no table of `augment` and `train`.
        DataError: the file is not TOML, or cannot be read.
    """
    values = tomllib.loads((_RECIPES / f"{FINETUNE}.toml").read_text(encoding="utf-8"))
    changes = _recipe_values(name).get(FINETUNE, {})
    if not isinstance(changes, dict) or not set(changes) <= {"augment", "train"}:
        raise ConfigError(
            f"finetune of recipe {name} is {shown(str(changes))}; give it as tables"
            " [finetune.augment] and [finetune.train] only: the rest is the same for all networks"
        )
    for part, changed in changes.items():
        values[part] = values[part] | changed if isinstance(changed, dict) else changed
    return make(Recipe, values, where=f"recipe {name}, table finetune")


def keys_of(name: str) -> set[str]:
    """Return what a recipe's file says itself, such as "data.size_px"."""
    return {
        f"{part}.{key}"
        for part, values in _recipe_values(name).items()
        if isinstance(values, dict)
        for key in values
    }


def own_training(name: str) -> bool:
    """Whether a recipe file says how networks from scratch are trained, besides how long.

    Args:
        name: As for `load_recipe`, which has read it.
    """
    both = {"epochs", "minutes", "balanced_drawing", "logit_adjustment"}
    of_scratch = {
        key
        for key in keys_of(name)
        if key.startswith(("train.", "augment.")) and key.partition(".")[2] not in {*both, "flip"}
    }
    is_file = name not in built_in_recipes()
    return is_file and FINETUNE not in _recipe_values(name) and bool(of_scratch)


def _recipe_values(name: str) -> dict[str, Any]:
    known = built_in_recipes()
    if name in known:
        text = (_RECIPES / f"{name}.toml").read_text(encoding="utf-8")
    elif name.endswith(".toml"):
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"recipe {name} cannot be read: {error}; check the path") from error
    elif "." in name or "/" in name:
        raise ConfigError(f"recipe {name} is not a .toml file; give one, or {', '.join(known)}")
    else:
        raise unknown_name("recipe", name, known)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"recipe {name} is not TOML ({error}); fix that line") from error


Choice = int | float | bool | str | Sequence[float] | None


def override(
    recipe: Recipe,
    *,
    data: Mapping[str, Choice] | None = None,
    augment: Mapping[str, Choice] | None = None,
    train: Mapping[str, Choice] | None = None,
) -> Recipe:
    """Return the recipe with some values replaced: `override(recipe, train={"epochs": 3})`.

    A value of None means "not given" and changes nothing; giving one budget removes the other.
    """
    values = recipe.model_dump()
    for part, changes in (("data", data), ("augment", augment), ("train", train)):
        given = {key: value for key, value in (changes or {}).items() if value is not None}
        if part == "train" and {"epochs", "minutes"} & set(given):
            values["train"].update(epochs=None, minutes=None)
        values[part].update(given)
    return make(Recipe, values, where="the command line")


def make(model: type[Model], values: object, *, where: str) -> Model:
    """Check `values` against a model; the first fault becomes a one-line error."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            *parents, last = first["loc"]
            raise unknown_name(f"key of {where}", str(last), _known_keys(model, parents)) from None
        prefix = f"{where}: " if where.startswith("recipe") else ""
        if first["type"] == "value_error":
            raise ConfigError(prefix + first["msg"].removeprefix("Value error, ")) from None
        raise ConfigError(f"{prefix}{key} is {first['input']!r}; {_wanted(first)}") from None


def _wanted(error: Any) -> str:
    """Return which values pydantic accepts, for a message."""
    limits = error.get("ctx", {})
    match error["type"]:
        case "greater_than" if isinstance(limits["gt"], int) and limits["gt"] == 0:
            return "give at least 1"
        case "greater_than":
            return f"give more than {limits['gt']:g}"
        case "greater_than_equal":
            return f"give at least {limits['ge']:g}"
        case "less_than":
            return f"give less than {limits['lt']:g}"
        case "less_than_equal":
            return f"give at most {limits['le']:g}"
        case "too_short":
            return f"give at least {limits['min_length']}"
    return "give " + str(error["msg"]).removeprefix("Input should be ")


def _known_keys(model: type[Any], parents: list[Any]) -> list[str]:
    for parent in parents:
        model = model.model_fields[parent].annotation
    return list(model.model_fields)

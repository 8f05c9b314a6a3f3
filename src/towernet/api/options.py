"""The options that several verbs share, and the images opened with them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from towernet import choices
from towernet.comparison.folders import as_started, reading_before
from towernet.comparison.later_look import ledger_folder
from towernet.config import Recipe, load_finetune, make, override, own_training
from towernet.data.source import Source, open_source, where
from towernet.engine.runlog import Progress
from towernet.errors import ConfigError
from towernet.names import NetworkName
from towernet.predict import TRAIN_AGAIN, Predictor
from towernet.records.protocol import Request
from towernet.records.reading import DEFAULT, Reading
from towernet.records.run import ImportedRun, Origin, read_run
from towernet.starts.find import FoundWeights


@dataclass(frozen=True)
class Options:
    """The options that `compare` and `train` share; `compare` describes them."""

    recipe: str = "default"
    epochs: int | None = None
    minutes: float | None = None
    size: int | None = None
    batch_size: int | None = None
    resize: str | None = None
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    images_per_class: int | None = None
    no_flip: bool = False
    workers: int | None = None
    accept_data_change: bool = False
    accept_changes: bool = False
    measure: str = "accuracy"
    reading: Reading = DEFAULT

    def __post_init__(self) -> None:
        for each in fields(self):
            if each.name != "reading":
                choices.require_kind(each.name, getattr(self, each.name), str(each.type))
        choices.known_measure(self.measure)
        for option in ("threads", "workers"):
            choices.require_least(option, getattr(self, option), 1)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """Return those among the keywords given.

        Raises:
            ConfigError: a value has the wrong type or is out of range.
        """
        own = {each.name: given[each.name] for each in fields(cls) if each.name in given}
        return cls(**own | {"reading": choices.reading(given)})

    def request(
        self,
        source: Source,
        networks: tuple[NetworkName, ...],
        *,
        attention: tuple[str, ...] = (),
        against: NetworkName | None = None,
        runs: int = 1,
        equal_within: float = 0.5,
        learning_curve: bool = False,
        shots: tuple[int, ...] = (),
        weights: Mapping[str, FoundWeights] | None = None,
    ) -> Request:
        """Return the request for these images, with the recipe and the settings of the data set."""
        resolved = choices.resolve_recipe(
            self.recipe,
            source,
            epochs=self.epochs,
            minutes=self.minutes,
            size=self.size,
            batch_size=self.batch_size,
            resize=self.resize,
            no_flip=self.no_flip,
        )
        values = {
            "models": networks,
            "attention": attention,
            "against": against,
            "runs": runs,
            "recipe_name": self.recipe,
            "recipe": resolved.model_dump(),
            "seed": self.seed,
            "images_per_class": self.images_per_class,
            # How much an archive can unpack to does not affect the result.
            "reading": replace(self.reading, max_archive_gb=None, max_archive_entries=None),
            "equal_within": equal_within / 100,
            "learning_curve": learning_curve,
            "shots": shots,
            "measure": self.measure,
            "weights": tuple(found.weights for found in (weights or {}).values()),
            "finetune": self._finetune(resolved, networks)
            if any(name.start == "finetuned" for name in networks)
            else None,
            "fixed_input": tuple(
                key
                for key, given in (("size_px", self.size), ("resize", self.resize))
                if weights and given is not None
            ),
        }
        return make(Request, values, where="the command line")

    def _finetune(self, recipe: Recipe, networks: tuple[NetworkName, ...]) -> Recipe:
        """Return how fine-tuned networks are trained: as long as the others, on the same splits.

        Raises:
            ConfigError: a recipe file is only about networks from scratch, and there are none.
        """
        if all(name.start for name in networks) and own_training(self.recipe):
            raise ConfigError(
                f"recipe {self.recipe} says how networks from scratch are trained, and there are"
                " none; give its tables for fine-tuned ones, as [finetune.augment] and"
                " [finetune.train]"
            )
        train = {"epochs": recipe.train.epochs, "minutes": recipe.train.minutes}
        uneven = ("balanced_drawing", "logit_adjustment")
        tuned = override(
            load_finetune(self.recipe),
            augment={"flip": recipe.augment.flip},
            train=train
            | {"batch_size": self.batch_size}
            | {key: getattr(recipe.train, key) for key in uneven},
        )
        return tuned.model_copy(update={"data": recipe.data})


def open_data(data: str | Path, options: Options, progress: Progress) -> Source:
    """Open the data set, and report how it was read."""
    source = open_source(str(data), options.reading, progress=progress.count)
    progress.say(source.reading)
    return source


def open_images(
    predictor: Predictor, data: str, given: Mapping[str, Any], progress: Progress
) -> Source:
    """Open labelled images to evaluate a run on.

    The run's own images are read as they were for training. Of other images only the limits and
    the pixels are treated as in training.

    Args:
        predictor: From `open_predictor`.
        data: As for `open_source`.
        given: The options about reading images that the user gave, by keyword, and `resize`.
        progress: Shows the progress.

    Raises:
        ConfigError: an option has a wrong value, or one that differs from the run's.
        DataError: the data cannot be read.
    """
    record = read_run(predictor.folder, todo=TRAIN_AGAIN)
    origin = None if isinstance(record, ImportedRun) else record.origin
    default, as_trained = _readings(predictor.folder, data, origin)
    fixed = {"resize": predictor.contract.resize, "white_level": as_trained.white_level}
    for name, value in fixed.items():
        if (wanted := given.get(name)) not in (None, value):
            option = name.replace("_", "-")
            raise ConfigError(
                f"--{option} is {wanted} and the run was trained with {value or 'its default'};"
                f" leave out --{option}, or train with it"
            )
    chosen = {
        name: value
        for name, value in given.items()
        if name != "resize" and value != getattr(DEFAULT, name)
    }
    pixels = {
        "white_level": as_trained.white_level,
        "max_megapixels": predictor.contract.max_megapixels,
    }
    choices.reading(chosen)  # refuses wrong values
    options = replace(default, **pixels | chosen)
    return open_source(data, options, progress=progress.count, min_classes=1)


def _readings(folder: Path, data: str, origin: Origin | None) -> tuple[Reading, Reading]:
    """Return how to read images for a run, and how the run's own were read."""
    if origin is None:
        return DEFAULT, DEFAULT
    if origin.reading is not None:
        is_own = origin.data == where(data)
        return as_started(origin.reading) if is_own else DEFAULT, origin.reading
    # The run was made when there was one way to read images.
    before = reading_before(ledger_folder(folder), DEFAULT)
    is_own = where(data) in (origin.data, *map(where, _words(origin.command)))
    return before if is_own else replace(before, layout="auto"), before


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:  # a call from Python
        return []

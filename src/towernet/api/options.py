"""The options that `compare`, `train` and `plan` share."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from towernet import choices
from towernet.config import make
from towernet.data.archive import Limits
from towernet.data.source import Source, open_source
from towernet.engine.runlog import Progress
from towernet.errors import ConfigError
from towernet.names import NetworkName
from towernet.records.protocol import Request

# For each type of option, the accepted Python types and their name in messages.
_KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "str": (str, "text"),
    "int": (int, "a whole number"),
    "float": ((int, float), "a number"),
    "bool": (bool, "True or False"),
}


@dataclass(frozen=True)
class Options:
    """The options that `compare` and `train` share; `compare` describes them."""

    recipe: str = "default"
    epochs: int | None = None
    minutes: float | None = None
    size: int | None = None
    batch_size: int | None = None
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    images_per_class: int | None = None
    no_flip: bool = False
    layout: str = "auto"
    skip_empty: bool = False
    workers: int | None = None
    max_archive_gb: float | None = None
    max_archive_entries: int | None = None
    accept_data_change: bool = False
    accept_changes: bool = False

    def __post_init__(self) -> None:
        for each in fields(self):
            kind, wanted = _KINDS[str(each.type).removesuffix(" | None")]
            value = getattr(self, each.name)
            is_absent = value is None and str(each.type).endswith("None")
            is_number = isinstance(value, bool) and kind is not bool  # in Python, True is an int
            if not is_absent and (is_number or not isinstance(value, kind)):
                raise ConfigError(f"{each.name} is {value!r}; give {wanted}")
        for option, least in (("threads", 1), ("workers", 1), ("max_archive_entries", 1)):
            value = getattr(self, option)
            if value is not None and value < least:
                name = option.replace("_", "-")
                raise ConfigError(f"--{name} is {value}; give at least {least}")
        if self.max_archive_gb is not None and self.max_archive_gb < 0:
            raise ConfigError(f"--max-archive-gb is {self.max_archive_gb:g}; give at least 0")

    def request(
        self,
        source: Source,
        networks: tuple[NetworkName, ...],
        *,
        attention: tuple[str, ...] = (),
        runs: int = 1,
        equal_within: float = 0.5,
        learning_curve: bool = False,
    ) -> Request:
        """Return the request for these images, with the recipe and the settings of the data set."""
        resolved = choices.resolve_recipe(
            self.recipe,
            source,
            epochs=self.epochs,
            minutes=self.minutes,
            size=self.size,
            batch_size=self.batch_size,
            no_flip=self.no_flip,
        )
        values = {
            "models": networks,
            "attention": attention,
            "runs": runs,
            "recipe_name": self.recipe,
            "recipe": resolved.model_dump(),
            "seed": self.seed,
            "images_per_class": self.images_per_class,
            "equal_within": equal_within / 100,
            "learning_curve": learning_curve,
        }
        return make(Request, values, where="the command line")

    @property
    def limits(self) -> Limits:
        """The limits for unpacking an archive."""
        return choices.archive_limits(self.max_archive_gb, self.max_archive_entries)


def open_data(data: str | Path, options: Options, progress: Progress) -> Source:
    """Open the data set, and report how it was read."""
    source = open_source(
        str(data),
        layout=options.layout,
        skip_empty=options.skip_empty,
        limits=options.limits,
        progress=progress.count,
    )
    progress.say(source.reading)
    return source

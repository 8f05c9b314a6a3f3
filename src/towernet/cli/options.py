"""The options that several verbs share, each said once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from towernet.config import Recipe
    from towernet.data.source import Source

Data = Annotated[
    str,
    typer.Argument(
        help="A folder with one sub-folder of images per class (or train/ and test/ with those),"
        " a zip or tar of it, a CSV with path,label, or `digits`, which is built in."
    ),
]
RecipeName = Annotated[
    str, typer.Option("--recipe", help="default, quick, notebook, or your own .toml file.")
]
Epochs = Annotated[
    int | None, typer.Option(help="Passes over the training images; else the recipe decides.")
]
Minutes = Annotated[
    float | None, typer.Option(help="Training time of one network; else the recipe decides.")
]
Size = Annotated[int | None, typer.Option(help="Side of the images in pixels; else the recipe's.")]
BatchSize = Annotated[int | None, typer.Option(help="Images in one step; else the recipe's.")]
Seed = Annotated[int, typer.Option(help="All chance is a function of it.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
ImagesPerClass = Annotated[
    int | None, typer.Option(help="Use only so many images of each class, for a quick look.")
]
NoFlip = Annotated[
    bool, typer.Option("--no-flip", help="Never mirror: where left and right mean something.")
]
Workers = Annotated[int | None, typer.Option(help="Decoding processes; else one per core.")]
Layout = Annotated[
    str,
    typer.Option(help="auto, classes or splits: what the top folders are, should auto err."),
]
SkipEmpty = Annotated[bool, typer.Option("--skip-empty", help="Leave out classes without files.")]


def num_workers(workers: int | None) -> int:
    """Return how many decoding processes to use.

    Raises:
        ConfigError: fewer than one was asked for.
    """
    from towernet.errors import ConfigError

    if workers is not None and workers < 1:
        raise ConfigError(f"--workers is {workers}; give at least 1")
    return workers or os.cpu_count() or 1


def resolve_recipe(
    name: str,
    source: Source,
    *,
    epochs: int | None,
    minutes: float | None,
    size: int | None,
    batch_size: int | None,
    no_flip: bool,
) -> Recipe:
    """Read the recipe and put the command line's choices, and the data's own, over it."""
    from towernet.config import load_recipe, override

    augment: dict[str, Any] = {"flip": False} if no_flip or source.no_flip else {}
    return override(
        load_recipe(name),
        data={"size_px": size},
        augment=augment,
        train={"epochs": epochs, "minutes": minutes, "batch_size": batch_size},
    )


def default_out(kind: str, *parts: str) -> Path:
    """Return the folder a result goes to when none is named, the same for the same words."""
    return Path("runs") / "-".join(
        [kind, *(part.replace(":", "_").replace("/", "_") for part in parts)]
    )

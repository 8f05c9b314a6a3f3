"""`towernet train`: one network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from towernet.cli import options


@options.reads_images
def train(
    data: Annotated[
        str | None,
        typer.Argument(help="Images, as for `compare`; not needed with --resume."),
    ] = None,
    model: Annotated[str, typer.Option(help="A name from `towernet models`.")] = "towernet_patch",
    weights: options.Weights = None,
    recipe: options.RecipeName = "default",
    epochs: options.Epochs = None,
    minutes: options.Minutes = None,
    size: options.Size = None,
    batch_size: options.BatchSize = None,
    resize: options.Resize = None,
    measure: options.Measure = "accuracy",
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: options.Threads = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the run; default: runs/DATA-MODEL.")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Continue the run in this folder, with exactly the same result."),
    ] = None,
    images_per_class: options.ImagesPerClass = None,
    no_flip: options.NoFlip = False,
    workers: options.Workers = None,
    accept_data_change: options.AcceptDataChange = False,
    accept_changes: options.AcceptChanges = False,
    strict: options.Strict = False,
    **reading: Any,
) -> None:
    """Train one network on a folder of images.

    Example: towernet train photos/ --model resnet50 --minutes 10
    """
    given = locals() | reading
    del given["reading"]
    from towernet.api.training import train as train_network
    from towernet.cli.tables import ranking

    comparison = train_network(**given, command=options.the_command())
    ranking(comparison.conclusion, comparison.folder, comparison.report)
    options.require_success(comparison.results)

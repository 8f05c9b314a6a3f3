"""`towernet compare`: train several networks and rank them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from towernet.cli import options


@options.reads_images
def compare(
    data: options.Data,
    models: options.Models = options.DEFAULT_MODELS,
    attention: Annotated[
        str | None,
        typer.Option(
            help="Attention blocks, comma-separated: each network is trained without attention and"
            " with each block, for the same number of steps. `towernet attention` lists the blocks."
        ),
    ] = None,
    starts: Annotated[
        str | None,
        typer.Option(
            help="scratch, frozen, finetuned, comma-separated: each network is compared with each"
            " of these starts. frozen: a new last layer on pre-trained weights; finetuned: all"
            " layers go on learning."
        ),
    ] = None,
    weights: options.Weights = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="Compare each network only with this one of them, which takes fewer runs than all"
            " pairs: with 6 networks, 8 runs instead of 10."
        ),
    ] = None,
    runs: Annotated[
        int,
        typer.Option(
            help="Training runs per network, each with different initial weights and training"
            " images."
        ),
    ] = 1,
    equal_within: Annotated[
        float, typer.Option(help="Accuracies within this many percentage points count as equal.")
    ] = 0.5,
    measure: options.Measure = "accuracy",
    learning_curve: Annotated[
        bool,
        typer.Option(
            "--learning-curve",
            help="Also train the best network on half and a quarter of the images, to see whether"
            " more images would help.",
        ),
    ] = False,
    shots: Annotated[
        str | None,
        typer.Option(
            help="Also train every network on so many images of each class, such as 1,3,5,10,20, to"
            " see what it is worth with few images. Takes as long again for each number."
        ),
    ] = None,
    recipe: options.RecipeName = "default",
    epochs: options.Epochs = None,
    minutes: options.Minutes = None,
    size: options.Size = None,
    batch_size: options.BatchSize = None,
    resize: options.Resize = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: options.Threads = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results; default: runs/compare-DATA.")
    ] = None,
    images_per_class: options.ImagesPerClass = None,
    no_flip: options.NoFlip = False,
    workers: options.Workers = None,
    accept_data_change: options.AcceptDataChange = False,
    accept_changes: options.AcceptChanges = False,
    strict: options.Strict = False,
    **reading: Any,
) -> None:
    """Train several networks under the same protocol and report which is best.

    Example: towernet compare photos/ --minutes 5

    Run the same command again to continue a stopped comparison.
    """
    given = locals() | reading
    del given["reading"]
    from towernet.api.training import compare as run_comparison
    from towernet.cli.tables import ranking

    comparison = run_comparison(**given, command=options.the_command())
    ranking(comparison.conclusion, comparison.folder, comparison.report)
    options.require_success(comparison.results)

"""`towernet compare`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from towernet.cli import options
from towernet.errors import ConfigError


def compare(
    data: options.Data,
    models: options.Models = options.DEFAULT_MODELS,
    attention: Annotated[
        str | None,
        typer.Option(
            help="Blocks, comma-separated: each network is trained without attention and with each"
            " of them, for as many steps; `towernet attention` lists them."
        ),
    ] = None,
    runs: Annotated[
        int,
        typer.Option(
            help="How often each network is trained, with other weights and training images."
        ),
    ] = 1,
    equal_within: Annotated[
        float, typer.Option(help="Accuracies within so many percentage points count as equal.")
    ] = 0.5,
    learning_curve: Annotated[
        bool,
        typer.Option(
            "--learning-curve",
            help="Train the best network on half and a quarter of the images too: would more help?",
        ),
    ] = False,
    recipe: options.RecipeName = "default",
    epochs: options.Epochs = None,
    minutes: options.Minutes = None,
    size: options.Size = None,
    batch_size: options.BatchSize = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: options.Threads = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results; else runs/compare-DATA.")
    ] = None,
    images_per_class: options.ImagesPerClass = None,
    no_flip: options.NoFlip = False,
    layout: options.Layout = "auto",
    skip_empty: options.SkipEmpty = False,
    workers: options.Workers = None,
    max_archive_gb: options.MaxArchiveGb = None,
    max_archive_entries: options.MaxArchiveEntries = None,
    accept_data_change: options.AcceptDataChange = False,
    accept_changes: options.AcceptChanges = False,
) -> None:
    """Train several networks under one protocol and say which is best.

    Example: towernet compare photos/ --minutes 5

    The same command again continues a stopped comparison.
    """
    from towernet import files
    from towernet.cli.console import Screen, the_command
    from towernet.cli.tables import ranking
    from towernet.comparison.story import compare as run_comparison
    from towernet.config import Accept, make
    from towernet.data.source import open_source
    from towernet.engine.device import require_device
    from towernet.engine.stop import StopSwitch
    from towernet.records.protocol import Request
    from towernet.report.page import write_report
    from towernet.report.pictures import pictures

    names, blocks = options.with_attention(options.model_names(models), attention)
    if not 0 < equal_within < 100:
        raise ConfigError(
            f"--equal-within is {equal_within:g}; give more than 0 and less than 100 points"
        )
    options.check_blocks(names)
    require_device(device)
    screen = Screen()
    limits = options.archive_limits(max_archive_gb, max_archive_entries)
    with StopSwitch() as stop:
        source = open_source(
            data, layout=layout, skip_empty=skip_empty, limits=limits, progress=screen.count
        )
        screen.say(source.reading)
        resolved = options.resolve_recipe(
            recipe,
            source,
            epochs=epochs,
            minutes=minutes,
            size=size,
            batch_size=batch_size,
            no_flip=no_flip,
        )
        options.check_networks(names, resolved.data.size_px)
        request = make(
            Request,
            {
                "models": names,
                "attention": blocks,
                "runs": runs,
                "recipe_name": recipe,
                "recipe": resolved.model_dump(),
                "seed": seed,
                "images_per_class": images_per_class,
                "equal_within": equal_within / 100,
                "learning_curve": learning_curve,
            },
            where="the command line",
        )
        folder = options.out_folder(out, data, "compare", source.name)
        conclusion = run_comparison(
            request,
            source,
            folder,
            device=device,
            threads=threads,
            accept=Accept(accept_data_change, accept_changes),
            workers=options.num_workers(workers),
            command=the_command(),
            watcher=screen,
            stop=stop,
        )
        with files.lock(folder / "lock", holder=str(folder)):
            report = write_report(folder, picture=pictures(source))
    ranking(conclusion, folder, report)
    options.require_success(conclusion)

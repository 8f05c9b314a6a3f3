"""`towernet train`: one network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from towernet.cli import options
from towernet.errors import ConfigError
from towernet.names import NetworkName


def train(
    data: Annotated[
        str | None,
        typer.Argument(help="As for `compare`; with --resume the run knows it."),
    ] = None,
    model: Annotated[str, typer.Option(help="A name from `towernet models`.")] = "towernet_patch",
    recipe: options.RecipeName = "default",
    epochs: options.Epochs = None,
    minutes: options.Minutes = None,
    size: options.Size = None,
    batch_size: options.BatchSize = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: options.Threads = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the run is written; else runs/DATA-MODEL.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with the run in this folder, to the bit.")
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
    """Train one network on a folder of images.

    Example: towernet train photos/ --model resnet50 --minutes 10
    """
    given = dict(locals())
    from towernet import files
    from towernet.cli.console import Screen, the_command
    from towernet.cli.tables import ranking
    from towernet.comparison.single import begin_run, finished_run, resume_run
    from towernet.config import Accept, RunConfig, make
    from towernet.data.source import open_source
    from towernet.engine.stop import StopSwitch
    from towernet.report.page import write_report
    from towernet.report.pictures import pictures

    screen = Screen()
    limits = options.archive_limits(max_archive_gb, max_archive_entries)
    if resume is None and data is None:
        raise ConfigError("no images are named; give a folder of them, or --resume RUN")
    with StopSwitch() as stop:
        processes = options.num_workers(workers)
        if resume is not None:
            options.require_defaults(train, given, but=options.OF_RESUMING)
            folder = resume
            if (done := finished_run(folder)) and (folder / "report.html").exists():
                screen.say(f"{folder} is finished; its results are as they were")
                ranking(done, folder, folder / "report.html")
                return
            conclusion, source = resume_run(
                folder,
                data,
                limits=limits,
                device=device,
                threads=threads,
                accept=Accept(accept_data_change, accept_changes),
                workers=processes,
                watcher=screen,
                stop=stop,
            )
        else:
            assert data is not None
            options.check_blocks((NetworkName(model),))
            if accept_data_change or accept_changes:
                raise ConfigError("nothing is gone on with; --accept-… belongs to --resume RUN")
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
            options.check_networks((NetworkName(model),), resolved.data.size_px)
            config = make(
                RunConfig,
                {
                    "model": model,
                    "recipe_name": recipe,
                    "recipe": resolved.model_dump(),
                    "seed": seed,
                    "images_per_class": images_per_class,
                },
                where="the command line",
            )
            folder = options.out_folder(out, data, source.name, model)
            origin = {
                "command": the_command(),
                "source": source.reading,
                "data": data if data == "digits" else str(Path(data).resolve()),
                "layout": layout,
                "skip_empty": skip_empty,
            }
            conclusion = begin_run(
                config,
                source,
                folder,
                device=device,
                threads=threads,
                origin=origin,
                workers=processes,
                watcher=screen,
                stop=stop,
            )
        # Under the lock again: what is written here is the folder's too.
        with files.lock(folder / "lock", holder=str(folder)):
            report = write_report(folder, picture=pictures(source))
    ranking(conclusion, folder, report)
    options.require_success(conclusion)

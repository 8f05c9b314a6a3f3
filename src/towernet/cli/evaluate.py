"""`towernet evaluate`: how right a trained run is about labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from towernet import choices
from towernet.cli import options
from towernet.errors import ConfigError


def evaluate(
    run: Annotated[Path, typer.Argument(help="The folder of a run or of a comparison.")],
    images: options.Data,
    split: Annotated[
        str,
        typer.Option(
            help="Which images: unseen (neither trained it nor chose its epoch), test,"
            " validation, train, or all."
        ),
    ] = "unseen",
    json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
    predictions: Annotated[
        Path | None, typer.Option(help="Write the answer for each image into this CSV file.")
    ] = None,
    layout: options.Layout = "auto",
    skip_empty: options.SkipEmpty = False,
    workers: options.Workers = None,
    max_archive_gb: options.MaxArchiveGb = None,
    max_archive_entries: options.MaxArchiveEntries = None,
) -> None:
    """Measure how often a trained network is right about labelled images, class by class.

    Example: towernet evaluate runs/compare-photos other-photos/

    Images that trained it or chose its epoch are left out, unless --split asks for them.
    """
    from json import dumps

    from towernet import progress
    from towernet.cli.evaluation_tables import evaluation_tables
    from towernet.comparison.evaluation import evaluate as evaluate_run
    from towernet.comparison.evaluation import open_predictor, write_predictions
    from towernet.comparison.roles import roles_of_split
    from towernet.data.source import open_source

    roles_of_split(split)  # one that there is not is refused before anything is opened
    num_workers = choices.num_workers(workers)
    if predictions is not None:
        _require_writable(predictions, images)
    screen = progress.screen()
    predictor = open_predictor(run, say=screen.say)
    source = open_source(
        images,
        layout=layout,
        skip_empty=skip_empty,
        limits=choices.archive_limits(max_archive_gb, max_archive_entries),
        progress=screen.count,
        min_classes=1,
    )
    screen.say(source.reading)
    found, answers = evaluate_run(
        predictor, source, split=split, workers=num_workers, progress=screen
    )
    if predictions is not None:
        write_predictions(predictions, answers)
        found = found.model_copy(update={"predictions": str(predictions)})
    if json:
        print(dumps(found.model_dump(), indent=2, allow_nan=False))
    else:
        evaluation_tables(found)


def _require_writable(file: Path, images: str) -> None:
    """Refuse, before the work, to write where one cannot or had better not.

    Raises:
        ConfigError: it lies nowhere, among the images, or is something else.
    """
    from towernet.comparison.evaluation import PREDICTIONS_HEAD

    if not file.parent.is_dir():
        raise ConfigError(
            f"--predictions {file}: there is no folder {file.parent}; make it, or name a file"
            " elsewhere"
        )
    if Path(images).is_dir() and file.resolve().is_relative_to(Path(images).resolve()):
        raise ConfigError(f"--predictions {file} would lie among the images; name a file elsewhere")
    if not file.exists():
        return
    is_ours = False
    if file.is_file():
        with file.open(errors="replace") as stream:
            is_ours = stream.readline(len(PREDICTIONS_HEAD) + 1).rstrip() == PREDICTIONS_HEAD
    if not is_ours:
        raise ConfigError(
            f"--predictions {file} is there already and holds something else; name another file"
        )

"""`towernet evaluate`: the accuracy of a trained run on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from towernet import choices
from towernet.cli import options
from towernet.errors import ConfigError


@options.reads_images
def evaluate(
    run: Annotated[Path, typer.Argument(help="The folder of a run or of a comparison.")],
    images: options.Data,
    split: Annotated[
        str,
        typer.Option(
            help="Which images: unseen (used neither to train it nor to choose its epoch), test,"
            " validation, train, or all."
        ),
    ] = "unseen",
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    predictions: Annotated[
        Path | None, typer.Option(help="Write the prediction for each image to this CSV file.")
    ] = None,
    resize: options.Resize = None,
    workers: options.Workers = None,
    **reading: Any,
) -> None:
    """Measure the accuracy of a trained network on labelled images, in total and per class.

    Example: towernet evaluate runs/compare-photos other-photos/

    Images used to train it or to choose its epoch are left out, unless --split includes them.
    """
    from json import dumps

    from towernet import progress
    from towernet.api.options import open_images
    from towernet.cli.evaluation_tables import evaluation_tables
    from towernet.comparison.evaluation import evaluate as evaluate_run
    from towernet.comparison.evaluation import open_predictor, write_predictions
    from towernet.comparison.roles import roles_of_split

    roles_of_split(split)  # refuses an unknown split before anything is opened
    num_workers = choices.num_workers(workers)
    if predictions is not None:
        _require_writable(predictions, images)
    screen = progress.screen()
    predictor = open_predictor(run, say=screen.say)
    source = open_images(predictor, images, reading | {"resize": resize}, screen)
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
    """Refuse, before the work, a file that cannot or should not be written.

    Raises:
        ConfigError: its folder is missing, it is among the images, or has other content.
    """
    from towernet.comparison.evaluation import PREDICTIONS_HEAD

    if not file.parent.is_dir():
        raise ConfigError(
            f"--predictions {file}: there is no folder {file.parent}; create it, or give a file"
            " elsewhere"
        )
    if Path(images).is_dir() and file.resolve().is_relative_to(Path(images).resolve()):
        raise ConfigError(f"--predictions {file} would be among the images; give a file elsewhere")
    if not file.exists():
        return
    is_predictions = False
    if file.is_file():
        with file.open(errors="replace") as stream:
            is_predictions = stream.readline(len(PREDICTIONS_HEAD) + 1).rstrip() == PREDICTIONS_HEAD
    if not is_predictions:
        raise ConfigError(
            f"--predictions {file} already exists with other content; give another file"
        )

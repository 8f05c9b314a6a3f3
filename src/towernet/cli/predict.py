"""`towernet predict`: the class of each image, from a trained run."""

from __future__ import annotations

import json as json_module
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from towernet import choices
from towernet.cli import options
from towernet.errors import DATA

if TYPE_CHECKING:
    from towernet.records.prediction import NoPrediction, Prediction


def predict(
    run: Annotated[Path, typer.Argument(help="The folder of a run or of a comparison.")],
    images: Annotated[
        list[Path], typer.Argument(help="Image files, and folders with images at any depth.")
    ],
    top: Annotated[int, typer.Option(help="Number of classes to print for each image.")] = 1,
    json: Annotated[
        bool, typer.Option("--json", help="Print a JSON list at the end, for programs.")
    ] = False,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Print one line of JSON for each image, as they come.")
    ] = False,
    csv: Annotated[
        Path | None, typer.Option(help="Write one row for each image to this CSV file.")
    ] = None,
    workers: options.Workers = None,
    max_megapixels: options.MaxMegapixels = None,
) -> int:
    """Predict the class of each image.

    Example: towernet predict runs/compare-photos cat.jpg --top 3

    A file that cannot be used gets a row with the reason; the exit code is then 3. The images of a
    folder come in the order of their paths' bytes.
    """
    from towernet import files, progress
    from towernet.data.pictures import find_pictures
    from towernet.errors import ConfigError
    from towernet.predict import load_run, predict_classes
    from towernet.records.prediction import NoPrediction
    from towernet.words import counted, shown

    if top < 1:
        raise ConfigError(f"--top is {top}; give at least 1")
    if json and jsonl:
        raise ConfigError("--json and --jsonl cannot be combined; give one of them")
    num_workers = choices.num_workers(workers)
    if csv is not None:
        _require_writable(csv, images)
    predictor = load_run(run).with_limit(choices.megapixels(max_megapixels))
    screen = progress.screen()
    pictures = find_pictures(images, screen.count)
    num, num_bad, first_error = len(pictures.paths), 0, ""
    show = _line_of_json if jsonl else _words if csv is None and not json else None
    # A bar between lines that are printed on the same screen would spoil them.
    is_long = pictures.of_folders or csv is not None
    has_bar = is_long and (show is None or not sys.stdout.isatty())

    def rows() -> Iterator[Prediction | NoPrediction]:
        nonlocal num_bad, first_error
        found = predict_classes(predictor, pictures, top=top, workers=num_workers)
        for done, row in enumerate(found, start=1):
            if isinstance(row, NoPrediction):
                num_bad, first_error = num_bad + 1, first_error or row.error
            if show is not None:
                show(row)
            yield row
            if has_bar:
                screen.count("predicting", done, num)

    all_rows = list(rows()) if json else rows()
    if csv is None:
        deque(all_rows, maxlen=0)
    else:
        files.write_csv(csv, _table(all_rows, min(top, len(predictor.contract.class_names))))
        screen.say(f"{csv} has {counted(num, 'row')}")
    if json:
        typer.echo(json_module.dumps([row.model_dump() for row in all_rows], indent=2))
    if pictures.left_out:
        screen.say(pictures.left_out)
    if num_bad and (num > 1 or csv is not None):
        reason = f"; the first: {shown(first_error)}" if csv is not None else ""
        screen.say(f"{num_bad:,} of {counted(num, 'file')} could not be used{reason}")
    return DATA if num_bad else 0


def _line_of_json(row: Prediction | NoPrediction) -> None:
    typer.echo(json_module.dumps(row.model_dump()))


def _words(row: Prediction | NoPrediction) -> None:
    from towernet.records.prediction import NoPrediction
    from towernet.words import percent, shown

    if isinstance(row, NoPrediction):
        _console(stderr=True).print(escape(f"error: {shown(row.error)}"))
        return
    classes = ", ".join(
        f"{shown(found.class_name)} {percent(found.probability)}" for found in row.predictions
    )
    unsure = "  (not sure)" if row.sure is False else ""
    _console().print(f"{escape(shown(row.path))}  [bold]{escape(classes)}[/bold]{unsure}")


@cache
def _console(*, stderr: bool = False) -> Console:
    return Console(highlight=False, soft_wrap=True, stderr=stderr)


_HEAD = ("path", "class_name", "probability", "sure", "error")


def _table(
    rows: Iterable[Prediction | NoPrediction], num_classes: int
) -> Iterator[tuple[object, ...]]:
    """Yield the rows of the CSV file; further classes have columns at the end."""
    from towernet.records.prediction import NoPrediction

    more = [(f"class_name_{i}", f"probability_{i}") for i in range(2, num_classes + 1)]
    yield (*_HEAD, *chain(*more))
    for row in rows:
        if isinstance(row, NoPrediction):
            yield (row.path, "", "", "", row.error, *[""] * (2 * len(more)))
            continue
        first, *others = ((found.class_name, found.probability) for found in row.predictions)
        yield (row.path, *first, "" if row.sure is None else row.sure, "", *chain(*others))


def _require_writable(file: Path, images: list[Path]) -> None:
    """Refuse, before the work, a file that cannot or should not be written.

    Raises:
        ConfigError: its folder is missing, it is among the images, or has other content.
    """
    from towernet.errors import ConfigError

    if not file.parent.is_dir():
        raise ConfigError(
            f"--csv {file}: there is no folder {file.parent}; create it, or give a file elsewhere"
        )
    if any(path.is_dir() and file.resolve().is_relative_to(path.resolve()) for path in images):
        raise ConfigError(f"--csv {file} would be among the images; give a file elsewhere")
    if file.exists():
        head = b""
        if file.is_file():
            with file.open("rb") as stream:
                head = stream.readline(1000)
        if not head.startswith(",".join(_HEAD).encode()):
            raise ConfigError(f"--csv {file} already exists with other content; give another file")

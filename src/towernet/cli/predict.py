"""`towernet predict`: the class of each image, from a trained run."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from towernet.errors import DATA


def predict(
    run: Annotated[Path, typer.Argument(help="The folder of a run or of a comparison.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    top: Annotated[int, typer.Option(help="Number of classes to print for each image.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> int:
    """Predict the class of each image.

    Example: towernet predict runs/compare-photos cat.jpg --top 3
    """
    from rich.console import Console
    from rich.markup import escape

    from towernet.errors import ConfigError
    from towernet.predict import load_run, predict_classes
    from towernet.records.prediction import NoPrediction
    from towernet.words import percent, shown

    if top < 1:
        raise ConfigError(f"--top is {top}; give at least 1")
    rows = predict_classes(load_run(run), images, top=top)
    if json:
        typer.echo(json_module.dumps([row.model_dump() for row in rows], indent=2))
    else:
        console, errors = (
            Console(highlight=False, soft_wrap=True, stderr=e) for e in (False, True)
        )
        for row in rows:
            if isinstance(row, NoPrediction):
                errors.print(escape(f"error: {shown(row.error)}"))
                continue
            classes = ", ".join(
                f"{shown(found.class_name)} {percent(found.probability)}"
                for found in row.predictions
            )
            unsure = "  (not sure)" if row.sure is False else ""
            console.print(f"{escape(shown(row.path))}  [bold]{escape(classes)}[/bold]{unsure}")
    return DATA if any(isinstance(row, NoPrediction) for row in rows) else 0

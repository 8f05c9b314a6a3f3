"""`towernet predict`: what a trained run says of pictures."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from towernet.errors import DATA


def predict(
    run: Annotated[Path, typer.Argument(help="The folder of a run or of a comparison.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    top: Annotated[int, typer.Option(help="How many classes to name for each image.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="One JSON list, for programs.")] = False,
) -> int:
    """Name the class of each image.

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
            said = ", ".join(
                f"{shown(found.class_name)} {percent(found.probability)}"
                for found in row.predictions
            )
            unsure = "  (not sure)" if row.sure is False else ""
            console.print(f"{escape(shown(row.path))}  [bold]{escape(said)}[/bold]{unsure}")
    return DATA if any(isinstance(row, NoPrediction) for row in rows) else 0

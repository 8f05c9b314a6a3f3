"""`towernet predict`: what a trained run says of pictures."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated, Any

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

    from towernet.data.table import shown
    from towernet.errors import ConfigError, DataError
    from towernet.predict import load_run, predict_files

    if top < 1:
        raise ConfigError(f"--top is {top}; give at least 1")
    predictor = load_run(run)
    names = predictor.contract.class_names
    threshold = predictor.threshold
    rows: list[dict[str, Any]] = []
    for path, answer in zip(images, predict_files(predictor, images), strict=True):
        if isinstance(answer, DataError):
            rows.append({"path": str(path), "error": str(answer)})
            continue
        best = answer.argsort(kind="stable")[::-1][:top]
        rows.append(
            {
                "path": str(path),
                "predictions": [
                    {"class_name": names[i], "probability": round(float(answer[i]), 6)}
                    for i in best
                ],
                "sure": None if threshold is None else bool(answer.max() >= threshold),
            }
        )
    failed = [row for row in rows if "error" in row]
    if json:
        typer.echo(json_module.dumps(rows, indent=2))
    else:
        console, errors = (
            Console(highlight=False, soft_wrap=True, stderr=e) for e in (False, True)
        )
        for row in rows:
            if "error" in row:
                errors.print(escape(f"error: {shown(row['error'])}"))
                continue
            said = ", ".join(
                f"{shown(p['class_name'])} {100 * p['probability']:.1f} %"
                for p in row["predictions"]
            )
            unsure = "  (not sure)" if row["sure"] is False else ""
            console.print(f"{escape(shown(row['path']))}  [bold]{escape(said)}[/bold]{unsure}")
    return DATA if failed else 0

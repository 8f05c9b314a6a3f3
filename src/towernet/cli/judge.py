"""`towernet judge`: compare the predictions of any program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def judge(
    answers: Annotated[
        Path,
        typer.Argument(
            help="A CSV or Parquet file with a row for each answer: network, run, image, and right"
            " (1 or 0) or label and answer; perhaps group, for images that belong together.",
            show_default=False,
        ),
    ],
    equal_within: Annotated[
        float, typer.Option(help="Accuracies within so many percentage points count as equal.")
    ] = 0.5,
    title: Annotated[
        str | None, typer.Option(help="What the answers are called in the report; else the file.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for report.html, judgement.json and tables; else none is written."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
) -> None:
    """Say which networks are better than which, by answers that any program gave.

    Example: towernet judge answers.csv

    Every run of every network must have answered for the same images.
    """
    from json import dumps

    from towernet.api.answers import judge as judge_answers
    from towernet.cli.tables import judgement as show

    judged = judge_answers(answers, equal_within=equal_within, title=title, out=out).judged
    if json:
        print(dumps(judged.model_dump(), indent=2, allow_nan=False))
    else:
        show(judged, None if out is None else out / "report.html")

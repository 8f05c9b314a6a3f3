"""`towernet judge`: compare the predictions of any program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def judge(
    answers: Annotated[
        Path,
        typer.Argument(
            help="A CSV or Parquet file with one row per prediction and the columns network, run,"
            " image, and either right (1 or 0) or label and answer; optional: group, for images"
            " that belong together.",
            show_default=False,
        ),
    ],
    equal_within: Annotated[
        float, typer.Option(help="Accuracies within this many percentage points count as equal.")
    ] = 0.5,
    measure: Annotated[
        str,
        typer.Option(
            help="What is compared: accuracy, or balanced (the mean over the classes; needs the"
            " column label)."
        ),
    ] = "accuracy",
    against: Annotated[
        str | None,
        typer.Option(
            help="Compare each network only with this one, which takes fewer runs than all pairs."
        ),
    ] = None,
    title: Annotated[
        str | None, typer.Option(help="Title of the report; default: the name of the file.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for report.html, judgement.json and tables; default: write nothing."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Report which networks are better, based on the predictions of any program.

    Example: towernet judge answers.csv

    Every run of every network must have predictions for the same images.
    """
    from json import dumps

    from towernet.api.answers import judge as judge_answers
    from towernet.cli.tables import judgement as show

    judged = judge_answers(
        answers,
        equal_within=equal_within,
        measure=measure,
        against=against,
        title=title,
        out=out,
    ).judged
    if json:
        print(dumps(judged.model_dump(), indent=2, allow_nan=False))
    else:
        show(judged, None if out is None else out / "report.html")

"""The report on the predictions of any program: the ranking and the differences, as one page."""

from __future__ import annotations

import shlex
from pathlib import Path

from towernet import __version__
from towernet.files import write_text
from towernet.records.judgement import AnswersJudged
from towernet.report import tables
from towernet.report.first_screen import first_screen_of_answers
from towernet.report.page import filled


def write_answers_report(folder: Path, judged: AnswersJudged) -> Path:
    """Write `report.html` next to a judgement's other files; return its path.

    Raises:
        EnvironmentFault: it cannot be written.
    """
    write_text(folder / "report.html", answers_page(judged))
    return folder / "report.html"


def answers_page(judged: AnswersJudged) -> str:
    """Return the page about how good any program's predictions are."""
    return filled(
        "judgement.html",
        screen=first_screen_of_answers(judged),
        results=judged,
        scale=tables.score_scale(judged.networks, None, judged.measure),
        pair_scale=tables.difference_scale(judged.comparisons),
        margin=f"{100 * judged.equal_within:g}",
        against=shlex.quote(judged.against or ""),
        version=__version__,
    )

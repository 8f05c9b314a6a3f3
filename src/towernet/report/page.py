"""The report: a comparison's or a run's folder read, and written as one self-contained page.

The page has no script and loads nothing: its policy allows its own style sheet, by hash, and
embedded pictures. Every text that comes from outside passes `shown` and autoescaping.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from jinja2 import BaseLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from towernet import words
from towernet.comparison.wording.times import BARELY_TRAINED
from towernet.comparison.wording.verdict import answer_words
from towernet.files import write_text
from towernet.records.base import read_record
from towernet.records.results import Conclusion
from towernet.report import figures, tables
from towernet.report.contents import Contents, contents_of
from towernet.report.networks import Picture
from towernet.words import in_points, shown, signed_points


def write_report(folder: Path, *, picture: Picture) -> Path:
    """Write `report.html` into a comparison's or a single run's folder.

    Args:
        folder: Holds `results.json`, `samples.parquet` and the runs.
        picture: Returns the decoded image of a path in the sample table, None where it is not
            available; the report then says so in its place.

    Returns:
        Where the report is.

    Raises:
        DataError: a file of the folder is missing or damaged.
        EnvironmentFault: the report cannot be written.
    """
    conclusion = read_record(folder / "results.json", Conclusion)
    write_text(folder / "report.html", render(contents_of(folder, conclusion, picture)))
    return folder / "report.html"


def render(contents: Contents, loader: BaseLoader | None = None) -> str:
    """Fill the templates of a comparison's or a run's page."""
    return filled("report.html", loader, **vars(contents))


def filled(template: str, loader: BaseLoader | None = None, **contents: object) -> str:
    """Fill the template of a page; the style sheet's hash goes into its policy."""
    templates = environment(loader)
    style = templates.get_template("report.css").render()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    return templates.get_template(template).render(
        **contents, style=Markup(style), style_hash=digest
    )


def environment(loader: BaseLoader | None = None) -> Environment:
    """Return the template environment: what templates print is escaped and visible."""
    found = Environment(
        autoescape=True,
        loader=loader or PackageLoader("towernet.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    found.filters |= {
        function.__name__: function
        for function in (
            tables.short, tables.percent, tables.interval, tables.span, tables.whole,
            words.compact, tables.significant, tables.decimals, words.duration, figures.shade,
            name, prose, in_points, signed_points, answer_words,
        )
    }  # fmt: skip
    found.globals["few_epochs"] = BARELY_TRAINED
    return found


def name(text: str, limit: int = 40) -> Markup:
    """Return the name of a class, a file or a network: short, visible, its direction its own."""
    return Markup("<bdi>{}</bdi>").format(tables.short(text, limit))


def prose(text: str) -> Markup:
    """Return a sentence of ours; text between backticks in it is a command."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(_finalize(text)))))


def _finalize(value: object) -> object:
    """Make every printed text visible, whichever template prints it."""
    if not isinstance(value, str) or isinstance(value, Markup):  # a number, or what is made here
        return value
    return "\u00a0".join(map(shown, value.split("\u00a0")))  # unseen but harmless: it binds a unit

"""What a notebook shows of something judged: a piece of a page that looks like its surroundings."""

from __future__ import annotations

from towernet.records.judgement import Judged
from towernet.report.page import environment

# On the element itself, since a notebook may drop a style sheet; colours are those around it.
_CELL = "padding: .25em 1em .25em 0; border: 0; border-bottom: 1px solid rgb(127 127 127 / .35)"


def judged_html(judged: Judged) -> str:
    """Return a judgement as HTML, without script or style sheet, and with every name inert."""
    return environment().get_template("notebook.html").render(judged=judged, cell=_CELL)

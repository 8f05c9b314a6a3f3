"""What a notebook shows of something judged: a piece of a page that looks like its surroundings."""

from __future__ import annotations

from towernet.records.judgement import Judged
from towernet.report.page import environment


def judged_html(judged: Judged) -> str:
    """Return a judgement as HTML without script, in the colours around it, and each name inert."""
    return environment().get_template("notebook.html").render(judged=judged)

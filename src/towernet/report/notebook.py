"""What a notebook shows of something judged: a piece of a page that looks like its surroundings."""

from __future__ import annotations

from collections.abc import Sequence

from towernet.records.judgement import Judged
from towernet.report.page import environment


def judged_html(judged: Judged, first: Sequence[str] = ()) -> str:
    """Return a judgement as HTML without script, in the colours around it, and each name inert.

    Args:
        judged: The judgement.
        first: Remarks to show before its own.
    """
    template = environment().get_template("notebook.html")
    return template.render(judged=judged, remarks=(*first, *judged.remarks))

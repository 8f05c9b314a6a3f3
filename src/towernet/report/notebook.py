"""What a notebook shows of something judged: a piece of a page that looks like its surroundings."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from towernet.report.page import environment

# On the element itself, since a notebook may drop a style sheet; colours are those around it.
_CELL = "padding: .25em 1em .25em 0; border: 0; border-bottom: 1px solid rgb(127 127 127 / .35)"


def judged_html(verdict: str, remarks: Sequence[str], ranking: pd.DataFrame) -> str:
    """Return a judgement as HTML, without script or style sheet, and with every name inert.

    Args:
        verdict: The answer in one sentence.
        remarks: What to know beside it.
        ranking: The networks, with the columns rank, network, accuracy, low and high.
    """
    rows = [
        {
            "rank": None if pd.isna(row.rank) else int(row.rank),
            "network": str(row.network),
            "accuracy": None if pd.isna(row.accuracy) else float(row.accuracy),
            "interval": None if pd.isna(row.low) else (float(row.low), float(row.high)),
        }
        for row in ranking[["rank", "network", "accuracy", "low", "high"]].itertuples()
    ]
    template = environment().get_template("notebook.html")
    return template.render(verdict=verdict, remarks=remarks, rows=rows, cell=_CELL)

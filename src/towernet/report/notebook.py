"""What a notebook shows of something judged: a piece of a page that looks like its surroundings."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from towernet.report.page import environment


def judged_html(verdict: str, remarks: Sequence[str], ranking: pd.DataFrame) -> str:
    """Return a judgement as HTML that holds no script, in the colours around it, each name inert.

    Args:
        verdict: The answer in one sentence.
        remarks: What to know beside it.
        ranking: The networks, with the columns rank, network, accuracy, low and high.
    """
    columns = {name: _values(ranking[name]) for name in ("rank", "network", "accuracy")}
    ends = zip(_values(ranking["low"]), _values(ranking["high"]), strict=True)
    rows = [
        {"rank": rank, "network": str(network), "accuracy": accuracy}
        | {"interval": None if interval[0] is None else interval}
        for rank, network, accuracy, interval in zip(*columns.values(), ends, strict=True)
    ]
    template = environment().get_template("notebook.html")
    return template.render(verdict=verdict, remarks=remarks, rows=rows)


def _values(column: pd.Series) -> list[object]:
    """Return a column's values, None where there is none."""
    missing = column.isna().tolist()
    return [None if gone else value for value, gone in zip(column.tolist(), missing, strict=True)]

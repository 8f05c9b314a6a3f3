"""Judgements as tables."""

from __future__ import annotations

import pandas as pd

from towernet.records.base import Interval
from towernet.records.judgement import Judged
from towernet.words import shown


def ranking_of(judged: Judged) -> pd.DataFrame:
    """Return the networks of a judgement as a table, ranked ones first."""
    networks = judged.networks
    columns = {
        "rank": pd.array([network.rank for network in networks], dtype="Int64"),
        "network": pd.Series([str(network.name) for network in networks], dtype=object),
        **_scores("", [network.accuracy for network in networks], [n.interval for n in networks]),
    }
    if any(network.balanced_accuracy is not None for network in networks):
        scores = [network.balanced_accuracy for network in networks]
        columns |= _scores("balanced_", scores, [n.balanced_interval for n in networks])
    return pd.DataFrame(columns)


def _scores(
    which: str, scores: list[float | None], intervals: list[Interval | None]
) -> dict[str, object]:
    low, high = zip(*(interval or (None, None) for interval in intervals), strict=True)
    columns = {"accuracy": scores, "low": low, "high": high}
    return {which + name: pd.array(values, dtype="Float64") for name, values in columns.items()}


def differences_of(judged: Judged) -> pd.DataFrame:
    """Return every compared pair of networks as a table."""
    columns = ("first", "second", "difference", "p_adjusted", "answer")
    rows = [[getattr(pair, column) for column in columns] for pair in judged.comparisons]
    table = pd.DataFrame(rows, columns=list(columns))
    for place, end in enumerate(("low", "high")):
        table.insert(3 + place, end, [pair.interval[place] for pair in judged.comparisons])
    return table


def as_text(verdict: str, ranking: pd.DataFrame) -> str:
    """Return the verdict and the ranking for a terminal."""
    visible = ranking.assign(network=ranking["network"].map(shown))
    return f"{shown(verdict)}\n\n{visible.to_string(index=False)}"

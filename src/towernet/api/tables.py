"""Judgements as tables."""

from __future__ import annotations

import pandas as pd

from towernet.records.judgement import Judged
from towernet.words import shown


def ranking_of(judged: Judged) -> pd.DataFrame:
    """Return the networks of a judgement as a table, ranked ones first."""
    low, high = zip(*(network.interval or (None, None) for network in judged.networks), strict=True)
    return pd.DataFrame(
        {
            "rank": pd.array([network.rank for network in judged.networks], dtype="Int64"),
            "network": pd.Series([str(network.name) for network in judged.networks], dtype=object),
            "accuracy": pd.array([n.accuracy for n in judged.networks], dtype="Float64"),
            "low": pd.array(low, dtype="Float64"),
            "high": pd.array(high, dtype="Float64"),
        }
    )


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

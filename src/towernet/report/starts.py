"""What the report says about pre-trained weights: which networks had some, and what that means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from towernet.comparison.wording.starts import (
    HOW_STARTS_LEARN,
    Knowledge,
    images_words,
    kept_equal,
    knowledge,
    seen_words,
    strength_words,
)
from towernet.names import NetworkName
from towernet.records.results import Measured, Results


@dataclass(frozen=True)
class StartsSection:
    """What each network knew before.

    Args:
        kept_equal: What was the same for all networks, and what was not.
        how: How networks learn from weights.
        seen: Which weights may have seen the images that networks are judged on.
        strength: What chose how strongly last layers are regularised.
        rows: Networks with the same weights, and which images these were trained on.
    """

    kept_equal: str
    how: str
    seen: tuple[str, ...]
    strength: str
    rows: tuple[tuple[Knowledge, str], ...]


def starts_section(
    results: Results, measured: Mapping[NetworkName, Measured]
) -> StartsSection | None:
    """Return what the networks knew before, None if none started from pre-trained weights."""
    if not results.has_starts:
        return None
    return StartsSection(
        kept_equal(results),
        HOW_STARTS_LEARN,
        tuple(seen_words(results)),
        strength_words(results),
        tuple(
            (known, "" if known.weights is None else images_words(known.weights))
            for known in knowledge(results.networks, measured)
        ),
    )

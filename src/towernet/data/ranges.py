"""The range of 16-bit, 32-bit and float values of a data set, chosen once from its images."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pandas as pd

from towernet.data.deep import Range, usual_range
from towernet.data.rules import BEFORE, NOW, Rules, pixels_of
from towernet.data.table import TEST, USED, path_bytes
from towernet.records.reading import Reading

MAX_DIFFERENCE = 0.25
"""The share of the whole range up to which the ends of two ranges count as the same."""


def rules_of(reading: Reading | None) -> Rules:
    """Return how files become pixels before a range is chosen: each has its own.

    Args:
        reading: The options of the run; None for one made before there were any.
    """
    if reading is None:
        return BEFORE
    white = reading.white_level
    return replace(
        NOW,
        value_range=None if white is None else (0.0, float(white)),
        max_pixels=pixels_of(reading.max_megapixels),
    )


def rules_for(table: pd.DataFrame, reading: Reading | None) -> Rules:
    """Return how the files of a data set become pixels.

    Args:
        table: The sample table; images whose split, or whose given one, is test do not count.
        reading: The options of the run; None for one made before there were any.
    """
    rules = rules_of(reading)
    if reading is None or rules.value_range is not None:
        return rules
    return replace(rules, value_range=chosen_range(table))


def chosen_range(table: pd.DataFrame) -> Range | None:
    """Return the smallest usual range with the values of all used images outside the test split.

    None if none of them has more than 8 bits.
    """
    deep = _deep(table)
    return _range_of(deep) if len(deep) else None


def ranges_of_classes(table: pd.DataFrame) -> dict[str, Range]:
    """Return the range that each class would have by itself, of the classes that have any."""
    deep = _deep(table)
    names = sorted(set(deep.class_name), key=path_bytes)
    return {name: _range_of(deep[deep.class_name == name]) for name in names}


def differ(ranges: Collection[Range]) -> bool:
    """Whether ranges differ by more than the images of one camera do.

    Example:
        >>> differ([(0.0, 4095.0), (0.0, 1023.0)]), differ([(-20.1, 36.4), (-19.8, 37.0)])
        (True, False)
    """
    lows, highs = ([each[end] for each in ranges] for end in (0, 1))
    most = MAX_DIFFERENCE * (max(highs) - min(lows))
    return max(highs) - min(highs) > most or max(lows) - min(lows) > most


def _deep(table: pd.DataFrame) -> pd.DataFrame:
    split = table.split.where(table.split != "", table.given_split)
    return table[(table.status == USED) & ((table.low != 0) | (table.high != 0)) & (split != TEST)]


def _range_of(deep: pd.DataFrame) -> Range:
    low, high = float(deep.low.min()), float(deep.high.max())
    return usual_range(low, high, is_float=bool((deep["mode"] == "F").any()))

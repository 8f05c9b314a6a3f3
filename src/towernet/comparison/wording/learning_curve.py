"""Whether more images would help, in words."""

from __future__ import annotations

from collections.abc import Sequence

from towernet.comparison.judging.pairs import BETTER, EQUAL, TOO_FEW_RUNS, WORSE
from towernet.config import Measure
from towernet.records.judgement import MEASURE_WORDS, Pair
from towernet.records.results import ClassGain, CurvePoint
from towernet.words import in_points, shown

MAX_NAMED = 3


def sentence(
    network: str,
    points: Sequence[CurvePoint],
    gain: Pair,
    classes: Sequence[ClassGain],
    equal_within: float,
    measure: Measure = "accuracy",
) -> str:
    """Answer whether more images would help.

    Args:
        network: The one that was trained on fewer of them.
        points: By share: the last had all of the images, the one before half of them.
        gain: What the last doubling gained.
        classes: What it gained for each class, largest first.
        equal_within: The largest difference that does not matter, a fraction.
        measure: What the points are.
    """
    half, whole = points[-2:]
    num_runs = len(whole.runs)
    low, high = map(in_points, gain.interval)
    seen = (
        f"With {whole.num_images:,} training images instead of {half.num_images:,}, the"
        f" {MEASURE_WORDS[measure]}"
        f" of {network} changed by {in_points(gain.difference)} points [{low}, {high}]"
    )
    if num_runs == 1:
        seen += " (one trained model each)"
    if gain.answer == BETTER:
        gained = [shown(row.class_name) for row in classes if row.is_shown]
        of = f" Classes that gained most: {', '.join(gained[:MAX_NAMED])}." if gained else ""
        return (
            f"More images would probably help. {seen}; doubling the images rarely gains more than"
            f" that.{of}"
        )
    if gain.answer == WORSE:
        return f"More images did not help. {seen}."
    if gain.answer == EQUAL:
        margin = 100 * equal_within
        return f"More images would hardly help. {seen}, which is within ±{margin:g} points."
    if gain.answer == TOO_FEW_RUNS:
        return f"{num_runs} runs are too few to show whether more images would help. {seen}."
    return f"It is not shown whether more images would help. {seen}."

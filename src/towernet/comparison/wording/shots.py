"""How many images a network from scratch would need to catch up, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from towernet.names import SCRATCH
from towernet.records.results import ShotsCurve, ShotsPoint
from towernet.words import counted, percent

MOST_BEYOND = 2
"""Nothing is said of more than this many times the most images that were measured."""


def catching_up(curves: Sequence[ShotsCurve]) -> tuple[str, ...]:
    """Say how many images of each class a network from scratch needs for what weights give.

    For each network from scratch whose starts were measured too.
    """
    return tuple(
        _to_reach(curve, other)
        for curve in curves
        for other in curves
        if curve.network.start is None
        and other.network.start is not None
        and other.network.with_start(SCRATCH).canonical() == curve.network
        and curve.points
        and other.points
    )


def _to_reach(curve: ShotsCurve, other: ShotsCurve) -> str:
    """Say what one network needs for what another gets with its fewest and its most images."""
    fewest, most = other.points[0], other.points[-1]
    text = (
        f"For the {percent(fewest.accuracy)} that {other.network} gets with"
        f" {_images_words(fewest)} of each class, {curve.network} from"
        f" scratch would need {_needed_words(curve, fewest.accuracy)}"
    )
    if most is not fewest:
        of_all = "all" if most.is_all else f"{most.most or most.num_images:,}"
        text += f"; for the {percent(most.accuracy)} with {of_all},"
        text += f" {_needed_words(curve, most.accuracy)}"
    return f"{text}."


def _images_words(point: ShotsPoint) -> str:
    if point.most is not None:
        return f"at most {counted(point.most, 'training image')}"
    return counted(point.num_images, "training image")


def _needed_words(curve: ShotsCurve, accuracy: float) -> str:
    needed = images_needed(curve.points, accuracy)
    if needed is None:
        return f"more (not within {MOST_BEYOND * curve.points[-1].num_images:,})"
    return f"{'at most' if needed == curve.points[0].num_images else 'about'} {needed:,}"


def images_needed(points: Sequence[ShotsPoint], accuracy: float) -> int | None:
    """Return the number of images of each class with which a curve reaches an accuracy.

    Between two points, and beyond the last one, accuracy is taken as linear in the logarithm of the
    number of images.

    Args:
        points: The curve, fewest images first.
        accuracy: To reach.

    Returns:
        The number, rounded up; None if it is above `MOST_BEYOND` times the most images measured, or
        the curve does not rise at its end.
    """
    if points[0].accuracy >= accuracy:
        return points[0].num_images
    for before, after in pairwise(points):
        if after.accuracy >= accuracy:
            return math.ceil(_between(before, after, accuracy) - 1e-9)
    if len(points) < 2 or points[-1].accuracy <= points[-2].accuracy:
        return None
    needed = math.ceil(_between(points[-2], points[-1], accuracy) - 1e-9)
    return needed if needed <= MOST_BEYOND * points[-1].num_images else None


def _between(before: ShotsPoint, after: ShotsPoint, accuracy: float) -> float:
    low, high = math.log(before.num_images), math.log(after.num_images)
    share = (accuracy - before.accuracy) / (after.accuracy - before.accuracy)
    return math.exp(min(low + share * (high - low), 700.0))

"""The conclusion about a pair of networks: which is better, if shown, and what would show it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Final

from towernet.comparison.judging.significance import min_runs
from towernet.comparison.judging.statistics import Difference, Family
from towernet.records.judgement import Answer, Pair

# The conclusions about a pair: the first is better, …; in a ranking's pairs it is never worse.
BETTER: Final = "better"
WORSE: Final = "worse"
EQUAL: Final = "equal"
OPEN: Final = "open"
TOO_FEW_RUNS: Final = "too_few_runs"


def pairs_between(names: Sequence[str], against: str | None) -> list[tuple[str, str]]:
    """Return the pairs of networks to judge.

    Args:
        names: Those that can be judged.
        against: The only one to compare the others with; None: judge all pairs.

    Example:
        >>> pairs_between(["a", "b", "c"], "b")
        [('a', 'b'), ('c', 'b')]
    """
    if against is None:
        return list(combinations(names, 2))
    return [(name, against) for name in names if name != against] if against in names else []


def pair_of(
    family: Family, difference: Difference, names: Sequence[str], equal_within: float
) -> Pair:
    """Return a pair's difference, the conclusion, and how many runs or images would decide it.

    Args:
        family: All pairs that are judged together.
        difference: The pair's difference.
        names: The names of the networks, by position.
        equal_within: The largest difference that does not matter, a fraction.
    """
    num_runs, num_images = family.num_runs, family.num_images
    variance = difference.variance
    # If each run was evaluated on different images, there are no signs to flip.
    too_few = variance is not None and 1 < num_runs < min_runs(family.num_comparisons)
    to_show = runs = images = None
    answer: Answer
    if difference.is_within(equal_within) and not too_few:
        answer = EQUAL
    elif difference.is_shown():
        answer = BETTER if difference.mean > 0 else WORSE
    elif variance is None:
        answer = OPEN  # there are no other images, and more runs would hold out the same ones
    else:
        answer = TOO_FEW_RUNS if too_few else OPEN
        # The observed difference, rounded up to half points, but one that matters.
        seen = math.ceil(200 * abs(difference.mean) - 1e-9) / 200
        to_show = max(seen, 2 * equal_within)
        # Otherwise it would probably have been shown already.
        if too_few or family.detectable(variance, num_runs, num_images) > to_show:
            images = family.images_needed(variance, to_show)
            if num_runs > 1:  # one run does not show how much runs differ
                runs = family.runs_needed(variance, to_show)
            to_show = to_show if runs or images else None
    return Pair(
        first=names[difference.first],
        second=names[difference.second],
        difference=difference.mean,
        interval=difference.interval,
        p=difference.p,
        p_adjusted=difference.p_adjusted,
        chance_better=difference.chance_better,
        chance_interval=difference.chance_interval,
        answer=answer,
        to_show=to_show,
        runs_needed=runs,
        images_needed=images,
    )

"""The answer in words: what the final split says, what it does not, and what would settle it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from towernet.comparison.judging.pairs import BETTER, EQUAL, OPEN, TOO_FEW_RUNS, WORSE
from towernet.comparison.judging.statistics import min_runs
from towernet.records.judgement import Judged, Pair
from towernet.records.results import Network, Results
from towernet.words import in_points, listed, percent

# How to get more runs: of a comparison, and where somebody's answers are judged.
BY_OPTION: Final = "give --runs {} or more"
BY_ANSWERS: Final = "give the answers of {} or more runs of each network"


def judged_images(found: Judged) -> str:
    """Say how many images of which kind the networks were judged by."""
    return " ".join(filter(None, (f"{found.num_judged:,}", found.split_words, "images")))


def answer_words(pair: Pair, equal_within: float) -> str:
    """Say what became of a pair, and what would settle it."""
    return "; ".join(filter(None, (outcome_words(pair, equal_within), settling(pair))))


def outcome_words(pair: Pair, equal_within: float) -> str:
    """Say what became of a pair."""
    return {
        BETTER: "the first is better",
        WORSE: "the first is worse",
        EQUAL: f"equal within ±{100 * equal_within:g} points",
        OPEN: "not shown",
        TOO_FEW_RUNS: "too few runs to tell",
    }[pair.answer]


def settling(pair: Pair) -> str:
    """Say what would settle a pair, '' where nothing here would."""
    if pair.to_show is None:
        return ""
    points = f"{100 * pair.to_show:g}"
    difference = f"a difference of {points} point{'' if points == '1' else 's'}"
    ways = []
    if pair.images_needed:
        ways.append(f"{_rounded(pair.images_needed)} test images in all")
    if pair.runs_needed:
        ways.append(f"{pair.runs_needed} runs in all")
    if not ways:
        return f"{difference} would probably have been shown"
    return f"about {' or '.join(ways)} would probably show {difference}"


def _rounded(number: int) -> str:
    """Write a count to two digits."""
    step = max(1, 10 ** (len(str(number)) - 2))
    return f"{math.ceil(number / step) * step:,}"


def verdict(results: Results) -> str:
    """Answer in one sentence; if our own network is not first, that comes first.

    Args:
        results: The ranking, its pairs, and what it is about.
    """
    if not results.ranked:
        return (
            f"No network learned enough to be ranked on {judged_images(results)}:"
            " give more time, or look at the data with `towernet check`."
        )
    return sentence(results, _lead(results))


def sentence(found: Judged, lead: str = "") -> str:
    """Answer in one sentence, of anybody's networks.

    Args:
        found: A judgement with a ranked network.
        lead: What is said before all else.
    """
    ranked = found.ranked
    first = ranked[0]
    assert first.accuracy is not None and first.interval is not None, "ranked without answers"
    scored = f"{percent(first.accuracy)} of {judged_images(found)}"
    low, high = first.interval
    if len(found.networks) == 1:
        return (
            f"{first.name} names {scored} correctly"
            f" (95 % interval {percent(low)} to {percent(high)})."
        )
    if len(ranked) == 1:
        return f"{lead}{first.name} is the only network that could be ranked: {scored} right."
    is_one_run = found.num_runs == 1
    subject = f"this model of {first.name}" if is_one_run else first.name
    said = f"{lead}{subject} {_said_of_first(found, first.name, f'{scored} right')}."
    return said[0].upper() + said[1:] if is_one_run else said


def _said_of_first(found: Judged, first: str, scored: str) -> str:
    """Say what is known of the network that came first, against all others."""
    is_one_run = found.num_runs == 1
    pairs = [pair for pair in found.comparisons if pair.first == first]
    beaten = [pair for pair in pairs if pair.answer == BETTER]
    equal = [pair for pair in pairs if pair.answer == EQUAL]
    undecided = [pair for pair in pairs if pair.answer in (OPEN, TOO_FEW_RUNS)]
    if beaten:
        kind = "model" if is_one_run else "network"
        whom, over = _names(beaten, is_one_run), "over "
        if len(beaten) == len(pairs) > 1:
            is_all = len(pairs) == len(found.networks) - 1
            whom = f"every other {'' if is_all else 'ranked '}{kind}"
            over = "ahead of the next, "
        said = f"is better than {whom}, with {scored}: {_gaps(beaten, over)}"
    elif pairs[0].difference == 0:
        tied = [pair for pair in pairs if pair.difference == 0]
        said = f"and {_names(tied, is_one_run)} are level, with {scored}"
    else:
        said = f"came first, with {scored}"
    if equal:
        margin = 100 * found.equal_within
        said += f", {'' if undecided else 'and '}is equal to {_names(equal, is_one_run)}"
        said += f" within ±{margin:g} points"
    if undecided:
        runs = "these models" if is_one_run else "these runs"
        from_whom = "" if len(undecided) == len(pairs) else f" from {_names(undecided, is_one_run)}"
        said += f", but {runs} do not show a difference{from_whom}: {_gaps(undecided)}"
    return said


def _lead(results: Results) -> str:
    """Return what is said before all else where our own network lost."""
    ours = [network.name for network in results.networks if network.name.is_ours]
    if not ours or results.ranked[0].name in ours:
        return ""
    noun = "network" if len(ours) == 1 else "networks"
    return f"The {noun} made with this program, {' and '.join(sorted(ours))}, did not come first: "


def _names(pairs: Sequence[Pair], is_one_run: bool) -> str:
    names = [pair.second for pair in pairs]
    prefix = "" if not is_one_run else ("that of " if len(names) == 1 else "those of ")
    return f"{prefix}{listed(names)}"


def _gaps(pairs: Sequence[Pair], over: str = "over ") -> str:
    """Say by how much the first network leads over the nearest of some others."""
    nearest = pairs[0]
    low, high = map(in_points, nearest.interval)
    to = f" {over}{nearest.second}" if len(pairs) > 1 else ""
    return f"{in_points(nearest.difference)} points{to} [{low}, {high}]"


def num_pairs(num_networks: int) -> int:
    """Return how many pairs some networks make."""
    return num_networks * (num_networks - 1) // 2


def too_few_runs(num_comparisons: int, num_runs: int, how: str = BY_OPTION) -> str | None:
    """Say that so many runs could not show any difference, None where they could.

    All of them judged on the same images.

    Args:
        num_comparisons: Pairs that are judged together.
        num_runs: Of each network.
        how: How to get more of them, `BY_OPTION` or `BY_ANSWERS`.
    """
    fewest = min_runs(num_comparisons)
    if num_comparisons == 0 or num_runs == 1 or num_runs >= fewest:
        return None
    among = "" if num_comparisons == 1 else f" among {num_comparisons} comparisons"
    return (
        f"With {num_runs} runs no difference{among}, however large, can be told from chance;"
        f" {how.format(fewest)}."
    )


def beats_guessing(network: Network, results: Results) -> bool:
    """Whether a network is better than always naming the commonest class, by more than chance."""
    return network.interval is not None and network.interval[0] > results.majority_accuracy


def worth_using(results: Results) -> bool:
    """Whether any of the ranked networks is better than always naming the commonest class."""
    return any(beats_guessing(network, results) for network in results.ranked)

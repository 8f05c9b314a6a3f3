"""The answer in words: what the final split shows, what it does not, what would decide it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from towernet.comparison.judging.pairs import BETTER, EQUAL, OPEN, TOO_FEW_RUNS, WORSE
from towernet.comparison.judging.significance import min_runs
from towernet.comparison.wording.advice import advice
from towernet.comparison.wording.pairs import called, gap_words, pairs_of_first, signed_gap
from towernet.comparison.wording.starts import about_scratch, about_starts
from towernet.records.judgement import Judged, Pair
from towernet.records.results import Network, Results
from towernet.words import listed, percent

# How to get more runs: of a comparison, and of another program's predictions.
BY_OPTION: Final = "give --runs {} or more"
BY_ANSWERS: Final = "give the answers of {} or more runs of each network"


def judged_images(found: Judged) -> str:
    """Say how many images of which kind the networks were judged on."""
    return " ".join(filter(None, (f"{found.num_judged:,}", found.split_words, "images")))


def answer_words(pair: Pair, equal_within: float) -> str:
    """Say what is known of a pair, and what would decide it."""
    return "; ".join(filter(None, (outcome_words(pair, equal_within), settling(pair))))


def outcome_words(pair: Pair, equal_within: float) -> str:
    """Say what is known of a pair."""
    return {
        BETTER: "the first is better",
        WORSE: "the first is worse",
        EQUAL: f"equal within ±{100 * equal_within:g} points",
        OPEN: "not shown",
        TOO_FEW_RUNS: "too few runs to tell",
    }[pair.answer]


def settling(pair: Pair) -> str:
    """Say what would decide a pair, '' where nothing here would."""
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
        return f"{difference} or more is unlikely, as it would probably have been shown"
    return f"about {' or '.join(ways)} would probably show {difference}"


def _rounded(number: int) -> str:
    """Return a count rounded up to two digits, as text."""
    step = max(1, 10 ** (len(str(number)) - 2))
    return f"{math.ceil(number / step) * step:,}"


def verdict(results: Results) -> str:
    """Return the answer in two or three sentences; where our own network lost, that comes first.

    Args:
        results: The ranking, its pairs, and what it is about.
    """
    if not results.ranked:
        return (
            f"No network learned enough to be ranked on {judged_images(results)}. {advice(results)}"
        )
    text = sentence(results, about_ours(results))
    return " ".join(filter(None, (text, about_scratch(results), about_starts(results))))


def sentence(found: Judged, lead: str = "") -> str:
    """Return the answer in two sentences, for the networks of any program.

    Args:
        found: A judgement with a ranked network.
        lead: What comes before everything else.
    """
    ranked = found.ranked
    first = ranked[0]
    interval = first.score_interval(found.measure)
    assert interval is not None, "ranked without answers"
    low, high = map(percent, interval)
    if len(found.networks) == 1:
        return f"{first.name} {gets_words(found)} (95 % interval {low} to {high})."
    if len(ranked) == 1:
        return (
            f"{lead}{first.name} is the only network that could be ranked: {scored_words(found)}."
        )
    pairs = pairs_of_first(found)
    if found.against not in (None, first.name):
        return f"{lead}{_came_first_but_not_alone(found, pairs)}"
    tied = [pair.second for pair in pairs if pair.difference == 0]
    is_one_run = found.num_runs == 1
    if any(pair.answer == BETTER for pair in pairs):
        is_all = len(ranked) == len(found.networks)
        place = f"{first.name} is the best {'' if is_all else 'ranked '}{_noun(found)} here"
    elif tied:
        models = "The trained models of " if is_one_run else ""
        place = f"{models}{listed([first.name, *tied])} have the same {found.measure_words}"
    else:
        place = f"{'The trained model of ' if is_one_run else ''}{first.name} came first"
    rest = about_first(found, first.name if tied else "It")
    return f"{lead}{place} ({scored_words(found)}). {rest}"


def _came_first_but_not_alone(found: Judged, pairs: Sequence[Pair]) -> str:
    """Return the answer where only pairs with another network than the first were judged.

    Args:
        found: Such a judgement.
        pairs: The pair of the two; none if the other one was not ranked.
    """
    first = found.ranked[0].name
    place = f"{'The trained model of ' if found.num_runs == 1 else ''}{first} came first"
    place = f"{place} ({scored_words(found)})"
    if any(pair.answer == BETTER for pair in pairs):
        place += f", {gap_words(pairs[0])} better than {called(pairs[0].second, found)}"
        rest = about_against(found, [pair for pair in found.comparisons if pair.first != first])
    else:
        rest = about_against(found, found.comparisons)
    return f"{place}. {rest}".rstrip()


def about_against(found: Judged, pairs: Sequence[Pair]) -> str:
    """Say which networks are better and worse than the only one they were compared with.

    Args:
        found: A judgement of such pairs.
        pairs: Those to speak of; the second is always the same.
    """
    other = next((n for n in found.networks if n.name == found.against), None)
    assert other is not None, "only a network of the judgement is compared with"
    if other.status == "failed":
        return f"{other.name} failed ({other.reason}), so no difference from it was judged."
    if other.status != "ranked":
        return f"{other.name} {other.reason}; so no difference from it was judged."
    if not pairs:
        return ""
    is_one_run, clauses = found.num_runs == 1, list[str]()

    def whom() -> str:
        return "it" if clauses else called(other.name, found)

    if all(pair.answer == TOO_FEW_RUNS for pair in pairs):
        return (
            f"{found.num_runs} runs are too few to show a difference from {whom()}:"
            f" {listed([signed_gap(pair) for pair in pairs])}."
        )
    for answer in (BETTER, WORSE):
        if some := [pair for pair in pairs if pair.answer == answer]:
            verb = "gave a" if is_one_run else "is" if len(some) == 1 else "are"
            model = " model" if is_one_run else ""
            names = listed([signed_gap(pair) for pair in some])
            clauses.append(f"{names} {verb} {answer}{model} than {whom()}")
    if equal := [pair for pair in pairs if pair.answer == EQUAL]:
        verb = "equals" if len(equal) == 1 else "equal"
        names = listed([pair.first for pair in equal])
        clauses.append(f"{names} {verb} {whom()} within ±{100 * found.equal_within:g} points")
    if undecided := [pair for pair in pairs if pair.answer in (OPEN, TOO_FEW_RUNS)]:
        names = listed([signed_gap(pair) for pair in undecided], "or")
        no = "no" if clauses else "No"
        clauses.append(f"{no} difference from {whom()} is shown for {names}")
    return f"{'; '.join(clauses)}."


def scored_words(found: Judged) -> str:
    """Say how good the network that came first is: "98.8 % of 80 test images right"."""
    score = found.ranked[0].score(found.measure)
    assert score is not None, "ranked without answers"
    if found.measure == "accuracy":
        return f"{percent(score)} of {judged_images(found)} right"
    return f"{found.measure_words} of {percent(score)} on {judged_images(found)}"


def gets_words(found: Judged) -> str:
    """Return that as a predicate: "gets 98.8 % of 80 test images right"."""
    return f"{'gets' if found.measure == 'accuracy' else 'has a'} {scored_words(found)}"


def about_first(found: Judged, subject: str) -> str:
    """Say which networks the first one beats, equals, and is not shown to differ from.

    Args:
        found: A judgement with two ranked networks or more.
        subject: Its name, or "It".
    """
    if found.against not in (None, found.ranked[0].name):
        return about_against(found, found.comparisons)
    pairs = pairs_of_first(found)
    beaten = [pair for pair in pairs if pair.answer == BETTER]
    equal = [pair for pair in pairs if pair.answer == EQUAL]
    undecided = [pair for pair in pairs if pair.answer in (OPEN, TOO_FEW_RUNS)]
    clauses = []
    if beaten:
        nearest = f"{beaten[0].second} by {gap_words(beaten[0])}"
        if len(beaten) == 1:
            whom = nearest
        elif len(beaten) < len(pairs):
            whom = f"{_names(beaten)} ({nearest})"
        else:
            is_all = len(found.ranked) == len(found.networks)
            others = f"every other {'' if is_all else 'ranked '}{_noun(found)}"
            whom = f"{others} ({beaten[0].second}, the nearest, by {gap_words(beaten[0])})"
        clauses.append(f"{subject} beats {whom}")
    if equal:
        it = "it" if beaten else subject
        clauses.append(f"{it} equals {_names(equal)} within ±{100 * found.equal_within:g} points")
    if all(pair.answer == TOO_FEW_RUNS for pair in pairs):
        over = f" over {pairs[0].second}" if len(pairs) > 1 else ""
        runs = f"{found.num_runs} runs are too few to show a difference"
        clauses.append(f"{runs}: {gap_words(pairs[0], over)}")
    elif undecided:
        from_whom = "" if len(undecided) == len(pairs) else f" from {_names(undecided, 'or')}"
        over = f" over {undecided[0].second}" if len(undecided) > 1 else ""
        no = "no" if clauses else "No"
        clauses.append(f"{no} difference{from_whom} is shown: {gap_words(undecided[0], over)}")
    return f"{'; '.join(clauses)}."


def _noun(found: Judged) -> str:
    return "model" if found.num_runs == 1 else "network"


def about_ours(results: Results) -> str:
    """Say that our own network did not come first, where that is so; else ''."""
    ours = [network.name for network in results.networks if network.name.is_ours]
    if not ours or results.ranked[0].name in ours:
        return ""
    noun = "network" if len(ours) == 1 else "networks"
    return f"{listed(sorted(ours))}, the {noun} made with this program, did not come first. "


def _names(pairs: Sequence[Pair], last: str = "and") -> str:
    return listed([pair.second for pair in pairs], last)


def too_few_runs(num_comparisons: int, num_runs: int, how: str = BY_OPTION) -> str | None:
    """Say that this number of runs cannot show any difference; None where it can.

    All of them judged on the same images.

    Args:
        num_comparisons: Pairs that are judged together.
        num_runs: Of each network.
        how: How to get more of them, `BY_OPTION` or `BY_ANSWERS`.
    """
    fewest = min_runs(num_comparisons)
    if num_comparisons == 0 or num_runs == 1 or num_runs >= fewest:
        return None
    what = "" if num_comparisons == 1 else f" for {num_comparisons} comparisons"
    return (
        f"{num_runs} runs are too few{what}: no difference, however large, can be distinguished"
        f" from chance; {how.format(fewest)}."
    )


def beats_guessing(network: Network, results: Results) -> bool:
    """Whether a network beats always predicting the most frequent class, by more than chance."""
    interval = network.score_interval(results.measure)
    return interval is not None and interval[0] > results.guessing


def guessing_words(results: Results) -> str:
    """Say what always predicting the most frequent class gives."""
    guess = percent(results.guessing)
    if results.measure == "accuracy":
        return f"gets {guess} right"
    return f"has a {results.measure_words} of {guess}"


def worth_using(results: Results) -> bool:
    """Whether any of the ranked networks beats always predicting the most frequent class."""
    return any(beats_guessing(network, results) for network in results.ranked)

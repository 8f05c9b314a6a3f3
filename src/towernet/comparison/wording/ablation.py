"""Does a block help? Each network with it against the same network without, run by run.

Both begin with the same weights outside the block and see the same images in the same order for
the same number of steps; each has the learning rate that did best in its own trials. Only these
differences are judged, all of them together.
"""

from __future__ import annotations

from collections.abc import Sequence

from towernet.comparison.judging.pairs import BETTER, EQUAL, OPEN, TOO_FEW_RUNS, WORSE
from towernet.comparison.wording.remarks import (
    about_more_images,
    about_protocol,
    about_runs,
    about_winner,
)
from towernet.comparison.wording.verdict import judged_images, settling, worth_using
from towernet.names import USUAL_PLACE
from towernet.records.judgement import Answer, Pair
from towernet.records.results import Results, Variant
from towernet.words import in_points, listed, percent

# In the words of `attach`.
_PLACES = {
    "blocks": "before residual additions, else where branches join, else at the ends of stages",
    "stages": "where stages end",
    "last-of-stage": "in the last block of each stage",
}
_STARTS = {
    "paper": "as its authors begin it",
    "identity": "blended in from nothing (x + gain·(block(x) − x), gain 0)",
}


def about_blocks(variants: Sequence[Variant]) -> list[str]:
    """Say where each block stood, how it began, and who describes it."""
    places: dict[str, list[tuple[str, str]]] = {}
    for variant in variants:
        asked = variant.name
        if asked.where is None and asked.is_ours:
            where = f"in {variant.network}'s own places"
        else:
            where = _PLACES.get(asked.where or USUAL_PLACE, f"behind {asked.where}")
        places.setdefault(f"{where}, and began {_STARTS[asked.block_start]}", []).append(
            (variant.network, variant.block)
        )
    all_networks, said = {variant.network for variant in variants}, []
    for how, stood in places.items():
        networks, blocks = (list(dict.fromkeys(names)) for names in zip(*stood, strict=True))
        # One's own places are named after it.
        is_said = len(networks) == len(all_networks) or "own places" in how
        said.append(f"{'' if is_said else f'In {listed(networks)}, '}{listed(blocks)} stood {how}.")
    papers = {variant.plain_block: variant.paper for variant in variants}
    sources = [f"{block}: {paper}" for block, paper in papers.items() if paper]
    return said + ([f"Sources: {'; '.join(sources)}."] if sources else [])


def answer_in_words(answer: Answer, equal_within: float, num_runs: int) -> str:
    """Say what a block did, by the answer of its pair."""
    return {
        BETTER: "helped" if num_runs > 1 else "gave a better model",
        WORSE: "harmed" if num_runs > 1 else "gave a worse model",
        EQUAL: f"equal within ±{100 * equal_within:g} points",
        OPEN: "not shown",
        TOO_FEW_RUNS: "too few runs",
    }[answer]


def signed_points(fraction: float) -> str:
    """Write a difference in percentage points with its sign."""
    return f"{'+' if fraction > 0 else ''}{in_points(fraction)}"


def sentence(results: Results) -> str:
    """Say of each network which blocks helped, harmed, or cannot be told.

    Args:
        results: With `ablation`, the variants, and `comparisons`, their pairs.
    """
    variants = results.ablation or ()
    pairs = {pair.first: pair for pair in results.comparisons}
    by_answer: dict[str, list[str]] = {}
    for network in dict.fromkeys(variant.network for variant in variants):
        own = [variant for variant in variants if variant.network == network]
        judged = [(variant.block, pairs[variant.name]) for variant in own if variant.name in pairs]
        left_out = [variant.block for variant in own if variant.name not in pairs]
        parts = _answers(judged, results)
        if left_out:
            parts.append(f"{listed(left_out)} could not be judged")
        by_answer.setdefault("; ".join(parts), []).append(network)
    said = (f"in {listed(networks)} {answer}" for answer, networks in by_answer.items())
    return ". ".join(f"{words[0].upper()}{words[1:]}" for words in said) + "."


def _answers(judged: list[tuple[str, Pair]], results: Results) -> list[str]:
    by_answer: dict[Answer, list[tuple[str, Pair]]] = {}
    for block, pair in judged:
        answer = OPEN if pair.answer == TOO_FEW_RUNS else pair.answer
        by_answer.setdefault(answer, []).append((block, pair))
    parts = [
        f"{listed([_with_gap(block, pair) for block, pair in by_answer[answer]])}"
        f" {answer_in_words(answer, results.equal_within, results.num_runs)}"
        for answer in (BETTER, WORSE)
        if answer in by_answer
    ]
    if EQUAL in by_answer:
        names = listed([block for block, _ in by_answer[EQUAL]])
        parts.append(f"{names} changed nothing beyond ±{100 * results.equal_within:g} points")
    if OPEN in by_answer:
        names = listed([block for block, _ in by_answer[OPEN]], "or")
        runs = "these models do" if results.num_runs == 1 else "these runs do"
        parts.append(f"{runs} not show that {names} makes a difference")
    return parts


def _with_gap(block: str, pair: Pair) -> str:
    low, high = map(in_points, pair.interval)
    return f"{block} ({signed_points(pair.difference)} points [{low}, {high}])"


def remarks(results: Results) -> list[str]:
    """Return what a careful reader should know beside the answer."""
    variants, pairs = results.ablation or (), results.comparisons
    return [
        *_about_likes(results, variants),
        *_about_rates(results),
        *_about_intervals(results),
        *_about_proofs(variants),
        *about_protocol(results, "can change what a block does"),
        *_about_winner(results),
        *about_more_images(results),
        *about_runs(results, len(pairs)),
    ]


def _about_likes(results: Results, variants: Sequence[Variant]) -> list[str]:
    """Say how good the networks are without a block, and what those with one share with them."""
    without = {variant.network: variant.without for variant in variants}
    accuracies = {network.name: network.accuracy for network in results.networks}
    scored = [
        f"{network} {percent(accuracy)}"
        for network, name in without.items()
        if (accuracy := accuracies[name]) is not None
    ]
    said = []
    if scored:
        said.append(f"Right without attention, of {judged_images(results)}: {listed(scored)}.")
    said += [
        f"{network} has shuffle attention of its own: without it, it is called {name}."
        for network, name in without.items()
        if name.is_ours
    ]
    said.append(
        "A network with a block and without it had the same images in the same order, as many steps"
        " and the same first weights outside the block."
        + (
            " Where short trials told learning rates apart, each had the one best in its own."
            if any(len(network.trials) > 1 for network in results.networks)
            else ""
        )
    )
    return said


def _about_rates(results: Results) -> list[str]:
    """Say where a part of the difference may be the learning rate's."""
    rates: dict[str, float] = {n.name: n.learning_rate for n in results.networks}
    other = [pair.first for pair in results.comparisons if rates[pair.first] != rates[pair.second]]
    if not other:
        return []
    return [
        f"{listed(other)} had another learning rate than without the block: a part of such a"
        " difference may be the rate's."
    ]


def _about_intervals(results: Results) -> list[str]:
    """Say what the intervals hold, and what would settle the widest gap that is not settled."""
    pairs, said = results.comparisons, []
    if pairs:
        sample = "images" if results.num_runs == 1 else "runs and images"
        at_once = f", for all {len(pairs)} differences at once" if len(pairs) > 1 else ""
        said.append(f"Intervals are 95 %{at_once}, and allow for other {sample} of the same kind.")
    undecided = [pair for pair in pairs if pair.answer in (OPEN, TOO_FEW_RUNS)]
    widest = max(undecided, key=lambda pair: abs(pair.difference), default=None)
    if widest is not None and (ways := settling(widest)):
        said.append(f"Of {widest.first}: {ways}.")
    return said


def _about_proofs(variants: Sequence[Variant]) -> list[str]:
    return [
        f"In {variant.name} not every block had gradients and gates that moved: its figures say"
        " little of the block."
        for variant in variants
        if variant.parameters and variant.proof is not None and not variant.proof.learns
    ]


def _about_winner(results: Results) -> list[str]:
    """Say which network to use; one with a block only where the block is shown to help."""
    winner = results.winner and results.winner.name
    pair = next((pair for pair in results.comparisons if pair.first == winner), None)
    if pair is None or pair.answer == BETTER or not worth_using(results):
        return about_winner(results)
    return [
        f"{winner} was the best on the validation images, but is not shown to be better than"
        f" {pair.second}, which does without the block and is the simpler choice."
    ]

"""Does a block help? Each network with it is compared with the same network without, run by run.

Both start with the same weights outside the block and see the same images in the same order for
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
from towernet.words import in_points, listed, percent, signed_points

# The places that `attach` knows.
_PLACES = {
    "blocks": "before residual additions, else where branches join, else at the ends of stages",
    "stages": "at the ends of stages",
    "last-of-stage": "in the last block of each stage",
}
_STARTS = {
    "paper": "as in its paper",
    "identity": "without any effect (x + gain·(block(x) − x), gain 0)",
}


def about_blocks(variants: Sequence[Variant]) -> list[str]:
    """Say where each block was inserted, how it started, and which paper describes it."""
    places: dict[str, list[tuple[str, str]]] = {}
    for variant in variants:
        asked = variant.name
        if asked.where is None and asked.is_ours:
            where = f"in {variant.network}'s own places"
        else:
            where = _PLACES.get(asked.where or USUAL_PLACE, f"after {asked.where}")
        places.setdefault(f"{where} and started {_STARTS[asked.block_start]}", []).append(
            (variant.network, variant.block)
        )
    all_networks, sentences = {variant.network for variant in variants}, []
    for how, inserted in places.items():
        networks, blocks = (list(dict.fromkeys(names)) for names in zip(*inserted, strict=True))
        # A network's own places are named after it.
        is_clear = len(networks) == len(all_networks) or "own places" in how
        whom = "" if is_clear else f"In {listed(networks)}, "
        verb = "was" if len(blocks) == 1 else "were"
        sentences.append(f"{whom}{listed(blocks)} {verb} inserted {how}.")
    papers = {variant.plain_block: variant.paper for variant in variants}
    sources = [f"{block}: {paper}" for block, paper in papers.items() if paper]
    return sentences + ([f"Sources: {'; '.join(sources)}."] if sources else [])


def answer_in_words(answer: Answer, equal_within: float, num_runs: int) -> str:
    """Say what a block did, from the answer of its pair."""
    return {
        BETTER: "helped" if num_runs > 1 else "gave a better model",
        WORSE: "harmed" if num_runs > 1 else "gave a worse model",
        EQUAL: f"equal within ±{100 * equal_within:g} points",
        OPEN: "not shown",
        TOO_FEW_RUNS: "too few runs",
    }[answer]


def sentence(results: Results) -> str:
    """Say for each network which blocks helped, which harmed, and which show no difference.

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
    return " ".join(f"In {listed(networks)}, {answer}." for answer, networks in by_answer.items())


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
        margin = f"±{100 * results.equal_within:g} points"
        parts.append(f"{names} changed {results.measure_words} by less than {margin}")
    if OPEN in by_answer:
        names = listed([block for block, _ in by_answer[OPEN]], "or")
        parts.append(f"no effect of {names} is shown")
    return parts


def _with_gap(block: str, pair: Pair) -> str:
    low, high = map(in_points, pair.interval)
    return f"{block} ({signed_points(pair.difference)} points [{low}, {high}])"


def remarks(results: Results) -> list[str]:
    """Return what a careful reader should know besides the answer."""
    variants, pairs = results.ablation or (), results.comparisons
    return [
        *_about_likes(results, variants),
        *_about_rates(results),
        *_about_intervals(results),
        *_about_proofs(variants),
        *about_protocol(results, "can change what a block does"),
        *about_choice(results),
        *about_more_images(results),
        *about_runs(results, len(pairs)),
    ]


def _about_likes(results: Results, variants: Sequence[Variant]) -> list[str]:
    """Say how good the networks are without a block, and what was the same with one."""
    without = {variant.network: variant.without for variant in variants}
    scores = {network.name: network.score(results.measure) for network in results.networks}
    scored = [
        f"{network} {percent(score)}"
        for network, name in without.items()
        if (score := scores[name]) is not None
    ]
    sentences = []
    if scored:
        sentences.append(
            f"{results.measure_words.capitalize()} without attention on"
            f" {judged_images(results)}: {listed(scored)}."
        )
    sentences += [
        f"{network} includes shuffle attention; without it, it is called {name}."
        for network, name in without.items()
        if name.is_ours
    ]
    sentences.append(
        "With a block and without it, a network had the same images in the same order, the same"
        " number of steps and the same initial weights outside the block."
        + (
            " Each had the learning rate that was best in its own short trials."
            if any(len(network.trials) > 1 for network in results.networks)
            else ""
        )
    )
    return sentences


def _about_rates(results: Results) -> list[str]:
    """Say where the learning rate may cause part of the difference."""
    rates: dict[str, float] = {n.name: n.learning_rate for n in results.networks}
    other = [pair.first for pair in results.comparisons if rates[pair.first] != rates[pair.second]]
    if not other:
        return []
    return [
        f"{listed(other)} had a different learning rate than without the block, which may cause"
        " part of the difference."
    ]


def _about_intervals(results: Results) -> list[str]:
    """Say what the intervals cover, and what would decide the largest open difference."""
    pairs, sentences = results.comparisons, []
    if pairs:
        sample = "images" if results.num_runs == 1 else "runs and images"
        at_once = f", for all {len(pairs)} differences at once" if len(pairs) > 1 else ""
        sentences.append(
            f"Intervals are 95 %{at_once}; they cover other {sample} of the same kind."
        )
    undecided = [pair for pair in pairs if pair.answer in (OPEN, TOO_FEW_RUNS)]
    widest = max(undecided, key=lambda pair: abs(pair.difference), default=None)
    if widest is not None and (ways := settling(widest)):
        sentences.append(f"For {widest.first}: {ways}.")
    return sentences


def _about_proofs(variants: Sequence[Variant]) -> list[str]:
    return [
        f"In {variant.name}, some blocks had no gradients or gates that never changed: its figures"
        " say little about the block."
        for variant in variants
        if variant.parameters and variant.proof is not None and not variant.proof.learns
    ]


def about_choice(results: Results) -> list[str]:
    """Say which network to use; one with a block only where the block is shown to help."""
    winner = results.winner and results.winner.name
    pair = next((pair for pair in results.comparisons if pair.first == winner), None)
    if pair is None or pair.answer == BETTER or not worth_using(results):
        return about_winner(results)
    return [
        f"{winner} was the best on the validation images, but is not shown to beat {pair.second},"
        " which has no such block and is the simpler choice."
    ]

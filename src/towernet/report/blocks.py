"""What the report says about attention: what each block did, and whether it learnt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from towernet.comparison.wording.ablation import about_blocks, answer_in_words
from towernet.comparison.wording.verdict import settling
from towernet.names import NetworkName
from towernet.records.judgement import Pair
from towernet.records.results import AttentionEpoch, Measured, Results, Variant
from towernet.report import figures


@dataclass(frozen=True)
class BlockRow:
    """What a block did to a network.

    Args:
        block: Its name.
        accuracy: With it, by the measure.
        pair: With it against without; None where that could not be judged.
        answer: What became of the pair, in words.
        reason: Why it could not be judged.
        parameters: Those the block adds.
        speed: Images a second while training, as a multiple of without.
        time: For one image, as a multiple of without.
    """

    block: str
    accuracy: float | None
    pair: Pair | None
    answer: str
    reason: str
    parameters: int
    speed: float | None
    time: float | None


@dataclass(frozen=True)
class Group:
    """A network with every block; its accuracy is that without."""

    network: str
    accuracy: float | None
    rows: tuple[BlockRow, ...]


@dataclass(frozen=True)
class ProofRow:
    """That a network's blocks were there, and whether they learnt; its line in the pictures."""

    name: str
    colour: int
    dash: str
    num_blocks: int
    epochs: tuple[AttentionEpoch, ...]
    learns_words: str


@dataclass(frozen=True)
class Ablation:
    """What each block did, and that it was there.

    Args:
        groups: One of each network.
        blocks: Where each block was inserted, how it started, its paper: sentences.
        proof: What can be told of the networks' blocks while they trained.
        has_gain: Whether some of them were blended in.
        gradients: Their norms against the epoch.
        gates: Their spread against the epoch.
    """

    groups: tuple[Group, ...]
    blocks: tuple[str, ...]
    proof: tuple[ProofRow, ...]
    has_gain: bool
    gradients: Markup
    gates: Markup


def ablation_section(results: Results, measured: Mapping[NetworkName, Measured]) -> Ablation | None:
    """Return what each block did and that it was there, None where that was not the question."""
    variants = results.ablation
    if not variants:
        return None
    proof = [row for index, variant in enumerate(variants) if (row := _proof(variant, index))]
    return Ablation(
        groups=tuple(
            Group(
                network,
                next(
                    results.network(v.without).score(results.measure)
                    for v in variants
                    if v.network == network
                ),
                tuple(_row(v, results, measured) for v in variants if v.network == network),
            )
            for network in dict.fromkeys(variant.network for variant in variants)
        ),
        blocks=tuple(about_blocks(variants)),
        proof=tuple(proof),
        has_gain=any(row.epochs[0].gain is not None for row in proof),
        gradients=_drawn(
            variants, "gradient_norm", "norm of the gradients", lambda epoch: epoch.gradient_norm
        ),
        gates=_drawn(
            variants, "gate_spread", "spread of the gates", lambda epoch: epoch.gate_spread
        ),
    )


def _row(variant: Variant, results: Results, measured: Mapping[NetworkName, Measured]) -> BlockRow:
    network, without = results.network(variant.name), results.network(variant.without)
    pair = next((pair for pair in results.comparisons if pair.first == variant.name), None)
    timed, timed_without = measured[variant.name], measured[variant.without]
    return BlockRow(
        block=variant.block,
        accuracy=network.score(results.measure),
        pair=pair,
        answer="" if pair is None else _answer(pair, results),
        reason=network.reason or f"{without.name} {without.reason}",
        parameters=variant.parameters,
        speed=_ratio(timed.images_per_second, timed_without.images_per_second),
        time=_ratio(timed.latency_ms, timed_without.latency_ms),
    )


def _answer(pair: Pair, results: Results) -> str:
    words = answer_in_words(pair.answer, results.equal_within, results.num_runs)
    return "; ".join(filter(None, (words, settling(pair))))


def _ratio(with_block: float | None, without: float | None) -> float | None:
    return with_block / without if with_block and without else None


def _proof(variant: Variant, index: int) -> ProofRow | None:
    found = variant.proof
    if found is None:
        return None
    line = figures.Curve(variant.name, (), index)
    words = "yes" if found.learns else "no"
    return ProofRow(
        variant.name,
        line.colour,
        line.dash,
        found.num_blocks,
        found.epochs,
        words if variant.parameters else "has no parameters",
    )


def _drawn(
    variants: Sequence[Variant],
    key: str,
    label: str,
    value: Callable[[AttentionEpoch], float],
) -> Markup:
    curves = [
        figures.curve(variant.name, index, [variant.proof.epochs], value)
        for index, variant in enumerate(variants)
        if variant.proof is not None
    ]
    return figures.learning_curves(
        curves,
        key=key,
        label=label,
        is_fraction=False,
        title=f"The {label} of every network with attention against the epoch; the table below"
        " lists the first and the last value.",
    )

"""Which pairs of networks show the effect of a block, and the proof that the block learnt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from towernet.engine.runlog import read_metrics
from towernet.records.judgement import JudgedNetwork
from towernet.records.results import AttentionEpoch, Proof, VariantName
from towernet.records.run import BlockFigures, EpochMetrics


def judged_pairs(
    variants: Sequence[VariantName], networks: Sequence[JudgedNetwork]
) -> list[tuple[str, str]]:
    """Return the pairs that can be judged: both have an accuracy, and at least one learnt.

    Args:
        variants: The networks with a block, each with the name of the same network without one.
        networks: All networks.
    """
    evaluated = {network.name for network in networks if network.accuracy is not None}
    learnt = {network.name for network in networks if network.status == "ranked"}
    pairs = [(variant.name, variant.without) for variant in variants]
    return [pair for pair in pairs if evaluated.issuperset(pair) and learnt.intersection(pair)]


def proof(folders: Sequence[Path]) -> Proof | None:
    """Return what a network's attention did during training, None if it has no attention.

    Attention learns if, in every run, gradients reached every block at the end of each epoch, and
    its gates changed between the first and the last epoch. Only epochs that all runs have are
    included.

    Args:
        folders: The folders of its runs.

    Raises:
        DataError: the metrics of a run are damaged.
    """
    runs = [read_metrics(folder) for folder in folders]
    if not runs or not all(run and all(row.attention is not None for row in run) for run in runs):
        return None
    epochs = []
    for rows in zip(*runs, strict=False):
        of_blocks = [figures for row in rows for figures in _blocks(row).values()]
        gains = [figures.gain for figures in of_blocks if figures.gain is not None]
        epochs.append(
            AttentionEpoch(
                epoch=rows[0].epoch,
                gain=fmean(gains) if gains else None,
                gradient_norm=fmean(figures.gradient_norm for figures in of_blocks),
                gate_mean=fmean(figures.gate_mean for figures in of_blocks),
                gate_spread=fmean(figures.gate_spread for figures in of_blocks),
            )
        )
    return Proof(
        num_blocks=len(_blocks(runs[0][0])), learns=all(map(_learns, runs)), epochs=tuple(epochs)
    )


def _blocks(row: EpochMetrics) -> dict[str, BlockFigures]:
    return row.attention or {}


def _learns(run: Sequence[EpochMetrics]) -> bool:
    """Whether every block of a run had gradients, and gates that changed."""
    for name in _blocks(run[0]):
        figures = [_blocks(row)[name] for row in run]
        first, last = ((f.gate_mean, f.gate_spread) for f in (figures[0], figures[-1]))
        # One epoch cannot show a change, and a softmax over a map of one position is always 1.
        changed = len(run) == 1 or first != last or last == (1.0, 0.0)
        if not (changed and all(f.gradient_norm > 0 for f in figures)):
            return False
    return True

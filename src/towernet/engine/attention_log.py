"""Figures of a network's attention blocks during training: evidence that they learn."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from towernet.attention.base import AttentionBlock
from towernet.attention.blend import FromIdentity
from towernet.attention.inserted import attention_blocks
from towernet.attention.maps import map_of, observing
from towernet.records.run import BlockFigures

NUM_IMAGES = 16  # whose gates are measured: a map of all channels and positions is large


class Gates(NamedTuple):
    """The mean and the standard deviation of an attention map, all channels and positions."""

    mean: float
    spread: float


@contextlib.contextmanager
def watched_gates(model: nn.Module) -> Iterator[dict[str, Gates]]:
    """Measure the gates of a network's attention blocks in its next forward pass.

    Yields:
        The gates of each block, by name, for the first images of the batch. Filled by the forward
        pass; empty for a network without attention.
    """
    seen: dict[str, Gates] = {}

    def measure(name: str, block: AttentionBlock, x_BCHW: Tensor) -> None:
        if name not in seen:
            gates = map_of(block, x_BCHW[:NUM_IMAGES]).float()
            deviation, mean = torch.std_mean(gates, correction=0)
            seen[name] = Gates(mean.item(), deviation.item())

    with observing(model, measure):
        yield seen


def attention_figures(model: nn.Module, gates: dict[str, Gates]) -> dict[str, BlockFigures]:
    """Return the figures of each attention block in an epoch, by the block's name.

    Args:
        model: The network that is trained, with the gradients of its last step.
        gates: Those of the network that is evaluated.
    """
    return {
        name: BlockFigures(
            gate_mean=gates[name].mean,
            gate_spread=gates[name].spread,
            gradient_norm=gradient_norm(block),
            gain=block.gain.item() if isinstance(block, FromIdentity) else None,
        )
        for name, block in attention_blocks(model).items()
    }


def gradient_norm(module: nn.Module) -> float:
    """Return the norm of all gradients of a module's parameters, taken as one vector."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    return torch.nn.utils.get_total_norm(gradients).item() if gradients else 0.0

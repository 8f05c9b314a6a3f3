"""What a network's attention does while it trains: the proof that it is there and learns."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from towernet.attention.attach import FromIdentity, attention_blocks
from towernet.attention.base import AttentionBlock
from towernet.attention.maps import map_of, watching

NUM_IMAGES = 16  # whose gates are looked at: a map of all channels and positions is large

Figures = dict[str, dict[str, float]]


@contextlib.contextmanager
def watched_gates(model: nn.Module) -> Iterator[Figures]:
    """Look at the gates of a network's attention while it answers for its next batch.

    Yields:
        For each block by name "gate_mean" and "gate_spread", the mean and the standard deviation of
        its attention map over the batch's first images, all channels and positions. Filled when
        the batch has been answered; empty where a network has no attention.
    """
    figures: Figures = {}

    def look(name: str, block: AttentionBlock, x_BCHW: Tensor) -> None:
        if name not in figures:
            gates = map_of(block, x_BCHW[:NUM_IMAGES]).float()
            deviation, mean = torch.std_mean(gates, correction=0)
            figures[name] = {"gate_mean": mean.item(), "gate_spread": deviation.item()}

    with watching(model, look):
        yield figures


def attention_figures(model: nn.Module, gates: Figures) -> Figures:
    """Return the gates' figures with "gradient_norm", and "gain" where a block is blended in.

    Args:
        model: The network that is trained, with the gradients of its last step.
        gates: What was seen of the one that is evaluated.
    """
    found = {}
    for name, block in attention_blocks(model).items():
        found[name] = gates[name] | {"gradient_norm": gradient_norm(block)}
        if isinstance(block, FromIdentity):
            found[name]["gain"] = block.gain.item()
    return found


def gradient_norm(module: nn.Module) -> float:
    """Return the norm of all gradients of a module's parameters together."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    return torch.nn.utils.get_total_norm(gradients).item() if gradients else 0.0

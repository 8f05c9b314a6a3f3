"""What a network's attention does while it trains: the proof that it is there and learns."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from towernet.attention.attach import FromIdentity, attention_blocks
from towernet.attention.base import AttentionBlock, full_precision

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

    def look(name: str) -> Any:
        def hook(block: AttentionBlock, inputs: tuple[Tensor]) -> None:
            if name in figures:
                return
            x_BCHW = inputs[0][:NUM_IMAGES]
            with full_precision(x_BCHW.device.type):
                gates = block.attention_map(x_BCHW).float()
            deviation, mean = torch.std_mean(gates, correction=0)
            figures[name] = {"gate_mean": mean.item(), "gate_spread": deviation.item()}

        return hook

    blocks = attention_blocks(model)
    hooks = [block.register_forward_pre_hook(look(name)) for name, block in blocks.items()]
    try:
        yield figures
    finally:
        for hook in hooks:
            hook.remove()


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

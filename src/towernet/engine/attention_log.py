"""What a network's attention does while it trains: the proof that it is there and learns.

Shapes: N images, S their side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from towernet.attention.attach import FromIdentity, attention_blocks
from towernet.attention.base import AttentionBlock, full_precision
from towernet.data.contract import Contract
from towernet.engine.device import Policy
from towernet.engine.evaluate import BATCH_SIZE, predict_logits


def attention_figures(
    model: nn.Module,
    evaluated: nn.Module,
    pixels_NSS3: npt.NDArray[np.uint8],
    rows: npt.NDArray[np.int64],
    contract: Contract,
    policy: Policy,
) -> dict[str, dict[str, float]]:
    """Return figures of each attention block by name; none where a network has no attention.

    Each is {"gradient_norm", "gate_mean", "gate_spread"}, and "gain" where the block is blended in:
    the norm of its parameters' gradients at the last step, the mean and the standard deviation of
    its attention map over images, channels and positions, and by how much it is blended in.

    Args:
        model: The network that is trained, with the gradients of its last step.
        evaluated: The one that is evaluated: its weights averaged.
        pixels_NSS3: All fitted images.
        rows: Those to look at; the first batch of them is.
        contract: How pixels become numbers.
        policy: Device, number format, layout.
    """
    blocks = attention_blocks(evaluated)
    if not blocks:
        return {}
    maps: dict[str, tuple[float, float]] = {}

    def look(name: str) -> Any:
        def hook(block: AttentionBlock, inputs: tuple[Tensor]) -> None:
            with full_precision(policy.device):
                gates = block.attention_map(inputs[0]).double()
            maps[name] = (gates.mean().item(), gates.std(correction=0).item())

        return hook

    hooks = [block.register_forward_pre_hook(look(name)) for name, block in blocks.items()]
    try:
        predict_logits(evaluated, pixels_NSS3, contract, policy, rows=rows[:BATCH_SIZE])
    finally:
        for hook in hooks:
            hook.remove()
    figures = {}
    for name, block in attention_blocks(model).items():
        mean, spread = maps[name]
        figures[name] = {
            "gradient_norm": gradient_norm(block),
            "gate_mean": mean,
            "gate_spread": spread,
        }
        if isinstance(block, FromIdentity):
            figures[name]["gain"] = block.gain.item()
    return figures


def gradient_norm(module: nn.Module) -> float:
    """Return the norm of all gradients of a module's parameters together."""
    squares = [
        parameter.grad.double().square().sum()
        for parameter in module.parameters()
        if parameter.grad is not None
    ]
    return torch.stack(squares).sum().sqrt().item() if squares else 0.0

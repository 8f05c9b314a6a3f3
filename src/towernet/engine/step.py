"""One optimiser step, and the averaged weights that are evaluated."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from towernet import torch_private
from towernet.attention.inserted import attention_blocks
from towernet.config import TrainConfig
from towernet.engine.device import Policy


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images_BCHW: Float[Tensor, "B C H W"],
    targets: Int[Tensor, " B"] | Float[Tensor, "B K"],
    *,
    label_smoothing: float,
    policy: Policy,
    adjustment_K: Float[Tensor, " K"] | None = None,
    fixed_norms: Sequence[nn.Module] = (),
) -> tuple[Float[Tensor, ""], Float[Tensor, "B K"]]:
    """Take one optimiser step; return the batch's mean cross-entropy, in nats, and its logits.

    Targets are classes or probabilities. In the loss, `adjustment_K` is added to the logits. The
    statistics of `fixed_norms` are used as in evaluation, and do not change. The results are still
    on the device, since `.item()` waits for a GPU: the caller decides when.
    """
    model.train()
    for norm in fixed_norms:
        norm.training = False  # not eval(), which reaches an attention block attached to it
    optimizer.zero_grad(set_to_none=True)
    with policy.autocast():
        logits_BK = model(images_BCHW)
    compared_BK = logits_BK.float()
    if adjustment_K is not None:
        compared_BK = compared_BK + adjustment_K
    loss = F.cross_entropy(compared_BK, targets, label_smoothing=label_smoothing)
    loss.backward()
    optimizer.step()
    return loss.detach(), logits_BK.detach().float()


def norms_to_fix(model: nn.Module, config: TrainConfig) -> list[nn.Module]:
    """Return the batch norms whose running statistics a recipe fixes; none by default.

    Those inside attention blocks are not fixed: no pre-trained weights have attention blocks.
    """
    if config.norm_statistics == "batch":
        return []
    blocks = attention_blocks(model).values()
    of_attention = {module for block in blocks for module in block.modules()}
    return [
        module
        for module in model.modules()
        if isinstance(module, torch_private.BATCH_NORM)
        and module.track_running_stats
        and module not in of_attention
    ]


def average_weights(model: nn.Module, ema_fraction: float, num_steps: int) -> AveragedModel:
    """Return a running average of weights and statistics over a share of all the steps.

    It warms up: after t updates the decay is at most (t + 1) / (t + 10).
    """
    longest = max(1 - 1 / max(ema_fraction * num_steps, 1.0), 0.0)

    def update(
        averaged: Sequence[Tensor], current: Sequence[Tensor], num_averaged: Tensor | int
    ) -> None:
        if not averaged[0].is_floating_point():
            for old, new in zip(averaged, current, strict=True):
                old.copy_(new)
            return
        num_updates = int(num_averaged)
        keep = min(longest, (1 + num_updates) / (10 + num_updates))
        get_ema_multi_avg_fn(keep)(list(averaged), list(current), num_averaged)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)

"""All that resuming needs, besides the plan: where a run is, and its tensors by name."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


@dataclass
class State:
    """Where a run is; with the tensors, all that resuming needs.

    Args:
        run: Hash of the run's config and plan: a state counts for that run alone.
        step: Steps taken.
        loss_sum: Of the epoch so far, as the next two.
        seconds: Of the epoch so far, before the run was stopped; measured.
        best: The file of the best weights and its hash, once there are any.
        metrics: The lines of `metrics.jsonl`.
        timings: The lines of `timings.jsonl`.
    """

    run: str
    step: int = 0
    loss_sum: float = 0.0
    num_correct: int = 0
    num_seen: int = 0
    seconds: float = 0.0
    best_epoch: float | None = None
    best_accuracy: float = -1.0
    best_loss: float = math.inf
    best: dict[str, str] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    timings: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return plain values; JSON has no infinity, so no best loss is null."""
        values = asdict(self)
        return values | {"best_loss": self.best_loss if self.best_epoch is not None else None}

    @staticmethod
    def from_json(values: dict[str, Any]) -> State:
        """Rebuild what `to_json` gave."""
        best_loss = math.inf if values["best_loss"] is None else values["best_loss"]
        return State(**values | {"best_loss": best_loss})


def state_tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer, averaged: AveragedModel | None
) -> dict[str, Tensor]:
    """Name every tensor that resuming needs."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    if averaged is not None:
        tensors |= {f"averaged.{name}": tensor for name, tensor in averaged.state_dict().items()}
    for i, parameter in enumerate(_parameters(optimizer)):
        if (momentum := optimizer.state[parameter].get("momentum_buffer")) is not None:
            tensors[f"momentum.{i}"] = momentum
    return tensors


def restore_tensors(
    tensors: dict[str, Tensor],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    averaged: AveragedModel | None,
) -> None:
    """Put back what `state_tensors` named."""

    def part(prefix: str) -> dict[str, Tensor]:
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in tensors.items()
            if name.startswith(prefix)
        }

    model.load_state_dict(part("model."))
    if averaged is not None:
        averaged.load_state_dict(part("averaged."))
    momenta = part("momentum.")
    for i, parameter in enumerate(_parameters(optimizer)):
        if (momentum := momenta.get(str(i))) is not None:
            # Same memory layout as the parameter: the fused step walks both together.
            buffer = torch.empty_like(parameter).copy_(momentum)
            optimizer.state[parameter]["momentum_buffer"] = buffer


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]

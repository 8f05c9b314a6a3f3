"""What a run trains: the network, its optimiser, and the running average of its weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor, nn

from towernet import rng
from towernet.config import Recipe, RunConfig
from towernet.engine.batches import Batch
from towernet.engine.device import Policy
from towernet.engine.optimizer import make_optimizer, set_learning_rate
from towernet.engine.step import average_weights, norms_to_fix, train_step
from towernet.models.catalogue import build
from towernet.models.paddle import paddle_initial_weights
from towernet.models.variants import insert_attention
from towernet.records.contract import Contract
from towernet.records.run import Plan


def run_seed(config: RunConfig) -> int:
    """Return the seed of a run's random draws; all networks of one repetition share it."""
    return rng.derive(config.seed, "run", config.repetition)


def initial_model(
    config: RunConfig,
    num_classes: int,
    size_px: int,
    started: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """Build the network with initial weights from its seed.

    Args:
        config: The run's config.
        num_classes: K.
        size_px: Side of its images.
        started: All tensors of the network without its attention, where it starts from weights.
    """
    seed = rng.derive(run_seed(config), "weights")
    torch.manual_seed(seed)
    if started is not None:
        model = build(config.model.without_block(), num_classes, size_px)
        model.load_state_dict(started)
        insert_attention(model, config.model, size_px)
        return model
    model = build(config.model, num_classes, size_px)
    if config.recipe.train.initial_weights == "paddle":
        paddle_initial_weights(model, seed)
    return model


def logit_adjustment(num_train_K: npt.NDArray[np.int64], tau: float) -> npt.NDArray[np.float32]:
    """Return what is added to the logits in the loss: tau · log of each class's share.

    A class counts as having half an image more, so that one without images has a finite value.

    Source: Menon et al., Long-tail learning via logit adjustment, ICLR 2021, arXiv:2007.07314, eq.
    10 (its class probabilities are the shares; they have no half an image).

    Example:
        >>> [round(float(value), 3) for value in logit_adjustment(np.array([40, 40]), 1.0)]
        [-0.693, -0.693]
    """
    share_K = (num_train_K + 0.5) / (num_train_K + 0.5).sum()
    adjustment_K: npt.NDArray[np.float32] = (tau * np.log(share_K)).astype(np.float32)
    return adjustment_K


class Learner:
    """A network with initial weights from its seed, and everything that changes with each step.

    Args:
        config: The run's config.
        recipe: How it trains.
        plan: What was decided before the first step.
        contract: The network's classes and input.
        num_train_K: How many training images each class has.
        started: As for `initial_model`.
    """

    def __init__(
        self,
        config: RunConfig,
        recipe: Recipe,
        plan: Plan,
        contract: Contract,
        num_train_K: npt.NDArray[np.int64],
        started: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.recipe, self.policy = recipe.train, Policy.of(plan.policy)
        model = initial_model(config, len(contract.class_names), contract.size_px, started)
        self.model = self.policy.place(model)
        self.optimizer = make_optimizer(
            self.model, self.recipe, config.model, self.policy.torch_dtype
        )
        self.fixed_norms = norms_to_fix(self.model, self.recipe)
        self.adjustment_K = None
        if tau := self.recipe.logit_adjustment:
            adjustment_K = logit_adjustment(num_train_K, tau)
            self.adjustment_K = torch.from_numpy(adjustment_K).to(self.policy.device)
        self.averaged = (
            average_weights(self.model, self.recipe.ema_fraction, plan.num_steps)
            if self.recipe.ema_fraction
            else None
        )

    @property
    def evaluated(self) -> nn.Module:
        """The network that is evaluated and kept: the average, if the recipe has one."""
        return self.model if self.averaged is None else self.averaged.module

    def take_step(
        self, batch: Batch, rate: float, seed: int
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "B K"]]:
        """Train on one batch; return its mean loss and the logits, still on the device."""
        set_learning_rate(self.optimizer, rate)
        # Dropout draws from torch's generator; seeded by the step, its state need not be saved.
        torch.manual_seed(seed)
        loss, logits_BK = train_step(
            self.model,
            self.optimizer,
            batch.images_BCHW,
            batch.targets,
            label_smoothing=self.recipe.label_smoothing,
            policy=self.policy,
            adjustment_K=self.adjustment_K,
            fixed_norms=self.fixed_norms,
        )
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)
        return loss, logits_BK

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor that resuming needs, by name."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        if self.averaged is not None:
            averaged = self.averaged.state_dict()
            tensors |= {f"averaged.{name}": tensor for name, tensor in averaged.items()}
        for i, parameter in enumerate(self._all_parameters()):
            if (momentum := self.optimizer.state[parameter].get("momentum_buffer")) is not None:
                tensors[f"momentum.{i}"] = momentum
        return tensors

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `tensors` returned."""
        self.model.load_state_dict(_part("model.", tensors))
        if self.averaged is not None:
            self.averaged.load_state_dict(_part("averaged.", tensors))
        momenta = _part("momentum.", tensors)
        for i, parameter in enumerate(self._all_parameters()):
            if (momentum := momenta.get(str(i))) is not None:
                # Same memory layout as the parameter, which the fused step requires.
                buffer = torch.empty_like(parameter).copy_(momentum)
                self.optimizer.state[parameter]["momentum_buffer"] = buffer

    def _all_parameters(self) -> list[nn.Parameter]:
        groups = self.optimizer.param_groups
        return [parameter for group in groups for parameter in group["params"]]


def _part(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names start with a prefix, without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }

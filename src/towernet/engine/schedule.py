"""The learning rate of every step, a function of the step alone."""

from __future__ import annotations

import math

from towernet.config import TrainConfig

# Paddle's CosineAnnealingDecay(T_max=100), stepped once per batch by the framework's default.
NOTEBOOK_HALF_PERIOD = 100


def learning_rate(step: int, num_steps: int, config: TrainConfig, peak: float) -> float:
    """Return the learning rate of a step.

    Args:
        step: Which step, from 0.
        num_steps: All the steps of the run.
        config: Its schedule and warm-up.
        peak: The highest value, chosen by the trial in a comparison.
    """
    if config.schedule == "notebook":
        return peak * 0.5 * (1 + math.cos(math.pi * step / NOTEBOOK_HALF_PERIOD))
    warmup = config.warmup_fraction * num_steps
    if step + 1 < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(num_steps - warmup, 1)))

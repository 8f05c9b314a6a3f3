"""The learning rate and the image size of each step, functions of the step alone."""

from __future__ import annotations

import math

from towernet.config import TrainConfig
from towernet.models.catalogue import also_takes

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


def small_size_px(model_name: str, size_px: int, config: TrainConfig) -> int:
    """Return the side of the images in the first part of a run, in pixels.

    It is a multiple of 16, which most networks halve without a remainder, or the full side if the
    network cannot take less.
    """
    if config.small_size == 1:
        return size_px
    small_px = round(config.small_size * size_px / 16) * 16
    small_px = max(small_px, math.ceil(config.smallest_px / 16) * 16)
    if 0 < small_px < size_px and also_takes(model_name, size_px, small_px):
        return small_px
    return size_px


def training_size_px(
    step: int, num_steps: int, model_name: str, size_px: int, config: TrainConfig
) -> int:
    """Return the side of a step's images, in pixels: smaller first, the full one at the end."""
    if step < math.floor(config.small_share * num_steps):
        return small_size_px(model_name, size_px, config)
    return size_px

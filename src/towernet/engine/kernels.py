"""Whether kernels can be had here and do what they should: in C, or compiled for a GPU."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import torch
from torch import Tensor

from towernet.attention import ShuffleAttention, fused
from towernet.config import AugmentConfig
from towernet.engine.augment import draws, training_input
from towernet.native import library, selftest

_LARGEST_DIFFERENCE = 1e-2  # of values about 1: a position may round to another pixel's share


@functools.cache
def fault() -> str | None:
    """Return why the kernels cannot be used on this machine, None where they can.

    They are compiled if need be, loaded, and held against torch's own operations.
    """
    found = library.load()
    if isinstance(found, library.Missing):
        return found.reason
    if not max(selftest.excess(), _augmentation_excess()) <= 1:
        return "the kernels in C do not do here what torch does"
    return None


@functools.cache
def compiled_fault(device: str) -> str | None:
    """Return why attention cannot be compiled for a device, None where it can.

    It is compiled and held against the formula: training in bf16, answering in fp32.
    """
    block = ShuffleAttention(64).to(device)
    block.wake()

    def training(x: Tensor) -> list[Tensor]:
        y = block(x.requires_grad_())
        inputs = [x, *block.parameters()]
        return [y.detach(), *torch.autograd.grad(y.float().square().sum(), inputs)]

    def answering(x: Tensor) -> list[Tensor]:
        with torch.inference_mode():
            return [block(x)]

    # As runs use it; what fails to be compiled later is told then, and goes by the formula.
    for use, dtype, tolerance in (
        (training, torch.bfloat16, 2e-2),
        (answering, torch.float32, 1e-3),
    ):
        x = torch.randn((4, 64, 14, 14), generator=torch.Generator().manual_seed(0))
        x = x.to(device, dtype).contiguous(memory_format=torch.channels_last)
        wanted = use(x.clone())
        with fused.enabled(device), warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            try:
                found = use(x.clone())
            except RuntimeWarning as error:
                return str(error)
        for mine, theirs in zip(found, wanted, strict=True):
            error_BCHW = (mine.float() - theirs.float()).abs()
            if not error_BCHW.max() <= tolerance * (1 + theirs.abs().max().float()):
                return "compiled attention does not do here what the formula does"
    return None


def identity() -> str:
    """Return what the kernels' bits depend on."""
    found = library.load()
    return found.identity if isinstance(found, library.Library) else "torch"


def _augmentation_excess() -> float:
    """Return the largest difference of augmented pictures, over what is allowed."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)
    rows = np.array([2, 0, 1])
    numbers = draws(0, 0, rows.astype(np.uint64))
    mine, theirs = (
        training_input(
            pixels,
            rows,
            numbers,
            AugmentConfig(),
            size_px=37,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            kernels=kernels,
        )
        for kernels in (True, False)
    )
    return float((mine - theirs).abs().max()) / _LARGEST_DIFFERENCE

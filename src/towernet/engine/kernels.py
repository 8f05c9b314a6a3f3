"""Whether the kernels (in C, or compiled for a GPU) are available here and correct."""

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

_LARGEST_DIFFERENCE = 1e-2  # of values about 1: rounding can move a position to another pixel


@functools.cache
def fault() -> str | None:
    """Return why the kernels cannot be used on this machine, or None if they can.

    They are compiled if necessary, loaded, and compared with torch's own operations.
    """
    found = library.load()
    if isinstance(found, library.Missing):
        return found.reason
    if not max(selftest.excess(), _augmentation_excess()) <= 1:
        return "the C kernels and torch give different results here"
    return None


@functools.cache
def compiled_fault(device: str) -> str | None:
    """Return why attention cannot be compiled for a device, or None if it can.

    It is compiled and compared with the formula: training in bf16, predicting in fp32.
    """
    block = ShuffleAttention(64).to(device)
    block.wake()

    def training(x: Tensor) -> list[Tensor]:
        y = block(x.requires_grad_())
        inputs = [x, *block.parameters()]
        return [y.detach(), *torch.autograd.grad(y.float().square().sum(), inputs)]

    def predicting(x: Tensor) -> list[Tensor]:
        with torch.inference_mode():
            return [block(x)]

    # As runs use it; a later compile failure warns then and falls back to the formula.
    for use, dtype, tolerance in (
        (training, torch.bfloat16, 2e-2),
        (predicting, torch.float32, 1e-3),
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
        for compiled, eager in zip(found, wanted, strict=True):
            error_BCHW = (compiled.float() - eager.float()).abs()
            if not error_BCHW.max() <= tolerance * (1 + eager.abs().max().float()):
                return "compiled attention and its formula give different results here"
    return None


def identity() -> str:
    """Return a hash of what the kernels' bits depend on; "torch" if there are no kernels."""
    found = library.load()
    return found.identity if isinstance(found, library.Library) else "torch"


def _augmentation_excess() -> float:
    """Return the largest difference of augmented images, divided by the allowed one."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)
    rows = np.array([2, 0, 1])
    numbers = draws(0, 0, rows.astype(np.uint64))
    in_c, in_torch = (
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
    return float((in_c - in_torch).abs().max()) / _LARGEST_DIFFERENCE

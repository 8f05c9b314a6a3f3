"""Whether the kernels in C can be had here and do what they should."""

from __future__ import annotations

import functools

import numpy as np

from towernet.config import AugmentConfig
from towernet.data.augment import draws, training_input
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

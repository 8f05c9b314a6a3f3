"""Formulas fused into one program for a GPU, by torch.compile; eager where that is not switched on.

On a CPU the kernels in C do this: `towernet.native.ops`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import TypeVar, cast

import torch
from torch import Tensor

Formula = TypeVar("Formula", bound=Callable[..., Tensor])
_devices: frozenset[str] = frozenset()


def enable(*devices: str) -> None:
    """Compile formulas for maps on these kinds of device from now on; none: nowhere.

    The first call of a formula takes the seconds that compiling takes. Whether it works here is
    `towernet.engine.kernels.compiled_fault`.
    """
    global _devices
    _devices = frozenset(devices)


@contextlib.contextmanager
def enabled(*devices: str) -> Iterator[None]:
    """Compile formulas for these devices for a while."""
    before = _devices
    enable(*devices)
    try:
        yield
    finally:
        enable(*before)


def is_compiled_for(x: Tensor) -> bool:
    """Whether a map's formula is to be compiled; a program that is traced is one already."""
    return (
        x.device.type in _devices
        and type(x) is Tensor
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
        and torch._C._get_tracing_state() is None
    )


@functools.cache
def compiled(formula: Formula) -> Formula:
    """Return a formula as one program for maps of any size."""
    return cast(Formula, torch.compile(formula, dynamic=True, fullgraph=True))

"""Formulas fused into one program for a GPU, by torch.compile; eager where that is not switched on.

On a CPU the kernels in C do this: `towernet.native.ops`.
"""

from __future__ import annotations

import contextlib
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor

from towernet import torch_private
from towernet.errors import in_one_line

Formula = Callable[..., Tensor]
_devices: frozenset[str] = frozenset()
_programs: dict[tuple[Any, ...], Formula] = {}


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


def run(formula: Formula, x: Tensor, *others: Any) -> Tensor:
    """Return what a formula makes of a map, by one program where that is switched on.

    A program that cannot be made, or fails, is said in a warning, once; the formula does its work.
    """
    if not _is_wanted(x):
        return formula(x, *others)
    key = (
        formula,
        x.dtype,
        x.is_contiguous(memory_format=torch.channels_last),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        *(other is None if isinstance(other, Tensor | None) else other for other in others
          if not isinstance(other, tuple)),
    )  # fmt: skip
    if key not in _programs:
        _programs[key] = _compiled(formula)
    try:
        return _programs[key](x, *others)
    except Exception as error:  # compilers fail in many ways
        y = formula(x, *others)  # raises by itself what was none of the compiler's fault
        warnings.warn(
            f"attention is computed without being compiled: {in_one_line(error)[:200]}",
            RuntimeWarning,
            stacklevel=2,
        )
        _programs[key] = formula
        return y


def _is_wanted(x: Tensor) -> bool:
    """Whether a map's formula is to be compiled; a program that is traced is one already."""
    return (
        x.device.type in _devices
        and type(x) is Tensor
        and not torch.compiler.is_compiling()
        and not torch_private.is_transformed_or_traced()
    )


def _compiled(formula: Formula) -> Formula:
    """Return a formula as a program for maps of any size.

    From a copy of its code: the compiler counts the programs of one code and gives up after eight.
    """
    assert isinstance(formula, types.FunctionType)
    code = formula.__code__.replace(co_name=f"{formula.__name__}_{len(_programs)}")
    copy = types.FunctionType(code, formula.__globals__, code.co_name, formula.__defaults__)
    return cast(Formula, torch.compile(copy, dynamic=True))

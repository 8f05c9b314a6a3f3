"""Formulas compiled into one program for a GPU by torch.compile; in eager mode unless enabled.

On a CPU the C kernels do this: `towernet.native.ops`.
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
from towernet.errors import first_line_of

Formula = Callable[..., Tensor]
_devices: frozenset[str] = frozenset()
_formula_only = False
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


@contextlib.contextmanager
def formula_only() -> Iterator[None]:
    """Where no kernel applies, compute by the formulas as they are inside a `with`, as runs do.

    A quicker order of operations would change a run's bits.
    """
    global _formula_only
    before, _formula_only = _formula_only, True
    try:
        yield
    finally:
        _formula_only = before


def is_formula_only() -> bool:
    """Whether a quicker order of operations must not take a formula's place."""
    return _formula_only


def run(formula: Formula, x: Tensor, *others: Any) -> Tensor:
    """Return the result of a formula for a map, by a compiled program where enabled.

    If compilation or the program fails, warn once and fall back to eager mode.
    """
    if not is_wanted(x):
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
        y = formula(x, *others)  # raises errors that are not the compiler's
        warnings.warn(
            f"attention runs in eager mode, compiling failed: {first_line_of(error)[:200]}",
            RuntimeWarning,
            stacklevel=2,
        )
        _programs[key] = formula
        return y


def is_wanted(x: Tensor) -> bool:
    """Whether to compile a map's formula; not while torch traces or compiles around it."""
    return (
        x.device.type in _devices
        and type(x) is Tensor
        and not torch.compiler.is_compiling()
        and not torch_private.is_transformed_or_traced()
    )


def _compiled(formula: Formula) -> Formula:
    """Return a formula compiled for maps of any size.

    Each is compiled from its own copy of the code: torch gives up after eight programs per code.
    """
    assert isinstance(formula, types.FunctionType)
    code = formula.__code__.replace(co_name=f"{formula.__name__}_{len(_programs)}")
    copy = types.FunctionType(code, formula.__globals__, code.co_name, formula.__defaults__)
    return cast(Formula, torch.compile(copy, dynamic=True))

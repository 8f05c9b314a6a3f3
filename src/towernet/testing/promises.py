"""What the checks of blocks and of networks share: how a broken promise becomes a sentence."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from towernet.errors import ContractError, TowernetError, in_one_line


class Broken(Exception):
    """What was found instead of what was promised."""


@contextlib.contextmanager
def kept(promise: str, remedy: str) -> Iterator[None]:
    """Turn what a check finds, or what is checked raises, into a sentence.

    Args:
        promise: Which promise is broken, and by which check.
        remedy: What to do; '' where what was found says so.

    Raises:
        ContractError: the promise is broken.
    """
    try:
        yield
    except Exception as error:
        is_sentence = isinstance(error, Broken | TowernetError)
        found = str(error) if is_sentence else in_one_line(error)
        raise ContractError(f"{promise}: {'; '.join(filter(None, (found, remedy)))}") from error


def difference(found: Tensor, wanted: Tensor) -> float:
    """Return the largest difference of two tensors' numbers."""
    return float((found - wanted).detach().abs().max())


def require_close(found: Tensor, wanted: Tensor, what: str, *, rtol: float, atol: float) -> None:
    """Refuse numbers that are not as they should be.

    Raises:
        Broken: they are further apart than `torch.allclose` lets them be.
    """
    if not torch.allclose(found, wanted, rtol=rtol, atol=atol):
        raise Broken(f"{what} differs by up to {difference(found, wanted):.2g}")


def without_gradient(tensors: Mapping[str, Tensor]) -> set[str]:
    """Return the names of those with no gradient or one of zeros.

    Raises:
        Broken: a gradient is not finite.
    """
    without = set()
    for name, tensor in tensors.items():
        if tensor.grad is None or not (tensor.grad != 0).any():
            without.add(name)
        elif not torch.isfinite(tensor.grad).all():
            raise Broken(f"that of {name} is not finite")
    return without

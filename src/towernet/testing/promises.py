"""Shared by the checks of blocks and of networks: how a broken promise becomes a sentence."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from towernet.errors import ContractError, TowernetError, first_line_of


class Broken(Exception):
    """A promise is broken; the message is what was found instead."""


@contextlib.contextmanager
def as_contract_error(promise: str, remedy: str) -> Iterator[None]:
    """Turn a check's finding, or an exception of the checked code, into a sentence.

    Args:
        promise: The broken promise, and the check.
        remedy: What to do; '' if the finding includes it.

    Raises:
        ContractError: the promise is broken.
    """
    try:
        yield
    except Exception as error:
        is_sentence = isinstance(error, Broken | TowernetError)
        found = str(error) if is_sentence else first_line_of(error)
        raise ContractError(f"{promise}: {'; '.join(filter(None, (found, remedy)))}") from error


def difference(found: Tensor, wanted: Tensor) -> float:
    """Return the largest difference between two tensors' numbers."""
    return float((found - wanted).detach().abs().max())


def require_close(found: Tensor, wanted: Tensor, what: str, *, rtol: float, atol: float) -> None:
    """Refuse numbers that differ from the expected ones.

    Raises:
        Broken: they differ by more than `torch.allclose` allows.
    """
    if not torch.allclose(found, wanted, rtol=rtol, atol=atol):
        raise Broken(f"{what} differs by up to {difference(found, wanted):.2g}")


def without_gradient(tensors: Mapping[str, Tensor]) -> set[str]:
    """Return the names of the tensors without a gradient, or with a gradient of zeros.

    Raises:
        Broken: a gradient is not finite.
    """
    without = set()
    for name, tensor in tensors.items():
        if tensor.grad is None or not (tensor.grad != 0).any():
            without.add(name)
        elif not torch.isfinite(tensor.grad).all():
            raise Broken(f"the gradient of {name} is not finite")
    return without

"""What is asked of a block before a network takes it: it is one, it can be built, it fits.

Shapes: B images, C channels, H × W pixels.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from towernet.attention.base import AttentionBlock
from towernet.errors import ConfigError, TowernetError, in_one_line
from towernet.shapes import evaluating

DERIVE = "derive it from towernet.attention.AttentionBlock"


def class_problem(found: object) -> str:
    """Return why something is no class of attention blocks, with what to do; '' where it is one.

    Example:
        >>> class_problem(nn.Identity)
        'is a class of another kind; derive it from towernet.attention.AttentionBlock'
    """
    if not (isinstance(found, type) and issubclass(found, AttentionBlock)):
        return f"is {kind(found)}; {DERIVE}"
    if inspect.isabstract(found):
        missing = " and ".join(sorted(found.__abstractmethods__))
        return f"has no {missing} of its own; write what is missing"
    return ""


def builder_problem(block: object) -> str:
    """Return why nothing can build blocks for a network, with what to do; '' where it may."""
    if isinstance(block, type):
        return class_problem(block)
    if isinstance(block, nn.Module):
        own = type(block).__name__
        return f"is built already; give the class {own}, so that each place has a block of its own"
    if callable(block):
        return ""
    return f"is {kind(block)}; give a class derived from towernet.attention.AttentionBlock"


def built(build: Callable[[int], Any], channels: int) -> AttentionBlock:
    """Return a block for a number of channels.

    Raises:
        ConfigError: it cannot be built with so many, or is no attention block.
    """
    name = name_of(build)
    try:
        block = build(channels)
    except TowernetError:
        raise
    except Exception as error:
        remedy = "mend its __init__, or leave such places out"
        if not _takes_channels(build):
            remedy = (
                "let its __init__ take the number of channels, and all else by keyword with a"
                " default"
            )
        raise ConfigError(
            f"{name} cannot be built with {channels} channels ({in_one_line(error)}); {remedy}"
        ) from error
    if not isinstance(block, AttentionBlock):
        raise ConfigError(f"{name} builds {kind(block)}; {DERIVE}")
    if not hasattr(block, "_parameters"):
        raise ConfigError(
            f"{name} is no module yet; let its __init__ begin with super().__init__()"
        )
    return block


def tensor_of(
    method: str, call: Callable[[Tensor], Any], x_BCHW: Float[Tensor, "B C H W"]
) -> Tensor:
    """Return what a method of a block makes of a map; it is called `method` in the messages.

    Raises:
        ConfigError: it raises, or does not return one tensor.
    """
    given = f"a map of {tuple(x_BCHW.shape)}"
    try:
        found = call(x_BCHW)
    except Exception as error:
        raise ConfigError(
            f"{method} cannot be run on {given} ({in_one_line(error)}); mend it"
        ) from error
    if not isinstance(found, Tensor):
        raise ConfigError(f"{method} returns {kind(found)} for {given}; let it return one tensor")
    return found


def _map_of(method: str, call: Callable[[Tensor], Any], x_BCHW: Float[Tensor, "B C H W"]) -> Tensor:
    """Return the same, where it has the map's shape and number format."""
    y_BCHW = tensor_of(method, call, x_BCHW)
    given = f"a map of {tuple(x_BCHW.shape)}"
    if y_BCHW.shape != x_BCHW.shape:
        raise ConfigError(
            f"{method} returns {tuple(y_BCHW.shape)} for {given}; let it return the shape that came"
            " in"
        )
    if y_BCHW.dtype != x_BCHW.dtype:
        raise ConfigError(
            f"{method} returns {y_BCHW.dtype} for {given} of {x_BCHW.dtype}; let it end with"
            " .to(x.dtype)"
        )
    return y_BCHW


@torch.no_grad()
def require_fit(
    block: AttentionBlock,
    started: AttentionBlock,
    shape: tuple[int, ...],
    like: Tensor,
    *,
    as_identity: bool,
) -> None:
    """Refuse a block that does not do in its place what `attach` promises.

    Args:
        block: The block.
        started: The same as it starts, made ready for its place.
        shape: Of the map that comes in, (B, C, H, W).
        like: Has the map's device and number format.
        as_identity: Whether it is to return what comes in.

    Raises:
        ConfigError: it fails there, changes shape or number format, or the map where it must not.
    """
    name, given = type(block).__name__, f"a map of {shape}"
    # Not random: the user's generator stays where it is.
    numbers = torch.linspace(-1, 1, math.prod(shape), device=like.device)
    x_BCHW = numbers.to(like.dtype).reshape(shape)
    trial: Any = copy.deepcopy(started)  # a block may keep something of what it has seen
    with evaluating(trial), _own_randomness(like.device):
        if started is block:
            y_BCHW = _map_of(f"{name}.forward", trial, x_BCHW)
        else:  # blended in
            _map_of(f"{name}.forward", trial.block, x_BCHW)
            blend = functools.partial(trial.block.blend, gain=trial.gain)
            y_BCHW = _map_of(f"{name}.blend", blend, x_BCHW)
    if not as_identity or x_BCHW.is_meta:
        return
    least = max(1e-5, 4 * torch.finfo(x_BCHW.dtype).eps)
    moved = float((y_BCHW - x_BCHW).abs().max())
    if not moved <= least:  # nor where it is not a number
        raise ConfigError(
            f"{name} does not start as the identity: it moves {given} by up to {moved:.2g}; let"
            " blend(x, 0) be x, and starts_as_identity be true only where Block(channels)(x) is x,"
            " or give start='paper'"
        )


def _takes_channels(build: Callable[[int], Any]) -> bool:
    try:
        inspect.signature(build).bind(1)
    except TypeError:
        return False
    except ValueError:  # one that says nothing of itself
        return True
    return True


def _own_randomness(device: torch.device) -> contextlib.AbstractContextManager[None]:
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def name_of(block: object) -> str:
    """Return what to call a block, or what builds one, in a message.

    Example:
        >>> from towernet.attention import SqueezeExcitation
        >>> name_of(functools.partial(SqueezeExcitation, reduction=8)), name_of(None)
        ('SqueezeExcitation', 'None')
    """
    if isinstance(block, functools.partial):
        return name_of(block.func)
    if isinstance(block, nn.Module):
        return type(block).__name__
    return getattr(block, "__name__", None) or repr(block)[:60]


def kind(value: object) -> str:
    """Return what sort of thing a value is, with its article."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return "a class of another kind"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"

"""Checks of a block before a network takes it: it is a block, it can be built, it fits.

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

from towernet.attention.base import ATTENTION, AttentionBlock
from towernet.attention.blend import with_start
from towernet.attention.places import Place
from towernet.errors import ConfigError, TowernetError, first_line_of
from towernet.names import BlockStart
from towernet.shapes import evaluating
from towernet.words import kind

DERIVE = "derive it from towernet.attention.AttentionBlock"


def class_problem(found: object) -> str:
    """Return why an object is no class of attention blocks, with what to do; '' where it is one.

    Example:
        >>> class_problem(nn.Identity)
        'is a class of another kind; derive it from towernet.attention.AttentionBlock'
    """
    if not (isinstance(found, type) and issubclass(found, AttentionBlock)):
        return f"is {kind(found)}; {DERIVE}"
    if inspect.isabstract(found):
        missing = " and ".join(sorted(found.__abstractmethods__))
        return f"does not define {missing}; add what is missing"
    return ""


def builder_problem(block: object) -> str:
    """Return why an object cannot build blocks, with what to do; '' where it can."""
    if isinstance(block, type):
        return class_problem(block)
    if isinstance(block, nn.Module):
        own = type(block).__name__
        return f"is already built; give the class {own}, so that each place gets its own block"
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
        remedy = "fix its __init__, or choose other places"
        if not _takes_channels(build):
            remedy = (
                "its __init__ must take the number of channels, and anything else by keyword with a"
                " default"
            )
        raise ConfigError(
            f"{name} cannot be built with {channels} channels ({first_line_of(error)}); {remedy}"
        ) from error
    if not isinstance(block, AttentionBlock):
        raise ConfigError(f"{name} builds {kind(block)}; {DERIVE}")
    if not hasattr(block, "_parameters"):
        raise ConfigError(
            f"{name} is not a module yet; call super().__init__() first in its __init__"
        )
    return block


def tensor_of(
    method: str, call: Callable[[Tensor], Any], x_BCHW: Float[Tensor, "B C H W"]
) -> Tensor:
    """Return the result of a method of a block for a map; messages call the method `method`.

    Raises:
        ConfigError: it raises, or does not return one tensor.
    """
    given = f"a map of {tuple(x_BCHW.shape)}"
    try:
        found = call(x_BCHW)
    except Exception as error:
        raise ConfigError(
            f"{method} cannot be run on {given} ({first_line_of(error)}); fix it"
        ) from error
    if not isinstance(found, Tensor):
        raise ConfigError(f"{method} returns {kind(found)} for {given}; it must return one tensor")
    return found


def _map_of(method: str, call: Callable[[Tensor], Any], x_BCHW: Float[Tensor, "B C H W"]) -> Tensor:
    """Return the same, after checking that shape and number format are the input's."""
    y_BCHW = tensor_of(method, call, x_BCHW)
    given = f"a map of {tuple(x_BCHW.shape)}"
    if y_BCHW.shape != x_BCHW.shape:
        raise ConfigError(
            f"{method} returns {tuple(y_BCHW.shape)} for {given}; it must return the shape of its"
            " input"
        )
    if y_BCHW.dtype != x_BCHW.dtype:
        raise ConfigError(
            f"{method} returns {y_BCHW.dtype} for {given} of {x_BCHW.dtype}; it must end with"
            " .to(x.dtype)"
        )
    return y_BCHW


def fitted(
    build: Callable[[int], AttentionBlock], place: Place, model: nn.Module, start: BlockStart
) -> AttentionBlock:
    """Return a block ready for its place in a network, after a trial on a map of its size.

    Built-in blocks are not tried here: the tests cover them.

    Args:
        build: Builds a block for a number of channels.
        place: The place.
        model: The network.
        start: How the block starts.

    Raises:
        ConfigError: it cannot be built, fails there, changes shape or number format, or the map
            where it must not.
    """
    try:
        block = built(build, place.channels)
        started = with_start(block, start)
        like = _adapt(started, model, model.get_submodule(place.name))
        if type(block) not in ATTENTION.values():
            _try(block, started, (2, place.channels, *place.size), like, start)
    except ConfigError as error:
        raise ConfigError(f"at {place.name}, {error}") from error
    return started


def _adapt(block: AttentionBlock, model: nn.Module, module: nn.Module) -> Tensor:
    """Give a block its module's device, number format, layout and mode; return a tensor like it."""
    # A norm without weights, or a dropout, has no parameter: then the network's first counts.
    like = next((p for p in (*module.parameters(), *model.parameters())
                 if p.is_floating_point()), None)  # fmt: skip
    if like is not None:
        block.to(like.device, like.dtype)
    if _is_channels_last(model):
        block.to(memory_format=torch.channels_last)
    block.train(module.training)
    return torch.zeros(()) if like is None else like


def _is_channels_last(model: nn.Module) -> bool:
    weights = (m.weight for m in model.modules() if isinstance(m, nn.Conv2d))
    return any(
        weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
        for weight in weights
    )


@torch.no_grad()
def _try(
    block: AttentionBlock,
    started: AttentionBlock,
    shape: tuple[int, ...],
    like: Tensor,
    start: BlockStart,
) -> None:
    """Refuse a block that does not keep in its place what `attach` promises.

    Args:
        block: The block.
        started: The block as it starts, ready for its place.
        shape: Of the input, (B, C, H, W).
        like: Has the input's device and number format.
        start: How the block starts; "identity": it must return its input.
    """
    name, given = type(block).__name__, f"a map of {shape}"
    # Not random: the user's generator keeps its state.
    numbers = torch.linspace(-1, 1, math.prod(shape), device=like.device)
    x_BCHW = numbers.to(like.dtype).reshape(shape)
    trial: Any = copy.deepcopy(started)  # a block may store something of its input
    with evaluating(trial), _own_randomness(like.device):
        if started is block:
            y_BCHW = _map_of(f"{name}.forward", trial, x_BCHW)
        else:  # blended in
            _map_of(f"{name}.forward", trial.block, x_BCHW)
            blend = functools.partial(trial.block.blend, gain=trial.gain)
            y_BCHW = _map_of(f"{name}.blend", blend, x_BCHW)
    if start != "identity" or x_BCHW.is_meta:
        return
    tolerance = max(1e-5, 4 * torch.finfo(x_BCHW.dtype).eps)
    change = float((y_BCHW - x_BCHW).abs().max())
    if not change <= tolerance:  # also where it is NaN
        raise ConfigError(
            f"{name} does not start as the identity: it changes {given} by up to {change:.2g};"
            " make blend(x, 0) return x, and set starts_as_identity only if Block(channels)(x) is"
            " x, or give start='paper'"
        )


def _takes_channels(build: Callable[[int], Any]) -> bool:
    try:
        inspect.signature(build).bind(1)
    except TypeError:
        return False
    except ValueError:  # a callable without a signature
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

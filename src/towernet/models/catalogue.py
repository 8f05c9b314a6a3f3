"""Every network by its name: ours, torchvision's, and timm's as `timm:<name>`.

Each also with a block of attention, as `<name>+<block>`: see `towernet.models.variants`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from towernet.errors import ConfigError, MissingExtraError, TowernetError
from towernet.models import classics
from towernet.models.towernet import PatchTowerNet, TowerNet
from towernet.models.variants import put_attention
from towernet.names import NetworkName
from towernet.registry import unknown_name
from towernet.shapes import run_on_meta

OURS: dict[str, Callable[..., nn.Module]] = {
    "towernet": TowerNet,
    "towernet_patch": PatchTowerNet,
}


def names() -> list[str]:
    """Return the names `build` knows, ours first; timm's are not among them."""
    return [*OURS, *classics.torchvision_names()]


def build(name: str, num_classes: int, size_px: int) -> nn.Module:
    """Return a network with fresh weights, drawn with torch's generator.

    Args:
        name: One of `names()`, or `timm:` and a name of timm's; `+` and a block's behind it.
        num_classes: K, how many answers there are.
        size_px: Side of the square images it will see.

    Raises:
        UnknownNameError: no network or block has the name.
        ConfigError: the network cannot take images of this size, the block does not fit it, or
            there is no choice of answers.
        MissingExtraError: the name is timm's, and timm is not installed.

    Example:
        >>> network = build("mobilenet_v2", 16, 128)
        >>> network(torch.rand(2, 3, 128, 128)).shape
        torch.Size([2, 16])
    """
    if num_classes < 2:
        raise ConfigError(f"a network for {num_classes} classes decides nothing; give at least 2")
    check_size(name, size_px)
    return _make(name, num_classes, size_px)


def outline(name: str, num_classes: int, size_px: int) -> nn.Module:
    """Return a network whose weights have shapes and no numbers: for counting, in milliseconds.

    Raises:
        UnknownNameError: no network has the name.
        MissingExtraError: the name is timm's, and timm is not installed.
    """
    with _WeightsOnMeta():
        return _make(name, num_classes, size_px)


def check_size(name: str, size_px: int) -> None:
    """Refuse a network that images of this size cannot pass, by sending their shape through it.

    Raises:
        UnknownNameError: no network has the name.
        ConfigError: the size does not fit; the message names one that does.
        MissingExtraError: the name is timm's, and timm is not installed.
    """
    network = NetworkName(name).base
    error = _failure(network, size_px)
    if error is None:
        if network != name:
            outline(name, 2, size_px)  # whatever its attention objects to
        return
    name = network
    fitting = _next_fitting(name, size_px)
    if fitting is None:
        raise ConfigError(
            f"{name} cannot be built for {size_px}-px images ({_first_line(error)});"
            " choose another network from `towernet models`"
        ) from error
    raise ConfigError(f"{name} cannot take {size_px}-px images; give --size {fitting}") from error


@functools.cache
def also_takes(name: str, size_px: int, other_px: int) -> bool:
    """Whether a network built for images of one size takes those of another as well."""
    try:
        run_on_meta(outline(name, 2, size_px), 1, 3, other_px, other_px)
    except MissingExtraError:
        raise
    except Exception:  # each network says it in its own way
        return False
    return True


def _make(name: str, num_classes: int, size_px: int) -> nn.Module:
    name = NetworkName(name)
    network = _make_plain(name, num_classes, size_px)
    put_attention(network, name, size_px)
    return network


def _make_plain(name: NetworkName, num_classes: int, size_px: int) -> nn.Module:
    if name.is_ours:
        return OURS[name.base](num_classes)
    if name.timm_name is not None:
        return classics.build_timm(name.timm_name, num_classes, size_px)
    if name.base not in classics.torchvision_names():
        raise unknown_name("network", name.base, names())
    return classics.build_torchvision(name.base, num_classes, size_px)


@functools.cache
def _failure(name: str, size_px: int) -> Exception | None:
    try:
        run_on_meta(outline(name, 2, size_px), 1, 3, size_px, size_px)
    except TowernetError:
        raise
    except Exception as error:  # each network says it in its own way
        return error
    return None


def _next_fitting(name: str, size_px: int) -> int | None:
    """Return a larger size that fits, the smallest one where all above it fit too."""
    coarse = range(size_px - size_px % 32 + 32, max(512, 2 * size_px) + 1, 32)
    fitting = next((size for size in coarse if _failure(name, size) is None), None)
    if fitting is None:
        return None
    too_small = max(size_px, fitting - 32)
    while fitting - too_small > 1:
        middle = (fitting + too_small) // 2
        if _failure(name, middle) is None:
            fitting = middle
        else:
            too_small = middle
    return fitting


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]


class _WeightsOnMeta(TorchFunctionMode):
    """Create weights without memory or numbers, and leave what is computed on the way alone.

    `torch.device("meta")` would take the tensors, too, that some networks compute widths with.
    """

    _FACTORIES = frozenset({torch.empty, torch.zeros, torch.ones, torch.full, torch.randn})

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Send the factories of weights to the meta device."""
        kwargs = dict(kwargs or {})
        if func in self._FACTORIES:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)

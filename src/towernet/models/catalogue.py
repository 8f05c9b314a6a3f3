"""Every network by its name: ours, torchvision's, timm's as `timm:<name>`, and anybody's own.

Each also with a block of attention, as `<name>+<block>`: see `towernet.models.variants`. One's own
is named by an import path or an entry point: see `towernet.models.own`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from torch import nn

from towernet.errors import ConfigError, MissingExtraError, TowernetError, in_one_line
from towernet.models import classics
from towernet.models.own import NETWORKS, build_own, is_own
from towernet.models.towernet import PatchTowerNet, TowerNet
from towernet.models.variants import put_attention
from towernet.names import NetworkName
from towernet.shapes import run_on_meta, weights_on_meta

OURS: dict[str, Callable[..., nn.Module]] = {
    "towernet": TowerNet,
    "towernet_patch": PatchTowerNet,
}


def names() -> list[str]:
    """Return the names `build` knows, ours first, those of installed packages last.

    Import paths and timm's are not among them.
    """
    return [*OURS, *classics.torchvision_names(), *NETWORKS.offered()]


def build(name: str, num_classes: int, size_px: int) -> nn.Module:
    """Return a network with fresh weights, drawn with torch's generator.

    Args:
        name: One of `names()`, `timm:` and a name of timm's, or an import path; `+` and a block's
            behind it.
        num_classes: K, how many answers there are.
        size_px: Side of the square images it will see.

    Raises:
        UnknownNameError: no network or block has the name.
        ConfigError: the network cannot take images of this size, the block does not fit it, or
            there is no choice of answers.
        UntrustedCodeError: it is an import path that no user named (`towernet.models.own.trust`).
        MissingExtraError: the name is timm's, and timm is not installed.

    Example:
        >>> import torch
        >>> network = build("mobilenet_v2", 16, 128)
        >>> network(torch.rand(2, 3, 128, 128)).shape
        torch.Size([2, 16])
    """
    if num_classes < 2:
        raise ConfigError(f"a network for {num_classes} classes decides nothing; give at least 2")
    require_size(name, size_px)
    return _make(name, num_classes, size_px)


def outline(name: str, num_classes: int, size_px: int) -> nn.Module:
    """Return a network whose weights have shapes and no numbers: for counting, in milliseconds.

    Raises:
        UnknownNameError: no network has the name.
        ConfigError: a network that is not ours cannot be built for so many classes.
        MissingExtraError: the name is timm's, and timm is not installed.
    """
    with weights_on_meta():
        return _make(name, num_classes, size_px, on_meta=True)


def require_size(name: str, size_px: int) -> None:
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
    if fitting is None and is_own(NetworkName(name)):
        raise ConfigError(
            f"{name} cannot take {size_px}-px images, nor larger ones ({in_one_line(error)}); fix"
            " its forward(), which is traced on meta tensors"
        ) from error
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


def _make(name: str, num_classes: int, size_px: int, *, on_meta: bool = False) -> nn.Module:
    name = NetworkName(name)
    if name.is_ours:
        network = OURS[name.base](num_classes)
    elif name.timm_name is not None:
        network = classics.build_timm(name.timm_name, num_classes, size_px)
    elif name.base in classics.torchvision_names():
        network = classics.build_torchvision(name.base, num_classes, size_px)
    else:
        network = build_own(name.base, num_classes, on_meta=on_meta)
    put_attention(network, name, size_px)
    return network


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

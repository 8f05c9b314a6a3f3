"""Every network by its name: built-in, torchvision's, timm's as `timm:<name>`, and custom ones.

Each also with an attention block, as `<name>+<block>`: see `towernet.models.variants`. A custom
network is named by an import path or an entry point: see `towernet.models.own`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from torch import nn

from towernet.errors import ConfigError, MissingExtraError, TowernetError, first_line_of
from towernet.models import classics
from towernet.models.own import NETWORKS, build_own, is_own
from towernet.models.towernet import PatchTowerNet, TowerNet
from towernet.models.variants import insert_attention
from towernet.names import NetworkName
from towernet.shapes import run_on_meta, weights_on_meta

OURS: dict[str, Callable[..., nn.Module]] = {
    "towernet": TowerNet,
    "towernet_patch": PatchTowerNet,
}


def names() -> list[str]:
    """Return the names `build` knows: built-in networks first, those of installed packages last.

    Import paths and timm's names are not included.
    """
    return [*OURS, *classics.torchvision_names(), *NETWORKS.offered()]


def build(name: str, num_classes: int, size_px: int) -> nn.Module:
    """Return a network with fresh weights, drawn with torch's generator.

    Args:
        name: One of `names()`, `timm:` and a name of timm's, or an import path; optionally followed
            by `+` and a block's name.
        num_classes: K, the number of classes.
        size_px: Side of the square images it will get.

    Raises:
        UnknownNameError: no network or block has the name.
        ConfigError: the network cannot take images of this size, the block does not fit it, or
            there are fewer than two classes.
        UntrustedCodeError: it is an import path that no user named (`towernet.models.own.trust`).
        MissingExtraError: the name is timm's, and timm is not installed.

    Example:
        >>> import torch
        >>> network = build("mobilenet_v2", 16, 128)
        >>> network(torch.rand(2, 3, 128, 128)).shape
        torch.Size([2, 16])
    """
    if num_classes < 2:
        raise ConfigError(f"a network cannot have {num_classes} classes; give at least 2")
    require_size(name, size_px)
    return _make(name, num_classes, size_px)


def outline(name: str, num_classes: int, size_px: int) -> nn.Module:
    """Return a network whose weights have shapes but no numbers: for counting, in milliseconds.

    Raises:
        UnknownNameError: no network has the name.
        ConfigError: a custom network cannot be built for so many classes.
        MissingExtraError: the name is timm's, and timm is not installed.
    """
    with weights_on_meta():
        return _make(name, num_classes, size_px, on_meta=True)


def skipped_places(name: str, size_px: int, *, strict: bool = False) -> str:
    """Return which places in a network cannot take its attention block, in words; '' for none.

    Raises:
        ConfigError: all are such places or, with `strict`, one.
    """
    network = NetworkName(name)
    if network.block is None:
        return ""
    with weights_on_meta():
        model = _make(network.base, 2, size_px, on_meta=True)
        return insert_attention(model, network, size_px, strict=strict)


def require_size(name: str, size_px: int) -> None:
    """Refuse an image size that the network cannot take, by tracing it on meta tensors.

    Raises:
        UnknownNameError: no network has the name.
        ConfigError: the size does not fit; the message gives one that does.
        MissingExtraError: the name is timm's, and timm is not installed.
    """
    network = NetworkName(name).base
    error = _failure(network, size_px)
    if error is None:
        if network != name:
            outline(name, 2, size_px)  # raises if its attention does not fit
        return
    name = network
    fitting = _next_fitting(name, size_px)
    if fitting is None and is_own(NetworkName(name)):
        raise ConfigError(
            f"{name} cannot take {size_px}-px images or larger ones ({first_line_of(error)}); fix"
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
    """Whether a network built for one image size also takes another."""
    try:
        run_on_meta(outline(name, 2, size_px), 1, 3, other_px, other_px)
    except MissingExtraError:
        raise
    except Exception:  # networks raise different kinds of exceptions
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
    insert_attention(network, name, size_px)
    return network


@functools.cache
def _failure(name: str, size_px: int) -> Exception | None:
    try:
        run_on_meta(outline(name, 2, size_px), 1, 3, size_px, size_px)
    except TowernetError:
        raise
    except Exception as error:  # networks raise different kinds of exceptions
        return error
    return None


def _next_fitting(name: str, size_px: int) -> int | None:
    """Return a larger size that fits; the smallest such size, if all sizes above it fit too."""
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

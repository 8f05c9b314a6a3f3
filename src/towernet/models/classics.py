"""Third-party networks: torchvision's classifiers, and timm's with the extra.

They keep their authors' initial weights. No trained weights are ever downloaded.
"""

from __future__ import annotations

import functools
from collections.abc import Container
from typing import Any

from torch import nn

from towernet.errors import MissingExtraError, UnknownNameError
from towernet.names import SCRATCH, STARTS, TIMM_PREFIX
from towernet.registry import unknown_name


@functools.cache
def torchvision_names() -> tuple[str, ...]:
    """Return the names of torchvision's image classifiers, sorted."""
    from torchvision import models

    # With the module given, nothing of its subpackages (detection, quantization, …) is listed.
    return tuple(sorted(models.list_models(module=models)))


def build_torchvision(name: str, num_classes: int, size_px: int) -> nn.Module:
    """Return a torchvision classifier; those with a fixed image size are built for this one."""
    from torchvision import models

    options: dict[str, bool | int | tuple[int, int]] = {}
    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": True}
    elif name.startswith("vit_"):
        options = {"image_size": size_px}
    elif name.startswith("maxvit_"):
        options = {"input_size": (size_px, size_px)}
    network: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, **options)
    return network


def require_known_start(name: str, known: Container[str]) -> None:
    """Refuse a word after the last slash of a name that is meant to be a start, and is none.

    Args:
        name: Of an unknown network.
        known: The networks that there are.

    Raises:
        UnknownNameError: what is before the slash is a network.
    """
    network, _, start = name.rpartition("/")
    if network not in known:
        return
    if start == SCRATCH:
        raise UnknownNameError(
            f"the name of a network from scratch ends with no start; leave /{SCRATCH} out"
        )
    raise unknown_name("start", start, STARTS)


def require_timm(name: str) -> Any:
    """Return the package timm if it is installed and knows the name, given without the prefix.

    Raises:
        MissingExtraError: timm is not installed.
        UnknownNameError: timm has no such network.
    """
    try:
        import timm
    except ImportError as error:
        raise MissingExtraError(
            f"{TIMM_PREFIX}{name} needs the package timm; install it with:"
            " pip install 'towernet[timm]'"
        ) from error
    known = timm.list_models()
    if name not in known:
        require_known_start(name, known)
        raise unknown_name("network of timm", name, known)
    return timm


def build_timm(name: str, num_classes: int, size_px: int) -> nn.Module:
    """Return one of timm's networks; those with a fixed image size are built for this one."""
    timm = require_timm(name)
    fixed = timm.get_pretrained_cfg(name)
    options = {"img_size": size_px} if fixed is not None and fixed.fixed_input_size else {}
    network: nn.Module = timm.create_model(
        name, pretrained=False, num_classes=num_classes, **options
    )
    return network

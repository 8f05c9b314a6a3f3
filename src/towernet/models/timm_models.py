"""The built-in networks in timm: `timm.create_model("towernet")`, after one call.

Only `register_with_timm` imports timm, and registers them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypedDict

from torch import nn

from towernet.attention.find import known_blocks
from towernet.errors import ConfigError, MissingExtraError
from towernet.models.catalogue import OURS
from towernet.models.classifier import Classifier
from towernet.models.towernet import MIN_SIZE_PX
from towernet.models.variants import insert_attention
from towernet.names import NetworkName
from towernet.records.weights import IMAGENET_MEAN, IMAGENET_STD

__all__ = ["register_with_timm"]  # timm adds what is registered

# `timm.models.register_model` looks up a network's description here.
default_cfgs: Any = {}

_SIZE_PX = 128  # the default recipe's
# The last module on each map size: its channels, and its stride in image pixels.
_FEATURES = {
    "towernet": (
        ("stage_1", 64, 4), ("stage_2", 128, 8), ("attention_3", 256, 16),
        ("inception_5", 256, 32), ("inception_6", 256, 64), ("inception_7", 256, 128),
    ),
    "towernet_patch": (
        ("stem", 64, 4), ("stage_2", 128, 8), ("inception_4", 256, 16), ("inception_6", 256, 32),
    ),
}  # fmt: skip
_FIRST_CONV = {"towernet": "stage_1.conv", "towernet_patch": "stem.0"}
_LEAST_PX = {"towernet": MIN_SIZE_PX, "towernet_patch": 32}


def register_with_timm() -> list[str]:
    """Register the built-in networks with timm, for `create_model`, `list_models`; can be repeated.

    These are towernet and towernet_patch, and each of them with every known block (`towernet
    attention` lists them), or none, instead of its own attention: `towernet+se`, `towernet+none`;
    `towernet+shuffle` is `towernet`. No weights are published for them, so `pretrained=True` is
    refused; `checkpoint_path="runs/mine/best.safetensors"` loads the weights of a run.

    Nothing else is registered: `resnet18+se` is an unknown model to timm. To add attention to
    timm's networks, use `towernet.attention.attach`. For blocks in other places
    (`towernet+se@stages`) and by import path (`towernet+my_blocks:Mine`), whose characters have a
    meaning in timm, use `towernet.models.catalogue.build`.

    Returns:
        Their names.

    Raises:
        MissingExtraError: timm is not installed.
        ConfigError: timm has a different network of this name.

    Example:
        >>> names = register_with_timm()
        >>> import timm
        >>> timm.create_model("towernet+se", num_classes=5).get_classifier()
        Linear(in_features=256, out_features=5, bias=True)
        >>> from towernet.attention import attach
        >>> len(attach(timm.create_model("resnet18"), "se"))  # timm's own
        8
    """
    try:
        from timm import models
    except ImportError as error:
        raise MissingExtraError(
            "register_with_timm needs the package timm; install it with:"
            " pip install 'towernet[timm]'"
        ) from error
    blocks = ["none", *known_blocks()]
    networks = [NetworkName(network) for network in OURS]
    names = [*networks, *(NetworkName(f"{n}+{block}") for n in networks for block in blocks)]
    for name in sorted(names):
        if not models.is_model(name):
            default_cfgs.update(models.generate_default_cfgs({str(name): dict(description(name))}))
            models.register_model(_entrypoint(name))
        elif models.model_entrypoint(name).__module__ != __name__:
            raise ConfigError(
                f"timm already has another network called {name}; build towernet's with"
                " towernet.models.catalogue.build"
            )
    return sorted(names)


class Description(TypedDict):
    """timm's description of a network: its `default_cfg`."""

    input_size: tuple[int, int, int]
    min_input_size: tuple[int, int, int]
    pool_size: tuple[int, int]
    crop_pct: float
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    first_conv: str
    classifier: str


def description(name: NetworkName) -> Description:
    """Return timm's description of a built-in network, for images as in the default recipe."""
    network = name.base
    last_px = _SIZE_PX // _FEATURES[network][-1][2]
    return {
        "input_size": (3, _SIZE_PX, _SIZE_PX),
        "min_input_size": (3, _LEAST_PX[network], _LEAST_PX[network]),
        "pool_size": (last_px, last_px),
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "first_conv": _FIRST_CONV[network],
        "classifier": "head",
    }


def _entrypoint(name: NetworkName) -> Callable[..., nn.Module]:
    """Return the function that timm calls for a network; it has the network's name."""

    def build(pretrained: bool = False, **options: Any) -> nn.Module:
        from timm import models

        config = models.resolve_pretrained_cfg(
            name, options.get("pretrained_cfg"), options.get("pretrained_cfg_overlay")
        )
        if pretrained and not (config.has_weights or config.state_dict):
            raise ConfigError(
                f"no weights of {name} are published; leave out pretrained=True, and for your own"
                " weights give a checkpoint_path, the best.safetensors of a run"
            )
        network: nn.Module = models.build_model_with_cfg(
            functools.partial(_build, name),
            name,
            pretrained,
            feature_cfg={
                "feature_cls": "hook",
                "no_rewrite": True,
                "out_indices": tuple(range(len(_FEATURES[name.base]))),
            },
            **options,
        )
        return network

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"Build {name} for timm."
    return build


def _build(
    name: NetworkName, *, num_classes: int, in_chans: int, global_pool: str = "avg", **options: Any
) -> Classifier:
    """Build a built-in network from timm's options; an option with a false value is ignored."""
    if unknown := [option for option, value in options.items() if value]:
        raise ConfigError(
            f"{name} has no {unknown[0]}, and {options[unknown[0]]!r} was given; leave it out"
        )
    network = OURS[name.base](num_classes, in_chans=in_chans)
    assert isinstance(network, Classifier)
    insert_attention(network, name, _SIZE_PX)
    if global_pool != "avg":
        network.reset_classifier(num_classes, global_pool)
    network.feature_info = [
        {"module": module, "num_chs": num_chs, "reduction": reduction}
        for module, num_chs, reduction in _FEATURES[name.base]
    ]
    return network

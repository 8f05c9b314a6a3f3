"""The published weights of a network: those in `known`, torchvision's, and timm's.

torchvision and timm describe their weights in code; nothing is downloaded to list them.
"""

from __future__ import annotations

import functools
import re
from typing import Any
from urllib.parse import urlsplit

from towernet.errors import ConfigError
from towernet.names import OURS, TIMM_PREFIX, NetworkName
from towernet.records.weights import UNKNOWN, WeightsInput
from towernet.registry import unknown_name
from towernet.starts.known import (
    HALF,
    IMAGENET_1K,
    IMAGENET_TERMS,
    KNOWN,
    NUM_IMAGENET_1K,
    TORCHVISION_LICENCE,
    TORCHVISION_TERMS,
    WeightSet,
)

HUB_FILE = "model.safetensors"

# torchvision's ImageNet weights for these scale their input again (transform_input), from
# ImageNet's mean and std to one half; the networks built here do not, so it is part of the input.
_SCALED_AGAIN = ("googlenet", "inception_v3")
_NOT_COMMERCIAL = "CC-BY-NC-4.0"
_SWAG_DATA = "3.6 billion public Instagram images with hashtags, then ImageNet-1k"
# The word of a tag of timm's, the data it stands for, and the number of images.
_DATA = {
    "in1k": (IMAGENET_1K, NUM_IMAGENET_1K),
    "in12k": ("ImageNet-12k", None),
    "in21k": ("ImageNet-21k", 14_197_122),
    "in22k": ("ImageNet-22k", 14_197_122),
    "jft": ("JFT-300M", None),
    "ig1b": ("hashtagged Instagram images", None),
    "yfcc100m": ("YFCC100M", None),
    "yfcc15m": ("YFCC15M", None),
    "laion2b": ("LAION-2B", None),
    "laion400m": ("LAION-400M", None),
    "openai": ("OpenAI's unpublished images", None),
    "webli": ("WebLI", None),
    "datacompxl": ("DataComp-XL", None),
    "lvd142m": ("LVD-142M", None),
    "lvd1689m": ("LVD-1689M", None),
    "cc12m": ("CC12M", None),
    "sa1b": ("SA-1B", None),
}  # fmt: skip
_RESIZE = {"center": "crop", "squash": "squash", "border": "pad"}
# Digits of the SHA-256 at the end of a file's name, as torch.hub reads them.
_DIGITS = re.compile(r"-([a-f0-9]{8,64})\.")


@functools.cache
def weight_sets(network: str) -> tuple[WeightSet, ...]:
    """Return the published weights of a network, the usual ones first; empty if there are none.

    Args:
        network: `NetworkName.base`.

    Raises:
        UnknownNameError: there is no such network.
        MissingExtraError: the network is timm's, and timm is not installed.
    """
    known = tuple(each for each in KNOWN if each.network == network)
    name = NetworkName(network)
    if name.timm_name is not None:
        found = _of_timm(name.timm_name)
    elif name.own_network is None and not name.is_ours:
        found = _of_torchvision(network)
    else:
        found = ()
    names = {each.name for each in known}
    return (*known, *(each for each in found if each.name not in names))


def weight_set(network: str, name: str) -> WeightSet:
    """Return a published set by its name.

    Raises:
        UnknownNameError: the network has no such set.
        MissingExtraError: the network is timm's, and timm is not installed.
    """
    sets = weight_sets(network)
    for each in sets:
        if each.name == name:
            return each
    raise unknown_name(f"set of weights of {network}", name, (each.name for each in sets))


def downloadable(network: str) -> WeightSet:
    """Return the set of a network that is downloaded if none is named.

    Of several, it is torchvision's first: later ones have a higher accuracy on ImageNet by longer
    training with smoothed labels, which makes worse features for other images.
    Source: Kornblith et al. Why do better loss functions lead to less transferable features?
    NeurIPS 2021. arXiv:2010.16402.

    Raises:
        ConfigError: none is published, or it only comes with a package.
        UnknownNameError, MissingExtraError: as `weight_sets`.
    """
    for each in weight_sets(network):
        if each.url:
            return each
    raise ConfigError(
        f"no pre-trained weights of {network} are published; give a file with --weights"
        f" {network}=FILE, or choose another network"
    )


def of_file(sets: tuple[WeightSet, ...], sha256: str) -> WeightSet | None:
    """Return the set with this hash, or with its first digits, if all that is known are those."""
    return next((each for each in sets if each.sha256 and sha256.startswith(each.sha256)), None)


def _of_torchvision(network: str) -> tuple[WeightSet, ...]:
    from towernet.models.classics import require_known_start, torchvision_names
    from towernet.models.own import NETWORKS

    if network not in torchvision_names():
        if network in NETWORKS.offered():
            return ()
        known = (*OURS, *torchvision_names())
        require_known_start(network, known)
        raise unknown_name("network", network, known)
    from torchvision import models

    return tuple(_torchvision_set(network, each) for each in models.get_model_weights(network))


def _torchvision_set(network: str, weights: Any) -> WeightSet:
    seen = weights.transforms()
    (size_px,), (resized_px,) = seen.crop_size, seen.resize_size
    scaled_again = network in _SCALED_AGAIN
    file = urlsplit(weights.url).path.rpartition("/")[2]
    is_swag = "SWAG" in weights.name
    return WeightSet(
        network=network,
        name=weights.name,
        publisher="torchvision",
        url=weights.url,
        sha256=digits_in(file),
        num_bytes=None,  # its figure is rounded
        source=weights.url,
        licence=_NOT_COMMERCIAL if is_swag else TORCHVISION_LICENCE,
        data=_SWAG_DATA if is_swag else IMAGENET_1K,
        num_images=None if is_swag else NUM_IMAGENET_1K,
        terms=TORCHVISION_TERMS,
        input=WeightsInput(
            size_px=size_px,
            resize="crop",
            crop_share=size_px / resized_px,
            mean=HALF if scaled_again else _channels(seen.mean),
            std=HALF if scaled_again else _channels(seen.std),
        ),
        cached_as=file,
    )


def _of_timm(name: str) -> tuple[WeightSet, ...]:
    from towernet.models.classics import require_timm

    timm = require_timm(name)
    tagged = [each for each in timm.list_pretrained(f"{name}*") if each.split(".")[0] == name]
    configs = [timm.get_pretrained_cfg(each) for each in tagged]
    usual = timm.get_pretrained_cfg(name)
    return tuple(
        _timm_set(name, each)
        for each in sorted(configs, key=lambda each: each.tag != usual.tag)
        if _source(each) and each.input_size[0] == 3 and each.input_size[1] == each.input_size[2]
    )


def _source(config: Any) -> str:
    """Return where a file that can be read here is; '' for none (JAX's are converted by timm)."""
    if config.hf_hub_id:
        return f"https://huggingface.co/{config.hf_hub_id}/resolve/main/{HUB_FILE}"
    is_read = config.url and not config.custom_load and config.url.endswith((".pth", ".pt"))
    return str(config.url) if is_read else ""


def _timm_set(name: str, config: Any) -> WeightSet:
    data = [_DATA[word] for word in config.tag.split("_") if word in _DATA]
    counts = [num for _, num in data]
    resize = _RESIZE[config.crop_mode]
    file = urlsplit(config.url or "").path.rpartition("/")[2]
    has_url = _source(config) == config.url
    return WeightSet(
        network=f"{TIMM_PREFIX}{name}",
        name=config.tag or "default",
        publisher="timm",
        url=_source(config),
        sha256=digits_in(file) if has_url else "",
        num_bytes=None,
        source=config.url if has_url else f"https://huggingface.co/{config.hf_hub_id}",
        licence=config.license or UNKNOWN,
        data=", then ".join(dict.fromkeys(words for words, _ in data)) or UNKNOWN,
        # ImageNet-1k is a part of the larger ones.
        num_images=None if None in counts or not counts else max(filter(None, counts)),
        terms=IMAGENET_TERMS if any("ImageNet" in words for words, _ in data) else UNKNOWN,
        input=WeightsInput(
            size_px=config.input_size[1],
            resize=resize,
            # timm's few values above 1 put a border around the image.
            crop_share=min(1.0, float(config.crop_pct)) if resize == "crop" else 1.0,
            mean=_channels(config.mean),
            std=_channels(config.std),
        ),
        cached_as=file,
        hub_id=config.hf_hub_id or "",
    )


def digits_in(file: str) -> str:
    """Return the first digits of its SHA-256 in the name of a file; '' if it has none."""
    found = _DIGITS.search(file)
    return found[1] if found else ""


def _channels(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue

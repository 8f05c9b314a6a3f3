"""The `config.json` of a saved network: for towernet and timm; untrusted when read."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from towernet import files
from towernet.attention.find import BLOCKS
from towernet.data.layout import require_classes
from towernet.errors import DataError
from towernet.models import timm_models
from towernet.models.own import code_of, require_same_code, untrusted
from towernet.names import NetworkName
from towernet.plugins import module_of
from towernet.records.contract import Contract

# timm's name for each rule.
_MOST_MEGAPIXELS = 1000  # of a network by someone else
_CROP_MODES = {"crop": "center", "pad": "border", "squash": "squash", "squash_linear": "squash"}
_LARGEST_PX = 4096


@dataclass(frozen=True)
class SavedConfig:
    """The content of a `config.json`.

    Args:
        name: A name from `towernet models`, optionally with attention.
        contract: Class names, image size, and how an image becomes the network's input.
        temperature: Divisor of the logits.
        threshold: Predictions below this probability are flagged "(not sure)"; None if not
            calibrated.
    """

    name: NetworkName
    contract: Contract
    temperature: float
    threshold: float | None


def write_config(path: Path, saved: SavedConfig) -> None:
    """Write a `config.json`, with timm's entries if timm can build the network."""
    config = asdict(saved) | {"format": files.FORMAT}
    if saved.contract.crop_share == 1:  # as in a run
        del config["contract"]["crop_share"]
    name = saved.name
    if code := code_of([name]):
        config["code"] = code
    if name.is_ours and name.where is None and name.block_start == "paper":
        config |= _for_timm(name, saved.contract)
    files.write_json(path, config)


def read_config(path: Path) -> SavedConfig:
    """Read a `config.json` from an untrusted source.

    Raises:
        DataError: an entry is missing, has another type or version, or would run code.
        ConfigError: the source of a custom network has changed.
    """
    config = files.read_record(path, "name", "contract", "temperature", "threshold")
    if config.get("format") != files.FORMAT:
        raise DataError(
            f"{path} is in format {_briefly(config.get('format'))} and this towernet reads"
            f" {files.FORMAT}; install the version that wrote it"
        )
    try:
        contract = _contract(config["contract"])
        threshold = config["threshold"]
        _require(isinstance(config["name"], str), "name", config["name"])
        _require(_in_range(config["temperature"], 1e-9, 1e9), "temperature", config["temperature"])
        code = config.get("code", {})
        is_code = isinstance(code, dict) and all(isinstance(h, str) for h in code.values())
        _require(is_code, "code", code)
        _require(threshold is None or _in_range(threshold, 0, 1), "threshold", threshold)
    except (_Wrong, DataError) as error:
        raise DataError(
            f"{path} is damaged or not from towernet ({error}); save the network again with"
            " save_pretrained"
        ) from error
    require_classes(contract.class_names, Counter(contract.class_names), name=str(path))
    name = NetworkName(config["name"])
    _require_no_import(path, name)
    require_same_code(name, code, path)
    return SavedConfig(name, contract, config["temperature"], threshold)


def _contract(values: Any) -> Contract:
    """Return a class contract from untrusted values."""
    _require(isinstance(values, dict), "contract", values)
    names, size_px, background = (
        values.get(key) for key in ("class_names", "size_px", "background")
    )
    is_list = isinstance(names, list) and all(isinstance(name, str) and name for name in names)
    _require(is_list and len(set(names)) == len(names), "class_names", names)
    _require(_is_whole(size_px, 1, _LARGEST_PX), "size_px", size_px)
    _require(values.get("resize") in [*_CROP_MODES], "resize", values.get("resize"))
    _require(values.get("orientation") == "exif", "orientation", values.get("orientation"))
    for key, least, most in (("mean", -1e4, 1e4), ("std", 1e-6, 1e4), ("background", 0, 255)):
        numbers = values.get(key)
        is_list = isinstance(numbers, list) and len(numbers) == 3
        _require(is_list and all(_in_range(n, least, most) for n in numbers), key, numbers)
    _require(all(_is_whole(n, 0, 255) for n in background), "background", background)
    profile, span = values.get("colour_profile", "ignored"), values.get("value_range")
    _require(profile in ("ignored", "srgb"), "colour_profile", profile)
    is_range = isinstance(span, list) and all(_in_range(n, -1e30, 1e30) for n in span)
    _require(span is None or (is_range and len(span) == 2 and span[0] <= span[1]),
             "value_range", span)  # fmt: skip
    millions = values.get("max_megapixels")
    _require(millions is None or _in_range(millions, 1e-6, _MOST_MEGAPIXELS), "max_megapixels",
             millions)  # fmt: skip
    share = values.get("crop_share", 1.0)
    is_share = _in_range(share, 1e-3, 1) and (share == 1 or values["resize"] == "crop")
    _require(is_share, "crop_share", share)
    numbers = {key: [float(number) for number in values[key]] for key in ("mean", "std")}
    numbers |= {"value_range": span and [float(number) for number in span]}
    limit = {"max_megapixels": None if millions is None else float(millions)}
    return Contract.from_json(values | numbers | limit | {"crop_share": float(share)})


class _Wrong(Exception):
    """A value is not allowed; the message names it."""


def _require(is_valid: bool, what: str, value: object) -> None:
    if not is_valid:
        raise _Wrong(f"{what} is {_briefly(value)}")


def _briefly(value: object) -> str:
    return json.dumps(value)[:80]


def _in_range(value: Any, least: float | int, most: float | int) -> bool:
    return type(value) in (int, float) and least <= value <= most


def _is_whole(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _require_no_import(path: Path, name: NetworkName) -> None:
    """Refuse a name that would import a module that the user has not allowed."""
    for plugins, own in untrusted(name):
        part = "attention" if plugins is BLOCKS else "network"
        raise DataError(
            f"{path} needs the module {module_of(own)} for its {part}, which may run any code;"
            f" import it first if you trust it, or set {plugins.variable}={own}"
        )


def _for_timm(name: NetworkName, contract: Contract) -> dict[str, Any]:
    """Return the entries of a `config.json` that timm reads."""
    num_classes, size_px = len(contract.class_names), contract.size_px
    trained = {
        "input_size": [3, size_px, size_px],
        "pool_size": None,
        "mean": list(contract.mean),
        "std": list(contract.std),
        "crop_mode": _CROP_MODES[contract.resize],
        "crop_pct": contract.crop_share,
        "interpolation": "bilinear" if contract.resize == "squash_linear" else "bicubic",
        "num_classes": num_classes,
    }
    return {
        "architecture": name,
        "num_classes": num_classes,
        "label_names": list(contract.class_names),
        "pretrained_cfg": timm_models.description(name) | trained,
    }

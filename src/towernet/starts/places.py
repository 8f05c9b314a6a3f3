"""Where weights are on this machine: the store, installed packages, other programs' caches.

Nothing here opens a connection, imports a package that brings weights, or changes a cache.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import StrictInt

from towernet import files
from towernet.names import TIMM_PREFIX, NetworkName
from towernet.records.base import Record, Text, read_record
from towernet.records.weights import StartWeights
from towernet.starts.known import KNOWN, WeightSet
from towernet.starts.published import HUB_FILE, digits_in, weight_sets

_SHA256 = re.compile("[0-9a-f]{64}")


class Stored(Record):
    """What is recorded next to a file in the store."""

    weights: StartWeights
    set_name: Text
    num_bytes: StrictInt


@dataclass(frozen=True)
class Here:
    """Weights on this machine.

    Args:
        path: The file.
        place: Where it is, in words.
        published: The set that it should be; None if it is no longer published.
        stored: The record in the store; None elsewhere.
    """

    path: Path
    place: str
    published: WeightSet | None
    stored: Stored | None = None

    @property
    def name(self) -> str:
        """The name of the set, as --weights takes it."""
        if self.published is not None:
            return self.published.name
        return self.stored.set_name if self.stored is not None else self.path.name

    @property
    def facts(self) -> StartWeights | WeightSet:
        """What is known about it: network, source, licence, data and terms."""
        if self.stored is not None:
            return self.stored.weights
        assert self.published is not None
        return self.published

    @property
    def digits(self) -> str:
        """The hash that the file should have, or its first digits; '' if nothing is known."""
        if self.stored is not None:
            return self.stored.weights.sha256
        # huggingface_hub names a file by its hash, and links to it.
        if _SHA256.fullmatch(blob := self.path.resolve().name):
            return blob
        if self.published is not None and self.published.sha256:
            return self.published.sha256
        return digits_in(self.path.name)


def store_folder() -> Path:
    """Return where `towernet weights get` keeps weights: $TOWERNET_STORE, or the user's own data.

    It is no cache: nothing is removed from it.
    """
    if folder := os.environ.get("TOWERNET_STORE"):
        return Path(folder)
    share = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(share) / "towernet" / "weights"


def stored_path(published: WeightSet) -> Path:
    """Return where the store has, or would have, the file of a set."""
    suffix = ".safetensors" if published.url.endswith(".safetensors") else ".pth"
    name = re.sub(r"[^\w.-]", "_", published.name)
    return store_folder() / NetworkName(published.network).folder_name / f"{name}{suffix}"


def record_path(path: Path) -> Path:
    """Return the record next to a file in the store, written when the file is complete."""
    return path.with_name(f"{path.name}.json")


def places_of(network: str) -> Iterator[Here]:
    """Yield the published weights of a network that are on this machine, our own store first.

    Args:
        network: `NetworkName.base`.

    Raises:
        DataError: a record in the store is damaged.
        UnknownNameError: timm has no such network.
        MissingExtraError: a cache has files that may be its weights, and timm is not installed.
    """
    yield from in_store(network)
    yield from _in_packages(network)
    if _caches_may_have(network):
        for each in weight_sets(network):
            yield from _in_caches(each)


def in_store(network: str | None = None) -> Iterator[Here]:
    """Yield what the store has, of one network or of all.

    Raises:
        DataError: a record is damaged.
    """
    folder = "*" if network is None else NetworkName(network).folder_name
    for path in sorted(store_folder().glob(f"{folder}/*.json")):
        file = path.with_suffix("")
        if file.exists():
            todo = f"delete it and run: towernet weights get {network or 'NETWORK'}"
            stored = read_record(path, Stored, todo=todo)
            if network in (None, stored.weights.network):
                yield Here(file, "the store", None, stored)


def _in_packages(network: str) -> Iterator[Here]:
    for each in KNOWN:
        if each.network == network and each.package is not None:
            package, inside = each.package
            try:
                distribution = importlib.metadata.distribution(package)
            except importlib.metadata.PackageNotFoundError:
                continue
            path = Path(str(distribution.locate_file(inside)))
            if path.is_file():
                yield Here(path, "an installed package", each)


def everything_here() -> Iterator[Here]:
    """Yield all published weights on this machine that are found without timm.

    Raises:
        DataError: a record in the store is damaged.
    """
    yield from in_store()
    for network in dict.fromkeys(each.network for each in KNOWN):
        yield from _in_packages(network)
    if any(checkpoints_folder().glob("*.*")):
        from towernet.models.classics import torchvision_names

        for network in torchvision_names():
            for each in weight_sets(network):
                yield from _in_caches(each)
    for network in _on_hub():
        for each in weight_sets(network):
            if each.hub_id:
                yield from _in_caches(each)


def _on_hub() -> list[str]:
    """Return timm's networks of which huggingface_hub has downloaded something, if timm is here."""
    prefix = "models--timm--"
    names = {path.name.removeprefix(prefix) for path in hub_folder().glob(f"{prefix}*")}
    if not names:
        return []
    try:
        import timm
    except ImportError:
        return []
    known = set(timm.list_models())
    return sorted(f"{TIMM_PREFIX}{name}" for name in {each.split(".")[0] for each in names} & known)


def checkpoints_folder() -> Path:
    """Return where torch.hub, and with it torchvision, keeps what it has downloaded."""
    home = os.environ.get("TORCH_HOME") or _user_cache() / "torch"
    return Path(home) / "hub" / "checkpoints"


def hub_folder() -> Path:
    """Return where huggingface_hub, and with it timm, keeps what it has downloaded."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if folder := os.environ.get(variable):
            return Path(folder)
    home = os.environ.get("HF_HOME") or _user_cache() / "huggingface"
    return Path(home) / "hub"


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _caches_may_have(network: str) -> bool:
    """Whether it is worth importing torchvision or timm, which takes seconds, to look closer."""
    timm_name = NetworkName(network).timm_name
    of_hub = [] if timm_name is None else hub_folder().glob(f"models--*--{timm_name}*")
    return any(checkpoints_folder().glob("*.*")) or any(of_hub)


def _in_caches(published: WeightSet) -> Iterator[Here]:
    if published.cached_as and (path := checkpoints_folder() / published.cached_as).is_file():
        yield Here(path, "torch's cache", published)
    if published.hub_id:
        folder = hub_folder() / f"models--{published.hub_id.replace('/', '--')}"
        path = _current(folder) / HUB_FILE
        if path.is_file():
            yield Here(path, "huggingface_hub's cache", published)


def _current(folder: Path) -> Path:
    """Return the snapshot that the branch "main" was at when it was last downloaded."""
    main = folder / "refs" / "main"
    commit = main.read_text(encoding="utf-8", errors="replace").strip() if main.is_file() else ""
    return folder / "snapshots" / (commit if re.fullmatch("[0-9a-f]{40}", commit) else "none")


@functools.lru_cache(maxsize=64)
def _hash(path: Path, num_bytes: int, changed_ns: int) -> str:
    return files.sha256(path)


def file_hash(path: Path) -> str:
    """Return the hex sha-256 of a file; a large one is not read again while it is unchanged."""
    status = path.stat()
    return _hash(path, status.st_size, status.st_mtime_ns)

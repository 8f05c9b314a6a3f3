"""The cache folder: what can be recreated, how much of it is kept, and what is dropped first."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from towernet.errors import ConfigError, EnvironmentFault
from towernet.words import shown

DEFAULT_CACHE_GB = 20.0
SPARE_DISK_BYTES = 64 << 20  # left free: other programs fail on a full disk


def cache_folder() -> Path:
    """Return where decoded images, features and unpacked archives are kept.

    $TOWERNET_CACHE, or a folder in the user's own cache.
    """
    if folder := os.environ.get("TOWERNET_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "towernet"


def cache_limit_bytes() -> float:
    """Return the limit of decoded images, of features and of archives: 20 GB each by default.

    Raises:
        ConfigError: $TOWERNET_CACHE_GB is not a number of gigabytes.
    """
    given = os.environ.get("TOWERNET_CACHE_GB", "")
    with contextlib.suppress(ValueError):
        limit_gb = float(given or DEFAULT_CACHE_GB)
        if limit_gb >= 0:
            return limit_gb * 1e9
    raise ConfigError(f"TOWERNET_CACHE_GB is '{shown(given)}'; set it to a number of gigabytes")


class Kept(NamedTuple):
    """One entry of a cache: a file, or the folder of an unpacked archive."""

    last_used_ns: int
    num_bytes: int
    drop: Callable[[], bool]
    """Removes it; returns False if it is in use, and stays."""


def kept_files(folder: Path, pattern: str, *, but: Path | None = None) -> list[Kept]:
    """Return the files in a cache, all but one."""
    kept = []
    for file in folder.glob(pattern):
        with contextlib.suppress(FileNotFoundError):  # another command removed it
            status = file.stat()
            if file != but:
                kept.append(
                    Kept(status.st_mtime_ns, status.st_size, functools.partial(_gone, file))
                )
    return kept


def _gone(file: Path) -> bool:
    file.unlink(missing_ok=True)
    return True


def evict(kept: Iterable[Kept], fits: Callable[[int, int], bool]) -> None:
    """Drop the least recently used entries until the others fit.

    Args:
        kept: All that can be dropped.
        fits: Whether a number of remaining entries, and their bytes, fit.
    """
    oldest_first = sorted(kept, key=lambda one: one.last_used_ns)
    num, num_bytes = len(oldest_first), sum(one.num_bytes for one in oldest_first)
    for one in oldest_first:
        if fits(num, num_bytes):
            break
        if one.drop():
            num, num_bytes = num - 1, num_bytes - one.num_bytes


def make_room(folder: Path, kept: Iterable[Kept], *, needed: int, who_needs: str) -> None:
    """Drop the least recently used entries until more bytes fit the limit and the disk.

    Args:
        folder: Where the bytes will be written.
        kept: All that can be dropped for them.
        needed: How many bytes.
        who_needs: The start of the message, with its verb.

    Raises:
        EnvironmentFault: the disk is too small even then.
        ConfigError: TOWERNET_CACHE_GB is not a number.
    """
    limit, disk_bytes = cache_limit_bytes(), needed + SPARE_DISK_BYTES
    evict(
        kept,
        lambda _, held: held + needed <= limit and shutil.disk_usage(folder).free >= disk_bytes,
    )
    if (free := shutil.disk_usage(folder).free) < disk_bytes:
        raise EnvironmentFault(
            f"{who_needs} {disk_bytes:,} bytes in {folder} and only {free:,} are free;"
            " free some space or point TOWERNET_CACHE to a larger disk"
        )

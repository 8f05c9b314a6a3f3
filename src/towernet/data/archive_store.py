"""The cache of unpacked archives: which folders are in use, and which are dropped to make room.

A process that opened a folder holds a lock on the folder's index until it ends. The index's
modification time is when the folder was used last.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import shutil
from pathlib import Path

from towernet import files
from towernet.errors import ConfigError

NUM_HELD = 64  # each costs an open file
_held: dict[Path, int] = {}


def lock_of(folder: Path) -> Path:
    """Return the file that is locked while a folder is unpacked or removed."""
    return folder.with_name(f"{folder.name}.lock")


def hold(folder: Path) -> None:
    """Mark an unpacked folder as used now, and as in use until this process ends."""
    with contextlib.suppress(OSError):  # a read-only cache
        os.utime(folder / "index.json")
    with contextlib.suppress(OSError):  # a file system without locks
        descriptor = os.open(folder / "index.json", os.O_RDONLY)
        former, _held[folder] = _held.pop(folder, None), descriptor
        if former is not None:
            os.close(former)
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    while len(_held) > NUM_HELD:
        os.close(_held.pop(next(iter(_held))))


def make_room(path: Path, folder: Path, needed: int) -> None:
    """Drop the least recently used folders until this archive fits the limit and the disk.

    Folders that a process uses or is unpacking stay; what killed processes left is removed first.

    Raises:
        EnvironmentFault: the disk is too small even then.
        ConfigError: TOWERNET_CACHE_GB is not a number.
    """
    store = folder.parent
    for leftover in store.glob("*.part"):
        _drop(leftover.with_suffix(""), leftover)
    kept = [
        files.Kept(_last_used_ns(other), _size(other), functools.partial(_drop, other, other))
        for other in store.glob("*-*[0-9]")
        if other != folder and other.is_dir()
    ]
    files.make_room(store, kept, needed=needed, who_needs=f"{path} needs")


def _last_used_ns(folder: Path) -> int:
    try:
        return (folder / "index.json").stat().st_mtime_ns
    except FileNotFoundError:
        return 0  # it is incomplete


def _size(folder: Path) -> int:
    num_bytes = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # another process is removing it
                num_bytes += Path(root, name).stat().st_size
    return num_bytes


def _drop(folder: Path, what: Path) -> bool:
    """Remove an unpacked folder, or what is left of it, unless it is in use."""
    try:
        with files.lock(lock_of(folder), holder=str(folder)), contextlib.ExitStack() as stack:
            with contextlib.suppress(FileNotFoundError):
                index = stack.enter_context((what / "index.json").open("rb"))
                fcntl.flock(index, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part = folder.with_name(f"{folder.name}.part")
            if what != part:
                what.rename(part)  # so that a kill now leaves nothing that looks complete
            shutil.rmtree(part)
    except (ConfigError, OSError):
        return False
    return True

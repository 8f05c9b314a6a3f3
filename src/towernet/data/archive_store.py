"""The folder of unpacked archives: who uses what, and what makes room for another.

A folder is in use as long as a process that asked for it lives: it holds a lock on its index, whose
time says when it was used last.
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
    """Mark what was unpacked as used now, and by this process until it ends."""
    with contextlib.suppress(OSError):  # a cache shared for reading only
        os.utime(folder / "index.json")
    with contextlib.suppress(OSError):  # a disk without locks
        descriptor = os.open(folder / "index.json", os.O_RDONLY)
        former, _held[folder] = _held.pop(folder, None), descriptor
        if former is not None:
            os.close(former)
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    while len(_held) > NUM_HELD:
        os.close(_held.pop(next(iter(_held))))


def make_room(path: Path, folder: Path, needed: int) -> None:
    """Drop what was unpacked and used longest ago until this archive fits the limit and the disk.

    What any process holds or is unpacking stays; what killed ones left half unpacked goes first.

    Raises:
        EnvironmentFault: the disk is too small even then.
        ConfigError: TOWERNET_CACHE_GB is no number.
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
        return 0  # it is not whole


def _size(folder: Path) -> int:
    num_bytes = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # another process drops it
                num_bytes += Path(root, name).stat().st_size
    return num_bytes


def _drop(folder: Path, what: Path) -> bool:
    """Remove an unpacked folder, or what is left of it, unless somebody uses it."""
    try:
        with files.lock(lock_of(folder), holder=str(folder)), contextlib.ExitStack() as stack:
            with contextlib.suppress(FileNotFoundError):
                index = stack.enter_context((what / "index.json").open("rb"))
                fcntl.flock(index, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part = folder.with_name(f"{folder.name}.part")
            if what != part:
                what.rename(part)  # so that a kill now leaves nothing that looks whole
            shutil.rmtree(part)
    except (ConfigError, OSError):
        return False
    return True

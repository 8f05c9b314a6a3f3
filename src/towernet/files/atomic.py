"""The only way to write a file: temporary sibling, flush, fsync, rename, fsync of the folder.

A reader therefore sees the complete old file or the complete new one, even after a crash.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from towernet.errors import DataError, EnvironmentFault

WRITE_BYTES = 1 << 20  # a checkpoint is hundreds of small tensors
_LEFTOVER_PREFIX, _LEFTOVER_SUFFIX = ".towernet-", ".tmp"


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary sibling of `path` for writing; it replaces `path` once all is written.

    Raises:
        EnvironmentFault: the system refuses (disk full, permission, a name too long); the
            message names the path, the bytes written and those free. The old file is unchanged.
    """
    temporary: Path | None = None
    num_bytes = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(
            dir=path.parent, prefix=_LEFTOVER_PREFIX, suffix=_LEFTOVER_SUFFIX
        )
        temporary = Path(name)
        with os.fdopen(descriptor, "wb", buffering=WRITE_BYTES) as stream:
            try:
                yield stream
                stream.flush()
            finally:
                num_bytes = os.fstat(descriptor).st_size
            os.fchmod(descriptor, 0o666 & ~_umask())
            os.fsync(descriptor)
        temporary.replace(path)
        temporary = None
        _fsync_folder(path.parent)
    except OSError as error:
        if isinstance(error, EnvironmentFault):
            raise
        raise refused(path, error, num_bytes) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):  # the disk may be gone: `sweep` removes it later
                temporary.unlink(missing_ok=True)


def refused(path: Path, error: OSError, num_bytes: int = 0) -> EnvironmentFault:
    """Return the error for a file that cannot be written, with the bytes written and those free."""
    if error.errno == errno.EISDIR:
        return EnvironmentFault(f"{path} is a folder where a file belongs; remove it")
    there = next(folder for folder in path.absolute().parents if folder.exists())
    try:
        free = f"{shutil.disk_usage(there).free:,} are free on its disk"
    except OSError:
        free = "its disk does not answer"
    room = "make room, or " if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return EnvironmentFault(
        f"{path} cannot be written: {error.strerror or error} ({num_bytes:,} bytes of it were"
        f" written, {free}); {room}write elsewhere (--out; for the cache, TOWERNET_CACHE)"
    )


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file atomically."""
    with atomic(path) as stream:
        stream.write(content)


def write_text(path: Path, text: str) -> None:
    """Write a whole text file atomically, as UTF-8; a lone surrogate is written as \\udcNN."""
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def link(source: Path, target: Path, wanted_sha256: str) -> None:
    """Give a file a second name, so that its content is not written twice; replace the target.

    Raises:
        DataError: the content does not have this hash.
        EnvironmentFault: the system refuses.
    """
    if not source.exists() or sha256(source) != wanted_sha256:
        raise DataError(f"{source} was damaged after it was written; run the command again")
    name = f"{_LEFTOVER_PREFIX}{secrets.token_hex(8)}{_LEFTOVER_SUFFIX}"
    temporary = target.with_name(name)
    try:
        os.link(source, temporary)
    except OSError:  # some disks have no hard links: exFAT, some network disks
        with source.open("rb") as reader, atomic(target) as stream:
            shutil.copyfileobj(reader, stream, WRITE_BYTES)
        return
    try:
        temporary.replace(target)
        _fsync_folder(target.parent)
    except OSError as error:
        raise refused(target, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)  # it remains if the target was the same file


def sha256(path: Path) -> str:
    """Return the hex sha-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def remove(path: Path) -> None:
    """Remove a file, or a folder with all its content; do nothing if it does not exist.

    Raises:
        EnvironmentFault: the system refuses.
    """
    try:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise EnvironmentFault(
            f"{path} cannot be removed: {error.strerror}; fix the disk, then rerun the same command"
        ) from error


def move(folder: Path, to: Path) -> None:
    """Rename a folder, so that it stays renamed after a power failure.

    Raises:
        EnvironmentFault: the system refuses.
    """
    try:
        folder.rename(to)
        _fsync_folder(to.parent)
        _fsync_folder(folder.parent)
    except OSError as error:
        raise EnvironmentFault(
            f"{folder} cannot be renamed to {to}: {error.strerror}; fix the disk, then rerun the"
            " same command"
        ) from error


def sweep(folder: Path, *, older_than_s: float = 0.0) -> None:
    """Remove temporary files that killed writers left in a folder and below.

    A caller without a lock on the folder passes an age at which no file is still being written.
    """
    for leftover in folder.rglob(f"{_LEFTOVER_PREFIX}*{_LEFTOVER_SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):  # another command removed it
            if not older_than_s or time.time() - leftover.stat().st_mtime > older_than_s:
                remove(leftover)


def is_empty(folder: Path) -> bool:
    """Whether a folder is missing, or contains only what a command killed at its start left."""
    if not folder.exists():
        return True
    return all(
        path.name == "lock" or path.name.startswith(_LEFTOVER_PREFIX) for path in folder.iterdir()
    )


def _umask() -> int:
    """Return the process's mask of permissions; the only way to read it is to set it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

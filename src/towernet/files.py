"""The one way to write a file: sibling temporary, flush, fsync, rename, fsync of the folder.

A reader therefore sees the old file or the new one, whole, whatever happens in between.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import tempfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from towernet.errors import ConfigError, DataError, EnvironmentFault


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary sibling of `path` for writing; it takes `path`'s place when all is written.

    Raises:
        EnvironmentFault: the system refuses (disk full, permission, a name too long).
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fchmod(stream.fileno(), 0o666 & ~_umask())
            os.fsync(stream.fileno())
        temporary.replace(path)
        temporary = None
        _fsync_folder(path.parent)
    except OSError as error:
        if isinstance(error, EnvironmentFault):
            raise
        raise EnvironmentFault(
            f"{path} cannot be written: {error.strerror or error};"
            " make room, or write elsewhere (--out; for the cache, TOWERNET_CACHE)"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    """Return the process's mask of permissions; there is no way to read it but to set it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file atomically."""
    with atomic(path) as stream:
        stream.write(content)


def write_text(path: Path, text: str) -> None:
    """Write a whole text file atomically, as UTF-8; a lone surrogate is written as \\udcNN."""
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_json(path: Path, value: object) -> None:
    """Write sorted, indented JSON; NaN and infinity are refused, since JSON has neither."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file of ours; a damaged one is named.

    Raises:
        DataError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; is {path.parent} the folder of a run?") from error
    except (ValueError, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}); restore it or start again") from error


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object a line. Whole files, since a line appended can be torn by a crash."""
    write_text(
        path, "".join(json.dumps(row, sort_keys=True, allow_nan=False) + "\n" for row in rows)
    )


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read what `write_jsonl` wrote; a file that is not there holds no rows.

    Raises:
        DataError: the file is damaged.
    """
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise DataError(
            f"{path} is damaged ({error}); restore it, or begin anew with another --out"
        ) from error


def sha256(path: Path) -> str:
    """Return the hex sha-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cache_folder() -> Path:
    """Return where decoded images and unpacked archives are kept.

    $TOWERNET_CACHE, or a folder in the user's own cache.
    """
    if folder := os.environ.get("TOWERNET_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "towernet"


@contextlib.contextmanager
def lock(path: Path, *, holder: str, wait: bool = False) -> Iterator[None]:
    """Hold an exclusive lock on `path` while the block runs; a dead process holds nothing.

    Args:
        path: The lock's file, made when missing; it names the process that holds it.
        holder: What is locked, in the user's words, for the message.
        wait: Wait for the lock instead of refusing.

    Raises:
        ConfigError: another process holds it and `wait` is false.
        EnvironmentFault: the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise EnvironmentFault(
            f"{path.parent} cannot be written: {error.strerror};"
            " write elsewhere (--out; for the cache, TOWERNET_CACHE)"
        ) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            raise ConfigError(
                f"{holder} is in use by {stream.read().strip() or 'another process'};"
                " wait for it to end or choose another --out"
            ) from None
        except OSError as error:
            raise EnvironmentFault(
                f"{path} cannot be locked: {error.strerror};"
                " write to a local disk (--out; for the cache, TOWERNET_CACHE)"
            ) from error
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()} since {now()}")
        stream.flush()
        yield


def now() -> str:
    """Return the date and time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")

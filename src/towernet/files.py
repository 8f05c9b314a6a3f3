"""The one way to write a file: sibling temporary, flush, fsync, rename, fsync of the folder.

A reader therefore sees the old file or the new one, whole, whatever happens in between.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from towernet.errors import ConfigError, DataError, EnvironmentFault
from towernet.words import shown

FORMAT = 1  # of run.json, of protocol.toml and of what lies beside them
HEARTBEAT_S = 5.0
DEFAULT_CACHE_GB = 20.0
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet would run
WRITE_BYTES = 1 << 20  # a checkpoint is hundreds of small tensors

# What a killed writer leaves behind is known by its name.
_LEFTOVER_PREFIX, _LEFTOVER_SUFFIX = ".towernet-", ".tmp"


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary sibling of `path` for writing; it takes `path`'s place when all is written.

    Raises:
        EnvironmentFault: the system refuses (disk full, permission, a name too long); the
            message names the path, the bytes written and those free. The old file is as it was.
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
            with contextlib.suppress(OSError):  # the disk may be gone: `sweep` meets it later
                temporary.unlink(missing_ok=True)


def refused(path: Path, error: OSError, num_bytes: int = 0) -> EnvironmentFault:
    """Say that the system refuses to write a file, how much was written and how much is free."""
    if error.errno == errno.EISDIR:
        return EnvironmentFault(f"{path} is a folder where a file belongs; take it away")
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


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; nothing, if it is not there.

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
            f"{path} cannot be removed: {error.strerror}; say the same command again when the disk"
            " is well"
        ) from error


def move(folder: Path, to: Path) -> None:
    """Rename a folder, so that it stays renamed when the power fails.

    Raises:
        EnvironmentFault: the system refuses.
    """
    try:
        folder.rename(to)
        _fsync_folder(to.parent)
        _fsync_folder(folder.parent)
    except OSError as error:
        raise EnvironmentFault(
            f"{folder} cannot be renamed to {to}: {error.strerror}; say the same command again when"
            " the disk is well"
        ) from error


def sweep(folder: Path) -> None:
    """Remove what killed writers left in a folder and below; the caller holds its lock."""
    for leftover in folder.rglob(f"{_LEFTOVER_PREFIX}*{_LEFTOVER_SUFFIX}"):
        remove(leftover)


def is_empty(folder: Path) -> bool:
    """Whether a folder is not there, or holds only what a killed command left before its start."""
    if not folder.exists():
        return True
    return all(
        path.name == "lock" or path.name.startswith(_LEFTOVER_PREFIX) for path in folder.iterdir()
    )


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


def copy(source: Path, target: Path, wanted_sha256: str) -> None:
    """Copy a file atomically.

    Raises:
        DataError: what is read does not have this hash.
    """
    digest = hashlib.sha256()
    with atomic(target) as stream:
        try:
            with source.open("rb") as reader:
                while chunk := reader.read(1 << 20):
                    digest.update(chunk)
                    stream.write(chunk)
        except FileNotFoundError:
            pass
        if digest.hexdigest() != wanted_sha256:
            raise DataError(f"{source} was damaged after it was written; say the command again")


def write_text(path: Path, text: str) -> None:
    """Write a whole text file atomically, as UTF-8; a lone surrogate is written as \\udcNN."""
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_csv(path: Path, rows: Iterable[Iterable[object]]) -> None:
    """Write rows as CSV; a text that a spreadsheet would run as a formula gets an apostrophe.

    Row by row, since there may be a million.
    """
    with atomic(path) as stream:
        writer = csv.writer(codecs.getwriter("utf-8")(stream, "backslashreplace"))
        for row in rows:
            writer.writerow(
                f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
                for cell in row
            )


def write_json(path: Path, value: object) -> None:
    """Write sorted, indented JSON; NaN and infinity are refused, since JSON has neither."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def digest(value: object) -> str:
    """Return the hex sha-256 of a value that JSON can hold; the order of its keys plays no part."""
    text = json.dumps(value, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read_json(path: Path) -> Any:
    """Read a JSON file of ours; a damaged one is named.

    Raises:
        DataError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; is {path.parent} the folder of a run?") from error
    except (ValueError, OSError, RecursionError) as error:
        raise DataError(f"{path} cannot be read ({error}); restore it or start again") from error


def read_record(path: Path, *keys: str) -> Any:
    """Read a JSON object of ours that has these keys.

    Raises:
        DataError: the file is missing, is no JSON object, or lacks a key.
    """
    record = read_json(path)
    if isinstance(record, dict) and all(key in record for key in keys):
        return record
    raise DataError(f"{path} is damaged; restore it, or begin anew with another --out")


def require_format(path: Path, record: Any) -> None:
    """Refuse what a newer towernet wrote.

    Raises:
        DataError: naming its version.
    """
    if (found := record.get("format")) != FORMAT:
        versions = record.get("versions")
        made_by = versions.get("towernet") if isinstance(versions, dict) else None
        made_by = made_by or "another version"
        raise DataError(
            f"{path} was made by towernet {made_by} in format {found or 0} and this one reads"
            f" {FORMAT}; install that version to go on, or choose another --out"
        )


def write_jsonl(path: Path, rows: Iterable[object]) -> None:
    """Write one JSON object a line. Whole files, since a line appended can be torn by a crash."""
    write_text(
        path, "".join(json.dumps(row, sort_keys=True, allow_nan=False) + "\n" for row in rows)
    )


def read_jsonl(path: Path) -> list[Any]:
    """Read what `write_jsonl` wrote; a file that is not there holds no rows.

    Raises:
        DataError: the file is damaged.
    """
    if not path.exists():
        return []
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("a line is no object")
        return rows
    except (OSError, ValueError, RecursionError) as error:
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


def cache_limit_bytes() -> float:
    """Return how much the decoded pictures may take, and the unpacked archives: 20 GB each.

    Raises:
        ConfigError: $TOWERNET_CACHE_GB is no number of gigabytes.
    """
    given = os.environ.get("TOWERNET_CACHE_GB", "")
    with contextlib.suppress(ValueError):
        limit_gb = float(given or DEFAULT_CACHE_GB)
        if limit_gb >= 0:
            return limit_gb * 1e9
    raise ConfigError(f"TOWERNET_CACHE_GB is '{shown(given)}'; give a number of gigabytes")


@contextlib.contextmanager
def lock(
    path: Path, *, holder: str, wait: bool = False, say: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold an exclusive lock on `path` while the block runs; a dead process holds nothing.

    The system's lock (flock) ends with its process. Where two machines share a disk and not its
    locks, the file's time tells whether the other one lives: its holder touches it.

    Args:
        path: The lock's file, made when missing and removed at the end; it names its holder.
        holder: What is locked, in the user's words, for the message.
        wait: Wait for the lock instead of refusing.
        say: Told why it takes a while.

    Raises:
        ConfigError: another process holds it and `wait` is false.
        EnvironmentFault: the folder cannot be written.
    """
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(HEARTBEAT_S):
            with contextlib.suppress(OSError):
                os.utime(path)

    with _locked(path, holder, wait, say) as stream:
        try:
            words = f"process {os.getpid()} on {socket.gethostname()} since {now()}"
            os.ftruncate(stream.fileno(), 0)
            os.write(stream.fileno(), words.encode())
        except OSError as error:
            raise refused(path, error) from error
        # Without a thread to spare it is held all the same: only another machine would not see it.
        with contextlib.suppress(RuntimeError):
            threading.Thread(target=beat, daemon=True, name="heartbeat").start()
        try:
            yield
        finally:
            ended.set()
            # While it is still held: who waits sees that its file is gone, and opens a new one.
            with contextlib.suppress(OSError):
                path.unlink()


def _locked(path: Path, holder: str, wait: bool, say: Callable[[str], None] | None) -> IO[str]:
    """Open the lock's file and lock it, again if its holder removed it meanwhile."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = path.open("a+", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise EnvironmentFault(
                f"{path.parent} cannot be written: {error.strerror};"
                " write elsewhere (--out; for the cache, TOWERNET_CACHE)"
            ) from error
        try:
            fcntl.flock(stream, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(path.stat(), os.fstat(stream.fileno())):
                stream.seek(0)
                if not _lives_elsewhere(path, stream.read(), say):
                    return stream
                if not wait:
                    raise BlockingIOError
        except BlockingIOError:
            with stream:
                stream.seek(0)
                raise ConfigError(
                    f"{holder} is in use by {stream.read().strip() or 'another process'};"
                    " wait for it to end or choose another --out"
                ) from None
        except FileNotFoundError:
            pass
        except OSError as error:
            stream.close()
            raise EnvironmentFault(
                f"{path} cannot be locked: {error.strerror};"
                " write to a local disk (--out; for the cache, TOWERNET_CACHE)"
            ) from error
        stream.close()


def _lives_elsewhere(path: Path, holder: str, say: Callable[[str], None] | None) -> bool:
    """Whether the lock's file is of another machine and is still touched by it."""
    if not holder or f" on {socket.gethostname()} since " in holder:
        return False
    if say:
        say(f"waiting {3 * HEARTBEAT_S:.0f} seconds to see whether {shown(holder)} still lives")
    seen = path.stat().st_mtime_ns
    deadline = time.monotonic() + 3 * HEARTBEAT_S
    while time.monotonic() < deadline:
        time.sleep(0.2)
        if path.stat().st_mtime_ns != seen:  # no two clocks are compared
            return True
    return False


def now() -> str:
    """Return the date and time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")

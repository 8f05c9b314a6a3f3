"""A folder's lock, which ends with its process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from towernet.errors import ConfigError, EnvironmentFault
from towernet.files.atomic import refused
from towernet.files.records import now
from towernet.words import shown

HEARTBEAT_S = 5.0


@contextlib.contextmanager
def lock(
    path: Path, *, holder: str, wait: bool = False, say: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold an exclusive lock on `path` while the block runs; it ends with the process.

    The system's lock (flock) ends with its process. If two machines share a disk but not its
    locks, the file's time shows whether the other one still runs: the holder updates it.

    Args:
        path: The lock's file, created if missing and removed at the end; it names its holder.
        holder: The name of what is locked, for the message.
        wait: Wait for the lock instead of refusing.
        say: Called with the reason if it takes a while.

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
        # If no thread can be started, only another machine does not see the lock.
        with contextlib.suppress(RuntimeError):
            threading.Thread(target=beat, daemon=True, name="heartbeat").start()
        try:
            yield
        finally:
            ended.set()
            # While it is still held: a process that waits sees the file gone, and opens a new one.
            with contextlib.suppress(OSError):
                path.unlink()


def _locked(path: Path, holder: str, wait: bool, say: Callable[[str], None] | None) -> IO[str]:
    """Open the lock's file and lock it; repeat if its holder removed it in between."""
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
                if not _is_held_elsewhere(path, stream.read(), say):
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


def _is_held_elsewhere(path: Path, holder: str, say: Callable[[str], None] | None) -> bool:
    """Whether the lock's file belongs to another machine that still updates it."""
    if not holder or f" on {socket.gethostname()} since " in holder:
        return False
    if say:
        say(f"waiting {3 * HEARTBEAT_S:.0f} seconds to see whether {shown(holder)} still runs")
    seen = path.stat().st_mtime_ns
    deadline = time.monotonic() + 3 * HEARTBEAT_S
    while time.monotonic() < deadline:
        time.sleep(0.2)
        if path.stat().st_mtime_ns != seen:  # without comparing two machines' clocks
            return True
    return False

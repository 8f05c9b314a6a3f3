"""A pool of decoding processes in which a file can crash or hang without affecting others.

Each process is a fresh interpreter that imports numpy and Pillow, neither torch nor pandas nor
the caller's main program (so no `if __name__ == "__main__"` is needed), and nothing is forked
from a process with threads. Files are sent in short chunks and every result is returned
separately, so when a process dies the file at fault is the first one without a result. It is tried
once more at the end, alone, and so is one that needs more memory than concurrent ones can have.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, TypeVar

from towernet.errors import EnvironmentFault

TIME_LIMIT_S = 20.0
START_LIMIT_S = 60.0
MEMORY_LIMIT = 1 << 30
"""Bytes of address space of one process, far above the limits of items."""
SHARED_BYTES, ALONE_BYTES = 150_000_000, 320_000_000
"""The memory that one item can take when others run at the same time, and when it runs alone."""
CHUNK = 16

Count = Callable[[str, int, int], None]
"""Called as count(what, done, total) while many files are read."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Died:
    """The result for an item that failed twice, the second time alone.

    Args:
        reason: CRASH, or RESOURCE for one that takes more time or memory than allowed.
        detail: A description of what happened.
    """

    reason: str
    detail: str


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection[Any, Any]
    ready: bool = False
    todo: deque[int] = field(default_factory=deque)  # the first one is in progress
    # When the one in progress was started, or the process; monotonic seconds.
    started: float = field(default_factory=time.monotonic)


def in_processes(
    function: Callable[[Item, int], Result],
    items: Sequence[Item],
    *,
    workers: int,
    time_limit_s: float = TIME_LIMIT_S,
    alone_bytes: int = ALONE_BYTES,
) -> Iterator[tuple[int, Result | Died]]:
    """Apply a function to every item in `workers` processes; yield (position, result) as they end.

    Args:
        function: Importable by name from a module that is quick to import. Called with an item
            and its memory limit in bytes; raises MemoryError for an item that needs more.
        items: The items; they and the results are sent between processes.
        workers: How many processes; the results do not depend on it, their order does.
        time_limit_s: An item that takes longer is stopped.
        alone_bytes: The memory that an item can take when it runs alone.

    Raises:
        EnvironmentFault: a process cannot be started.
        RuntimeError: the function raised, which is a bug; with the item and the traceback.
    """
    assert workers >= 1
    again: list[int] = []
    first = _pass(function, items, range(len(items)), workers, SHARED_BYTES, time_limit_s)
    for position, answer in first:
        if isinstance(answer, Died):
            again.append(position)
        else:
            yield position, answer
    yield from _pass(function, items, sorted(again), 1, alone_bytes, time_limit_s)


def _pass(
    function: Callable[[Item, int], Result],
    items: Sequence[Item],
    positions: Sequence[int],
    workers: int,
    max_bytes: int,
    time_limit_s: float,
) -> Iterator[tuple[int, Result | Died]]:
    """Apply a function to some of the items, once to each."""
    size = max(1, min(CHUNK, len(positions) // (4 * workers)))
    waiting: deque[Sequence[int]] = deque(
        positions[start : start + size] for start in range(0, len(positions), size)
    )
    pool: list[_Worker] = []
    try:
        while waiting or any(worker.todo for worker in pool):
            for worker in pool:
                if worker.ready and not worker.todo and waiting:
                    _give(worker, waiting.popleft(), items)
            while len(pool) < min(workers, len(waiting) + sum(bool(w.todo) for w in pool)):
                pool.append(_start(function, max_bytes))
            for worker in _next_to_receive(pool, time_limit_s):
                message = _receive(worker)
                if message is None:  # it died, or was too slow and was killed
                    pool.remove(worker)
                    yield from _report_death(worker, waiting, time_limit_s)
                elif message == "ready":
                    worker.ready = True
                else:
                    position, fine, answer = message
                    if not fine:
                        words = f"{getattr(function, '__name__', function)} of {items[position]!r}"
                        raise RuntimeError(f"{words}:\n{answer}")
                    assert worker.todo.popleft() == position
                    worker.started = time.monotonic()
                    yield position, answer
    finally:
        for worker in pool:
            worker.process.kill()
            worker.process.wait()
            worker.connection.close()


def _start(function: Callable[..., Any], max_bytes: int) -> _Worker:
    parent_end, child_end = Pipe()
    # The same modules as here, and nothing from the current folder by accident (-P).
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; from towernet.data import workers;"
        f" workers.serve({child_end.fileno()})"
    )
    # One image is decoded by one thread: more would only cost memory.
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    # Pillow's blocks of 16 MB are returned to the system; otherwise a process keeps its peak size.
    memory = {"MALLOC_MMAP_THRESHOLD_": "4000000", "MALLOC_TRIM_THRESHOLD_": "16000000"}
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", code],
            pass_fds=[child_end.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=os.environ | threads | memory,
            process_group=0,  # Ctrl-C in a terminal reaches only the command, which ends these
        )
    except OSError as error:
        raise EnvironmentFault(
            f"a decoding process cannot be started: {error.strerror}; use fewer --workers"
        ) from error
    child_end.close()
    with contextlib.suppress(OSError):  # if it is already dead, `_receive` detects it
        parent_end.send((function, max_bytes))
    return _Worker(process, parent_end)


def _give(worker: _Worker, chunk: Sequence[int], items: Sequence[Any]) -> None:
    worker.todo = deque(chunk)
    worker.started = time.monotonic()
    with contextlib.suppress(OSError):
        worker.connection.send([(position, items[position]) for position in chunk])


def _next_to_receive(pool: list[_Worker], time_limit_s: float) -> list[_Worker]:
    """Wait until a process answers, dies or is too slow; return those."""
    limit_s = {True: time_limit_s, False: START_LIMIT_S}
    busy = [worker for worker in pool if worker.todo or not worker.ready]
    deadlines = [worker.started + limit_s[worker.ready] for worker in busy]
    first = min(deadlines, default=time.monotonic() + time_limit_s)
    connections = [worker.connection for worker in pool]
    readable = wait(connections, timeout=max(0.0, first - time.monotonic()))
    now = time.monotonic()
    late = [worker for worker in busy if now > worker.started + limit_s[worker.ready]]
    return [worker for worker in pool if worker.connection in readable or worker in late]


def _receive(worker: _Worker) -> Any:
    """Return a process's message; None if it is dead, or was too slow and is killed here."""
    try:
        if worker.connection.poll():
            return worker.connection.recv()
        worker.process.kill()
    except (EOFError, OSError):
        pass
    worker.process.wait()
    worker.connection.close()
    return None


def _report_death(
    worker: _Worker, waiting: deque[Sequence[int]], time_limit_s: float
) -> Iterator[tuple[int, Died]]:
    """Yield why a process died, and put its remaining items back into the queue."""
    code = worker.process.returncode
    if not worker.ready:
        raise EnvironmentFault(
            f"a decoding process could not start (exit code {code});"
            " see what it printed above, or use fewer --workers"
        )
    if not worker.todo:
        return
    slow = code == -signal.SIGKILL and time.monotonic() - worker.started > time_limit_s
    culprit = worker.todo.popleft()
    if worker.todo:
        waiting.appendleft(list(worker.todo))
    if slow:
        yield culprit, Died("RESOURCE", f"decoding it takes over {time_limit_s:g} s; shrink it")
    else:
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        likely = ", probably out of memory" if code == -signal.SIGKILL else ""
        yield culprit, Died("CRASH", f"the decoder crashed on it ({name}{likely}); save it again")


def serve(descriptor: int) -> None:
    """Run as a worker: process items from the parent until it closes the connection."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is for the parent, which ends this process
    warnings.simplefilter("ignore")  # the decoder records the ones that matter
    connection: Connection[Any, Any] = Connection(descriptor)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        function, max_bytes = connection.recv()
        limit = MEMORY_LIMIT + max(0, max_bytes - ALONE_BYTES)
        with contextlib.suppress(ValueError, OSError):  # some systems have no such limit
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        # libtiff's messages on damage would fill the screen; a bug's traceback goes to the parent.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
        connection.send("ready")
        while True:
            for position, item in connection.recv():
                try:
                    answer = (position, True, function(item, max_bytes))
                except MemoryError as error:
                    words = str(error) or "decoding it needs more memory than allowed; shrink it"
                    answer = (position, True, Died("RESOURCE", words))
                except Exception:
                    answer = (position, False, traceback.format_exc())
                connection.send(answer)

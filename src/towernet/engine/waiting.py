"""How computing threads wait for each other: spinning while they have the processors to themselves.

OpenMP's threads meet after each operation, many thousand times a second. Alone they wait best by
spinning. As soon as another program takes one of their processors, a thread that spins keeps away
the one it waits for: beside one busy process two threads fall to a twentieth of their speed, and to
half of it if they sleep instead, which costs two fifths of the speed alone
(`benchmarks/neighbours.py`).

GNU's OpenMP spins briefly whenever there are more threads than processors, whether they work or not
(GOMP_SPINCOUNT in its manual: 100 instead of 300,000 times). So a second team of threads that do
nothing is kept while others use our processors, and dismissed when they have gone. This changes no
result.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

SECONDS_BETWEEN_LOOKS = 0.3
# In processors that others use: more than the first, and threads sleep; less than the second, and
# they spin.
# While they use the share u of one, threads that spin reach about 1 - u of their speed, and threads
# that sleep 0.62 - 0.12 u: equal at 0.43.
SLEEP_ABOVE, SPIN_BELOW = 0.45, 0.35
_IN_USE = ("user", "nice", "system", "idle", "iowait", "irq", "softirq")  # as in proc(5)

_is_watched = threading.Lock()


@contextlib.contextmanager
def watched(threads: int, stat: Path = Path("/proc/stat")) -> Iterator[None]:
    """Let computing threads sleep while they wait, whenever others use their processors.

    Does nothing where that cannot be measured or changed: one thread, not Linux, not GNU's OpenMP,
    or within another `watched`.

    Args:
        threads: The computing threads of an operation.
        stat: What Linux says about the use of processors.
    """
    if (
        threads < 2
        or not hasattr(ctypes.CDLL(None), "GOMP_parallel")
        or not stat.exists()
        or not _is_watched.acquire(blocking=False)
    ):
        yield
        return
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(threads, stat, ended), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        _is_watched.release()


def _watch(threads: int, stat: Path, ended: threading.Event) -> None:
    use = Use(stat)
    team = _IdleTeam(threads)
    spare = len(use.processors) - threads
    while not ended.wait(SECONDS_BETWEEN_LOOKS):
        others = use.of_others()
        if others > spare + SLEEP_ABOVE:
            team.keep()
        elif others < spare + SPIN_BELOW:
            team.dismiss()
    team.dismiss()


class Use:
    """How much of this process's processors other processes use.

    Attributes:
        processors: Those this process may run on, by number.
    """

    def __init__(self, stat: Path = Path("/proc/stat")) -> None:
        self.processors = os.sched_getaffinity(0)
        self._stat = stat
        self._last = self._now()

    def of_others(self) -> float:
        """Return how many processors others have used since the last call, such as 1.5."""
        before, self._last = self._last, self._now()
        seconds, busy, own = (now - then for now, then in zip(self._last, before, strict=True))
        return max(0.0, busy - own) / seconds if seconds > 0 else 0.0

    def _now(self) -> tuple[float, float, float]:
        """Return the time, the use of our processors by all and by this process, in seconds."""
        ticks = 0
        for line in self._stat.read_text().splitlines():
            name, *values = line.split()
            if name[:3] == "cpu" and name[3:].isdigit() and int(name[3:]) in self.processors:
                used = dict(zip(_IN_USE, map(int, values), strict=False))
                ticks += sum(used.values()) - used["idle"] - used["iowait"]
        return time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), time.process_time()


class _IdleTeam:
    """Threads of OpenMP that do nothing; they exist so that there are more than processors."""

    def __init__(self, threads: int) -> None:
        self._size = max(2, len(os.sched_getaffinity(0)) - threads + 2)
        self._dismissed = threading.Event()
        self._leader: threading.Thread | None = None

    def keep(self) -> None:
        if self._leader is None:
            self._dismissed.clear()
            self._leader = threading.Thread(target=self._lead, daemon=True)
            self._leader.start()

    def dismiss(self) -> None:
        if self._leader is not None:
            self._dismissed.set()
            self._leader.join()  # a team ends with the thread that leads it
            self._leader = None

    def _lead(self) -> None:
        program = ctypes.CDLL(None)
        nothing = ctypes.cast(program.free, ctypes.c_void_p)  # of a null pointer: it does nothing
        program.GOMP_parallel(nothing, None, self._size, 0)
        self._dismissed.wait()

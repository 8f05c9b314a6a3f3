"""Whether other processes slow this one down, by what Linux counts about this process's threads.

Of each thread the system counts how long it ran, and how long it was ready to run but had to wait
for a processor: because of other processes, or of a container's CPU limit. In a container the load
average and /proc/stat are those of the whole machine, whose other processors may not matter here.
Time that a hypervisor takes from the whole machine is counted in /proc/stat only.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from towernet import cpus

_THREADS = Path("/proc/self/task")
_PROCESSORS = Path("/proc/stat")
_STEAL = 8  # its place in a line of /proc/stat: cpu0 user nice system idle iowait irq softirq steal


class LoadMeter:
    """Measures how much other processes slow this one down, from when it is made."""

    def __init__(self) -> None:
        self._waited, self._stolen = _waited_seconds(), _stolen_seconds()
        self._began = time.perf_counter()

    def slowdown(self, threads: int) -> float | None:
        """Return how many times as long a step took at least as on a free machine.

        A step stands still while any of its threads waits, since the others wait for it. So the
        share of the time in which it stood still is at least that of the thread that waited most.
        (A product over the threads, as if they waited independently, is far too much.)

        Args:
            threads: How many threads compute.

        Returns:
            1 if nothing waited; None if the system does not count it, or if this process has more
            computing threads than processors that it may use, so that they wait for each other.
        """
        waited = _waited_seconds()
        if waited is None or self._waited is None or threads > cpus.allowed():
            return None
        seconds = time.perf_counter() - self._began
        waiting = max(now - self._waited.get(thread, 0.0) for thread, now in waited.items())
        share = (waiting + _stolen_seconds() - self._stolen) / seconds
        return 1 / (1 - min(max(share, 0.0), 0.99))


def _waited_seconds() -> dict[str, float] | None:
    """Return how long each thread of this process has waited for a processor; None if unknown."""
    found = {}
    for thread in _THREADS.iterdir() if _THREADS.exists() else ():
        try:
            # Nanoseconds that it ran, nanoseconds that it waited, and how often it ran.
            _, waited_ns, _ = (thread / "schedstat").read_text().split()
        except (OSError, ValueError):  # it has ended, or the system does not count
            continue
        found[thread.name] = int(waited_ns) / 1e9
    return found or None


def _stolen_seconds() -> float:
    """Return the seconds taken from each processor by a hypervisor, the mean; 0 if unknown."""
    try:
        _, *lines = _PROCESSORS.read_text().splitlines()
    except (OSError, ValueError):
        return 0.0
    each = [int(line.split()[_STEAL]) for line in lines if line.startswith("cpu")]
    return sum(each) / len(each) / os.sysconf("SC_CLK_TCK") if each else 0.0

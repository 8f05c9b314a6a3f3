"""Peak memory of a run, and running out of memory."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import resource
import sys
from pathlib import Path
from typing import Any

import torch

# Numbers of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def is_out_of_memory(error: Exception) -> bool:
    """Whether torch or Python ran out of memory; on a CPU torch only reports it in its message."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def out_of_memory_words(batch_size: int) -> str:
    """Return what a network needed and what to do."""
    return (
        f"it ran out of memory at {batch_size} images per step;"
        f" give --batch-size {max(2, batch_size // 2)} or a smaller --size"
    )


def free_bytes(device: str) -> int:
    """Return how much memory can still be allocated: on the GPU, or on the machine.

    If the system does not report the free memory, this is the total.
    """
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    known = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    if (available := _numbers(Path("/proc/meminfo")).get("MemAvailable:")) is not None:
        known.append(available * 1024)
    with contextlib.suppress(OSError, ValueError):  # no limit, or no such system
        of_group = Path("/sys/fs/cgroup")
        most = int((of_group / "memory.max").read_text())
        taken = int((of_group / "memory.current").read_text())
        # The file cache is freed when memory is needed.
        kept = _numbers(of_group / "memory.stat").get("inactive_file", 0)
        known.append(max(0, most - taken + kept))
    return min(known)


def _numbers(path: Path) -> dict[str, int]:
    """Return the numbers in a Linux status file by the first word of the line; else none."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}


def keep_freed_memory() -> None:
    """Let glibc keep what a step frees for the next one, instead of returning it to the system.

    By default every large tensor is mapped and unmapped, and the system clears each of its pages at
    the first access, which takes as long as writing to it. No effect with another C library.
    """
    if (mallopt := _of_glibc("mallopt")) is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def return_freed_memory() -> None:
    """Return kept memory to the system, between one network and the next."""
    gc.collect()
    if (trim := _of_glibc("malloc_trim")) is not None:
        trim(0)


def _of_glibc(name: str) -> Any:
    """Return a function of glibc, or None with another C library."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def reset_peak_memory() -> None:
    """Reset the peak if the system can (Linux), so that each run has its own."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    return_freed_memory()  # do not count what the previous run has freed
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        try:
            clear.write_text("5")
        except OSError:
            # Some containers forbid it; the peak is then that of the process so far.
            return


def peak_memory_mib(device: str) -> float:
    """Return the peak since the last reset: of the GPU, or of the process, in MiB."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    unit = 2**20 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

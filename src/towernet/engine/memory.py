"""The largest memory a run took, and memory that runs out."""

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
    """Whether torch or Python asked for memory in vain; on a CPU torch says so in words only."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def out_of_memory_words(batch_size: int) -> str:
    """Say what a network wanted and what to do."""
    return (
        f"it needs more memory than there is at {batch_size} images in one step;"
        f" give --batch-size {max(2, batch_size // 2)} or a smaller --size"
    )


def free_bytes(device: str) -> int:
    """Return how much memory a program may still take: of the GPU, or of the machine.

    Where the system does not say what is free, it is all that there is.
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
        # What is kept of files is given up when it is needed.
        kept = _numbers(of_group / "memory.stat").get("inactive_file", 0)
        known.append(max(0, most - taken + kept))
    return min(known)


def _numbers(path: Path) -> dict[str, int]:
    """Return the numbers of a file of Linux's by the word that begins the line; none elsewhere."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}


def keep_freed_memory() -> None:
    """Let glibc keep what a step frees for the next one, instead of asking the system anew.

    By default every large tensor is mapped and unmapped, and each of its pages is cleared by the
    system when it is first touched, which takes as long as what is then written to it. With another
    library nothing happens.
    """
    if (mallopt := _of_glibc("mallopt")) is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def return_freed_memory() -> None:
    """Give the system back what was kept, between one network and the next."""
    gc.collect()
    if (trim := _of_glibc("malloc_trim")) is not None:
        trim(0)


def _of_glibc(name: str) -> Any:
    """Return a function of glibc's, None with another library."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def reset_peak_memory() -> None:
    """Start counting anew where the system can (Linux), so that each run has its own peak."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    return_freed_memory()  # what the run before has freed is not this one's
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        try:
            clear.write_text("5")
        except OSError:
            # Some containers forbid it; the peak is then the process's own so far.
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

"""The largest memory a run took, and memory that runs out."""

from __future__ import annotations

import ctypes
import gc
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

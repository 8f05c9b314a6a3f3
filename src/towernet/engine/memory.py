"""The largest memory a run took."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch


def reset_peak_memory() -> None:
    """Start counting anew where the system can (Linux), so that each run has its own peak."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
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

"""Freed memory is kept from step to step, and given back between networks."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import torch
from towernet.engine import memory

def resident():
    for line in open("/proc/self/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) // 1024

if {kept}:
    memory.keep_freed_memory()
before = resident()
tensors = [torch.ones(2**24) for _ in range(8)]  # 512 MiB
del tensors
freed = resident()
memory.return_freed_memory()
print(freed - before, resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
@pytest.mark.parametrize("kept", [True, False])
def test_freed_memory_is_kept_until_it_is_given_back(kept):
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(kept=kept)], capture_output=True, text=True, check=True
    )
    freed_mib, returned_mib = map(int, done.stdout.split())
    assert (freed_mib > 400) == kept
    assert returned_mib < 100

"""How long `towernet --help` takes: whole processes, the median of several."""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from statistics import median

from _common import write_result

NUM_RUNS = 15


def main() -> None:
    seconds = []
    for _ in range(NUM_RUNS + 1):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "towernet", "--help"], stdout=subprocess.DEVNULL, check=True
        )
        seconds.append(time.perf_counter() - start)
    del seconds[0]  # the first one reads the files from disk
    write_result(
        "startup",
        {
            "help_seconds": median(seconds),
            "spread": [min(seconds), max(seconds)],
            "n": NUM_RUNS,
            "python": platform.python_version(),
        },
    )


if __name__ == "__main__":
    main()

"""Time of `towernet --help` and `import towernet`: whole processes in turn, medians.

The import is reported as the difference from a Python that imports nothing.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from statistics import median

from _common import write_result

NUM_RUNS = 25
COMMANDS = {
    "help": ["-m", "towernet", "--help"],
    "import": ["-c", "import towernet"],
    "bare": ["-c", "pass"],
}


def main() -> None:
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(NUM_RUNS + 1):
        for name, words in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)
            seconds[name].append(time.perf_counter() - start)
    for times in seconds.values():
        del times[0]  # the first run reads the files from disk
    over_bare = [a - b for a, b in zip(seconds["import"], seconds["bare"], strict=True)]
    write_result(
        "startup",
        {
            "help_seconds": median(seconds["help"]),
            "spread": [min(seconds["help"]), max(seconds["help"])],
            "import_seconds_over_bare_python": median(over_bare),
            "import_spread": [min(over_bare), max(over_bare)],
            "n": NUM_RUNS,
            "python": platform.python_version(),
        },
    )


if __name__ == "__main__":
    main()

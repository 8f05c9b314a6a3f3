"""Measure behaviour under faults: `python benchmarks/faults.py [SECTION …]`.

Each section's figures are written as soon as they are known, so that it can be run in parts.
The tests run fewer of the same trials. A C compiler is needed (for the file faults).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faults_images
import faults_scale
import faults_training
import tables
from _common import RESULTS, commit, write_result
from towernet.engine.device import Policy, hardware, versions

# The trials' policy: one thread each.
POLICY = Policy("cpu", "bfloat16", True, 1, "")

SECTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "training": lambda: _training(),
    "mixed": faults_images.measure_mixed,
    "images": faults_images.measure,
    "archives": lambda: _apart("faults_archives"),
    "scale": faults_scale.measure,
}


def _apart(module: str) -> dict[str, Any]:
    """Measure in a process that has not imported torch: its children are forked from it."""
    code = f"import json, {module}; print(json.dumps({module}.measure()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _training() -> dict[str, Any]:
    found = {}
    with faults_training.bench() as made:
        for name in ("damage", "changes", "machine", "kills", "failures"):
            start = time.monotonic()
            found[name] = getattr(faults_training, f"measure_{name}")(made)
            found[name]["minutes"] = (time.monotonic() - start) / 60
        # Results contain no paths of this machine.
        text = json.dumps(found).replace(f"{made.root}/", "")
    cleaned: dict[str, Any] = json.loads(text)
    return cleaned


def main() -> None:
    chosen = sys.argv[1:] or list(SECTIONS)
    path = RESULTS / "faults.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    found = {name: kept[name] for name in SECTIONS if name in kept}
    for name in chosen:
        print(f"{name} …", file=sys.stderr, flush=True)
        start = time.monotonic()
        found[name] = SECTIONS[name]()
        found[name] |= {"minutes": (time.monotonic() - start) / 60, "commit": commit()}
        write_result("faults", found | {"hardware": hardware(POLICY), "versions": versions()})
    print(tables.faults(json.loads(path.read_text())))


if __name__ == "__main__":
    main()

"""Everything that can go wrong, measured: `python benchmarks/faults.py [SECTION …]`.

Each section's figures are kept as soon as they are there, so that it can be run in parts.
The tests run a smaller share of the same trials. A C compiler is needed (for the file faults).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import faults_archives
import faults_images
import faults_scale
import faults_training
import tables
from _common import RESULTS, commit, write_result
from towernet.engine.device import Policy, hardware, versions

# What the trials use: a thread each.
POLICY = Policy("cpu", "bfloat16", True, 1, "")

SECTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "training": lambda: _training(),
    "mixed": faults_images.measure_mixed,
    "images": faults_images.measure,
    "archives": faults_archives.measure,
    "scale": faults_scale.measure,
}


def _training() -> dict[str, Any]:
    found = {}
    with faults_training.bench() as made:
        for name in ("damage", "changes", "machine", "kills", "failures"):
            start = time.monotonic()
            found[name] = getattr(faults_training, f"measure_{name}")(made)
            found[name]["minutes"] = (time.monotonic() - start) / 60
    return found


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

"""Ten thousand hostile files through `towernet check`, and training with bad files among good ones.

python benchmarks/faults_images.py [number of hostile files]
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from hostile_images import hostile
from towernet.data.table import read_table

NUM_FILES, NUM_GOOD, NUM_BAD = 10_000, 1_000, 200
SEED = 3
MAX_PAIRS = 5
_STATUSES = ["used", "quarantined", "ignored"]


def measure(num: int = NUM_FILES) -> dict[str, Any]:
    """Check hostile files with the real command; return the outcomes and the cost.

    Memory is the sampled resident memory of all processes; shared pages count for each process.
    """
    with tempfile.TemporaryDirectory(prefix="towernet-hostile-") as temporary:
        folder, out = Path(temporary) / "photos", Path(temporary) / "out"
        hostile(folder, num, SEED)
        began = time.monotonic()
        code, max_tree_mb = _watched(["check", folder, "--json", "--out", out], Path(temporary))
        seconds = time.monotonic() - began
        table = read_table(out / "samples.parquet")
        on_disk = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert code == 0, f"towernet check ended with {code}"
    assert sorted(table.path) == sorted(on_disk), "a file is missing, or is there twice"
    assert set(table.status) <= set(_STATUSES)
    assert ((table.reason == "") == (table.status == "used")).all()
    hung = table.detail.str.contains("takes over")
    return {
        "num": num,
        "crashes": int((table.reason == "CRASH").sum()),
        "hangs": int(hung.sum()),
        "max_tree_mb": round(max_tree_mb),
        "files_per_s": round(num / seconds, 1),
        **{status: int((table.status == status).sum()) for status in _STATUSES},
        "reasons": dict(Counter(table.reason[table.reason != ""]).most_common()),
        "formats_used": dict(Counter(table.format[table.status == "used"]).most_common()),
    }


def measure_mixed(num_good: int = NUM_GOOD, num_bad: int = NUM_BAD) -> dict[str, Any]:
    """Train on good images, and on the same with bad files among them; compare the bytes.

    Each run chooses its number format by its own timing, so pairs are trained until two runs have
    chosen the same.
    """
    with tempfile.TemporaryDirectory(prefix="towernet-mixed-") as temporary:
        alone, mixed = Path(temporary) / "alone", Path(temporary) / "mixed"
        for where in (alone, mixed):
            make_good(where / "photos", num_good)
        make_bad(mixed / "photos", num_bad)
        runs: dict[Path, dict[str, dict[str, str]]] = {alone: {}, mixed: {}}
        for attempt in range(MAX_PAIRS):
            for where, found in runs.items():
                policy, hashes = train_tiny(where / "photos", where / f"run-{attempt}")
                found[policy] = hashes
            alike = sorted(set(runs[alone]) & set(runs[mixed]))
            if alike:
                break
        table = read_table(mixed / "run-0" / "samples.parquet")
    assert alike, "no two runs chose the same number format; try again without other load"
    counts = {status: int((table.status == status).sum()) for status in _STATUSES}
    one, other = runs[alone][alike[0]], runs[mixed][alike[0]]
    return {
        "good": num_good,
        "bad": num_bad,
        "pairs_trained": attempt + 1,
        "policy": alike[0],
        "same_weights": one["best.safetensors"] == other["best.safetensors"],
        "same_metrics": one["metrics.jsonl"] == other["metrics.jsonl"],
        **counts,
        "nothing_lost": sum(counts.values()) == num_good + num_bad and counts["used"] == num_good,
    }


def make_good(folder: Path, num: int) -> None:
    """Write two classes of noisy stripes, horizontal and vertical, 40 × 36 pixels."""
    rng = np.random.default_rng(SEED)
    rows, columns = np.mgrid[:36, :40]
    for i in range(num):
        name, wave = (("lying", rows), ("standing", columns))[i % 2]
        (folder / name).mkdir(parents=True, exist_ok=True)
        stripes = np.sin(wave * rng.uniform(0.5, 0.9) + rng.uniform(0, 6))[:, :, None]
        pixels = 128 + 80 * stripes * rng.uniform(0.6, 1, 3) + rng.normal(0, 12, (36, 40, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name / f"{i:04d}.png")


def make_bad(folder: Path, num: int) -> None:
    """Write unusable files with names that sort before, between and after the good ones."""
    rng = np.random.default_rng(SEED + 1)
    for i in range(num):
        good = sorted((folder / "lying").glob("0*.png"))[i % 5].read_bytes()
        content = (
            good[: rng.integers(9, len(good) - 30)],
            good[:60] + rng.bytes(20) + good[80:],
            b"<!DOCTYPE html><html>404 " + str(i).encode(),
            b"version https://git-lfs.github.com/spec/v1\noid sha256:" + str(i).encode(),
            rng.bytes(300),
            b"",
            b"BM" + rng.bytes(80),
        )[i % 7]
        name = f"{('0', '0500', 'zz')[i % 3]}-bad-{i}.jpg"
        (folder / ("lying", "standing")[i % 2] / name).write_bytes(content)


def train_tiny(folder: Path, out: Path) -> tuple[str, dict[str, str]]:
    """Train the smallest network for an epoch; return its policy and hashes of the exact files."""
    words = ["train", folder, "--model", "shufflenet_v2_x0_5", "--epochs", "1", "--size", "64"]
    code, _ = _watched([*words, "--device", "cpu", "--out", out], out.parent)
    assert code == 0, f"towernet train ended with {code}"
    policy = json.loads((out / "run.json").read_text())["plan"]["policy"]
    chosen = {name: policy[name] for name in ("dtype", "channels_last", "threads")}
    exact = ("best.safetensors", "metrics.jsonl")
    hashes = {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in exact}
    return json.dumps(chosen), hashes


def _watched(words: list[Any], cache: Path) -> tuple[int, float]:
    """Run the command with its own cache; return its exit code and peak memory, in MB."""
    process = psutil.Popen(
        [sys.executable, "-m", "towernet", *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"TOWERNET_CACHE": str(cache / "cache")},
    )
    peak = 0
    while process.poll() is None:
        peak = max(peak, _resident_bytes(process))
        time.sleep(0.01)
    return process.returncode, peak / 1e6


def _resident_bytes(root: psutil.Process) -> int:
    total = 0
    try:
        for process in (root, *root.children(recursive=True)):
            total += process.memory_info().rss
    except psutil.NoSuchProcess:  # one has just ended; the next sample counts the others
        pass
    return total


if __name__ == "__main__":
    print(json.dumps(measure(*map(int, sys.argv[1:2])), indent=2))
    print(json.dumps(measure_mixed(), indent=2))

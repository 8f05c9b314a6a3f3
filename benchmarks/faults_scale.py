"""A million files: seconds to the first sentence, memory per image, near duplicates.

Each measurement runs in its own process. The images have 8 × 8 random pixels and are all different,
so that each is decoded and used. A million of them need 4 GB of disk temporarily.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

NUM_FILES, NUM_CLASSES = 1_000_000, 20
MANY_CLASSES = 100_000
NUM_THUMBNAILS = 100_000
SIDE_PX = 8


def plant(folder: Path, num_files: int, num_classes: int) -> None:
    """Write random images into class folders."""
    import numpy as np

    num_bytes = 3 * SIDE_PX**2
    header = b"BM" + struct.pack("<IHHI", 54 + num_bytes, 0, 0, 54)
    header += struct.pack("<IiiHHIIiiII", 40, SIDE_PX, SIDE_PX, 1, 24, 0, num_bytes, 0, 0, 0, 0)
    chance = np.random.default_rng(0)
    for number in range(num_classes):
        (folder / f"class_{number:06d}").mkdir(parents=True)
        for i in range(number, num_files, num_classes):
            file = os.path.join(folder, f"class_{number:06d}", f"{i:07d}.bmp")  # noqa: PTH118 - speed
            with open(file, "wb") as stream:  # noqa: PTH123 - speed
                stream.write(header + chance.bytes(num_bytes))


def resident(key: str) -> int:
    """Return this process's memory in bytes: VmRSS, or VmHWM for its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"the system does not report {key}")


def forget_peak() -> None:
    """Reset the peak."""
    Path("/proc/self/clear_refs").write_text("5")


def look(folder: str, small: str) -> dict[str, float]:
    """Scan and check a folder; a small one first, to exclude imports and other one-time costs."""
    from towernet.data.check import check
    from towernet.data.source import open_source

    check(open_source(small), workers=2)
    before = resident("VmRSS")
    forget_peak()
    began = time.perf_counter()
    source = open_source(folder)
    scan_s = time.perf_counter() - began
    num = len(source.files)
    scan_peak = resident("VmHWM") - before
    forget_peak()
    began = time.perf_counter()
    table = check(source, workers=os.cpu_count() or 1)
    return {
        "num_files": num,
        "num_classes": len(source.class_names),
        "scan_seconds": scan_s,
        "scan_peak_bytes_per_image": scan_peak / num,
        "check_seconds": time.perf_counter() - began,
        "check_peak_bytes_per_image": (resident("VmHWM") - before) / num,
        "held_bytes_per_image": (resident("VmRSS") - before) / num,
        "used": int((table.status == "used").sum()),
    }


def first_sentence(folder: str) -> dict[str, float]:
    """Measure the time from the start of the command to its first sentence."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "towernet", "check", folder, "--out", f"{folder}-out"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    sentence = process.stdout.readline()
    seconds = time.perf_counter() - began
    process.kill()
    process.wait()
    assert sentence.startswith("I read this as"), sentence
    return {"first_sentence_seconds": seconds}


def near_duplicates(num: str) -> dict[str, float]:
    """Search synthetic thumbnails, a tenth of them near duplicates of others."""
    import numpy as np
    import scipy.fftpack
    import scipy.sparse.csgraph  # noqa: F401 - imported before the measurement

    from towernet.data import duplicates

    chance = np.random.default_rng(0)
    small_NHW = chance.integers(0, 256, (int(num), 8, 8), dtype=np.uint8)
    num_copies = int(num) // 10
    small_NHW[-num_copies:] = small_NHW[:num_copies] ^ 1

    def thumbnails(some: Any) -> Any:
        return small_NHW[some].repeat(4, axis=1).repeat(4, axis=2).reshape(len(some), -1)

    before = resident("VmRSS")
    forget_peak()
    began = time.perf_counter()
    near = duplicates.find(
        np.arange(int(num), dtype=np.uint64), thumbnails, np.arange(int(num)) % NUM_CLASSES
    )
    return {
        "num_thumbnails": int(num),
        "near_duplicates_seconds": time.perf_counter() - began,
        "near_duplicates_peak_mb": (resident("VmHWM") - before) / 1e6,
        "found": int((near.clusters >= 0).sum()),
        "expected": 2 * num_copies,
    }


def sign_digits(path: str) -> dict[str, Any]:
    """Split look-alike images; return the splits' sizes and the largest deviation of a class."""
    from towernet.config import DataConfig
    from towernet.data import splits
    from towernet.data.check import check
    from towernet.data.source import open_source

    table = check(open_source(path), workers=2)
    table = splits.assign(table, DataConfig(), seed=0, repetition=0)
    used = table[table.status == "used"]
    shares = {
        split: used.class_name[used.split == split].value_counts(normalize=True).sort_index()
        for split in ("train", "validation", "test")
    }
    overall = used.class_name.value_counts(normalize=True).sort_index()
    deviation = max(float((of - overall).abs().max()) for of in shares.values())
    return {
        "sign_digits_used": len(used),
        "sign_digits_splits": {name: int((used.split == name).sum()) for name in shares},
        "sign_digits_largest_deviation": deviation,
    }


PARTS = {part.__name__: part for part in (look, first_sentence, near_duplicates, sign_digits)}


def in_child(part: str, *words: str, cache: str) -> dict[str, Any]:
    """Measure a part in a new process, with the given cache folder."""
    done = subprocess.run(
        [sys.executable, __file__, part, *words],
        capture_output=True, text=True, check=False, env=os.environ | {"TOWERNET_CACHE": cache},
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"error: {part} failed: {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(num_files: int = NUM_FILES, many_classes: int = MANY_CLASSES) -> dict[str, Any]:
    """Measure everything; about six minutes on two cores."""
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder, cache = Path(name), f"{name}/cache"
        plant(folder / "small", 100, 2)
        plant(folder / "large", num_files, NUM_CLASSES)
        result["million"] = in_child("first_sentence", f"{name}/large", cache=f"{cache}-0")
        result["million"] |= in_child("look", f"{name}/large", f"{name}/small", cache=cache)
        again = in_child("look", f"{name}/large", f"{name}/small", cache=cache)
        result["million_again"] = again
        plant(folder / "classes", many_classes, many_classes)
        result["many_classes"] = in_child("first_sentence", f"{name}/classes", cache=f"{cache}-0")
        result["many_classes"] |= in_child("look", f"{name}/classes", f"{name}/small", cache=cache)
    with tempfile.TemporaryDirectory() as cache:
        result |= in_child("near_duplicates", str(NUM_THUMBNAILS), cache=cache)
        if data := os.environ.get("TOWERNET_DATA"):
            result |= in_child("sign_digits", f"{data}/sign-digits.zip", cache=cache)
    return result


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(PARTS[sys.argv[1]](*sys.argv[2:])))
    else:
        print(json.dumps(measure(), indent=2))

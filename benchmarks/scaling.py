"""How time and memory grow with the number of images, pixels and classes.

Each point runs in its own process. Images: files of 8 × 8 random pixels, checked and prepared as by
the command; also a million synthetic rows, from which batches are made. Memory is the private
memory of the process: the mapped pixels belong to the system's cache.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _common import write_result

NUM_IMAGES = (1_000, 10_000, 100_000)
NUM_ROWS = (1_000, 10_000, 100_000, 1_000_000)
SIZES_PX = (128, 192, 256, 384)
NUM_CLASSES = (2, 10, 100, 1_000, 10_000)
BATCH_SIZE, NUM_BATCHES, NUM_STEPS = 32, 40, 6


def memory(key: str) -> int:
    """Return a line of this process's status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"the system does not report {key}")


def images(folder: str, small: str) -> dict[str, Any]:
    """Check and prepare a folder; a small one first, to exclude one-time costs."""
    from towernet.config import DataConfig
    from towernet.data.prepare import prepare, sample_table
    from towernet.data.source import open_source
    from towernet.engine.memory import return_freed_memory

    config = DataConfig(size_px=8, train_margin=1.0)

    def made(path: str) -> Any:
        source = open_source(path)
        table = sample_table(source, seed=0, images_per_class=None, workers=2)
        return prepare(table, source, config, seed=0, workers=2)

    made(small)
    return_freed_memory()  # as the command does before it measures the first network
    before, start = memory("RssAnon"), time.perf_counter()
    dataset = made(folder)
    seconds = time.perf_counter() - start
    return_freed_memory()
    num = len(dataset.table)
    return {
        "num_images": num,
        "seconds": seconds,
        "held_bytes_per_image": (memory("RssAnon") - before) / num,
    } | batches(dataset)


def batches(dataset: Any) -> dict[str, Any]:
    """Order an epoch and make some of its batches."""
    from towernet import rng
    from towernet.config import load_recipe
    from towernet.engine.batches import make_batch
    from towernet.engine.device import choose_policy

    policy, recipe = choose_policy(), load_recipe("default")
    size = dataset.contract.size_px
    start = time.perf_counter()
    order = rng.order(0, 0, dataset.train.keys)
    ordering = time.perf_counter() - start
    with policy.active():
        make_batch(dataset, recipe, policy, 0, 0, order[:BATCH_SIZE], size)
        start = time.perf_counter()
        for i in range(NUM_BATCHES):
            first = i * BATCH_SIZE % (len(order) - BATCH_SIZE)
            make_batch(dataset, recipe, policy, 0, 0, order[first : first + BATCH_SIZE], size)
        seconds = time.perf_counter() - start
    return {"order_seconds": ordering, "batch_ms": 1000 * seconds / NUM_BATCHES}


def synthetic(num_rows: int, pixels: Any) -> Any:
    """Return training data of `num_rows` rows in ten classes that share a few images."""
    from dataclasses import replace

    import numpy as np
    import pandas as pd

    from towernet.data.prepare import Dataset, Part
    from towernet.records.contract import Contract

    keys = np.random.default_rng(1).integers(0, 2**63, num_rows, dtype=np.uint64)
    part = Part(np.arange(num_rows) % len(pixels), np.arange(num_rows) % 10, keys, ())
    names = tuple(f"class {i}" for i in range(10))
    contract = Contract(names, 128, "crop", (0.5,) * 3, (0.25,) * 3, (255, 255, 255))
    none = replace(part, rows=part.rows[:0])
    return Dataset(pd.DataFrame(), contract, part, none, none, lambda: pixels, lambda: pixels)


def rows(num: str) -> dict[str, Any]:
    """Make 128-px batches from so many rows, whose pixels are a few pictures' over and over."""
    import numpy as np

    pixels = np.random.default_rng(0).integers(0, 256, (1_000, 160, 160, 3), dtype=np.uint8)
    synthetic(1, pixels)  # what is imported is paid for before
    before, count = memory("RssAnon"), int(num)
    dataset = synthetic(count, pixels)
    held = memory("RssAnon") - before
    return {"num_rows": count, "held_bytes_per_row": held / count} | batches(dataset)


def steps(network: str, size_px: str, num_classes: str) -> dict[str, Any]:
    """Take training steps; their cost does not depend on the number of images."""
    import torch

    from towernet.config import load_recipe
    from towernet.engine.device import choose_policy
    from towernet.engine.optimizer import make_optimizer
    from towernet.engine.step import train_step
    from towernet.models.catalogue import build

    policy, recipe = choose_policy(), load_recipe("default").train
    size, classes = int(size_px), int(num_classes)
    model = policy.place(build(network, classes, size))
    optimizer = make_optimizer(model, recipe, network, policy.torch_dtype)
    x = torch.randn(BATCH_SIZE, 3, size, size).contiguous(memory_format=policy.memory_format)
    labels = torch.randint(0, classes, (BATCH_SIZE,))

    @policy.active()
    def step() -> None:
        train_step(model, optimizer, x, labels, label_smoothing=0.1, policy=policy)

    step()
    seconds = []
    for _ in range(NUM_STEPS):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return {
        "network": network, "size_px": size, "num_classes": classes,
        "step_ms": 1000 * sorted(seconds)[NUM_STEPS // 2],
        "peak_mib": memory("VmHWM") / 2**20,
    }  # fmt: skip


PARTS: dict[str, Callable[..., dict[str, Any]]] = {"images": images, "rows": rows, "steps": steps}


def apart(part: str, *words: object, cache: str | None = None) -> dict[str, Any]:
    """Measure one point in its own process."""
    environment = os.environ | ({"TOWERNET_CACHE": cache} if cache else {})
    done = subprocess.run(
        [sys.executable, __file__, "--part", part, *map(str, words)],
        stdout=subprocess.PIPE, text=True, check=True, env=environment,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(part, found, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", nargs="+", help="One point to measure in this process.")
    args = parser.parse_args()
    if args.part:
        print(json.dumps(PARTS[args.part[0]](*args.part[1:])))
        return
    from faults_scale import plant
    from towernet.engine.device import choose_policy, hardware, versions

    found = []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        plant(work / "small", 400, 20)
        for num in NUM_IMAGES:
            plant(work / f"images-{num}", num, 20)
            found.append(
                apart("images", work / f"images-{num}", work / "small", cache=str(work / "cache"))
            )
    many, fewer = found[-1], found[-2]
    growth = (
        many["held_bytes_per_image"] * many["num_images"]
        - fewer["held_bytes_per_image"] * fewer["num_images"]
    ) / (many["num_images"] - fewer["num_images"])
    write_result(
        "scaling",
        {
            "images": found,
            "growth_bytes_per_image": growth,
            "rows": [apart("rows", num) for num in NUM_ROWS],
            "pixels": [
                apart("steps", network, size, 16)
                for network in ("towernet", "towernet_patch")
                for size in SIZES_PX
            ],
            "classes": [apart("steps", "towernet", 128, num) for num in NUM_CLASSES],
            "hardware": hardware(choose_policy()),
            "versions": versions(),
        },
    )


if __name__ == "__main__":
    main()

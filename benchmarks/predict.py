"""Predicting a folder against its two halves, decoding and the network, each alone; and its memory.

The same files go through (1) the decoding processes, (2) the network in batches of the size that
`predict` uses, on pixels that are decoded already, and (3) `predict_classes`. The processes decode
on one half of the cores and the network computes on the other half, in all three, so (3) can at
best be as fast as the slower of (1) and (2). They take turns: other work on the machine is shared.
Where others use the machine, (3) needs both halves and waits for them; so the processor time of
this process is given too: of the network alone, and of predicting, which adds receiving.

    TOWERNET_DATA=… python benchmarks/predict.py --images 10000 --set caltech16.zip
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import torch

from _common import data_set, own_bytes, write_result
from towernet.data.pictures import Pictures, find_pictures
from towernet.engine.device import Policy
from towernet.models.catalogue import build
from towernet.models.optimize import optimize
from towernet.predict import BATCH_SIZE, Predictor, fitted_pictures, predict_classes
from towernet.records.contract import Contract


def copies(source: Path, folder: Path, num: int) -> Pictures:
    """Fill a folder with files of an image set, again and again; return them."""
    with tempfile.TemporaryDirectory() as unpacked:
        if source.is_file():
            shutil.unpack_archive(source, unpacked)
            source = Path(unpacked)
        _copy(find_pictures([source]).paths, folder, num)
    return find_pictures([folder])


def _copy(found: Sequence[Path], folder: Path, num: int) -> None:
    for i, path in zip(range(num), itertools.cycle(found), strict=False):
        target = folder / f"{i // 1000:03}" / f"{i:05}{path.suffix}"
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)


def predictor_of(name: str, size_px: int, threads: int) -> Predictor:
    """Return an untrained network, prepared as `load_run` prepares a trained one."""
    torch.manual_seed(0)
    mean_std = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    contract = Contract(tuple(f"class {i}" for i in range(16)), size_px, "crop", *mean_std)
    policy = Policy("cpu", "float32", True, threads, "predict")
    model = optimize(build(name, 16, size_px).eval(), size_px=size_px)
    return Predictor(Path(), policy.place(model), contract, policy)


def main() -> None:
    """Measure, and write benchmarks/results/predict.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--part", type=int, default=1000, help="images between two turns")
    parser.add_argument("--set", default="caltech16.zip")
    parser.add_argument("--model", default="towernet_patch")
    parser.add_argument("--size", type=int, default=128)
    given = parser.parse_args()
    half = max(1, len(os.sched_getaffinity(0)) // 2)
    torch.set_num_threads(half)
    predictor = predictor_of(given.model, given.size, half)
    process = psutil.Process()
    seconds: dict[str, list[float]] = {"decoding": [], "network": [], "predict": []}
    cpu_seconds = {"network": 0.0, "predict": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        all_paths = copies(data_set(given.set), Path(folder), given.images).paths
        for start in range(0, given.images, given.part):
            part = all_paths[start : start + given.part]
            began = time.perf_counter()
            num = sum(1 for _ in fitted_pictures(predictor.contract, part, workers=half))
            seconds["decoding"].append(time.perf_counter() - began)
            pixels = np.zeros((BATCH_SIZE, given.size, given.size, 3), np.uint8)
            began, cpu = time.perf_counter(), time.process_time()
            for _ in range(num // BATCH_SIZE):
                predictor.probabilities(pixels)
            seconds["network"].append(time.perf_counter() - began)
            cpu_seconds["network"] += time.process_time() - cpu
            began, cpu = time.perf_counter(), time.process_time()
            for _ in predict_classes(predictor, Pictures(part, of_folders=True), workers=half):
                pass
            seconds["predict"].append(time.perf_counter() - began)
            cpu_seconds["predict"] += time.process_time() - cpu
        ratios = [
            max(decoding, network) / predict
            for decoding, network, predict in zip(*seconds.values(), strict=True)
        ]
        bytes_at: dict[str, int] = {}
        began = time.perf_counter()
        pictures = Pictures(all_paths, of_folders=True)
        for done, _ in enumerate(predict_classes(predictor, pictures, workers=half), start=1):
            if done in (1000, given.images // 2, given.images - BATCH_SIZE):
                bytes_at[str(done)] = own_bytes(process)
        whole = time.perf_counter() - began
    write_result(
        "predict",
        {
            "images": given.images,
            "images_per_second": {
                name: round(given.images / sum(times), 1) for name, times in seconds.items()
            },
            "images_per_second_in_one_call": round(given.images / whole, 1),
            "of_the_slower_alone_median": round(statistics.median(ratios), 3),
            "of_the_slower_alone": [round(ratio, 3) for ratio in ratios],
            "processor_seconds_of_this_process": {
                name: round(used, 1) for name, used in cpu_seconds.items()
            },
            "network_share_of_processor_time": round(
                cpu_seconds["network"] / cpu_seconds["predict"], 3
            ),
            "own_bytes_after_images": bytes_at,
            "processes": half,
            "threads": half,
            "load": os.getloadavg(),
        },
    )


if __name__ == "__main__":
    main()

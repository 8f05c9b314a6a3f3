"""Features under pre-trained weights: ours against a plain program, and the memory that ours take.

The plain program is what most people write: torchvision's mobilenet_v2 in fp32, in torch's default
settings, and a DataLoader whose processes decode with Pillow, resize to 256 px and crop to 224. Its
number of processes and batch size are chosen first, on a part of the images. Then both take turns
on all images of the set, from files to (N, 1280) features, ours with an empty cache; each turn is a
program of its own, and its start and the loading of its network are not counted. Before each turn
the files are read once. The memory is that of all processes together without mapped files, with
1,000 and with 10,000 images. At the end, whole comparisons of frozen networks whose features are
kept already, through the command: eight runs of one network, and of two with a verdict.

    TOWERNET_DATA=… TOWERNET_WEIGHTS=… python benchmarks/starts.py
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from _common import data_set, own_bytes, weight_file, write_result
from towernet import cpus, files
from towernet.data.check import check
from towernet.data.rules import NOW
from towernet.data.source import open_source
from towernet.engine.device import Policy, hardware, versions
from towernet.engine.features import Backbone, Extractor, features_of, key_of
from towernet.names import NetworkName
from towernet.records.contract import Contract

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WEIGHTS = "mobilenet_v2-b0353104.pth"
MODELS = ["mobilenet_v2/frozen", "timm:tf_efficientnet_lite0/frozen"]
PROCESSES, BATCH_SIZES = (0, 1, 2, 4), (16, 64)
SECONDS_BETWEEN_LOOKS = 0.1


def network() -> tuple[nn.Module, str]:
    """Return torchvision's network with these weights, and the hash of their file."""
    from torchvision import models

    path = weight_file(WEIGHTS)
    model = models.mobilenet_v2()
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval(), files.sha256(path)


class Plain(Dataset[torch.Tensor]):
    """Files decoded as in torchvision's examples."""

    def __init__(self, paths: list[Path]) -> None:
        from torchvision import transforms

        self.paths = paths
        self.transform = transforms.Compose(
            [
                transforms.Resize(256),
                transforms.CenterCrop(224),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.paths[index]) as image:
            tensor: torch.Tensor = self.transform(image.convert("RGB"))
        return tensor


def plain(folder: Path, num: int, processes: int, batch_size: int) -> dict[str, Any]:
    model, _ = network()
    model.classifier = nn.Identity()
    paths = sorted(folder.rglob("*.jpg"))[:num]
    _read(paths)
    began = time.perf_counter()
    with torch.no_grad():
        loader = DataLoader(Plain(paths), batch_size, num_workers=processes)
        features = torch.cat([model(images) for images in loader]).numpy()
    return {"seconds": time.perf_counter() - began, "shape": features.shape, "sum": _sum(features)}


def ours(folder: Path, num: int, workers: int) -> dict[str, Any]:
    model, sha256 = network()
    backbone = Backbone(model, "classifier.1", NetworkName("mobilenet_v2"), sha256)
    contract = Contract(("a", "b"), 224, "crop", MEAN, STD, crop_share=224 / 256)
    source = open_source(str(folder))
    table = check(source, workers=workers)
    images = table[table.status == "used"].iloc[:num]
    _read([folder / path for path in images.path])
    policy = Policy("cpu", "float32", True, cpus.allowed(), "benchmark")

    def features() -> tuple[float, np.ndarray[Any, Any]]:
        began = time.perf_counter()
        extractor = Extractor(backbone, contract, policy)
        key = key_of(extractor, NOW)
        found = features_of(images, source, key, lambda: extractor, rules=NOW, workers=workers)
        return time.perf_counter() - began, found

    with _peak() as peak:
        seconds, cold = features()
    again, _ = features()
    return {
        "seconds": seconds,
        "seconds_again": again,
        "shape": cold.shape,
        "sum": _sum(cold),
        **peak,
    }


def _sum(features: np.ndarray[Any, Any]) -> float:
    """Return a sum that does not depend on the order: both must compute the same features."""
    return float(features.astype(np.float64).sum())


def _read(paths: list[Path]) -> None:
    for path in paths:
        path.read_bytes()


class _peak:
    """Measures the largest memory of this process and its children, while its block runs."""

    def __enter__(self) -> dict[str, int]:
        self.found = {"own_bytes_before": own_bytes(psutil.Process()), "own_bytes_peak": 0}
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._look)
        self.thread.start()
        return self.found

    def _look(self) -> None:
        while not self.ended.wait(SECONDS_BETWEEN_LOOKS):
            self.found["own_bytes_peak"] = max(
                self.found["own_bytes_peak"], own_bytes(psutil.Process())
            )

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()


def turn(*words: object) -> dict[str, Any]:
    """Run one program; return what it printed."""
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", __file__, *map(str, words)],
            env=os.environ | {"TOWERNET_CACHE": cache},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(*words[:1], *words[2:], found, flush=True)
    return found


def copies(folder: Path, target: Path, num: int) -> None:
    """Fill a folder with images, again and again; a byte at the end makes each another file."""
    found = sorted(folder.rglob("*.jpg"))
    for i, path in zip(range(num), itertools.cycle(found), strict=False):
        copy = target / path.parent.name / f"{i:05}.jpg"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes() + i.to_bytes(4, "little"))


def comparisons(name: str) -> dict[str, Any]:
    """Return the seconds of comparisons of frozen networks, with all features kept before."""
    one, two = MODELS[:1], MODELS
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, models in (("before", two), ("one_network", one), ("two_networks", two)):
            began = time.perf_counter()
            subprocess.run(
                [
                    *(sys.executable, "-m", "towernet", "compare", str(data_set(name))),
                    *("--models", ",".join(models), "--runs", "8", "--out", f"{folder}/{kind}"),
                    *("--weights", f"mobilenet_v2={weight_file(WEIGHTS)}"),
                ],
                env=os.environ | {"TOWERNET_CACHE": f"{folder}/cache"},
                check=True,
            )
            found[f"{kind}_seconds"] = time.perf_counter() - began
    return {"runs": 8, "networks": two} | found


def images_of(name: str, folder: Path) -> Path:
    shutil.unpack_archive(data_set(name), folder)
    return folder


def settings() -> Iterator[tuple[int, int]]:
    return itertools.product(PROCESSES, BATCH_SIZES)


def main() -> None:
    """Measure, and write benchmarks/results/starts.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", default="caltech16.zip")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--part", type=int, default=320, help="images that choose the settings")
    parser.add_argument("--memory", type=int, nargs="*", default=[1000, 10_000])
    parser.add_argument("--turn", nargs=5, help="One program, started by this script.")
    given = parser.parse_args()
    if given.turn:
        kind, folder, num, processes, batch_size = given.turn
        found = (
            ours(Path(folder), int(num), int(processes))
            if kind == "ours"
            else plain(Path(folder), int(num), int(processes), int(batch_size))
        )
        print(json.dumps(found))
        return
    workers = cpus.allowed()
    with tempfile.TemporaryDirectory() as unpacked:
        folder = images_of(given.set, Path(unpacked))
        num = len(list(folder.rglob("*.jpg")))
        tried = {
            setting: float(turn("--turn", "plain", folder, given.part, *setting)["seconds"])
            for setting in settings()
        }
        best = min(tried, key=tried.__getitem__)
        rounds = [
            {
                "ours": turn("--turn", "ours", folder, num, workers, 0),
                "plain": turn("--turn", "plain", folder, num, *best),
            }
            for _ in range(given.rounds)
        ]
    memory = {}
    for num_copies in given.memory:
        with tempfile.TemporaryDirectory() as copied, tempfile.TemporaryDirectory() as unpacked:
            copies(images_of(given.set, Path(unpacked)), Path(copied), num_copies)
            memory[str(num_copies)] = turn("--turn", "ours", copied, num_copies, workers, 0)
    compared = comparisons(given.set)
    ratios = [float(one["plain"]["seconds"] / one["ours"]["seconds"]) for one in rounds]
    write_result(
        "starts",
        {
            "features": {
                "images": num,
                "times_plain": statistics.median(ratios),
                "times_plain_by_round": ratios,
                "rounds": rounds,
                "plain_seconds_by_processes_and_batch": {
                    f"{processes}, {size}": seconds for (processes, size), seconds in tried.items()
                },
                "plain_uses": {"processes": best[0], "batch_size": best[1]},
            },
            "memory": memory,
            "comparisons": compared,
            "load": os.getloadavg(),
            "hardware": hardware(Policy("cpu", "float32", True, workers, "")),
            "versions": versions(),
        },
    )


if __name__ == "__main__":
    main()

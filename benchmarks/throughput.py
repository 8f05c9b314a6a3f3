"""The notebook recipe's training speed on caltech16.zip at 256 px, beside a plain program.

The plain program is what one would write first: fp32, contiguous tensors, the notebook's layers in
its order with textbook shuffle attention, and a DataLoader that decodes each JPEG every epoch.
Ours is the engine as `towernet train --recipe notebook` uses it, data path included.
Rounds of both are interleaved in one process; the figure is the median ratio.
"""

from __future__ import annotations

import argparse
import io
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from _common import data_set, write_result
from towernet.config import RunConfig, load_recipe
from towernet.data.prepare import NOTEBOOK_MEAN, NOTEBOOK_STD, prepare, sample_table
from towernet.data.source import open_source
from towernet.engine.batches import epoch_batches
from towernet.engine.device import choose_policy, hardware, versions
from towernet.engine.optimizer import make_optimizer
from towernet.engine.step import train_step
from towernet.engine.train import initial_model

BATCH_SIZE = 32
SECONDS_TO_FILL_THE_QUEUE = 3.0


class PlainShuffleAttention(nn.Module):
    """The layer as its paper's listing writes it."""

    def __init__(self, channels: int, groups: int = 64) -> None:
        super().__init__()
        self.groups, half = groups, channels // (2 * groups)
        self.cweight = nn.Parameter(torch.zeros(1, half, 1, 1))
        self.cbias = nn.Parameter(torch.ones(1, half, 1, 1))
        self.sweight = nn.Parameter(torch.zeros(1, half, 1, 1))
        self.sbias = nn.Parameter(torch.ones(1, half, 1, 1))
        self.norm = nn.GroupNorm(half, half)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        x_0, x_1 = x.reshape(b * self.groups, -1, h, w).chunk(2, dim=1)
        x_0 = x_0 * torch.sigmoid(self.cweight * x_0.mean((2, 3), keepdim=True) + self.cbias)
        x_1 = x_1 * torch.sigmoid(self.sweight * self.norm(x_1) + self.sbias)
        x = torch.cat([x_0, x_1], dim=1).reshape(b, 2, c // 2, h, w)
        return x.transpose(1, 2).reshape(b, c, h, w)


class PlainInception(nn.Module):
    """Four branches, concatenated, plus a 1 × 1 shortcut."""

    def __init__(self) -> None:
        super().__init__()

        def conv(i: int, o: int, k: int, p: int = 0) -> list[nn.Module]:
            return [nn.Conv2d(i, o, k, padding=p), nn.ReLU()]

        self.branches = nn.ModuleList(
            [
                nn.Sequential(*conv(256, 64, 1)),
                nn.Sequential(*conv(256, 64, 1), *conv(64, 128, 3, 1)),
                nn.Sequential(*conv(256, 16, 1), *conv(16, 32, 5, 2)),
                nn.Sequential(nn.MaxPool2d(3, 1, 1), *conv(256, 32, 1)),
            ]
        )
        self.shortcut = nn.Conv2d(256, 256, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(torch.cat([branch(x) for branch in self.branches], 1) + self.shortcut(x))


def plain_towernet(num_classes: int) -> nn.Module:
    def stage(i: int, o: int, stride: int = 1) -> list[nn.Module]:
        conv = nn.Conv2d(i, o, 3, stride, 1)
        return [conv, nn.BatchNorm2d(o, eps=1e-3), nn.ReLU(), nn.MaxPool2d(2)]

    def attention() -> nn.Module:
        return PlainShuffleAttention(256)

    return nn.Sequential(
        *stage(3, 64, 2), *stage(64, 128), *stage(128, 256), attention(),
        *stage(256, 256), attention(),
        PlainInception(), nn.MaxPool2d(2), attention(),
        PlainInception(), nn.MaxPool2d(2), attention(),
        PlainInception(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, num_classes),
    )  # fmt: skip


class DecodingDataset(Dataset[tuple[Tensor, int]]):
    """Decodes, resizes, rotates and normalises one image at a time, as a first program does."""

    def __init__(self, paths: list[Path], labels: list[int], size_px: int) -> None:
        self.paths, self.labels, self.size_px = paths, labels, size_px

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        image = Image.open(io.BytesIO(self.paths[i].read_bytes())).convert("RGB")
        image = image.resize((self.size_px, self.size_px), Image.Resampling.BILINEAR)
        image = image.rotate(random.uniform(-10, 10), Image.Resampling.NEAREST)
        x = torch.from_numpy(np.asarray(image, np.float32) / 255)
        x = (x - torch.tensor(NOTEBOOK_MEAN)) / torch.tensor(NOTEBOOK_STD)
        return x.permute(2, 0, 1).contiguous(), self.labels[i]


def rounds(step: Callable[[], None], steps: int) -> Iterator[float]:
    """Yield images per second of one round of steps after another, the first step not counted."""
    step()
    while True:
        start = time.perf_counter()
        for _ in range(steps):
            step()
        yield steps * BATCH_SIZE / (time.perf_counter() - start)


def plain_rounds(paths: list[Path], labels: list[int], size_px: int, steps: int, workers: int
                 ) -> Iterator[float]:  # fmt: skip
    """Yield images per second of one round after another, epochs running on."""
    model = plain_towernet(max(labels) + 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9, weight_decay=2e-4)
    loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
        DecodingDataset(paths, labels, size_px),  # type: ignore[arg-type]
        BATCH_SIZE, shuffle=True, num_workers=workers, persistent_workers=True, drop_last=True,
    )  # fmt: skip

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from loader

    stream = batches()

    def step() -> None:
        images, wanted = next(stream)
        optimizer.zero_grad()
        F.cross_entropy(model(images), wanted).backward()
        optimizer.step()

    yield from rounds(step, steps)


def our_rounds(dataset: Any, policy: Any, steps: int) -> Iterator[float]:
    """Yield images per second of the engine, round after round."""
    recipe = load_recipe("notebook")
    config = RunConfig(model="towernet", recipe=recipe)
    model = policy.place(initial_model(config, len(dataset.contract.class_names), 256))
    optimizer = make_optimizer(model, recipe.train, "towernet")

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        epoch = 0
        while True:
            for images, labels in epoch_batches(dataset, recipe, policy, seed=0, epoch=epoch):
                if len(labels) == BATCH_SIZE:
                    yield images, labels
            epoch += 1

    stream = batches()

    def step() -> None:
        images, labels = next(stream)
        train_step(model, optimizer, images, labels, label_smoothing=0.0, policy=policy)

    yield from rounds(step, steps)


def peak_memory_mib(data: Path) -> float:
    """Train one epoch through the command; return the peak of the whole process tree, in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "towernet", "train", str(data), "--recipe", "notebook",
             "--epochs", "1", "--out", f"{folder}/run"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        peak, watched = 0, psutil.Process(process.pid)
        while process.poll() is None:
            try:
                tree = [watched, *watched.children(recursive=True)]
                peak = max(peak, sum(child.memory_info().rss for child in tree))
            except psutil.NoSuchProcess:
                pass
            time.sleep(0.1)
        if process.returncode:
            sys.exit("error: the training run failed; run it by hand to see why")
    return peak / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=16, help="Steps in one round.")
    parser.add_argument("--workers", type=int, default=2, help="Of the plain program's loader.")
    args = parser.parse_args()

    source = open_source(str(data_set("caltech16.zip")))
    table = sample_table(source, seed=0, images_per_class=None, workers=2)
    dataset = prepare(table, source, load_recipe("notebook").data, seed=0, workers=2)
    policy = choose_policy()
    file_of = {entry.path: entry.file for entry in source.files}
    paths = [file_of[path] for path in dataset.train.paths]

    streams = {
        "plain": plain_rounds(paths, dataset.train.labels.tolist(), 256, args.steps, args.workers),
        "towernet": our_rounds(dataset, policy, args.steps),
    }
    speeds: dict[str, list[float]] = {name: [] for name in streams}
    for _ in range(args.rounds):
        for name, stream in streams.items():
            speeds[name].append(next(stream))
            # The loader's processes fill their queue, which the plain program's next round gets
            # for nothing, and then rest: they must not decode during the other's round.
            time.sleep(SECONDS_TO_FILL_THE_QUEUE)
            print(f"{name}: {speeds[name][-1]:.1f} images/s", flush=True)
    ratios = [ours / plain for ours, plain in zip(speeds["towernet"], speeds["plain"], strict=True)]
    write_result(
        "throughput",
        {
            "images_per_second": {name: median(values) for name, values in speeds.items()},
            "rounds": speeds,
            "ratio": median(ratios),
            "ratio_spread": [min(ratios), max(ratios)],
            "peak_memory_mib": peak_memory_mib(data_set("caltech16.zip")),
            "hardware": hardware(policy),
            "versions": versions(),
        },
    )


if __name__ == "__main__":
    main()

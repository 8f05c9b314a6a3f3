"""Training speed at 256 px, batch 32: towernet, a plain program of the same network, tuned peers.

Contenders are measured in turn, each in its own process: first the built-in networks, then towernet
with each peer separately, since a sleeping process keeps its memory; a GEMM is measured in every
round. The plain program is a straightforward one: fp32, contiguous tensors, the layers in the
notebook's order with textbook shuffle attention.
A peer's `default` is torch with its default settings (fp32, contiguous), its `engine` is towernet's
engine (bf16, channels_last, memory kept), its `compiled` is the same under torch.compile; the best
of those measured counts. The share of GEMM's peak counts 3 × 2 × multiply-adds per image.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from _common import data_set, own_bytes, write_result
from _contenders import (
    MEASURED_SECONDS,
    WARM_SECONDS,
    Contenders,
    Measure,
    calls_for,
    serve,
    timed,
)
from towernet.config import load_recipe
from towernet.data.prepare import prepare, sample_table
from towernet.data.source import open_source
from towernet.engine.batches import make_batch
from towernet.engine.device import Policy, choose_policy, hardware, versions
from towernet.engine.optimizer import make_optimizer
from towernet.engine.step import average_weights, train_step
from towernet.models.catalogue import build, outline
from towernet.models.summary import multiply_adds

SIZE_PX, BATCH_SIZE, NUM_CLASSES = 256, 32, 16
PEERS = ("mobilenet_v2", "resnet50", "vgg19")
MODES = ("default", "engine", "compiled")
GEMM_SIDE = 2048


class PlainShuffleAttention(nn.Module):
    """The layer as in its paper's listing."""

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


def images_per_second(step: Any) -> Measure:
    return lambda: {"images_per_second": BATCH_SIZE / timed(step)}


def plain(network: str) -> Measure:
    """Measure torch with its default settings."""
    torch.manual_seed(0)
    model = plain_towernet(NUM_CLASSES) if network == "towernet" else build(network, 16, SIZE_PX)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9, weight_decay=2e-4)
    images = torch.randn(BATCH_SIZE, 3, SIZE_PX, SIZE_PX)
    labels = torch.randint(0, NUM_CLASSES, (BATCH_SIZE,))
    model.train()

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    step()
    return images_per_second(step)


def policy_of(mode: str) -> Policy:
    policy = choose_policy()
    return replace(policy, kernels="torch") if mode == "torch" else policy


def engine(network: str, mode: str) -> Measure:
    """Measure steps of the notebook recipe by towernet's engine, on one batch."""
    policy = policy_of(mode)
    torch.manual_seed(0)
    recipe = load_recipe("notebook")
    model = policy.place(build(network, NUM_CLASSES, SIZE_PX))
    optimizer = make_optimizer(model, recipe.train, network, policy.torch_dtype)
    called = torch.compile(model) if mode == "compiled" else model
    images = torch.randn(BATCH_SIZE, 3, SIZE_PX, SIZE_PX)
    images = images.contiguous(memory_format=policy.memory_format)
    labels = torch.randint(0, NUM_CLASSES, (BATCH_SIZE,))

    def step() -> None:
        train_step(called, optimizer, images, labels, label_smoothing=0.0, policy=policy)  # type: ignore[arg-type]

    with policy.active():
        step()  # selects kernels and allocates memory, or compiles
    # As in a run, the policy is activated once for all steps.
    return policy.active()(images_per_second(step))


def data_path(network: str) -> Measure:
    """Measure the default recipe with its batches, and their share of a step."""
    policy = policy_of("engine")
    recipe = load_recipe("default")
    source = open_source(str(data_set("caltech16.zip")))
    table = sample_table(source, seed=0, images_per_class=None, workers=2)
    config = recipe.data.model_copy(update={"size_px": SIZE_PX})
    dataset = prepare(table, source, config, seed=0, workers=2)
    torch.manual_seed(0)
    model = policy.place(build(network, len(dataset.contract.class_names), SIZE_PX))
    optimizer = make_optimizer(model, recipe.train, network, policy.torch_dtype)
    averaged = average_weights(model, recipe.train.ema_fraction, 1000)
    taken, making = 0, 0.0

    def step() -> None:
        nonlocal taken, making
        start = time.perf_counter()
        chosen = (np.arange(BATCH_SIZE) + BATCH_SIZE * taken) % len(dataset.train)
        batch = make_batch(dataset, recipe, policy, 0, taken, chosen, SIZE_PX)
        making += time.perf_counter() - start
        train_step(
            model, optimizer, batch.images_BCHW, batch.targets, label_smoothing=0.1, policy=policy
        )
        averaged.update_parameters(model)
        taken += 1

    @policy.active()
    def measure() -> dict[str, Any]:
        nonlocal taken, making
        calls_for(WARM_SECONDS, step)
        taken, making = 0, 0.0
        seconds = calls_for(MEASURED_SECONDS, step)
        return {
            "images_per_second": BATCH_SIZE / seconds,
            "share_of_data_path": making / (taken * seconds),
        }

    return measure


def gemm() -> Measure:
    def measure() -> dict[str, Any]:
        found = {}
        for dtype in (torch.bfloat16, torch.float32):
            a, b = (torch.randn(GEMM_SIDE, GEMM_SIDE).to(dtype) for _ in range(2))
            torch.mm(a, b)
            # The best of several: other programs can only slow it down.
            seconds = min(calls_for(0.1, partial(torch.mm, a, b)) for _ in range(5))
            found[f"gflops_{str(dtype).split('.')[1]}"] = 2e-9 * GEMM_SIDE**3 / seconds
        return found

    return measure


def make(name: str) -> Measure:
    network, _, mode = name.partition(" ")
    if name == "gemm":
        return gemm()
    if mode == "with data":
        return data_path(network)
    return plain(network) if mode in ("plain", "default") else engine(network, mode)


def peak_memory_mib(data: Path) -> float:
    """Train one epoch through the command; return the peak of the whole process tree, in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "towernet", "train", str(data), "--recipe", "notebook",
             "--epochs", "1", "--out", f"{folder}/run"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=os.environ | {"TOWERNET_CACHE": f"{folder}/cache"},
        )  # fmt: skip
        peak, watched = 0, psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, own_bytes(watched))
            time.sleep(0.1)
        if process.returncode:
            sys.exit("error: the training run failed; run it by hand to see why")
    return peak / 2**20


def speed_alone(name: str, rounds: int) -> dict[str, float]:
    """Measure a contender while no other is there: sleeping ones must not change its speed."""
    contender = Contenders([name])
    for _ in range(rounds):
        contender.round()
    contender.end()
    found: dict[str, float] = contender.summary()[name]["images_per_second"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contender", help="One of the programs, started by this script.")
    args = parser.parse_args()
    if args.contender:
        serve(make)
        return
    built_in = ["towernet plain", "towernet engine", "towernet torch", "towernet compiled",
            "towernet with data", "towernet_patch engine"]  # fmt: skip
    peers = {peer: ["towernet engine", *(f"{peer} {mode}" for mode in MODES)] for peer in PEERS}
    policy = choose_policy()
    summary: dict[str, Any] = {}
    failed: dict[str, str] = {}
    best, times_peer, shares = {}, {}, {}
    times_plain: dict[str, float] = {}
    alone = {name: speed_alone(name, args.rounds) for name in built_in[:2]}
    for group, names in {"ours": built_in, **peers}.items():
        contenders = Contenders(["gemm", *names])
        for _ in range(args.rounds):
            contenders.round()
        contenders.end()
        found = contenders.summary()
        failed |= contenders.failed
        peak = found["gemm"][f"gflops_{policy.dtype}"]["median"]
        for name in found.keys() - summary.keys() - {"gemm"}:
            network = name.partition(" ")[0]
            work = 6e-9 * multiply_adds(outline(network, NUM_CLASSES, SIZE_PX), SIZE_PX)
            shares[name] = work * found[name]["images_per_second"]["median"] / peak
        summary = found | summary
        if group == "ours":
            times_plain = contenders.ratio("images_per_second", "towernet engine", "towernet plain")
            continue
        speeds = {
            name: found[name]["images_per_second"]["median"] for name in names[1:] if name in found
        }
        best[group] = max(speeds, key=speeds.__getitem__)
        times_peer[group] = contenders.ratio("images_per_second", "towernet engine", best[group])
    write_result(
        "throughput",
        {
            "contenders": summary,
            "failed": failed,
            "best_of_peer": best,
            "alone": alone,
            "times_plain": times_plain,
            "times_peer": times_peer,
            "share_of_gemm": shares,
            "peak_memory_mib": peak_memory_mib(data_set("caltech16.zip")),
            "hardware": hardware(policy),
            "versions": versions(),
        },
    )


if __name__ == "__main__":
    main()

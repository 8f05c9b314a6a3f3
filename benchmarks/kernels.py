"""What each kernel in C buys over torch's own operations, as a share of a whole training step.

Two modes, each in a process of its own, side by side: this machine as it is, and AVX2 alone, as
most laptops have it, for torch, oneDNN and the C code. The number format is the one a run would
choose there. A step is the default recipe's at 128 px: batch made and mixed, forward, backward,
optimiser, running average. In each round every variant takes a step on the same batch: all
kernels, each kernel in turn replaced by torch's operations, and torch alone; a round's ratio
compares a variant's step with that of all kernels. Which kernels a network uses is found out by
counting calls.

One thread, and the process's CPU seconds, which other programs disturb less than a clock's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from scipy.stats import quantile_test

from _common import RESULTS, write_result
from scaling import BATCH_SIZE, synthetic
from towernet.config import load_recipe
from towernet.engine.batches import make_batch
from towernet.engine.device import Policy, choose_policy, hardware, versions
from towernet.engine.memory import return_freed_memory
from towernet.engine.optimizer import make_optimizer, set_learning_rate
from towernet.engine.step import average_weights, train_step
from towernet.models.catalogue import build
from towernet.native import library, ops

SIZE_PX, STORED_PX, NUM_IMAGES, NUM_CLASSES = 128, 160, 256, 10
NETWORKS = ("towernet", "towernet_patch", "resnet18", "resnet18+shuffle", "resnet50",
            "resnet50+shuffle", "mobilenet_v2", "mobilenet_v2+shuffle")  # fmt: skip
KERNELS = ("augment", "norm_pool_relu", "shuffle_attention")
MODES = {"native": {}, "avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}}
LEAST_ROUNDS = 7  # fewer give no 95 % interval of a median
# What torch computes on random labels is not to diverge; a step takes as long with any rate.
LEARNING_RATE = 1e-3

Step = Callable[[int], None]


@contextlib.contextmanager
def without(*kernels: str) -> Iterator[None]:
    """Let torch do what some kernels of the network do: none fits any map."""
    refused = {"norm_pool_relu": "usable", "shuffle_attention": "usable_for_attention"}
    names = [refused[kernel] for kernel in kernels if kernel in refused]
    before = {name: getattr(ops, name) for name in names}
    for name in names:
        setattr(ops, name, lambda *tensors: False)
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(ops, name, function)


@contextlib.contextmanager
def counted_calls() -> Iterator[set[str]]:
    """Collect which kernels are called."""
    called: set[str] = set()
    call = ops._call

    def counting(name: str, *arguments: Any) -> Any:
        called.update(kernel for kernel in KERNELS if name.startswith(kernel))
        return call(name, *arguments)

    ops._call = counting
    try:
        yield called
    finally:
        ops._call = call


def steps_of(network: str, policy: Policy) -> Callable[..., Step]:
    """Return what makes a step of a network in a policy's layout without some of the kernels."""
    recipe = load_recipe("default")
    pixels = np.random.default_rng(0).integers(
        0, 256, (NUM_IMAGES, STORED_PX, STORED_PX, 3), dtype=np.uint8
    )
    dataset = synthetic(NUM_IMAGES, pixels)
    torch.manual_seed(0)
    model = policy.place(build(network, NUM_CLASSES, SIZE_PX))
    optimizer = make_optimizer(model, recipe.train, network, policy.torch_dtype)
    set_learning_rate(optimizer, LEARNING_RATE)
    averaged = average_weights(model, recipe.train.ema_fraction, 1000)

    def made(*refused: str) -> Step:
        kernels = "torch" if "augment" in refused else "native"
        batch_policy = replace(policy, kernels=kernels)

        def step(number: int) -> None:
            chosen = (np.arange(BATCH_SIZE) + BATCH_SIZE * number) % NUM_IMAGES
            batch = make_batch(dataset, recipe, batch_policy, 0, number, chosen, SIZE_PX)
            with without(*refused):
                loss, _ = train_step(
                    model, optimizer, batch.images_BCHW, batch.targets, label_smoothing=0.1,
                    policy=policy,
                )  # fmt: skip
            averaged.update_parameters(model)
            assert torch.isfinite(loss)

        return step

    return made


def variants_of(network: str, policy: Policy) -> tuple[dict[str, Step], dict[str, Step]]:
    """Return the steps with all kernels and without each that is used; and those of torch alone.

    Torch alone takes the layout a run would take without kernels: in fp32 planes are as fast as
    channels_last or faster, and planes are what such a run then takes.
    """
    made = steps_of(network, policy)
    with counted_calls() as used:
        made()(0)  # this and the steps below warm up as well
    variants = {"all": made()}
    for kernel in sorted(used):
        variants[kernel] = made(kernel)
        with counted_calls() as left:
            variants[kernel](0)
        if left != used - {kernel}:
            sys.exit(f"error: without {kernel}, {network} still calls {left} of {used}")
    plain = policy.channels_last and policy.dtype == "float32"
    torch_alone = steps_of(network, replace(policy, channels_last=False)) if plain else made
    with counted_calls() as left:
        torch_alone(*KERNELS)(0)
    if left:
        sys.exit(f"error: torch alone still calls {left} in {network}")
    return variants, {"torch": torch_alone(*KERNELS)}


def in_turn(steps: dict[str, Step], seconds: float) -> dict[str, Any]:
    """Let all take a step in each round, for some seconds; the first is what all is compared with.

    Returns each one's CPU seconds and, as a ratio to the first one's in the same round, the median
    with its 95 % interval (sign test) and the quartiles.
    """
    first, *_ = steps
    taken: dict[str, list[float]] = {name: [] for name in steps}
    number, started = 0, time.perf_counter()
    while number < LEAST_ROUNDS or time.perf_counter() - started < seconds:
        names = list(steps) if number % 2 else list(reversed(steps))
        for name in names:
            start = time.process_time()
            steps[name](number)
            taken[name].append(time.process_time() - start)
        number += 1
    return {
        name: {
            "seconds": median(times),
            "rounds": len(times),
            "ratio": spread([a / b for a, b in zip(times, taken[first], strict=True)]),
        }
        for name, times in taken.items()
    }


def spread(ratios: list[float]) -> dict[str, float]:
    interval = quantile_test(ratios, p=0.5).confidence_interval(0.95)
    quartiles = np.quantile(ratios, [0.25, 0.75])
    return {
        "median": median(ratios), "low": float(interval.low), "high": float(interval.high),
        "quartile_1": float(quartiles[0]), "quartile_3": float(quartiles[1]),
    }  # fmt: skip


def instructions(compiler: list[str]) -> list[str]:
    """Return the widest vector instructions the C code is compiled for."""
    macros = library._run([*compiler, *library._FLAGS, "-dM", "-E", "-x", "c", os.devnull])
    known = ("AVX2", "FMA", "AVX512F", "AVX512BF16")
    return [name for name in known if f"#define __{name}__ 1" in macros]


def measure(mode: str, networks: list[str], seconds: float) -> dict[str, Any]:
    """Measure one mode: this process is in it."""
    torch.set_num_threads(1)
    # Without AVX-512 gcc 12 takes most of a minute, more on a busy machine.
    library._TIMEOUT_S = 1200
    compiled_for = instructions(shlex.split(os.environ["CC"]))
    capability = torch.backends.cpu.get_cpu_capability()
    if mode == "avx2" and (capability != "AVX2" or "AVX512F" in compiled_for):
        sys.exit(f"error: this is not AVX2 alone: torch has {capability}, the C {compiled_for}")
    choice = choose_policy("cpu", 1)
    policy = replace(choice, channels_last=True, kernels="native")
    found = {}
    with policy.active():
        for network in networks:
            variants, alone = variants_of(network, policy)
            found[network] = in_turn(variants | alone, seconds)
            print(mode, network, json.dumps(found[network]), file=sys.stderr, flush=True)
            del variants, alone
            return_freed_memory()
    return {
        "networks": found,
        "chosen": asdict(choice),
        "torch_capability": capability,
        "compiled_for": compiled_for,
        "hardware": hardware(policy).model_dump(),
    }


def start(mode: str, words: list[str], folder: Path) -> subprocess.Popen[str]:
    """Measure one mode in a process of its own, its kernels compiled for it."""
    compiler = os.environ.get("CC", "gcc")
    if mode == "avx2":  # the last -march counts
        script = folder / "cc"
        script.write_text(f'#!/bin/sh\nexec {compiler} "$@" -march=haswell\n')
        script.chmod(0o700)
        compiler = str(script)
    return subprocess.Popen(
        [sys.executable, __file__, "--mode", mode, *words],
        stdout=subprocess.PIPE, text=True,
        env=os.environ | MODES[mode] | {"CC": compiler},
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=90, help="For each network.")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES),
                        help="The others stay as they were measured before.")  # fmt: skip
    parser.add_argument("--mode", choices=MODES, help="One mode, measured by this process.")
    args = parser.parse_args()
    if args.mode:
        print(json.dumps(measure(args.mode, args.networks, args.seconds)))
        return
    before = RESULTS / "kernels.json"
    modes = json.loads(before.read_text())["modes"] if before.exists() else {}
    with tempfile.TemporaryDirectory() as name:
        processes = {mode: start(mode, sys.argv[1:], Path(name)) for mode in args.modes}
        for mode, process in processes.items():
            printed, _ = process.communicate()
            if process.returncode:
                sys.exit(f"error: mode {mode} failed; the lines above say why")
            modes[mode] = json.loads(printed.splitlines()[-1])
    write_result(
        "kernels",
        {
            "modes": modes,
            "hardware": next(iter(modes.values()))["hardware"],
            "versions": versions(),
        },
    )


if __name__ == "__main__":
    main()

"""The cost of attention: the kernel against the textbook module, and blocks within a ResNet-50.

In one process, in several rounds, one contender after another works alone: it is warmed for some
seconds, then measured for as long; a ratio compares two contenders of one round. The layer is timed
forward and backward on 8 × 256 × 56 × 56, with maps and parameters in several formats: the block
with its kernel, without it, and the textbook module, whose parameters are always in the maps'
format, where it is fastest. All blocks are also timed on 8 × 256 × 28 × 28, compared with a 3×3
convolution. The network takes 16 images of 224 px, without attention and with a block before each
of its 16 additions, blended in with a gain that is not 0. Training is a step of SGD, inference runs
in eval mode, bf16 uses autocast. Freed memory is kept from step to step, for all, as in a run.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import time
from collections.abc import Callable
from dataclasses import asdict
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet50

from _common import write_result
from throughput import PlainShuffleAttention
from towernet.attention import ATTENTION, ShuffleAttention
from towernet.attention.attach import attach
from towernet.attention.base import paper
from towernet.attention.blend import FromIdentity
from towernet.engine import memory
from towernet.engine.block_cost import block_costs, kernel_of
from towernet.engine.device import choose_policy, hardware, versions
from towernet.native import ops

LAYER_SHAPE = (8, 256, 56, 56)
NETWORK_SHAPE = (16, 3, 224, 224)
GAIN = 0.5
BLOCKS = ("shuffle", "se", "eca")
LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float16": torch.float16}
NETWORK_DTYPES = ("bfloat16", "float32")
# Of maps and of parameters: as in a run, as a network that was converted as a whole, mixed.
FORMATS = (
    ("bfloat16", "float32"),
    ("float32", "float32"),
    ("float16", "float32"),
    ("bfloat16", "bfloat16"),
    ("float16", "float16"),
    ("float32", "bfloat16"),
)

Step = Callable[[], None]


def alone(steps: dict[str, Step], rounds: int, seconds: float) -> dict[str, Any]:
    """Let each contender work alone in each round; the others are compared with the first.

    Returns each one's milliseconds for a step, and their ratios to the first one's of the same
    round: medians and ranges over the rounds.
    """
    first, *_ = steps
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds):
        # The order alternates, since a machine can become slower within a round.
        for name in list(steps) if number % 2 else reversed(steps):
            repeated(steps[name], seconds)
            taken[name].append(repeated(steps[name], seconds))
    return {
        name: {
            "ms": spread(times),
            "ratio": spread([a / b for a, b in zip(times, taken[first], strict=True)]),
        }
        for name, times in taken.items()
    }


def repeated(step: Step, seconds: float) -> float:
    """Repeat a step for some seconds; return the mean milliseconds of one."""
    num, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds:
        step()
        num += 1
    return 1000 * passed / num


def spread(figures: list[float]) -> dict[str, float]:
    return {"median": median(figures), "min": min(figures), "max": max(figures)}


def layer(maps: str, parameters: str, layout: str) -> dict[str, Step]:
    """Return steps of the block, with its kernel and without, and of the module in its paper."""
    channels = LAYER_SHAPE[1]
    torch.manual_seed(0)
    x, weights = (
        torch.randn(LAYER_SHAPE).to(DTYPES[maps]).contiguous(memory_format=LAYOUTS[layout])
        for _ in range(2)
    )
    x.requires_grad_()

    def step_of(module: nn.Module, kernel: str) -> Step:
        for parameter in module.parameters():
            nn.init.normal_(parameter)

        def step() -> None:
            with ops.enabled(kernel == "native"):
                y = module(x)
            torch.autograd.grad(y, [x, *module.parameters()], weights)

        with ops.enabled(kernel == "native"):
            assert kernel_of(module(x)) == kernel
        return step

    block = ShuffleAttention(channels).to(DTYPES[parameters])
    return {
        "kernel": step_of(block, "native"),
        "without": step_of(block, "torch"),
        "textbook": step_of(PlainShuffleAttention(channels).to(DTYPES[maps]), "torch"),
    }


def networks(dtype: str, *, train: bool) -> dict[str, Step]:
    """Return steps of a ResNet-50 without attention, and with each block at all its places."""
    torch.manual_seed(0)
    plain = resnet50().to(memory_format=torch.channels_last)
    images = torch.randn(NETWORK_SHAPE).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 1000, NETWORK_SHAPE[:1])
    models = {"plain": plain}
    for name in BLOCKS:
        models[name] = copy.deepcopy(plain)
        for attached in attach(models[name], name):
            if isinstance(attached.block, FromIdentity):
                nn.init.constant_(attached.block.gain, GAIN)
    make = training_step if train else inference_step
    return {
        name: make(model.to(memory_format=torch.channels_last), images, labels, dtype)
        for name, model in models.items()
    }


def training_step(model: nn.Module, images: Tensor, labels: Tensor, dtype: str) -> Step:
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    model.train()

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()

    return step


def inference_step(model: nn.Module, images: Tensor, labels: Tensor, dtype: str) -> Step:
    model.eval()

    def step() -> None:
        bf16 = torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16")
        with torch.inference_mode(), bf16:
            model(images)

    return step


def what(block: type) -> str:
    """Return the first sentence of a block's docstring."""
    return (block.__doc__ or "").partition(".")[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2, help="of warming, and of measuring")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    memory.keep_freed_memory()
    layers, in_network = {}, {}
    for (maps, parameters), layout in itertools.product(FORMATS, LAYOUTS):
        name = f"{maps}/{parameters} {layout}"
        print(f"timing: {name}", flush=True)
        layers[name] = alone(layer(maps, parameters, layout), args.rounds, args.seconds)
    with ops.enabled(True):
        for dtype, train in itertools.product(NETWORK_DTYPES, (True, False)):
            name = f"{dtype} {'training' if train else 'inference'}"
            print(f"timing: {name}", flush=True)
            in_network[name] = alone(networks(dtype, train=train), args.rounds, args.seconds)
            memory.return_freed_memory()
    policy = choose_policy("cpu", args.threads)
    blocks = block_costs(dict(ATTENTION), policy, batch_size=8, channels=256, size_px=28)
    write_result(
        "attention_cost",
        {
            "layer": layers,
            "network": in_network,
            "blocks": {
                name: asdict(cost)
                | {"paper": paper(ATTENTION[name]), "what": what(ATTENTION[name])}
                for name, cost in blocks.items()
            },
            "threads": args.threads,
            "hardware": hardware(policy),
            "versions": versions(),
        },
    )


if __name__ == "__main__":
    main()

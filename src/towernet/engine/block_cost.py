"""The cost of a block on this machine, compared with the convolution it would follow."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

from towernet import torch_private
from towernet.attention.base import AttentionBlock
from towernet.engine.device import Policy
from towernet.native import ops

NUM_ROUNDS, NUM_WARMING_ROUNDS = 7, 2
# Peak, measured in fp32 and bf16: se 8, coordinate 11, cbam 13, simam 23, all in turn 27.
_NUM_MAPS = 27
_NUM_COPIES = 4  # of the convolution's weights: in both layouts, and their gradients
_FP32_BYTES = 4


@dataclass(frozen=True)
class BlockCost:
    """One block's cost, forward and backward.

    Args:
        parameters: Its trainable numbers.
        milliseconds: For one batch of feature maps, median.
        of_convolution: The same, relative to a 3×3 convolution with batch norm.
        kernel: What computed it, named as in `Policy`: "native" and "compiled" are one fused
            kernel, "torch" is torch's operations one after another.
    """

    parameters: int
    milliseconds: float
    of_convolution: float
    kernel: str


def memory_bytes(batch_size: int, channels: int, size_px: int) -> int:
    """Return the memory that timing can take; custom blocks need about as much as built-in ones."""
    maps = _NUM_MAPS * batch_size * channels * size_px**2
    return _FP32_BYTES * (maps + _NUM_COPIES * 9 * channels**2)


def block_costs(
    blocks: dict[str, Callable[[int], AttentionBlock]],
    policy: Policy,
    *,
    batch_size: int,
    channels: int,
    size_px: int,
) -> dict[str, BlockCost]:
    """Time blocks in turn, round after round, so that a busy moment affects them all.

    Args:
        blocks: By name.
        policy: Device, number format, layout, threads, kernels.
        batch_size: B.
        channels: C of the feature map.
        size_px: Its height and width.
    """
    like = nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
    )
    modules: dict[str, nn.Module] = {name: build(channels) for name, build in blocks.items()}
    contenders = {"": like, **modules}
    shape = batch_size, channels, size_px, size_px
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    with policy.active():
        for module in contenders.values():
            policy.place(module)
        x = torch.randn(shape, device=policy.device, dtype=policy.torch_dtype)
        x = x.contiguous(memory_format=policy.memory_format).requires_grad_()
        gradient = torch.randn_like(x)
        for _ in range(NUM_WARMING_ROUNDS + NUM_ROUNDS):
            for name, module in contenders.items():
                seconds[name].append(_seconds(module, x, gradient, policy))
        with policy.autocast():
            kernels = {name: kernel_of(module(x)) for name, module in modules.items()}
    medians = {name: median(s[NUM_WARMING_ROUNDS:]) for name, s in seconds.items()}
    return {
        name: BlockCost(
            sum(parameter.numel() for parameter in module.parameters()),
            1000 * medians[name],
            medians[name] / medians[""],
            kernels[name],
        )
        for name, module in modules.items()
    }


def kernel_of(y: Tensor) -> str:
    """Return what computed a map, judged by its gradient: "native", "compiled" or "torch"."""
    nodes, seen = [y.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        made_by = torch_private.function_of(node)
        if made_by is not None and made_by.__module__ == ops.__name__:
            return "native"
        if torch_private.is_compiled_backward(node):
            return "compiled"
        nodes += [following for following, _ in node.next_functions]
    return "torch"


def _seconds(module: nn.Module, x: Tensor, gradient: Tensor, policy: Policy) -> float:
    x.grad = None
    module.zero_grad()
    started = time.perf_counter()
    with policy.autocast():
        y = module(x)
    y.backward(gradient.to(y.dtype))
    if policy.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started

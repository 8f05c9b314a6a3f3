"""The attention maps of every block in a network for some images.

Shapes: B images, I channels of an image, H × W pixels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from towernet.attention.base import AttentionBlock, full_precision
from towernet.attention.inserted import attention_blocks
from towernet.shapes import evaluating


def attention_maps(
    model: nn.Module, images_BIHW: Float[Tensor, "B I H W"]
) -> dict[str, Float[Tensor, "B _ _ _"]]:
    """Return each block's attention map by the block's name, in the order the blocks run.

    The network runs in evaluation mode and is left as it was. A map has one weight for each
    channel, position, or both, (B, C or 1, H or 1, W or 1), in the order of the input's channels.
    A block that is blended in (`FromIdentity`) shows its map at a gain of 1, a block that runs
    twice per image its last map. A network without attention has none.

    Args:
        model: A network with blocks, its own or attached.
        images_BIHW: Its input, on its device.

    Example:
        >>> from torchvision.models import resnet18
        >>> from towernet.attention.attach import attach
        >>> network = resnet18()
        >>> _ = attach(network, "cbam", "last-of-stage")
        >>> maps = attention_maps(network, torch.rand(2, 3, 64, 64))
        >>> [tuple(weights.shape) for weights in maps.values()]
        [(2, 64, 16, 16), (2, 128, 8, 8), (2, 256, 4, 4), (2, 512, 2, 2)]
    """
    maps: dict[str, Tensor] = {}

    def store(name: str, block: AttentionBlock, x_BCHW: Tensor) -> None:
        maps[name] = map_of(block, x_BCHW)

    with evaluating(model), torch.no_grad(), observing(model, store):
        model(images_BIHW)
    return maps


def map_of(block: AttentionBlock, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B #C #H #W"]:
    """Return a block's attention map, computed outside of autocast as in the block."""
    with full_precision(x_BCHW.device.type):
        weights: Tensor = block.attention_map(x_BCHW)
    return weights


@contextlib.contextmanager
def observing(
    model: nn.Module, call: Callable[[str, AttentionBlock, Tensor], None]
) -> Iterator[None]:
    """Call a function with a block's name, the block and its input whenever a block runs."""

    def hook_of(name: str) -> Any:
        def hook(block: AttentionBlock, inputs: tuple[Tensor]) -> None:
            call(name, block, inputs[0])

        return hook

    hooks = [
        block.register_forward_pre_hook(hook_of(name))
        for name, block in attention_blocks(model).items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()

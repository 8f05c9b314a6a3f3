"""A block blended into a network that is already trained, from no effect at all.

Shapes: B images, C channels, H × W pixels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from towernet.attention.base import AttentionBlock
from towernet.names import BlockStart


class FromIdentity(AttentionBlock):
    """Any block, blended in by one gain that starts at 0: x + gain·(block(x) − x).

    At the start it returns its input. The gain has a gradient from the first step, the block's
    parameters from the second. A block that shuffles channels keeps their order here: in a trained
    network the layer after it expects the channels where they were.

    Args:
        block: The block.

    Example:
        >>> from towernet.attention import ShuffleAttention
        >>> block, x = FromIdentity(ShuffleAttention(64)), torch.rand(2, 64, 7, 5)
        >>> bool((block(x) == x).all())
        True
    """

    starts_as_identity = True

    def __init__(self, block: AttentionBlock) -> None:
        super().__init__()
        self.block = block
        self.gain = nn.Parameter(torch.zeros(()))

    def attention_map(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B #C #H #W"]:
        """Return the block's own map, as it applies at a gain of 1."""
        return self.block.attention_map(x_BCHW)

    def forward(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Return x + gain·(block(x) − x)."""
        return self.block.blend(x_BCHW, self.gain)


def with_start(block: AttentionBlock, start: BlockStart) -> AttentionBlock:
    """Return a block that starts as its authors start it ("paper"), or as the identity."""
    if start == "paper" or block.starts_as_identity:
        return block
    block.wake()
    return FromIdentity(block)

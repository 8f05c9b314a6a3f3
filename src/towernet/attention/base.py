"""What an attention block is, and the registry they are all in.

Shapes: B images, C channels, H × W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from towernet.registry import Registry


class GatedBlock(nn.Module, ABC):
    """A block that weighs a feature map, built as `Block(channels)`; same shape out as in."""

    @abstractmethod
    def attention_map(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C #H #W"]:
        """Return the weights in (0, 1), in the order of the channels that come in."""

    def forward(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Weigh the feature map; gates may be finer than the map, the product is not."""
        y_BCHW: Tensor = (x_BCHW * self.attention_map(x_BCHW)).to(x_BCHW.dtype)
        return y_BCHW


ATTENTION = Registry[type[GatedBlock]]("attention block")

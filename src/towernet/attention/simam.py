"""SimAM: a gate from how far a position stands out from its channel, without parameters.

Source: Yang, Zhang, Li, Xie. SimAM: A simple, parameter-free attention module for convolutional
neural networks. ICML 2021, PMLR 139, eq. 5-6. The variance is the paper's, over all positions; the
authors' code divides by one less, of which a map of one position has none.
Shapes: B images, C channels, H × W pixels.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from towernet.attention.base import ATTENTION, GatedBlock, require_channels, wide
from towernet.errors import ConfigError


@ATTENTION.register("simam")
class SimAM(GatedBlock):
    """Scale each position by its squared distance from the channel's mean, divided by the variance.

    Args:
        channels: C, the channels of the feature map.
        lambda_: λ, added to the variance, so that a flat channel has one. [paper: 1e-4]

    Raises:
        ConfigError: `lambda_` is not above 0.

    Example:
        >>> block = SimAM(64)
        >>> block(torch.rand(8, 64, 32, 32)).shape
        torch.Size([8, 64, 32, 32])
    """

    def __init__(self, channels: int, *, lambda_: float = 1e-4) -> None:
        super().__init__()
        require_channels("SimAM", channels)
        if not 0 < lambda_ < math.inf:
            raise ConfigError(
                f"SimAM: lambda_={lambda_}; give a number above 0, the paper's is 1e-4"
            )
        self.lambda_ = lambda_

    def attention_map(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """One gate in (0.62, 1) for each position of each channel."""
        # Two-pass statistics: E[x²] − μ² cancels where the mean is large against the spread.
        mean_BC11 = x_BCHW.mean(dim=(2, 3), keepdim=True, dtype=wide(x_BCHW))
        squares_BCHW = (x_BCHW - mean_BC11) ** 2
        var_BC11 = squares_BCHW.mean(dim=(2, 3), keepdim=True)
        return torch.sigmoid(squares_BCHW / (4 * (var_BC11 + self.lambda_)) + 0.5)

    def extra_repr(self) -> str:
        """Show λ when the network is printed."""
        return f"lambda_={self.lambda_}"

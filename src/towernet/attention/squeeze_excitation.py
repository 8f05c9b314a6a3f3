"""Squeeze-and-excitation (SE) channel attention.

Source: Hu, Shen, Sun. Squeeze-and-Excitation Networks. CVPR 2018. arXiv:1709.01507, eq. 2-4.
The two layers have biases, which eq. 3 leaves out.
Shapes: B images, C channels, H × W pixels, R = C / reduction bottleneck channels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from towernet.attention.base import ATTENTION, GatedBlock, channel_means, narrowed, wide


@ATTENTION.register("se")
class SqueezeExcitation(GatedBlock):
    """Scale each channel by a gate in (0, 1) computed from all channels' means.

    Args:
        channels: C, the channels of the feature map.
        reduction: C / R, how much narrower the bottleneck is than the feature map. None: the
            paper's, or what leaves one channel. [paper: 16]

    Raises:
        ConfigError: `reduction` leaves the bottleneck without a channel.

    Example:
        >>> block = SqueezeExcitation(64)
        >>> block(torch.rand(8, 64, 32, 32)).shape
        torch.Size([8, 64, 32, 32])
    """

    def __init__(self, channels: int, *, reduction: int | None = None) -> None:
        super().__init__()
        bottleneck = narrowed("SqueezeExcitation", channels, reduction)
        self.squeeze = nn.Linear(channels, bottleneck)
        self.excite = nn.Linear(bottleneck, channels)

    def attention_map(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C 1 1"]:
        """One gate in (0, 1) for each channel of each image."""
        mean_BC = channel_means(x_BCHW, wide(x_BCHW, self.squeeze.weight))
        hidden_BR = torch.relu(self.squeeze(mean_BC))
        gate_BC = torch.sigmoid(self.excite(hidden_BR))
        return gate_BC[:, :, None, None]

"""Convolutional block attention (CBAM): a gate for each channel, then one for each position.

Source: Woo, Park, Lee, Kweon. CBAM: Convolutional block attention module. ECCV 2018.
arXiv:1807.06521, eq. 1-3. As in these equations no layer has a bias; the authors' code has
biases in the channel gate and a batch norm in the spatial one.
Shapes: B images, C channels, H × W pixels, R = C / reduction bottleneck channels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from towernet.attention.base import (
    ATTENTION,
    AttentionBlock,
    GatedBlock,
    channel_means,
    full_precision,
    narrowed,
    over_positions,
    weigh,
    wide,
)
from towernet.errors import ConfigError


@ATTENTION.register("cbam")
class ConvolutionalBlockAttention(GatedBlock):
    """Scale each channel, then each position, by a gate from its mean and its maximum.

    Args:
        channels: C, the channels of the feature map.
        reduction: C / R, how much narrower the bottleneck is than the feature map. None: the
            paper's, or what leaves one channel. [paper: 16]
        kernel_size: the side of the window a position's gate sees, in pixels; odd. [paper: 7]

    Raises:
        ConfigError: `reduction` leaves the bottleneck without a channel, or `kernel_size` has no
            middle.

    Example:
        >>> block = ConvolutionalBlockAttention(64)
        >>> block(torch.rand(8, 64, 32, 32)).shape
        torch.Size([8, 64, 32, 32])
    """

    def __init__(
        self, channels: int, *, reduction: int | None = None, kernel_size: int = 7
    ) -> None:
        super().__init__()
        bottleneck = narrowed("ConvolutionalBlockAttention", channels, reduction)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ConfigError(
                f"ConvolutionalBlockAttention: kernel_size={kernel_size} has no middle;"
                " give an odd number, the paper's is 7"
            )
        self.squeeze = nn.Linear(channels, bottleneck, bias=False)
        self.excite = nn.Linear(bottleneck, channels, bias=False)
        self.spatial = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def attention_map(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """One gate in (0, 1) for each channel at each position: the product of the two gates."""
        channel_BC11 = self.channel_gate(x_BCHW)
        spatial_B1HW = self.spatial_gate(x_BCHW * channel_BC11)
        return channel_BC11 * spatial_B1HW

    def forward(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Scale the channels, then the positions: two small gates and no map of all of them."""
        with full_precision(x_BCHW.device.type):
            refined_BCHW = weigh(x_BCHW, self.channel_gate(x_BCHW))
            return weigh(refined_BCHW, self.spatial_gate(refined_BCHW))

    def blend(
        self, x_BCHW: Float[Tensor, "B C H W"], gain: Float[Tensor, ""]
    ) -> Float[Tensor, "B C H W"]:
        """Return x + gain·(block(x) − x)."""
        return AttentionBlock.blend(self, x_BCHW, gain)

    def channel_gate(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C 1 1"]:
        """One gate for each channel of each image (eq. 2)."""
        dtype = wide(x_BCHW, self.squeeze.weight)
        mean_BC = channel_means(x_BCHW, dtype)
        # The gradient goes to one of equal pixels; amax, to all of them, takes twice as long.
        max_BC = over_positions(x_BCHW).max(dim=1).values.to(dtype)
        gate_BC = torch.sigmoid(self._mlp(mean_BC) + self._mlp(max_BC))
        return gate_BC[:, :, None, None]

    def spatial_gate(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 1 H W"]:
        """One gate for each position of each image (eq. 3)."""
        dtype = wide(x_BCHW, self.spatial.weight)
        mean_B1HW = x_BCHW.mean(dim=1, keepdim=True, dtype=dtype)
        max_B1HW = x_BCHW.max(dim=1, keepdim=True).values.to(dtype)
        return torch.sigmoid(self.spatial(torch.cat([mean_B1HW, max_B1HW], dim=1)))

    def _mlp(self, pooled_BC: Float[Tensor, "B C"]) -> Float[Tensor, "B C"]:
        excited_BC: Tensor = self.excite(torch.relu(self.squeeze(pooled_BC)))
        return excited_BC

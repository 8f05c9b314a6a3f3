"""Efficient channel attention (ECA): a gate from a channel's mean and its neighbours' means.

Source: Wang, Wu, Zhu, Li, Zuo, Hu. ECA-Net: Efficient channel attention for deep convolutional
neural networks. CVPR 2020. arXiv:1910.03151, eq. 9 and 12. Halfway between two odd kernel sizes
we take the larger one, as the authors' code does.
Shapes: B images, C channels, H × W pixels.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from towernet.attention.base import ATTENTION, GatedBlock, channel_means, require_channels, wide
from towernet.errors import ConfigError

PAPERS_GAMMA, PAPERS_B = 2, 1


@ATTENTION.register("eca")
class EfficientChannelAttention(GatedBlock):
    """Scale each channel by a gate in (0, 1) computed from the means of the channels around it.

    Args:
        channels: C, the channels of the feature map.
        kernel_size: how many neighbouring channels a gate sees, itself in the middle; odd. None:
            the paper's, about half the logarithm of C. [paper: 5 for 128 to 511 channels]

    Raises:
        ConfigError: `kernel_size` has no middle, or reaches further than there are channels.

    Example:
        >>> block = EfficientChannelAttention(64)
        >>> block(torch.rand(8, 64, 32, 32)).shape, block.convolution.kernel_size
        (torch.Size([8, 64, 32, 32]), (3,))
    """

    def __init__(self, channels: int, *, kernel_size: int | None = None) -> None:
        super().__init__()
        require_channels("EfficientChannelAttention", channels)
        if kernel_size is None:
            kernel_size = papers_kernel_size(channels)
        if kernel_size % 2 == 0 or not 1 <= kernel_size <= 2 * channels - 1:
            raise ConfigError(
                f"EfficientChannelAttention: kernel_size={kernel_size} does not fit {channels}"
                f" channels; give an odd number from 1 to {2 * channels - 1}"
            )
        self.convolution = nn.Conv1d(1, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def attention_map(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C 1 1"]:
        """One gate in (0, 1) for each channel of each image."""
        mean_BC = channel_means(x_BCHW, wide(x_BCHW, self.convolution.weight))
        gate_BC = torch.sigmoid(self.convolution(mean_BC[:, None])[:, 0])
        return gate_BC[:, :, None, None]


def papers_kernel_size(channels: int) -> int:
    """Return the odd number nearest to (log₂ C + b) / γ.

    Example:
        >>> [papers_kernel_size(channels) for channels in (1, 16, 64, 128, 256, 512, 2048)]
        [1, 3, 3, 5, 5, 5, 7]
    """
    below = int((math.log2(channels) + PAPERS_B) / PAPERS_GAMMA)
    return below if below % 2 else below + 1

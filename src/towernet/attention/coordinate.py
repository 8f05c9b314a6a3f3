"""Coordinate attention: a gate for each row and one for each column of each channel.

Source: Hou, Zhou, Feng. Coordinate attention for efficient mobile network design. CVPR 2021.
arXiv:2103.02907, eq. 4-9. The bottleneck's least width and the h-swish are the authors' code's; its
first convolution has a bias, which the batch norm behind it would cancel.
Shapes: B images, C channels, H × W pixels, R bottleneck channels, L = H + W.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from towernet.attention.base import ATTENTION, GatedBlock, layout_of, require_channels, wide
from towernet.errors import ConfigError

PAPERS_LEAST_BOTTLENECK = 8


@ATTENTION.register("coordinate")
class CoordinateAttention(GatedBlock):
    """Scale each row and each column of a channel by gates computed from all their means.

    Args:
        channels: C, the channels of the feature map.
        reduction: C / R, how much narrower the bottleneck is than the feature map; it has 8
            channels at least. [paper: 32]

    Raises:
        ConfigError: `reduction` is below 1.

    Example:
        >>> block = CoordinateAttention(64)
        >>> block(torch.rand(8, 64, 32, 32)).shape
        torch.Size([8, 64, 32, 32])
    """

    def __init__(self, channels: int, *, reduction: int = 32) -> None:
        super().__init__()
        require_channels("CoordinateAttention", channels)
        if reduction < 1:
            raise ConfigError(f"CoordinateAttention: reduction={reduction}; give at least 1")
        bottleneck = max(PAPERS_LEAST_BOTTLENECK, channels // reduction)
        self.squeeze = nn.Conv2d(channels, bottleneck, 1, bias=False)
        self.norm = nn.BatchNorm2d(bottleneck)
        self.rows = nn.Conv2d(bottleneck, channels, 1)
        self.columns = nn.Conv2d(bottleneck, channels, 1)

    def attention_map(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """One gate in (0, 1) for each position: the product of its row's and its column's."""
        height, width = x_BCHW.shape[2:]
        dtype = wide(x_BCHW, self.squeeze.weight)
        row_means_BCH1 = x_BCHW.mean(dim=3, keepdim=True, dtype=dtype)
        column_means_BCW1 = x_BCHW.mean(dim=2, dtype=dtype)[..., None]
        means_BCL1 = torch.cat([row_means_BCH1, column_means_BCW1], dim=2)
        means_BCL1 = means_BCL1.contiguous(memory_format=layout_of(x_BCHW))
        hidden_BRL1 = nn.functional.hardswish(self.norm(self.squeeze(means_BCL1)))
        hidden_BRH1, hidden_BRW1 = hidden_BRL1.split([height, width], dim=2)
        rows_BCH1 = torch.sigmoid(self.rows(hidden_BRH1))
        columns_BC1W = torch.sigmoid(self.columns(hidden_BRW1)).transpose(2, 3)
        return rows_BCH1 * columns_BC1W

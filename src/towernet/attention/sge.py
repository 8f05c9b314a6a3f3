"""Spatial group-wise enhancement (SGE): positions that look like the whole group count more.

Source: Li, Hu, Yang. Spatial group-wise enhance: Improving semantic feature learning in
convolutional networks. arXiv:1905.09646, eq. 1-5. ε stands under the root here, so that a map of
one position has a gradient; the authors' code also divides the variance by one position less.
Shapes: B images, C channels, H × W pixels, G groups of k = C / G channels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from towernet.attention.base import ATTENTION, GatedBlock, require_channels, wide
from towernet.errors import ConfigError

_EPSILON = 1e-5
PAPERS_GROUPS = 64


@ATTENTION.register("sge")
class SpatialGroupEnhance(GatedBlock):
    """Scale each position of a group of channels by how much it resembles the group's mean.

    At its start the block is 0.731 times its input.

    Args:
        channels: C, the channels of the feature map.
        groups: G, into how many groups they are split; G divides C. None: the most up to the
            paper's that do. [paper: 64]

    Raises:
        ConfigError: `groups` does not cut the channels into groups of the same size.

    Example:
        >>> block = SpatialGroupEnhance(256)
        >>> block(torch.rand(2, 256, 7, 5)).shape
        torch.Size([2, 256, 7, 5])
    """

    def __init__(self, channels: int, *, groups: int | None = None) -> None:
        super().__init__()
        require_channels("SpatialGroupEnhance", channels)
        most = max(g for g in range(1, PAPERS_GROUPS + 1) if channels % g == 0)
        if groups is None:
            groups = most
        if groups < 1 or channels % groups:
            raise ConfigError(
                f"SpatialGroupEnhance: {channels} channels cannot be cut into {groups} groups;"
                f" give groups={most}, or another divisor of {channels}"
            )
        self.channels, self.groups = channels, groups
        self.weight = nn.Parameter(torch.zeros(groups))
        self.bias = nn.Parameter(torch.ones(groups))

    def attention_map(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """One gate in (0, 1) for each position of each group, repeated for its channels."""
        mean_BC11 = x_BCHW.mean(dim=(2, 3), keepdim=True, dtype=wide(x_BCHW))
        products_BGkHW = (x_BCHW * mean_BC11).unflatten(1, (self.groups, -1))
        likeness_BGHW = products_BGkHW.sum(dim=2)
        # Two-pass statistics: E[c²] − μ² cancels where the mean is large against the spread.
        var_BG11, mean_BG11 = torch.var_mean(likeness_BGHW, dim=(2, 3), correction=0, keepdim=True)
        normed_BGHW = (likeness_BGHW - mean_BG11) * (var_BG11 + _EPSILON).rsqrt()
        gate_BGHW = torch.sigmoid(
            normed_BGHW * self.weight[:, None, None] + self.bias[:, None, None]
        )
        return gate_BGHW.repeat_interleave(self.channels // self.groups, dim=1)

    def extra_repr(self) -> str:
        """Show the sizes when the network is printed."""
        return f"{self.channels}, groups={self.groups}"

"""Shuffle attention: channel and spatial gates on sub-groups of channels, then a shuffle.

Source: Zhang, Yang. SA-Net: Shuffle attention for deep convolutional neural networks. ICASSP 2021.
arXiv:2102.00240, eq. 1-4. The paper's two gates are written as one formula here,
y = x·σ(A·x + D) with A and D per image and channel, so one pass gates all channels.
Shapes: B images, C channels, H × W pixels, G groups, k = C / 2G channels in half a group.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from towernet import torch_private
from towernet.attention import fused, shuffle_by_norm
from towernet.attention.base import ATTENTION, GatedBlock, full_precision
from towernet.errors import ConfigError
from towernet.native import ops

_EPSILON = 1e-5
PAPERS_GROUPS = 64
_AWAKE = 0.1  # the spatial weight where a gain of 0 gives the identity; in the paper 0


@ATTENTION.register("shuffle")
class ShuffleAttention(GatedBlock):
    """Gate half of each group by its channels' means, half by normalised positions; then shuffle.

    The six vectors of k numbers are shared by all groups. At its start the block is
    0.731 times a fixed permutation of the channels.

    Args:
        channels: C, the channels of the feature map.
        groups: G, the number of groups; 2G must divide C. None: the largest such number up to
            the paper's. [paper: 64]

    Raises:
        ConfigError: `groups` does not split the channels into halves of equal size.

    Example:
        >>> block = ShuffleAttention(256)
        >>> block(torch.rand(2, 256, 7, 5)).shape
        torch.Size([2, 256, 7, 5])
    """

    def __init__(self, channels: int, *, groups: int | None = None) -> None:
        super().__init__()
        if groups is None:
            groups = max(_fitting(channels), default=1)
        if groups < 1 or channels < 1 or channels % (2 * groups):
            raise ConfigError(
                f"ShuffleAttention: {channels} channels cannot be cut into {groups} groups of two"
                f" halves; {_suggest(channels)}"
            )
        self.channels, self.groups = channels, groups
        # False where the next layers accept the channels in this order (`models.optimize`).
        self.shuffles = True
        half = channels // (2 * groups)
        self.channel_weight = nn.Parameter(torch.zeros(half))
        self.channel_bias = nn.Parameter(torch.ones(half))
        self.spatial_weight = nn.Parameter(torch.zeros(half))
        self.spatial_bias = nn.Parameter(torch.ones(half))
        self.norm_weight = nn.Parameter(torch.ones(half))
        self.norm_bias = nn.Parameter(torch.zeros(half))

    def attention_map(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """One gate in (0, 1) for each position; a channel of a first half has one for all."""
        return _gates(x_BCHW, self._vectors(), self.groups)

    def forward(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Multiply the feature map by the gates, then interleave the halves of the channels."""
        return self._weigh(x_BCHW, None, self.shuffles)

    def blend(
        self, x_BCHW: Float[Tensor, "B C H W"], gain: Float[Tensor, ""]
    ) -> Float[Tensor, "B C H W"]:
        """Multiply the feature map by 1 + gain·(gate − 1), its channels in their order."""
        return self._weigh(x_BCHW, gain, False)

    def blend_(
        self, x_BCHW: Float[Tensor, "B C H W"], gain: Float[Tensor, ""]
    ) -> Float[Tensor, "B C H W"]:
        """Return the same; the kernel overwrites the map and moves a third less memory."""
        if type(self) is not ShuffleAttention:  # a subclass may define another `blend`
            return self.blend(x_BCHW, gain)
        return self._weigh(x_BCHW, gain, False, in_place=True)

    def _weigh(
        self, x_BCHW: Tensor, gain: Tensor | None, shuffles: bool, *, in_place: bool = False
    ) -> Tensor:
        vectors = self._vectors()
        given = vectors if gain is None else (*vectors, gain)
        fits = x_BCHW.dim() == 4 and x_BCHW.shape[1] == self.channels
        if fits and (gain is None or gain.dim() == 0) and ops.usable_for_attention(x_BCHW, *given):
            return ops.shuffle_attention(
                x_BCHW, vectors, groups=self.groups, epsilon=_EPSILON, gain=gain,
                shuffles=shuffles, in_place=in_place,
            )  # fmt: skip
        with full_precision(x_BCHW.device.type):
            if fits and shuffle_by_norm.usable(x_BCHW):
                return shuffle_by_norm.shuffle_attention(
                    x_BCHW, vectors, self.groups, _EPSILON, gain, shuffles
                )
            return fused.run(_weighed, x_BCHW, vectors, self.groups, gain, shuffles)

    def _vectors(self) -> tuple[Tensor, ...]:
        return (
            self.channel_weight,
            self.channel_bias,
            self.spatial_weight,
            self.spatial_bias,
            self.norm_weight,
            self.norm_bias,
        )

    @torch.no_grad()
    def wake(self) -> None:
        """Let the spatial gates depend on the map, so that its norm has a gradient at once."""
        self.spatial_weight.fill_(_AWAKE)

    def extra_repr(self) -> str:
        """Show the sizes when the network is printed."""
        return f"{self.channels}, groups={self.groups}"


def _gates(x_BCHW: Tensor, vectors: tuple[Tensor, ...], groups: int) -> Tensor:
    """Return the gates by the formula: the reference of the kernels, and their fallback."""
    # Statistics and gates computed in bf16 would keep three digits.
    x_BCHW = x_BCHW.to(torch.promote_types(x_BCHW.dtype, torch.float32))
    channel_weight, channel_bias, spatial_weight, spatial_bias, norm_weight, norm_bias = (
        vector.to(torch.promote_types(vector.dtype, x_BCHW.dtype)) for vector in vectors
    )
    # Two-pass statistics: E[x²] − μ² cancels where the mean is large against the spread.
    var_BC, mean_BC = torch.var_mean(x_BCHW, dim=(2, 3), correction=0)
    mean_BGhk = mean_BC.unflatten(1, (groups, 2, -1))
    channel_mean_BGk, spatial_mean_BGk = mean_BGhk.unbind(2)
    spatial_var_BGk = var_BC.unflatten(1, (groups, 2, -1))[:, :, 1]
    if not torch.compiler.is_compiling() and torch_private.is_transformed_or_traced():
        # The old exporter to ONNX computes products of parameters itself, and loses them where two
        # are equal, as at the start. It cannot for numbers that seem to depend on the image.
        spatial_weight = torch.where(spatial_mean_BGk > 0, spatial_weight, spatial_weight)

    slope_BGk = spatial_weight * norm_weight * (spatial_var_BGk + _EPSILON).rsqrt()
    spatial_offset_BGk = spatial_bias + spatial_weight * norm_bias - slope_BGk * spatial_mean_BGk
    channel_offset_BGk = channel_weight * channel_mean_BGk + channel_bias

    slope_BGhk = torch.stack([torch.zeros_like(slope_BGk), slope_BGk], dim=2)
    offset_BGhk = torch.stack([channel_offset_BGk, spatial_offset_BGk], dim=2)
    slope_BC11 = slope_BGhk.flatten(1)[:, :, None, None]
    offset_BC11 = offset_BGhk.flatten(1)[:, :, None, None]
    return torch.sigmoid(x_BCHW * slope_BC11 + offset_BC11)


def _weighed(
    x_BCHW: Tensor, vectors: tuple[Tensor, ...], groups: int, gain: Tensor | None, shuffles: bool
) -> Tensor:
    """Return the weighed map by the formula, in the map's number format."""
    gates_BCHW = _gates(x_BCHW, vectors, groups)
    if gain is not None:
        gates_BCHW = 1 + gain * (gates_BCHW - 1)
    y_BCHW = (x_BCHW * gates_BCHW).to(x_BCHW.dtype)
    return shuffle_channels(y_BCHW) if shuffles else y_BCHW


class UnshuffledAttention(GatedBlock):
    """Shuffle attention for maps whose channels are already in its output order.

    For inference: the layer before it returns them so. Each channel has its own parameters, those
    of its place in its original group.

    Args:
        block: The attention that shuffles.
    """

    is_spatial_C: Tensor

    def __init__(self, block: ShuffleAttention) -> None:
        super().__init__()
        half = block.channels // (2 * block.groups)
        came_from_C = came_from(block.channels)
        place_C = came_from_C % half
        # 0 where a channel's gate depends on its mean, 1 where on its normalised positions.
        self.register_buffer("is_spatial_C", (came_from_C % (2 * half) >= half).float())

        def each(numbers_k: Tensor) -> nn.Parameter:
            return nn.Parameter(numbers_k.detach()[place_C].clone())

        self.channel_weight_C = each(block.channel_weight)
        self.channel_bias_C = each(block.channel_bias)
        self.slope_C = each(block.spatial_weight * block.norm_weight)
        self.offset_C = each(block.spatial_bias + block.spatial_weight * block.norm_bias)

    def attention_map(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """One gate in (0, 1) for each position; a channel of a first half has one for all."""
        x_BCHW = x_BCHW.to(torch.promote_types(x_BCHW.dtype, torch.float32))
        var_BC, mean_BC = torch.var_mean(x_BCHW, dim=(2, 3), correction=0)
        slope_BC = self.is_spatial_C * self.slope_C * (var_BC + _EPSILON).rsqrt()
        channel_BC = self.channel_weight_C * mean_BC + self.channel_bias_C
        spatial_BC = self.offset_C - slope_BC * mean_BC
        offset_BC = torch.where(self.is_spatial_C > 0, spatial_BC, channel_BC)
        return torch.sigmoid(x_BCHW * slope_BC[:, :, None, None] + offset_BC[:, :, None, None])


def came_from(channels: int) -> Tensor:
    """Return which channel the shuffle moves to each index: (C,), 0, C/2, 1, C/2 + 1, …"""
    return torch.arange(channels).reshape(2, -1).T.flatten()


def shuffle_channels(x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Interleave the two halves of the channels: 0, C/2, 1, C/2 + 1, …

    One copy in the layout that came in. (torch's channel_shuffle turns channels_last into
    contiguous when gradients are wanted, and every later convolution pays for turning it back.)
    """
    y_BCHW: Tensor
    if x_BCHW.is_contiguous():
        y_BCHW = x_BCHW.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)
        return y_BCHW
    x_BHWC = x_BCHW.permute(0, 2, 3, 1)
    y_BCHW = x_BHWC.unflatten(3, (2, -1)).transpose(3, 4).flatten(3, 4).permute(0, 3, 1, 2)
    return y_BCHW


def _fitting(channels: int) -> list[int]:
    return [g for g in range(1, PAPERS_GROUPS + 1) if channels > 0 and channels % (2 * g) == 0]


def _suggest(channels: int) -> str:
    fitting = _fitting(channels)
    if not fitting:
        return "give an even number of channels"
    return f"give groups={fitting[-1]}, or another number whose double divides {channels}"

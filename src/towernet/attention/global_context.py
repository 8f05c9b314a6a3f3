"""Global context (GC) block: a summary of the whole image, added to every position.

Source: Cao, Xu, Lin, Wei, Hu. GCNet: Non-local networks meet squeeze-excitation networks and
beyond. ICCV Workshops 2019. arXiv:1904.11492, eq. 5. The layers of the bottleneck have biases and
the last one starts at zero, as in the authors' code; the key has no bias, which a softmax would
not see.
Shapes: B images, C channels, H × W pixels, N = H · W, R = C / reduction bottleneck channels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from towernet.attention.base import ATTENTION, AttentionBlock, full_precision, narrowed, wide
from towernet.errors import ConfigError


@ATTENTION.register("global_context")
class GlobalContext(AttentionBlock):
    """Pool the positions by a softmax over them, transform the result, and add it to each.

    Args:
        channels: C, the channels of the feature map.
        reduction: C / R, how much narrower the bottleneck is than the feature map. None: the
            paper's, or what leaves two channels. [paper: 16]

    Raises:
        ConfigError: `reduction` leaves the bottleneck with fewer than two channels; normalised, a
            single one is always 0.

    Example:
        >>> block = GlobalContext(64)
        >>> x = torch.rand(8, 64, 32, 32)
        >>> torch.equal(block(x), x)
        True
    """

    starts_as_identity = True

    def __init__(self, channels: int, *, reduction: int | None = None) -> None:
        super().__init__()
        bottleneck = narrowed("GlobalContext", channels, reduction, least=2)
        if bottleneck < 2:
            remedy = f"reduction at most {channels // 2}" if channels > 1 else "at least 2 channels"
            raise ConfigError(
                f"GlobalContext: reduction={reduction or 1} leaves 1 of the {channels} channels,"
                f" and layer norm over one channel is always 0; give {remedy}"
            )
        self.key = nn.Linear(channels, 1, bias=False)
        self.squeeze = nn.Linear(channels, bottleneck)
        self.norm = nn.LayerNorm(bottleneck)
        self.excite = nn.Linear(bottleneck, channels)
        nn.init.zeros_(self.excite.weight)
        nn.init.zeros_(self.excite.bias)

    def attention_map(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 1 H W"]:
        """One weight for each position; those of an image sum to 1."""
        x_BHWC = x_BCHW.permute(0, 2, 3, 1).to(wide(x_BCHW, self.key.weight))
        score_B1HW = self.key(x_BHWC).permute(0, 3, 1, 2)
        weight_B1N = torch.softmax(score_B1HW.flatten(2), dim=2)
        weight_B1HW: Tensor = weight_B1N.unflatten(2, x_BCHW.shape[2:])
        return weight_B1HW

    def forward(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Add the transformed context to every position."""
        y_BCHW: Tensor = x_BCHW + self.context(x_BCHW).to(x_BCHW.dtype)
        return y_BCHW

    def blend(
        self, x_BCHW: Float[Tensor, "B C H W"], gain: Float[Tensor, ""]
    ) -> Float[Tensor, "B C H W"]:
        """Add `gain` times the transformed context to every position."""
        y_BCHW: Tensor = x_BCHW + (gain * self.context(x_BCHW)).to(x_BCHW.dtype)
        return y_BCHW

    def context(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C 1 1"]:
        """Return the amount added to each channel of an image, computed outside of autocast."""
        with full_precision(x_BCHW.device.type):
            wide_BCHW = x_BCHW.to(wide(x_BCHW, self.key.weight))
            weight_BN1 = self.attention_map(wide_BCHW).flatten(1)[:, :, None]
            pooled_BC = torch.bmm(wide_BCHW.flatten(2), weight_BN1)[:, :, 0]
            hidden_BR = torch.relu(self.norm(self.squeeze(pooled_BC)))
            context_BC: Tensor = self.excite(hidden_BR)
        return context_BC[:, :, None, None]

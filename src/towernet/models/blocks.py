"""The building blocks of TowerNet, and Paddle's initial weights.

Source: the notebook "SA-Residual-Inception-Net"; the Inception block is that of Szegedy et al.,
Going deeper with convolutions, CVPR 2015, arXiv:1409.4842; the shortcut that of He et al., Deep
residual learning, CVPR 2016, arXiv:1512.03385.
Shapes: B images, C channels, H × W pixels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from towernet import torch_private
from towernet.attention.inserted import attention_blocks
from towernet.native import ops


class ConvNormPool(nn.Module):
    """3×3 convolution with bias, batch norm, 2×2 max pooling, ReLU; halves the map.

    Args:
        in_channels: C of the input.
        out_channels: C of the output.
        stride: The convolution's stride; 2 halves the map once more.

    Example:
        >>> ConvNormPool(3, 8)(torch.rand(2, 3, 10, 10)).shape
        torch.Size([2, 8, 5, 5])
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1)
        self.norm: nn.Module = nn.BatchNorm2d(out_channels, eps=1e-3)

    def forward(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D I J"]:
        """Return the pooled, non-negative features."""
        x_BCHW = self.conv(x_BCHW)
        y_BDIJ = self._by_kernel(x_BCHW)
        if y_BDIJ is not None:
            return y_BDIJ
        # ReLU commutes with max pooling, in values and gradients; after it, it costs a quarter.
        return F.relu(F.max_pool2d(self.norm(x_BCHW), 2))

    def _by_kernel(self, x_BDHW: Tensor) -> Tensor | None:
        """Return the C kernels' result, or None if they do not apply."""
        norm = self.norm
        if min(x_BDHW.shape[2:]) < 2:
            return None
        if torch_private.forward_hooks(norm) or torch_private.forward_pre_hooks(norm):
            return None
        if type(norm) is nn.Identity:  # folded into the convolution
            if torch.is_grad_enabled() or not ops.usable(x_BDHW):
                return None
            num = x_BDHW.shape[1]
            return ops.line_pool_relu(x_BDHW, torch.ones(num), torch.zeros(num))
        if type(norm) is not nn.BatchNorm2d or norm.momentum is None:
            return None
        numbers = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        if not ops.usable(x_BDHW, *numbers):
            return None
        if norm.training:
            return ops.norm_pool_relu(x_BDHW, norm)
        if torch.is_grad_enabled():
            return None
        assert norm.running_mean is not None and norm.running_var is not None
        # Computed in bf16, the line would keep three digits.
        weight, bias, mean, var = (
            number.float()
            for number in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        )
        scale = weight * (var + norm.eps).rsqrt()
        return ops.line_pool_relu(x_BDHW, scale, bias - mean * scale)


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch norm, and by default ReLU; the map keeps its size.

    Args:
        in_channels: C of the input.
        out_channels: C of the output.
        kernel_size: Side of the filter, odd; or, if equal to the stride, of the patches.
        stride: The convolution's stride.
        relu: Whether a ReLU follows.

    Example:
        >>> ConvNorm(3, 8, 5)(torch.rand(2, 3, 10, 10)).shape
        torch.Size([2, 8, 10, 10])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        relu: bool = True,
    ) -> None:
        padding = 0 if stride == kernel_size else kernel_size // 2
        super().__init__(
            nn.Conv2d(
                in_channels,
                out_channels,
                kernel_size,
                stride=stride,
                padding=padding,
                bias=False,
            ),
            nn.BatchNorm2d(out_channels),
            *([nn.ReLU()] if relu else []),
        )


class ResidualInception(nn.Module):
    """Four parallel branches plus a 1×1 shortcut: 256 channels in and out, same map size.

    The branches are 1×1 → 64; 1×1 → 64, 3×3 → 128; 1×1 → 16, 5×5 → 32; 3×3 max pool, 1×1 → 32.
    Every convolution has a bias, and there are no norms. ReLU follows each convolution except the
    shortcut, and follows the sum.

    Example:
        >>> ResidualInception()(torch.rand(2, 256, 5, 3)).shape
        torch.Size([2, 256, 5, 3])
    """

    def __init__(self) -> None:
        super().__init__()
        self.branch_1 = nn.Conv2d(256, 64, 1)
        self.branch_3_reduce = nn.Conv2d(256, 64, 1)
        self.branch_3 = nn.Conv2d(64, 128, 3, padding=1)
        self.branch_5_reduce = nn.Conv2d(256, 16, 1)
        self.branch_5 = nn.Conv2d(16, 32, 5, padding=2)
        self.branch_pool = nn.Conv2d(256, 32, 1)
        self.shortcut = nn.Conv2d(256, 256, 1)

    def forward(self, x_BCHW: Float[Tensor, "B 256 H W"]) -> Float[Tensor, "B 256 H W"]:
        """Return relu(inception(x) + shortcut(x))."""
        branches = [
            self.branch_1(x_BCHW),
            self.branch_3(F.relu(self.branch_3_reduce(x_BCHW))),
            self.branch_5(F.relu(self.branch_5_reduce(x_BCHW))),
            self.branch_pool(F.max_pool2d(x_BCHW, 3, stride=1, padding=1)),
        ]
        return F.relu(F.relu(torch.cat(branches, dim=1)) + self.shortcut(x_BCHW))


class NormedInception(nn.Module):
    """The residual inception block with a batch norm after every convolution and no biases.

    Example:
        >>> NormedInception()(torch.rand(2, 256, 5, 3)).shape
        torch.Size([2, 256, 5, 3])
    """

    def __init__(self) -> None:
        super().__init__()
        self.branch_1 = ConvNorm(256, 64, 1)
        self.branch_3 = nn.Sequential(ConvNorm(256, 64, 1), ConvNorm(64, 128, 3))
        self.branch_5 = nn.Sequential(ConvNorm(256, 16, 1), ConvNorm(16, 32, 5))
        self.branch_pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), ConvNorm(256, 32, 1))
        self.shortcut = ConvNorm(256, 256, 1, relu=False)

    def forward(self, x_BCHW: Float[Tensor, "B 256 H W"]) -> Float[Tensor, "B 256 H W"]:
        """Return relu(inception(x) + shortcut(x))."""
        branches = [self.branch_1, self.branch_3, self.branch_5, self.branch_pool]
        joined_BCHW = torch.cat([branch(x_BCHW) for branch in branches], dim=1)
        return F.relu(joined_BCHW + self.shortcut(x_BCHW))


@torch.no_grad()
def start_as_paddle(model: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw the weights as PaddlePaddle does by default; other kinds of parameters stay.

    Convolution: N(0, √(2 / (k·k·in_channels))), where Paddle counts all input channels even if the
    convolution is grouped. Linear: Glorot uniform. Norms: 1. Every bias: 0.

    Args:
        model: The network, changed in place.
        generator: The random generator; None: torch's default one.
    """
    of_attention = {m for block in attention_blocks(model).values() for m in block.modules()}
    for module in model.modules():
        if module in of_attention:  # it keeps its authors' initial weights, and consumes no draw
            continue
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            fan_in = math.prod(module.kernel_size) * module.in_channels
            module.weight.normal_(0, math.sqrt(2 / fan_in), generator=generator)
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight, generator=generator)
        elif isinstance(module, torch_private.BATCH_NORM | nn.LayerNorm | nn.GroupNorm):
            if module.weight is not None:
                module.weight.fill_(1)
        else:
            continue
        if module.bias is not None:
            module.bias.zero_()

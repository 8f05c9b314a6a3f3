"""The interface of attention blocks, and the registry of the built-in ones.

Shapes: B images, C channels, H × W pixels.
"""

from __future__ import annotations

import contextlib
import inspect
import re
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from towernet.errors import ConfigError
from towernet.registry import Registry

_PAPERS_REDUCTION = 16  # of squeeze-and-excitation and the papers that follow it


class AttentionBlock(nn.Module, ABC):
    '''A block built as `Block(channels)`, with an attention map; its output has the input's shape.

    `starts_as_identity` is true for a block that returns its input as it is built. All other
    blocks can start as the identity through `blend`. A block that multiplies by its map derives
    from `GatedBlock`, which defines `forward`, and only defines `attention_map`; any other block
    defines `forward`, too, and leaves autocast there: `with full_precision(x.device.type):`.

    Example:
        A custom block, the whole file my_block.py:

            import torch
            from torch import Tensor, nn

            from towernet.attention import GatedBlock


            class MyBlock(GatedBlock):
                """Scale each channel by a gate from its mean and its spread.

                Source: Lee, Kim, Nam. SRM: A style-based recalibration module for convolutional
                neural networks. ICCV 2019. arXiv:1903.10829. Without its batch norm.
                """

                def __init__(self, channels: int) -> None:  # options: keywords with defaults
                    super().__init__()
                    self.weight = nn.Parameter(torch.rand(2, channels))

                def attention_map(self, x: Tensor) -> Tensor:  # in [0, 1], (B, C, 1, 1) for one
                    x = x.to(self.weight.dtype)
                    variance, mean = torch.var_mean(x, dim=(2, 3), correction=0)
                    style = self.weight[0] * mean + self.weight[1] * (variance + 1e-5).sqrt()
                    return torch.sigmoid(style)[:, :, None, None]

        Check it against every promise of a block, and attach it to a network:

            from torchvision.models import resnet18

            from my_block import MyBlock
            from towernet.attention import attach
            from towernet.testing import check_block

            check_block(MyBlock)
            attach(resnet18(), MyBlock)

        Compare networks with and without it, from the folder of my_block.py:

            towernet compare photos/ --attention none,my_block:MyBlock
    '''

    starts_as_identity: ClassVar[bool] = False

    @abstractmethod
    def attention_map(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B #C #H #W"]:
        """Return the weights in [0, 1], in the order of the input's channels."""

    @abstractmethod
    def forward(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Return the block's output for a feature map, in the map's number format."""

    def blend(
        self, x_BCHW: Float[Tensor, "B C H W"], gain: Float[Tensor, ""]
    ) -> Float[Tensor, "B C H W"]:
        """Return x + gain·(block(x) − x): the input where the gain is 0, the block where it is 1.

        A block that reorders channels keeps their order here.
        """
        y_BCHW: Tensor = (x_BCHW + gain * (self(x_BCHW) - x_BCHW)).to(x_BCHW.dtype)
        return y_BCHW

    def blend_(
        self, x_BCHW: Float[Tensor, "B C H W"], gain: Float[Tensor, ""]
    ) -> Float[Tensor, "B C H W"]:
        """Return the same as `blend`; without gradients it may overwrite the input to save memory.

        Only for a caller that is the only holder of the input.
        """
        return self.blend(x_BCHW, gain)

    def wake(self) -> None:
        """Move factors that start at 0 away from it, where a gain of 0 already gives the identity.

        The parameters they multiply then learn as soon as the gain is not 0. By default nothing.
        """


class GatedBlock(AttentionBlock):
    """A block that multiplies a feature map by its attention map."""

    def forward(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Multiply the feature map by its attention map."""
        return weigh(x_BCHW, self.gates(x_BCHW))

    def blend(
        self, x_BCHW: Float[Tensor, "B C H W"], gain: Float[Tensor, ""]
    ) -> Float[Tensor, "B C H W"]:
        """Multiply the feature map by 1 + gain·(gate − 1)."""
        # Added to the map instead of 1 to the gate: in bf16 a small gain would be lost next to 1.
        change = (gain * (self.gates(x_BCHW) - 1)).to(x_BCHW.dtype)
        return torch.addcmul(x_BCHW, x_BCHW, change)

    def gates(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B #C #H #W"]:
        """Return the attention map, computed outside of autocast.

        In bf16, statistics keep three digits, and means can be large compared with the spread.
        """
        with full_precision(x_BCHW.device.type):
            gates: Tensor = self.attention_map(x_BCHW)
        return gates


def full_precision(device: str) -> contextlib.AbstractContextManager[object]:
    """Leave autocast for a while; without autocast, enter and trace nothing."""
    # The meta device has no autocast.
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()


def wide(x: Tensor, parameter: Tensor | None = None) -> torch.dtype:
    """Return the number format for statistics of a map: at least fp32, or that of the parameters.

    A block that was itself converted to bf16 only accepts bf16.
    """
    if parameter is not None:
        return parameter.dtype
    return torch.promote_types(x.dtype, torch.float32)


def weigh(x_BCHW: Tensor, gates: Tensor) -> Tensor:
    """Return the map times its gates, in the map's number format.

    The computed gates are rounded to it: a product in fp32 takes four times as long.
    """
    return x_BCHW * gates.to(x_BCHW.dtype)


def channel_means(x_BCHW: Float[Tensor, "B C H W"], dtype: torch.dtype) -> Float[Tensor, "B C"]:
    """Return each channel's mean over positions, in a number format.

    Over one axis: torch's mean over two axes takes twice as long.
    """
    return over_positions(x_BCHW).mean(dim=1, dtype=dtype)


def over_positions(x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N C"]:
    """Return the map's N = H·W positions along one axis; in either layout that is a view."""
    if layout_of(x_BCHW) == torch.channels_last:
        return x_BCHW.permute(0, 2, 3, 1).flatten(1, 2)
    return x_BCHW.flatten(2).transpose(1, 2)


def layout_of(x_BCHW: Tensor) -> torch.memory_format:
    """Return the memory layout of a map; gates in another layout take twice as long to apply."""
    if x_BCHW.is_contiguous() or not x_BCHW.is_contiguous(memory_format=torch.channels_last):
        return torch.contiguous_format
    return torch.channels_last


def require_channels(block: str, channels: int) -> None:
    """Refuse a feature map without channels."""
    if channels < 1:
        raise ConfigError(f"{block}: channels={channels}; give at least 1")


def narrowed(block: str, channels: int, reduction: int | None, *, least: int = 1) -> int:
    """Return the channels of a bottleneck that is `reduction` times narrower than the map.

    None: 16 times, as in the papers, or less, so that at least `least` channels remain.
    """
    require_channels(block, channels)
    if reduction is None:
        reduction = max(1, min(_PAPERS_REDUCTION, channels // least))
    if reduction < 1:
        raise ConfigError(f"{block}: reduction={reduction}; give at least 1")
    if reduction > channels:
        raise ConfigError(
            f"{block}: reduction={reduction} leaves none of the {channels} channels;"
            f" give reduction at most {channels}"
        )
    return channels // reduction


ATTENTION = Registry[type[AttentionBlock]]("attention block")


def paper(block_class: type) -> str:
    """Return the source in the docstring of a block or its file, without authors; '' for none.

    Example:
        >>> from towernet.attention import SqueezeExcitation
        >>> paper(SqueezeExcitation)
        'Squeeze-and-Excitation Networks. CVPR 2018. arXiv:1709.01507'
    """
    for docstring in (block_class.__doc__, getattr(inspect.getmodule(block_class), "__doc__", "")):
        rest = (docstring or "").partition("Source: ")[2]
        source = " ".join(rest.partition("\n\n")[0].split())
        if found := re.match(r".+?\. (.+?)(?:, eq\.|(?<=\.\d{5})\. |$)", source):
            return found[1]
    return ""

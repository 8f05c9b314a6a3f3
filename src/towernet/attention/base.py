"""What an attention block is, and the registry they are all in.

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

_PAPERS_REDUCTION = 16  # of squeeze-and-excitation, and of those who follow it


class AttentionBlock(nn.Module, ABC):
    '''A block built as `Block(channels)`, with a map to look at; same shape out as in.

    `starts_as_identity` says that a block as it is built returns its input: its equations have
    such a point, and it starts there. All others reach it through `blend`. A block that multiplies
    by its map derives from `GatedBlock`, which has `forward`, and writes `attention_map` alone; any
    other writes `forward`, too, and leaves autocast there: `with full_precision(x.device.type):`.

    Example:
        A block of one's own, all of the file my_block.py:

            import torch
            from torch import Tensor, nn

            from towernet.attention import GatedBlock


            class MyBlock(GatedBlock):
                """Weigh each channel by its mean and its spread.

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

        It is held to every promise, and put into a network:

            from torchvision.models import resnet18

            from my_block import MyBlock
            from towernet.attention import attach
            from towernet.testing import check_block

            check_block(MyBlock)
            attach(resnet18(), MyBlock)

        It is compared with what there is without it, from the folder it lies in:

            towernet compare photos/ --attention none,my_block:MyBlock
    '''

    starts_as_identity: ClassVar[bool] = False

    @abstractmethod
    def attention_map(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B #C #H #W"]:
        """Return the weights in [0, 1], in the order of the channels that come in."""

    @abstractmethod
    def forward(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Return what the block makes of a feature map, in the map's number format."""

    def blend(
        self, x_BCHW: Float[Tensor, "B C H W"], gain: Float[Tensor, ""]
    ) -> Float[Tensor, "B C H W"]:
        """Return x + gain·(block(x) − x): the input where the gain is 0, the block where it is 1.

        A block that reorders channels leaves them in their order here.
        """
        y_BCHW: Tensor = (x_BCHW + gain * (self(x_BCHW) - x_BCHW)).to(x_BCHW.dtype)
        return y_BCHW

    def blend_(
        self, x_BCHW: Float[Tensor, "B C H W"], gain: Float[Tensor, ""]
    ) -> Float[Tensor, "B C H W"]:
        """Return the same. Where no gradient is wanted it may be written over the map.

        For a caller that nobody shares the map with; a block that gains nothing by it leaves it.
        """
        return self.blend(x_BCHW, gain)

    def wake(self) -> None:
        """Move the factors that start at 0, for a start that a gain of 0 hides.

        What they multiply then learns as soon as the gain has left 0. Nothing to do by default.
        """


class GatedBlock(AttentionBlock):
    """A block that multiplies a feature map by its attention map."""

    def forward(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Weigh the feature map."""
        return weigh(x_BCHW, self.gates(x_BCHW))

    def blend(
        self, x_BCHW: Float[Tensor, "B C H W"], gain: Float[Tensor, ""]
    ) -> Float[Tensor, "B C H W"]:
        """Weigh the feature map by 1 + gain·(gate − 1)."""
        # Added to the map, and not 1 to the gate: in bf16 a small gain would be lost beside it.
        change = (gain * (self.gates(x_BCHW) - 1)).to(x_BCHW.dtype)
        return torch.addcmul(x_BCHW, x_BCHW, change)

    def gates(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B #C #H #W"]:
        """Return the attention map, its statistics and layers outside of autocast.

        They would keep three digits in bf16, of means that can be large against what differs.
        """
        with full_precision(x_BCHW.device.type):
            gates: Tensor = self.attention_map(x_BCHW)
        return gates


def full_precision(device: str) -> contextlib.AbstractContextManager[object]:
    """Leave autocast for a while; nothing is entered, and nothing traced, where there is none."""
    # The meta device has no autocast.
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()


def wide(x: Tensor, parameter: Tensor | None = None) -> torch.dtype:
    """Return what statistics of a map are computed in: fp32 at least, or as the parameters are.

    A block that was itself turned to bf16 can only be fed bf16.
    """
    if parameter is not None:
        return parameter.dtype
    return torch.promote_types(x.dtype, torch.float32)


def weigh(x_BCHW: Tensor, gates: Tensor) -> Tensor:
    """Return the map times its gates, in the map's number format.

    The gates, once computed, are rounded to it: a product in fp32 takes four times as long.
    """
    return x_BCHW * gates.to(x_BCHW.dtype)


def channel_means(x_BCHW: Float[Tensor, "B C H W"], dtype: torch.dtype) -> Float[Tensor, "B C"]:
    """Return each channel's mean over positions, in a number format.

    Over one axis: torch's mean over two takes twice as long.
    """
    return over_positions(x_BCHW).mean(dim=1, dtype=dtype)


def over_positions(x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N C"]:
    """Return the map's N = H·W positions along one axis; in either layout that is a view."""
    if layout_of(x_BCHW) == torch.channels_last:
        return x_BCHW.permute(0, 2, 3, 1).flatten(1, 2)
    return x_BCHW.flatten(2).transpose(1, 2)


def layout_of(x_BCHW: Tensor) -> torch.memory_format:
    """Return how a map lies in memory; gates that lie otherwise take twice as long to apply."""
    if x_BCHW.is_contiguous() or not x_BCHW.is_contiguous(memory_format=torch.channels_last):
        return torch.contiguous_format
    return torch.channels_last


def require_channels(block: str, channels: int) -> None:
    """Refuse a feature map without channels."""
    if channels < 1:
        raise ConfigError(f"{block}: channels={channels}; give at least 1")


def narrowed(block: str, channels: int, reduction: int | None, *, least: int = 1) -> int:
    """Return how many channels a bottleneck has that is `reduction` times narrower than the map.

    None: as in the papers, 16 times, or what leaves `least` channels.
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
    """Return the source that a block or its file names, without its authors; '' for none.

    Example:
        >>> from towernet.attention import SqueezeExcitation
        >>> paper(SqueezeExcitation)
        'Squeeze-and-Excitation Networks. CVPR 2018. arXiv:1709.01507'
    """
    for docstring in (block_class.__doc__, getattr(inspect.getmodule(block_class), "__doc__", "")):
        rest = (docstring or "").partition("Source: ")[2]
        said = " ".join(rest.partition("\n\n")[0].split())
        if found := re.match(r".+?\. (.+?)(?:, eq\.|(?<=\.\d{5})\. |$)", said):
            return found[1]
    return ""

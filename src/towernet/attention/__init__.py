"""Attention blocks for any convolutional network; they need torch only.

`help(AttentionBlock)` shows how to write, check, attach and compare a custom block.
With a C compiler, `towernet.native.ops.enable(True)` lets shuffle attention use its kernel on a
CPU; `towernet.native.selftest.excess() <= 1` checks that the kernel agrees with torch.
"""

from towernet.attention.attach import attach
from towernet.attention.base import ATTENTION, AttentionBlock, GatedBlock, full_precision
from towernet.attention.cbam import ConvolutionalBlockAttention
from towernet.attention.coordinate import CoordinateAttention
from towernet.attention.eca import EfficientChannelAttention
from towernet.attention.find import attention_block
from towernet.attention.global_context import GlobalContext
from towernet.attention.inserted import detach, parameter_groups
from towernet.attention.maps import attention_maps
from towernet.attention.sge import SpatialGroupEnhance
from towernet.attention.shuffle import ShuffleAttention
from towernet.attention.simam import SimAM
from towernet.attention.squeeze_excitation import SqueezeExcitation

__all__ = [
    "ATTENTION",
    "AttentionBlock",
    "ConvolutionalBlockAttention",
    "CoordinateAttention",
    "EfficientChannelAttention",
    "GatedBlock",
    "GlobalContext",
    "ShuffleAttention",
    "SimAM",
    "SpatialGroupEnhance",
    "SqueezeExcitation",
    "attach",
    "attention_block",
    "attention_maps",
    "detach",
    "full_precision",
    "parameter_groups",
]

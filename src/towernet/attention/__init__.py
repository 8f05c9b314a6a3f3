"""Attention blocks for any convolutional network; they need torch only."""

from towernet.attention.base import ATTENTION, AttentionBlock, GatedBlock
from towernet.attention.cbam import ConvolutionalBlockAttention
from towernet.attention.eca import EfficientChannelAttention
from towernet.attention.shuffle import ShuffleAttention
from towernet.attention.squeeze_excitation import SqueezeExcitation

__all__ = [
    "ATTENTION",
    "AttentionBlock",
    "ConvolutionalBlockAttention",
    "EfficientChannelAttention",
    "GatedBlock",
    "ShuffleAttention",
    "SqueezeExcitation",
]

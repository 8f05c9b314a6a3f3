"""Attention blocks for any convolutional network; they need torch only."""

from towernet.attention.base import ATTENTION, GatedBlock
from towernet.attention.shuffle import ShuffleAttention

__all__ = ["ATTENTION", "GatedBlock", "ShuffleAttention"]

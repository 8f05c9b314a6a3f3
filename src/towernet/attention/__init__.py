"""Attention blocks for any convolutional network; they need torch only."""

from towernet.attention.base import ATTENTION, AttentionBlock, GatedBlock
from towernet.attention.shuffle import ShuffleAttention

__all__ = ["ATTENTION", "AttentionBlock", "GatedBlock", "ShuffleAttention"]

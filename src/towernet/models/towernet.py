"""TowerNet: the SA-Residual-Inception-Net of the original notebook, exactly; and a variant.

Shapes: B images, 3 channels, H × W pixels, K classes.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from towernet.attention.shuffle import ShuffleAttention
from towernet.errors import ConfigError
from towernet.models.blocks import (
    ConvNorm,
    ConvNormPool,
    NormedInception,
    ResidualInception,
    start_as_paddle,
)

MIN_SIZE_PX = 127


class TowerNet(nn.Module):
    """Four convolutional stages, three residual inception blocks, four shuffle attentions.

    Starts from Paddle's default weights, drawn with torch's generator.

    Args:
        num_classes: K, how many answers there are.

    Example:
        >>> network = TowerNet(16)
        >>> sum(parameter.numel() for parameter in network.parameters())
        1559600
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stage_1 = ConvNormPool(3, 64, stride=2)
        self.stage_2 = ConvNormPool(64, 128)
        self.stage_3 = ConvNormPool(128, 256)
        self.attention_3 = ShuffleAttention(256)
        self.stage_4 = ConvNormPool(256, 256)
        self.attention_4 = ShuffleAttention(256)
        self.inception_5 = ResidualInception()
        self.attention_5 = ShuffleAttention(256)
        self.inception_6 = ResidualInception()
        self.attention_6 = ShuffleAttention(256)
        self.inception_7 = ResidualInception()
        self.head = nn.Linear(256, num_classes)
        start_as_paddle(self)

    def forward(self, x_B3HW: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K"]:
        """Return the logits.

        Raises:
            ConfigError: the images are too small: the maps halve seven times.
        """
        if min(x_B3HW.shape[2:]) < MIN_SIZE_PX:
            raise ConfigError(too_small(min(x_B3HW.shape[2:])))
        x = self.stage_2(self.stage_1(x_B3HW))
        x = self.attention_3(self.stage_3(x))
        x = self.attention_4(self.stage_4(x))
        x = self.attention_5(F.max_pool2d(self.inception_5(x), 2))
        x = self.attention_6(F.max_pool2d(self.inception_6(x), 2))
        # The notebook averages 2×2 pixels, which at 256 px are all there are.
        x_BC = self.inception_7(x).mean(dim=(2, 3))
        logits_BK: Tensor = self.head(x_BC)
        return logits_BK


class PatchTowerNet(nn.Module):
    """TowerNet made to learn from few images in little time: the same parts, put together anew.

    The stem is one convolution of 4×4 patches, every convolution has a batch norm, and the maps
    halve five times instead of seven, so that 128-px images end in 4×4 pixels instead of one.

    Args:
        num_classes: K, how many answers there are.

    Example:
        >>> network = PatchTowerNet(16)
        >>> sum(parameter.numel() for parameter in network.parameters())
        972040
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 64, 4, stride=4)
        self.stage_2 = ConvNormPool(64, 128)
        self.stage_3 = ConvNormPool(128, 256)
        self.attention_3 = ShuffleAttention(256)
        self.inception_4 = NormedInception()
        self.attention_4 = ShuffleAttention(256)
        self.inception_5 = NormedInception()
        self.inception_6 = NormedInception()
        self.head = nn.Linear(256, num_classes)
        start_as_paddle(self)

    def forward(self, x_B3HW: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K"]:
        """Return the logits; the sides of the images are at least 32 pixels."""
        x = self.stage_3(self.stage_2(self.stem(x_B3HW)))
        x = self.inception_4(self.attention_3(x))
        x = self.attention_4(F.max_pool2d(x, 2))
        x_BC = self.inception_6(self.inception_5(x)).mean(dim=(2, 3))
        logits_BK: Tensor = self.head(x_BC)
        return logits_BK


def too_small(size_px: int) -> str:
    """Return the sentence for images TowerNet cannot take."""
    return (
        f"towernet cannot take {size_px}-px images, since its maps halve seven times;"
        f" give --size {MIN_SIZE_PX} or more (smaller images are enlarged)"
    )

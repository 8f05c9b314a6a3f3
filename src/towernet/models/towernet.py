"""TowerNet: the SA-Residual-Inception-Net of the original notebook, exactly; and a variant.

Shapes: B images, I channels of an image, H × W pixels, C channels of a map, K classes.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from towernet.attention.shuffle import ShuffleAttention
from towernet.errors import ConfigError
from towernet.models.blocks import (
    ConvNorm,
    ConvNormPool,
    NormedInception,
    ResidualInception,
    start_as_paddle,
)
from towernet.models.classifier import Classifier, linear_head

MIN_SIZE_PX = 127


class TowerNet(Classifier):
    """Four convolutional stages, three residual inception blocks, four shuffle attentions.

    Starts from Paddle's default weights, drawn with torch's generator.

    Args:
        num_classes: K, the number of classes; 0: the output is the mean features.
        in_chans: I, the channels of an image.

    Example:
        >>> network = TowerNet(16)
        >>> sum(parameter.numel() for parameter in network.parameters())
        1559600
    """

    def __init__(self, num_classes: int, *, in_chans: int = 3) -> None:
        super().__init__(num_classes=num_classes, in_chans=in_chans, num_features=256)
        self.stage_1 = ConvNormPool(in_chans, 64, stride=2)
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
        self.head = linear_head(256, num_classes)
        start_as_paddle(self)

    def forward_features(self, x_BIHW: Float[Tensor, "B I H W"]) -> Float[Tensor, "B C h w"]:
        """Return the last feature map; the head averages its positions.

        The notebook averages 2×2 pixels, which is the whole map at 256 px.

        Raises:
            ConfigError: the images are too small: the maps halve seven times.
        """
        if min(x_BIHW.shape[2:]) < MIN_SIZE_PX:
            raise ConfigError(too_small(min(x_BIHW.shape[2:])))
        x = self.stage_2(self.stage_1(x_BIHW))
        x = self.attention_3(self.stage_3(x))
        x = self.attention_4(self.stage_4(x))
        x = self.attention_5(F.max_pool2d(self.inception_5(x), 2))
        x = self.attention_6(F.max_pool2d(self.inception_6(x), 2))
        features_BChw: Tensor = self.inception_7(x)
        return features_BChw


class PatchTowerNet(Classifier):
    """Variant of TowerNet that learns from few images in little time: same parts, other layout.

    The stem is one convolution of 4×4 patches, every convolution has a batch norm, and the maps
    halve five times instead of seven, so that 128-px images give 4×4 pixels instead of one.

    Args:
        num_classes: K, the number of classes; 0: the output is the mean features.
        in_chans: I, the channels of an image.

    Example:
        >>> network = PatchTowerNet(16)
        >>> sum(parameter.numel() for parameter in network.parameters())
        972040
    """

    def __init__(self, num_classes: int, *, in_chans: int = 3) -> None:
        super().__init__(num_classes=num_classes, in_chans=in_chans, num_features=256)
        self.stem = ConvNorm(in_chans, 64, 4, stride=4)
        self.stage_2 = ConvNormPool(64, 128)
        self.stage_3 = ConvNormPool(128, 256)
        self.attention_3 = ShuffleAttention(256)
        self.inception_4 = NormedInception()
        self.attention_4 = ShuffleAttention(256)
        self.inception_5 = NormedInception()
        self.inception_6 = NormedInception()
        self.head = linear_head(256, num_classes)
        start_as_paddle(self)

    def forward_features(self, x_BIHW: Float[Tensor, "B I H W"]) -> Float[Tensor, "B C h w"]:
        """Return the last feature map; the sides of the images are at least 32 pixels."""
        x = self.stage_3(self.stage_2(self.stem(x_BIHW)))
        x = self.inception_4(self.attention_3(x))
        x = self.attention_4(F.max_pool2d(x, 2))
        features_BChw: Tensor = self.inception_6(self.inception_5(x))
        return features_BChw


def too_small(size_px: int) -> str:
    """Return the message for images that are too small for TowerNet."""
    return (
        f"towernet cannot take {size_px}-px images, since its maps halve seven times;"
        f" give --size {MIN_SIZE_PX} or more (smaller images are enlarged)"
    )

"""Base class of TowerNet and its variant: feature maps, then a head that reads their mean.

Methods and attributes have the names that timm's tools use.
Shapes: B images, I channels of an image, H × W pixels, C channels of the last map, K classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from towernet.attention.inserted import attention_blocks
from towernet.errors import ConfigError
from towernet.models.blocks import start_as_paddle


class Classifier(nn.Module, ABC):
    """Feature maps and a head: one linear layer on the mean of the last map's positions.

    A subclass computes the maps in `forward_features` and sets `head` last.

    Args:
        num_classes: K; 0: no head, the output is the mean itself.
        in_chans: I, the channels of an image.
        num_features: C.
    """

    head: nn.Module
    feature_info: list[dict[str, Any]]  # timm's, if timm built the network

    def __init__(self, *, num_classes: int, in_chans: int, num_features: int) -> None:
        super().__init__()
        self.num_classes, self.in_chans = num_classes, in_chans
        self.num_features = self.head_hidden_size = num_features
        self.global_pool = "avg"

    @abstractmethod
    def forward_features(self, x_BIHW: Float[Tensor, "B I H W"]) -> Float[Tensor, "B C h w"]:
        """Return the last feature map."""

    def forward_head(
        self, x_BCHW: Float[Tensor, "B C H W"], pre_logits: bool = False
    ) -> Float[Tensor, "B *K"]:
        """Return the logits for a last feature map, or what they are computed from."""
        x = x_BCHW.mean(dim=(2, 3)) if self.global_pool else x_BCHW
        if pre_logits:
            return x
        logits: Tensor = self.head(x)
        return logits

    def forward(self, x_BIHW: Float[Tensor, "B I H W"]) -> Float[Tensor, "B *K"]:
        """Return the logits."""
        return self.forward_head(self.forward_features(x_BIHW))

    def get_classifier(self) -> nn.Module:
        """Return the classification layer; an identity if there is none."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head by a new one, with fresh weights.

        Args:
            num_classes: K; 0: no head.
            global_pool: "avg": the mean of the positions. "": the map as it is, which no head can
                read. None: as before.

        Raises:
            ConfigError: the pooling is none of these, or a head would read a map.
        """
        pool = self.global_pool if global_pool is None else global_pool
        if pool not in ("avg", ""):
            raise ConfigError(f"global_pool is '{pool}'; give 'avg', or '' for none")
        if num_classes and not pool:
            raise ConfigError(
                f"global_pool is '' and a head for {num_classes} classes needs pooled features;"
                " give 'avg', or num_classes=0"
            )
        head, like = linear_head(self.num_features, num_classes), next(self.parameters())
        start_as_paddle(head)
        self.head = head.to(like.device, like.dtype)
        self.num_classes, self.global_pool = num_classes, pool

    def no_weight_decay(self) -> set[str]:
        """Return the names of attention's parameters: decay would pull their gates towards 1/2."""
        return {
            f"{name}.{own}"
            for name, block in attention_blocks(self).items()
            for own, _ in block.named_parameters()
        }


def linear_head(num_features: int, num_classes: int) -> nn.Module:
    """Return a head with torch's initial weights; an identity for 0 classes."""
    return nn.Linear(num_features, num_classes) if num_classes else nn.Identity()

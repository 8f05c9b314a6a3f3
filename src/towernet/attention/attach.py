"""Attention put into a network that is built already, from scratch or trained.

The network's own modules stay where they are and keep their names, so its weights load before and
after.

Shapes: B images, C channels, H × W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from towernet import torch_private
from towernet.attention.base import AttentionBlock
from towernet.attention.find import builder
from towernet.attention.fit import fitted
from towernet.attention.inserted import (
    CHILD,
    insert,
    require_intact,
    require_network,
    require_uncompiled,
)
from towernet.attention.places import Place, find_places, require_names
from towernet.attention.trace import trace
from towernet.errors import ConfigError
from towernet.names import BlockStart
from towernet.words import some_listed

Where = str | Sequence[str]


@dataclass(frozen=True)
class Attached:
    """One block in a network.

    Args:
        place: Where, and why there.
        block: What was put there.
    """

    place: Place
    block: AttentionBlock

    @property
    def num_parameters(self) -> int:
        """Its trainable numbers."""
        return sum(parameter.numel() for parameter in self.block.parameters())


@dataclass(frozen=True)
class Skipped:
    """A place that was left as it is.

    Args:
        place: The place.
        reason: Why it cannot take the block, as a sentence without its end.
    """

    place: Place
    reason: str


class Attachments(list[Attached]):
    """What was inserted, in the order it runs; `skipped` are the places that cannot take it."""

    def __init__(self, attached: Sequence[Attached], skipped: Sequence[Skipped] = ()) -> None:
        super().__init__(attached)
        self.skipped = list(skipped)

    @property
    def words(self) -> str:
        """Which places were skipped and why, as a sentence without its end; '' for none."""
        if not self.skipped:
            return ""
        names = some_listed([each.place.name for each in self.skipped], 5)
        num, of = len(self.skipped), len(self.skipped) + len(self)
        return f"{num} of {of} places cannot take it and stay as they are: {names}" + (
            f" ({self.skipped[0].reason})"
        )


@torch.inference_mode(False)  # what is made in inference mode could not be trained
def attach(
    model: nn.Module,
    block: str | Callable[[int], AttentionBlock],
    where: Where = "blocks",
    *,
    start: BlockStart = "identity",
    input_shape: tuple[int, int, int, int] | None = None,
    strict: bool = False,
) -> Attachments:
    """Put a block into a network at one or more places; the network is changed in place.

    Blocks are built as `block(channels)`, options by `functools.partial(CBAM, reduction=8)`. Each
    takes the number format, device, memory layout and mode of the module whose output it weighs.
    First make all changes that replace modules by others, such as
    `SyncBatchNorm.convert_sync_batchnorm`: a module that is replaced loses its attention.

    Args:
        model: A network of any library, trained or not.
        block: A name (`towernet attention` lists them; `package.module:Class` is one, too), a
            class, or a function of the number of channels.
        where: "blocks": before each residual addition (as in SA-Net); at map sizes without one,
            after each joint of branches; in a network with neither, at each stage's end.
            "stages": where a stage of one map size ends. "last-of-stage": only the last of a
            stage's "blocks". Otherwise names of modules, or patterns such as "layer[34].*.bn3"; a
            star matches anything, dots too.
        start: "identity": the network computes what it did before, by a gain that starts at 0
            (a block that is the identity at its start needs none). "paper": as its authors start
            the block.
        input_shape: Of an input the network takes, (1, channels, height, width). None: what the
            network states itself, as timm's do, else 224 px.
        strict: Refuse the network if one of the places cannot take the block. By default that place
            stays as it is.

    Returns:
        What was inserted, in the order it runs; its `skipped` are the places left as they are,
        each with the reason, and `words` names them in a sentence.

    Raises:
        UnknownNameError: no block or module has the name.
        ConfigError: there is no such place, the block fits none of them or, with `strict`, not all
            (it is tried on a map of each place's size, built-in blocks excepted), or attention was
            attached there before. The network is as it was.

    Example:
        >>> from torchvision.models import resnet18
        >>> network = resnet18()
        >>> [attached.place.name for attached in attach(network, "shuffle", "last-of-stage")]
        ['layer1.1.bn2', 'layer2.1.bn2', 'layer3.1.bn2', 'layer4.1.bn2']
    """
    if start not in ("identity", "paper"):
        raise ConfigError(f"start is '{start}'; give 'identity' or 'paper'")
    require_network(model)
    require_uncompiled(model)
    require_intact(model)
    require_names(model, where)
    build = builder(block)
    if input_shape is not None and not (
        isinstance(input_shape, Sequence) and len(input_shape) == 4
    ):
        raise ConfigError(f"input_shape is {input_shape}; give (1, channels, height, width)")
    places = find_places(trace(model, input_shape), where)
    attached: list[Attached] = []
    refused: list[tuple[Place, ConfigError]] = []
    for place in places:  # all are built before the first is inserted
        if hasattr(model.get_submodule(place.name), CHILD):
            raise ConfigError(f"{place.name} already has attention; call detach(network) first")
        try:
            attached.append(Attached(place, fitted(build, place, model, start)))
        except ConfigError as error:
            if strict:
                raise
            refused.append((place, error))
    if not attached:
        raise refused[0][1]
    torch_private.recompile_when_hooks_change()
    for each in attached:
        module = model.get_submodule(each.place.name)
        insert(module, each.block, channels_last=each.place.channels_last)
    skipped = [Skipped(place, str(e).removeprefix(f"at {place.name}, ")) for place, e in refused]
    return Attachments(attached, skipped)

"""A network with a chosen attention block, by name: `resnet18+se`, `towernet+none@stages`.

A network built by name (`towernet.names`) is untrained, so a block starts with its authors' initial
weights. With `@identity` it starts as the identity, as `attach` does in a trained network. TowerNet
has its own places for attention: a block replaces shuffle attention there. If a block is inserted
elsewhere, shuffle attention is removed. `towernet+none` has no attention, and `towernet+shuffle` is
`towernet`.
"""

from __future__ import annotations

from torch import nn

from towernet.attention.attach import attach
from towernet.attention.blend import with_start
from towernet.attention.find import attention_block
from towernet.attention.fit import built
from towernet.attention.shuffle import ShuffleAttention
from towernet.errors import ConfigError
from towernet.names import NONE, USUAL_PLACE, NetworkName
from towernet.words import some_listed


def insert_attention(
    model: nn.Module, name: NetworkName, size_px: int, *, strict: bool = False
) -> str:
    """Insert the attention that a network's name specifies into the newly built network.

    Places that cannot take the block stay as they are, the same ones each time it is built.

    Args:
        model: The network, changed in place.
        name: Its name.
        size_px: Side of the square images it will get.
        strict: Refuse the network if one of the places cannot take the block.

    Returns:
        Which places stay as they are, and why, in words; '' for none.

    Raises:
        UnknownNameError: no block has the name.
        ConfigError: the block does not fit, or there is no place for it.
    """
    if name.block is None or (name.block == NONE and not name.is_ours):
        return ""
    own = {place: m for place, m in model.named_modules() if isinstance(m, ShuffleAttention)}
    if name.is_ours and name.where is not None:
        for place in own:
            model.set_submodule(place, nn.Identity())
    if not name.is_ours or name.where is not None:
        block_class = attention_block(name.block)
        try:
            return attach(
                model,
                block_class,
                name.where or USUAL_PLACE,
                start=name.block_start,
                input_shape=(1, 3, size_px, size_px),
                strict=strict,
            ).words
        except ConfigError as error:
            raise _cannot_take(name, error) from error
    if name.block == "shuffle" and name.block_start == "paper":
        return ""  # the network as it is
    refused: dict[str, ConfigError] = {}
    num_taken = 0
    for place, module in own.items():
        if name.block == NONE:
            model.set_submodule(place, nn.Identity())
            continue
        try:
            block = built(attention_block(name.block), module.channels)
        except ConfigError as error:
            refused[place] = error
            if strict:
                break
            model.set_submodule(place, nn.Identity())
            continue
        num_taken += 1
        model.set_submodule(place, with_start(block, name.block_start))
    if not refused:
        return ""
    first = next(iter(refused.values()))
    if strict or not num_taken:
        raise _cannot_take(name, first) from first
    return (
        f"{len(refused)} of {len(own)} places cannot take it and have no attention:"
        f" {some_listed(list(refused), 5)} ({first})"
    )


def _cannot_take(name: NetworkName, error: ConfigError) -> ConfigError:
    return ConfigError(f"{name.base} cannot take {name.block}: {error}")

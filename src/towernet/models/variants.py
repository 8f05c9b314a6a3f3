"""A network with another attention than its own, by name: `resnet18+se`, `towernet+none@stages`.

What is built by name (`towernet.names`) begins from scratch and has nothing to lose, so a block
starts as its authors start it; with `@identity` it is blended in from nothing, as `attach` does to
a trained network. TowerNet has places of its own: there a block takes the place of shuffle
attention, and nothing is left of it where a block goes elsewhere. `towernet+none` has nothing
there, and `towernet+shuffle` is `towernet`.
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


def put_attention(model: nn.Module, name: NetworkName, size_px: int) -> None:
    """Give a network as it was built the attention that its name asks for.

    Args:
        model: The network, changed in place.
        name: What it is called.
        size_px: Side of the square images it will see.

    Raises:
        UnknownNameError: no block has the name.
        ConfigError: the block does not fit, or there is no place for it.
    """
    if name.block is None or (name.block == NONE and not name.is_ours):
        return
    own = {place: m for place, m in model.named_modules() if isinstance(m, ShuffleAttention)}
    if name.is_ours and name.where is not None:
        for place in own:
            model.set_submodule(place, nn.Identity())
    if not name.is_ours or name.where is not None:
        block_class = attention_block(name.block)
        try:
            attach(
                model,
                block_class,
                name.where or USUAL_PLACE,
                start=name.block_start,
                input_shape=(1, 3, size_px, size_px),
            )
        except ConfigError as error:
            raise _cannot_take(name, error) from error
        return
    if name.block == "shuffle" and name.block_start == "paper":
        return  # the network as it is
    for place, module in own.items():
        if name.block == NONE:
            model.set_submodule(place, nn.Identity())
            continue
        try:
            block = built(attention_block(name.block), module.channels)
        except ConfigError as error:
            raise _cannot_take(name, error) from error
        model.set_submodule(place, with_start(block, name.block_start))


def _cannot_take(name: NetworkName, error: ConfigError) -> ConfigError:
    return ConfigError(f"{name.base} cannot take {name.block}: {error}")

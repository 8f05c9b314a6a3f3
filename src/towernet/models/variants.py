"""A network with another attention than its own, by name: `resnet18+se`, `towernet+none@stages`.

A name is a network, `+`, a block, and where the block goes when that is not before each residual
addition: `@stages`, `@last-of-stage`, or modules as `@layer3.*.bn2`. What is built by name begins
from scratch and has nothing to lose, so a block starts as its authors start it; with `@identity` it
is blended in from nothing, as `attach` does to a trained network. TowerNet has places of its own:
there a block takes the place of shuffle attention, and nothing is left of it where a block goes
elsewhere. `towernet+none` has nothing there, and `towernet+shuffle` is `towernet`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from towernet.attention.attach import Start, attach, with_start
from towernet.attention.base import ATTENTION
from towernet.attention.find import attention_block, code_of
from towernet.attention.fit import built
from towernet.attention.shuffle import ShuffleAttention
from towernet.errors import ConfigError

NONE = "none"
_WITHOUT_WHERE = "blocks"


@dataclass(frozen=True)
class Variant:
    """What a name asks for.

    Args:
        network: The name without attention.
        block: A block's name, "none", or None where nothing is said of attention.
        where: As `attach` takes it; None: the usual place.
        start: As `attach` takes it.
    """

    network: str
    block: str | None = None
    where: str | None = None
    start: Start = "paper"

    @property
    def own_code(self) -> str:
        """The import path of a user's own block, '' where there is none."""
        return self.block if self.block is not None and ":" in self.block else ""


def parse(name: str) -> Variant:
    """Take a name apart.

    Raises:
        ConfigError: something is empty, or said twice.

    Example:
        >>> parse("resnet18+se@stages")
        Variant(network='resnet18', block='se', where='stages', start='paper')
    """
    network, plus, rest = name.partition("+")
    bare, at, where = network.partition("@")
    if at:
        raise ConfigError(
            f"'{name}' names a place and no block to put there; give the block before it, as in"
            f" {bare or 'resnet18'}+se@{where or 'stages'}"
        )
    if not plus:
        return Variant(network)
    block, *options = rest.split("@")
    starts = [option for option in options if option in ("identity", "paper")]
    wheres = [option for option in options if option not in starts]
    if not network or not block or "" in options or len(starts) > 1 or len(wheres) > 1:
        raise ConfigError(
            f"'{name}' names no network with attention; give NETWORK+BLOCK, and where and how it"
            " starts as in resnet18+se@stages@identity"
        )
    if block == NONE and options:
        raise ConfigError(f"'{name}' says where nothing goes; give {network}+none")
    start: Start = "identity" if "identity" in starts else "paper"
    return Variant(network, block, wheres[0] if wheres else None, start)


def network_of(name: str) -> str:
    """Return the network that a name is about, whatever its attention."""
    return name.partition("+")[0]


def code_of_blocks(names: Iterable[str]) -> dict[str, str]:
    """Return the hashes of the code of those blocks in some networks' names that are not ours."""
    blocks = {parse(name).block for name in names} - {None, NONE, *ATTENTION}
    return {
        f"attention {block}": code_of(attention_block(block))
        for block in sorted(filter(None, blocks))
    }


def canonical(name: str, *, has_own: bool) -> str:
    """Return a name without what it need not say; `has_own`: the network has places of its own.

    Raises:
        ConfigError: as `parse`.

    Example:
        >>> canonical("resnet18+se@paper@blocks", has_own=False)
        'resnet18+se'
    """
    variant = parse(name)
    if variant.block is None:
        return name
    where = variant.where
    if where == _WITHOUT_WHERE and not has_own:
        where = None
    options = [option for option in (where, variant.start) if option not in (None, "paper")]
    if not options:
        return named(variant.network, variant.block, has_own=has_own)
    return "@".join([f"{variant.network}+{variant.block}", *filter(None, options)])


def named(network: str, block: str, *, has_own: bool) -> str:
    """Return the shortest name of a network with a block; `has_own`: it has places of its own.

    Example:
        >>> named("resnet18", "none", has_own=False), named("towernet", "shuffle", has_own=True)
        ('resnet18', 'towernet')
    """
    if block == ("shuffle" if has_own else NONE):
        return network
    return f"{network}+{block}"


def put_attention(model: nn.Module, variant: Variant, size_px: int, *, has_own: bool) -> None:
    """Give a network as it was built the attention that its name asks for.

    Args:
        model: The network, changed in place.
        variant: What its name says.
        size_px: Side of the square images it will see.
        has_own: Whether it has places of its own for attention.

    Raises:
        UnknownNameError: no block has the name.
        ConfigError: the block does not fit, or there is no place for it.
    """
    if variant.block is None or (variant.block == NONE and not has_own):
        return
    own = {name: m for name, m in model.named_modules() if isinstance(m, ShuffleAttention)}
    if has_own and variant.where is not None:
        for name in own:
            model.set_submodule(name, nn.Identity())
    if not has_own or variant.where is not None:
        block_class = attention_block(variant.block)
        try:
            attach(
                model,
                block_class,
                variant.where or _WITHOUT_WHERE,
                start=variant.start,
                input_shape=(1, 3, size_px, size_px),
            )
        except ConfigError as error:
            raise _cannot_take(variant, error) from error
        return
    if variant.block == "shuffle" and variant.start == "paper":
        return  # the network as it is
    for name, module in own.items():
        if variant.block == NONE:
            model.set_submodule(name, nn.Identity())
            continue
        try:
            block = built(attention_block(variant.block), module.channels)
        except ConfigError as error:
            raise _cannot_take(variant, error) from error
        model.set_submodule(name, with_start(block, variant.start))


def _cannot_take(variant: Variant, error: ConfigError) -> ConfigError:
    return ConfigError(f"{variant.network} cannot take {variant.block}: {error}")

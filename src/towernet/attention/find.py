"""Attention blocks by name: built-in ones, import paths, and those of installed packages.

A package offers its blocks under the names of its entry points:

    [project.entry-points."towernet.attention"]
    mine = "my_package.blocks:MyAttention"
"""

from __future__ import annotations

from collections.abc import Callable

from towernet.attention.base import ATTENTION, AttentionBlock
from towernet.attention.fit import builder_problem, class_problem
from towernet.errors import TRUSTED_BLOCKS, ConfigError
from towernet.names import block_and_options
from towernet.plugins import Plugins
from towernet.words import kind

BLOCKS = Plugins[type[AttentionBlock]](
    "attention block",
    group="towernet.attention",
    variable=TRUSTED_BLOCKS,
    example="my_package.blocks:MyAttention",
    problem=class_problem,
    ours=lambda: ATTENTION,
)


def attention_block(name: str) -> type[AttentionBlock]:
    """Return the attention block with a name; built-in ones take precedence.

    Args:
        name: A registered name (`se`), the name of an entry point of an installed package, or an
            import path (`my_package.blocks:MyAttention`).

    Raises:
        UnknownNameError: Nothing has the name; the message suggests the nearest.
        ConfigError: It cannot be imported, or is no attention block.
        UntrustedCodeError: It is an import path that the user did not give (`BLOCKS.trust`, or the
            variable TOWERNET_BLOCKS), of a module that is not imported yet.

    Example:
        >>> attention_block("towernet.attention.simam:SimAM") is attention_block("simam")
        True
    """
    return ATTENTION[name] if name in ATTENTION else BLOCKS.find(name)


def known_blocks() -> list[str]:
    """Return the names that need no import path: built-in ones, and those of installed packages."""
    return BLOCKS.known()


def builder(block: object) -> Callable[[int], AttentionBlock]:
    """Return what builds a block for a number of channels, from what a user gives as `block`.

    Raises:
        UnknownNameError: no block has the name.
        ConfigError: it is neither a name, nor a class of blocks, nor a function.
    """
    if isinstance(block, str):
        _, *options = block_and_options(block)
        if options:
            place = "@".join(options)
            raise ConfigError(f"the block is '{block}'; give the place separately, where='{place}'")
        BLOCKS.trust(block)
        return attention_block(block)
    if not callable(block):
        raise ConfigError(
            f"the block is {kind(block)}; give a name such as 'se', a class derived from"
            " towernet.attention.AttentionBlock, or a function of the number of channels"
        )
    if problem := builder_problem(block):
        raise ConfigError(f"{getattr(block, '__name__', 'the block')} {problem}")
    return block

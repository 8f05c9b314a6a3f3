"""Attention blocks by name: ours, any that can be imported, and those of installed packages.

A package offers its blocks under the names of its entry points:

    [project.entry-points."towernet.attention"]
    mine = "my_package.blocks:MyAttention"
"""

from __future__ import annotations

from towernet.attention.base import ATTENTION, AttentionBlock
from towernet.attention.fit import class_problem
from towernet.errors import TRUSTED_BLOCKS
from towernet.plugins import Plugins

BLOCKS = Plugins[type[AttentionBlock]](
    "attention block",
    group="towernet.attention",
    variable=TRUSTED_BLOCKS,
    example="my_package.blocks:MyAttention",
    problem=class_problem,
    ours=lambda: ATTENTION,
)


def attention_block(name: str) -> type[AttentionBlock]:
    """Return the attention block that a name stands for; ours come before those of others.

    Args:
        name: A registered name (`se`), the name of an entry point of an installed package, or an
            import path (`my_package.blocks:MyAttention`).

    Raises:
        UnknownNameError: Nothing has the name; the message suggests the nearest.
        ConfigError: What the name stands for cannot be imported, or is no attention block.
        UntrustedCodeError: It is an import path that no user said (`BLOCKS.trust`, or the variable
            TOWERNET_BLOCKS), of a module that is not imported yet.

    Example:
        >>> attention_block("towernet.attention.simam:SimAM") is attention_block("simam")
        True
    """
    return ATTENTION[name] if name in ATTENTION else BLOCKS.find(name)


def known_blocks() -> list[str]:
    """Return the names that need no import path: ours, and those of installed packages."""
    return BLOCKS.known()

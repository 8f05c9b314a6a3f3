"""A network's name, taken apart once: `NETWORK[/START][+BLOCK[@WHERE][@BLOCK_START]]`.

- NETWORK: one of `towernet models`, `timm:` and a name of timm's, an import path of one's own as
  `my_package.nets:MyNet`, or the name under which an installed package offers a network.
- START, after the last slash: what the weights begin from, one of `STARTS`. A slash before another
  word belongs to the network: `timm:hf-hub:a/b`. No start is offered yet.
- BLOCK: a block of attention, by its name or import path; `none` for no attention.
- WHERE: `stages`, `last-of-stage`, or modules as `layer3.*.bn2`; before each residual addition
  where nothing is said.
- BLOCK_START: `paper`, as the block's authors start it (where nothing is said), or `identity`,
  blended in from nothing.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from towernet.errors import TRUSTED_BLOCKS, TRUSTED_NETWORKS, ConfigError

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

BlockStart = Literal["paper", "identity"]

STARTS = ("frozen", "finetuned")
NONE = "none"
TIMM_PREFIX = "timm:"
# Made with this program; their attention has places of its own, and is shuffle attention there.
OURS = ("towernet", "towernet_patch")
OWN_BLOCK = "shuffle"
_BLOCK_STARTS: tuple[BlockStart, ...] = ("paper", "identity")
USUAL_PLACE = "blocks"
_LONGEST_FOLDER = 80


@dataclass(frozen=True)
class _Parts:
    base: str
    start: str | None = None
    block: str | None = None
    where: str | None = None
    block_start: BlockStart = "paper"


class NetworkName(str):
    """What a network is called; the whole name is the string itself.

    Args:
        text: The name.

    Raises:
        ConfigError: something in it is empty, is said twice, or is not offered.

    Example:
        >>> name = NetworkName("resnet18+se@stages")
        >>> name.base, name.block, name.where, name.block_start
        ('resnet18', 'se', 'stages', 'paper')
    """

    __slots__ = ("_parts",)
    _parts: _Parts

    def __new__(cls, text: str) -> NetworkName:
        """Take the name apart, unless that was done."""
        if isinstance(text, NetworkName):
            return text
        name = super().__new__(cls, text)
        object.__setattr__(name, "_parts", _parse(text))
        if name.start is not None:
            raise ConfigError(
                f"'{text}' asks for a pre-trained start, and no network has one yet; leave out"
                f" /{name.start}"
            )
        return name

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse: a name is what it is."""
        raise AttributeError(f"a NetworkName is frozen; make another one instead of setting {name}")

    def __reduce__(self) -> tuple[type[NetworkName], tuple[str]]:
        """Make it again from its text, for pickles and copies."""
        return NetworkName, (str(self),)

    @property
    def base(self) -> str:
        """The network, without its start and its attention."""
        return self._parts.base

    @property
    def start(self) -> str | None:
        """What its weights begin from, one of `STARTS`; None: from scratch."""
        return self._parts.start

    @property
    def block(self) -> str | None:
        """Its block of attention, "none", or None where nothing is said of attention."""
        return self._parts.block

    @property
    def where(self) -> str | None:
        """Where the block goes, as `attach` takes it; None: the usual place."""
        return self._parts.where

    @property
    def block_start(self) -> BlockStart:
        """How the block starts, as `attach` takes it."""
        return self._parts.block_start

    @property
    def is_ours(self) -> bool:
        """Whether the network was made with this program, and has places of its own for blocks."""
        return self.base in OURS

    @property
    def timm_name(self) -> str | None:
        """What timm calls the network; None where it is not timm's."""
        is_timms = self.base.startswith(TIMM_PREFIX)
        return self.base.removeprefix(TIMM_PREFIX) if is_timms else None

    @property
    def own_network(self) -> str | None:
        """The import path of a user's own network, None where it is none."""
        return self.base if ":" in self.base and self.timm_name is None else None

    @property
    def own_block(self) -> str | None:
        """The import path of a user's own block, None where there is none."""
        return self.block if self.block is not None and ":" in self.block else None

    @property
    def own_code(self) -> dict[str, str]:
        """The import paths in it, each by the variable in which a user lets a record have it."""
        paths = {TRUSTED_NETWORKS: self.own_network, TRUSTED_BLOCKS: self.own_block}
        return {variable: path for variable, path in paths.items() if path is not None}

    def with_block(self, block: str) -> NetworkName:
        """Return the shortest name of this network with another block.

        Args:
            block: A block, and where it goes and how it starts as a name has it, or "none".

        Example:
            >>> NetworkName("resnet18").with_block("se@paper")
            'resnet18+se'
            >>> NetworkName("towernet+se").with_block("shuffle")
            'towernet'
        """
        return NetworkName(f"{self._before_block()}+{block}").canonical()

    def canonical(self) -> NetworkName:
        """Return the name without what it need not say.

        Example:
            >>> NetworkName("resnet18+se@paper@blocks").canonical()
            'resnet18+se'
        """
        if self.block is None:
            return self
        where = None if self.where == USUAL_PLACE and not self.is_ours else self.where
        start = None if self.block_start == "paper" else self.block_start
        options = [option for option in (where, start) if option is not None]
        if not options and self.block == (OWN_BLOCK if self.is_ours else NONE):
            return NetworkName(self._before_block())
        return NetworkName("@".join([f"{self._before_block()}+{self.block}", *options]))

    @property
    def folder_name(self) -> str:
        """The name as a folder can have it; two names never share one, on any file system.

        Example:
            >>> NetworkName("resnet18+se").folder_name
            'resnet18+se'
        """
        plain = re.sub(r"[^\w.+@-]", "_", self, flags=re.ASCII)[:_LONGEST_FOLDER].rstrip(".")
        if plain == self == self.lower():
            return plain
        return f"{plain}-{hashlib.sha256(self.encode(errors='surrogateescape')).hexdigest()[:8]}"

    def _before_block(self) -> str:
        return self.base if self.start is None else f"{self.base}/{self.start}"

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Let a model hold one: checked when made, written as the string it is."""
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(
            cls, handler(str), serialization=core_schema.plain_serializer_function_ser_schema(str)
        )


def block_and_options(text: str) -> list[str]:
    """Return a block's name, and behind it where it goes and how it starts, where that is said.

    Example:
        >>> block_and_options("se@stages")
        ['se', 'stages']
    """
    return text.split("@")


def _parse(text: str) -> _Parts:
    network, plus, rest = text.partition("+")
    bare, at, where = network.partition("@")
    if at:
        raise ConfigError(
            f"'{text}' names a place and no block to put there; give the block before it, as in"
            f" {bare or 'resnet18'}+se@{where or 'stages'}"
        )
    base, start = network, None
    before, slash, last = network.rpartition("/")
    if slash and last in STARTS:
        base, start = before, last
    if not plus:
        return _Parts(base, start)
    block, *options = block_and_options(rest)
    starts = [option for option in _BLOCK_STARTS for each in options if each == option]
    wheres = [option for option in options if option not in _BLOCK_STARTS]
    if not base or not block or "" in options or len(starts) > 1 or len(wheres) > 1:
        raise ConfigError(
            f"'{text}' names no network with attention; give NETWORK+BLOCK, and where and how it"
            " starts as in resnet18+se@stages@identity"
        )
    if block == NONE and options:
        raise ConfigError(f"'{text}' says where nothing goes; give {network}+none")
    return _Parts(
        base, start, block, wheres[0] if wheres else None, starts[0] if starts else "paper"
    )

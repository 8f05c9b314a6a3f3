"""A network's name, parsed: `NETWORK[/START][+BLOCK[@WHERE][@BLOCK_START]]`.

- NETWORK: one of `towernet models`, `timm:` and a name of timm's, the import path of a custom
  network (`my_package.nets:MyNet`), or the entry point of an installed package.
- START, after the last slash: the pre-trained weights to start from, one of `STARTS`. A slash
  before another word belongs to the network: `timm:hf-hub:a/b`. `frozen`: only a new last layer
  learns. `finetuned`: all layers go on learning. Default: from scratch.
- BLOCK: an attention block, by its name or import path; `none` for no attention.
- WHERE: `stages`, `last-of-stage`, or modules such as `layer3.*.bn2`; default: before each
  residual addition.
- BLOCK_START: `paper`, as the block's authors initialise it, or `identity`, blended in from 0.
  Default: paper; in a network whose weights have no attention, identity, so that they keep their
  effect.
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

SCRATCH = "scratch"
STARTS = ("frozen", "finetuned")
NONE = "none"
TIMM_PREFIX = "timm:"
# Built-in networks; they define where their attention goes, and it is shuffle attention by default.
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
    """The name of a network; the string itself is the whole name.

    Args:
        text: The name.

    Raises:
        ConfigError: a part of it is empty, is given twice, or is not available.

    Example:
        >>> name = NetworkName("resnet18+se@stages")
        >>> name.base, name.block, name.where, name.block_start
        ('resnet18', 'se', 'stages', 'paper')
    """

    __slots__ = ("_parts",)
    _parts: _Parts

    def __new__(cls, text: str) -> NetworkName:
        """Parse the name, unless it is parsed already."""
        if isinstance(text, NetworkName):
            return text
        name = super().__new__(cls, text)
        object.__setattr__(name, "_parts", _parse(text))
        if name.start == "frozen" and name.block not in (None, NONE):
            raise ConfigError(
                f"'{text}' would not train its attention, since in a frozen network only the last"
                f" layer learns; write {name.base}/finetuned+{name.block}"
            )
        return name

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse: a name is immutable."""
        raise AttributeError(f"a NetworkName is frozen; create a new one instead of setting {name}")

    def __reduce__(self) -> tuple[type[NetworkName], tuple[str]]:
        """Recreate it from its text, for pickle and copy."""
        return NetworkName, (str(self),)

    @property
    def base(self) -> str:
        """The network, without its start and its attention."""
        return self._parts.base

    @property
    def start(self) -> str | None:
        """The pre-trained weights it starts from, one of `STARTS`; None: from scratch."""
        return self._parts.start

    @property
    def block(self) -> str | None:
        """Its attention block, "none", or None if the name does not mention attention."""
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
        """Whether the network is built in, and defines its own places for blocks."""
        return self.base in OURS

    @property
    def timm_name(self) -> str | None:
        """Its name in timm; None if it is not timm's."""
        is_timms = self.base.startswith(TIMM_PREFIX)
        return self.base.removeprefix(TIMM_PREFIX) if is_timms else None

    @property
    def own_network(self) -> str | None:
        """The import path of a custom network, else None."""
        return self.base if ":" in self.base and self.timm_name is None else None

    @property
    def own_block(self) -> str | None:
        """The import path of a custom block, else None."""
        return self.block if self.block is not None and ":" in self.block else None

    @property
    def own_code(self) -> dict[str, str]:
        """Its import paths, each by the environment variable in which a user can allow it."""
        paths = {TRUSTED_NETWORKS: self.own_network, TRUSTED_BLOCKS: self.own_block}
        return {variable: path for variable, path in paths.items() if path is not None}

    def with_block(self, block: str) -> NetworkName:
        """Return the shortest name of this network with another block.

        Args:
            block: A block with an optional place and start, as in a name, or "none".

        Example:
            >>> NetworkName("resnet18").with_block("se@paper")
            'resnet18+se'
            >>> NetworkName("towernet+se").with_block("shuffle")
            'towernet'
        """
        return NetworkName(f"{self._before_block()}+{block}").canonical()

    def without_block(self) -> NetworkName:
        """Return the network with its start, without mentioning attention."""
        return NetworkName(self._before_block())

    def with_start(self, start: str) -> NetworkName:
        """Return the name of this network with another start: one of `STARTS`, or "scratch".

        Example:
            >>> NetworkName("resnet18+se").with_start("finetuned")
            'resnet18/finetuned+se'
        """
        network = self.base if start == SCRATCH else f"{self.base}/{start}"
        return NetworkName(network + self[len(self._before_block()) :])

    def canonical(self) -> NetworkName:
        """Return the name without the parts that are the default.

        Example:
            >>> NetworkName("resnet18+se@paper@blocks").canonical()
            'resnet18+se'
        """
        if self.block is None:
            return self
        where = None if self.where == USUAL_PLACE and not self.is_ours else self.where
        usual = _usual_block_start(self.base, self.start)
        start = None if self.block_start == usual else self.block_start
        options = [option for option in (where, start) if option is not None]
        if not options and self.block == (OWN_BLOCK if self.is_ours else NONE):
            return NetworkName(self._before_block())
        return NetworkName("@".join([f"{self._before_block()}+{self.block}", *options]))

    @property
    def folder_name(self) -> str:
        """The name as a folder name; two names never share one, on any file system.

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
        """Let pydantic models have such a field: checked when created, written as a string."""
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(
            cls, handler(str), serialization=core_schema.plain_serializer_function_ser_schema(str)
        )


def block_and_options(text: str) -> list[str]:
    """Return a block's name, followed by its place and start, where given.

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
            f"'{text}' has a place but no block; write NETWORK+BLOCK@PLACE, as in"
            f" {bare or 'resnet18'}+se@{where or 'stages'}"
        )
    base, start = network, None
    before, slash, last = network.rpartition("/")
    if slash and last in STARTS:
        base, start = before, last
        before, slash, last = base.rpartition("/")
        if slash and last in STARTS:
            raise ConfigError(f"'{text}' has two starts; write {base} or {before}/{start}")
    if not base and not plus:
        example = "resnet18" if start is None else f"resnet18/{start}"
        raise ConfigError(f"'{text}' names no network; give one, as in {example}")
    if not plus:
        return _Parts(base, start)
    block, *options = block_and_options(rest)
    starts = [option for option in _BLOCK_STARTS for each in options if each == option]
    wheres = [option for option in options if option not in _BLOCK_STARTS]
    if not base or not block or "" in options or len(starts) > 1 or len(wheres) > 1:
        raise ConfigError(
            f"'{text}' is not a network with attention; give NETWORK+BLOCK, optionally with the"
            " block's place and start, as in resnet18+se@stages@identity"
        )
    if block == NONE and options:
        raise ConfigError(f"'{text}': 'none' takes no options; write {network}+none")
    block_start = starts[0] if starts else _usual_block_start(base, start)
    return _Parts(base, start, block, wheres[0] if wheres else None, block_start)


def _usual_block_start(base: str, start: str | None) -> BlockStart:
    # The weights of a built-in network include its attention.
    return "paper" if start is None or base in OURS else "identity"

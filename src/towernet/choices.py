"""What a user says, checked, and made into what the program works with."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Container, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from towernet.errors import ConfigError
from towernet.names import NONE, NetworkName

if TYPE_CHECKING:
    from towernet.config import Recipe
    from towernet.data.archive import Limits
    from towernet.data.source import Source

DEFAULT_MODELS = "towernet,towernet_patch,resnet50,vgg19,mobilenet_v2"


def num_workers(workers: int | None) -> int:
    """Return how many decoding processes to use.

    Raises:
        ConfigError: fewer than one was asked for.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers is {workers}; give at least 1")
    if workers is None and hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return workers or os.cpu_count() or 1


def require_margin(equal_within: float) -> None:
    """Refuse a margin within which all or nothing would be equal, in percentage points.

    Raises:
        ConfigError: it is such a one.
    """
    if not 0 < equal_within < 100:
        raise ConfigError(
            f"--equal-within is {equal_within:g}; give more than 0 and less than 100 points"
        )


def archive_limits(gb: float | None, entries: int | None) -> Limits:
    """Return what an archive may unpack to."""
    from towernet.data.archive import Limits

    return Limits(max_bytes=None if gb is None else int(gb * 1e9), max_entries=entries)


def model_names(models: str | Sequence[str]) -> tuple[NetworkName, ...]:
    """Return the networks that `--models` names, each by its shortest name.

    Args:
        models: Their names, comma-separated where it is one text.

    Raises:
        ConfigError: a name is empty or said twice, or names no network with attention.
    """
    given = _each(models)
    if not all(given):
        raise ConfigError(f"--models is '{models}'; give names, comma-separated")
    names = tuple(NetworkName(name).canonical() for name in given)
    trust(names)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"--models names {twice[0]} twice; use --runs to repeat networks")
    return names


def _each(words: str | Sequence[str]) -> tuple[str, ...]:
    """Return names that are given as a list, or as one text with commas."""
    words = words.split(",") if isinstance(words, str) else words
    if not isinstance(words, Sequence):
        raise ConfigError(f"{words!r} is no list of names; give one, or names with commas")
    if others := [word for word in words if not isinstance(word, str)]:
        raise ConfigError(
            f"{others[0]!r} is no name; name what is your own by its import path, such as"
            " 'my_nets:MyNet'"
        )
    return tuple(word.strip() for word in words)


def with_attention(
    names: tuple[NetworkName, ...], attention: str | Sequence[str] | None
) -> tuple[tuple[NetworkName, ...], tuple[str, ...]]:
    """Return the networks, each without attention and with every block, and the blocks' names.

    Raises:
        ConfigError: a block is empty or said twice, or a network's name says its own.
    """
    if attention is None:
        return names, ()
    blocks = _each(attention)
    if not all(blocks):
        raise ConfigError(f"--attention is '{attention}'; give names of blocks, comma-separated")
    if twice := sorted({block for block in blocks if blocks.count(block) > 1}):
        raise ConfigError(f"--attention names {twice[0]} twice; name each block once")
    for name in names:
        if name.block is not None:
            raise ConfigError(
                f"--models names {name} and --attention gives each network its blocks; leave one"
                " of the two out"
            )
    if set(blocks) == {NONE}:
        raise ConfigError("--attention names no block; give one that each network is tried with")
    blocks = (NONE, *(block for block in blocks if block != NONE))
    variants = tuple(name.with_block(block) for name in names for block in blocks)
    trust(variants)
    if twice := sorted({name for name in variants if variants.count(name) > 1}):
        raise ConfigError(f"--attention names {twice[0]} in two ways; name each block once")
    return variants, blocks


def require_blocks(names: Iterable[NetworkName]) -> None:
    """Hold the attention blocks that networks' names ask for, and are not ours, to their promises.

    Raises:
        UnknownNameError: no block has the name.
        ContractError: one does not keep a promise.
    """
    names = tuple(names)
    trust(names)
    blocks = {name.block for name in names} - {None, NONE}
    if blocks:
        from towernet.attention.base import ATTENTION
        from towernet.attention.find import attention_block
        from towernet.testing import check_block

        for block in sorted(filter(None, blocks)):
            found = attention_block(block)
            if block not in ATTENTION:  # ours are held to it by the tests
                check_block(found)


def require_networks(names: Iterable[NetworkName], size_px: int) -> None:
    """Hold the networks that are neither ours, torchvision's nor timm's to their promises.

    Raises:
        UnknownNameError: no network has the name.
        ConfigError: one does not take images of this size.
        ContractError: one does not keep a promise.
    """
    from towernet.models.catalogue import require_size
    from towernet.models.own import NETWORKS, is_own

    own = sorted({name.base for name in names if is_own(name)})
    if own:
        from towernet.testing import check_network

        for name in own:
            require_size(name, size_px)
            check_network(NETWORKS.find(name), size_px=size_px)


def trust(names: Iterable[NetworkName]) -> None:
    """Let networks and blocks that the user names be imported, also from the folder they work in.

    Not where a run's record names them: that may come from somebody else, with a file beside it.
    """
    own = [name for name in names if name.own_code]
    if own:
        from towernet.models import own as own_models

        own_models.trust(own)
        look_here()


def trust_block(block: str) -> None:
    """Let a block that the user names be imported, as `trust`."""
    from towernet.attention.find import BLOCKS
    from towernet.plugins import is_import_path

    BLOCKS.trust(block)
    if is_import_path(block):
        look_here()


def look_here() -> None:
    """Let modules be found in the folder the command is said in, last: they hide no package."""
    if not {"", str(Path.cwd())} & set(sys.path):
        sys.path.append(str(Path.cwd()))


def resolve_recipe(
    name: str,
    source: Source,
    *,
    epochs: int | None,
    minutes: float | None,
    size: int | None,
    batch_size: int | None,
    no_flip: bool,
) -> Recipe:
    """Read the recipe and put the command line's choices, and the data's own, over it."""
    from towernet.config import load_recipe, override

    return override(
        load_recipe(name),
        data={"size_px": size},
        augment={"flip": False if no_flip or source.no_flip else None},
        train={"epochs": epochs, "minutes": minutes, "batch_size": batch_size},
    )


def out_folder(out: str | Path | None, data: str | Path, *parts: str) -> Path:
    """Return the folder a result goes to: the one named, or the same for the same words.

    Raises:
        ConfigError: it lies among the images, and would be read as one of them next time.
    """
    names = [part.replace(":", "_").replace("/", "_") for part in parts]
    folder = Path("runs") / "-".join(names) if out is None else Path(out)
    images = Path(data)
    if images.is_dir() and folder.resolve().is_relative_to(images.resolve()):
        raise ConfigError(f"the output {folder} would lie among the images; give --out elsewhere")
    return folder


def require_defaults(
    function: Callable[..., Any], given: Iterable[tuple[str, object]], *, but: Container[str]
) -> None:
    """Refuse options that would change nothing, since the run knows its own.

    Args:
        function: Whose signature holds the defaults.
        given: What it was called with.
        but: The options that have an effect.

    Raises:
        ConfigError: naming the first one.
    """
    parameters = inspect.signature(function).parameters
    for name, value in given:
        if name not in but and value != parameters[name].default:
            option = name.replace("_", "-")
            raise ConfigError(f"--{option} has no effect with --resume; leave it out")

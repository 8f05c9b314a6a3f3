"""Which networks a comparison has, and which pairs of them it judges, from the user's options."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from towernet.choices import require_kind, trust
from towernet.errors import ConfigError
from towernet.names import NONE, SCRATCH, STARTS, NetworkName
from towernet.registry import nearest, unknown_name
from towernet.words import listed


def model_names(models: str | Sequence[str]) -> tuple[NetworkName, ...]:
    """Return the networks that `--models` names, each by its shortest name.

    Args:
        models: A sequence of names, or one string with commas.

    Raises:
        ConfigError: a name is empty, malformed or given twice.
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
    """Return names given as a list, or as one string with commas."""
    words = words.split(",") if isinstance(words, str) else words
    if not isinstance(words, Sequence):
        raise ConfigError(f"{words!r} is not a list of names; give one, or a string with commas")
    if others := [word for word in words if not isinstance(word, str)]:
        raise ConfigError(
            f"{others[0]!r} is not a name; give custom code by its import path, such as"
            " 'my_nets:MyNet'"
        )
    return tuple(word.strip() for word in words)


def with_attention(
    names: tuple[NetworkName, ...], attention: str | Sequence[str] | None
) -> tuple[tuple[NetworkName, ...], tuple[str, ...]]:
    """Return each network without attention and with each block, and the blocks' names.

    Raises:
        ConfigError: a block is empty or given twice, or a network's name includes a block.
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
                f"--models includes a block in {name}, and --attention adds blocks to each"
                " network; leave out one of the two"
            )
    if set(blocks) == {NONE}:
        raise ConfigError("--attention names no block; give at least one")
    blocks = (NONE, *(block for block in blocks if block != NONE))
    variants = tuple(name.with_block(block) for name in names for block in blocks)
    trust(variants)
    if twice := sorted({name for name in variants if variants.count(name) > 1}):
        raise ConfigError(f"--attention names {twice[0]} in two ways; name each block once")
    return variants, blocks


def with_starts(
    names: tuple[NetworkName, ...],
    starts: str | Sequence[str] | None,
    has_weights: Callable[[str], bool],
) -> tuple[tuple[NetworkName, ...], str | None]:
    """Return each network that has pre-trained weights with each start, and a sentence on the rest.

    Args:
        names: Networks without a start.
        starts: "scratch", "frozen", "finetuned", or several of them; None: as the names are.
        has_weights: Whether there are weights for a network, given by its `NetworkName.base`.

    Returns:
        The networks, and a sentence that names those without weights, which stay as they are; None
        if all have some.

    Raises:
        ConfigError: no start besides scratch is given, one is given twice, a network's name
            includes a start, or no network has weights.
        UnknownNameError: there is no such start.
    """
    if starts is None:
        return names, None
    given = _each(starts)
    for start in given:
        if start not in (SCRATCH, *STARTS):
            raise unknown_name("start", start, (SCRATCH, *STARTS))
    if twice := sorted({start for start in given if given.count(start) > 1}):
        raise ConfigError(f"--starts names {twice[0]} twice; name each start once")
    if not set(given).intersection(STARTS):
        raise ConfigError(f"--starts is '{SCRATCH}'; add frozen or finetuned, or leave it out")
    for name in names:
        if name.start is not None:
            raise ConfigError(
                f"--models includes a start in {name}, and --starts adds starts to each network;"
                " leave out one of the two"
            )
    able = {name for name in names if has_weights(name.base)}
    if not able:
        raise ConfigError(
            f"--starts needs pre-trained weights, and there are none for {listed(names, 'or')};"
            " give --weights NETWORK=FILE, or see `towernet weights`"
        )
    found = tuple(
        name.with_start(start).canonical()
        for name in names
        for start in (given if name in able else (SCRATCH,))
    )
    without = [name for name in names if name not in able]
    if not without:
        return found, None
    has, are = ("has", "is") if len(without) == 1 else ("have", "are")
    return found, (
        f"--starts: {listed(without)} {has} no pre-trained weights here and {are} compared from"
        " scratch only"
    )


def weights_given(weights: str | Sequence[str] | Mapping[str, object] | None) -> tuple[str, ...]:
    """Return the items of `--weights`, each NETWORK=FILE with the whole path.

    Args:
        weights: One item, several, or a mapping of networks to files.
    """
    if weights is None:
        return ()
    if isinstance(weights, Mapping):
        weights = [f"{network}={what}" for network, what in weights.items()]
    items = (weights,) if isinstance(weights, str) else tuple(weights)
    if others := [item for item in items if not isinstance(item, str)]:
        raise ConfigError(f"weights has {others[0]!r}; give text, such as 'mobilenet_v2=FILE'")
    return tuple(map(_with_whole_path, items))


def networks_of(weights: Sequence[str]) -> set[str]:
    """Return the networks that the items of `--weights` name."""
    return {item.partition("=")[0] for item in weights}


def _with_whole_path(item: str) -> str:
    network, equals, what = item.partition("=")
    # os.path.exists() is False for what is too long to be a path.
    return f"{network}={Path(what).absolute()}" if equals and os.path.exists(what) else item  # noqa: PTH110


def compared_with(
    against: str | None, names: tuple[NetworkName, ...], blocks: tuple[str, ...] = ()
) -> NetworkName | None:
    """Return the network of a comparison that the others are compared with, None for all pairs.

    Args:
        against: Its name, in any form.
        names: The networks of the comparison, each by its shortest name.
        blocks: Those of `--attention`, which has its own pairs.

    Raises:
        ConfigError: it is not one of several networks, or blocks are given too.
    """
    require_kind("against", against, "str | None")
    if against is None:
        return None
    if blocks:
        raise ConfigError(
            "--attention compares each network with itself, so --against has no effect; leave out"
            " one of the two"
        )
    name = NetworkName(against).canonical()
    if name not in names:
        near = nearest(name, names)
        hint = "" if near is None else f" (did you mean '{near}'?)"
        raise ConfigError(
            f"--against is '{against}'; give one of the networks compared: {', '.join(names)}{hint}"
        )
    if len(names) == 1:
        raise ConfigError(
            f"--against is '{against}', the only network; give --models another to compare with it"
        )
    return name


def shots_of(shots: str | int | Sequence[int] | None) -> tuple[int, ...]:
    """Return the numbers of training images of each class to train on, fewest first.

    Args:
        shots: A number, a sequence of them, or one string with commas; None: none.

    Raises:
        ConfigError: one is not a whole number above 0, or is given twice.
    """
    if shots is None:
        return ()
    given = shots.split(",") if isinstance(shots, str) else shots
    given = given if isinstance(given, Sequence) else [given]
    wrong = [each for each in given if not re.fullmatch("0*[1-9][0-9]{0,8}", str(each).strip())]
    if wrong or not given:
        first = str(wrong[0])[:20] if wrong else ""
        raise ConfigError(
            f"--shots has '{first}'; give numbers of images of each class, such as 1,3,5,10,20"
        )
    numbers = sorted(int(each) for each in given)
    if twice := [number for number in numbers if numbers.count(number) > 1]:
        raise ConfigError(f"--shots names {twice[0]} twice; name each number once")
    return tuple(numbers)

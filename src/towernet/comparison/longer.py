"""Why a run cannot be trained longer than planned, and the command for a new one."""

from __future__ import annotations

import shlex
from pathlib import Path

from towernet.config import Recipe
from towernet.errors import ConfigError
from towernet.words import shown


def refuse_another_length(folder: Path, before: Recipe, now: Recipe, command: str) -> None:
    """Refuse to continue with another number of epochs or minutes.

    Args:
        folder: Of the run or comparison.
        before: The recipe it was started with.
        now: The recipe that is asked for.
        command: What was run, or what started it.

    Raises:
        ConfigError: the lengths differ; with the command for a new one.
    """
    lengths = [_length(recipe) for recipe in (before, now)]
    if lengths[0] == lengths[1]:
        return
    option, value = lengths[1]
    is_finished = (folder / "results.json").exists()
    state = "is finished" if is_finished else "was started"
    raise ConfigError(
        f"{folder} {state} with --{lengths[0][0]} {lengths[0][1]:g}, and its length cannot change,"
        " since the learning rate falls to zero over exactly that length; train a new one with:"
        f" {_new_command(command, option, f'{value:g}', folder)}"
    )


def _length(recipe: Recipe) -> tuple[str, float]:
    if recipe.train.epochs is not None:
        return "epochs", float(recipe.train.epochs)
    return "minutes", recipe.train.minutes or 0.0


def _new_command(command: str, option: str, value: str, folder: Path) -> str:
    """Return a command with another length and another folder for the results."""
    if not f"{command} ".startswith("towernet "):  # a call from Python
        return f"{command}, with {option}={value} and another `out`"
    words = shlex.split(command)
    for name in ("epochs", "minutes", "resume", "out"):
        words = _without(words, f"--{name}")
    number = 2
    while (new := folder.with_name(f"{folder.name}-{number}")).exists():
        number += 1
    return shlex.join([*words, f"--{option}", value, "--out", shown(str(new))])


def _without(words: list[str], option: str) -> list[str]:
    """Return words without an option and its value."""
    kept, is_value = [], False
    for word in words:
        if not (is_value or word == option or word.startswith(f"{option}=")):
            kept.append(word)
        is_value = word == option
    return kept

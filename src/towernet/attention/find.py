"""Attention blocks by name: ours, any that can be imported, and those of installed packages.

A package offers its blocks under the names of its entry points:

    [project.entry-points."towernet.attention"]
    mine = "my_package.blocks:MyAttention"
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import pkgutil
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from towernet.attention.base import ATTENTION, AttentionBlock
from towernet.attention.fit import class_problem
from towernet.errors import TRUSTED, ConfigError, UntrustedBlockError, in_one_line
from towernet.registry import nearest, unknown_name

GROUP = "towernet.attention"
_NEAR = 0.75  # how like another a module's name must be to be proposed
_said: set[str] = set()


def trust(name: str) -> None:
    """Let a block be imported that the user names: a record that names it may then be followed."""
    if ":" in name:
        _said.add(name.partition(":")[0])


def is_trusted(name: str) -> bool:
    """Whether a record that names a block may be followed: no code runs that nobody here named."""
    module, is_path, _ = name.partition(":")
    return not is_path or module in {*sys.modules, *_said, *_trusted()}


def attention_block(name: str) -> type[AttentionBlock]:
    """Return the attention block that a name stands for; ours come before those of others.

    Args:
        name: A registered name (`se`), the name of an entry point of an installed package, or an
            import path (`my_package.blocks:MyAttention`).

    Raises:
        UnknownNameError: Nothing has the name; the message suggests the nearest.
        ConfigError: What the name stands for cannot be imported, or is no attention block.
        UntrustedBlockError: It is an import path that no user said (`trust`, or the variable
            TOWERNET_BLOCKS), of a module that is not imported yet.

    Example:
        >>> attention_block("towernet.attention.simam:SimAM") is attention_block("simam")
        True
    """
    if name in ATTENTION:
        return ATTENTION[name]
    if ":" in name:
        if not is_trusted(name):
            raise UntrustedBlockError(name)
        return _imported(name, f"attention block '{name}'")
    offered = [entry for entry in entry_points(group=GROUP) if entry.name == name]
    if not offered:
        raise unknown_name("attention block", name, known_blocks())
    if len({entry.value for entry in offered}) > 1:
        raise ConfigError(
            f"attention block '{name}' is offered by {' and '.join(map(_package, offered))};"
            f" give an import path, {' or '.join(sorted({entry.value for entry in offered}))}"
        )
    return _imported(
        offered[0].value, f"attention block '{name}' of the package {_package(offered[0])}"
    )


def code_of(block: type[AttentionBlock]) -> str:
    """Return the hex sha-256 of the file a block is written in, '' where it has none to read."""
    path = inspect.getsourcefile(block)
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else ""
    except OSError:
        return ""


def known_blocks() -> list[str]:
    """Return the names that need no import path: ours, and those of installed packages."""
    return sorted({*ATTENTION, *(entry.name for entry in entry_points(group=GROUP))})


def _trusted() -> list[str]:
    """Return the modules that the environment names, by themselves or before a block's name."""
    said = os.environ.get(TRUSTED, "").split(",")
    return [name.partition(":")[0].strip() for name in said]


def _imported(path: str, what: str) -> type[AttentionBlock]:
    """Import `module:attribute`; `what` is its name in the messages."""
    module_name, _, attribute = path.partition(":")
    if not _is_import_path(path) or module_name.endswith(".py"):
        likely = f"{module_name.removesuffix('.py').replace('/', '.')}:{attribute}"
        example = likely if _is_import_path(likely) else "my_package.blocks:MyAttention"
        raise ConfigError(f"{what}: '{path}' is not an import path; write it as {example}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise _broken(what, module_name, error) from error
        near = _near_module(error.name)
        hint = "; install" if near is None else f". Did you mean '{near}'? Else install"
        raise ConfigError(
            f"{what}: there is no module {error.name}{hint} its package, or add the folder it"
            " lies in to PYTHONPATH"
        ) from error
    except Exception as error:
        raise _broken(what, module_name, error) from error

    found = getattr(module, attribute, None)
    if found is None:
        blocks = [key for key, value in vars(module).items() if not class_problem(value)]
        raise unknown_name(f"attention block of {module_name}", attribute, blocks)
    if problem := class_problem(found):
        raise ConfigError(f"{what}: {path} {problem}")
    block: type[AttentionBlock] = found
    return block


def _is_import_path(path: str) -> bool:
    module_name, _, attribute = path.partition(":")
    return all(part.isidentifier() for part in (*module_name.split("."), attribute))


def _near_module(missing: str) -> str | None:
    """Return the module that a missing one may be meant for; it lies in the same package."""
    package, dot, name = missing.rpartition(".")
    folders = getattr(sys.modules.get(package), "__path__", []) if dot else None
    near = nearest(name, [found.name for found in pkgutil.iter_modules(folders)], cutoff=_NEAR)
    return None if near is None else f"{package}{dot}{near}"


def _broken(what: str, module_name: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"{what}: importing {module_name} failed with {in_one_line(error)}; try"
        f" python -c 'import {module_name}'"
    )


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "?"

"""Other people's code by name: by its import path, or as an installed package offers it.

An import path is `my_package.nets:MyNet`. A package offers what it has under the names of its entry
points:

    [project.entry-points."towernet.models"]
    small = "my_package.nets:MyNet"

To import a module is to run it. A name that the user says is followed (`trust`, or an environment
variable); one that only a record holds, which may come from somebody else, is not.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Generic, TypeVar, cast

from towernet.errors import ConfigError, UntrustedCodeError, in_one_line
from towernet.registry import nearest, unknown_name

T = TypeVar("T")
_NAME = re.compile(r"[^\s+@:,]+")
_NEAR = 0.75  # how like another a module's name must be to be proposed


class Plugins(Generic[T]):
    """All things of one kind that are not ours.

    Args:
        kind: What one is called in a message.
        group: Of the entry points under which packages offer them.
        variable: Names, in the environment, those that a record may be followed to: import paths
            or modules, comma-separated.
        example: An import path, for a message.
        problem: Says why something is none of them, with what to do; '' where it is one.
        ours: The names that come before those of others.
    """

    def __init__(
        self,
        kind: str,
        *,
        group: str,
        variable: str,
        example: str,
        problem: Callable[[object], str],
        ours: Callable[[], Iterable[str]],
    ) -> None:
        self.kind, self.group, self.variable, self.example = kind, group, variable, example
        self._problem, self._ours = problem, ours
        self._trusted: set[str] = set()
        # By identity, so with what it is of.
        self._code: dict[tuple[str, int], tuple[object, str]] = {}

    def known(self) -> list[str]:
        """Return the names that need no import path: ours, and those of installed packages."""
        return sorted({*self._ours(), *self.offered()})

    def offered(self) -> list[str]:
        """Return the names under which installed packages offer some, but for those that are ours.

        Nothing is imported. A name with a sign that means something in a network's is left out.
        """
        offered = {entry.name for entry in entry_points(group=self.group)}
        return sorted(name for name in offered.difference(self._ours()) if _NAME.fullmatch(name))

    def trust(self, name: str) -> None:
        """Let the module of an import path be imported, which the user names."""
        if is_import_path(name):
            self._trusted.add(_split(name)[0])

    def is_trusted(self, name: str) -> bool:
        """Whether a record that has this name may be followed: nothing runs that nobody here named.

        A class in a module that is imported already may be. A function there may not: it would be
        called, and that the module was imported says nothing about what it does.
        """
        if not is_import_path(name):
            return True
        module_name, attribute = _split(name)
        named = os.environ.get(self.variable, "").split(",")
        if module_name in self._trusted | {_split(path)[0].strip() for path in named}:
            return True
        if module_name not in sys.modules:
            return False
        found = getattr(sys.modules.get(module_name), attribute, None)
        return found is None or isinstance(found, type)

    def find(self, name: str) -> T:
        """Return what a name stands for; the caller has seen that it is none of ours.

        Args:
            name: An import path, or the name of an entry point of an installed package.

        Raises:
            UnknownNameError: Nothing has the name; the message suggests the nearest.
            ConfigError: What it stands for cannot be imported, or is of another kind.
            UntrustedCodeError: It is an import path that no user named.
        """
        return self._found(name)[0]

    def code_of(self, name: str) -> str:
        """Return the hex sha-256 of the source that a name stands for, '' where none can be read.

        It is that of the file in which it is written, and of the one that its name names where
        that is another. Read when it is first found: what is imported stays as it is while this
        process goes on, and the files may not.

        Raises:
            TowernetError: as `find`.
        """
        return self._found(name)[1]

    def _found(self, name: str) -> tuple[T, str]:
        """Return what a name stands for, and the hash of its source."""
        if is_import_path(name):
            if not self.is_trusted(name):
                raise UntrustedCodeError(self.kind, name, module_of(name), self.variable)
            return self._imported(name, f"{self.kind} '{name}'")
        offered = [entry for entry in entry_points(group=self.group) if entry.name == name]
        if not offered:
            raise unknown_name(self.kind, name, self.known())
        if len({entry.value for entry in offered}) > 1:
            raise ConfigError(
                f"{self.kind} '{name}' is offered by {' and '.join(map(_package, offered))};"
                f" give an import path, {' or '.join(sorted({entry.value for entry in offered}))}"
            )
        return self._imported(
            offered[0].value, f"{self.kind} '{name}' of the package {_package(offered[0])}"
        )

    def _imported(self, path: str, what: str) -> tuple[T, str]:
        """Import `module:attribute` and hash it; `what` is its name in the messages."""
        module_name, attribute = _split(path)
        if not _is_well_formed(path) or module_name.endswith(".py"):
            likely = f"{module_name.removesuffix('.py').replace('/', '.')}:{attribute}"
            example = likely if _is_well_formed(likely) else self.example
            raise ConfigError(f"{what}: '{path}' is not an import path; write it as {example}")
        module = _module(module_name, what)
        found = getattr(module, attribute, None)
        if found is None:
            there = [key for key, value in vars(module).items() if self._is_one(value, module)]
            raise unknown_name(f"{self.kind} of {module_name}", attribute, there)
        if problem := self._problem(found):
            raise ConfigError(f"{what}: {path} {problem}")
        key = (module_name, id(found))
        if key not in self._code:
            self._code[key] = (found, _source_hash(found, module))
        return cast(T, found), self._code[key][1]

    def _is_one(self, value: object, module: ModuleType) -> bool:
        """Whether an attribute may be what was meant; of functions, those the module defines."""
        is_its_own = getattr(value, "__module__", None) == module.__name__
        return (isinstance(value, type) or is_its_own) and not self._problem(value)


def is_import_path(name: str) -> bool:
    """Whether a name is meant for an import path: no other kind of name has a colon.

    Example:
        >>> is_import_path("my_package.nets:MyNet"), is_import_path("resnet18")
        (True, False)
    """
    return ":" in name


def module_of(path: str) -> str:
    """Return the module of an import path."""
    return _split(path)[0]


def _source_hash(found: object, module: ModuleType) -> str:
    named = (_source_file(found), _source_file(module))
    try:
        hashes = [
            hashlib.sha256(Path(path).read_bytes()).hexdigest()
            for path in dict.fromkeys(filter(None, named))
        ]
    except OSError:
        return ""
    if len(hashes) < 2:
        return "".join(hashes)
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()


def _source_file(found: object) -> str | None:
    if isinstance(found, functools.partial):
        return _source_file(found.func)
    try:
        return inspect.getsourcefile(found)  # type: ignore[arg-type]
    except OSError:  # typed into an interpreter
        return None
    except TypeError:  # that, compiled, or an object that can be called
        return None if isinstance(found, type | ModuleType) else _source_file(type(found))


def _split(path: str) -> tuple[str, str]:
    module_name, _, attribute = path.partition(":")
    return module_name, attribute


def _is_well_formed(path: str) -> bool:
    module_name, attribute = _split(path)
    return all(part.isidentifier() for part in (*module_name.split("."), attribute))


def _module(name: str, what: str) -> ModuleType:
    """Import a module; `what` is what it is imported for.

    Raises:
        ConfigError: There is none, or it raises.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _broken(what, name, error) from error
        near = _near_module(error.name)
        hint = "; install" if near is None else f". Did you mean '{near}'? Else install"
        raise ConfigError(
            f"{what}: there is no module {error.name}{hint} its package, or add the folder it"
            " lies in to PYTHONPATH"
        ) from error
    except Exception as error:
        raise _broken(what, name, error) from error


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

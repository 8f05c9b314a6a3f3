"""Third-party code by name: its import path, or the entry point of an installed package.

An import path is `my_package.nets:MyNet`. A package offers networks as entry points:

    [project.entry-points."towernet.models"]
    small = "my_package.nets:MyNet"

Importing a module runs it. A name that the user gives is imported (`trust`, or an environment
variable); a name that only a record contains is not, since the record may come from someone else.
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

from towernet.errors import ConfigError, UntrustedCodeError, first_line_of
from towernet.registry import nearest, unknown_name

T = TypeVar("T")
_NAME = re.compile(r"[^\s+@:,]+")
_NEAR = 0.75  # how similar a module's name must be to be suggested


class Plugins(Generic[T]):
    """All third-party things of one kind, such as networks.

    Args:
        kind: The noun for one of them in messages.
        group: The group of entry points under which packages offer them.
        variable: The environment variable that lists the import paths or modules that may be
            imported when only a record names them, comma-separated.
        example: An import path, for messages.
        problem: Returns why an object is not one of them, with the remedy; '' if it is one.
        ours: Returns the built-in names, which take precedence over those of packages.
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
        # Keyed by identity, so the object itself is kept, too.
        self._code: dict[tuple[str, int], tuple[object, str]] = {}

    def known(self) -> list[str]:
        """Return the names that need no import path: built-in, and of installed packages."""
        return sorted({*self._ours(), *self.offered()})

    def offered(self) -> list[str]:
        """Return the names that installed packages offer, without built-in ones.

        Nothing is imported. Names with a character that has a meaning in a network's name are left
        out.
        """
        offered = {entry.name for entry in entry_points(group=self.group)}
        return sorted(name for name in offered.difference(self._ours()) if _NAME.fullmatch(name))

    def trust(self, name: str) -> None:
        """Allow importing the module of an import path that the user gave."""
        if is_import_path(name):
            self._trusted.add(_split(name)[0])

    def is_trusted(self, name: str) -> bool:
        """Whether a name in a record may be imported: only if the user has allowed its module.

        A class in a module that is already imported is trusted. A function there is not: it would
        be called, and may do anything.
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
        """Return the object with this name, which must not be a built-in name.

        Args:
            name: An import path, or the name of an entry point of an installed package.

        Raises:
            UnknownNameError: Nothing has the name; the message suggests the nearest one.
            ConfigError: It cannot be imported, or is of another kind.
            UntrustedCodeError: It is an import path that the user has not allowed.
        """
        return self._found(name)[0]

    def code_of(self, name: str) -> str:
        """Return the hex sha-256 of the source of the object with this name, '' if unreadable.

        It covers the file that defines the object, and that of the module in its import path where
        they differ. It is read when the object is first found: an imported module stays the same
        in this process, but its file may change.

        Raises:
            TowernetError: as `find`.
        """
        return self._found(name)[1]

    def _found(self, name: str) -> tuple[T, str]:
        """Return the object with this name, and the hash of its source."""
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
        """Import `module:attribute` and hash its source; `what` is its name in messages."""
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
        """Whether to suggest an attribute; functions only if the module defines them."""
        is_its_own = getattr(value, "__module__", None) == module.__name__
        return (isinstance(value, type) or is_its_own) and not self._problem(value)


def is_import_path(name: str) -> bool:
    """Whether a name is an import path: no other kind of name has a colon.

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
    except TypeError:  # compiled code, or a callable object
        return None if isinstance(found, type | ModuleType) else _source_file(type(found))


def _split(path: str) -> tuple[str, str]:
    module_name, _, attribute = path.partition(":")
    return module_name, attribute


def _is_well_formed(path: str) -> bool:
    module_name, attribute = _split(path)
    return all(part.isidentifier() for part in (*module_name.split("."), attribute))


def _module(name: str, what: str) -> ModuleType:
    """Import a module; `what` is the thing to find in it, for messages.

    Raises:
        ConfigError: There is no such module, or importing it fails.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _broken(what, name, error) from error
        near = _near_module(error.name)
        hint = "; install" if near is None else f". Did you mean '{near}'? Else install"
        raise ConfigError(
            f"{what}: there is no module {error.name}{hint} its package, or add its folder to"
            " PYTHONPATH"
        ) from error
    except Exception as error:
        raise _broken(what, name, error) from error


def _near_module(missing: str) -> str | None:
    """Return the module with the most similar name in the same package, if any."""
    package, dot, name = missing.rpartition(".")
    folders = getattr(sys.modules.get(package), "__path__", []) if dot else None
    near = nearest(name, [found.name for found in pkgutil.iter_modules(folders)], cutoff=_NEAR)
    return None if near is None else f"{package}{dot}{near}"


def _broken(what: str, module_name: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"{what}: importing {module_name} failed with {first_line_of(error)}; try"
        f" python -c 'import {module_name}'"
    )


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "?"

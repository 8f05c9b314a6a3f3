"""Names looked up with suggestions: networks, attention blocks, recipes, options."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from towernet.errors import UnknownNameError

T = TypeVar("T")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """Return the error for an unknown name, with the nearest known one."""
    known = sorted(known)
    near = nearest(name, known)
    hint = "" if near is None else f" Did you mean '{near}'?"
    shown = ", ".join(known[:12]) + (f" and {len(known) - 12} more" if len(known) > 12 else "")
    return UnknownNameError(f"no {kind} is called '{name}'.{hint} Known: {shown or 'none'}")


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the known name most similar to `name`, ignoring case; None if there is none.

    Example:
        >>> nearest("SE", ["eca", "se"]), nearest("loom", ["eca", "se"])
        ('se', None)
    """
    folded = {each.casefold(): each for each in known}
    near = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=cutoff)
    return folded[near[0]] if near else None


class Registry(Mapping[str, T], Generic[T]):
    """A read-only mapping from names to things, which are added with `register`.

    Example:
        >>> SHAPES = Registry[type]("shape")
        >>> @SHAPES.register("round")
        ... class Round: ...
        >>> "round" in SHAPES, len(SHAPES)
        (True, 1)
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._things: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that adds the decorated thing under `name`."""

        def add(thing: T) -> T:
            assert name not in self._things, f"{self.kind} '{name}' is registered twice"
            self._things[name] = thing
            return thing

        return add

    def __getitem__(self, name: str) -> T:
        if name not in self._things:
            raise unknown_name(self.kind, name, self._things)
        return self._things[name]

    def __contains__(self, name: object) -> bool:
        return name in self._things

    def __iter__(self) -> Iterator[str]:
        return iter(self._things)

    def __len__(self) -> int:
        return len(self._things)

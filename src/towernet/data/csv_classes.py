"""What the classes of a table mean together: several in one cell, numbers written in two ways."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from towernet.data.table import path_bytes
from towernet.errors import DataError
from towernet.words import listed, shown

_BETWEEN = (
    re.compile(r"[|,;+&/\\]|\band\b"),
    re.compile(r"[|,;+&/\\\s]+"),  # a class may contain blanks, so only second
)
_AROUND = " \t'\"[](){}"  # of a list such as ['cat', 'dog']
_WHOLE = re.compile(r"([+-]?\d+)[.,]0+")
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?|")


def require_one_each(table: str, labels: Iterable[tuple[int, str]]) -> None:
    """Refuse cells with several classes: each of their parts is also a class alone.

    Args:
        table: Its name, for messages.
        labels: The line and the class of each row.

    Raises:
        DataError: naming the first such line.
    """
    first: dict[str, int] = {}
    for line, label in labels:
        first.setdefault(label, line)
    alone = {label.strip(_AROUND) for label in first}
    for label, line in first.items():
        for between in _BETWEEN:
            parts = list(dict.fromkeys(part.strip(_AROUND) for part in between.split(label)))
            parts = [part for part in parts if part]
            if len(parts) > 1 and alone.issuperset(parts):
                raise DataError(
                    f"line {line:,} of {table} has the class '{shown(label)}', and"
                    f" {listed([*map(shown, parts)])} are classes too, and each image can have one"
                    f" class only; leave such images out, or, if '{shown(label)}' is a class of its"
                    f" own, give it another name, such as {shown('_'.join(parts))}"
                )


def require_one_number_each(table: str, labels: Iterable[str]) -> None:
    """Refuse classes that are the same number with zeros before it and without.

    Raises:
        DataError: naming two of them.
    """
    ways: defaultdict[str, set[str]] = defaultdict(set)
    for label in labels:
        if label.isascii() and label.isdigit():
            ways[label.lstrip("0")].add(label)
    for same in ways.values():
        if len(same) > 1:
            raise DataError(
                f"{table} has the classes {listed(sorted(same, key=path_bytes))}, which are the"
                " same number; write them alike, or, if they are different classes, write a word"
                " before each"
            )


def whole_numbers(labels: set[str]) -> tuple[dict[str, str], str]:
    """Return the class of 1.0 where all classes are numbers and 1 is one, and a note about it."""
    same = {label: found[1] for label in labels if (found := _WHOLE.fullmatch(label))}
    if not all(map(_NUMBER.fullmatch, labels)) or labels.isdisjoint(same.values()):
        return {}, ""
    first = next(label for label in sorted(same) if same[label] in labels)
    return same, f"numbers such as {first} and {same[first]} are one class"

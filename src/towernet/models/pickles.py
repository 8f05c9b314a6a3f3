"""The instructions of a pickle, checked before any of them is executed."""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_MAX_INSTRUCTIONS = 2_000_000
_MAX_DEPTH = 100
_NUM_CHARACTERS = 64  # this many characters or bytes count as one item
_NESTING = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET")
_CHANGES = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")
_FETCHES = ("GET", "BINGET", "LONG_BINGET", "DUP")


@dataclass(slots=True)
class _Value:
    """A value on the stack: its number of items, and how deep its tuples are nested."""

    num_items: int = 1
    depth: int = 0


def instructions(content: bytes | io.BytesIO) -> Iterator[tuple[pickletools.OpcodeInfo, Any]]:
    """Yield each instruction and its argument, as long as executing them stays cheap.

    Forty instructions can make a tuple of 2⁴⁰ items, each level containing the previous one twice.
    As a dictionary's key it would be hashed for hours; a tuple nested a million deep overflows the
    stack. So a value that is fetched again counts with all its items.

    A stream is read to the end of the pickle.

    Raises:
        UnpicklingError: there are too many instructions, or their result is too large or deep.
        Exception: one of the many kinds that Python raises for a damaged pickle.
    """
    stack: list[_Value | None] = []  # None is a mark
    memo: dict[int, _Value | None] = {}
    num_fetched = 0
    argument: Any
    for number, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        yield opcode, argument
        name = opcode.name
        # A memo index of 2³² − 1 would make the unpickler allocate 64 GB.
        if number > _MAX_INSTRUCTIONS or ("PUT" in name and argument > number):
            raise pickle.UnpicklingError(
                f"invalid pickle: {name} {argument} at instruction {number}"
            )
        if name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in _FETCHES:
            value = stack[-1] if name == "DUP" else memo[argument]
            num_fetched += value.num_items if value else 1
            stack.append(value)
        elif name == "MARK":
            stack.append(None)
        else:
            taken = _take(stack, opcode)
            num_items = sum(value.num_items for value in taken)
            if isinstance(argument, str | bytes):
                num_items += len(argument) // _NUM_CHARACTERS
            if name in _CHANGES:
                taken[-1].num_items = num_items
                stack.append(taken[-1])
            elif opcode.stack_after:
                nested = max((value.depth for value in taken), default=0) + 1
                stack.append(_Value(1 + num_items, nested if name in _NESTING else 0))
                if nested > _MAX_DEPTH:
                    raise pickle.UnpicklingError(f"tuples nested more than {_MAX_DEPTH} deep")
        if num_fetched > _MAX_INSTRUCTIONS:
            raise pickle.UnpicklingError("its repeated values are too large")


def _take(stack: list[_Value | None], opcode: pickletools.OpcodeInfo) -> list[Any]:
    """Pop from the stack what the instruction pops, the topmost value first."""
    taken: list[_Value | None] = []
    wanted = opcode.stack_before
    if pickletools.markobject in wanted:
        while (value := stack.pop()) is not None:
            taken.append(value)
        wanted = wanted[: wanted.index(pickletools.markobject)]
    return [*taken, *(stack.pop() for _ in wanted)]

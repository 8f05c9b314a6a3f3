"""Copies in the data: across the splits that came with it, and within a class."""

from __future__ import annotations

from pydantic import StrictInt

from towernet.records.base import Record, Text


class Leak(Record):
    """Images of one given split with copies of one kind in another split."""

    split: Text
    """The split that was kept whole."""
    other: Text
    """The split from which the copies were left out."""
    kind: Text
    """The same bytes, the same pixels, near duplicates, turned copies or mirrored copies."""
    images: StrictInt
    """Images of `split` with such a copy; each counts once, as the closest kind."""
    of: StrictInt
    """All images of `split`."""
    left_out: StrictInt
    """Images of `other` that are left out as such copies."""
    done: Text
    """What was done, in words."""


class Copy(Record):
    """An image, and what it is a copy of."""

    path: Text
    class_name: Text
    kind: Text
    """How it is a copy, as a code such as MIRRORED; '' for an image that others are copies of."""
    detail: Text
    """The same in words, with the path of the other image."""

"""The files of a data set, in columns: a million of them as Python objects took half a gigabyte."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from towernet.data.table import Texts, path_bytes


class SourceFile(NamedTuple):
    """One file that may be an image: its location, class, split and group."""

    path: str  # relative to the data, with '/'; the key everywhere
    class_name: str  # '' if it has none
    given_split: str  # '' or train, validation, test, from the folder or the CSV
    group: str  # '' or from the CSV: what must stay on one side of a split
    file: Path  # where its bytes are


class Files(Sequence[SourceFile]):
    """The files found, in columns: a million of them take 110 bytes each instead of a thousand.

    Args:
        paths: Sorted by their bytes.
        locations: Where the bytes of each are.
        class_name: Of each.
        given_split: Of each.
        group: Of each; '' for all if omitted.
    """

    def __init__(
        self,
        paths: list[str],
        locations: Sequence[Path],
        class_name: Texts,
        given_split: Texts,
        group: Texts | None = None,
    ) -> None:
        self.paths = paths
        self.locations = locations
        self.class_name = class_name
        self.given_split = given_split
        self.group = group or Texts(len(paths))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: Any) -> Any:
        if isinstance(position, slice):
            return [self[one] for one in range(*position.indices(len(self)))]
        return SourceFile(
            self.paths[position],
            self.class_name[position],
            self.given_split[position],
            self.group[position],
            self.locations[position],
        )

    def position(self, path: str) -> int:
        """Return the position of a path, or where it would be inserted."""
        return bisect_left(self.paths, path_bytes(path), key=path_bytes)

    def location(self, path: str) -> Path | None:
        """Return where the bytes of a path are, None if it is missing."""
        at = self.position(path)
        return self.locations[at] if at < len(self) and self.paths[at] == path else None


class Below(Sequence[Path]):
    """Paths below a folder, joined when accessed."""

    def __init__(self, folder: Path, paths: list[str]) -> None:
        self.folder = folder
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: Any) -> Any:
        if isinstance(position, slice):
            return Below(self.folder, self.paths[position])
        return self.folder / self.paths[position]

"""The images to predict: files as given, and what may be an image in the folders given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from towernet.data.kinds import kinds_of
from towernet.data.table import path_bytes
from towernet.data.tree import scan
from towernet.data.workers import Count
from towernet.errors import DataError
from towernet.words import counted, listed


@dataclass(frozen=True)
class Pictures:
    """The files to predict.

    Args:
        paths: In the order given; those of a folder by the bytes of their paths.
        of_folders: Whether a folder was among what was given.
        num_ignored: How many files in the folders are none: notes, tables, annotations.
        num_skipped: How many hidden files, system files and links there were.
    """

    paths: Sequence[Path]
    of_folders: bool = False
    num_ignored: int = 0
    num_skipped: int = 0

    @property
    def left_out(self) -> str:
        """What was not predicted, in words; '' for nothing."""
        words = []
        if self.num_ignored:
            words.append(f"{counted(self.num_ignored, 'file')} of other kinds")
        if self.num_skipped:
            words.append(counted(self.num_skipped, "hidden, system or linked file"))
        return f"ignored: {listed(words)}" if words else ""


def find_pictures(given: Sequence[Path], progress: Count | None = None) -> Pictures:
    """Return the files to predict, among what was given: files, and folders with all below them.

    Raises:
        DataError: a folder cannot be read or contains no file that may be an image.
    """
    paths: list[Path] = []
    num_ignored = num_skipped = 0
    of_folders = False
    for path in given:
        if not path.is_dir():
            paths.append(path)
            continue
        of_folders = True
        tree = scan(path, progress)
        found = sorted(kinds_of(tree.paths, path.joinpath).images, key=path_bytes)
        if not found:
            others = f" ({counted(len(tree.paths), 'other file')})" if tree.paths else ""
            raise DataError(f"{path} contains no images{others}; give a folder of images")
        num_ignored += len(tree.paths) - len(found)
        num_skipped += len(tree.ignored)
        paths += [path / name for name in found]
    return Pictures(paths, of_folders, num_ignored, num_skipped)

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
from towernet.words import counted, listed, shown


@dataclass(frozen=True)
class Pictures:
    """The files to predict.

    Args:
        paths: In the order given; those of a folder by the bytes of their paths.
        of_folders: Whether a folder was among what was given.
        num_ignored: How many files in the folders are none: notes, tables, annotations.
        num_skipped: How many hidden and system files there were.
        num_links: How many symbolic links there were, which are not followed.
    """

    paths: Sequence[Path]
    of_folders: bool = False
    num_ignored: int = 0
    num_skipped: int = 0
    num_links: int = 0

    @property
    def left_out(self) -> str:
        """What was not predicted, in words; '' for nothing."""
        words = []
        if self.num_ignored:
            words.append(f"{counted(self.num_ignored, 'file')} of other kinds")
        if self.num_skipped:
            words.append(counted(self.num_skipped, "hidden or system file"))
        if self.num_links:
            words.append(counted(self.num_links, "symbolic link"))
        return f"ignored: {listed(words)}" if words else ""


def find_pictures(given: Sequence[Path], progress: Count | None = None) -> Pictures:
    """Return the files to predict, among what was given: files, and folders with all below them.

    Raises:
        DataError: a folder cannot be read or contains no file that may be an image.
    """
    paths: list[Path] = []
    num_ignored = num_skipped = num_links = 0
    of_folders = False
    for path in given:
        if not path.is_dir():
            paths.append(path)
            continue
        of_folders = True
        tree = scan(path, progress)
        links = [one.path for one in tree.ignored if one.reason == "SYMLINK"]
        found = sorted(kinds_of(tree.paths, path.joinpath).images, key=path_bytes)
        if not found:
            raise _no_images(path, len(tree.paths), links)
        num_ignored += len(tree.paths) - len(found)
        num_skipped += len(tree.ignored) - len(links)
        num_links += len(links)
        paths += [path / name for name in found]
    return Pictures(paths, of_folders, num_ignored, num_skipped, num_links)


def _no_images(folder: Path, num_others: int, links: Sequence[str]) -> DataError:
    others = f" ({counted(num_others, 'other file')})" if num_others else ""
    if not links:
        return DataError(f"{folder} contains no images{others}; give a folder of images")
    first = shown(min(links))
    some = f"{counted(len(links), 'symbolic link')}, not followed: {first}"
    return DataError(
        f"{folder} contains no images{others}, but links ({some}"
        f"{', …' if len(links) > 1 else ''}); give the folder that they lead to, or each link by"
        " its name"
    )

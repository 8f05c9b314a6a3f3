"""The files and folders below a folder, without opening any."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import NamedTuple

from towernet.data.workers import Count
from towernet.errors import DataError, EnvironmentFault
from towernet.registry import unknown_name
from towernet.words import shown

FOLLOW = ("inside", "all")
FOLLOW_ALL = "--follow-links all"
MAX_DEPTH = 255
FILES_PER_REPORT = 250_000  # between two reports of progress: about a second on a fast disk
SYSTEM_NAMES = {
    "__macosx", "@eadir", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "$recycle.bin",
    "system volume information", "lost+found",
}  # fmt: skip


class Ignored(NamedTuple):
    """Something found that is not an image of the data set: hidden, a link, a README."""

    path: str
    reason: str
    detail: str


class Tree(NamedTuple):
    """The content of a folder: regular files, folders, and what is ignored."""

    paths: list[str]
    folders: list[str]
    ignored: list[Ignored]


def hidden_part(path: str) -> str:
    """Return the path up to its first hidden or system part, '' if it has none."""
    parts = path.split("/")
    for num, part in enumerate(parts, start=1):
        if _hidden(part):
            return "/".join(parts[:num])
    return ""


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def hidden(path: str) -> Ignored:
    """Return the row of a hidden or system file or folder."""
    return Ignored(path, "HIDDEN", "a hidden or system file or folder, skipped")


def folder_of(path: str) -> str:
    """Return the folder of a path with its '/', '' if it has none."""
    return path[: path.rfind("/") + 1]


def scan(root: Path, progress: Count | None = None, *, follow_links: str | None = None) -> Tree:
    """List a folder without opening a file or recursing.

    Args:
        root: The folder.
        progress: Called as progress(what, done, total).
        follow_links: Which symbolic links are followed: those to what is "inside" the folder,
            "all", or None. A folder is listed at most once through links, so there are no loops.

    Raises:
        UnknownNameError: there is no such way to follow links.
        DataError: a folder cannot be read, is nested too deep, or disappeared.
        EnvironmentFault: the disk fails.
    """
    tree = Tree([], [], [])
    links = _Links(root, follow_links)
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    path = folder + entry.name
                    if _hidden(entry.name):
                        tree.ignored.append(hidden(path))
                    elif entry.is_file(follow_symlinks=False):
                        tree.paths.append(path)
                        if progress and len(tree.paths) % FILES_PER_REPORT == 0:
                            progress("listing files", len(tree.paths), len(tree.paths))
                    elif entry.is_symlink():
                        links.found.append(path)
                    elif entry.is_dir(follow_symlinks=False):
                        tree.folders.append(path)
                        waiting.append(path + "/")
                    else:
                        detail = "a pipe, socket or device, not opened"
                        tree.ignored.append(Ignored(path, "SPECIAL", detail))
            if folder.count("/") > MAX_DEPTH:
                raise _too_deep(root, folder)
        except PermissionError as error:
            raise DataError(
                f"{shown(str(root / folder))} cannot be read (permission denied); ask for"
                " permission to read it, or move it away"
            ) from error
        except FileNotFoundError as error:
            raise DataError(
                f"{shown(str(root / folder))} disappeared while {root} was read; run the command"
                " again when nothing is being moved"
            ) from error
        except OSError as error:
            if isinstance(error, EnvironmentFault):
                raise
            if error.errno == errno.ENAMETOOLONG:
                raise _too_deep(root, folder) from error
            raise EnvironmentFault(
                f"{shown(str(root / folder))} cannot be read: {error.strerror}; check the disk"
            ) from error
        if not waiting:
            waiting = links.follow(tree)
    return tree


class _Links:
    """The symbolic links of a folder, followed when everything else is listed."""

    def __init__(self, root: Path, follow_links: str | None) -> None:
        if follow_links not in (None, *FOLLOW):
            raise unknown_name("value of --follow-links", follow_links, FOLLOW)
        self.root, self.mode = root, follow_links
        self.real_root = Path(os.path.realpath(root))
        self.found: list[str] = []
        found = root.stat()
        self.listed = {(found.st_dev, found.st_ino)}  # folders that links led to, and the root

    def follow(self, tree: Tree) -> list[str]:
        """Add what the links found so far point to; return the folders to list next."""
        waiting = []
        for path in sorted(self.found):
            where, why = self._target(path)
            if why:
                tree.ignored.append(Ignored(path, "SYMLINK", f"a symbolic link, {why}"))
            elif stat.S_ISDIR(where):
                tree.folders.append(path)
                waiting.append(path + "/")
            else:
                tree.paths.append(path)
        self.found = []
        return waiting

    def _target(self, path: str) -> tuple[int, str]:
        """Return the mode of a link's target, and why it is not followed, '' if it is."""
        if self.mode is None:
            return 0, f"not followed; {FOLLOW_ALL} reads what it points to"
        link = self.root / path
        try:
            target = Path(os.path.realpath(link, strict=True))
            found = target.stat()
        except (OSError, RuntimeError):
            return 0, "which points to nothing"
        if self.mode == "inside" and not target.is_relative_to(self.real_root):
            return 0, f"which points out of the folder; {FOLLOW_ALL} follows it"
        if (
            any(map(_hidden, target.relative_to(self.real_root).parts))
            if (target.is_relative_to(self.real_root))
            else False
        ):
            return 0, "which points to a hidden file or folder"
        if stat.S_ISREG(found.st_mode):
            return found.st_mode, ""
        if not stat.S_ISDIR(found.st_mode):
            return 0, "which points to a pipe, socket or device"
        place = (found.st_dev, found.st_ino)
        above = Path(os.path.realpath(link.parent))
        if above.is_relative_to(target) or place in self.listed:
            return 0, "which points to a folder that is read already"
        self.listed.add(place)
        return found.st_mode, ""


def _too_deep(root: Path, folder: str) -> DataError:
    return DataError(
        f"{root} is nested {folder.count('/'):,} folders deep below"
        f" {shown(folder.partition('/')[0])}; the limit is {MAX_DEPTH}; move the images up"
    )

"""Where the files are that a table lists, written on another computer or by hand."""

from __future__ import annotations

import os
import re
import stat
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from towernet.data.kinds import OTHER_SUFFIXES, suffix_of
from towernet.errors import DataError
from towernet.words import composed, shown

_DRIVE = re.compile(r"[A-Za-z]:[/\\]|[/\\]")
_FILE_URL = re.compile(r"file://(localhost)?(?=/)", re.IGNORECASE)
URL = re.compile(r"(?!file://(localhost)?/)[a-z][a-z0-9+.-]+://", re.IGNORECASE)

NO_SUFFIX, CASE, ACCENTS, BLANKS, MOVED = "suffix", "case", "accents", "blanks", "moved"


class Found(NamedTuple):
    """A file that a table lists: its key, where it is, and how it was found if not as written."""

    key: str
    file: Path
    how: str = ""
    before: str = ""  # for MOVED: the folders that are not there


class Several(Exception):
    """More than one file fits what a table lists."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(names)
        self.names = names


class Finder:
    """Finds the files that a table lists, relative to a folder.

    Args:
        folder: Of the table.
        below: The folder in it that the paths are relative to, '' or with its '/'.
        codec: How the table is encoded: a name on the disk may be in the same bytes.
    """

    def __init__(self, folder: Path, below: str = "", codec: str = "utf-8") -> None:
        self.folder = folder
        self.below = below
        self._codec = codec
        self._names_in: dict[str, _Names] = {}

    def as_written(self, given: str) -> Found | None:
        """Find a file under exactly this path, or with '/' for the backslashes of Windows."""
        for path in (given, given.replace("\\", "/")) if "\\" in given else (given,):
            if (file := _regular_file(self.folder, self.below + path)) is not None:
                return Found(key_of(self.folder, self.below + path), file)
        return None

    def find(self, given: str) -> Found | None:
        """Find a file, however its path is written.

        Raises:
            Several: more than one file fits.
        """
        if found := self.as_written(given):
            return found
        path = given.strip()
        if path != given and (found := self.as_written(path)):
            return found._replace(how=BLANKS)
        if not path or "\0" in path:
            return None
        if match := _FILE_URL.match(path):
            path = unquote(path[match.end() :])
            if re.match("/[A-Za-z]:/", path):  # of Windows
                path = path[1:]
            if "\0" in path:
                return None
            if found := self.as_written(path):
                return found
        path = path.replace("\\", "/")
        if found := self._in_bytes(path):
            return found
        if _DRIVE.match(path):
            return self._moved(path)
        return self._nearly(path)

    def _in_bytes(self, path: str) -> Found | None:
        if path.isascii():
            return None
        try:
            return self.as_written(os.fsdecode(path.encode(self._codec)))
        except UnicodeError:
            return None

    def _moved(self, path: str) -> Found | None:
        """Find a file of another computer by the end of its path."""
        parts = [part for part in path.split("/") if part]
        found: dict[str, Found] = {}
        for num in range(1, len(parts)):
            tail = "/".join(parts[num:])
            if ".." not in parts[num:] and (file := self._nearly(tail)):
                before = path[: len(path) - len(tail)]
                found.setdefault(file.key, file._replace(how=MOVED, before=before))
        if len(found) > 1:
            raise Several(list(found))
        return next(iter(found.values()), None)

    def _nearly(self, path: str) -> Found | None:
        """Find a file by its path without a suffix, in another case or coding of accents."""
        *folders, name = os.path.normpath(path).split("/")
        if os.path.isabs(path) or name in ("", ".", ".."):  # noqa: PTH117 - there may be a million
            return None
        folder, in_case = self.below, True
        for part in folders:
            if part == ".." or (self.folder / folder / part).is_dir():
                folder += f"{part}/"
                continue
            names = self._names(folder)
            same = names.composed.get(composed(part), [])
            if not same:
                same = names.folded.get(composed(part).casefold(), [])
                in_case = False
            if len(same) != 1:
                return None
            folder += f"{same[0]}/"
        names = self._names(folder)
        for fitting, how in (
            (names.composed.get(composed(name), []), ACCENTS),
            (names.folded.get(composed(name).casefold(), []), CASE),
            (names.by_stem.get(composed(name), []), NO_SUFFIX),
        ):
            files = [one for one in fitting if _regular_file(self.folder, folder + one)]
            if how == NO_SUFFIX and len(files) > 1:  # notes on it, such as its boxes
                files = [one for one in files if suffix_of(one) not in OTHER_SUFFIXES] or files
            if len(files) > 1:
                raise Several([folder + one for one in files])
            if files:
                if files[0] == name:
                    how = ""
                if not in_case and how in ("", ACCENTS):
                    how = CASE
                whole = folder + files[0]
                return Found(key_of(self.folder, whole), self.folder / whole, how)
        return None

    def _names(self, folder: str) -> _Names:
        if folder not in self._names_in:
            self._names_in[folder] = _Names(self.folder / folder)
        return self._names_in[folder]


class _Names:
    """The names in a folder, by how people may write them."""

    def __init__(self, folder: Path) -> None:
        self.composed: defaultdict[str, list[str]] = defaultdict(list)
        self.folded: defaultdict[str, list[str]] = defaultdict(list)
        self.by_stem: defaultdict[str, list[str]] = defaultdict(list)
        try:
            names = os.listdir(folder)  # noqa: PTH208 - there may be a million
        except (OSError, ValueError):
            return
        for name in sorted(names):
            same = composed(name)
            self.composed[same].append(name)
            self.folded[same.casefold()].append(name)
            stem, dot, _ = same.rpartition(".")
            if dot and stem:
                self.by_stem[stem].append(name)


def sub_folders(folder: Path, below: list[str], most: int = 1000) -> list[str]:
    """Return the folders in some folders below a folder, each with its '/'; hidden ones are left.

    Raises:
        DataError: a folder cannot be read.
    """
    found = []
    for parent in below:
        try:
            with os.scandir(folder / parent) as entries:
                found += [
                    f"{parent}{entry.name}/"
                    for entry in entries
                    if entry.is_dir() and not entry.name.startswith((".", "__"))
                ]
        except OSError as error:
            raise DataError(
                f"{shown(str(folder / parent))} cannot be read: {error.strerror}; check the path"
            ) from error
    return sorted(found)[:most]


def file_near(folder: Path) -> str:
    """Return the path of a file, perhaps an image, in a folder or those below; '' without one."""
    below = [""]
    for _ in range(3):
        for inside in below:
            for name in sorted(os.listdir(folder / inside)):  # noqa: PTH208 - may be a million
                is_other = not suffix_of(name) or suffix_of(name) in OTHER_SUFFIXES
                if not (is_other or name[0] == ".") and _regular_file(folder, inside + name):
                    return inside + name
        below = sub_folders(folder, below)
    return ""


def key_of(folder: Path, given: str) -> str:
    """Return a path as in the table: relative, unless it is absolute and outside the folder."""
    if os.path.isabs(given):  # noqa: PTH117 - there may be a million
        relative = os.path.relpath(given, folder.resolve())
        return given if relative.startswith("..") else relative
    return os.path.normpath(given)


def _regular_file(folder: Path, given: str) -> Path | None:
    file = folder / given
    try:
        return file if stat.S_ISREG(file.stat().st_mode) else None
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return None

"""A tree of folders with the number of files in each, made from paths."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from towernet.data.split_names import is_holder
from towernet.data.table import path_bytes
from towernet.data.tree import folder_of


@dataclass(slots=True, eq=False)
class Folder:
    """One folder.

    Args:
        path: Relative, with '/' at the end; '' for the folder that contains everything.
        own: Files directly in it that may be images.
        named: Those of them whose names have an ending.
        others: Files directly in it that are no images: notes, annotations.
        subs: Its sub-folders by name.
        total: Files in it and below that may be images.
        total_others: Files in it and below that are no images.
    """

    path: str
    own: int = 0
    named: int = 0
    others: int = 0
    subs: dict[str, Folder] = field(default_factory=dict)
    total: int = 0
    total_others: int = 0

    @property
    def name(self) -> str:
        """Its last part."""
        return self.path[:-1].rpartition("/")[2]

    @property
    def image_subs(self) -> list[Folder]:
        """Its sub-folders that contain files that may be images, in any depth."""
        return [sub for sub in self.subs.values() if sub.total]

    def __iter__(self) -> Iterator[Folder]:
        """Go through it and all folders below it."""
        waiting = [self]
        while waiting:
            folder = waiting.pop()
            yield folder
            waiting.extend(folder.subs.values())


def folder_tree(paths: Iterable[str], others: Iterable[str], folders: Iterable[str]) -> Folder:
    """Make the tree.

    Args:
        paths: Files that may be images.
        others: Files that are none.
        folders: Folders that may be empty.
    """
    # Only a file's folder matters: there may be a million files.
    own, rest = Counter(map(folder_of, paths)), Counter(map(folder_of, others))
    plain = Counter(folder_of(path) for path in paths if not has_ending(path))
    root = Folder("")
    for path in sorted({*own, *rest, *(f"{one.rstrip('/')}/" for one in folders)}, key=path_bytes):
        folder, above = root, [root]
        for part in filter(None, path.split("/")):
            folder = folder.subs.setdefault(part, Folder(f"{folder.path}{part}/"))
            above.append(folder)
        folder.own, folder.others = own[path], rest[path]
        folder.named = own[path] - plain[path]
        for one in above:
            one.total += own[path]
            one.total_others += rest[path]
    return root


def has_ending(path: str) -> bool:
    """Whether a file's name ends in something like `.jpg`."""
    name = path[path.rfind("/") + 1 :]
    return "." in name[1:]


def class_level(folder: Folder, *, by_name: bool = True) -> Folder:
    """Follow single sub-folders down to the folder whose sub-folders are several.

    Args:
        folder: Where to start.
        by_name: A folder that contains only `images` and the like is not followed.
    """
    while True:
        subs = folder.image_subs
        if len(subs) != 1 or folder.named or not subs[0].image_subs:
            return folder
        if by_name and is_leaf(subs[0]):
            return folder
        empty = any(not (sub.total or sub.total_others) for sub in folder.subs.values())
        if empty and len(class_level(subs[0], by_name=by_name).image_subs) < 2:
            return folder  # the empty folder may be a class as well
        folder = subs[0]


def leaves(folder: Folder) -> list[Folder]:
    """Return the deepest folders with images; those called `images` count for their parent."""
    found, waiting = [], [*folder.image_subs]
    while waiting:
        one = waiting.pop()
        if is_leaf(one):
            found.append(one)
        else:
            waiting.extend(one.image_subs)
    return sorted(found, key=lambda one: path_bytes(one.path))


def is_leaf(folder: Folder) -> bool:
    """Whether a folder contains no folders, except some called `images` and the like."""
    return all(is_holder(sub.name) and not sub.image_subs for sub in folder.image_subs)


def folded(name: str) -> str:
    """Return a name that is the same in upper and lower case and in every coding of accents."""
    composed = unicodedata.normalize("NFC", name)
    return unicodedata.normalize("NFC", composed.casefold())

"""Interpretation of a tree of files: which folders are classes, splits, or neither.

The same for a folder and for an archive, since only paths are used: relative, with '/'.
"""

from __future__ import annotations

import errno
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from towernet.data.table import SPLITS, TEST, TRAIN, VALIDATION, path_bytes
from towernet.data.workers import Count
from towernet.errors import DataError, EnvironmentFault
from towernet.registry import unknown_name
from towernet.words import counted, shown, some_listed

LAYOUTS = ("auto", "classes", "splits")
SPLIT_NAMES = {
    "train": TRAIN,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "test": TEST,
}
MAX_DEPTH = 255
FILES_PER_REPORT = 250_000  # between two reports of progress: about a second on a fast disk
SYSTEM_NAMES = {
    "__macosx", "@eadir", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "$recycle.bin",
    "system volume information", "lost+found",
}  # fmt: skip
# Next to class folders these are notes on the data; inside one their content decides.
NOTE_SUFFIXES = {
    "", ".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml",
    ".html", ".pdf", ".py", ".sh", ".log", ".ini", ".cfg", ".ipynb",
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


class Layout(NamedTuple):
    """How paths are interpreted."""

    top: str  # '' or the folder that contains everything, such as 'Images/'
    splits: bool
    classes: frozenset[str]
    reading: str

    def class_and_split(self, path: str) -> tuple[str, str]:
        """Return the class name and the split of a path or folder, each '' if it has none."""
        if not path.startswith(self.top):
            return "", ""
        parts = path[len(self.top) :].split("/")
        split = SPLIT_NAMES[parts.pop(0).lower()] if self.splits and len(parts) > 1 else ""
        return (parts[0] if len(parts) > 1 else ""), split


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


def scan(root: Path, progress: Count | None = None) -> Tree:
    """List a folder without opening a file, following a link, or recursing.

    Raises:
        DataError: a folder cannot be read, is nested too deep, or disappeared.
        EnvironmentFault: the disk fails.
    """
    tree = Tree([], [], [])
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
                        detail = "a symbolic link, not followed; copy what it points to"
                        tree.ignored.append(Ignored(path, "SYMLINK", detail))
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
    return tree


def _too_deep(root: Path, folder: str) -> DataError:
    return DataError(
        f"{root} is nested {folder.count('/'):,} folders deep below"
        f" {shown(folder.partition('/')[0])}; the limit is {MAX_DEPTH}; move the images up"
    )


def read_layout(
    paths: Sequence[str],
    folders: Sequence[str],
    *,
    name: str,
    layout: str = "auto",
    skip_empty: bool = False,
    min_classes: int = 2,
) -> Layout:
    """Determine which folders are classes and which are splits.

    Args:
        paths: All files that are not ignored.
        folders: All folders that are not hidden; those that contain files can be omitted.
        name: Name of the data, for messages.
        layout: "classes" or "splits" if the folder names alone would mislead, else "auto".
        skip_empty: Leave out class folders without files instead of refusing them.
        min_classes: 2 for training; 1 is enough if a trained network knows the other classes.

    Raises:
        UnknownNameError: no layout has this name.
        DataError: there are too few classes, one is empty, or two have nearly the same name.
    """
    if layout not in LAYOUTS:
        raise unknown_name("layout", layout, LAYOUTS)
    # Only a file's folder matters, except for files at the top: there may be a million files.
    num_in = Counter(map(folder_of, paths))
    all_folders = sorted({*num_in, *(f"{folder}/" for folder in folders)} - {"", "/"})
    top = _top(all_folders, paths, num_in, keep_splits=layout == "splits")
    children = _children([folder[len(top) :] for folder in all_folders if folder.startswith(top)])
    named_as_splits = bool(children) and all(child.lower() in SPLIT_NAMES for child in children)
    same_classes = _same_classes(list(children.values()))
    if layout == "splits" and not named_as_splits:
        found = ", ".join(sorted(map(shown, children))[:5]) or "no folders"
        raise DataError(
            f"{name} cannot be read as splits: its top level contains {found} instead of train,"
            " validation and test; omit --layout"
        )
    splits = layout == "splits" or (layout == "auto" and named_as_splits and same_classes)
    classes = frozenset[str]().union(*children.values()) if splits else frozenset(children)
    read = Layout(top, splits, classes, "")
    num_files: Counter[tuple[str, str]] = Counter()
    for folder, num in num_in.items():
        num_files[read.class_and_split(folder)] += num
    num_by_class: Counter[str] = Counter()
    for (class_name, _), num in num_files.items():
        num_by_class[class_name] += num
    del num_by_class[""]

    if not classes:
        raise _no_classes(name, paths, split=splits)
    empty = sorted(classes - set(num_by_class), key=path_bytes)
    if empty and not skip_empty:
        verb = "is an empty class folder" if len(empty) == 1 else "are empty class folders"
        raise DataError(
            f"{some_listed(empty, most=5)} in {name} {verb}; add images, or leave out empty folders"
            " with --skip-empty"
        )
    classes -= set(empty)
    require_classes(classes, num_by_class, name=name, fewest=min_classes)
    notes = []
    if empty:
        notes.append(f"left out as empty: {some_listed(empty, most=5)}")
    if named_as_splits and not splits and layout == "auto":
        notes.append(
            "the folders are named like splits but do not contain the same classes, and are"
            " treated as classes (if they are splits, pass --layout splits)"
        )
    depth = top.count("/") + splits + 1
    if any(folder.startswith(top) and folder.count("/") > depth for folder in num_in):
        notes.append("folders within a class folder belong to its class")
    reading = _reading(name, top, len(classes), num_files, sorted(children) if splits else [])
    return Layout(top, splits, classes, "; ".join([reading, *notes]))


def require_classes(
    classes: Iterable[str], num_files: Counter[str], *, name: str, fewest: int = 2
) -> None:
    """Refuse too few classes, and two names that some systems do not distinguish.

    Raises:
        DataError: naming the class, or the two names.
    """
    seen: dict[str, str] = {}
    classes = sorted(classes, key=path_bytes)
    for class_name in classes:
        composed = unicodedata.normalize("NFC", class_name)
        folded = unicodedata.normalize("NFC", composed.casefold())
        if (other := seen.setdefault(folded, class_name)) != class_name:
            only_case = unicodedata.normalize("NFC", other) != composed
            how = "in upper and lower case" if only_case else "in the encoding of accents"
            raise DataError(
                f"{name} has the classes {_coded(other)} and {_coded(class_name)}: they differ only"
                f" {how}, which some systems ignore; rename one of them or merge them"
            )
    if not classes and fewest == 1:
        raise DataError(f"{name} contains no labelled file; pass images whose class is known")
    if len(classes) < fewest:
        only = (
            f", {shown(classes[0])} ({counted(num_files[classes[0]], 'file')})" if classes else ""
        )
        raise DataError(
            f"{name} contains {len(classes)} class{only if classes else 'es'} and at least two are"
            " needed; add a sub-folder of images for each other class"
        )


def is_note(path: str) -> bool:
    """Whether a file outside the class folders is a note on the data, such as README.txt."""
    return os.path.splitext(path)[1].lower() in NOTE_SUFFIXES  # noqa: PTH122 - a million times


def folder_of(path: str) -> str:
    """Return the folder of a path with its '/', '' if it has none."""
    return path[: path.rfind("/") + 1]


def _top(
    all_folders: Sequence[str], paths: Sequence[str], num_in: Counter[str], *, keep_splits: bool
) -> str:
    """Return the folder that contains everything except notes, if it has sub-folders; else ''."""
    top = ""
    while True:
        inside = [folder[len(top) :] for folder in all_folders if folder.startswith(top)]
        names = {folder.partition("/")[0] for folder in inside if folder}
        loose = num_in[top] and any(folder_of(path) == top and not is_note(path) for path in paths)
        if len(names) != 1 or loose:
            return top
        (name,) = names
        if keep_splits and name.lower() in SPLIT_NAMES:
            return top
        if f"{name}/" == max(inside, key=len):  # nothing but files in it
            return top
        top += f"{name}/"


def _children(inside: Sequence[str]) -> dict[str, set[str]]:
    """Return each top folder with its sub-folders."""
    children: defaultdict[str, set[str]] = defaultdict(set)
    for path in inside:
        first, slash, rest = path.partition("/")
        if slash:
            second, slash, _ = rest.partition("/")
            children[first].update([second] if slash else [])
    return children


def _same_classes(class_sets: Sequence[set[str]]) -> bool:
    """Whether one split has all the classes; others can lack some of them, or all."""
    largest = max(class_sets, key=len, default=set())
    return bool(largest) and all(classes <= largest for classes in class_sets)


def _no_classes(name: str, paths: Sequence[str], *, split: bool) -> DataError:
    where = "photos/train" if split else "photos"
    todo = f"make one sub-folder per class, such as {where}/cat/1.jpg and {where}/dog/1.jpg"
    if not paths:
        return DataError(f"{name} contains no files; {todo}")
    first = some_listed(sorted(paths, key=path_bytes), most=3)
    return DataError(
        f"{name} contains {counted(len(paths), 'file')} ({first}) and no class folders; {todo}"
    )


def _reading(
    name: str,
    top: str,
    num_classes: int,
    num_files: Counter[tuple[str, str]],
    split_folders: list[str],
) -> str:
    where = name
    if top:
        folders = "one folder" if top.count("/") == 1 else f"{top.count('/')} folders"
        where += f" ({folders} `{shown(top)}` on top)"
    total = sum(num for (class_name, _), num in num_files.items() if class_name)
    if not split_folders:
        how = (
            f"{num_classes:,} classes, one sub-folder each, in {where}"
            if num_classes != 1
            else f"one class, the one sub-folder of {where}"
        )
        return f"I read this as {how}: {counted(total, 'file')}"
    by_split: Counter[str] = Counter()
    for (class_name, split), num in num_files.items():
        by_split[split] += num if class_name else 0
    counts = ", ".join(f"{by_split[split]:,} {split}" for split in SPLITS if by_split[split])
    under = ", ".join(f"{folder}/" for folder in split_folders)
    return (
        f"I read this as {classes_words(num_classes)} in each of the splits {under} in {where}:"
        f" {total:,} files ({counts})"
    )


def classes_words(num: int) -> str:
    """Write how many classes there are."""
    return "one class" if num == 1 else f"{num:,} classes"


def _coded(name: str) -> str:
    """Return a name in quotes, with its code points if not ASCII: such names can look alike."""
    points = "" if name.isascii() else f" ({' '.join(f'U+{ord(c):04X}' for c in name)})"
    return f"'{shown(name)}'{points}"

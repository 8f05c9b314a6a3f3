"""How a data set was read, in one sentence: what users check before anything is trained."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import NamedTuple

from towernet.data.folders import Folder
from towernet.data.split_folders import NO_CLASS_FOLDERS, Base, LeftOut
from towernet.data.split_names import roles_of
from towernet.data.table import SPLITS, path_bytes
from towernet.words import counted, shown, some_listed

SPLITS_BELOW = "splits in each class"


class Parts(NamedTuple):
    """The folders of each class with their splits, and what is left out."""

    bases: list[Base]
    folders: list[tuple[str, str, Folder]]  # class, split, folder
    left_out: LeftOut  # by path: the folder, and why
    notes: list[str]


def reading_of(
    name: str, top: Folder, parts: Parts, num_files: Counter[str], *, deepest: bool
) -> str:
    """Return the sentence that starts with "I read this as".

    Args:
        name: Of the data.
        top: The folder that contains everything.
        parts: What was read.
        num_files: Of each class.
        deepest: The classes are the deepest folders.
    """
    where, num_classes = name, len(num_files)
    if depth := top.path.count("/"):
        folders = "one folder" if depth == 1 else f"{depth} folders"
        where += f" ({folders} `{shown(top.path)}` on top)"
    total = counted(num_files.total(), "file")
    by_split: Counter[str] = Counter()
    for _, split, folder in parts.folders:
        by_split[split] += folder.total
    counts = ", ".join(f"{by_split[split]:,} {split}" for split in SPLITS if by_split[split])
    kind = "the deepest folders" if deepest else "one sub-folder each"
    if SPLITS_BELOW in parts.notes:
        parts.notes.remove(SPLITS_BELOW)
        return (
            f"I read this as {classes_words(num_classes)}, each with its own splits, in {where}:"
            f" {total} ({counts})"
        )
    if not parts.bases[0].split:
        how = (
            f"{num_classes:,} classes, {kind}, in {where}"
            if num_classes != 1
            else f"one class, the one sub-folder of {where}"
        )
        return f"I read this as {how}: {total}"
    names = [
        base.folder.path.removeprefix(top.path) or f"{base.folder.name}/" for base in parts.bases
    ]
    under = ", ".join(map(shown, sorted(names)))
    return (
        f"I read this as {classes_words(num_classes)}{', the deepest folders,' * deepest}"
        f" {'in each of the splits' if len(names) > 1 else 'in the split'} {under} in {where}:"
        f" {total} ({counts})"
    )


def classes_words(num: int) -> str:
    """Write how many classes there are."""
    return "one class" if num == 1 else f"{num:,} classes"


def coded(name: str) -> str:
    """Return a name in quotes, with its code points if not ASCII: such names can look alike."""
    points = "" if name.isascii() else f" ({' '.join(f'U+{ord(c):04X}' for c in name)})"
    return f"'{shown(name)}'{points}"


def notes_of(parts: Parts, root: Folder, *, auto: bool) -> list[str]:
    """Return what was left out, and what is worth knowing."""
    notes = []
    splits = [base for base in parts.bases if base.split]
    names = {class_name for class_name, _, _ in parts.folders}
    for split in dict.fromkeys(base.split for base in splits):
        of_split = {class_name for class_name, one, _ in parts.folders if one == split}
        if lacking := sorted(names - of_split, key=path_bytes):
            where = some_listed([base.folder.path for base in splits if base.split == split])
            notes.append(f"not in {where}: {some_listed(lacking, most=5)}")
    if auto:
        notes += [f"{shown(sub)} is read as a class, not as a split" for sub in roles_of(names)]
    by_reason: defaultdict[str, list[Folder]] = defaultdict(list)
    for folder, why in parts.left_out.values():
        by_reason[why if folder.total else ""].append(folder)
    for why, folders in by_reason.items():
        folders.sort(key=lambda one: path_bytes(one.path))
        if why == NO_CLASS_FOLDERS:
            notes += [
                f"{shown(one.path)} has no class folders{_only_sub(one)}: its"
                f" {counted(one.total, 'file')} {'is' if one.total == 1 else 'are'} not used"
                for one in folders
            ]
        elif why:
            some = [f"{one.path} ({counted(one.total, 'file')}, {why})" for one in folders]
            notes.append(f"left out: {some_listed(some, most=5)}")
    if without := without_images(parts, root):
        notes.append(f"no images in {some_listed(without, most=5)}")
    if any(folder.subs and folder.total > folder.own for _, _, folder in parts.folders):
        notes.append("folders within a class folder belong to its class")
    return notes


def _only_sub(folder: Folder) -> str:
    subs = folder.image_subs
    return f" but {shown(subs[0].name)}/, which is no class" if len(subs) == 1 else ""


def without_images(parts: Parts, root: Folder) -> list[str]:
    """Return the folders beside those that are read that contain no image."""
    found: list[str] = []
    for base in parts.bases:
        folder, level = root, base.level
        while folder is not level:
            found += [sub.path for sub in folder.subs.values() if not sub.total]
            folder = next(s for s in folder.subs.values() if level.path.startswith(s.path))
        found += [sub.path for sub in level.subs.values() if not sub.total and sub.total_others]
    return sorted(set(found), key=path_bytes)

"""Interpretation of a tree of files: which folders are classes, splits, or neither.

The same for a folder and for an archive, since only paths are used: relative, with '/'. What is
certain is read; what could be read in two ways is refused with the options that decide it.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from towernet.data.folders import Folder, class_level, folded, folder_tree, is_leaf, leaves
from towernet.data.refusals import Data
from towernet.data.split_folders import (
    Base,
    LeftOut,
    given_splits,
    named_splits,
    with_labels,
)
from towernet.data.split_names import (
    are_parts,
    is_holder,
    is_masks,
    parse_splits,
    roles_of,
    variants_of,
)
from towernet.data.summary import (
    SPLITS_BELOW,
    Parts,
    coded,
    notes_of,
    reading_of,
    without_images,
)
from towernet.data.table import path_bytes
from towernet.data.tree import Ignored, folder_of
from towernet.errors import DataError
from towernet.registry import unknown_name
from towernet.words import counted, listed, shown, some_listed

LAYOUTS = ("auto", "classes", "splits", "leaves")
COPY = "a copy of what is beside it"


class Place(NamedTuple):
    """What a folder's files are: of a class and a split, or left out for a reason."""

    class_name: str = ""
    split: str = ""
    left_out: str = ""  # '' or why the folder is not used


class Layout(NamedTuple):
    """How paths are interpreted."""

    classes: frozenset[str]
    reading: str
    places: dict[str, Place]  # of each folder, by its path with '/'

    def place(self, path: str) -> Place:
        """Return what a file is, by its folder."""
        return self.places.get(folder_of(path), Place())

    def class_and_split(self, path: str) -> tuple[str, str]:
        """Return the class name and the split of a file, each '' if it has none."""
        return self.place(path)[:2]


def read_layout(
    paths: Sequence[str],
    folders: Sequence[str],
    *,
    name: str,
    others: Sequence[str] = (),
    layout: str = "auto",
    splits: str | None = None,
    skip_empty: bool = False,
    min_classes: int = 2,
    find_list: Callable[[], str] = str,
    links: Sequence[Ignored] = (),
) -> Layout:
    """Determine which folders are classes and which are splits.

    Args:
        paths: All files that may be images and are not ignored.
        folders: All folders that are not hidden; those that contain files can be omitted.
        name: Name of the data, for messages.
        others: All files that are no images: notes, annotations.
        layout: "classes", "splits" or "leaves" (the deepest folders are the classes) if the folder
            names alone would mislead, else "auto".
        splits: Which folder is which split, as in "train=Training,test=Testing".
        skip_empty: Leave out class folders without files instead of refusing them.
        min_classes: 2 for training; 1 is enough if a trained network knows the other classes.
        find_list: Returns the CSV that lists the images, '' if there is none; for a message.
        links: The symbolic links that are not followed, for a message.

    Raises:
        ConfigError: `splits` has another form.
        UnknownNameError: no layout has this name, or no split one in `splits`.
        DataError: there are too few classes, one is empty, two have nearly the same name, or the
            folders could be read in several ways.
    """
    if layout not in LAYOUTS:
        raise unknown_name("layout", layout, LAYOUTS)
    root = folder_tree(paths, others, folders)
    data = Data(name, paths, find_list, links)
    left_out: LeftOut = {}
    top = _top(root, left_out, layout, splits)
    bases: list[Base] = []
    if splits is not None:
        bases = given_splits(root, top, parse_splits(splits), data, left_out)
    elif layout != "classes":
        bases = named_splits(top, layout, data, left_out, min_classes)
    if bases:
        bases = with_labels(bases, data, left_out, min_classes)
    notes: list[str] = []
    parts = Parts(bases or [Base(top, "")], [], left_out, notes)
    if layout == "leaves":
        _leaves(parts)
        names_below = {class_name for class_name, _, _ in parts.folders}
        if len(names_below) > 1 and len(roles_of(names_below)) == len(names_below):
            raise data.leaves_are_splits(sorted(names_below, key=path_bytes))
    else:
        _sub_folders(parts, layout, data)
    empty = _empty(parts)
    if not parts.folders and not empty:
        raise data.no_classes(split=bool(bases))
    if empty and not skip_empty:
        raise data.empty(empty, top.path)
    if empty:
        notes.append(f"left out as empty: {some_listed(empty, most=5)}")
    num_files: Counter[str] = Counter()
    for class_name, _, folder in parts.folders:
        num_files[class_name] += folder.total
    if len(num_files) < min_classes and (without := without_images(parts, root)):
        name += f" (without the folders that contain no image: {some_listed(without, most=5)})"
    try:
        require_classes(num_files, num_files, name=name, fewest=min_classes)
    except DataError as error:
        few = len(num_files) < min_classes
        hints = [data.links_words(links)] if few and links else []
        if few and (listed_in := find_list()):
            hints.append(listed_in)
        if not hints:
            raise
        raise DataError("; ".join([str(error), *hints])) from error
    reading = reading_of(name, top, parts, num_files, deepest=layout == "leaves")
    notes += notes_of(parts, root, auto=layout == "auto")
    return Layout(frozenset(num_files), "; ".join([reading, *notes]), _places(parts))


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
        if (other := seen.setdefault(folded(class_name), class_name)) != class_name:
            composed = (unicodedata.normalize("NFC", each) for each in (other, class_name))
            only_case = len(set(composed)) == 2
            how = "in upper and lower case" if only_case else "in the encoding of accents"
            raise DataError(
                f"{name} has the classes {coded(other)} and {coded(class_name)}: they differ only"
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


def _top(root: Folder, left_out: LeftOut, layout: str, splits: str | None) -> Folder:
    """Return the folder that contains everything except notes and masks, if it has sub-folders."""
    top = root
    while layout == "splits" and not roles_of(top.subs) and top is not class_level(top):
        top = top.image_subs[0]  # class_level would go into a lone train/
    if layout == "splits":
        return top
    top = class_level(root, by_name=layout != "classes")
    subs = top.image_subs
    if layout != "classes" and splits is None and all(is_holder(sub.name) for sub in subs):
        main = [sub for sub in subs if not is_masks(sub.name)]
        if len(main) == 1 < len(subs) and len(class_level(main[0]).image_subs) > 1:
            for sub in subs:
                if sub is not main[0]:
                    left_out[sub.path] = (sub, f"beside {shown(main[0].path)}")
            top = class_level(main[0])
    return top


def _sub_folders(parts: Parts, layout: str, data: Data) -> None:
    """Make each sub-folder a class; refuse what could be something else, unless it is certain."""
    certain = layout in ("classes", "splits")
    names: dict[str, str] = {}
    for base in parts.bases:
        level = class_level(base.folder, by_name=layout != "classes")
        subs = level.image_subs if layout == "classes" else base.classes
        if not base.split and not certain:
            # Of any name: `images` and `data` are no classes, but can be data sets.
            if sets := [sub for sub in level.image_subs if _is_split(sub)]:
                raise data.own_splits(sets, level.image_subs)
            if above := _splits_below(subs):
                parts.folders.extend(above)
                parts.notes.append(SPLITS_BELOW)
                continue
            subs = _without_copies(subs, parts.left_out)
        keys = Counter(folded(sub.name) for sub in subs)
        for sub in subs:
            # One spelling in each split: certainly the same class.
            same = names.setdefault(folded(sub.name), sub.name)
            class_name = same if keys[folded(sub.name)] == 1 and base.split else sub.name
            if class_name != sub.name:
                parts.notes.append(f"{shown(sub.path)} is the class {coded(class_name)}")
            parts.folders.append((class_name, base.split, sub))
    if not certain and SPLITS_BELOW not in parts.notes:
        _refuse_nesting(parts, data)


def _is_split(folder: Folder) -> bool:
    """Whether a folder is a data set with splits of its own, with class folders below them."""
    subs = class_level(folder).image_subs
    roles = roles_of(sub.name for sub in subs)
    return (
        not folder.own
        and len(roles) > 1
        and any(sub.name in roles and not is_leaf(sub) for sub in subs)
    )


def _splits_below(subs: list[Folder]) -> list[tuple[str, str, Folder]]:
    """Return classes that contain splits: cat/train, cat/test, dog/train, dog/test."""
    found = []
    for sub in subs:
        roles = roles_of(one.name for one in sub.image_subs)
        if sub.own or len(roles) < len(sub.image_subs) or len({*roles.values()}) < len(roles):
            return []
        found += [(sub.name, roles[one.name], one) for one in sub.image_subs]
    return found if len({split for _, split, _ in found}) > 1 else []


def _without_copies(subs: list[Folder], left_out: LeftOut) -> list[Folder]:
    """Leave out a folder that contains folders of the same names as those beside it."""
    names = {folded(sub.name) for sub in subs}
    for sub in subs:
        inner = {folded(one.name) for one in class_level(sub).image_subs}
        if not sub.own and len(inner & names) > 1 and 2 * len(inner & names) >= len(inner):
            left_out[sub.path] = (sub, COPY)
    return [sub for sub in subs if sub.path not in left_out]


def _refuse_nesting(parts: Parts, data: Data) -> None:
    """Refuse class folders with the same folders, with only folders, or with each other's names."""
    folders_of: defaultdict[str, list[Folder]] = defaultdict(list)
    for class_name, _, folder in parts.folders:
        folders_of[class_name].append(folder)
    inner: dict[str, list[str]] = {}
    for class_name, folders in folders_of.items():
        subs = {sub.name for one in folders for sub in class_level(one).image_subs}
        inner[class_name] = sorted((sub for sub in subs if not is_holder(sub)), key=path_bytes)
    num_with = Counter(sub for subs in inner.values() for sub in subs)
    repeated = [sub for sub, num in num_with.items() if num > 1]
    alike = {
        class_name: folders_of[class_name]
        for class_name, subs in inner.items()
        if sum(num_with[sub] > 1 for sub in subs) > 1
    }
    most = max(2, len(folders_of) / 2)
    split = bool(parts.bases[0].split)
    if len(alike) >= most:
        raise data.repeated(alike, repeated, split=split)
    nested = {
        class_name: subs
        for class_name, subs in inner.items()
        if len(subs) > 1 and not any(folder.own for folder in folders_of[class_name])
    }
    if are_parts(list(inner)) and not nested:
        raise data.parts(sorted(inner, key=path_bytes))
    only = {
        class_name: subs
        for class_name, subs in inner.items()
        if subs and not any(folder.own for folder in folders_of[class_name])
    }
    num_in_only = Counter(sub for subs in only.values() for sub in subs)
    shared = any(num > 1 for num in num_in_only.values())
    if len(nested) >= most or (len(only) >= most and nested) or (shared and len(num_in_only) > 1):
        below = Parts(parts.bases, [], {}, [])
        _leaves(below)
        raise data.nested(only, {name for name, _, _ in below.folders}, split=split)
    if variants := variants_of(dict.fromkeys(name for name, _, _ in parts.folders)):
        raise data.variants(variants, split=bool(parts.bases[0].split))
    if only:
        some = sorted((f"{name}/{subs[0]}/" for name, subs in only.items()), key=path_bytes)
        parts.notes.append(
            f"the classes are the upper of {some_listed(some, most=3)}; for the lower ones give"
            " --layout leaves"
        )


def _leaves(parts: Parts) -> None:
    """Make each deepest folder a class; several of the same name are one where it is certain."""
    found = [(base, leaf) for base in parts.bases for leaf in leaves(base.level)]
    apart = _ambiguous(found)
    folders_of: defaultdict[str, list[Folder]] = defaultdict(list)
    for base, leaf in found:
        class_name = leaf.name
        if class_name in apart:
            class_name = leaf.path[len(base.level.path) : -1].replace("/", "-")
        folders_of[class_name].append(leaf)
        parts.folders.append((class_name, base.split, leaf))
    above = {
        name
        for base, leaf in found
        if not base.split
        for name in leaf.path[len(base.level.path) : -len(leaf.name) - 1].split("/")
        if name
    }
    if (roles := roles_of(above)) and len({*roles.values()}) > 1:
        some = sorted((f"{name}/" for name in roles), key=path_bytes)
        parts.notes.append(f"{listed(some)} are not kept as splits")
    num_in_split = Counter((class_name, split) for class_name, split, _ in parts.folders)
    some = []
    for class_name in sorted(
        {name for (name, _), num in num_in_split.items() if num > 1}, key=path_bytes
    ):
        total = counted(sum(leaf.total for leaf in folders_of[class_name]), "file")
        some.append(f"{class_name} ({len(folders_of[class_name])} folders, {total})")
    if some:
        parts.notes.append(f"folders of the same name are one class: {some_listed(some, most=5)}")


def _ambiguous(found: list[tuple[Base, Folder]]) -> set[str]:
    """Return names of deepest folders that need not mean the same class everywhere.

    If all folders that contain deepest ones contain the same, such as fold1/cat, fold1/dog,
    fold2/cat, fold2/dog, they do; if only some do, such as church/indoor and pool/indoor beside
    attic, they do not.
    """
    names_in: defaultdict[str, set[str]] = defaultdict(set)
    for _, leaf in found:
        names_in[leaf.path[: -len(leaf.name) - 1]].add(leaf.name)
    largest = max(names_in.values(), key=len, default=set())
    if all(2 * len(names & largest) >= len(largest) for names in names_in.values()):
        return set()
    num = Counter((base.split, leaf.name) for base, leaf in found)
    return {name for (_, name), times in num.items() if times > 1}


def _empty(parts: Parts) -> list[str]:
    """Return the names of class folders without any file."""
    subs = [sub for base in parts.bases for sub in base.level.subs.values()]
    used = {class_name for class_name, _, _ in parts.folders} | {
        sub.name for sub in subs if sub.total
    }
    names = {sub.name for sub in subs if not (sub.total or sub.total_others)}
    return sorted(names - used, key=path_bytes)


def _places(parts: Parts) -> dict[str, Place]:
    places = {base.folder.path: Place("", base.split) for base in parts.bases}
    for base in parts.bases:
        places |= {one.path: Place("", base.split) for one in base.folder if base.split}
    for folder, why in parts.left_out.values():
        places |= {one.path: Place("", "", why) for one in folder}
    for class_name, split, folder in parts.folders:
        places |= {one.path: Place(class_name, split) for one in folder}
    return places

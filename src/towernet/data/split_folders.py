"""Which folders of a data set are its splits: those named by the user, or by their own names."""

from __future__ import annotations

from typing import NamedTuple

from towernet.data.folders import Folder, class_level, folded, is_leaf
from towernet.data.refusals import Data
from towernet.data.split_names import is_beside, is_holder, is_masks, roles_of
from towernet.data.table import SPLITS, TRAIN
from towernet.errors import ConfigError
from towernet.words import listed, shown

LeftOut = dict[str, tuple[Folder, str]]
"""Folders that are not used, by path, and why."""
NO_CLASS_FOLDERS, NOT_A_SPLIT = "no class folders", "not a split"
NOT_CHOSEN = "not in --splits"


class Base(NamedTuple):
    """A folder whose sub-folders are classes, and the split they belong to."""

    folder: Folder  # as the user knows it: the split's, or the top
    split: str

    @property
    def level(self) -> Folder:
        """The folder whose sub-folders are the classes."""
        return class_level(self.folder)

    @property
    def classes(self) -> list[Folder]:
        """The folders of its classes; none if all pictures are in `images` and the like."""
        subs = self.level.image_subs
        return [] if all(is_holder(sub.name) and is_leaf(sub) for sub in subs) else subs


def given_splits(
    root: Folder,
    top: Folder,
    pairs: list[tuple[str, str]],
    data: Data,
    left_out: LeftOut,
) -> list[Base]:
    """Return the folders that --splits names; the others are left out."""
    by_path = {folder.path: folder for folder in root}

    def find(given: str) -> Folder | None:
        given = given.strip().replace("\\", "/").strip("/").removeprefix("./")
        found = by_path.get(f"{top.path}{given}/") or by_path.get(f"{given}/")
        ending = [one for one in by_path.values() if one.path.endswith(f"/{given}/")]
        return found or (ending[0] if len(ending) == 1 else None)

    bases: list[Base] = []
    for split, several in pairs:
        # A name can contain '+' itself.
        for given in [several] if find(several) else several.split("+"):
            if not given.strip():
                raise ConfigError(
                    f"--splits gives '{shown(several)}' for {split}; write several folders as"
                    " FOLDER+FOLDER"
                )
            found = find(given)
            if found is None or not found.total:
                raise data.no_folder(given, top, empty=found is not None)
            if any(found is base.folder for base in bases):
                raise ConfigError(
                    f"--splits names {shown(found.path[:-1])} 2 times; name each folder once"
                )
            bases.append(Base(found, split))
    chosen = [base.folder.path for base in bases]
    for one in chosen:
        for other in chosen:
            if one != other and one.startswith(other):
                raise data.inside(one, other)
    # What is beside a chosen folder, or beside a folder above one.
    above = {path[: at + 1] for path in chosen for at, char in enumerate(path) if char == "/"}
    for path in {"", *above} - set(chosen):
        for sub in by_path[path].subs.values():
            if sub.path not in above:
                left_out[sub.path] = (sub, NOT_CHOSEN)
    return bases


def named_splits(
    top: Folder,
    layout: str,
    data: Data,
    left_out: LeftOut,
    min_classes: int,
) -> list[Base]:
    """Return the folders that are certainly splits by their names and content, or none."""
    roles = roles_of(sub.name for sub in top.image_subs)
    bases = [Base(sub, roles[sub.name]) for sub in top.image_subs if sub.name in roles]
    beside = [sub for sub in top.image_subs if sub.name not in roles]
    bases.sort(key=lambda base: SPLITS.index(base.split))
    if layout == "splits" and not bases:
        raise data.no_splits(top)
    if not bases:
        return []
    in_order = [*(base.folder for base in bases), *beside]
    with_classes = [base for base in bases if base.classes]
    if not with_classes:
        if layout == "splits" or not beside:
            trained = bases[0].folder.path if bases[0].split == TRAIN else ""
            raise data.no_classes(split=True, where=trained, named=top.image_subs)
        usual = len(beside) > 1 and not any(is_beside(sub.name) for sub in beside)
        if usual and [base.split for base in bases] == [TRAIN]:
            return []  # a class such as train, next to car and plane
        raise data.flat_splits([base.folder for base in bases], beside)
    twice = len({base.split for base in bases}) < len(bases)
    if twice and layout != "splits":
        raise data.like_splits(in_order, "several folders are named like the same split")
    if bases[0].split == TRAIN and not bases[0].classes and min_classes > 1:
        raise data.no_classes(split=True, where=bases[0].folder.path)
    same = [
        sub
        for sub in beside
        if not (is_beside(sub.name) or is_masks(sub.name))
        and _shares(Base(sub, ""), with_classes[0])
    ]
    if layout != "splits" and same and bases[0].split == TRAIN:
        raise data.unnamed_splits([(base.split, base.folder.name) for base in bases], same)
    uncertain = same or not _certain(bases, with_classes, beside)
    if layout != "splits" and uncertain:
        raise data.like_splits(in_order, f"{_named(bases)}, and the others are not")
    for sub in beside:
        left_out[sub.path] = (sub, NOT_A_SPLIT)
    return bases


def _named(bases: list[Base]) -> str:
    verb = "is named like a split" if len(bases) == 1 else "are named like splits"
    return f"{listed([f'{shown(base.folder.name)}/' for base in bases])} {verb}"


def _certain(bases: list[Base], with_classes: list[Base], beside: list[Folder]) -> bool:
    """Whether folders are splits although others are beside them."""
    if not beside:
        return True
    if len(with_classes) > 1 and all(_shares(base, with_classes[0]) for base in with_classes):
        return True
    names = {base.folder.name for base in bases}
    for sub in beside:
        copy = len(names & {one.name for one in class_level(sub).image_subs}) > 1
        if not copy and not is_beside(sub.name) and not _shares(Base(sub, ""), with_classes[0]):
            return False
    return with_classes[0].split == TRAIN


def _shares(one: Base, other: Base) -> bool:
    """Whether most class folders of the smaller one have the names of the other's."""
    names, others = ({folded(sub.name) for sub in base.classes} for base in (one, other))
    return 2 * len(names & others) >= max(1, min(len(names), len(others)))


def with_labels(bases: list[Base], data: Data, left_out: LeftOut, min_classes: int) -> list[Base]:
    """Leave out splits without class folders; refuse classes that are not in the training split.

    Raises:
        DataError: naming the classes that only another split has.
    """
    largest = max(bases, key=lambda base: (base.split == TRAIN, len(base.classes)))
    reference = [base for base in bases if base.split == largest.split]
    known = {folded(sub.name) for base in reference for sub in base.classes}
    if not known:
        raise data.no_classes(split=True, where=largest.folder.path)
    kept = []
    for base in bases:
        names = {folded(sub.name): sub for sub in base.classes}
        unknown = [sub for name, sub in names.items() if name not in known]
        if not names or (len(names) == len(unknown) == 1):
            left_out[base.folder.path] = (base.folder, NO_CLASS_FOLDERS)
        elif unknown and min_classes > 1:
            others = [(one.split, one.folder) for one in bases if one.split != base.split]
            there = [sub for one in reference for sub in one.classes]
            raise data.only_in(base.folder, unknown, others, largest.split, there)
        else:
            kept.append(base)
    return kept

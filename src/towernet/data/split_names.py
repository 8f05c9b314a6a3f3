"""Folder names that mean a split, such as `Training`, `seg_test` or `val-images`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from towernet.data.table import SPLITS, TEST, TRAIN, VALIDATION
from towernet.errors import ConfigError
from towernet.registry import unknown_name
from towernet.words import shown

# What CSVs and --splits call a split.
SPLIT_NAMES = {
    "train": TRAIN,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "test": TEST,
}
_ROLES = SPLIT_NAMES | {
    **dict.fromkeys(("training", "trn", "trainset", "traindata"), TRAIN),
    **dict.fromkeys(("validate", "validating", "dev", "devel", "valset", "validset"), VALIDATION),
    **dict.fromkeys(("testing", "tst", "testset", "testdata", "holdout"), TEST),
    "eval": VALIDATION,
    "evaluation": VALIDATION,
}
# These mean validation only beside a folder of the training split: they can be classes.
_WEAK = {"cv": VALIDATION, "development": VALIDATION}
# Words beside the split's own that say nothing about the content.
_FILLERS = {
    *("set", "sets", "data", "dataset", "datasets", "folder", "dir", "split", "splits", "subset"),
    *("image", "images", "img", "imgs", "picture", "pictures", "photo", "photos", "pic", "pics"),
    *("seg", "raw", "final", "new", "full", "all", "original", "originals", "the", "of", "for"),
    *("class", "classes", "labeled", "labelled", "jpg", "jpeg", "png"),
}
# Folders in a class that hold its images, or images of them, and are no classes themselves.
_HOLDERS = {
    *("image", "images", "img", "imgs", "picture", "pictures", "photo", "photos", "pics", "jpg"),
    *("jpeg", "jpegs", "png", "pngs", "jpegimages", "raw", "original", "originals", "data"),
}
_MASKS = {
    *("mask", "masks", "segmentation", "segmentations", "seg", "segs", "annotation", "label"),
    *("annotations", "labels", "groundtruth", "gt", "trimap", "trimaps", "labelmaps", "contours"),
}
# What folders are called that together are one folder, with numbers.
_PARTS = {"part", "parts", "batch", "chunk", "shard", "fold", "split", "subset", "images", "folder"}
# Folders beside splits that are usually neither a split nor a class.
_SIDE = {
    *("sample", "samples", "example", "examples", "demo", "model", "models", "weights", "notes"),
    *("checkpoint", "checkpoints", "pred", "preds", "predict", "prediction", "predictions"),
    *("result", "results", "output", "outputs", "doc", "docs", "figure", "figures", "plots"),
    *("log", "logs", "runs", "meta", "metadata", "unlabeled", "unlabelled", "unknown", "extra"),
    *("tmp", "temp", "backup", "old", "copy", "readme", "assets", "scripts", "misc", "inference"),
    *("infer", "submission", "submissions", "notebooks"),
}
_VARIANTS = "|".join(
    [
        *("augmented", "augmentation", "augment", "aug", "copy", "kopie", "copie", "copia"),
        *("flipped", "rotated", "mirrored", "cropped", "resized", "duplicate", "duplicates"),
        *("train", "training", "val", "valid", "validation", "test", "testing"),
    ]
)
_LAST_WORD = re.compile(rf"(?P<plain>.+?)[\s_.(-]+(?P<word>{_VARIANTS})[\s_.()-]*\d*\)?$")
_FIRST_WORD = re.compile(rf"(?P<word>{_VARIANTS})(?: of)?[\s_.-]+(?P<plain>.+)$")


def words_of(name: str) -> tuple[str, ...]:
    """Return the words of a name: `seg_train` and `SegTrain` are "seg", "train"; digits drop out.

    Example:
        >>> words_of("Training Data"), words_of("val2017"), words_of("asl-testSet")
        (('training', 'data'), ('val',), ('asl', 'test', 'set'))
    """
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return tuple(re.findall(r"[^\W\d_]+", apart.casefold()))


def role_in(name: str) -> tuple[str, frozenset[str]]:
    """Return the split that a name's words mean, '' if none or several, and its other words."""
    words = words_of(name)
    all_roles = _ROLES | _WEAK
    roles = {all_roles[word] for word in words if word in all_roles}
    others = frozenset(word for word in words if word not in all_roles and word not in _FILLERS)
    return (roles.pop() if len(roles) == 1 else ""), others


def roles_of(names: Iterable[str]) -> dict[str, str]:
    """Return the split of each name that means one; the other names are left out.

    Other words in a name count against it, except those that it shares with a sibling of another
    split: `asl_alphabet_train` beside `asl_alphabet_test`.

    Example:
        >>> roles_of(["seg_train", "Test", "car", "asl_val", "asl_test"])
        {'seg_train': 'train', 'Test': 'test', 'asl_val': 'validation', 'asl_test': 'test'}
    """
    found = {name: (role, others) for name in names for role, others in [role_in(name)] if role}
    roles_with: defaultdict[frozenset[str], set[str]] = defaultdict(set)
    for role, others in found.values():
        roles_with[others].add(role)
    if not any(role == TRAIN for role, _ in found.values()):
        found = {name: it for name, it in found.items() if not _WEAK.keys() & words_of(name)}
    return {
        name: role
        for name, (role, others) in found.items()
        if not others or len(roles_with[others]) > 1
    }


def is_holder(name: str) -> bool:
    """Whether a folder of this name holds a class's images, such as `images`, or their masks."""
    words = words_of(name)
    return "".join(words) in _MASKS or (
        bool(words) and all(word in _HOLDERS or word in _MASKS for word in words)
    )


def is_masks(name: str) -> bool:
    """Whether a folder of this name holds masks or other images that describe images."""
    words = words_of(name)
    return is_holder(name) and ("".join(words) in _MASKS or any(word in _MASKS for word in words))


def is_beside(name: str) -> bool:
    """Whether a folder of this name is usually neither a split nor a class."""
    words = words_of(name)
    plain = [word for word in words if word not in _FILLERS]
    return bool(words) and all(word in _SIDE for word in plain)


def variants_of(names: Iterable[str]) -> dict[str, str]:
    """Return names that are another name with a word such as `augmented`, and that other name.

    A word that means a split counts if several names have one.

    Example:
        >>> variants_of(["cat", "cat_augmented", "dog", "dog - Copy", "tree", "tree_house"])
        {'cat_augmented': 'cat', 'dog - Copy': 'dog'}
    """
    by_name = {name.casefold(): name for name in names}
    found: dict[str, str] = {}
    of_splits: dict[str, str] = {}
    for low, name in by_name.items():
        match = _LAST_WORD.match(low) or _FIRST_WORD.match(low)
        if match and (plain := by_name.get(match["plain"])):
            (of_splits if match["word"] in _ROLES else found)[name] = plain
    return found | of_splits if len(of_splits) > 1 or 2 * len(of_splits) == len(by_name) else found


def are_parts(names: Sequence[str]) -> bool:
    """Whether names differ only in numbers and mean parts of one folder: `part_1`, `part_2`.

    Example:
        >>> are_parts(["images_part_1", "images_part_2"]), are_parts(["digit 1", "digit 2"])
        (True, False)
    """
    words = {words_of(name) for name in names}
    return len(names) > 1 and len(words) == 1 and bool(_PARTS & set(words.pop()))


def parse_splits(given: str) -> list[tuple[str, str]]:
    """Read `train=Training,test=Testing` as (split, folder) pairs; `train=a+b` is not divided.

    Raises:
        ConfigError: it has another form.
        UnknownNameError: there is no such split.
    """
    pairs: list[tuple[str, str]] = []
    for part in given.split(","):
        split, equals, folder = (word.strip() for word in part.partition("="))
        if not (split and equals and folder):
            raise ConfigError(
                f"--splits is '{shown(given)}'; write it as train=FOLDER,test=FOLDER, with the"
                " folders in the data; several of one split are train=FOLDER+FOLDER"
            )
        if split.lower() not in SPLIT_NAMES:
            raise unknown_name("split", shown(split), SPLITS)
        pairs.append((SPLIT_NAMES[split.lower()], folder))
    return pairs

"""What the sample table says about copies: leaks between given splits, and images that look alike.

A leak is an image of a given split with a copy in an earlier one, on which a network is trained.
The marks are those of `copies`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import groupby

import pandas as pd

from towernet.data.copies import (
    ACROSS_SPLITS,
    CHANGED_COPIES,
    KINDS,
    MIRRORED_OTHER_CLASS,
    TURNED_OTHER_CLASS,
)
from towernet.data.table import IGNORED, SPLITS, TEST, TRAIN, USED, VALIDATION
from towernet.records.leaks import Copy, Leak
from towernet.words import counted, listed, shown

MAX_LISTED = 1000
MAX_SHARE_AUGMENTED = 0.2
_PAIRS = ((TEST, TRAIN), (TEST, VALIDATION), (VALIDATION, TRAIN))
_NOUNS = {TRAIN: "training"}


def leaks(table: pd.DataFrame) -> tuple[Leak, ...]:
    """Return the copies across given splits, by the pair of splits and the kind."""
    found = _involved(table)
    of_split: Counter[str] = Counter()
    images: Counter[tuple[str, str, str]] = Counter()
    left_out: Counter[tuple[str, str, str]] = Counter()
    columns = (found["given_split"], found["reason"], found["notes"])
    for (split, reason, notes), num in Counter(zip(*columns, strict=True)).items():
        of_split[split or TRAIN] += num
        for kind, other in _across(notes):
            images[split or TRAIN, other, kind] += num
            if reason == ACROSS_SPLITS:
                left_out[other, split or TRAIN, kind] += num
    return tuple(
        Leak(
            split=split,
            other=other,
            kind=kind,
            images=images[split, other, kind],
            of=of_split[split],
            left_out=left_out[split, other, kind],
            done=f"the copies in {other} are left out",
        )
        for split, other in _PAIRS
        for kind in dict.fromkeys(map(_family, KINDS))
        if images[split, other, kind]
    )


def _involved(table: pd.DataFrame) -> pd.DataFrame:
    """Return the images that are used, or would be without their copy in another split."""
    return table[(table["status"] == USED) | (table["reason"] == ACROSS_SPLITS)]


def _across(notes: str) -> Iterable[tuple[str, str]]:
    """Yield the kind and the split of each note about a copy in another split."""
    for note in notes.split(","):
        kind, _, split = note.rpartition("_IN_")
        if kind in KINDS and split.lower() in SPLITS:
            yield _family(kind), split.lower()


def _family(kind: str) -> str:
    """Return a kind in words, without the angle.

    Example:
        >>> _family("MIRRORED_TURNED_90")
        'mirrored'
    """
    words = kind.partition("_")[0].lower() if kind.startswith(("TURNED", "MIRRORED")) else kind
    return words.lower().replace("_", " ")


def leak_words(found: Sequence[Leak]) -> list[str]:
    """Return a sentence for each pair of splits with copies in both.

    Example:
        >>> leak = Leak(split="test", other="train", kind="same bytes", images=3, of=9, left_out=4,
        ...     done="the copies in train are left out")
        >>> leak_words([leak])[0]
        '3 of the 9 test images are copies of training images (3 the same bytes): these 4 training images are left out'
    """  # noqa: E501
    sentences = []
    for (split, other), some in groupby(found, lambda leak: (leak.split, leak.other)):
        kinds = list(some)
        num, left_out = sum(leak.images for leak in kinds), sum(leak.left_out for leak in kinds)
        nouns = _NOUNS.get(split, split), _NOUNS.get(other, other)
        by_kind = listed([f"{leak.images:,} {_kinds_words(leak)}" for leak in kinds])
        verb, copies = ("is", "a copy") if num == 1 else ("are", "copies")
        those, are = ("this", "is") if left_out == 1 else ("these", "are")
        sentences.append(
            f"{num:,} of the {kinds[0].of:,} {nouns[0]} images {verb} {copies} of {nouns[1]} images"
            f" ({by_kind}): {those} {counted(left_out, f'{nouns[1]} image')} {are} left out"
        )
    return sentences


def _kinds_words(leak: Leak) -> str:
    if leak.kind == "near duplicate":
        return leak.kind if leak.images == 1 else "near duplicates"
    return f"the {leak.kind}" if leak.kind.startswith("same") else leak.kind


def left_out(table: pd.DataFrame) -> tuple[Copy, ...]:
    """Return the first of the images that are left out as copies of images in a later split."""
    is_copy = (table["status"] == IGNORED) & (table["reason"] == ACROSS_SPLITS)
    return _copies(table[is_copy].head(MAX_LISTED))


def turned_across(table: pd.DataFrame) -> tuple[Copy, ...]:
    """Return the images that are turned or mirrored copies of an image of another class."""
    notes = table["notes"].astype(str)
    is_turned = notes.str.contains(TURNED_OTHER_CLASS) | notes.str.contains(MIRRORED_OTHER_CLASS)
    return _copies(table[(table["status"] == USED) & is_turned])


def _copies(rows: pd.DataFrame) -> tuple[Copy, ...]:
    columns = (rows[name] for name in ("path", "class_name", "notes", "detail"))
    return tuple(
        Copy(path=path, class_name=class_name, kind=_kind(notes), detail=detail)
        for path, class_name, notes, detail in zip(*columns, strict=True)
    )


def _kind(notes: str) -> str:
    """Return the note that says what an image is a copy of, '' without one."""
    for note in notes.split(","):
        if note in (*KINDS, MIRRORED_OTHER_CLASS, TURNED_OTHER_CLASS):
            return note
        if note.rpartition("_IN_")[0] in KINDS:
            return note
    return ""


def tied(table: pd.DataFrame) -> pd.DataFrame:
    """Return the used images in clusters of at least two of them."""
    used = table[(table["status"] == USED) & (table["cluster"] != "")]
    return used[used["cluster"].astype(object).duplicated(keep=False)]


def alike(table: pd.DataFrame) -> tuple[tuple[Copy, ...], ...]:
    """Return the images of the first clusters; in each, the others are copies of the first."""
    clusters: defaultdict[str, list[Copy]] = defaultdict(list)
    rows, num = tied(table), 0
    columns = (rows[name] for name in ("cluster", "path", "class_name", "notes", "detail"))
    for cluster, path, class_name, notes, detail in zip(*columns, strict=True):
        if num >= MAX_LISTED and cluster not in clusters:
            continue
        kind = next((note for note in notes.split(",") if note in KINDS), "")
        copy = Copy(path=path, class_name=class_name, kind=kind, detail=detail if kind else "")
        clusters[cluster].append(copy)
        num += 1
    return tuple(map(tuple, clusters.values()))


def augmented(table: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """Return the classes of which over a fifth has turned, mirrored, lighter or darker copies.

    Returns:
        For each such class, how many images have such a copy, and how many the class has.
    """
    found = _involved(table)
    num = Counter(found["class_name"])
    has_changed = found["notes"].astype(str).str.contains(CHANGED_COPIES)
    return {
        class_name: (num_changed, num[class_name])
        for class_name, num_changed in Counter(found["class_name"][has_changed]).items()
        if num_changed > MAX_SHARE_AUGMENTED * num[class_name]
    }


def augmented_words(found: dict[str, tuple[int, int]]) -> str:
    """Return a warning about classes whose images were augmented before; '' if there are none."""
    if not found:
        return ""
    named = [f"{num:,} of the {of:,} of {shown(name)}" for name, (num, of) in found.items()]
    more = f" and those of {len(named) - 3:,} more classes" if len(named) > 3 else ""
    return (
        f"these images look augmented already: {', '.join(named[:3])}{more} have copies that are"
        " turned, mirrored, lighter or darker; pass the original images if you have them, because"
        " copies add nothing new and make the data look larger than it is"
    )


def with_copies(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with left-out copies as used, except identical files.

    A trained network is evaluated on every image, however the splits of the data divide them.
    """
    across = (table["reason"] == ACROSS_SPLITS).to_numpy(bool)
    known = set(table["content_id"][table["status"] == USED])
    back = across & ~table["content_id"].isin(known).to_numpy(bool)
    if not back.any():
        return table
    return table.assign(
        **{
            name: pd.Series(table[name].to_numpy(dtype=object, copy=True), table.index).mask(
                back, value
            )
            for name, value in (("status", USED), ("reason", ""), ("detail", ""))
        }
    )

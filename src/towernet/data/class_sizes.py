"""Classes with too few images: refused by name, or left out if the user says so."""

from __future__ import annotations

import numpy as np
import pandas as pd

from towernet.data.table import IGNORED, QUARANTINED, USED, path_bytes
from towernet.errors import DataError
from towernet.words import counted, shown, some_listed

MIN_IMAGES = 3  # of a class: one for each split


def leave_out_small(table: pd.DataFrame, min_images: int | None) -> pd.DataFrame:
    """Return the table without the classes of fewer usable images: they are ignored (FEW_IMAGES).

    Args:
        table: From `check`.
        min_images: The fewest usable images of a class; None leaves out none.
    """
    if min_images is None:
        return table
    used = (table["status"] == USED).to_numpy()
    codes, _ = pd.factorize(table["class_name"].to_numpy(dtype=object))
    num_used = np.bincount(codes[used], minlength=codes.max(initial=0) + 1)[codes]
    few = used & (num_used < min_images)
    details = [
        f"its class has {counted(num, 'usable image')} and --min-images is {min_images:,}"
        for num in num_used[few].tolist()
    ]
    table = table.copy()
    for column, value in (("status", IGNORED), ("reason", "FEW_IMAGES"), ("detail", details)):
        values = table[column].to_numpy(dtype=object, copy=True)  # they may be categories
        values[few] = value
        table[column] = pd.Series(values, index=table.index, dtype=object)
    return table


def left_out_classes(table: pd.DataFrame, min_images: int | None) -> set[str]:
    """Return the classes that `min_images` leaves out: those without a used image."""
    if min_images is None:
        return set()
    names = table["class_name"].to_numpy(dtype=object)
    return set(names) - set(names[(table["status"] == USED).to_numpy()]) - {""}


def require_trainable(table: pd.DataFrame, min_images: int | None = None) -> None:
    """Refuse fewer than two classes, or classes with fewer than three usable images.

    Args:
        table: From `check`.
        min_images: What `leave_out_small` was called with: the classes it left out do not count.

    Raises:
        DataError: naming the classes, their images and how many were quarantined.
    """
    left_out = left_out_classes(table, min_images)
    codes, texts = pd.factorize(table["class_name"].to_numpy(dtype=object))
    names: list[str] = texts.tolist()
    num_used = np.bincount(codes[(table["status"] == USED).to_numpy()], minlength=len(names))
    num_quarantined = np.bincount(
        codes[(table["status"] == QUARANTINED).to_numpy()], minlength=len(names)
    )
    classes = [i for i, name in enumerate(names) if name and name not in left_out]
    classes.sort(key=lambda i: path_bytes(names[i]))
    if len(classes) < 2:
        found = f"one class, {shown(names[classes[0]])}," if classes else "no class"
        more = (
            f" ({counted(len(left_out), 'other')} left out by --min-images {min_images})"
            if left_out
            else ""
        )
        raise DataError(
            f"the data has {found} and at least two are needed{more}; add images of another class"
        )
    few = [i for i in classes if num_used[i] < MIN_IMAGES]
    if not few:
        return
    enough = len(classes) - len(few) >= 2
    it = "it" if len(few) == 1 else "them"
    quarantined = int(num_quarantined[few].sum())
    todo = "fix the quarantined files or add images" if quarantined else "add images"
    if enough:
        todo += f", or leave {it} out with --min-images {MIN_IMAGES}"
    if len(few) == 1:
        raise DataError(
            f"class {shown(names[few[0]])} has {counted(int(num_used[few[0]]), 'usable image')}"
            f" ({num_quarantined[few[0]]} quarantined) and needs {MIN_IMAGES}, one for each"
            f" split; {todo}"
        )
    some = [f"{names[i]} ({num_used[i]})" for i in few]
    also = f" ({counted(quarantined, 'file')} of theirs quarantined)" if quarantined else ""
    raise DataError(
        f"{len(few):,} of {len(classes):,} classes have fewer than {MIN_IMAGES} usable images, one"
        f" for each split: {some_listed(some)}{also}; {todo}"
    )

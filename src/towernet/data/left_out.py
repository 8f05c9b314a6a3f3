"""What is left out of a data set, in one line that is printed before anything is trained."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd

from towernet.data.encodings import AS_BEFORE
from towernet.data.leaks import augmented, augmented_words, leak_words, leaks
from towernet.data.source import Source
from towernet.data.table import USED
from towernet.records.reading import options_of
from towernet.words import counted, listed, percent, shown

MUCH_CROPPED = 0.4
"""From this mean share of the area on, cropping is mentioned. (Photos of 3 : 2 lose a third.)"""
_MOST_REASONS = 6

# What the user wants to leave out, or what every folder contains.
_EXPECTED = ("HIDDEN", "NOT_SAMPLED")
# In a sentence after a count: for one file, and for several if that differs.
_REASONS = {
    "ADDED_LATER": ("added after the start",),
    "ANNOTATION": ("annotation file", "annotation files"),
    "CORRUPT": ("cannot be decoded",),
    "CRASH": ("crashes the decoder", "crash the decoder"),
    "DUPLICATE": ("copy of another image", "copies of another image"),
    "DUPLICATE_ACROSS_SPLITS": (
        "copy of an image in a later split",
        "copies of an image in a later split",
    ),
    "DUPLICATE_NAME": ("twice in the archive",),
    "EMPTY": ("empty",),
    "FEW_IMAGES": ("in a class with too few images", "in classes with too few images"),
    "GONE": ("removed since the start",),
    "LABEL_CONFLICT": ("in two classes",),
    "LEFT_OUT": ("in a folder that is left out", "in folders that are left out"),
    "MASK": ("mask", "masks"),
    "MISSING": ("missing",),
    "NOT_AN_IMAGE": ("not an image by its name", "not images by their names"),
    "NO_CLASS": ("without a class",),
    "NO_CLASS_FOLDERS": ("in a split without class folders", "in splits without class folders"),
    "PASSWORD": ("protected by a password",),
    "PIXELS": ("with too many pixels",),
    "RESOURCE": ("needs too much memory or time", "need too much memory or time"),
    "SHAPE": ("too small or too narrow",),
    "SPECIAL": ("pipe, socket or device", "pipes, sockets or devices"),
    "SYMLINK": ("symbolic link", "symbolic links"),
    "TRUNCATED": ("truncated",),
    "UNREADABLE": ("unreadable",),
}


def before_training(table: pd.DataFrame, source: Source, resize: str) -> list[str]:
    """Return the sentences about a data set that are printed before anything is trained.

    Args:
        table: The sample table.
        source: What it was made from.
        resize: The rule of `decode.fit`.
    """
    words = left_out_words(table, source), augmented_words(augmented(table))
    return [*leak_words(leaks(table)), *filter(None, (*words, crop_words(table, resize)))]


def left_out_words(table: pd.DataFrame, source: Source) -> str:
    """Return how many files are not used and why, and the command that lists them; '' if none.

    Args:
        table: The sample table.
        source: What it was made from.
    """
    unused = table[(table.status != USED) & ~table.reason.isin(_EXPECTED)]
    if not len(unused):
        return ""
    num = Counter(map(_reason, unused.reason, unused.detail))
    reasons = [
        f"{count:,} {words[0] if count == 1 else words[-1]}"
        for words, count in num.most_common(_MOST_REASONS)
    ]
    if rest := sum(count for _, count in num.most_common()[_MOST_REASONS:]):
        reasons.append(f"{rest:,} for other reasons")
    found = int((~table.reason.isin(_EXPECTED)).sum())
    options = source.options
    # "As before" is no option.
    if options.encoding == AS_BEFORE:
        options = replace(options, encoding=None)
    if options.masks == AS_BEFORE:
        options = replace(options, masks=None)
    command = ["towernet", "check", shown(source.data), *options_of(options)]
    verb = "is" if len(unused) == 1 else "are"
    return (
        f"{len(unused):,} of {counted(found, 'file')} {verb} not used: {listed(reasons)};"
        f" `{shlex.join(command)}` lists them"
    )


def _reason(reason: str, detail: str) -> tuple[str, ...]:
    """Return a reason in words, for one file and for several."""
    if reason == "FORMAT":  # the detail begins with the format's name
        return (shown(detail.partition(":")[0]),)
    return _REASONS.get(reason, (reason.lower().replace("_", " "),))


def crop_words(table: pd.DataFrame, resize: str) -> str:
    """Return how much of the images the centre crop leaves out if it is much, else ''.

    Args:
        table: The sample table.
        resize: The rule of `decode.fit`.
    """
    used = table[table.status == USED]
    if resize != "crop" or not len(used):
        return ""
    sides = np.sort(used[["width", "height"]].to_numpy(), axis=1)
    share = float(1 - (sides[:, 0] / sides[:, 1]).mean())
    if share < MUCH_CROPPED:
        return ""
    return (
        "of each image only the centre square is used, which leaves out"
        f" {percent(share, 0)} of the area on average; use all of it with --resize pad"
    )

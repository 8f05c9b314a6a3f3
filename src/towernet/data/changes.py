"""Detection of images that changed since a run or a comparison was started, and how to continue.

A network must never be tested on an image it was trained on. So training that continues with
changed images keeps the original splits: removed images are dropped, new images stay out.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from towernet.data.class_sizes import MIN_IMAGES
from towernet.data.table import (
    COLUMNS,
    IGNORED,
    QUARANTINED,
    USED,
    make_table,
    path_bytes,
    read_table,
)
from towernet.errors import DataError
from towernet.words import composed, counted, shown

GONE, ADDED_LATER = "GONE", "ADDED_LATER"
_WORDS = {
    "broken": "no longer usable",
    "moved": "moved to another class",
    "disputed": "now in two classes",
}


class Changes(NamedTuple):
    """Paths of changed images, each in one list.

    Args:
        removed: No longer there.
        added: Not there before, or not usable then.
        changed: Same name, different bytes.
        broken: Same name, different bytes, no longer usable.
        moved: Now in another class.
        disputed: Now in two classes.
    """

    removed: list[str]
    added: list[str]
    changed: list[str]
    broken: list[str]
    moved: list[str]
    disputed: list[str]

    def words(self) -> str:
        """Return how many of each there are, with the name of the first."""
        return ", ".join(
            f"{counted(len(paths), 'image')} {_WORDS.get(kind, kind)} ({shown(paths[0])}"
            f"{', …' if len(paths) > 1 else ''})"
            for kind, paths in self._asdict().items()
            if paths
        )


def changes(before: pd.DataFrame, now: pd.DataFrame) -> Changes:
    """Compare the images used before with those found now; copies and sampling do not matter."""
    found = {
        path: (content_id, composed(class_name), status)
        for path, content_id, class_name, status in zip(
            now.path, now.content_id, now.class_name, now.status, strict=True
        )
    }
    known = set(zip(before.path, before.content_id, strict=True))
    found_in = {
        content_id: class_name
        for content_id, class_name, status in found.values()
        if status != QUARANTINED
    }
    differs = Changes([], [], [], [], [], [])
    arrived = set()
    used = before[before.status == USED]
    for path, content_id, class_name in zip(
        used.path, used.content_id, used.class_name, strict=True
    ):
        class_name = composed(class_name)
        content_now, class_now, status = found.get(path, ("", "", IGNORED))
        if content_now == content_id and class_now == class_name and status != QUARANTINED:
            continue
        if content_now == content_id and status == QUARANTINED:
            differs.disputed.append(path)
        elif found_in.get(content_id, class_name) != class_name:
            differs.moved.append(path)
            arrived.add(content_id)
        elif status == QUARANTINED:
            differs.broken.append(path)
        elif content_now:
            differs.changed.append(path)
        else:
            differs.removed.append(path)
    # A file that replaced a removed image was accepted together with the removal.
    replaced = {*differs.changed, *before.path[before.reason == GONE]}
    differs.added.extend(
        path
        for path, (content_id, _, status) in found.items()
        if status == USED
        and (path, content_id) not in known
        and content_id not in arrived
        and path not in replaced
    )
    return differs


def reconcile(
    folder: Path, source_name: str, now: pd.DataFrame, *, accept: bool
) -> tuple[pd.DataFrame, str]:
    """Return the table to continue with in a folder, and a description of what changed.

    What was started continues with its own table, since the rules of checking may have changed.

    Args:
        folder: Of a run or a comparison; its `samples.parquet` has the images it was started with.
        source_name: Name of the images.
        now: The table of the images found now, without splits.
        accept: Continue with the remaining images.

    Raises:
        DataError: something changed and that is not accepted, or too little is left.
    """
    path = folder / "samples.parquet"
    if not path.exists():
        signs = ["last", "runs", "trials"]
        if (folder / "protocol.toml").exists():  # of a comparison, whose trials leave no folder
            signs.append("ledger.jsonl")
        if any((folder / name).exists() for name in signs):
            raise DataError(
                f"{path}, which stores the split of each image, is missing; restore it, or choose"
                " another --out"
            )
        return now, ""
    before = read_table(path)
    found = changes(before, now)
    if not any(found):
        return before, ""
    words = f"{source_name} changed since {folder} was started: {found.words()}"
    before_classes, classes = (
        {*map(composed, table.class_name[table.status == USED].unique())} for table in (before, now)
    )
    if gone := sorted(before_classes - classes, key=path_bytes):
        raise DataError(
            f"{words}; the class {shown(gone[0])} is missing, and a network's classes cannot"
            " change; restore it, or choose another --out"
        )
    if new := sorted(classes - before_classes, key=path_bytes):
        words += f"; {shown(new[0])} is a new class"
    if not accept:
        raise DataError(
            f"{words}; restore the images, choose another --out, or continue with the remaining"
            " images, each in its split, with --accept-data-change"
        )
    return _left(before, now, found), words


def _left(before: pd.DataFrame, now: pd.DataFrame, found: Changes) -> pd.DataFrame:
    """Return the original table with removed images quarantined and new images ignored."""
    came = set(found.added)  # includes images that were there before and not usable then
    gone = set().union(*found) - came
    rows = [row for row in before.to_dict("records") if row["path"] not in came]
    for row in rows:
        row["split"] = ""
        if row["status"] == USED and row["path"] in gone:
            row["status"], row["reason"] = QUARANTINED, GONE
            row["detail"] = "used until it was removed, moved or changed; the change was accepted"
    added = set(now.path[now.status == USED]) - {row["path"] for row in rows}
    for row in now[now.path.isin(added)].to_dict("records"):
        row["status"], row["reason"], row["split"] = IGNORED, ADDED_LATER, ""
        row["detail"] = "added after the splits were drawn"
        rows.append(row)
    left = Counter(row["class_name"] for row in rows if row["status"] == USED)
    for class_name in {row["class_name"] for row in rows if row["reason"] == GONE}:
        if left[class_name] < MIN_IMAGES:
            raise DataError(
                f"class {shown(class_name)} has {left[class_name]} of its original images left and"
                f" needs {MIN_IMAGES}; restore them, or choose another --out"
            )
    rows.sort(key=lambda row: path_bytes(row["path"]))
    return make_table({name: [row[name] for row in rows] for name in COLUMNS})


def unmark_removed(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with removed images as used: splits are drawn from all original images."""
    gone = table.reason == GONE
    return table.assign(status=table.status.where(~gone, USED)) if gone.any() else table


def mark_removed(table: pd.DataFrame) -> pd.DataFrame:
    """Undo `unmark_removed`, once the splits are drawn."""
    gone = table.reason == GONE
    if not gone.any():
        return table
    return table.assign(
        status=table.status.where(~gone, QUARANTINED), split=table.split.where(~gone, "")
    )

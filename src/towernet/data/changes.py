"""Whether the images are still those that something was begun with, and what to do if not.

A network must never be tested on an image it was trained on. So what goes on with changed images
keeps the splits of the first day: what is gone is missing from them, what is new stays out.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from towernet.data.splits import MIN_IMAGES
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
from towernet.words import counted, shown

GONE, ADDED_LATER = "GONE", "ADDED_LATER"
_WORDS = {
    "broken": "no longer usable",
    "moved": "moved to another class",
    "disputed": "now in two classes",
}


class Changes(NamedTuple):
    """Paths, each in one list.

    Args:
        removed: Not there any more.
        added: Not there before, or not usable then.
        changed: Other bytes under the same name.
        broken: The same, and no longer usable.
        moved: Now in another class.
        disputed: Now in another class too.
    """

    removed: list[str]
    added: list[str]
    changed: list[str]
    broken: list[str]
    moved: list[str]
    disputed: list[str]

    def words(self) -> str:
        """Say how many of each there are, with the first one's name."""
        return ", ".join(
            f"{counted(len(paths), 'image')} {_WORDS.get(kind, kind)} ({shown(paths[0])}"
            f"{', …' if len(paths) > 1 else ''})"
            for kind, paths in self._asdict().items()
            if paths
        )


def changes(before: pd.DataFrame, now: pd.DataFrame) -> Changes:
    """Compare what was used with what is found; copies and sampling play no part."""
    found = {
        path: (content_id, class_name, status)
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
    # What has taken the place of a picture that is gone was accepted with it.
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
    """Return the table to go on with in a folder, and what changed, in words.

    Args:
        folder: What goes on; its `samples.parquet` says what it was begun with.
        source_name: What the images are called.
        now: The table of what is found, without splits.
        accept: Go on with the images that are left.

    Raises:
        DataError: something changed and that is not accepted, or too little is left.
    """
    path = folder / "samples.parquet"
    if not path.exists():
        if any((folder / name).exists() for name in ("last", "runs", "trials")):
            raise DataError(
                f"{path} is missing, and it says which images were for what; restore it, or choose"
                " another --out"
            )
        return now, ""
    before = read_table(path)
    found = changes(before, now)
    if not any(found):
        return (before if before.reason.isin((GONE, ADDED_LATER)).any() else now), ""
    words = f"{source_name} is not what {folder} was begun with: {found.words()}"
    before_classes, classes = ({*table.class_name[table.status == USED]} for table in (before, now))
    if gone := sorted(before_classes - classes, key=path_bytes):
        raise DataError(
            f"{words}; the class {shown(gone[0])} is gone, and a network's classes cannot change:"
            " put it back, or choose another --out"
        )
    if new := sorted(classes - before_classes, key=path_bytes):
        words += f"; {shown(new[0])} is a new class"
    if not accept:
        raise DataError(
            f"{words}; put things back, choose another --out, or go on with the images that are"
            " left, each in its split, by --accept-data-change"
        )
    return _left(before, now, found), words


def _left(before: pd.DataFrame, now: pd.DataFrame, found: Changes) -> pd.DataFrame:
    """Return the first day's table with what is gone quarantined and what is new ignored."""
    came = set(found.added)  # also what was there before and could not be used then
    gone = set().union(*found) - came
    rows = [row for row in before.to_dict("records") if row["path"] not in came]
    for row in rows:
        row["split"] = ""
        if row["status"] == USED and row["path"] in gone:
            row["status"], row["reason"] = QUARANTINED, GONE
            row["detail"] = "used until it was taken away, moved or changed; that was accepted"
    added = set(now.path[now.status == USED]) - {row["path"] for row in rows}
    for row in now[now.path.isin(added)].to_dict("records"):
        row["status"], row["reason"], row["split"] = IGNORED, ADDED_LATER, ""
        row["detail"] = "came after the splits were drawn"
        rows.append(row)
    left = Counter(row["class_name"] for row in rows if row["status"] == USED)
    for class_name in {row["class_name"] for row in rows if row["reason"] == GONE}:
        if left[class_name] < MIN_IMAGES:
            raise DataError(
                f"class {shown(class_name)} has {counted(left[class_name], 'image')} left of those"
                f" it was begun with and needs {MIN_IMAGES}; put them back, or choose another"
                " --out"
            )
    rows.sort(key=lambda row: path_bytes(row["path"]))
    return make_table({name: [row[name] for row in rows] for name in COLUMNS})


def revive(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table as it was before anything was gone: the splits are drawn from that."""
    gone = table.reason == GONE
    return table.assign(status=table.status.where(~gone, USED)) if gone.any() else table


def bury(table: pd.DataFrame) -> pd.DataFrame:
    """Undo `revive`, once the splits are drawn."""
    gone = table.reason == GONE
    if not gone.any():
        return table
    return table.assign(
        status=table.status.where(~gone, QUARANTINED), split=table.split.where(~gone, "")
    )

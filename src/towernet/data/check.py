"""Every file found is read, hashed and decoded whole; the answer is the sample table.

The user's files are only read. What was found is remembered under a hash of every file's bytes,
so that the next look at the same images only hashes them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from towernet import files
from towernet.data import decode, duplicates
from towernet.data.examine import Examined, examine
from towernet.data.source import Source, SourceFile
from towernet.data.table import (
    COLUMNS,
    IGNORED,
    QUARANTINED,
    USED,
    make_table,
    path_bytes,
    read_table,
    shown,
    write_table,
)
from towernet.data.workers import TIME_LIMIT_S, Died, run
from towernet.errors import DataError

Progress = Callable[[str, int, int], None] | None

VERSION = f"1, decoder {decode.VERSION}, duplicates {duplicates.VERSION}"
NUM_REMEMBERED = 64

_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".jpe", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif", ".avifs"),
}
_EMPTY_ROW: dict[str, Any] = {name: kind() for name, kind in COLUMNS.items()}
# Verdicts that tell of the machine as much as of the file: asked anew each time.
_NOT_REMEMBERED = {"RESOURCE", "CRASH", "UNREADABLE"}


def check(
    source: Source,
    *,
    workers: int,
    progress: Progress = None,
    time_limit_s: float = TIME_LIMIT_S,
) -> pd.DataFrame:
    """Decode every file of a source once and say what each one is good for.

    Args:
        source: From `open_source`.
        workers: How many processes decode; the table does not depend on it.
        progress: Called as progress(what, done, total).
        time_limit_s: A file that takes longer is quarantined (RESOURCE).

    Returns:
        The sample table, without splits: used + quarantined + ignored is everything found.

    Raises:
        DataError: a file changed while it was read.
    """
    found = sorted(source.files, key=lambda file: path_bytes(file.path))
    identities = _identify(found, workers, progress)
    remembered = files.cache_folder() / "tables" / f"{_key(source, found, identities)}.parquet"
    try:
        table = read_table(remembered)
        with contextlib.suppress(OSError):  # a cache shared for reading only
            os.utime(remembered)
        return table
    except DataError:  # not seen before, or damaged: look again
        pass
    examined = _examine(found, workers, progress, time_limit_s)
    rows = []
    for file, (content_id, num_bytes), one in zip(found, identities, examined, strict=True):
        if one.content_id not in ("", content_id):
            raise DataError(f"{shown(file.path)} changed while it was read; run the command again")
        rows.append(_row(file, one._replace(content_id=content_id, num_bytes=num_bytes)))
    _sort_out_copies(rows)
    _tie(rows, examined)
    rows += [_EMPTY_ROW | one._asdict() | {"status": QUARANTINED} for one in source.unreadable]
    rows += [_EMPTY_ROW | one._asdict() | {"status": IGNORED} for one in source.ignored]
    rows.sort(key=lambda row: path_bytes(row["path"]))
    table = make_table({name: [row[name] for row in rows] for name in COLUMNS})
    if not _NOT_REMEMBERED & set(table.reason):
        write_table(remembered, table)
        _forget_old(remembered.parent)
    return table


def _identify(found: list[SourceFile], workers: int, progress: Progress) -> list[tuple[str, int]]:
    """Return each file's content id and size; ('', 0) for one that cannot be read."""

    def identify(file: SourceFile) -> tuple[str, int]:
        try:
            return files.sha256(file.file), file.file.stat().st_size
        except OSError:  # `examine` meets it too, and says so
            return "", 0

    identities = []
    with ThreadPoolExecutor(workers) as pool:
        for identity in pool.map(identify, found):
            identities.append(identity)
            if progress:
                progress("reading files", len(identities), len(found))
    return identities


def _key(source: Source, found: list[SourceFile], identities: list[tuple[str, int]]) -> str:
    """Return a hash of everything that the table is made from."""
    known = [
        (file.path, file.class_name, file.given_split, file.group, content_id)
        for file, (content_id, _) in zip(found, identities, strict=True)
    ]
    text = json.dumps([VERSION, known, source.unreadable, source.ignored])
    return hashlib.sha256(text.encode()).hexdigest()


def _examine(
    found: list[SourceFile], workers: int, progress: Progress, time_limit_s: float
) -> list[Examined]:
    answers = [Examined()] * len(found)
    images = [file.file for file in found]
    for done, (position, answer) in enumerate(
        run(examine, images, workers=workers, time_limit_s=time_limit_s), start=1
    ):
        if isinstance(answer, Died):
            answer = Examined(reason=answer.reason, detail=answer.detail)
        answers[position] = answer
        if progress:
            progress("decoding images", done, len(found))
    return answers


def _row(file: SourceFile, examined: Examined) -> dict[str, Any]:
    reason, detail, notes = examined.reason, examined.detail, list(examined.notes)
    if not reason and not file.class_name:
        reason, detail = "NO_CLASS", "not in the folder of any class; move it into one"
    suffix = PurePosixPath(file.path).suffix.lower()
    if suffix and examined.format and suffix not in _SUFFIXES[examined.format]:
        notes.append("WRONG_EXTENSION")
    return _EMPTY_ROW | {
        "path": file.path,
        "class_name": file.class_name,
        "content_id": examined.content_id,
        "num_bytes": examined.num_bytes,
        "width": examined.width,
        "height": examined.height,
        "mode": examined.mode,
        "format": examined.format,
        "group": file.group,
        "given_split": file.given_split,
        "status": QUARANTINED if reason else USED,
        "reason": reason,
        "detail": detail,
        "notes": ",".join(notes),
    }


def _sort_out_copies(rows: list[dict[str, Any]]) -> None:
    """Of the same bytes keep the first in one class, and none in two classes."""
    copies: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["status"] == USED:
            copies.setdefault(row["content_id"], []).append(row)
    for same in copies.values():
        if len({row["class_name"] for row in same}) > 1:
            for row in same:
                other = next(one for one in same if one["class_name"] != row["class_name"])
                row["status"], row["reason"] = QUARANTINED, "LABEL_CONFLICT"
                row["detail"] = f"the same bytes as {other['path']}; keep it in one class only"
        else:
            for row in same[1:]:
                row["status"], row["reason"] = IGNORED, "DUPLICATE"
                row["detail"] = f"the same bytes as {same[0]['path']}"


def _tie(rows: list[dict[str, Any]], examined: list[Examined]) -> None:
    """Give near duplicates their cluster, and say of which classes or lumps they are."""
    used = [(row, one) for row, one in zip(rows, examined, strict=True) if row["status"] == USED]
    near = duplicates.find(
        [row["content_id"] for row, _ in used],
        [one.pixel_id for _, one in used],
        [one.thumbnail for _, one in used],
        [row["class_name"] for row, _ in used],
    )
    for position, (row, _) in enumerate(used):
        row["cluster"] = near.clusters[position]
        notes = [row["notes"]] if row["notes"] else []
        notes += ["NEAR_DUPLICATE_LUMP"] if near.in_lump[position] else []
        notes += ["NEAR_DUPLICATE_OTHER_CLASS"] if near.across_classes[position] else []
        row["notes"] = ",".join(notes)


def _forget_old(folder: Path) -> None:
    """Keep the tables used last."""
    tables = sorted(folder.glob("*.parquet"), key=lambda file: file.stat().st_mtime_ns)
    for file in tables[:-NUM_REMEMBERED]:
        file.unlink(missing_ok=True)

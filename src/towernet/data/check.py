"""Read, hash and fully decode every file found; the result is the sample table.

The user's files are only read. The table is cached under a hash of every file's bytes, so that
the next check of the same images only hashes them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from towernet import files
from towernet.data import decode, duplicates
from towernet.data.class_sizes import leave_out_small
from towernet.data.copies import Copies
from towernet.data.examine import Examined, examine
from towernet.data.ranges import rules_of
from towernet.data.rules import Rules
from towernet.data.source import Source
from towernet.data.table import (
    IGNORED,
    QUARANTINED,
    USED,
    Column,
    Texts,
    hex_column,
    large_table,
    path_bytes,
    read_table,
    write_table,
)
from towernet.data.thumbnails import Thumbnails
from towernet.data.workers import TIME_LIMIT_S, Count, Died, in_processes
from towernet.errors import DataError, EnvironmentFault
from towernet.words import shown

VERSION = f"2, decoder {decode.VERSION}, duplicates {duplicates.VERSION}"
NUM_REMEMBERED = 64
LEFTOVER_S = 24 * 3600.0
"""Temporary files older than this were left by killed processes."""
NUM_ATTEMPTS, SECONDS_BETWEEN_ATTEMPTS = 3, 1.0

_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".jpe", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif", ".avifs"),
    "HEIF": (".heic", ".heif", ".hif", ".heics", ".heifs"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
# Reasons that depend on the machine as much as on the file: checked again each time.
_NOT_REMEMBERED = {"RESOURCE", "CRASH", "UNREADABLE"}
_FILES_AT_ONCE = 1 << 12


def check(
    source: Source,
    *,
    workers: int,
    progress: Count | None = None,
    time_limit_s: float = TIME_LIMIT_S,
    rules: Rules | None = None,
) -> pd.DataFrame:
    """Decode every file of a source once and determine whether it can be used.

    Args:
        source: From `open_source`.
        workers: How many processes decode; the table does not depend on it.
        progress: Called as progress(what, done, total).
        time_limit_s: A file that takes longer is quarantined (RESOURCE).
        rules: How files become pixels; default: as the source's options say.

    Returns:
        The sample table, without splits: used + quarantined + ignored is everything found.
        Classes with fewer images than the source's `min_images` are ignored.

    Raises:
        DataError: a file changed while it was read.
    """
    rules = rules or rules_of(source.options)
    table = _every_file(source, workers, progress, time_limit_s, rules)
    return leave_out_small(table, source.options.min_images)


def _every_file(
    source: Source, workers: int, progress: Count | None, time_limit_s: float, rules: Rules
) -> pd.DataFrame:
    places = _Places(source)
    content_ids, num_bytes = _identify(source, places, workers, progress)
    remembered = files.cache_folder() / "tables" / f"{_key(source, content_ids, rules)}.parquet"
    try:
        known = {"path": places.paths, "num_bytes": num_bytes}
        table = read_table(remembered, known=known)
        with contextlib.suppress(OSError):  # a cache shared for reading only
            os.utime(remembered)
        return table
    except DataError:  # not in the cache, or damaged: check again
        pass
    with contextlib.closing(Thumbnails(files.cache_folder())) as thumbnails:
        builder = _TableBuilder(source, places, content_ids, num_bytes, thumbnails)
        del places, content_ids, num_bytes
        builder.examine(workers, progress, time_limit_s, rules)
        builder.exclude_copies()
        builder.tie()
    table = builder.table()
    del builder
    if not _NOT_REMEMBERED & set(table.reason.unique()):
        write_table(remembered, table)
        files.sweep(remembered.parent, older_than_s=LEFTOVER_S)
        files.evict(
            files.kept_files(remembered.parent, "*.parquet"), lambda num, _: num <= NUM_REMEMBERED
        )
    return table


class _Places:
    """The rows of the table: those of the source's files, and between them those of other paths.

    Args:
        paths: Of all rows.
        rows: Of the source's files.
        others: Rows of what is unreadable or ignored, by path.
    """

    def __init__(self, source: Source) -> None:
        paths = [one.path for one in source.unreadable] + [one.path for one in source.ignored]
        paths.sort(key=path_bytes)
        self.others = {path: source.files.position(path) + i for i, path in enumerate(paths)}
        assert len(self.others) == len(paths), "a path was found twice"
        places = np.array([*self.others.values()], np.int64)
        num = len(source.files) + len(paths)
        self.rows = np.delete(np.arange(num), places)
        self.paths = np.empty(num, dtype=object)
        self.paths[self.rows] = source.files.paths
        self.paths[places] = paths


def _identify(
    source: Source, places: _Places, workers: int, progress: Count | None
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Return each row's content id, as bytes, and size; empty for what cannot be read."""
    num, num_rows = len(source.files), len(places.paths)
    content_ids, num_bytes = np.zeros(num_rows, "S32"), np.zeros(num_rows, np.int64)

    def identify(position: int) -> bool:
        file, row = source.files.locations[position], places.rows[position]
        try:
            content_id = bytes.fromhex(files.sha256(file))
            num_bytes[row] = file.stat().st_size
        except OSError:  # `examine` fails on it too, and reports it
            return False
        content_ids[row] = content_id
        return True

    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, num, _FILES_AT_ONCE):
            positions = range(start, min(start + _FILES_AT_ONCE, num))
            for position, readable in zip(positions, pool.map(identify, positions), strict=True):
                if not readable:
                    _require_there(source)
                if progress:
                    progress("reading files", position + 1, num)
    return content_ids, num_bytes


def _require_there(source: Source) -> None:
    """Distinguish a file that cannot be read from a disk that was disconnected.

    Raises:
        EnvironmentFault: the folder that contains all files cannot be listed.
    """
    for attempt in range(NUM_ATTEMPTS):
        time.sleep(attempt * SECONDS_BETWEEN_ATTEMPTS)
        try:
            with os.scandir(source.root) as entries:
                next(entries, None)
            return
        except OSError as error:
            reason = error
    raise EnvironmentFault(
        f"{shown(str(source.root))} disappeared while its images were read"
        f" ({reason.strerror}); connect its disk again and rerun the command"
    ) from reason


def _key(source: Source, content_ids: npt.NDArray[Any], rules: Rules) -> str:
    """Return a hash of everything that the table is made from."""
    found = source.files
    digest = hashlib.sha256(VERSION.encode())
    digest.update(json.dumps(asdict(rules)).encode())
    for start in range(0, len(found), _FILES_AT_ONCE):
        digest.update(json.dumps(found.paths[start : start + _FILES_AT_ONCE]).encode())
    for column in (found.class_name, found.given_split, found.group):
        digest.update(json.dumps(column.texts).encode())
        digest.update(column.codes.tobytes())
    digest.update(content_ids.tobytes())
    digest.update(json.dumps([source.unreadable, source.ignored]).encode())
    if source.lines:
        digest.update(json.dumps([source.data, source.lines]).encode())
    return digest.hexdigest()


class _TableBuilder:
    """Builds the sample table in columns, since a row of Python objects takes 2 kB."""

    def __init__(
        self,
        source: Source,
        places: _Places,
        content_ids: npt.NDArray[Any],
        num_bytes: npt.NDArray[np.int64],
        thumbnails: Thumbnails,
    ) -> None:
        self.source = source
        self.paths, self.rows = places.paths, places.rows
        self.content_ids, self.num_bytes = content_ids, num_bytes
        found, num = source.files, len(self.paths)
        self.width, self.height = np.zeros(num, np.int32), np.zeros(num, np.int32)
        self.values = np.zeros((num, 2))
        self.texts = {
            name: Texts(num)
            for name in (
                "mode",
                "format",
                "cluster",
                "split",
                "status",
                "reason",
                "detail",
                "notes",
            )
        }
        for name in ("class_name", "given_split", "group"):
            self.texts[name] = getattr(found, name).placed(self.rows, num)
        for status, others in ((QUARANTINED, source.unreadable), (IGNORED, source.ignored)):
            for one in others:
                place = places.others[one.path]
                self.texts["status"][place] = status
                for name, text in one._asdict().items():
                    if name != "path":
                        self.texts[name][place] = text
        self.copies = Copies(self.paths, content_ids, self.texts)
        self.pixel_ids = np.zeros(num, np.uint64)
        self.thumbnails = thumbnails

    def examine(
        self, workers: int, progress: Count | None, time_limit_s: float, rules: Rules
    ) -> None:
        """Decode every file.

        Raises:
            DataError: a file changed since it was hashed.
            EnvironmentFault: the disk was disconnected.
        """
        locations = self.source.files.locations
        answers = in_processes(
            partial(examine, rules=rules),
            locations,
            workers=workers,
            time_limit_s=time_limit_s,
            alone_bytes=rules.max_bytes,
        )
        for done, (position, answer) in enumerate(answers, start=1):
            if isinstance(answer, Died):
                answer = Examined(reason=answer.reason, detail=answer.detail)
            if answer.reason == "UNREADABLE":
                _require_there(self.source)
            self._keep(int(self.rows[position]), answer)
            if progress:
                progress("decoding images", done, len(locations))
        del self.rows

    def _keep(self, row: int, examined: Examined) -> None:
        path, texts = self.paths[row], self.texts
        # (numpy drops the zeros at the end of a byte string)
        content_id = bytes.fromhex(examined.content_id).rstrip(b"\0")
        if content_id not in (b"", self.content_ids[row]):
            raise DataError(f"{shown(path)} changed while it was read; run the command again")
        reason, detail, notes = examined.reason, examined.detail, list(examined.notes)
        if not reason and not texts["class_name"][row]:
            reason, detail = "NO_CLASS", self.source.why_no_class(path)
        suffix = PurePosixPath(path).suffix.lower()
        if suffix and examined.format and suffix not in _SUFFIXES[examined.format]:
            notes.append("WRONG_EXTENSION")
        self.width[row], self.height[row] = examined.width, examined.height
        self.values[row] = examined.values or 0.0
        texts["mode"][row] = examined.mode
        texts["format"][row] = examined.format
        texts["status"][row] = QUARANTINED if reason else USED
        texts["reason"][row] = reason
        texts["detail"][row] = detail
        texts["notes"][row] = ",".join(notes)
        if not reason:
            self.pixel_ids[row] = int(examined.pixel_id[:16], 16)
            self.thumbnails.write(row, examined.thumbnail)

    def exclude_copies(self) -> None:
        """Use one of several identical files, or none if their classes differ."""
        self.copies.exclude_same_bytes()

    def tie(self) -> None:
        """Find and mark near duplicates."""
        used, texts = self.copies.used(), self.texts
        near = duplicates.find(
            self.pixel_ids[used],
            lambda some: self.thumbnails.read(used[some]),
            texts["class_name"].codes[used],
        )
        self.copies.tie(near, used, self.pixel_ids)
        del self.pixel_ids

    def table(self) -> pd.DataFrame:
        """Return the sample table."""
        self.width, self.height = self.width.astype(np.int64), self.height.astype(np.int64)
        columns: dict[str, Column] = {
            "path": self.paths,
            "content_id": hex_column(self.content_ids),
            "num_bytes": self.num_bytes,
            "width": self.width,
            "height": self.height,
            "low": self.values[:, 0],
            "high": self.values[:, 1],
        }
        return large_table(columns | self.texts)

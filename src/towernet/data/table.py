r"""The sample table: one row for each file found, sorted by the bytes of its path.

A file name need not be UTF-8: Python holds its other bytes as lone surrogates, which neither
Arrow nor pandas' own string type can hold. So text columns are of type object in memory (make
tables with `make_table`), and in a file a backslash is written `\\` and a surrogate `\udcNN`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from towernet import files
from towernet.errors import DataError
from towernet.errors import shown as shown

USED, QUARANTINED, IGNORED = STATUSES = ("used", "quarantined", "ignored")
TRAIN, VALIDATION, TEST = SPLITS = ("train", "validation", "test")

COLUMNS: dict[str, type] = {
    "path": str,  # relative to the data, with '/'; the key
    "class_name": str,  # '' when the file has none
    "content_id": str,  # hex sha-256 of the bytes, '' when unreadable
    "num_bytes": int,
    "width": int,  # as the picture is seen, after its EXIF orientation
    "height": int,
    "mode": str,  # Pillow's
    "format": str,  # Pillow's
    "cluster": str,  # shared by near duplicates, else ''
    "group": str,  # from a CSV: what must stay on one side of a split, else ''
    "given_split": str,  # as the folder or the CSV says, else ''
    "split": str,  # '' | train | validation | test
    "status": str,  # used | quarantined | ignored
    "reason": str,  # '' or a code such as TRUNCATED
    "detail": str,  # the reason, in words
    "notes": str,  # comma-joined codes of what was put right, such as EXIF_ORIENTED
}

_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPED = re.compile(r"\\(\\|u[0-9a-f]{4})")


def path_bytes(path: str) -> bytes:
    """Return the bytes a path has on disk: what paths and class names are sorted by."""
    try:
        return path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return path.encode("utf-8", "surrogatepass")


def counted(num: int, noun: str) -> str:
    """Return a count with its noun: `counted(1, "file")` is "1 file"."""
    return f"{num:,} {noun}{'' if num == 1 else 's'}"


def make_table(columns: Mapping[str, Iterable[Any]]) -> pd.DataFrame:
    """Make a table from its columns; one that is missing is filled with '' or 0.

    Example:
        >>> make_table({"path": ["cat/1.jpg"], "status": ["used"]}).loc[0, "num_bytes"]
        np.int64(0)
    """
    unknown = sorted(set(columns) - set(COLUMNS))
    assert not unknown, f"the sample table has no column {', '.join(unknown)}"
    given = {name: list(values) for name, values in columns.items()}
    num_rows = len(given["path"])
    frame = {
        name: np.array(given.get(name, [kind()] * num_rows), dtype=object if kind is str else int)
        for name, kind in COLUMNS.items()
    }
    assert all(len(values) == num_rows for values in frame.values()), "columns differ in length"
    return pd.DataFrame(
        {name: pd.Series(values, dtype=values.dtype) for name, values in frame.items()}
    )


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a sample table as parquet, atomically; the same table gives the same bytes."""
    assert list(table.columns) == list(COLUMNS), "not a sample table"
    write_frame(path, table)


def read_table(path: Path) -> pd.DataFrame:
    """Read what `write_table` wrote.

    Raises:
        DataError: the file is missing, is damaged, or is not a sample table.
    """
    frame = read_frame(path)
    if list(frame.columns) != list(COLUMNS):
        raise DataError(
            f"{path} is not a sample table (its columns are {', '.join(frame.columns)});"
            " give the samples.parquet that `towernet check` or a run wrote"
        )
    return frame


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    """Write text and number columns as parquet, atomically, as `read_frame` reads them."""
    columns = {}
    for name in frame.columns:
        values = frame[name].to_numpy()
        if values.dtype == object:
            columns[name] = pa.array([_escape(text) for text in values], pa.string())
        else:
            columns[name] = pa.array(values)
    with files.atomic(path) as stream:
        pq.write_table(pa.table(columns), stream, compression="zstd")


def read_frame(path: Path) -> pd.DataFrame:
    """Read what `write_frame` wrote; text columns come back as objects.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        with path.open("rb") as stream:
            columns = pq.read_table(stream)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; is {path.parent} the folder of a run?") from error
    except (OSError, pa.ArrowException) as error:
        first_line = str(error).partition("\n")[0]
        raise DataError(
            f"{path} cannot be read ({first_line}); restore it or start again"
        ) from error
    frame = {}
    for name in columns.column_names:
        if pa.types.is_string(columns[name].type):
            texts = [_unescape(text) for text in columns[name].to_pylist()]
            frame[name] = pd.Series(texts, dtype=object)
        else:
            frame[name] = pd.Series(columns[name].to_numpy())
    return pd.DataFrame(frame)


def _escape(text: str) -> str:
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    if text.isascii() or not _SURROGATE.search(text):
        return text
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    return _ESCAPED.sub(
        lambda found: "\\" if found[1] == "\\" else chr(int(found[1][1:], 16)), text
    )

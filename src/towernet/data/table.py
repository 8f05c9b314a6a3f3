r"""The sample table: one row for each file found, sorted by the bytes of its path.

A file name may not be UTF-8: Python represents its other bytes as lone surrogates, which Arrow and
pandas' own string type and categories cannot store. So names chosen by users are objects in
memory, each text once; on disk a backslash is `\\` and a surrogate is `\udcNN`.
A table can have a million rows: in large ones, columns of built-in words are categories, with the
same meaning. Small ones, of objects only, are made with `make_table`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from towernet import files
from towernet.errors import DataError

USED, QUARANTINED, IGNORED = STATUSES = ("used", "quarantined", "ignored")
TRAIN, VALIDATION, TEST = SPLITS = ("train", "validation", "test")

COLUMNS: dict[str, type] = {
    "path": str,  # relative to the data, with '/'; the key
    "class_name": str,  # '' if the file has none
    "content_id": str,  # hex sha-256 of the bytes, '' if unreadable
    "num_bytes": int,
    "width": int,  # as displayed, after EXIF orientation
    "height": int,
    "mode": str,  # Pillow's
    "format": str,  # Pillow's
    "cluster": str,  # shared by near duplicates, else ''
    "group": str,  # from a CSV: what must stay on one side of a split, else ''
    "given_split": str,  # from the folder or the CSV, else ''
    "split": str,  # '' | train | validation | test
    "status": str,  # used | quarantined | ignored
    "reason": str,  # '' or a code such as TRUNCATED
    "detail": str,  # the reason, in words
    "notes": str,  # comma-joined codes of what was done or noticed, such as EXIF_ORIENTED
    "low": float,  # of more than 8 bits: the least value, without a few extreme ones, else 0
    "high": float,  # the greatest value
}
_ADDED = ("low", "high")  # columns that tables written earlier do not have

# Columns of built-in words; the words listed here can be assigned to any row.
_BUILT_IN_WORDS: dict[str, tuple[str, ...]] = {
    "mode": (),
    "format": (),
    "cluster": (),
    "given_split": ("", *SPLITS),
    "split": ("", *SPLITS),
    "status": STATUSES,
    "reason": (),
    "notes": (),
}
_TYPES: dict[type, tuple[type, pa.DataType]] = {
    str: (object, pa.string()),
    int: (np.int64, pa.int64()),
    float: (np.float64, pa.float64()),
}
_ROWS_AT_ONCE = 1 << 14

_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPED = re.compile(r"\\(\\|u[0-9a-f]{4})")


def path_bytes(path: str) -> bytes:
    """Return the bytes a path has on disk: what paths and class names are sorted by."""
    try:
        return path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return path.encode("utf-8", "surrogatepass")


def make_table(columns: Mapping[str, Iterable[Any]]) -> pd.DataFrame:
    """Make a table from its columns; a missing one is filled with '' or 0.

    Example:
        >>> make_table({"path": ["cat/1.jpg"], "status": ["used"]}).loc[0, "num_bytes"]
        np.int64(0)
    """
    unknown = sorted(set(columns) - set(COLUMNS))
    assert not unknown, f"the sample table has no column {', '.join(unknown)}"
    given = {name: list(values) for name, values in columns.items()}
    num_rows = len(given["path"])
    frame: dict[str, npt.NDArray[Any]] = {
        name: np.array(given.get(name, [kind()] * num_rows), _TYPES[kind][0])
        for name, kind in COLUMNS.items()
    }
    assert all(len(values) == num_rows for values in frame.values()), "columns differ in length"
    return pd.DataFrame(
        {name: pd.Series(values, dtype=values.dtype) for name, values in frame.items()}
    )


class Texts:
    """A column with few distinct texts: a byte per row, or as many as needed, and each text once.

    Example:
        >>> texts = Texts.of(["cat", "dog", "cat"], 3)
        >>> texts[2], texts.codes.tolist()
        ('cat', [1, 2, 1])
    """

    def __init__(self, num_rows: int) -> None:
        self.codes: npt.NDArray[Any] = np.zeros(num_rows, np.int8)
        self.texts = [""]
        self._code_of = {"": 0}

    @classmethod
    def of(cls, texts: Iterable[str], num_rows: int) -> Texts:
        """Make a column from its texts."""
        column = cls(num_rows)
        codes = np.fromiter(map(column.code, texts), np.int32, num_rows)
        column.codes = codes.astype(np.min_scalar_type(-len(column.texts)))
        return column

    def code(self, text: str) -> int:
        """Return the number that represents a text."""
        code = self._code_of.setdefault(text, len(self.texts))
        if code == len(self.texts):
            self.texts.append(text)
        return code

    def placed(self, rows: npt.NDArray[np.int64], num_rows: int) -> Texts:
        """Return a longer column with these texts in the given rows."""
        column = Texts(0)
        column.texts, column._code_of = self.texts.copy(), self._code_of.copy()
        column.codes = np.zeros(num_rows, self.codes.dtype)
        column.codes[rows] = self.codes
        return column

    def objects(self) -> npt.NDArray[np.object_]:
        """Return the texts of all rows, each text once."""
        texts = np.empty(len(self.texts), dtype=object)
        texts[:] = self.texts
        placed: npt.NDArray[np.object_] = texts[self.codes]
        return placed

    def __getitem__(self, row: int) -> str:
        return self.texts[int(self.codes[row])]

    def __setitem__(self, rows: Any, text: str) -> None:
        code = self.code(text)
        if code > np.iinfo(self.codes.dtype).max:
            self.codes = self.codes.astype(np.min_scalar_type(-code - 1))
        self.codes[rows] = code


# A column before it is in a table: numbers, texts, or an array of pandas or Arrow.
Column = Texts | npt.NDArray[Any] | pd.api.extensions.ExtensionArray


def large_table(columns: Mapping[str, Column]) -> pd.DataFrame:
    """Make a table from arrays and `Texts`, without copying them; all columns are required."""
    frame = {}
    for name in COLUMNS:
        values = columns[name]
        if isinstance(values, Texts):
            values = _categories(name, values) if name in _BUILT_IN_WORDS else values.objects()
        assert not isinstance(values, Texts)
        # With a type, since pandas would convert texts to its own string type.
        frame[name] = pd.Series(values, dtype=values.dtype, copy=False)
    return pd.DataFrame(frame, copy=False)


def _categories(name: str, column: Texts) -> pd.Categorical:
    seen = np.unique(column.codes)
    texts = [column.texts[code] for code in seen]
    known = [*dict.fromkeys([*_BUILT_IN_WORDS[name], *sorted(texts)])]
    place = {text: number for number, text in enumerate(known)}
    code_of = np.zeros(len(column.texts), np.min_scalar_type(-len(known)))
    code_of[seen] = [place[text] for text in texts]
    categories = pd.Index(np.array(known, dtype=object), dtype=object)
    return pd.Categorical.from_codes(code_of[column.codes], categories=categories)


def hex_column(digests: npt.NDArray[Any]) -> pd.api.extensions.ExtensionArray:
    """Return (N,) digests as hex text, '' for none; 64 bytes each instead of Python's 120.

    Args:
        digests: (N,) of type S32.
    """
    chunks = []
    for start in range(0, len(digests), _ROWS_AT_ONCE):
        some = digests[start : start + _ROWS_AT_ONCE]
        known = some != b""
        offsets = np.zeros(len(some) + 1, np.int32)
        np.cumsum(2 * some.dtype.itemsize * known, out=offsets[1:])
        text = some[known].tobytes().hex().encode()
        chunks.append(
            pa.StringArray.from_buffers(len(some), pa.py_buffer(offsets), pa.py_buffer(text))
        )
    return pd.arrays.ArrowExtensionArray(pa.chunked_array(chunks, pa.string()))


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a sample table as parquet, atomically; the same table gives the same bytes.

    Columns that were added later are only written if they have values.
    """
    assert list(table.columns) == list(COLUMNS), "not a sample table"
    empty = [name for name in _ADDED if not table[name].any()]
    write_frame(path, table.drop(columns=empty) if len(empty) == len(_ADDED) else table)


def read_table(path: Path, *, known: Mapping[str, npt.NDArray[Any]] | None = None) -> pd.DataFrame:
    """Read what `write_table` wrote, column by column: all at once would take twice the memory.

    Args:
        path: The file.
        known: Columns already in memory, which are shared instead of read.

    Raises:
        DataError: the file is missing, is damaged, or is not a sample table.
    """

    def read(file: pq.ParquetFile) -> pd.DataFrame:
        names, types = file.schema_arrow.names, file.schema_arrow.types
        expected = [name for name in COLUMNS if name in names or name not in _ADDED]
        if (names, types) != (expected, [_TYPES[COLUMNS[name]][1] for name in expected]):
            found = ", ".join(names) if names != expected else ", ".join(map(str, types))
            raise DataError(
                f"{path} is not a sample table (its columns are {found});"
                " pass the samples.parquet that `towernet check` or a run wrote"
            )
        columns: dict[str, Column] = dict(known or {})
        columns |= {name: np.zeros(file.metadata.num_rows) for name in COLUMNS if name not in names}
        return large_table(
            columns | {name: _column(name, file) for name in COLUMNS if name not in columns}
        )

    return _read(path, read)


def _release_memory() -> None:
    """Return memory that Arrow has freed to the system: it would keep more than a table needs."""
    pa.default_memory_pool().release_unused()


def _column(name: str, file: pq.ParquetFile) -> Column:
    """Read a column by blocks, in one thread: memory freed by other threads stays with them."""
    chunks = (
        chunk
        for block in range(file.num_row_groups)
        for chunk in file.read_row_group(block, [name], use_threads=False)[name].chunks
    )
    if COLUMNS[name] is not str:
        numbers = map(pa.Array.to_numpy, chunks)
        values: Column = np.concatenate([np.zeros(0, _TYPES[COLUMNS[name]][0]), *numbers])
    elif name == "content_id":
        values = pd.arrays.ArrowExtensionArray(pa.chunked_array(list(chunks), pa.string()))
    elif name == "path":
        texts = [_unescape(text) for chunk in chunks for text in chunk.to_pylist()]
        paths = np.empty(len(texts), dtype=object)
        paths[:] = texts
        values = paths
    else:
        values = _texts(chunks)
    _release_memory()
    return values


def _texts(chunks: Iterable[pa.Array]) -> Texts:
    column = Texts(0)
    parts = [column.codes]
    for chunk in chunks:
        encoded = chunk.dictionary_encode()
        codes = np.array([column.code(_unescape(text)) for text in encoded.dictionary.to_pylist()])
        smallest = np.min_scalar_type(-len(column.texts))
        parts.append(codes.astype(smallest)[encoded.indices.to_numpy()])
    column.codes = np.concatenate(parts)
    return column


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    """Write text and number columns as parquet, atomically, as `read_frame` reads them."""
    with files.atomic(path) as stream:
        writer: pq.ParquetWriter | None = None
        for start in range(0, max(1, len(frame)), _ROWS_AT_ONCE):
            rows = frame.iloc[start : start + _ROWS_AT_ONCE]
            part = pa.table({name: _stored(rows[name]) for name in frame.columns})
            writer = writer or pq.ParquetWriter(stream, part.schema, compression="zstd")
            writer.write_table(part)
            _release_memory()
        assert writer is not None
        writer.close()


def _stored(values: pd.Series) -> pa.Array | pa.ChunkedArray:
    if isinstance(values.dtype, pd.CategoricalDtype):
        texts = pa.array([_escape(text) for text in values.cat.categories], pa.string())
        return texts.take(pa.array(values.cat.codes.to_numpy()))
    if isinstance(values.dtype, pd.ArrowDtype):
        return pa.array(values.array)
    if values.dtype == object:
        return pa.array([_escape(text) for text in values.to_numpy()], pa.string())
    return pa.array(values.to_numpy())


def read_frame(path: Path) -> pd.DataFrame:
    """Read what `write_frame` wrote; text columns come back as objects.

    Raises:
        DataError: the file is missing or damaged.
    """

    def read(file: pq.ParquetFile) -> pd.DataFrame:
        frame, columns = {}, file.read(use_threads=False)  # see _read
        for name in columns.column_names:
            if pa.types.is_string(columns[name].type):
                texts = [_unescape(text) for text in columns[name].to_pylist()]
                frame[name] = pd.Series(texts, dtype=object)
            else:
                frame[name] = pd.Series(columns[name].to_numpy())
        return pd.DataFrame(frame)

    return _read(path, read)


def _read(path: Path, read: Callable[[pq.ParquetFile], pd.DataFrame]) -> pd.DataFrame:
    """Read in this thread: one of Arrow's that still holds the Python file aborts the exit."""
    try:
        with path.open("rb") as stream:
            return read(pq.ParquetFile(stream, pre_buffer=False))
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; is {path.parent} the folder of a run?") from error
    except DataError:
        raise
    except (OSError, TypeError, ValueError, pa.ArrowException) as error:
        first_line = str(error).partition("\n")[0]
        raise DataError(
            f"{path} cannot be read ({first_line}); restore it or start over"
        ) from error


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

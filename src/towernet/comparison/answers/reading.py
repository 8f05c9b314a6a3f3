"""Loading a table of answers: from a CSV or Parquet file, or from a data frame.

The type of a cell is never guessed: all cells of a CSV are texts, so that a class can be called
`NA` or `007`.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from towernet.errors import DataError
from towernet.words import shown

# All columns that are read; `columns.require_columns` checks which of them are required.
COLUMNS = ("network", "run", "image", "right", "label", "answer", "group")
_SEPARATORS = ",;\t"  # Excel writes ; in countries where , is the decimal point
_PARQUET = b"PAR1"
_HEAD_BYTES = 1 << 16


@dataclass(frozen=True)
class RawTable:
    """A table before it is checked.

    Args:
        name: The table's name in messages.
        frame: Its columns, with names in lower case, unused columns included.
        rows: (R,) the row numbers in messages: for a CSV those of a spreadsheet, else from 0, as
            for `DataFrame.iloc`.
    """

    name: str
    frame: pd.DataFrame
    rows: npt.NDArray[np.int64]

    def row(self, position: int) -> str:
        """Return the name in messages of the row at a position."""
        return f"row {self.rows[position]}"


def load_table(answers: pd.DataFrame | str | Path) -> RawTable:
    """Return a data frame as a table, or read a file.

    Raises:
        DataError: the file is missing, damaged or not a table, or a column appears twice.
    """
    if isinstance(answers, pd.DataFrame):
        named = _named(answers, "the table")
        return RawTable("the table", named, np.arange(len(answers)))
    path = Path(answers)
    name = shown(str(path))
    content = _content(path, name)
    if content.startswith(_PARQUET) or path.suffix.lower() == ".parquet":
        frame = _parquet(content, name)
        return RawTable(name, frame, np.arange(len(frame)))
    _require_text(content, name)
    frame = _csv(content.removeprefix(codecs.BOM_UTF8), name)
    return RawTable(name, frame, frame.index.to_numpy(np.int64) + 1)


def _content(path: Path, name: str) -> bytes:
    if path.is_dir():
        raise DataError(
            f"{name} is a folder; pass a CSV or Parquet file with a row for each answer"
        )
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{name} does not exist; pass a CSV or Parquet file") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{name} cannot be read ({reason}); pass a readable file") from error
    if not content.removeprefix(codecs.BOM_UTF8).strip():
        raise DataError(f"{name} is empty; pass a table with a row for each answer")
    return content


def _parquet(content: bytes, name: str) -> pd.DataFrame:
    try:
        # In this thread: one of Arrow's that still holds Python's bytes aborts the exit.
        file = pq.ParquetFile(pa.BufferReader(content), pre_buffer=False)
        columns = [str(column) for column in file.schema_arrow.names]
        wanted = [column for column in columns if _plain(column) in COLUMNS]
        _require_once(wanted, name)
        frame = file.read(wanted, use_threads=False).to_pandas(
            ignore_metadata=True, use_threads=False
        )
    except DataError:
        raise
    except (OSError, TypeError, ValueError, pa.ArrowException) as error:
        reason = shown(str(error).partition("\n")[0])
        raise DataError(f"{name} is damaged ({reason}); write it again") from error
    others = [column for column in columns if column not in wanted]
    return _named(frame.assign(**dict.fromkeys(others)), name)


def _require_text(content: bytes, name: str) -> None:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{name} is not UTF-8 but UTF-16; save it as UTF-8 (in Excel: CSV UTF-8)")
    if b"\0" in content:
        start = "an Excel file or another zip" if content.startswith(b"PK") else repr(content[:8])
        raise DataError(
            f"{name} is neither CSV nor Parquet (it starts like {start}); save the table as CSV or"
            " Parquet"
        )
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{name} is not UTF-8 (byte 0x{content[error.start]:02x} in line {line}); save it as"
            " UTF-8 (in Excel: CSV UTF-8)"
        ) from error


def _csv(content: bytes, name: str) -> pd.DataFrame:
    """Return a CSV's rows, without blank ones; the header is row 0."""
    try:
        frame = pd.read_csv(
            io.BytesIO(content),
            sep=_separator(content),
            header=None,
            dtype="category",  # stores each text once, and converts none to a number
            keep_default_na=False,
            skip_blank_lines=False,
            skipinitialspace=True,
        )
    except pd.errors.EmptyDataError as error:
        raise DataError(f"{name} is empty; pass a table with a row for each answer") from error
    except (csv.Error, pd.errors.ParserError) as error:
        reason = re.sub(r"Error tokenizing data. C error: ", "", str(error).strip())
        raise DataError(f"{name} is damaged ({shown(reason)}); fix it or write it again") from error
    head = [str(column) for column in frame.iloc[0]]
    frame = frame.iloc[1:].set_axis(head, axis=1)
    is_blank = np.logical_and.reduce([(frame.iloc[:, i] == "") for i in range(len(head))])
    return _named(frame[~is_blank], name)


def _separator(content: bytes) -> str:
    """Return the separator that makes most cells of the header known columns."""
    start = content[:_HEAD_BYTES].decode(errors="ignore")

    def found(separator: str) -> tuple[int, int]:
        head = next(csv.reader(io.StringIO(start, newline=""), delimiter=separator))
        return sum(_plain(cell) in COLUMNS for cell in head), len(head)

    return max(_SEPARATORS, key=found)


def _named(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    _require_once([str(column) for column in frame.columns], name)
    return frame.set_axis([_plain(str(column)) for column in frame.columns], axis=1)


def _plain(column: str) -> str:
    return column.strip().casefold()


def _require_once(columns: list[str], name: str) -> None:
    plain = [_plain(column) for column in columns]
    for column in COLUMNS:
        if plain.count(column) > 1:
            raise DataError(f"{name} has the column '{column}' twice; keep one of them")

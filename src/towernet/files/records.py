"""Towernet's files of values: JSON, JSON lines and CSV, and the format of a folder."""

from __future__ import annotations

import codecs
import csv
import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from towernet.errors import DataError
from towernet.files.atomic import atomic, write_text

FORMAT = 1  # of run.json, of protocol.toml and of the files next to them
# First characters of a cell that a spreadsheet would run.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_csv(path: Path, rows: Iterable[Iterable[object]]) -> None:
    """Write rows as CSV; a text that a spreadsheet would run as a formula gets an apostrophe.

    Row by row, since there may be a million.
    """
    with atomic(path) as stream:
        writer = csv.writer(codecs.getwriter("utf-8")(stream, "backslashreplace"))
        for row in rows:
            writer.writerow(
                f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
                for cell in row
            )


def write_json(path: Path, value: object) -> None:
    """Write sorted, indented JSON; NaN and infinity are refused, since JSON has neither."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def digest(value: object) -> str:
    """Return the hex sha-256 of a JSON value; the order of its keys does not matter."""
    text = json.dumps(value, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read_json(path: Path) -> Any:
    """Read a JSON file; the error for a damaged one names it.

    Raises:
        DataError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; is {path.parent} the folder of a run?") from error
    except (ValueError, OSError, RecursionError) as error:
        raise DataError(f"{path} cannot be read ({error}); restore it or start over") from error


def read_record(path: Path, *keys: str) -> Any:
    """Read a JSON object that has these keys.

    Raises:
        DataError: the file is missing, is not a JSON object, or lacks a key.
    """
    record = read_json(path)
    if isinstance(record, dict) and all(key in record for key in keys):
        return record
    raise DataError(f"{path} is damaged; restore it, or start over with another --out")


def require_format(path: Path, record: Any) -> None:
    """Refuse what another version of towernet wrote in another format.

    Raises:
        DataError: naming its version.
    """
    if (found := record.get("format")) != FORMAT:
        versions = record.get("versions")
        made_by = versions.get("towernet") if isinstance(versions, dict) else None
        made_by = made_by or "another version"
        raise DataError(
            f"{path} was made by towernet {made_by} in format {found or 0} and this version reads"
            f" format {FORMAT}; install that version to continue, or choose another --out"
        )


def write_jsonl(path: Path, rows: Iterable[object]) -> None:
    """Write one JSON object per line. The whole file, since a crash can tear an appended line."""
    write_text(
        path, "".join(json.dumps(row, sort_keys=True, allow_nan=False) + "\n" for row in rows)
    )


def read_jsonl(path: Path) -> list[Any]:
    """Read what `write_jsonl` wrote; a missing file has no rows.

    Raises:
        DataError: the file is damaged.
    """
    if not path.exists():
        return []
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("a line is not an object")
        return rows
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is damaged ({error}); restore it, or start over with another --out"
        ) from error


def now() -> str:
    """Return the date and time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")

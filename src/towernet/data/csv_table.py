"""Images listed in a table: `path,label[,split,group]`, as spreadsheets and other people write it.

What was not written as documented is found where that is certain, and said in the reading sentence;
where it is not certain, the table is refused with what to do.
"""

from __future__ import annotations

import csv
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from towernet.data import csv_classes, csv_columns, csv_paths
from towernet.data.csv_columns import Columns, Sample, split_of
from towernet.data.csv_paths import Finder, Found, Several
from towernet.data.csv_text import DELIMITERS, SPACES, Encoded, Lines, encoding_of, records
from towernet.data.encodings import AS_BEFORE
from towernet.data.split_names import SPLIT_NAMES
from towernet.errors import DataError
from towernet.records.reading import Reading
from towernet.words import counted, listed, shown, some_listed

SUFFIXES = (".csv", ".tsv", ".tab", ".psv")  # and lists, such as .txt
LISTS = (".txt", ".lst")
_SAMPLE_ROWS = 200
_HOW = {
    csv_paths.NO_SUFFIX: "{} without a suffix: the one file of that name was taken",
    csv_paths.CASE: "{} in upper or lower case, other than the file",
    csv_paths.ACCENTS: "{} with accents in another coding than the file",
}
_OTHER_TABLES = {
    ".xlsx": "an Excel workbook", ".xls": "an Excel workbook", ".xlsm": "an Excel workbook",
    ".ods": "a spreadsheet", ".parquet": "a Parquet table", ".feather": "a Feather table",
    ".arrow": "an Arrow table", ".json": "a JSON file", ".jsonl": "a JSON file",
    ".ndjson": "a JSON file", ".xml": "an XML file", ".yaml": "a YAML file", ".yml": "a YAML file",
    ".pkl": "a Python pickle", ".pickle": "a Python pickle", ".mat": "a MATLAB file",
    ".h5": "an HDF5 file", ".hdf5": "an HDF5 file", ".npy": "a NumPy file", ".npz": "a NumPy file",
    ".tfrecord": "a TFRecord file", ".db": "a database", ".sqlite": "a database",
}  # fmt: skip


class Row(NamedTuple):
    """One row: its line in the file, the path as written, and what it says about that image."""

    line: int
    given: str
    label: str
    split: str
    group: str


class Listed(NamedTuple):
    """What a table lists.

    Args:
        rows: In the order of the table, each file once.
        files: Of each row; None if there is none.
        classes: Where the classes are, such as "in the column `label`".
        notes: What was found other than documented, each a clause.
        unused: The columns that were not read.
    """

    rows: list[Row]
    files: list[Found | None]
    classes: str
    notes: list[str]
    unused: list[str]


def other_table(path: Path) -> str | None:
    """Return what a file is that has a table in a format that is not read; None if it is not."""
    return _OTHER_TABLES.get(path.suffix.lower())


def read_csv(path: Path, reading: Reading) -> Listed:
    """Read a table of images.

    A file that the table lists is read wherever it is, through a link or outside the folder: unlike
    what a scan of a folder finds, it was chosen explicitly.

    Raises:
        DataError: it cannot be read, or not with certainty; the message names the line.
        UnknownNameError: there is no such encoding.
    """
    before = reading.encoding == AS_BEFORE
    _require_text(path)
    encoded = encoding_of(path, reading.encoding)
    lines = Lines(path, encoded, verbatim=before)
    finder = Finder(path.parent, codec=encoded.codec)
    delimiter = "," if before else _delimiter(path, lines, finder, reading)
    columns = _columns(path, lines, delimiter, finder, reading)
    splits: dict[str, str] = {}
    rows = list(_rows(path, columns, records(lines, delimiter, verbatim=before), splits, before))
    find = finder.as_written if before else finder.find
    files = [_found(path, row, find) for row in rows]
    notes = _notes(encoded, delimiter, columns, lines)
    notes += [f"the split {shown(name)} is {split}" for name, split in splits.items()]
    if rows and not any(files) and not before:
        files, note = _in_sub_folders(path, rows, encoded)
        notes += note
    if not any(files):
        first = f" (the first is {shown(rows[0].given)})" if rows else ""
        there = csv_paths.file_near(path.parent)
        raise DataError(
            f"{path} lists {counted(len(rows), 'file')}{first} and none exists; write paths"
            f" relative to its folder{f', such as {shown(there)}' if there else ''}"
        )
    rows, files, note = _once(path, rows, files, before)
    notes += [*note, *_how_found(files)]
    if not before:
        rows, note = _checked_classes(path, columns, rows)
        notes += note
    return Listed(rows, files, _classes_words(columns, path), notes, columns.unused)


def _require_text(path: Path) -> None:
    with path.open("rb") as stream:
        head = stream.read(8)
    for magic, kind in (
        (b"PK\x03\x04", "an Excel workbook or a zip"),
        (b"\xd0\xcf\x11\xe0", "an Excel workbook"),
        (b"PAR1", "a Parquet table"),
        (b"\x1f\x8b", "compressed with gzip"),
    ):
        if head.startswith(magic):
            raise DataError(
                f"{shown(str(path))} is {kind} under the name of a CSV; open it and save it as a"
                " CSV"
            )


def _delimiter(path: Path, lines: Lines, finder: Finder, reading: Reading) -> str:
    """Return what separates the cells: the character that gives the header its columns."""
    head = list(itertools.islice(lines, 50))
    if lines.delimiter in DELIMITERS:
        return lines.delimiter
    asked = reading.image_column, reading.label_column
    ranks: dict[str, tuple[int, float]] = {}
    for delimiter in DELIMITERS:
        table = _parsed(head, delimiter)
        if table and len(table[0]) > 1:
            same = sum(len(cells) == len(table[0]) for cells in table) / len(table)
            ranks[delimiter] = csv_columns.num_roles(table[0], asked), same
    best = max(ranks.values(), default=(0, 0.0))
    fitting = [delimiter for delimiter, rank in ranks.items() if rank == best]
    if not best[0] and head:
        first = head[0].strip().rsplit(None, 1)
        if len(first) == 2 and finder.as_written(first[0]):
            return SPACES
    if len(fitting) > 1:
        words = listed([DELIMITERS[delimiter] for delimiter in fitting], "or")
        raise DataError(
            f"the cells of {path} could be separated by {words} (its first line is"
            f" '{shown(head[0].strip())[:80]}'); save it with commas"
        )
    return fitting[0] if fitting else ","


def _parsed(head: list[str], delimiter: str) -> list[list[str]]:
    table = []
    try:
        for cells in csv.reader(head, delimiter=delimiter, skipinitialspace=True):
            if any(cell.strip() for cell in cells):
                table.append(cells)
    except csv.Error:
        pass  # named with its line when it is read
    return table


def _columns(path: Path, lines: Lines, delimiter: str, finder: Finder, reading: Reading) -> Columns:
    """Decide the columns by the first rows."""
    before = reading.encoding == AS_BEFORE
    sample = [
        cells
        for _, cells in itertools.islice(
            records(lines, delimiter, verbatim=before), _SAMPLE_ROWS + 1
        )
    ]
    header = sample[0] if sample else []
    rows = sample[1:]
    while (
        len(header) > 2
        and not header[-1].strip()
        and not any(len(row) >= len(header) and row[len(header) - 1].strip() for row in rows)
    ):
        header = header[:-1]  # a separator at the end of each line

    def exists(cell: str) -> bool:
        try:
            return finder.find(cell) is not None
        except Several:
            return True

    if before:
        names = [name.strip().lower() for name in header]
        exact = {name: number for number, name in enumerate(names)}
        if {"path", "label"} <= exact.keys():
            split, group = exact.get("split", -1), exact.get("group", -1)
            return Columns(tuple(names), exact["path"], exact["label"], (), split, group)
    return csv_columns.choose(
        Sample(str(path), header, rows, exists), reading.image_column, reading.label_column
    )


def _rows(
    path: Path,
    columns: Columns,
    table: Iterator[tuple[int, list[str]]],
    splits: dict[str, str],
    before: bool,
) -> Iterator[Row]:
    """Yield the rows; keep the names of splits other than those documented in `splits`."""
    if columns.has_header:
        next(table, None)
    num = len(columns.names)
    for line, cells in table:
        where = f"line {line:,} of {path}"
        if len(cells) > num and not before and not any(cell.strip() for cell in cells[num:]):
            cells = cells[:num]
        if len(cells) != num:
            if cells[0].startswith("#") and not before:
                continue  # a comment
            todo = (
                "quote a cell that contains a separator"
                if len(cells) > num
                else "write a cell for each column, empty ones too"
            )
            raise DataError(
                f"{where} has {counted(len(cells), 'cell')} and the first line has {num}; {todo}"
            )
        given = cells[columns.path]
        split = "" if columns.split < 0 else cells[columns.split]
        if (split_name := split_of(split)) is None:
            raise DataError(
                f"{where} has the split '{shown(split.strip())}'; write train, validation or test"
            )
        if (written := split.strip()) and written.lower() not in SPLIT_NAMES:
            splits[written] = split_name
        if not given.strip() and not (given and before):
            raise DataError(f"{where} has no path; fill it in or remove the line")
        if csv_paths.URL.match(given.strip()) and not before:
            raise DataError(
                f"{where} lists an address, {shown(given.strip())[:80]}, and towernet downloads"
                " nothing; download the images and list their paths"
            )
        group = "" if columns.group < 0 else cells[columns.group].strip()
        yield Row(line, given, _label(where, columns, cells), split_name, group)


def _label(where: str, columns: Columns, cells: Sequence[str]) -> str:
    if not columns.one_hot:
        return cells[columns.label].strip()
    try:
        marked = csv_columns.class_of(columns, cells)
    except ValueError as error:
        raise DataError(
            f"{where} has something other than 0 or 1, or False or True, in the column"
            f" {shown(str(error))}, and each class seems to have its own column; name the column of"
            " the classes with --label-column"
        ) from error
    if len(marked) > 1:
        raise DataError(
            f"{where} has a 1 in several columns, {some_listed(marked, most=4)}, and each image"
            " can have one class only; remove the columns that are no classes, leave such images"
            " out, or name the column of the classes with --label-column"
        )
    return marked[0] if marked else ""


def _found(path: Path, row: Row, find: Callable[[str], Found | None]) -> Found | None:
    try:
        return find(row.given)
    except Several as error:
        raise DataError(
            f"line {row.line:,} of {path} lists {shown(row.given)}, which could be any of"
            f" {some_listed(error.names, most=3)}; write the path of one of them"
        ) from error


def _in_sub_folders(
    path: Path, rows: list[Row], encoded: Encoded
) -> tuple[list[Found | None], list[str]]:
    """Find files relative to folders beside the table; each must be in one folder only."""
    below = [""]
    for _ in range(2):
        below = csv_paths.sub_folders(path.parent, below)
        finders = [Finder(path.parent, folder, encoded.codec) for folder in below]
        first = [
            _found(path, row, finder.find) for row in rows[:_SAMPLE_ROWS] for finder in finders
        ]
        used = [
            finder for number, finder in enumerate(finders) if any(first[number :: len(finders)])
        ]
        if not used:
            continue
        files: list[Found | None] = []
        for row in rows:
            found = [file for finder in used if (file := _found(path, row, finder.find))]
            if len({file.key for file in found}) > 1:
                raise DataError(
                    f"line {row.line:,} of {path} lists {shown(row.given)}, which exists as"
                    f" {some_listed([file.key for file in found], most=3)}; write the folder in"
                    " the paths"
                )
            files.append(found[0] if found else None)
        folders = some_listed([finder.below for finder in used], most=3)
        return files, [f"the paths are relative to {folders}"]
    return [None] * len(rows), []


def _once(
    path: Path, rows: list[Row], files: list[Found | None], before: bool
) -> tuple[list[Row], list[Found | None], list[str]]:
    """Drop rows that repeat another; refuse those that contradict another."""
    row_of: dict[str, Row] = {}
    kept = []
    for row, file in zip(rows, files, strict=True):
        key = key_of(path, row, file)
        other = row_of.setdefault(key, row)
        if other is row:
            kept.append((row, file))
        elif before or other[2:] != row[2:]:
            raise DataError(
                f"line {row.line:,} of {path} lists {shown(key)} {_as_what(row, other)}, and line"
                f" {other.line:,} lists it {_as_what(other, row)}; correct or remove one"
            )
    num = len(rows) - len(kept)
    notes = [f"{counted(num, 'row')} that repeat{'s' if num == 1 else ''} another"] if num else []
    return [row for row, _ in kept], [file for _, file in kept], notes


def key_of(path: Path, row: Row, file: Found | None) -> str:
    """Return the path of a row in the table of samples."""
    return file.key if file else csv_paths.key_of(path.parent, row.given)


def _as_what(row: Row, other: Row) -> str:
    what = [
        f"{name} '{shown(mine)}'"
        for name, mine, its in zip(("class", "split", "group"), row[2:], other[2:], strict=True)
        if mine != its
    ]
    return f"with {listed(what)}" if what else "too"


def _checked_classes(path: Path, columns: Columns, rows: list[Row]) -> tuple[list[Row], list[str]]:
    """Refuse classes that are not certain, and make 1 and 1.0 one class."""
    if not columns.one_hot:
        csv_classes.require_one_each(str(path), ((row.line, row.label) for row in rows))
    same, note = csv_classes.whole_numbers({row.label for row in rows})
    if note:
        rows = [row._replace(label=same.get(row.label, row.label)) for row in rows]
    csv_classes.require_one_number_each(str(path), {row.label for row in rows})
    return rows, [note] if note else []


def _how_found(files: list[Found | None]) -> list[str]:
    how = Counter(file.how for file in files if file and file.how)
    notes = [words.format(counted(how[kind], "path")) for kind, words in _HOW.items() if how[kind]]
    if moved := [file for file in files if file and file.how == csv_paths.MOVED]:
        folders = list(dict.fromkeys(file.before for file in moved))
        notes.append(
            f"{counted(len(moved), 'path')} below {some_listed(folders, most=2)}, read from the"
            " table's folder"
        )
    return notes


def _notes(encoded: Encoded, delimiter: str, columns: Columns, lines: Lines) -> list[str]:
    notes = []
    if delimiter == SPACES:
        notes.append("each line is a path, a blank and a class")
    elif delimiter != ",":
        notes.append(f"its cells are separated by {DELIMITERS[delimiter]}")
    if encoded.note:
        notes.append(encoded.note)
    if not columns.has_header:
        notes.append("it has no header line")
    if columns.path >= 0 and columns.has_header and columns.names[columns.path].lower() != "path":
        notes.append(f"the paths are in the column `{shown(columns.names[columns.path])}`")
    if columns.split >= 0 and columns.names[columns.split].lower() != "split":
        notes.append(f"the splits are in the column `{shown(columns.names[columns.split])}`")
    if lines.num_comments:
        notes.append(f"{counted(lines.num_comments, 'comment line')}")
    return notes


def _classes_words(columns: Columns, path: Path) -> str:
    if columns.one_hot:
        names = [columns.names[number] for number in columns.one_hot]
        return f"with a column each ({some_listed(names, most=5)}) in {shown(path.name)}"
    return f"in the column `{shown(columns.names[columns.label])}` of {shown(path.name)}"

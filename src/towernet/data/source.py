"""Sources of labelled images: a folder, an archive, a CSV, the embedded digits.

Nothing is decoded here and no user's file is written: every file found is listed with its class,
or is unreadable or ignored for a reason that is given.
"""

from __future__ import annotations

import csv
import os
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from towernet.data import archive, digits
from towernet.data.archive_tar import is_tar
from towernet.data.archive_zip import is_zip
from towernet.data.formats import begins_as_image
from towernet.data.interpret import interpret, without_others
from towernet.data.kinds import kinds_of
from towernet.data.layout import Layout, require_classes
from towernet.data.listing import Below, Files, SourceFile
from towernet.data.split_names import SPLIT_NAMES
from towernet.data.summary import classes_words
from towernet.data.table import Texts, path_bytes
from towernet.data.tree import Ignored, folder_of, hidden, hidden_part, scan
from towernet.data.workers import Count
from towernet.errors import DataError, EnvironmentFault
from towernet.records.reading import DEFAULT, Reading
from towernet.words import counted, shown

DIGITS = "digits"
_CSV_SPLITS = {"": "", **SPLIT_NAMES}
_OTHER_KINDS = (
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x1f\x8b", "tar"),
    (b"BZh", "tar"),
    (b"\xfd7zXZ\0", "tar"),
    (b"Rar!", "a RAR archive"),
    (b"7z\xbc\xaf'\x1c", "a 7-Zip archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (b"%PDF", "a PDF document"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
    (b"<", "an HTML or XML page, perhaps of a failed download"),
)


class Unreadable(NamedTuple):
    """A listed file that cannot be read: quarantined without decoding."""

    path: str
    class_name: str
    given_split: str
    reason: str
    detail: str


class Source(NamedTuple):
    """What `open_source` found; `files`, `unreadable` and `ignored` together are everything.

    Args:
        name: Name of the data.
        root: The folder that contains the files.
        reading: How the data was read, as one sentence starting with "I read this as".
        class_names: All classes, sorted by their bytes.
        files: Sorted by the bytes of their paths; those in no class folder have no class name.
        ignored: What is not an image of the data set.
        unreadable: What the archive cannot unpack, or the CSV lists and does not exist.
        no_flip: Mirroring changes the meaning, as for digits.
        data: What the user passed.
        options: How the data was read.
    """

    name: str
    root: Path
    reading: str
    class_names: tuple[str, ...]
    files: Files
    ignored: tuple[Ignored, ...]
    unreadable: tuple[Unreadable, ...] = ()
    no_flip: bool = False
    data: str = ""
    options: Reading = DEFAULT


def open_source(
    data: str,
    reading: Reading = DEFAULT,
    *,
    progress: Count | None = None,
    min_classes: int = 2,
) -> Source:
    """Find the labelled images of `data`.

    Args:
        data: A folder, a zip or tar, a CSV, or `digits`.
        reading: The options about reading data.
        progress: Called as progress(what, done, total) while files are listed or unpacked.
        min_classes: 2 for training; 1 is enough for evaluating a trained network.

    Raises:
        DataError: the data does not exist, or cannot be read as that many classes.
        EnvironmentFault: the disk is too small for the archive, or fails.
        UnknownNameError: no layout has this name.
    """
    return _opened(data, reading, progress, min_classes)._replace(data=data, options=reading)


def _opened(data: str, reading: Reading, progress: Count | None, min_classes: int) -> Source:
    if not data:
        raise DataError("DATA is empty; pass a folder (use . for the current one)")
    path = Path(data)
    if data == DIGITS:
        return _open_digits(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return _open_folder(path, reading, progress, min_classes)
        if not stat.S_ISREG(mode):
            raise DataError(f"{shown(data)} is neither a folder nor a file; pass one of them")
        if path.suffix.lower() == ".csv":
            return _open_csv(path, min_classes)
        kind = kind_of(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(
            f"{shown(data)} does not exist; pass a folder, a zip, a tar, a CSV, or the word digits"
        ) from error
    except PermissionError as error:
        raise DataError(
            f"{shown(data)} cannot be read (permission denied); ask for permission to read it"
        ) from error
    except OSError as error:
        if isinstance(error, EnvironmentFault):
            raise
        raise DataError(
            f"{shown(data)} cannot be read: {error.strerror}; check the path"
        ) from error
    if kind not in ("zip", "tar"):
        raise DataError(
            f"{shown(data)} is {kind}; pass a folder, a zip, a tar (plain, gz, bz2, xz) or a CSV"
        )
    unpacked = archive.unpack(
        path, kind, limits=_limits(reading), encoding=reading.encoding, progress=progress
    )
    return _open_archive(path, unpacked, reading, min_classes)


def _limits(reading: Reading) -> archive.Limits:
    gb = reading.max_archive_gb
    return archive.Limits(None if gb is None else int(gb * 1e9), reading.max_archive_entries)


def where(data: str) -> str:
    """Return where some data is, for the record: an absolute path, or `digits`."""
    return DIGITS if data == DIGITS else str(Path(data).resolve())


def name_of(data: str) -> str:
    """Return the name of some data: that of its folder, or of its file without the suffix."""
    path = Path(data)
    if data == DIGITS or path.is_dir():
        return path.name or path.resolve().name or data
    return path.name.removesuffix(path.suffix).removesuffix(".tar") or path.name


def kind_of(path: Path) -> str:
    """Return "zip", "tar", or a description of the file, by its content."""
    with path.open("rb") as stream:
        head = stream.read(64)
    if not head:
        return "an empty file"
    for magic, kind in _OTHER_KINDS:
        if head.startswith(magic):
            return kind
    if is_tar(path):  # the name of its first member may look like the start of an image
        return "tar"
    if image := begins_as_image(head):
        return f"a {image[0]} image"
    if is_zip(path):  # something precedes it, such as a self-extractor
        return "zip"
    return "not a known kind of archive"


def _open_digits(path: Path) -> Source:
    if path.exists():
        raise DataError(
            "digits is built in, but this folder also contains digits; pass ./digits to use yours,"
            " or run from another folder to use the built-in one"
        )
    source = _open_folder(digits.digits_folder(), Reading(layout="classes", masks="keep"))
    reading = (
        f"I read this as {len(source.class_names)} classes, the handwritten digits that come with"
        f" scikit-learn, enlarged to {digits.SIZE_PX} pixels: {len(source.files):,} files"
    )
    return source._replace(name=DIGITS, reading=reading, no_flip=True)


def _open_folder(
    path: Path, reading: Reading, progress: Count | None = None, min_classes: int = 2
) -> Source:
    tree = scan(path, progress, follow_links=reading.follow_links)
    name = name_of(str(path))
    tree.paths.sort(key=path_bytes)

    def location(relative: str) -> Path:
        return path / relative

    kinds = kinds_of(tree.paths, location)
    read, kinds = interpret(
        shown(name), kinds, tree.folders, reading, min_classes, location, where=path
    )
    if num := sum(one.reason == "SYMLINK" for one in tree.ignored):
        verb = "is" if num == 1 else "are"
        hint = " (--follow-links all follows them)" if reading.follow_links is None else ""
        note = f"; {counted(num, 'symbolic link')} {verb} not followed{hint}"
        read = read._replace(reading=read.reading + note)
    paths = without_others(kinds, read, tree.ignored)
    return _placed(name, path, read, paths, Below(path, paths), (), tree.ignored)


def _open_archive(
    path: Path, unpacked: archive.Unpacked, reading: Reading, min_classes: int
) -> Source:
    ignored: dict[str, Ignored] = {}

    def counts(name: str) -> bool:
        """Whether a member counts; a hidden folder is listed once, as in a folder on disk."""
        if part := hidden_part(name):
            ignored[part] = hidden(part)
        return not part

    found = {member.name: member.file for member in unpacked.members if counts(member.name)}
    bad_members = [bad for bad in unpacked.bad_members if counts(bad.name)]
    folders = [folder for folder in unpacked.folders if counts(folder)]
    kinds = kinds_of(sorted(found, key=path_bytes), found.__getitem__)
    bad_names = [bad.name for bad in bad_members]
    read, kinds = interpret(
        shown(path.name),
        kinds,
        folders,
        reading,
        min_classes,
        found.__getitem__,
        unreadable=bad_names,
    )
    if unpacked.note:
        read = read._replace(reading=f"{read.reading}; {unpacked.note}")
    name = name_of(str(path))
    notes = list(ignored.values())
    paths = without_others(kinds, read, notes)
    locations = [found[path] for path in paths]
    return _placed(name, unpacked.root, read, paths, locations, bad_members, notes)


def _placed(
    name: str,
    root: Path,
    read: Layout,
    paths: list[str],
    locations: Sequence[Path],
    bad_members: Sequence[archive.BadMember],
    ignored: list[Ignored],
) -> Source:
    """Give each file its class."""
    place_of = {folder: read.place(folder) for folder in set(map(folder_of, paths))}
    class_name, given_split = (
        Texts.of((place_of[folder_of(path)][which] for path in paths), len(paths))
        for which in (0, 1)
    )
    unreadable = [
        Unreadable(bad.name, *read.class_and_split(bad.name), bad.reason, bad.detail)
        for bad in bad_members
    ]
    return Source(
        name,
        root,
        read.reading,
        tuple(sorted(read.classes, key=path_bytes)),
        Files(paths, locations, class_name, given_split),
        _sorted(ignored),
        _sorted(unreadable),
    )


def _sorted(rows: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(sorted(rows, key=lambda row: path_bytes(row.path)))


def _open_csv(path: Path, min_classes: int) -> Source:
    """Read `path,label[,split,group]`; paths are relative to the CSV's folder.

    A file that the CSV lists is read wherever it is, through a link or outside the folder: unlike
    what a scan of a folder finds, it was chosen explicitly.
    """
    files: list[SourceFile] = []
    missing: list[Unreadable] = []
    line_of: dict[str, int] = {}
    columns, rows = _csv_rows(path)
    for line, row in rows:
        where = f"line {line:,} of {path}"
        split = row.get("split", "").strip().lower()
        if split not in _CSV_SPLITS:
            raise DataError(
                f"{where} has the split '{shown(split)}'; write train, validation or test"
            )
        given = row["path"]
        if not given:
            raise DataError(f"{where} has no path; fill it in or remove the line")
        if (file := _regular_file(path.parent, given)) is None and "\\" in given:
            given = given.replace("\\", "/")  # as Windows writes paths
            file = _regular_file(path.parent, given)
        key = _key(path.parent, given)
        if key in line_of:
            raise DataError(
                f"{where} lists {shown(key)}, which line {line_of[key]:,} lists too; remove one"
            )
        line_of[key] = line
        label, split = row["label"].strip(), _CSV_SPLITS[split]
        if file is None:
            detail = f"{where} lists it and there is no such file"
            missing.append(Unreadable(key, label, split, "MISSING", detail))
        else:
            files.append(SourceFile(key, label, split, row.get("group", "").strip(), file))
    if not files:
        first = f" (the first is {shown(missing[0].path)})" if missing else ""
        raise DataError(
            f"{path} lists {counted(len(missing), 'file')}{first} and none exists; write paths"
            " relative to its folder"
        )
    labels = [file.class_name for file in files] + [row.class_name for row in missing]
    num_files = Counter(label for label in labels if label)
    require_classes(num_files, num_files, name=path.name, fewest=min_classes)
    unused = [column for column in columns if column not in ("path", "label", "split", "group")]
    note = f"; not used: the columns {', '.join(map(shown, unused))}" if unused else ""
    return Source(
        path.stem,
        path.parent,
        f"I read this as {classes_words(len(num_files))} in the column `label` of"
        f" {shown(path.name)}:"
        f" {len(files) + len(missing):,} files{note}",
        tuple(sorted(num_files, key=path_bytes)),
        _in_columns(files),
        (),
        _sorted(missing),
    )


def _in_columns(files: list[SourceFile]) -> Files:
    files.sort(key=lambda file: path_bytes(file.path))
    num = len(files)
    return Files(
        [file.path for file in files],
        [file.file for file in files],
        Texts.of((file.class_name for file in files), num),
        Texts.of((file.given_split for file in files), num),
        Texts.of((file.group for file in files), num),
    )


def _csv_rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Return the columns' names and each row with its line."""
    try:
        # Bytes that are not UTF-8 are kept as they are: they may be part of a file's name.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            lines = csv.reader(stream, strict=True)
            columns = [column.strip().lower() for column in next(lines, [])]
            if absent := [column for column in ("path", "label") if column not in columns]:
                raise DataError(
                    f"{path} has no column {' and no column '.join(absent)} (its first line is"
                    f" '{shown(','.join(columns))[:80]}'); add the header line path,label"
                )
            rows = []
            for cells in lines:
                if not cells:
                    continue
                if len(cells) != len(columns):
                    raise DataError(
                        f"line {lines.line_num:,} of {path} has {counted(len(cells), 'cell')}"
                        f" and the first line has {len(columns)}; quote a cell that contains a"
                        " comma"
                    )
                rows.append((lines.line_num, dict(zip(columns, cells, strict=True))))
    except csv.Error as error:
        raise DataError(
            f"line {lines.line_num:,} of {path} cannot be read ({error}); fix that line"
        ) from error
    return columns, rows


def _key(folder: Path, given: str) -> str:
    """Return a path as in the table: relative, unless it is absolute and outside the folder."""
    if os.path.isabs(given):  # noqa: PTH117 - there may be a million
        relative = os.path.relpath(given, folder.resolve())
        return given if relative.startswith("..") else relative
    return os.path.normpath(given)


def _regular_file(folder: Path, given: str) -> Path | None:
    file = folder / given
    try:
        return file if stat.S_ISREG(file.stat().st_mode) else None
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return None

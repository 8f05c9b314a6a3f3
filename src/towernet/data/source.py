"""Sources of labelled images: a folder, an archive, a CSV, the embedded digits.

Nothing is decoded here and no user's file is written: every file found is listed with its class,
or is unreadable or ignored for a reason that is given.
"""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from towernet.data import archive, digits
from towernet.data.archive_tar import is_tar
from towernet.data.archive_zip import is_zip
from towernet.data.csv_table import LISTS, SUFFIXES, key_of, other_table, read_csv
from towernet.data.effect import ARCHIVE, BUILT_IN, CSV, FOLDER, require_effect
from towernet.data.formats import begins_as_image
from towernet.data.interpret import interpret, without_others
from towernet.data.kinds import kinds_of
from towernet.data.layout import Layout, require_classes
from towernet.data.listing import Below, Files, SourceFile
from towernet.data.summary import classes_words
from towernet.data.table import Texts, path_bytes
from towernet.data.tree import Ignored, folder_of, hidden, hidden_part, scan
from towernet.data.workers import Count
from towernet.errors import DataError, EnvironmentFault
from towernet.records.reading import DEFAULT, Reading
from towernet.words import counted, shown, some_listed

DIGITS = "digits"
UNKNOWN = "not a known kind of archive"
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
        lines: Of the rows in a CSV without a class, by path; None for other data.
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
    lines: dict[str, int] | None = None

    def why_no_class(self, path: str) -> str:
        """Return why a file has no class, and what to do."""
        if self.lines is None:
            return "not in a class folder; move it into one"
        line = self.lines[path]
        return f"line {line:,} of {self.data} has no class; fill it in, or remove the line"


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
        ConfigError: an option has no effect on this data.
        UnknownNameError: no layout has this name.
    """
    return _opened(data, reading, progress, min_classes)._replace(data=data, options=reading)


def _opened(data: str, reading: Reading, progress: Count | None, min_classes: int) -> Source:
    if not data:
        raise DataError("DATA is empty; pass a folder (use . for the current one)")
    path = Path(data)
    if data == DIGITS:
        require_effect(reading, data, BUILT_IN)
        return _open_digits(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            require_effect(reading, data, FOLDER)
            return _open_folder(path, reading, progress, min_classes)
        if not stat.S_ISREG(mode):
            raise DataError(f"{shown(data)} is neither a folder nor a file; pass one of them")
        if path.suffix.lower() in SUFFIXES:
            return _open_csv(path, reading, min_classes)
        kind = other_table(path) or kind_of(path)
        if kind == UNKNOWN and path.suffix.lower() in LISTS:
            return _open_csv(path, reading, min_classes)
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
    if other_table(path):
        raise DataError(
            f"{shown(data)} is {kind}, which is not read; save it as a CSV with the columns"
            " path,label, and pass that"
        )
    if kind not in ("zip", "tar"):
        raise DataError(
            f"{shown(data)} is {kind}; pass a folder, a zip, a tar (plain, gz, bz2, xz) or a CSV"
        )
    require_effect(reading, data, ARCHIVE)
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
    return UNKNOWN


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
    links = [one for one in tree.ignored if one.reason == "SYMLINK"]
    read, kinds = interpret(
        shown(name), kinds, tree.folders, reading, min_classes, location, where=path, links=links
    )
    if num := len(links):
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


def _open_csv(path: Path, reading: Reading, min_classes: int) -> Source:
    require_effect(reading, str(path), CSV)
    table = read_csv(path, reading)
    files: list[SourceFile] = []
    missing: list[Unreadable] = []
    lines: dict[str, int] = {}
    for row, found in zip(table.rows, table.files, strict=True):
        key = key_of(path, row, found)
        if found is None:
            detail = f"line {row.line:,} of {path} lists it and there is no such file"
            missing.append(Unreadable(key, row.label, row.split, "MISSING", detail))
        else:
            if not row.label:
                lines[key] = row.line
            files.append(SourceFile(key, row.label, row.split, row.group, found.file))
    num_files = Counter(row.label for row in table.rows if row.label)
    require_classes(num_files, num_files, name=path.name, fewest=min_classes)
    notes = table.notes
    if table.unused:
        columns = "column" if len(table.unused) == 1 else "columns"
        notes = [*notes, f"not used: the {columns} {some_listed(table.unused)}"]
    return Source(
        path.stem,
        path.parent,
        f"I read this as {classes_words(len(num_files))} {table.classes}:"
        f" {len(table.rows):,} files{''.join(f'; {note}' for note in notes)}",
        tuple(sorted(num_files, key=path_bytes)),
        _in_columns(files),
        (),
        _sorted(missing),
        lines=lines,
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

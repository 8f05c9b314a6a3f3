"""Zip and tar archives, unpacked once into the cache under the hashes of their members.

Archives are untrusted: all entries are checked before a byte is written, and members are stored
under the hash of their content, never under their own names. A member that cannot be read is
reported, and the others are kept.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from towernet import files
from towernet.data.archive_names import Names, Undecodable
from towernet.data.archive_store import hold, lock_of, make_room
from towernet.data.archive_stream import (
    DAMAGE,
    FILE,
    FOLDER,
    Damaged,
    Entry,
    Hostile,
    Listing,
)
from towernet.data.archive_tar import read_tar
from towernet.data.archive_zip import find_directory, read_zip
from towernet.data.encodings import AS_BEFORE, said
from towernet.data.workers import Count
from towernet.errors import ConfigError, DataError, EnvironmentFault
from towernet.words import shown

MAX_ENTRIES = 2_000_000
MAX_TOTAL_BYTES = 2**40
MAX_RATIO = 200  # images hardly compress; a bomb compresses a thousandfold
RATIO_FREE_BYTES = 32 * 2**20  # the compression-ratio check is skipped below this unpacked size
MIN_ENTRY_BYTES = 64  # on average; no image is smaller
ENTRIES_FREE = 20_000  # the check of MIN_ENTRY_BYTES is skipped up to this many entries
LAYOUT_VERSION = 4  # of the unpacked folder and of how names are decoded; part of its name


_NESTED = re.compile(r"\.(zip|tar|tgz|tbz2?|txz|rar|7z|tar\.(gz|bz2|xz|zst))$", re.IGNORECASE)


class Limits(NamedTuple):
    """How much an archive can unpack to; None is the default limit and a check for archive bombs.

    An explicit limit replaces both: the user trusts the archive.
    """

    max_bytes: int | None = None  # --max-archive-gb
    max_entries: int | None = None  # --max-archive-entries


DEFAULT_LIMITS = Limits()


class Member(NamedTuple):
    """A file of the archive: its name there, and where its bytes are now."""

    name: str
    file: Path


class BadMember(NamedTuple):
    """A file of the archive that could not be unpacked."""

    name: str
    reason: str
    detail: str


class Unpacked(NamedTuple):
    """The unpacked content of an archive; `folders` are those it lists as entries."""

    root: Path
    members: tuple[Member, ...]
    bad_members: tuple[BadMember, ...]
    folders: tuple[str, ...]
    note: str  # how names were read that do not say how they are encoded, or ""


def unpack(
    path: Path,
    kind: str,
    *,
    limits: Limits = DEFAULT_LIMITS,
    encoding: str | None = None,
    progress: Count | None = None,
) -> Unpacked:
    """Unpack a "zip" or "tar" into the cache, or find it there; safe with concurrent processes.

    The result stays in the cache while this process runs, unless it opens many other archives.

    Args:
        path: The archive.
        kind: "zip" or "tar".
        limits: How much it can unpack to.
        encoding: Of names that do not say it; None to recognise it; `encodings.AS_BEFORE` is the
            rule of runs made before encodings were recognised.
        progress: Called as progress(what, done, total).

    Raises:
        DataError: it is damaged, hostile, too large, contains archives, or has names in no known
            encoding; nothing is written then.
        EnvironmentFault: the disk is too small, or the cache cannot be written.
        ConfigError: TOWERNET_CACHE_GB is not a number.
        UnknownNameError: there is no such encoding.
    """
    names = Names(encoding)
    before = path.stat()
    content_id = files.sha256(path)
    store = files.cache_folder() / "archives"
    folder = store / f"{content_id}{names.key}-{LAYOUT_VERSION}"
    with files.lock(lock_of(folder), holder=str(folder), wait=True):
        if (kept := _kept(folder)) is None:
            _unpack(path, kind, folder, limits, names, progress)
            kept = _kept(folder)
            assert kept is not None, f"{folder} was written and is incomplete"
        else:
            _require_kept(path, kept, limits)
        after = path.stat()
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            shutil.rmtree(folder)  # its content may not match its name
            raise _changed(path)
        hold(folder)
    return kept


def _changed(path: Path) -> DataError:
    return DataError(
        f"{path} changed while it was read; run the command again when the file is complete"
    )


def make_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Fill a sibling of `folder` and rename it, so that a partial folder is never visible.

    The caller holds a lock; what a killed process left is removed.
    """
    part = folder.with_name(folder.name + ".part")
    try:
        for leftover in (part, folder):
            if leftover.exists():
                shutil.rmtree(leftover)
        part.mkdir(parents=True)
        fill(part)
        os.sync()  # once for all members: the content is on the disk before the rename
        part.rename(folder)
    except OSError as error:
        if isinstance(error, EnvironmentFault | DataError):
            raise
        raise EnvironmentFault(
            f"{folder} cannot be written: {error.strerror or error};"
            " free some space or set TOWERNET_CACHE to another folder"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _kept(folder: Path) -> Unpacked | None:
    """Return what was unpacked before; None if some of it is missing, as after a power loss."""
    if not (folder / "index.json").exists():
        return None
    try:
        index = files.read_record(
            folder / "index.json", "members", "bad_members", "folders", "note"
        )
    except DataError:  # in the cache, so the archive is unpacked again
        return None
    members = []
    for name, content_id, num_bytes in index["members"]:
        file = folder / content_id[:2] / content_id
        try:
            if file.stat().st_size != num_bytes:
                return None
        except FileNotFoundError:
            return None
        members.append(Member(name, file))
    bad_members = tuple(BadMember(*bad) for bad in index["bad_members"])
    return Unpacked(folder, tuple(members), bad_members, tuple(index["folders"]), index["note"])


def _require_kept(path: Path, kept: Unpacked, limits: Limits) -> None:
    """Refuse what was unpacked before if an explicit limit is smaller."""
    if limits.max_entries is not None:
        num = len(kept.members) + len(kept.bad_members) + len(kept.folders)
        _require_entries(path, num, limits)
    if limits.max_bytes is not None:
        num_bytes = sum(member.file.stat().st_size for member in kept.members)
        _require_size(path, num_bytes, path.stat().st_size, limits)


def _unpack(
    path: Path, kind: str, folder: Path, limits: Limits, names: Names, progress: Count | None
) -> None:
    try:
        with path.open("rb") as stream:

            def members(names: Names) -> Listing:
                return _members(path, kind, stream, limits, names)

            # First with every byte of a name as a character: no encoding hides a dangerous name.
            entries, folders = _judge(path, members(names), limits)
            note = names.note_of_utf8()
            if names.are_undecided:
                names, entries, folders, note = _with_names(path, kind, names, members, limits)
            make_room(path, folder, sum(entry.num_bytes for entry in entries if not entry.problem))
            make_folder(
                folder,
                lambda part: _fill(part, entries, folders, note, path, members(names), progress),
            )
    except Hostile as error:
        raise DataError(
            f"{path} is refused, nothing was unpacked: {error}; create the archive again with"
            " regular files under relative paths only"
        ) from error
    except (DataError, EnvironmentFault, ConfigError):
        raise
    except DAMAGE as error:
        raise DataError(
            f"{path} cannot be read ({_words(error)}); download it again, as it may be"
            " incomplete, or unpack it and pass the folder"
        ) from error


def _with_names(
    path: Path, kind: str, undecided: Names, members: Callable[[Names], Listing], limits: Limits
) -> tuple[Names, list[Entry], list[str], str]:
    """Recognise how the names are encoded, and judge the archive again with these names."""
    excluded: list[str] = []
    while (names := undecided.decided(path, excluded, is_tar=kind == "tar")) is not None:
        try:
            entries, folders = _judge(path, members(names), limits)
        except Undecodable as error:
            if undecided.encoding is not None or names.codec in excluded:
                raise DataError(
                    f"{path} contains a name, {shown(error.raw.decode('ascii', 'surrogateescape'))}"
                    f", that is not in {said(names.codec)}; give another --encoding, or unpack the"
                    " archive and pass the folder"
                ) from error
            excluded.append(names.codec)
        else:
            return names, entries, folders, names.note(undecided)
    names = Names(AS_BEFORE)
    note = "names that are not UTF-8 are read byte by byte; if that is wrong, give --encoding"
    return names, *_judge(path, members(names), limits), note


def _members(
    path: Path, kind: str, stream: io.BufferedReader, limits: Limits, names: Names
) -> Listing:
    if kind == "tar":
        return read_tar(stream, names)
    directory = find_directory(stream)
    _require_entries(path, directory.num_entries, limits)
    # A count below 65,536 may be modulo 65,536, or false: only the directory's size bounds it.
    if directory.num_entries < 2**16 and directory.room > max(MAX_ENTRIES, limits.max_entries or 0):
        raise Damaged(
            f"it declares {directory.num_entries:,} entries but lists up to {directory.room:,}"
        )
    return read_zip(stream, directory, names)


def _words(error: BaseException) -> str:
    return shown(str(error).partition("\n")[0].rstrip(":") or type(error).__name__)


def _fill(
    part: Path,
    entries: list[Entry],
    folders: list[str],
    note: str,
    path: Path,
    listing: Listing,
    progress: Count | None,
) -> None:
    members, bad_members = [], []
    again = ((entry, content) for entry, content in listing if entry.kind == FILE)
    for done, entry in enumerate(entries):
        if progress is not None and done % 100 == 0:
            progress("unpacking", done, len(entries))
        read, content = next(again, (None, iter(())))
        if read is None or read.total_bytes != entry.total_bytes:
            raise _changed(path)
        content_id, problem = ("", entry.problem) if entry.problem else _store(entry, content, part)
        if problem is None:
            members.append([entry.name, content_id, entry.num_bytes])
        else:
            bad_members.append([entry.name, *problem])
    if progress is not None:
        progress("unpacking", len(entries), len(entries))
    (part / "member").unlink(missing_ok=True)
    index = {
        "members": members,
        "bad_members": bad_members,
        "folders": folders,
        "note": note,
    }
    files.write_json(part / "index.json", index)


def _store(
    entry: Entry, content: Iterator[bytes], part: Path
) -> tuple[str, tuple[str, str] | None]:
    """Write one member under its hash; return the hash, and why it cannot be read if it cannot."""
    digest, num_bytes, temporary = hashlib.sha256(), 0, part / "member"
    with temporary.open("wb") as target:
        while num_bytes <= entry.num_bytes:
            # Only read errors mean a damaged member: write errors are the disk's and are raised.
            try:
                piece = next(content, None)
            except DAMAGE as error:
                return "", ("CORRUPT", f"it cannot be unpacked ({_words(error)})")
            if piece is None:
                break
            digest.update(piece)
            num_bytes += len(piece)
            target.write(piece)
    if num_bytes != entry.num_bytes:
        given = "more" if num_bytes > entry.num_bytes else f"{num_bytes:,}"
        return "", (
            "CORRUPT",
            f"its archive declares {entry.num_bytes:,} bytes and contains {given}",
        )
    file = part / digest.hexdigest()[:2] / digest.hexdigest()
    file.parent.mkdir(exist_ok=True)
    temporary.rename(file)
    return digest.hexdigest(), None


def _judge(path: Path, listing: Listing, limits: Limits) -> tuple[list[Entry], list[str]]:
    """Return the files, each with a unique name, and the folders; or refuse the archive."""
    archive_bytes = path.stat().st_size
    found: list[Entry] = []
    folders, dangers, num_dangers, content_bytes = [], [], 0, 0
    for num_entries, (entry, _) in enumerate(listing, start=1):
        content_bytes += entry.num_bytes
        _require_entries(path, num_entries, limits)
        _require_size(path, entry.total_bytes, archive_bytes, limits)
        if limits.max_entries is None and num_entries > ENTRIES_FREE:
            _require_content(path, num_entries, content_bytes)
        if danger := _danger(entry):
            num_dangers += 1
            if num_dangers <= 10:
                dangers.append(f"{_short(entry.name)} ({danger})")
        elif entry.kind == FOLDER:
            folders.append(_clean(entry.name))
        else:
            found.append(entry)
    if dangers:
        more = f" and {num_dangers - 10:,} more" if num_dangers > 10 else ""
        raise Hostile(", ".join(dangers) + more)
    return _named(found, path), folders


def _danger(entry: Entry) -> str:
    """Return why a member is refused: a path outside the archive or not a regular file; else ''."""
    if entry.kind not in (FILE, FOLDER):
        return entry.kind
    name = entry.name.replace("\\", "/")
    if name.startswith("/") or re.match("[A-Za-z]:", name):
        return "an absolute path"
    if ".." in name.split("/"):
        return "a path that leaves the archive"
    return "a name that contains a NUL" if "\0" in name else ""


def _short(name: str) -> str:
    name = shown(name)
    return name if len(name) <= 100 else f"{name[:60]}…{name[-39:]}"


def _clean(name: str) -> str:
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))


def _named(entries: list[Entry], path: Path) -> list[Entry]:
    """Give every entry a unique name; of entries with the same name only the first is unpacked."""
    times: Counter[str] = Counter()
    names: set[str] = set()
    named = []
    for entry in entries:
        name, problem = _clean(entry.name) or "(no name)", entry.problem
        if _NESTED.search(name) and not name.rpartition("/")[2].startswith("."):
            raise DataError(
                f"{path} contains another archive, {_short(name)}, and nested archives are not"
                " supported; unpack it and pass the folder"
            )
        first_name = name
        while name in names:
            times[first_name] += 1
            name = f"{first_name} (again, {times[first_name]})"
            problem = "DUPLICATE_NAME", f"the archive contains {_short(first_name)} more than once"
        names.add(name)
        named.append(entry._replace(name=name, problem=problem))
    return named


def _require_entries(path: Path, num_entries: int, limits: Limits) -> None:
    most = MAX_ENTRIES if limits.max_entries is None else limits.max_entries
    if num_entries > most:
        raise DataError(
            f"{path} contains at least {num_entries:,} entries and the limit is {most:,};"
            " if you trust it, allow more with --max-archive-entries"
        )


def _require_content(path: Path, num_entries: int, content_bytes: int) -> None:
    if content_bytes < MIN_ENTRY_BYTES * num_entries:
        raise DataError(
            f"{path} looks like an archive bomb: its first {num_entries:,} entries contain"
            f" {content_bytes:,} bytes, less than {MIN_ENTRY_BYTES} each on average; if you trust"
            " it, set --max-archive-entries to its number of entries"
        )


def _require_size(path: Path, total_bytes: int, archive_bytes: int, limits: Limits) -> None:
    allow = f"if you trust it, allow it with --max-archive-gb {math.ceil(total_bytes / 1e9):,}"
    most = MAX_TOTAL_BYTES if limits.max_bytes is None else limits.max_bytes
    if total_bytes > most:
        raise DataError(
            f"{path} would unpack to at least {total_bytes:,} bytes and the limit is {most:,};"
            f" {allow}"
        )
    ratio = total_bytes / max(1, archive_bytes)
    if limits.max_bytes is None and total_bytes > RATIO_FREE_BYTES and ratio > MAX_RATIO:
        raise DataError(
            f"{path} looks like an archive bomb: it would unpack to at least {total_bytes:,} bytes,"
            f" {ratio:,.0f} times its own size, and the limit is {MAX_RATIO} times; {allow}"
        )

"""Zip and tar archives, unpacked once into the cache under names of our own.

An archive may come from anybody. Its directory is judged whole before a byte is written; members
are stored under the hash of their content, never under their own names; a member that cannot be
read is told of, and the others are kept.
"""

from __future__ import annotations

import hashlib
import itertools
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from towernet import files
from towernet.data.table import shown
from towernet.errors import DataError, EnvironmentFault

MAX_ENTRIES = 2_000_000
MAX_DIRECTORY_BYTES = 512 * 2**20
MAX_TOTAL_BYTES = 2**40
MAX_RATIO = 200  # pictures hardly shrink; a bomb shrinks a thousandfold
RATIO_FREE_BYTES = 100 * 2**20  # what is smaller than this when unpacked may shrink as it likes
SPARE_DISK_BYTES = 64 * 2**20
LAYOUT_VERSION = 1  # of the unpacked folder; part of its name
CHUNK_BYTES = 2**20

Progress = Callable[[str, int, int], None]  # what, done, total

_NESTED = re.compile(r"\.(zip|tar|tgz|tbz2?|txz|rar|7z|tar\.(gz|bz2|xz|zst))$", re.IGNORECASE)

# What the standard library raises on damaged archives: seen over 1,682 of them.
_DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError,
    NotImplementedError, RuntimeError, ValueError, IndexError, struct.error,
)  # fmt: skip


class Member(NamedTuple):
    """A file of the archive: its name there, and where its bytes lie now."""

    name: str
    file: Path


class BadMember(NamedTuple):
    """A file of the archive that could not be unpacked."""

    name: str
    reason: str
    detail: str


class Unpacked(NamedTuple):
    """All that an archive held; `folders` are those it names without saying what is in them."""

    root: Path
    members: tuple[Member, ...]
    bad_members: tuple[BadMember, ...]
    folders: tuple[str, ...]


class _Entry(NamedTuple):
    name: str  # parts joined by '/'; a name seen before has ' (again, 2)' after it
    num_bytes: int
    problem: tuple[str, str] | None  # reason and detail, known before reading
    open: Callable[[], IO[bytes]]


def unpack(path: Path, kind: str, *, progress: Progress | None = None) -> Unpacked:
    """Unpack a "zip" or "tar" into the cache, or find it there; safe for processes at once.

    Raises:
        DataError: it is damaged, hostile, too large, or holds archives; nothing is written then.
        EnvironmentFault: the disk is too small, or the cache cannot be written.
    """
    before = path.stat()
    content_id = files.sha256(path)
    store = files.cache_folder() / "archives"
    folder = store / f"{content_id}-{LAYOUT_VERSION}"
    with files.lock(store / f"{folder.name}.lock", holder=str(folder), wait=True):
        if (kept := _kept(folder)) is None:
            _unpack(path, kind, folder, progress)
            kept = _kept(folder)
            assert kept is not None, f"{folder} was written and is not whole"
        after = path.stat()
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            shutil.rmtree(folder)  # it may not be what its name says
            raise DataError(f"{path} changed while it was read; start again when it is complete")
    return kept


def make_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Fill a sibling of `folder` and rename it, so that nobody sees half of it.

    The caller holds a lock; what a killed process left behind is removed.
    """
    part = folder.with_name(folder.name + ".part")
    try:
        for leftover in (part, folder):
            if leftover.exists():
                shutil.rmtree(leftover)
        part.mkdir(parents=True)
        fill(part)
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
    """Return what was unpacked before, unless a power loss or a person took some of it."""
    if not (folder / "index.json").exists():
        return None
    index = files.read_json(folder / "index.json")
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
    return Unpacked(folder, tuple(members), bad_members, tuple(index["folders"]))


def _unpack(path: Path, kind: str, folder: Path, progress: Progress | None) -> None:
    try:
        if kind == "zip":
            with _open_zip(path) as archive:
                _extract(*_list_zip(archive, path), path, folder, progress)
        else:
            with tarfile.open(path) as tar:
                _extract(*_list_tar(tar, path), path, folder, progress)
    except (DataError, EnvironmentFault):
        raise
    except _DAMAGE as error:
        raise DataError(
            f"{path} cannot be read ({_words(error)}); get it again, as it may be an"
            " incomplete download, or unpack it and give the folder"
        ) from error


def _words(error: BaseException) -> str:
    return shown(str(error).partition("\n")[0].rstrip(":") or type(error).__name__)


def _extract(
    entries: list[_Entry], folders: list[str], path: Path, folder: Path, progress: Progress | None
) -> None:
    _require_disk(path, sum(entry.num_bytes for entry in entries))

    def fill(part: Path) -> None:
        members, bad_members = [], []
        for done, entry in enumerate(entries):
            if progress is not None and done % 100 == 0:
                progress("unpacking", done, len(entries))
            content_id, problem = ("", entry.problem) if entry.problem else _store(entry, part)
            if problem is None:
                members.append([entry.name, content_id, entry.num_bytes])
            else:
                bad_members.append([entry.name, *problem])
        if progress is not None:
            progress("unpacking", len(entries), len(entries))
        (part / "member").unlink(missing_ok=True)
        index = {"members": members, "bad_members": bad_members, "folders": folders}
        files.write_json(part / "index.json", index)

    make_folder(folder, fill)


def _store(entry: _Entry, part: Path) -> tuple[str, tuple[str, str] | None]:
    """Write one member under its hash; a member that cannot be read gives its reason."""
    digest, num_bytes, temporary = hashlib.sha256(), 0, part / "member"
    with temporary.open("wb") as target:
        chunks = _chunks(entry)
        while True:
            # Only reading is the archive's fault: an error of writing is the disk's, and rises.
            try:
                chunk = next(chunks, b"")
            except _DAMAGE as error:
                return "", ("CORRUPT", f"its archive cannot give it ({_words(error)})")
            if not chunk:
                break
            digest.update(chunk)
            num_bytes += len(chunk)
            target.write(chunk)
    if num_bytes != entry.num_bytes:
        said = f"its archive says {entry.num_bytes:,} bytes and gives {num_bytes:,}"
        return "", ("CORRUPT", said)
    file = part / digest.hexdigest()[:2] / digest.hexdigest()
    file.parent.mkdir(exist_ok=True)
    temporary.rename(file)
    return digest.hexdigest(), None


def _chunks(entry: _Entry) -> Iterator[bytes]:
    """Read no more than one chunk beyond the declared size, however much there is."""
    with entry.open() as stream:
        for _ in range(entry.num_bytes // CHUNK_BYTES + 2):
            yield stream.read(CHUNK_BYTES)


def _open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip after a look at the size of its directory, which is read into memory whole."""
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - 65557 - 20))
        tail = stream.read()
        at = tail.rfind(b"PK\x05\x06")
        if at >= 0 and len(tail) >= at + 22:
            num_entries, directory_bytes = struct.unpack("<HI", tail[at + 10 : at + 16])
            locator = tail[max(0, at - 20) : at]
            if locator.startswith(b"PK\x06\x07"):
                stream.seek(struct.unpack("<Q", locator[8:16])[0])
                record = stream.read(56)
                if record.startswith(b"PK\x06\x06") and len(record) == 56:
                    num_entries, directory_bytes = struct.unpack("<QQ", record[32:48])
            _require_entries(path, num_entries)
            if directory_bytes > MAX_DIRECTORY_BYTES:
                raise DataError(
                    f"{path} has a directory of {directory_bytes:,} bytes and"
                    f" {MAX_DIRECTORY_BYTES:,} is the most; unpack it and give the folder"
                )
    return zipfile.ZipFile(path)


def _list_zip(archive: zipfile.ZipFile, path: Path) -> tuple[list[_Entry], list[str]]:
    infos = archive.infolist()
    _require_entries(path, len(infos))
    _require_safe(path, ((info.filename, _zip_danger(info)) for info in infos))
    _require_apart(path, infos)
    _require_size(path, sum(info.file_size for info in infos))
    rows = [
        _Entry(info.filename, info.file_size, _zip_problem(info), partial(archive.open, info))
        for info in infos
        if not _is_folder(info)
    ]
    return _named(rows, path), [_clean(info.filename) for info in infos if _is_folder(info)]


def _is_folder(info: zipfile.ZipInfo) -> bool:
    return info.filename.endswith(("/", "\\")) or stat.S_ISDIR(info.external_attr >> 16)


def _zip_danger(info: zipfile.ZipInfo) -> str:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "a symbolic link"
    return "" if kind in (0, stat.S_IFREG, stat.S_IFDIR) else "a device"


def _zip_problem(info: zipfile.ZipInfo) -> tuple[str, str] | None:
    if info.flag_bits & 0x41:
        return "PASSWORD", "protected by a password; unpack the archive and give the folder"
    known = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    if info.compress_type not in known:
        return "CORRUPT", f"packed by method {info.compress_type}, which cannot be read here"
    return None


def _require_apart(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    """Refuse members that share bytes: so a small file unpacks to any size."""
    spans = sorted((info.header_offset, info.compress_size) for info in infos)
    for (start, num_bytes), (following, _) in itertools.pairwise(spans):
        if start + 30 + num_bytes > following:
            raise DataError(f"{path} has members that overlap, as in a zip bomb; make it anew")


def _list_tar(archive: tarfile.TarFile, path: Path) -> tuple[list[_Entry], list[str]]:
    infos: list[tarfile.TarInfo] = []
    total_bytes = 0
    for info in archive:  # the sum is looked at before the next header is sought, past the data
        infos.append(info)
        total_bytes += info.size
        _require_entries(path, len(infos))
        _require_size(path, total_bytes)
    _require_end(archive, path)
    _require_safe(path, ((info.name, _tar_danger(info)) for info in infos))

    rows = [
        # extractfile gives None for links and folders only, and neither comes this far
        _Entry(info.name, info.size, None, partial(cast(Any, archive.extractfile), info))
        for info in infos
        if info.isreg()
    ]
    return _named(rows, path), [_clean(info.name) for info in infos if info.isdir()]


def _require_end(archive: tarfile.TarFile, path: Path) -> None:
    """Refuse a tar that stops without its end mark: tarfile takes a damaged header for the end."""
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise DataError(f"{path} is damaged or cut short; it may be an incomplete download")


def _tar_danger(info: tarfile.TarInfo) -> str:
    if info.issym():
        return "a symbolic link"
    if info.islnk():
        return "a hard link"
    if not info.isreg() and not info.isdir():
        return "a device"
    return "set to run as its owner" if info.isreg() and info.mode & 0o6000 else ""


def _clean(name: str) -> str:
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))


def _named(entries: list[_Entry], path: Path) -> list[_Entry]:
    """Give every entry a name of its own; of those that share one only the first is unpacked."""
    times: Counter[str] = Counter()
    names: set[str] = set()
    named = []
    for entry in entries:
        name, problem = _clean(entry.name) or "(no name)", entry.problem
        if _NESTED.search(name) and not name.rpartition("/")[2].startswith("."):
            raise DataError(
                f"{path} holds another archive, {shown(name)}, and nested archives are not"
                " supported; unpack it and give the folder"
            )
        first_name = name
        while name in names:
            times[first_name] += 1
            name = f"{first_name} (again, {times[first_name]})"
            problem = "DUPLICATE_NAME", f"the archive holds {shown(first_name)} more than once"
        names.add(name)
        named.append(entry._replace(name=name, problem=problem))
    return named


def _require_safe(path: Path, members: Iterator[tuple[str, str]]) -> None:
    """Refuse the whole archive when a member would land outside it or is no plain file."""
    bad = [(name, danger or _name_danger(name)) for name, danger in members]
    bad = [(name, danger) for name, danger in bad if danger]
    if bad:
        first_ten = ", ".join(f"{shown(name)} ({danger})" for name, danger in bad[:10])
        more = f" and {len(bad) - 10:,} more" if len(bad) > 10 else ""
        raise DataError(
            f"{path} is refused, nothing was unpacked: {first_ten}{more}; an archive of images"
            " holds plain files under relative names, so make it anew"
        )


def _name_danger(name: str) -> str:
    name = name.replace("\\", "/")
    if name.startswith("/") or re.match("[A-Za-z]:", name):
        return "an absolute path"
    return "a path that leaves the archive" if ".." in name.split("/") else ""


def _require_entries(path: Path, num_entries: int) -> None:
    if num_entries > MAX_ENTRIES:
        raise DataError(
            f"{path} holds {num_entries:,} entries or more and {MAX_ENTRIES:,} is the most;"
            " unpack it and give the folder"
        )


def _require_size(path: Path, total_bytes: int) -> None:
    ratio = total_bytes / max(1, path.stat().st_size)
    if total_bytes > MAX_TOTAL_BYTES or (total_bytes > RATIO_FREE_BYTES and ratio > MAX_RATIO):
        raise DataError(
            f"{path} would unpack to {total_bytes:,} bytes, {ratio:,.0f} times its own size, as"
            " an archive bomb does; unpack it yourself and give the folder if you trust it"
        )


def _require_disk(path: Path, total_bytes: int) -> None:
    store = files.cache_folder()
    free_bytes = shutil.disk_usage(store).free
    if total_bytes + SPARE_DISK_BYTES > free_bytes:
        raise EnvironmentFault(
            f"{path} needs {total_bytes + SPARE_DISK_BYTES:,} bytes in {store} and"
            f" {free_bytes:,} are free; free some space or set TOWERNET_CACHE to another folder"
        )

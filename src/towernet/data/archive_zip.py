"""Reader of zips: by their directory, one entry at a time.

Source: PKWARE, APPNOTE.TXT 6.3.10, section 4. The directory at the end is authoritative; the
header of each member must agree with it.
"""

from __future__ import annotations

import bisect
import bz2
import io
import itertools
import lzma
import os
import stat
import struct
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from towernet.data.archive_names import Names
from towernet.data.archive_stream import (
    FILE,
    FOLDER,
    MAX_NAME_BYTES,
    MAX_WINDOW_BYTES,
    Damaged,
    Entry,
    Hostile,
    Inflate,
    Listing,
    decompressed,
)

_MEMBER, _LISTED, _END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_END_64, _LOCATOR_64 = b"PK\x06\x06", b"PK\x06\x07"
_STORED, _DEFLATED, _BZIP2, _LZMA = 0, 8, 12, 14
LISTED_BYTES = 46  # of an entry of the directory, without its name
_CHUNK_BYTES = 2**16


class Directory(NamedTuple):
    """Where the list of the members is."""

    num_entries: int  # as declared; modulo 65,536 by programs without zip64
    start: int
    end: int
    shift: int  # the bytes before the zip, such as a self-extractor

    @property
    def room(self) -> int:
        """The most entries it can list."""
        return (self.end - self.start) // LISTED_BYTES


class _Listed(NamedTuple):
    name: bytes
    entry: Entry
    method: int
    checksum: int
    packed_bytes: int
    start: int  # of the member's own header


def is_zip(path: Path) -> bool:
    """Return whether a file ends like a zip."""
    with path.open("rb") as stream:
        try:
            find_directory(stream)
        except (Damaged, OSError):
            return False
        return True


def find_directory(stream: io.BufferedReader) -> Directory:
    """Find the directory by the last end record that has one before it."""
    size = stream.seek(0, os.SEEK_END)
    tail_start = max(0, size - 22 - 65_535 - 20)  # the record, the longest comment, a locator
    stream.seek(tail_start)
    tail = stream.read()
    at = len(tail)
    while (at := tail.rfind(_END, 0, at)) >= 0:
        if len(tail) >= at + 22 and (found := _directory_at(stream, tail, at, tail_start)):
            return found
    raise Damaged("File is not a zip file")


def _directory_at(
    stream: io.BufferedReader, tail: bytes, at: int, tail_start: int
) -> Directory | None:
    disk, start_disk, _, num_entries, num_bytes, start, _ = struct.unpack_from(
        "<4H2IH", tail, at + 4
    )
    end = tail_start + at
    locator = tail[max(0, at - 20) : at]
    if locator.startswith(_LOCATOR_64) and len(locator) == 20:
        for record_at in (end - 20 - 56, struct.unpack_from("<Q", locator, 8)[0]):
            record = _read_at(stream, record_at, 56)
            if record.startswith(_END_64) and len(record) == 56:
                end = record_at
                disk, start_disk, _, num_entries, num_bytes, start = struct.unpack_from(
                    "<2I4Q", record, 16
                )
                break
    for found in (end - num_bytes, start):
        empty = num_bytes == 0 and found == end
        if (empty or _read_at(stream, found, 4) == _LISTED) and found + num_bytes <= end:
            if disk or start_disk:
                raise Damaged("it is one part of a split archive")
            return Directory(num_entries, found, found + num_bytes, found - start)
    return None


def _read_at(stream: io.BufferedReader, at: int, num_bytes: int) -> bytes:
    if not 0 <= at < 2**62:
        return b""
    stream.seek(at)
    return stream.read(num_bytes)


def read_zip(
    stream: io.BufferedReader, directory: Directory, names: Names | None = None
) -> Listing:
    """Yield each member with its content."""
    names = names or Names()
    starts, ends, borders = array("q"), array("q"), array("q")

    def content(listed: _Listed) -> Iterator[bytes]:
        if not borders:  # needed for reading only, and they take another pass
            borders.extend(sorted(other.start for other in _list(stream, directory, names)))
            borders.append(directory.start)
        border = borders[bisect.bisect_right(borders, listed.start)]
        yield from _content(stream, listed, border)

    for listed in _list(stream, directory, names):
        end = listed.start + 30 + len(listed.name) + listed.packed_bytes
        if not 0 <= listed.start < end <= directory.start:
            raise Damaged("a member is outside it")
        starts.append(listed.start)
        ends.append(end)
        yield listed.entry, content(listed)
    order = np.argsort(starts)
    if (np.asarray(ends)[order[:-1]] > np.asarray(starts)[order[1:]]).any():
        raise Hostile("its members overlap, as in a zip bomb")


def _list(stream: io.BufferedReader, directory: Directory, names: Names) -> Iterator[_Listed]:
    at, num_entries, total_bytes = directory.start, 0, 0
    while at < directory.end:
        stream.seek(at)  # a member may have been read in between
        fixed = stream.read(LISTED_BYTES)
        if len(fixed) < LISTED_BYTES or not fixed.startswith(_LISTED):
            raise Damaged("its directory is damaged")
        (
            flags, method, _, _, checksum, packed_bytes, num_bytes,
            name_bytes, extra_bytes, comment_bytes, disk, _, attributes, start,
        ) = struct.unpack("<8x4H3I5H2I", fixed)  # fmt: skip
        if name_bytes > MAX_NAME_BYTES:
            raise Hostile(f"a name of {name_bytes:,} bytes, and the limit is {MAX_NAME_BYTES:,}")
        name = stream.read(name_bytes)
        extras = dict(_extras(stream.read(extra_bytes)))
        num_bytes, packed_bytes, start = _sizes_64(
            extras.get(1, b""), num_bytes, packed_bytes, start
        )
        if disk not in (0, 0xFFFF):
            raise Damaged("it is one part of a split archive")
        total_bytes += num_bytes
        text = _decoded(name, flags, extras.get(0x7075, b""), names)
        entry = Entry(
            text,
            _kind(text, attributes >> 16),
            num_bytes,
            total_bytes,
            _problem(flags, method),
        )
        if num_entries == directory.num_entries >= 2**16:
            raise Damaged(f"it declares {num_entries:,} entries but lists more")
        yield _Listed(name, entry, method, checksum, packed_bytes, start + directory.shift)
        num_entries += 1
        at += LISTED_BYTES + name_bytes + extra_bytes + comment_bytes
    if at != directory.end or (num_entries - directory.num_entries) % 2**16:
        raise Damaged(f"it declares {directory.num_entries:,} entries but lists {num_entries:,}")


def _extras(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the fields of an entry's extra part; stop at malformed data."""
    at = 0
    while at + 4 <= len(content):
        tag, num_bytes = struct.unpack_from("<2H", content, at)
        yield tag, content[at + 4 : at + 4 + num_bytes]
        at += 4 + num_bytes


def _sizes_64(field: bytes, *values: int) -> list[int]:
    """Replace each value that is all ones by the next one of the zip64 field, if any."""
    wide = iter(struct.unpack(f"<{len(field) // 8}Q", field[: len(field) // 8 * 8]))
    return [next(wide, value) if value == 0xFFFFFFFF else value for value in values]


def _decoded(name: bytes, flags: int, unicode_name: bytes, names: Names) -> str:
    """Decode a name as declared, as UTF-8 (which macOS does not declare), or in a code page."""
    if unicode_name[:1] == b"\1" and unicode_name[1:5] == struct.pack("<I", zlib.crc32(name)):
        name, flags = unicode_name[5:], 0x800
    if flags & 0x800:
        return name.decode("utf-8", "surrogateescape")
    return names.of_zip(name)


def _kind(name: str, mode: int) -> str:
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFLNK:
        return "a symbolic link"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a device"
    if kind == stat.S_IFDIR or name.endswith(("/", "\\")):
        return FOLDER
    return "a setuid or setgid file" if kind and mode & 0o6000 else FILE


def _problem(flags: int, method: int) -> tuple[str, str] | None:
    if flags & 0x2041:
        return "PASSWORD", "protected by a password; unpack the archive and pass the folder"
    if method not in (_STORED, _DEFLATED, _BZIP2, _LZMA):
        return "CORRUPT", f"compression method {method} is not supported"
    return None


def _content(stream: io.BufferedReader, listed: _Listed, border: int) -> Iterator[bytes]:
    fixed = _read_at(stream, listed.start, 30)
    if len(fixed) < 30 or not fixed.startswith(_MEMBER):
        raise Damaged("its header is damaged")
    name_bytes, extra_bytes = struct.unpack_from("<2H", fixed, 26)
    if stream.read(name_bytes) != listed.name:
        raise Damaged("its header has a different name")
    start = listed.start + 30 + name_bytes + extra_bytes
    end = start + listed.packed_bytes
    if end > border:
        raise Damaged("its data overlaps what follows it")
    checksum = 0
    for piece in _unpacked(_chunks(stream, start, end), listed.method):
        checksum = zlib.crc32(piece, checksum)
        yield piece
    if checksum != listed.checksum:
        raise Damaged("its checksum is wrong")


def _chunks(stream: io.BufferedReader, start: int, end: int) -> Iterator[bytes]:
    stream.seek(start)
    while start < end and (chunk := stream.read(min(_CHUNK_BYTES, end - start))):
        yield chunk
        start += len(chunk)


def _unpacked(chunks: Iterator[bytes], method: int) -> Iterator[bytes]:
    if method == _STORED:
        return chunks
    if method == _DEFLATED:
        return decompressed(chunks, Inflate(-zlib.MAX_WBITS))
    if method == _BZIP2:
        return decompressed(chunks, bz2.BZ2Decompressor())
    return _unpacked_lzma(chunks)


def _unpacked_lzma(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Unpack LZMA, after the version and the coder's properties that a zip writes before it."""
    first = next(chunks, b"")
    _, num_bytes, packed, window_bytes = struct.unpack_from("<2HBI", first)
    if num_bytes != 5 or packed >= 9 * 5 * 5:
        raise Damaged("its LZMA properties are damaged")
    if window_bytes > MAX_WINDOW_BYTES:
        raise Damaged(f"unpacking it needs {window_bytes:,} bytes of memory")
    rest, lc = divmod(packed, 9)
    pb, lp = divmod(rest, 5)
    coder = {"id": lzma.FILTER_LZMA1, "dict_size": window_bytes, "lc": lc, "lp": lp, "pb": pb}
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[coder])
    chunks = itertools.chain([first[9:]], chunks)
    return decompressed(chunks, decompressor, has_end=False)  # size and checksum are checked

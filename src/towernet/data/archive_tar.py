"""Reader of tars, plain or compressed: forward only, with one header in memory at a time.

Source: POSIX.1-2024, pax interchange format; the GNU tar manual, "Basic Tar Format".
A name can be in the header, in a GNU header before it, or in a pax header before it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

from towernet.data.archive_names import Names
from towernet.data.archive_stream import (
    DAMAGE,
    FILE,
    FOLDER,
    MAX_NAME_BYTES,
    PIECE_BYTES,
    Damaged,
    Entry,
    Hostile,
    Listing,
    opened,
)

BLOCK_BYTES = 512
MAX_HEADER_BYTES = 2**20  # of all headers of one member; a path and some attributes need 10,000
PADDING_BYTES = 2**24  # how far after the end mark hidden data is searched for

_KINDS = {
    b"0": FILE, b"\0": FILE, b"7": FILE, b"5": FOLDER, b"1": "a hard link", b"2": "a symbolic link",
    b"3": "a device", b"4": "a device", b"6": "a device", b"S": "a sparse file",
}  # fmt: skip


def is_tar(path: Path) -> bool:
    """Return whether a file starts like a tar, compressed or not."""
    with path.open("rb") as stream:
        try:
            return _has_checksum(opened(stream).read(BLOCK_BYTES))
        except DAMAGE:
            return False


def read_tar(stream: io.BufferedReader, names: Names | None = None) -> Listing:
    """Yield each member with its content, which is skipped unless read before the next member."""
    tar = _Tar(stream, names or Names())
    while (member := tar.next_member()) is not None:
        entry, end = member
        yield entry, tar.content(entry.num_bytes)
        tar.skip_to(end)
    tar.require_end()


class _Tar:
    def __init__(self, stream: io.BufferedReader, names: Names) -> None:
        self._data = opened(stream)
        self._names = names
        self._position = 0

    def _take(self, num_bytes: int) -> bytes:
        content = self._data.read(num_bytes)
        if len(content) < num_bytes:
            raise Damaged("it is truncated" if self._position else "its content is not a tar")
        self._position += num_bytes
        return content

    def skip_to(self, position: int) -> None:
        if self._data.seekable():
            self._position = self._data.seek(position)
        while self._position < position:
            self._take(min(PIECE_BYTES, position - self._position))

    def content(self, num_bytes: int) -> Iterator[bytes]:
        end = self._position + num_bytes
        while self._position < end:
            yield self._take(min(PIECE_BYTES, end - self._position))

    def next_member(self) -> tuple[Entry, int] | None:
        """Return the next member, and where its data ends; None at the end mark."""
        extended: dict[str, bytes] = {}  # from the headers before the member's own
        header_bytes = 0
        while (block := self._take(BLOCK_BYTES)) != bytes(BLOCK_BYTES):
            if not _has_checksum(block):
                is_first = self._position <= BLOCK_BYTES
                raise Damaged("its content is not a tar" if is_first else "a header is damaged")
            num_bytes, kind = _number(block[124:136]), block[156:157]
            if kind not in b"xXgLK":
                return self._member(block, num_bytes, extended)
            header_bytes += num_bytes + BLOCK_BYTES
            if header_bytes > MAX_HEADER_BYTES:
                raise Hostile(
                    f"a header of {header_bytes:,} bytes, and the limit is {MAX_HEADER_BYTES:,}"
                )
            content = self._take(_padded(num_bytes))[:num_bytes]
            if kind == b"L":
                extended["path"] = content.partition(b"\0")[0]
            elif kind in b"xXg":
                records = _records(content)
                if kind == b"g" and _READ_RECORDS & records.keys():
                    raise Hostile("a header that sets one path or size for all members")
                extended.update(records if kind != b"g" else {})
        if extended:
            raise Damaged("it ends after a header")
        return None

    def _member(
        self, block: bytes, num_bytes: int, extended: dict[str, bytes]
    ) -> tuple[Entry, int]:
        name = extended.get("path", _ustar_name(block))
        if len(name) > MAX_NAME_BYTES:
            raise Hostile(f"a name of {len(name):,} bytes, and the limit is {MAX_NAME_BYTES:,}")
        kind = _KINDS.get(block[156:157], "neither a file nor a folder")
        if "size" in extended:
            num_bytes = _decimal(extended["size"])
        if any(key.startswith("GNU.sparse.") for key in extended):
            kind = _KINDS[b"S"]
        if kind == FILE and _number(block[100:108]) & 0o6000:
            kind = "a setuid or setgid file"
        if block[156:157] == b"\0" and name.endswith(b"/"):  # old tars have no type for folders
            kind = FOLDER
        has_more = block[156:157] == b"S" and block[482]
        while has_more:
            has_more = self._take(BLOCK_BYTES)[504]
        # Links, folders and devices have no data, whatever size they declare.
        num_bytes = num_bytes if block[156:157] not in b"123456" else 0
        end = self._position + num_bytes
        entry = Entry(self._names.of_tar(name), kind, num_bytes, end)
        return entry, self._position + _padded(num_bytes)

    def require_end(self) -> None:
        """Refuse data after the end mark: concatenated tars hide all but the first."""
        left = PADDING_BYTES
        while left > 0 and (padding := self._data.read(PIECE_BYTES)):
            if padding.strip(b"\0"):
                raise Damaged("it has data after its end mark")
            left -= len(padding)


_READ_RECORDS = {"path", "size"}
_OCTAL, _DECIMAL = re.compile(rb"[0-7]*"), re.compile(rb"[0-9]{1,30}")
_CHECKSUM = re.compile(rb"[ \0]*[0-7]+[ \0]*")


def _padded(num_bytes: int) -> int:
    return -(-num_bytes // BLOCK_BYTES) * BLOCK_BYTES


def _has_checksum(block: bytes) -> bool:
    if len(block) < BLOCK_BYTES or not _CHECKSUM.fullmatch(block[148:156]):
        return False
    counted = block[:148] + b" " * 8 + block[156:]
    stored, unsigned = _number(block[148:156]), sum(counted)
    if stored == unsigned:
        return True
    return stored == unsigned - 256 * sum(byte > 127 for byte in counted)  # of old programs


def _number(field: bytes) -> int:
    """Read octal digits, or base 256 where the first bit is set (GNU)."""
    if field[0] == 0o200:
        return int.from_bytes(field[1:])
    digits = field.strip(b" \0").partition(b"\0")[0]
    if not _OCTAL.fullmatch(digits):
        raise Damaged("a header contains an invalid number")
    return int(digits or b"0", 8)


def _decimal(digits: bytes) -> int:
    if not _DECIMAL.fullmatch(digits):
        raise Damaged("a header contains an invalid number")
    return int(digits)


def _records(content: bytes) -> dict[str, bytes]:
    """Return the used records of a pax header; each is `length key=value` and a newline."""
    records = {}
    start = 0
    while start < len(content) and content[start]:
        length, space, _ = content[start : start + 20].partition(b" ")
        end = start + _decimal(length)
        key, equals, value = content[start + len(length) + 1 : end - 1].partition(b"=")
        if not (space and equals) or content[end - 1 : end] != b"\n":
            raise Damaged("a pax header is damaged")
        name = key.decode("utf-8", "surrogateescape")
        if name in _READ_RECORDS or name.startswith("GNU.sparse."):
            records[name] = value
        start = end
    return records


def _ustar_name(block: bytes) -> bytes:
    name = block[:100].partition(b"\0")[0]
    if block[257:263] == b"ustar\0":  # GNU stores other values there
        prefix = block[345:500].partition(b"\0")[0]
        return prefix + b"/" + name if prefix else name
    return name

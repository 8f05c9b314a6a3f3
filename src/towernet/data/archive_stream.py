"""Shared by the zip and tar readers: entries, and decompression in pieces of bounded size.

zipfile and tarfile trust their input: one read of a bzip2 or LZMA member unpacks all of it, all
entries of a zip are kept in memory (600 bytes each), and a tar header of any length is read at
once and searched in quadratic time. So archives are parsed here; docs/log.md, 2026-11-30, has the
figures.
"""

from __future__ import annotations

import bz2
import io
import itertools
import lzma
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

PIECE_BYTES = 2**18
_READ_BYTES = 2**14  # small: the bytes after each stream's end are copied, and there can be many
MAX_EMPTY_STREAMS = 1000
MAX_NAME_BYTES = 4096  # the longest path on Linux
MAX_WINDOW_BYTES = 2**26  # of LZMA, which keeps it in memory; `xz -9` needs this much

FILE, FOLDER = "a file", "a folder"


class Damaged(Exception):
    """The bytes violate the format; the message is one clause."""


class Hostile(Exception):
    """No legitimate program writes such an archive; the message is one clause."""


# What reading a damaged archive raises. Only reading: write errors come from the disk.
DAMAGE = (
    Damaged, EOFError, OSError, OverflowError, ValueError, lzma.LZMAError, struct.error, zlib.error,
)  # fmt: skip


class Entry(NamedTuple):
    """A member as its archive describes it."""

    name: str  # untrusted
    kind: str  # FILE, FOLDER, or a description of what it is
    num_bytes: int  # of its content, as declared
    total_bytes: int  # what the archive unpacks to, up to the end of this member
    problem: tuple[str, str] | None = None  # reason and detail, known before reading


Listing = Iterator[tuple[Entry, Iterator[bytes]]]  # read content before the next entry


class Inflate:
    """zlib's decompressor with the interface of bz2's and lzma's."""

    def __init__(self, window_bits: int) -> None:
        self._inner = zlib.decompressobj(window_bits)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        """Whether the stream is complete."""
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        """The bytes after the stream."""
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Unpack `max_length` bytes at most."""
        piece = self._inner.decompress(self._inner.unconsumed_tail + data, max(0, max_length))
        self.needs_input = not self._inner.unconsumed_tail and len(piece) < max_length
        return piece


Decompressor = Inflate | bz2.BZ2Decompressor | lzma.LZMADecompressor


def decompressed(
    chunks: Iterable[bytes], decompressor: Decompressor, *, has_end: bool = True
) -> Iterator[bytes]:
    """Unpack one stream in pieces of at most PIECE_BYTES; stop at its end."""
    for chunk in chunks:
        yield decompressor.decompress(chunk, PIECE_BYTES)
        while not (decompressor.needs_input or decompressor.eof):
            yield decompressor.decompress(b"", PIECE_BYTES)
        if decompressor.eof:
            return
    if has_end:
        raise Damaged("its compressed data is truncated")


_COMPRESSED: tuple[tuple[bytes, Callable[[], Decompressor]], ...] = (
    (b"\x1f\x8b", lambda: Inflate(zlib.MAX_WBITS | 16)),
    (b"BZh", bz2.BZ2Decompressor),
    # The limit is for all memory of liblzma: the window and a little more.
    (b"\xfd7zXZ\0", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=2 * MAX_WINDOW_BYTES)),
)


def opened(stream: io.BufferedReader) -> io.BufferedReader:
    """Return the file's content from the start, decompressed if it is gz, bz2 or xz."""
    stream.seek(0)
    head = stream.read(6)
    stream.seek(0)
    for magic, new in _COMPRESSED:
        if head.startswith(magic):
            return io.BufferedReader(_Pieces(_all_streams(stream, new)), PIECE_BYTES)
    return stream


def _all_streams(stream: io.BufferedReader, new: Callable[[], Decompressor]) -> Iterator[bytes]:
    """Unpack consecutive streams, as parallel compressors write them; skip zeros between them."""
    num_empty = 0
    chunks = iter(partial(stream.read, _READ_BYTES), b"")
    for chunk in chunks:
        while chunk := chunk.lstrip(b"\0"):
            decompressor = new()
            num_bytes = 0
            for piece in decompressed(itertools.chain([chunk], chunks), decompressor):
                num_bytes += len(piece)
                yield piece
            num_empty += not num_bytes
            if num_empty > MAX_EMPTY_STREAMS:
                raise Hostile(f"more than {MAX_EMPTY_STREAMS:,} empty compressed streams")
            chunk = decompressor.unused_data


class _Pieces(io.RawIOBase):
    """A file made of pieces, read forward only."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            if (piece := next(self._pieces, None)) is None:
                return 0
            self._rest = memoryview(piece)
        num_bytes = min(len(buffer), len(self._rest))
        buffer[:num_bytes] = self._rest[:num_bytes]
        self._rest = self._rest[num_bytes:]
        return num_bytes

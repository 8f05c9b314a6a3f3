"""Construction of hostile archives: with the standard library, or by hand where it refuses."""

from __future__ import annotations

import gzip
import io
import lzma
import random
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

GOOD = [("Images/cat/1.jpg", b"one"), ("Images/dog/2.jpg", b"two")]
ZEROS = bytes(2**20)
BOMB_MIB = 64
BLOCK = 512
OUTSIDE, ABSOLUTE = "a path that leaves the archive", "an absolute path"
BOMB = r"would unpack to at least [\d,]+ bytes, [\d,]+ times its own size, and the limit is 200"
CANNOT = r"cannot be read \("


class Case(NamedTuple):
    """How an archive is made, and the outcome: refused, or opened without some members."""

    make: Callable[[Path], Path]
    refused: str = ""  # a pattern of the message
    bad: tuple[tuple[str, str], ...] = ()  # path and reason of what is quarantined


HOSTILE: dict[str, Case] = {}


def refused(name: str, pattern: str, file: str, content: Callable[[], bytes]) -> None:
    HOSTILE[name] = Case(_writer(file, content), refused=pattern)


def opened(
    name: str, bad: Iterable[tuple[str, str]], file: str, content: Callable[[], bytes]
) -> None:
    HOSTILE[name] = Case(_writer(file, content), bad=tuple(bad))


def _writer(file: str, content: Callable[[], bytes]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / file
        path.write_bytes(content())
        return path

    return write


def zip_of(
    *members: tuple[str | zipfile.ZipInfo, bytes], method: int = 0, good: bool = True
) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(stream, "w", method) as target:
        for name, content in [*members, *(GOOD if good else [])]:
            target.writestr(name, content, compress_type=method)
    return stream.getvalue()


def unix(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


def with_extra(name: str, extra: bytes) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.extra = extra
    return info


def harmed(
    content: bytes, *, local: int | None = None, listed: int | None = None, end: int | None = None,
    new: bytes,
) -> bytes:  # fmt: skip
    """Overwrite a field of the first member's own header, of its entry, and of the end record."""
    changed = bytearray(content)
    for signature, at in ((b"PK\3\4", local), (b"PK\1\2", listed), (b"PK\5\6", end)):
        if at is not None:
            start = content.index(signature) + at
            changed[start : start + len(new)] = new
    return bytes(changed)


def entry(
    name: bytes, *, start: int = 0, packed: int = 0, size: int = 0, extra: bytes = b""
) -> bytes:
    return struct.pack(
        "<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, packed, size, len(name), len(extra),
        0, 0, 0, 0, start,
    ) + name + extra  # fmt: skip


def end_record(count: int, num_bytes: int, start: int, disk: int = 0) -> bytes:
    return struct.pack("<4s4H2IH", b"PK\5\6", disk, disk, count, count, num_bytes, start, 0)


def end_record_64(count: int, num_bytes: int, start: int, at: int) -> bytes:
    return (
        struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, num_bytes, start)
        + struct.pack("<4sIQI", b"PK\6\7", 0, at, 1)
        + end_record(0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
    )


def local(name: bytes, content: bytes = b"", *, method: int = 0, extra: bytes = b"") -> bytes:
    return struct.pack(
        "<4s5H3I2H", b"PK\3\4", 20, 0, method, 0, 0, zlib.crc32(content), len(content),
        len(content), len(name), len(extra),
    ) + name + extra + content  # fmt: skip


def many_empty_members(count: int) -> bytes:
    one = local(b"x")
    body = one * count
    listed = b"".join(entry(b"x", start=i * len(one)) for i in range(count))
    return body + listed + end_record_64(count, len(listed), len(body), len(body) + len(listed))


def false_count(declares: int, lists: int) -> bytes:
    listed = entry(b"x") * lists
    return local(b"x") + listed + end_record(declares, len(listed), 31)


def quoted_overlap(count: int = 20) -> bytes:
    """A chain of members, each containing the headers of all that follow (Fifield, 2019)."""
    kernel = bytes(1000)
    parts = [local(b"%02d" % i, kernel) for i in range(count)]
    body = b"".join(parts)
    starts = [sum(map(len, parts[:i])) for i in range(count)]
    listed = b"".join(
        entry(b"%02d" % i, start=start, packed=len(body) - start - 32, size=len(body) - start - 32)
        for i, start in enumerate(starts)
    )
    return body + listed + end_record(count, len(listed), len(body))


def long_local_extra() -> bytes:
    """The first member's own header has an extra part that moves its data into the second."""
    first, second = local(b"a/1", b"one" * 9), local(b"b/2", b"two")
    first = harmed(first, local=28, new=struct.pack("<H", 20))
    listed = entry(b"a/1", packed=27, size=27) + entry(b"b/2", start=len(first), packed=3, size=3)
    listed = harmed(listed, listed=16, new=struct.pack("<I", zlib.crc32(b"one" * 9)))
    at = listed.rindex(b"PK\1\2") + 16
    listed = listed[:at] + struct.pack("<I", zlib.crc32(b"two")) + listed[at + 4 :]
    return first + second + listed + end_record(2, len(listed), len(first + second))


def false_size(method: int) -> bytes:
    """A member that declares 1,000 bytes and contains 64 MiB, in one highly compressed stream."""
    content = zip_of(("Images/cat/bomb", ZEROS * BOMB_MIB), method=method)
    return harmed(content, local=22, listed=24, new=struct.pack("<I", 1000))


def huge_window() -> bytes:
    content = zip_of(("Images/cat/0.jpg", b"word " * 99), method=zipfile.ZIP_LZMA)
    at = 30 + len("Images/cat/0.jpg") + 5  # after the version, the size, and the first property
    return content[:at] + struct.pack("<I", 2**32 - 1) + content[at + 4 :]


def damaged_stream(method: int) -> bytes:
    content = bytearray(
        zip_of(("Images/cat/0.jpg", random.Random(0).randbytes(900) * 9), method=method)
    )
    content[70:110] = b"\xff" * 40
    return bytes(content)


def many_entries(count: int) -> list[bytes]:
    return [entry(b"x", start=31 * i) for i in range(count)]


def tar_of(
    *members: tuple[str | tarfile.TarInfo, bytes], good: bool = True, form: int = tarfile.GNU_FORMAT
) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as target:
        for member, content in [*members, *(GOOD if good else [])]:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            info.size = info.size or len(content)
            target.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def odd(name: str, kind: bytes, target: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, mode
    return info


def block(
    name: bytes, size: int | bytes = 0, kind: bytes = b"0", mode: bytes = b"0000644"
) -> bytes:
    """A header by hand: a size can be any 12 bytes."""
    field = size if isinstance(size, bytes) else b"%011o\0" % size
    head = bytearray(
        name.ljust(100, b"\0") + mode.ljust(8, b"\0") + b"0000000\0" * 2 + field.ljust(12, b"\0")
        + b"00000000000\0" + b" " * 8 + kind + bytes(100) + b"ustar\x0000"
    ).ljust(BLOCK, b"\0")  # fmt: skip
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def padded(content: bytes) -> bytes:
    return content.ljust(-(-len(content) // BLOCK) * BLOCK, b"\0")


def pax(records: dict[str, str], kind: bytes = b"x") -> bytes:
    content = b""
    for key, value in records.items():
        body = f" {key}={value}\n".encode()
        length = len(body) + len(str(len(body) + 2))
        content += str(length).encode() + body
    return block(b"PaxHeader", len(content), kind) + padded(content)


def good_tar() -> bytes:
    return tar_of()


def gz_of(*parts: tuple[bytes, int]) -> bytes:
    """A gzip of repeated parts, which are never in memory unpacked."""
    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb", mtime=0) as target:
        for part, times in parts:
            for _ in range(times):
                target.write(part)
    return stream.getvalue()


def sparse_block() -> bytes:
    head = bytearray(block(b"holes", 0, b"S"))
    head[257:265] = b"ustar  \0"
    head[482] = 1  # one more block describes holes
    head[483:495] = b"%011o\0" % 2**32
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + bytes(BLOCK)


def with_prefix(prefix: bytes) -> bytes:
    head = bytearray(block(b"x"))
    head[345 : 345 + len(prefix)] = prefix
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def holey(path: Path) -> Path:
    with path.open("wb") as stream:
        stream.write(block(b"x", 200 * 2**20, b"x"))
        stream.truncate(201 * 2**20)
    return path


def small_members(count: int) -> bytes:
    return (block(b"a", 2**20) + ZEROS) * count


def huge_xz_window() -> bytes:
    content = bytearray(lzma.compress(good_tar(), preset=1))
    # The block header: size, flags, filter, length of its properties, the window, padding, CRC.
    content[16] = 36  # 2^(36/2 + 12) bytes
    content[20:24] = struct.pack("<I", zlib.crc32(content[12:20]))
    return bytes(content)


def before_good(*blocks: bytes) -> bytes:
    """Insert something before the members of a good tar."""
    return b"".join(blocks) + good_tar()

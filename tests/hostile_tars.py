"""Tars as made by an attacker or an accident, each with its expected outcome."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile

from hostile_parts import (
    BLOCK,
    BOMB,
    BOMB_MIB,
    CANNOT,
    HOSTILE,
    OUTSIDE,
    ZEROS,
    Case,
    before_good,
    block,
    good_tar,
    gz_of,
    holey,
    huge_xz_window,
    odd,
    opened,
    padded,
    pax,
    refused,
    small_members,
    sparse_block,
    tar_of,
    with_prefix,
)

BIG = block(b"zeros", BOMB_MIB << 20)
for kind, typed, danger in [
    ("symbolic link", tarfile.SYMTYPE, "a symbolic link"),
    ("hard link", tarfile.LNKTYPE, "a hard link"),
    ("fifo", tarfile.FIFOTYPE, "a device"),
    ("character device", tarfile.CHRTYPE, "a device"),
    ("block device", tarfile.BLKTYPE, "a device"),
    ("setuid", tarfile.REGTYPE, "a setuid or setgid file"),
    ("unknown kind", b"Z", "neither a file nor a folder"),
    ("volume label", b"V", "neither a file nor a folder"),
]:
    refused(
        f"tar {kind}",
        rf"unpacked: odd \({danger}\)",
        "a.tar",
        lambda typed=typed: tar_of((odd("odd", typed, "/etc/passwd", 0o4755), b"")),
    )
refused(
    "tar chain of links",
    r"a \(a symbolic link\), b \(a symbolic link\);",
    "a.tar",
    lambda: tar_of((odd("a", b"2", ".."), b""), (odd("b", b"2", "a/.."), b""), ("b/x", b"evil")),
)
refused(
    "tar folder link and a file through it",
    r"d \(a symbolic link\);",
    "a.tgz",
    lambda: gzip.compress(tar_of((odd("d", b"2", "/tmp"), b""), ("d/x", b"evil"))),
)
refused(
    "tar hard link that leads outside",
    r"h \(a hard link\);",
    "a.tar",
    lambda: tar_of((odd("h", b"1", "../../etc/passwd"), b"")),
)
refused(
    "tar GNU sparse of a terabyte",
    r"holes \(a sparse file\)",
    "a.tar",
    lambda: before_good(sparse_block()),
)
refused(
    "tar pax sparse 0.1",
    r"h \(a sparse file\)",
    "a.tar",
    lambda: before_good(pax({"GNU.sparse.size": str(2**40), "GNU.sparse.map": "0,1"}), block(b"h")),
)
refused(
    "tar pax sparse 1.0",
    r"h \(a sparse file\)",
    "a.tar",
    lambda: before_good(
        pax({"GNU.sparse.major": "1", "GNU.sparse.realsize": str(2**40)}), block(b"h")
    ),
)
refused(
    "tar pax traversal",
    OUTSIDE,
    "a.tar",
    lambda: before_good(pax({"path": "a/../../x"}), block(b"good")),
)
refused(
    "tar GNU long name traversal",
    OUTSIDE,
    "a.tar",
    lambda: before_good(block(b"L", 9, b"L"), padded(b"../../x\0"), block(b"good")),
)
refused("tar prefix traversal", OUTSIDE, "a.tar", lambda: before_good(with_prefix(b"../..")))
refused(
    "tar pax global path",
    "a header that sets one path or size for all members",
    "a.tar",
    lambda: before_good(pax({"path": "../x"}, b"g")),
)
refused(
    "tar pax global size",
    "a header that sets one path or size for all members",
    "a.tar",
    lambda: before_good(pax({"size": "1"}, b"g")),
)
opened(
    "tar pax global comment", [], "a.tar", lambda: before_good(pax({"comment": "x" * 9999}, b"g"))
)
refused(
    "tar many pax globals",
    r"a header of [\d,]+ bytes, and the limit is 1,048,576",
    "a.tgz",
    lambda: gz_of((pax({"comment": "x" * 9999}, b"g"), 6000)),
)
refused(
    "tar pax path of 5,000 bytes",
    "a name of 5,000 bytes, and the limit is 4,096",
    "a.tar",
    lambda: before_good(pax({"path": "x" * 5000}), block(b"good")),
)
refused(
    "tar pax path with a NUL",
    "a name that contains a NUL",
    "a.tar",
    lambda: before_good(pax({"path": "a\0../x"}), block(b"good")),
)
for kind in (b"x", b"g", b"L", b"K", b"X"):
    refused(
        f"tar header {kind.decode()} of 512 MB",
        r"a header of 536,\d+,\d+ bytes, and the limit is 1,048,576",
        "a.tgz",
        lambda kind=kind: gz_of((block(b"h", 2**29, kind), 1), (ZEROS, 64)),
    )
refused(
    "tar a thousand headers in a row",
    r"a header of [\d,]+ bytes",
    "a.tgz",
    lambda: gz_of((pax({"comment": "x" * 60_000}), 1000)),
)
refused(
    "tar a large header for each member",
    BOMB,
    "a.tgz",
    lambda: gz_of((pax({"comment": "x" * 10**6}) + block(b"h"), 64)),
)
HOSTILE["tar header of 200 MB, with holes on disk"] = Case(
    lambda folder: holey(folder / "a.tar"), "a header of 209,"
)
for label, size, pattern in [
    ("of a petabyte", b"\x80" + (2**50).to_bytes(11, "big"), "would unpack to at least 1,125,899,"),
    ("of 2^87", b"\x80" + (2**87).to_bytes(11, "big"), "would unpack to at least 154,742,504,910,"),
    ("negative", b"\xff" * 12, f"{CANNOT}a header contains an invalid number"),
    ("negative octal", b"-0000000001\0", f"{CANNOT}a header contains an invalid number"),
    ("of letters", b"abcdefghijk\0", f"{CANNOT}a header contains an invalid number"),
    ("with an underscore", b"000000001_0\0", f"{CANNOT}a header contains an invalid number"),
]:
    refused(f"tar size {label}", pattern, "a.tar", lambda size=size: before_good(block(b"x", size)))
for label, size, pattern in [
    ("of a petabyte", str(2**50), "would unpack to at least 1,125,899,"),
    ("negative", "-1", "a header contains an invalid number"),
    ("no number", "nan", "a header contains an invalid number"),
    ("of 99 digits", "9" * 99, "a header contains an invalid number"),
]:
    refused(
        f"tar pax size {label}",
        pattern,
        "a.tar",
        lambda size=size: before_good(pax({"size": size}), block(b"x")),
    )
refused(
    "tar pax record too long",
    "a pax header is damaged",
    "a.tar",
    lambda: before_good(block(b"x", 9, b"x"), padded(b"99 a=b\n\n\n")),
)
refused(
    "tar pax record of length 0",
    "a pax header is damaged",
    "a.tar",
    lambda: before_good(block(b"x", 9, b"x"), padded(b"0 path=b\n")),
)
refused(
    "tar ends after a header",
    "it ends after a header",
    "a.tar",
    lambda: pax({"path": "x"}) + bytes(1024),
)
refused(
    "tar without end mark", f"{CANNOT}it is truncated", "a.tar", lambda: good_tar()[: 4 * BLOCK]
)
refused(
    "tar member beyond its end",
    f"{CANNOT}it is truncated",
    "a.tar",
    lambda: good_tar()[: 4 * BLOCK] + block(b"x", 10**7),
)
refused(
    "tar cut in a member",
    f"{CANNOT}it is truncated",
    "a.tar",
    lambda: block(b"x", 10**6) + b"x" * 999,
)
refused("tar joined to another", "it has data after its end mark", "a.tar", lambda: good_tar() * 2)
refused(
    "tgz joined to another",
    "it has data after its end mark",
    "a.tgz",
    lambda: gzip.compress(good_tar()) * 2,
)
refused(
    "tar header damaged",
    "a header is damaged",
    "a.tar",
    lambda: good_tar()[:1024] + b"\xff" * 76 + good_tar()[1100:],
)
opened(
    "tar one name twice",
    [("Images/cat/1.jpg (again, 1)", "DUPLICATE_NAME")],
    "a.tar",
    lambda: tar_of(("Images/cat/./1.jpg", b"x")),
)
opened(
    "tar name that is not UTF-8",
    [],
    "a.tar",
    lambda: before_good(block(b"Images/cat/caf\xe9\n\x1b[2J.jpg")),
)
for label, packed in [
    ("gz", lambda: gz_of((BIG, 1), (ZEROS, BOMB_MIB))),
    ("gz of many streams", lambda: gzip.compress(BIG) + gzip.compress(ZEROS) * BOMB_MIB),
    ("bz2", lambda: bz2.compress(BIG) + bz2.compress(ZEROS) * BOMB_MIB),
    ("xz", lambda: lzma.compress(BIG + ZEROS * BOMB_MIB, preset=1)),
    ("xz with a window of 64 MiB", lambda: lzma.compress(small_members(BOMB_MIB), preset=9)),
    ("gz of members of 1 MiB", lambda: gz_of((block(b"a", 2**20) + ZEROS, BOMB_MIB))),
    ("bz2 of members of 1 MiB", lambda: bz2.compress(block(b"a", 2**20) + ZEROS) * BOMB_MIB),
]:  # fmt: skip
    refused(f"tar bomb {label}", BOMB, "a.tgz", packed)
refused(
    "tgz of headers and little else",
    "its first 20,001 entries contain 400,020 bytes, less than 64 each on average",
    "a.tgz",
    lambda: gz_of((block(b"a", 20) + b"x" * BLOCK, 100_000)),
)
refused(
    "tar of 30,000 empty members",
    "its first 20,001 entries contain 0 bytes",
    "a.tar",
    lambda: block(b"a") * 30_000,
)
refused(
    "xz with a window of 1 GiB", f"{CANNOT}Memory usage limit", "a.txz", lambda: huge_xz_window()
)
refused(
    "tgz truncated",
    f"{CANNOT}its compressed data is truncated",
    "a.tgz",
    lambda: gzip.compress(good_tar())[:-20],
)
refused(
    "tgz with a wrong checksum",
    f"{CANNOT}Error -3",
    "a.tgz",
    lambda: gzip.compress(good_tar())[:-8] + bytes(8),
)
refused(
    "tgz with garbage after it",
    f"{CANNOT}",
    "a.tgz",
    lambda: gzip.compress(good_tar()) + b"garbage",
)
refused("tbz damaged", CANNOT, "a.tbz", lambda: bz2.compress(good_tar())[:60] + b"\xff" * 300)
refused("txz damaged", CANNOT, "a.txz", lambda: lzma.compress(good_tar())[:60] + b"\xff" * 300)
refused(
    "gz of something else",
    f"{CANNOT}its content is not a tar",
    "a.gz",
    lambda: gzip.compress(b"a text" * 999),
)
refused(
    "gz of a gz bomb",
    f"{CANNOT}its content is not a tar",
    "a.tgz",
    lambda: gzip.compress(gz_of((ZEROS, 256))),
)
refused(
    "gz with a name of 5 MB",
    CANNOT,
    "a.tgz",
    lambda: b"\x1f\x8b\x08\x08" + bytes(6) + b"x" * 5_000_000,
)
refused(
    "gz of 300,000 empty streams",
    "more than 1,000 empty compressed streams",
    "a.tgz",
    lambda: gzip.compress(b"") * 300_000,
)

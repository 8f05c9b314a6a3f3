"""Zips as made by an attacker or an accident, each with its expected outcome."""

from __future__ import annotations

import stat
import struct
import zlib

from hostile_parts import (
    ABSOLUTE,
    BOMB,
    BOMB_MIB,
    CANNOT,
    OUTSIDE,
    ZEROS,
    damaged_stream,
    end_record,
    end_record_64,
    entry,
    false_count,
    false_size,
    harmed,
    huge_window,
    local,
    long_local_extra,
    many_empty_members,
    many_entries,
    opened,
    quoted_overlap,
    refused,
    tar_of,
    unix,
    with_extra,
    zip_of,
)

NAME = "Images/cat/0.jpg"
for number, (name, danger) in enumerate(
    [
        ("../../x", OUTSIDE), ("a/../../x", OUTSIDE), ("..\\..\\x", OUTSIDE),
        ("a\\..\\..\\x", OUTSIDE), ("./../x", OUTSIDE), ("a/..", OUTSIDE), ("a/../b", OUTSIDE),
        ("../", OUTSIDE),
        ("/tmp/x", ABSOLUTE), ("//tmp/x", ABSOLUTE), ("\\tmp\\x", ABSOLUTE), ("C:\\x", ABSOLUTE),
        ("c:x", ABSOLUTE), ("\\\\host\\x", ABSOLUTE), ("//?/C:/x", ABSOLUTE),
    ]
):  # fmt: skip
    pattern = rf"is refused, nothing was unpacked: .* \({danger}\); create the archive again"
    refused(f"zip name {name}", pattern, f"{number}.zip", lambda name=name: zip_of((name, b"x")))
    refused(f"tar name {name}", pattern, f"{number}.tar", lambda name=name: tar_of((name, b"x")))
unicode_name = b"\1" + struct.pack("<I", zlib.crc32(b"a.jpg")) + b"../../evil"
unicode_extra = struct.pack("<2H", 0x7075, len(unicode_name)) + unicode_name
refused(
    "zip unicode extra name", OUTSIDE, "a.zip",
    lambda: zip_of((with_extra("a.jpg", unicode_extra), b"x")),
)  # fmt: skip
for kind, mode, danger in [
    ("symbolic link", stat.S_IFLNK | 0o777, "a symbolic link"),
    ("fifo", stat.S_IFIFO | 0o644, "a device"),
    ("character device", stat.S_IFCHR | 0o644, "a device"),
    ("block device", stat.S_IFBLK | 0o644, "a device"),
    ("socket", stat.S_IFSOCK | 0o644, "a device"),
    ("setuid", stat.S_IFREG | 0o4755, "a setuid or setgid file"),
    ("link that ends in a slash", stat.S_IFLNK | 0o777, "a symbolic link"),
]:
    named = "odd/" if "slash" in kind else "odd"
    refused(
        f"zip {kind}", rf"unpacked: {named} \({danger}\)", "a.zip",
        lambda named=named, mode=mode: zip_of((unix(named, mode), b"/etc/passwd")),
    )  # fmt: skip
LINK = stat.S_IFLNK | 0o777
refused(
    "zip chain of links", r"a \(a symbolic link\), b \(a symbolic link\)", "a.zip",
    lambda: zip_of((unix("a", LINK), b".."), (unix("b", LINK), b"a/.."), ("b/x", b"evil")),
)  # fmt: skip
refused(
    "zip folder link and a file through it", r"d \(a symbolic link\);", "a.zip",
    lambda: zip_of((unix("d", LINK), b"/tmp"), ("d/x", b"evil")),
)  # fmt: skip
SAME = entry(b"a", packed=3, size=3) * 50
refused(
    "zip members at one place",
    "members overlap",
    "a.zip",
    lambda: local(b"a", b"one") + SAME + end_record(50, len(SAME), 34),
)
refused("zip quoted overlap", "members overlap, as in a zip bomb", "a.zip", quoted_overlap)
opened("zip overlap by a header", [("a/1", "CORRUPT")], "a.zip", long_local_extra)
for method in (8, 12, 14):
    refused(
        f"zip bomb {method}",
        BOMB,
        "a.zip",
        lambda method=method: zip_of(("zeros", ZEROS * BOMB_MIB), method=method),
    )
    opened(
        f"zip false size {method}",
        [("Images/cat/bomb", "CORRUPT")],
        "a.zip",
        lambda method=method: false_size(method),
    )
    opened(
        f"zip damaged stream {method}",
        [(NAME, "CORRUPT")],
        "a.zip",
        lambda method=method: damaged_stream(method),
    )
opened("zip LZMA window of 4 GiB", [(NAME, "CORRUPT")], "a.zip", huge_window)
refused(
    "zip declares an exabyte",
    "bytes and the limit is 1,099,511,627,776; if you trust it, allow it with"
    " --max-archive-gb 1,152,921,505",
    "a.zip",
    lambda: (
        local(b"a")
        + (listed := entry(b"a", size=0xFFFFFFFF, extra=struct.pack("<2HQ", 1, 8, 2**60)))
        + end_record(1, len(listed), 31)
    ),
)
refused(
    "zip declares 3 million",
    "contains at least 3,000,000 entries and the limit is 2,000,000; if you trust it, allow more"
    " with --max-archive-entries",
    "a.zip",
    lambda: (
        local(b"x")
        + (listed := entry(b"x") * 9)
        + end_record_64(3_000_000, len(listed), 31, 31 + len(listed))
    ),
)
refused(
    "zip declares 10 and lists 2.1 million",
    "declares 10 entries but lists up to 2,",
    "a.zip",
    lambda: false_count(10, 2_100_000),
)
refused(
    "zip declares 10 and lists 15,000",
    f"{CANNOT}it declares 10 entries but lists 15,000",
    "a.zip",
    lambda: false_count(10, 15_000),
)
refused(
    "zip declares 65,536 more than it lists",
    f"{CANNOT}it declares 70,000 entries but lists 9",
    "a.zip",
    lambda: (
        local(b"x") * 9
        + (listed := b"".join(many_entries(9)))
        + end_record_64(70_000, len(listed), 31 * 9, 31 * 9 + len(listed))
    ),
)
refused(
    "zip of 100,000 empty members",
    r"its first 20,001 entries contain 0 bytes",
    "a.zip",
    lambda: many_empty_members(100_000),
)
refused(
    "zip directory of 4 GB",
    f"{CANNOT}File is not a zip file",
    "a.zip",
    lambda: zip_of()[:-22] + end_record(2, 0xFFFFFFF0, 0),
)
refused(
    "zip directory of an exabyte",
    f"{CANNOT}File is not a zip file",
    "a.zip",
    lambda: local(b"x") + end_record_64(2, 2**60, 31, 31),
)
refused(
    "zip directory of zeros",
    f"{CANNOT}File is not a zip file",
    "a.zip",
    lambda: local(b"x") + bytes(10**7) + end_record(3, 10**7, 31),
)
for inner in ("more.zip", "more.tar.gz", "MORE.ZIP", "deep/er/x.7z", "x.tar.zst", "x.tbz2"):
    refused(
        f"zip with {inner}",
        f"contains another archive, Images/cat/{inner}, and nested",
        "a.zip",
        lambda inner=inner: zip_of((f"Images/cat/{inner}", b"PK")),
    )
    refused(
        f"tar with {inner}",
        f"contains another archive, Images/cat/{inner}, and nested",
        "a.tar",
        lambda inner=inner: tar_of((f"Images/cat/{inner}", b"PK")),
    )
for label, at, flags in [
    ("encrypted", (6, 8), 1),
    ("strongly encrypted", (6, 8), 0x41),
    ("masked", (6, 8), 0x2000),
]:
    opened(
        f"zip {label}",
        [(NAME, "PASSWORD")],
        "a.zip",
        lambda at=at, flags=flags: harmed(
            zip_of((NAME, b"x")), local=at[0], listed=at[1], new=struct.pack("<H", flags)
        ),
    )
opened(
    "zip AES",
    [(NAME, "PASSWORD")],
    "a.zip",
    lambda: harmed(zip_of((NAME, b"x")), local=6, listed=8, new=struct.pack("<2H", 1, 99)),
)
for method in (1, 6, 9, 93, 97, 98, 99, 255):
    opened(
        f"zip method {method}",
        [(NAME, "CORRUPT")],
        "a.zip",
        lambda method=method: harmed(
            zip_of((NAME, b"x")), local=8, listed=10, new=struct.pack("<H", method)
        ),
    )
for method in (0, 8, 12, 14):
    opened(
        f"zip wrong checksum {method}",
        [(NAME, "CORRUPT")],
        "a.zip",
        lambda method=method: harmed(
            zip_of((NAME, b"x" * 99), method=method), local=14, listed=16, new=b"\0\0\0\1"
        ),
    )
for label, size in [("more", 9), ("less", 200)]:
    opened(
        f"zip with {label} than it declares",
        [(NAME, "CORRUPT")],
        "a.zip",
        lambda size=size: harmed(
            zip_of((NAME, b"x" * 99), method=8), local=22, listed=24, new=struct.pack("<I", size)
        ),
    )
opened(
    "zip packed bytes too few",
    [(NAME, "CORRUPT")],
    "a.zip",
    lambda: harmed(
        zip_of((NAME, bytes(range(250)) * 9), method=8),
        local=18,
        listed=20,
        new=struct.pack("<I", 5),
    ),
)
opened(
    "zip header without magic",
    [(NAME, "CORRUPT")],
    "a.zip",
    lambda: b"MZ" + harmed(zip_of((NAME, b"x")), local=0, new=b"XXXX"),
)
opened(
    "zip header with another name",
    [(NAME, "CORRUPT")],
    "a.zip",
    lambda: harmed(zip_of((NAME, b"x")), local=30, new=b"../evil"),
)
opened(
    "zip one name twice",
    [("Images/cat/1.jpg (again, 1)", "DUPLICATE_NAME")],
    "a.zip",
    lambda: zip_of(("Images/cat/1.jpg", b"x")),
)
refused("zip truncated", CANNOT, "a.zip", lambda: zip_of()[:-30])
refused(
    "zip directory damaged",
    f"{CANNOT}its directory is damaged",
    "a.zip",
    lambda: (z := zip_of())[: z.rindex(b"PK\1\2")] + b"XXXX" + z[z.rindex(b"PK\1\2") + 4 :],
)
refused(
    "zip member outside",
    f"{CANNOT}a member is outside it",
    "a.zip",
    lambda: harmed(zip_of((NAME, b"x")), listed=42, new=struct.pack("<I", 10**9)),
)
refused(
    "zip64 member far outside",
    f"{CANNOT}a member is outside it",
    "a.zip",
    lambda: (
        local(b"a")
        + (
            listed := harmed(
                entry(b"a", extra=struct.pack("<2HQ", 1, 8, 2**64 - 1)), listed=42, new=b"\xff" * 4
            )
        )
        + end_record(1, len(listed), 31)
    ),
)
refused(
    "zip64 field truncated",
    f"{CANNOT}a member is outside it",
    "a.zip",
    lambda: (
        local(b"a")
        + (
            listed := harmed(
                entry(b"a", extra=struct.pack("<2HI", 1, 8, 1)), listed=42, new=b"\xff" * 4
            )
        )
        + end_record(1, len(listed), 31)
    ),
)
opened(
    "zip64 locator with a wrong position",
    [],
    "a.zip",
    lambda: (z := zip_of())[:-22] + struct.pack("<4sIQI", b"PK\6\7", 0, 2**63, 1) + z[-22:],
)
refused(
    "zip of several parts",
    f"{CANNOT}it is one part of a split archive",
    "a.zip",
    lambda: harmed(zip_of(), end=4, new=struct.pack("<2H", 3, 3)),
)
refused(
    "zip member on another part",
    f"{CANNOT}it is one part of a split archive",
    "a.zip",
    lambda: harmed(zip_of(), listed=34, new=struct.pack("<H", 3)),
)
opened("zip with something before it", [], "a.zip", lambda: b"#!/bin/sh\n" * 999 + zip_of())
opened("zip with something after it", [], "a.zip", lambda: zip_of() + b"garbage" * 999)
refused("zip with much after it", CANNOT, "a.zip", lambda: zip_of() + b"garbage" * 99_999)
opened("zip with a second end record", [], "a.zip", lambda: zip_of() + end_record(7, 777, 7))
opened(
    "zip with an end record in its size",
    [],
    "a.zip",
    lambda: zip_of() + end_record(1, *struct.unpack("<2I", b"PK\5\6PK\5\6")),
)
refused(
    "zip of nothing", "no class|contains no|no image|empty", "a.zip", lambda: end_record(0, 0, 0)
)
refused(
    "zip name with a NUL",
    r"unpacked: .*evil\.jpg \(a name that contains a NUL\)",
    "a.zip",
    lambda: zip_of(("Images/cat/a_evil.jpg", b"x")).replace(b"a_evil", b"a\0evil"),
)
refused(
    "zip name of 60,000 bytes",
    "unpacked: a name of 60,000 bytes, and the limit is 4,096",
    "a.zip",
    lambda: zip_of(("x" * 60_000, b"x")),
)
opened(
    "zip names with markup and controls",
    [],
    "a.zip",
    lambda: zip_of(
        *(
            (f"Images/cat/{odd}.jpg", b"x")
            for odd in ("a\nb", "\x1b[2J\x1b]0;x\x07", "\u202egpj", "<script>", "=1+1", "x" * 250)
        )
    ),
)

"""All hostile archives, by name: zips, tars, and files that only pretend to be one."""

from __future__ import annotations

import hostile_tars
import hostile_zips
from hostile_parts import HOSTILE, Case, refused

__all__ = ["HOSTILE", "Case"]
assert hostile_tars and hostile_zips  # importing them fills the catalogue

refused("RAR named zip", "is a RAR archive; pass", "a.zip", lambda: b"Rar!\x1a\x07\0" + bytes(99))
refused(
    "7-Zip named zip",
    "is a 7-Zip archive; pass",
    "a.zip",
    lambda: b"7z\xbc\xaf'\x1c" + bytes(99),
)
refused(
    "Zstandard named tar",
    "is a Zstandard file; pass",
    "a.tar",
    lambda: b"\x28\xb5\x2f\xfd" + bytes(99),
)
refused("page named zip", "is an HTML or XML page", "a.zip", lambda: b"<!doctype html>" + bytes(99))
refused("nothing", "is an empty file", "a.zip", lambda: b"")
refused("one byte", "is not a known kind of archive", "a.zip", lambda: b"P")
refused("one block of zeros", "is not a known kind of archive", "a.tar", lambda: bytes(512))
refused("ten megabytes of zeros", "is not a known kind of archive", "a.tar", lambda: bytes(10**7))

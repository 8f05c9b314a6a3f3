"""The kinds of JPEG, TIFF, BMP and PNM files that are not read, in words. Standard library only.

Called after a decoder has refused a file: what it refuses for its kind is not damaged.
"""

from __future__ import annotations

import io
import struct

_JPEG_KINDS = {
    0xC3: "lossless JPEG",
    0xC5: "hierarchical JPEG",
    0xC6: "hierarchical JPEG",
    0xC7: "hierarchical JPEG",
    0xC9: "arithmetic JPEG",
    0xCA: "arithmetic JPEG",
    0xCB: "lossless JPEG",
    0xCD: "arithmetic JPEG",
    0xCE: "arithmetic JPEG",
    0xCF: "arithmetic JPEG",
    0xF7: "JPEG-LS",
}
_FRAMES = {*_JPEG_KINDS, 0xC0, 0xC1, 0xC2}
# TIFF's compressions, with Pillow's name where it may have the codec.
_COMPRESSIONS = {
    1: ("none", "raw"),
    2: ("CCITT", "tiff_ccitt"),
    3: ("CCITT", "group3"),
    4: ("CCITT", "group4"),
    5: ("LZW", "tiff_lzw"),
    6: ("old JPEG", ""),
    7: ("JPEG", "jpeg"),
    8: ("deflate", "tiff_adobe_deflate"),
    9: ("JBIG", ""),
    10: ("JBIG", ""),
    32771: ("CCITT", ""),
    32773: ("PackBits", "packbits"),
    32809: ("ThunderScan", ""),
    32946: ("deflate", "tiff_adobe_deflate"),
    33003: ("JPEG 2000", ""),
    33005: ("JPEG 2000", ""),
    33007: ("JPEG 2000", ""),
    34661: ("JBIG", ""),
    34676: ("SGI log", ""),
    34677: ("SGI log", ""),
    34712: ("JPEG 2000", ""),
    34713: ("Nikon raw", ""),
    34887: ("LERC", ""),
    34892: ("lossy DNG", ""),
    34925: ("LZMA", "lzma"),
    50000: ("zstd", "zstd"),
    50001: ("WebP", "webp"),
    50002: ("JPEG XL", ""),
    52546: ("JPEG XL", ""),
}
_SAMPLES = {1: "", 2: "signed ", 3: "float ", 5: "complex ", 6: "complex float "}
_SIZES = {1: 1, 3: 2, 4: 4, 16: 8}  # bytes of a value, by the type of an entry
_MAX_CHANNELS = 4096


def unread_kind(content: bytes, file_format: str, words: str) -> str | None:
    """Return what a file is, if it is of a kind that the decoder does not know; else None.

    Args:
        content: The file's bytes.
        file_format: Pillow's name of its format.
        words: Why the decoder refused it.
    """
    try:
        if file_format == "JPEG":
            return _jpeg_kind(content)
        if file_format == "TIFF":
            return _tiff_kind(content, words)
        if file_format == "BMP":
            compression = struct.unpack_from("<I", content, 30)[0]
            size = struct.unpack_from("<I", content, 14)[0]
            return "BMP that contains a JPEG or PNG" if size >= 40 and compression in (4, 5) else ""
    except (struct.error, IndexError, KeyError, ValueError, OverflowError):
        pass  # its header is damaged
    return None


def _jpeg_kind(content: bytes) -> str | None:
    """Return the kind of a JPEG, from the marker of its frame."""
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xFF or 0xD0 <= marker <= 0xD8 or marker == 1:
            at += 1 if marker == 0xFF else 2
            continue
        if marker in _FRAMES:
            bits, channels = content[at + 4], content[at + 9]
            if marker in _JPEG_KINDS:
                return _JPEG_KINDS[marker]
            if bits in (12, 16):
                return f"{bits}-bit JPEG"
            return f"JPEG of {channels} channels" if channels == 2 or channels > 4 else None
        if marker in (0xDA, 0xD9):
            return None
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return None


def _tiff_kind(content: bytes, words: str) -> str | None:
    """Return the layout of a TIFF if it is none that Pillow reads, or its compression."""
    tags = _tags(content)
    width, height = tags[256][0], tags[257][0]
    if not 0 < width < 1 << 24 or not 0 < height < 1 << 24:
        return None
    bits, num = tags.get(258, [1]), tags.get(277, [1])[0]
    formats, photometric = tags.get(339, [1]), tags.get(262, [0])[0]
    planar, compression = tags.get(284, [1])[0], tags.get(259, [1])[0]
    bits = bits * num if len(bits) == 1 else bits
    if compression not in _COMPRESSIONS:
        return f"TIFF with compression {compression}"
    name, codec = _COMPRESSIONS[compression]
    if not codec:
        return f"TIFF with {name} compression"
    known = set(formats) <= {*_SAMPLES, 4} and all(0 < one <= 128 for one in bits)
    if not known or not 0 < num <= _MAX_CHANNELS or photometric > 65000:
        return None
    # Pillow opens planes that it has no decoder for.
    if "raw mode" in words or not _opens(content):
        sample = _SAMPLES.get(formats[0], "")
        depth = f"{bits[0]}-bit" if len(set(bits)) == 1 else f"{'/'.join(map(str, bits[:9]))}-bit"
        what = f"TIFF of {num} channel{'s' if num > 1 else ''} of {depth} {sample}values"
        what += " in separate planes" if planar == 2 else ""
        return f"{what} (multispectral)" if num > 4 else what
    return None if _has_codec(codec) else f"TIFF with {name} compression"


def _opens(content: bytes) -> bool:
    """Whether Pillow knows the layout."""
    from PIL import TiffImagePlugin

    try:
        with TiffImagePlugin.TiffImageFile(io.BytesIO(content)):
            return True
    except Exception:  # a layout it does not know is a SyntaxError
        return False


def _has_codec(name: str) -> bool:
    """Whether Pillow's libtiff can compress in this way, so that a failure is damage."""
    from PIL import Image

    if name == "raw":
        return True
    mode = "1" if name.startswith(("tiff_ccitt", "group")) else "L"
    try:
        Image.new(mode, (16, 16)).save(io.BytesIO(), "TIFF", compression=name)
    except Exception:  # no such codec
        return False
    return True


def _tags(content: bytes) -> dict[int, list[int]]:
    """Return the integers of the first directory of a TIFF or BigTIFF.

    Raises:
        struct.error: the file ends before.
    """
    order = "<" if content[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", content, 2)[0] == 43
    start = struct.unpack_from(order + ("Q" if big else "I"), content, 8 if big else 4)[0]
    num = struct.unpack_from(order + ("Q" if big else "H"), content, start)[0]
    at, step, inline = (start + 8, 20, 8) if big else (start + 2, 12, 4)
    tags = {}
    for entry in range(at, at + step * min(num, 4096), step):
        tag, kind = struct.unpack_from(order + "HH", content, entry)
        count = struct.unpack_from(order + ("Q" if big else "I"), content, entry + 4)[0]
        if kind not in _SIZES or tag < 254 or not 0 < count <= _MAX_CHANNELS:
            continue
        field = entry + step - inline
        if count * _SIZES[kind] > inline:
            field = struct.unpack_from(order + ("Q" if big else "I"), content, field)[0]
        letter = {1: "B", 3: "H", 4: "I", 16: "Q"}[kind]
        tags[tag] = list(struct.unpack_from(f"{order}{count}{letter}", content, field))
    return tags

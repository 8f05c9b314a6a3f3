"""Detection of a file's format by its content alone, and why a file is not a usable image.

Standard library and Pillow's list of features only.
"""

from __future__ import annotations

import struct

import PIL
from PIL import features

from towernet.errors import DataError

# (offset, bytes there, Pillow's format, what the end of a complete file contains)
_IMAGES = (
    (0, b"\xff\xd8\xff", "JPEG", b"\xff\xd9"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG", b"IEND"),
    (8, b"WEBP", "WEBP", b""),
    (0, b"GIF87a", "GIF", b"\0;"),
    (0, b"GIF89a", "GIF", b"\0;"),
    (0, b"BM", "BMP", b""),
    (0, b"II*\0", "TIFF", b""),
    (0, b"MM\0*", "TIFF", b""),
    (0, b"II+\0", "TIFF", b""),
    (0, b"MM\0+", "TIFF", b""),
)
_FOREIGN = (
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"8BPS", "Photoshop (PSD)"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript"),
    (0, b"\xd7\xcd\xc6\x9a", "WMF"),
    (0, b"\0\0\x01\0", "icon (ICO)"),
    (128, b"DICM", "DICOM"),
    (8, b"CR\x02", "camera raw (CR2)"),
    (4, b"ftypcrx ", "camera raw (CR3)"),
    (0, b"IIRO", "camera raw (ORF)"),
    (0, b"IIRS", "camera raw (ORF)"),
    (0, b"IIU\0", "camera raw (RW2)"),
    (0, b"FUJIFILMCCD-RAW", "camera raw (RAF)"),
    (0, b"PK\x03\x04", "zip archive"),
    (0, b"\x1f\x8b", "gzip archive"),
)
_TRUNCATED_WORDS = ("truncated", "end of file", "not enough image data", "unexpected end")


class BadImage(DataError):
    """A file is not a usable image; with the code and the description for the table.

    Args:
        reason: EMPTY, TRUNCATED, CORRUPT, SHAPE, PIXELS, FORMAT or RESOURCE.
        detail: A description of what was found and what to do.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def begins_as_image(content: bytes) -> tuple[str, bytes] | None:
    """Return Pillow's name for the format a file starts like, and what such files end with."""
    for offset, magic, name, end in _IMAGES:
        if content.startswith(magic, offset) and (name != "WEBP" or content[:4] == b"RIFF"):
            return name, end
    return None


def sniff(content: bytes) -> tuple[str, bytes]:
    """Return Pillow's name for the format and what its files end with."""
    if not content:
        raise BadImage("EMPTY", "the file is empty; copy it again or delete it")
    for offset, magic, name in _FOREIGN:
        if content.startswith(magic, offset):
            raise BadImage("FORMAT", f"{name}: convert it to JPEG or PNG")
    if image := begins_as_image(content):
        if image[0] == "TIFF" and (raw := _camera_raw(content[:4096])):
            raise BadImage("FORMAT", f"{raw}: convert it to JPEG or PNG")
        return image
    if content[4:8] == b"ftyp":
        brands = content[8 : min(64, int.from_bytes(content[:4], "big"))]
        avif = b"avif" in brands or b"avis" in brands
        if avif and features.check("avif"):
            return "AVIF", b""
        heic = any(brand in brands for brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"))
        name = "AVIF, which this Pillow cannot read" if avif else "HEIC" if heic else "video"
        raise BadImage("FORMAT", f"{name}: convert it to JPEG or PNG")
    if not content.strip(b"\0"):
        raise BadImage("CORRUPT", "the file contains only zero bytes; copy it again")
    raise BadImage("FORMAT", _what_text(content[:1024]))


def _what_text(head: bytes) -> str:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"version https://git-lfs"):
        return "git-LFS pointer, not the image: run `git lfs pull`"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "HTML page, probably an error page saved as an image: download it again"
    if b"<svg" in text:
        return "SVG drawing: convert it to PNG"
    if text.startswith(b"<?xml"):
        return "XML text, not an image: download it again"
    if all(byte >= 32 or byte in b"\t\r\n" for byte in head):
        return "text, not an image: delete it or download it again"
    return f"unknown format (it starts with {head[:8].hex(' ')}): convert it to JPEG or PNG"


def _camera_raw(head: bytes) -> str:
    """Return the name of a camera's raw format, or ''; a TIFF reader sees only its preview."""
    order = ">" if head[:1] == b"M" else "<"
    dng_version = struct.pack(order + "HHI", 50706, 1, 4)
    preview = struct.pack(order + "HHII", 254, 4, 1, 1)
    others = struct.pack(order + "HH", 330, 4)
    if dng_version in head:
        return "camera raw (DNG)"
    return "camera raw" if preview in head and others in head else ""


def explain(error: Exception, content: bytes, file_format: str, end: bytes) -> BadImage:
    """Distinguish a truncated file from one that is damaged inside."""
    words = " ".join(str(error).split())[:200] or "it is inconsistent"
    cut_off = (
        isinstance(error, EOFError)
        or any(word in words.lower() for word in _TRUNCATED_WORDS)
        or (isinstance(error, struct.error) and "requires a buffer" in words)
        or (end not in content[-64:])
        or (file_format == "WEBP" and len(content) < 8 + int.from_bytes(content[4:8], "little"))
        or (file_format == "AVIF" and _box_is_cut(content))
    )
    # Pillow's own message for a header it cannot read names a Python object, which is no help.
    words = "the header cannot be read" if isinstance(error, PIL.UnidentifiedImageError) else words
    if cut_off:
        return BadImage("TRUNCATED", f"truncated {file_format} file ({words}); copy it again")
    return BadImage("CORRUPT", f"damaged {file_format} file ({words}); copy it again or delete it")


def _box_is_cut(content: bytes) -> bool:
    """Whether an AVIF's last box extends past the end of the file."""
    at = 0
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        size = int.from_bytes(content[at + 8 : at + 16], "big") if size == 1 else size
        if size < 8:  # the rest of the file, or damaged
            return False
        at += size
    return at > len(content)

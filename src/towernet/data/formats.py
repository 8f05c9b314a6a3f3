"""Detection of a file's format by its content alone, and why a file is not a usable image.

Standard library and Pillow's list of features only.
"""

from __future__ import annotations

import re
import struct

import PIL
from PIL import features

from towernet.data.magic import AS_PICTURE, FOREIGN, VIDEO
from towernet.data.unread import unread_kind
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
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1",
                b"msf1")  # fmt: skip
_PNM = re.compile(rb"P[1-6](?:\s|#[^\r\n]{0,999}[\r\n])+\d")
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
    return ("PPM", b"") if _PNM.match(content) else None


def sniff(content: bytes) -> tuple[str, bytes]:
    """Return Pillow's name for the format and what its files end with.

    Raises:
        BadImage: it is none of the formats that are read; with the name of what it is.
    """
    if not content:
        raise BadImage("EMPTY", "the file is empty; copy it again")
    for offset, magic, name, todo in FOREIGN:
        if content.startswith(magic, offset):
            raise BadImage("FORMAT", f"{name}: {todo}")
    if image := begins_as_image(content):
        if image[0] == "TIFF" and (raw := _camera_raw(content[:4096])):
            raise BadImage("FORMAT", f"{raw}: {AS_PICTURE}")
        return image
    if content[4:8] == b"ftyp":
        return _of_boxes(content)
    if content[-18:] == b"TRUEVISION-XFILE.\0":
        raise BadImage("FORMAT", f"Targa (TGA): {AS_PICTURE}")
    if content[:1] == b"\n" and content[1:2] in b"\0\2\3\4\5" and content[2:4] in _PCX_BITS:
        raise BadImage("FORMAT", f"PCX: {AS_PICTURE}")
    if not content.strip(b"\0"):
        raise BadImage("CORRUPT", "the file contains only zero bytes; copy it again")
    raise BadImage("FORMAT", _what_text(content[:1024]))


_PCX_BITS = (b"\1\1", b"\1\2", b"\1\4", b"\1\x08")


def has_heif() -> bool:
    """Whether HEIC can be decoded here."""
    try:
        import pi_heif  # noqa: F401
    except ImportError:
        return False
    return True


def _of_boxes(content: bytes) -> tuple[str, bytes]:
    """Return the format of a file that starts with an ISO `ftyp` box, such as AVIF and HEIC."""
    brands = content[8 : min(64, int.from_bytes(content[:4], "big"))]
    if b"avif" in brands or b"avis" in brands:
        if features.check("avif"):
            return "AVIF", b""
        raise BadImage("FORMAT", f"AVIF, which this Pillow cannot read: {AS_PICTURE}")
    if any(brand in brands for brand in _HEIF_BRANDS):
        if has_heif():
            return "HEIF", b""
        raise BadImage("FORMAT", f"HEIC: install pi-heif, or {AS_PICTURE}")
    if b"jxl " in brands or b"jp2 " in brands or b"jpx " in brands:
        name = "JPEG XL" if b"jxl " in brands else "JPEG 2000"
        raise BadImage("FORMAT", f"{name}: {AS_PICTURE}")
    raise BadImage("FORMAT", f"video: {VIDEO}")


def _what_text(head: bytes) -> str:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"version https://git-lfs"):
        return "git-LFS pointer, not the image: run `git lfs pull`"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "HTML page, probably an error page saved as an image: download it again"
    if b"<svg" in text:
        return f"SVG drawing: {AS_PICTURE}"
    if text.startswith(b"/* xpm"):
        return f"XPM: {AS_PICTURE}"
    if text.startswith(b"#define ") and b"_width" in text:
        return f"XBM: {AS_PICTURE}"
    if text.startswith(b"<"):
        return "XML text, not an image"
    if _is_text(head):
        return "JSON text, not an image" if text[:1] in (b"{", b"[") else "text, not an image"
    return f"unknown format (it starts with {head[:8].hex(' ')}): {AS_PICTURE}"


def _is_text(head: bytes) -> bool:
    """Whether it is Unicode text, or mostly ASCII in some other coding."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    if any(byte < 32 and byte not in b"\t\r\n\f\x1b" for byte in head):
        return False
    try:
        head[:-3].decode("utf-8") if len(head) == 1024 else head.decode("utf-8")
        return True
    except UnicodeDecodeError as error:
        if len(head) == 1024 and error.start > len(head) - 8:  # cut inside a character
            return True
    return sum(32 <= byte < 127 or byte in b"\t\r\n" for byte in head) > 0.8 * len(head)


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
    """Distinguish a kind that is not read, a truncated file, and one that is damaged inside."""
    if kind := unread_kind(content, file_format, str(error)):
        return BadImage("FORMAT", f"{kind}: {AS_PICTURE}")
    words = " ".join(str(error).split())[:200] or "it is inconsistent"
    cut_off = (
        isinstance(error, EOFError)
        or any(word in words.lower() for word in _TRUNCATED_WORDS)
        or (isinstance(error, struct.error) and "requires a buffer" in words)
        or (end not in content[-64:])
        or (file_format == "WEBP" and len(content) < 8 + int.from_bytes(content[4:8], "little"))
        or (file_format in ("AVIF", "HEIF") and _box_is_cut(content))
    )
    # Pillow's own message for a header it cannot read names a Python object, which is no help.
    is_header = isinstance(error, PIL.UnidentifiedImageError)
    words = "the header cannot be read" if is_header else words
    if cut_off:
        return BadImage("TRUNCATED", f"truncated {file_format} file ({words}); copy it again")
    if is_header or file_format in ("AVIF", "HEIF", "TIFF"):
        # Damage, or a kind that the decoder does not know: they look the same.
        found = f"{file_format} file that cannot be decoded ({words})"
        return BadImage("CORRUPT", f"{found}; copy it again, or {AS_PICTURE}")
    return BadImage("CORRUPT", f"damaged {file_format} file ({words}); copy it again")


def _box_is_cut(content: bytes) -> bool:
    """Whether the last box of an AVIF or HEIC extends past the end of the file."""
    at = 0
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        size = int.from_bytes(content[at + 8 : at + 16], "big") if size == 1 else size
        if size < 8:  # the rest of the file, or damaged
            return False
        at += size
    return at > len(content)

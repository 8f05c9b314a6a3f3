"""The one decoder: the bytes of a picture become H × W × 3 uint8, the same at every entry.

numpy and Pillow only, since the small runtime ships this module unchanged. Policies:
EXIF orientation is applied; transparency is laid on the stated background; 16-bit, 32-bit and
float values are rescaled, not clipped; of an animation the first frame counts; colour profiles
(ICC) are not applied. libjpeg fills some damage with grey and tells nobody: such files pass.
Shapes: H × W pixels, S the side of the square a network sees.
"""

from __future__ import annotations

import io
import struct
import threading
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)

from towernet.errors import DataError

VERSION = f"1 with Pillow {PIL.__version__}"
"""Part of every key under which decoded pixels are kept: other decoders, other pixels."""

MAX_PIXELS = 89_478_485
"""The most pixels a picture may have; more is taken for a decompression bomb. [Pillow's own]"""
MIN_SIDE_PX, MAX_ASPECT = 8, 20.0
DRAFT_SIDE_PX = 2048
"""JPEGs at least twice as large on both sides are read at 1/2, 1/4 or 1/8, never below this."""

Pixels = npt.NDArray[np.uint8]
RGB = tuple[int, int, int]

# Image.open with named formats loads no plugin by itself, so they are imported above.
_PLUGINS = (
    AvifImagePlugin, BmpImagePlugin, GifImagePlugin, JpegImagePlugin,
    PngImagePlugin, TiffImagePlugin, WebPImagePlugin,
)  # fmt: skip
# (offset, bytes there, Pillow's format, what the end of a whole file holds)
_MAGIC = (
    (0, b"\xff\xd8\xff", "JPEG", b"\xff\xd9"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG", b"IEND"),
    (8, b"WEBP", "WEBP", b""),
    (0, b"GIF87a", "GIF", b";"),
    (0, b"GIF89a", "GIF", b";"),
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
    (0, b"PK\x03\x04", "zip archive"),
    (0, b"\x1f\x8b", "gzip archive"),
)
_TRUNCATED_WORDS = ("truncated", "end of file", "not enough image data", "unexpected end")
# How EXIF's orientation is undone, by its number.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION_TAG = 0x0112
# Python's warning filters belong to the whole process: two threads must not swap them at once.
_warnings_lock = threading.Lock()


class BadImage(DataError):
    """A file that is no usable picture, with the code and the words the table keeps.

    Args:
        reason: EMPTY, TRUNCATED, CORRUPT, SHAPE, PIXELS, FORMAT or RESOURCE.
        detail: What was found and what to do, in words.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Decoded:
    """A picture, upright and opaque.

    Args:
        pixels: (H, W, 3) uint8; fewer than width × height where a huge JPEG was read reduced.
        width: Of the picture as one looks at it, after orientation.
        height: The same.
        mode: Pillow's mode of the file, before conversion.
        format: Pillow's name of the format, found by content.
        notes: What was done: EXIF_ORIENTED, EXIF_CORRUPT, ALPHA, PALETTE, CMYK, SIXTEEN_BIT,
            THIRTY_TWO_BIT, FLOAT, FIRST_FRAME, REDUCED, DECODER_WARNED.
    """

    pixels: Pixels
    width: int
    height: int
    mode: str
    format: str
    notes: tuple[str, ...]


def decode(
    content: bytes,
    *,
    background: RGB = (255, 255, 255),
    max_pixels: int = MAX_PIXELS,
    min_side_px: int = MIN_SIDE_PX,
    max_aspect: float = MAX_ASPECT,
) -> Decoded:
    """Decode a whole file; the answer is a function of its bytes and these arguments.

    Args:
        content: The file's bytes. Its name plays no part.
        background: RGB that transparent pixels are laid on.
        max_pixels: Refused above, from the header alone.
        min_side_px: The shorter side must have this many pixels.
        max_aspect: The longer side may be at most this many times the shorter.

    Raises:
        BadImage: whatever is wrong with the file; nothing else is raised for its content.
    """
    file_format, end = _sniff(content)
    try:
        with _warnings_lock, warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            with Image.open(io.BytesIO(content), formats=[file_format]) as image:
                _require_shape(*image.size, max_pixels, min_side_px, max_aspect)
                decoded = _read(image, background)
    except BadImage:
        raise
    except MemoryError as error:
        raise BadImage(
            "RESOURCE", "decoding it needs more memory than allowed; shrink it"
        ) from error
    except Image.DecompressionBombError as error:
        raise BadImage("PIXELS", _too_many(max_pixels)) from error
    except Exception as error:  # Pillow raises ValueError, IndexError, struct.error, SyntaxError …
        raise _explain(error, content, file_format, end) from error
    if told and not all(issubclass(one.category, Image.DecompressionBombWarning) for one in told):
        return Decoded(**vars(decoded) | {"notes": (*decoded.notes, "DECODER_WARNED")})
    return decoded


def _sniff(content: bytes) -> tuple[str, bytes]:
    """Return Pillow's name for the format and what its files end with."""
    if not content:
        raise BadImage("EMPTY", "the file holds no bytes; copy it again or delete it")
    for offset, magic, name in _FOREIGN:
        if content.startswith(magic, offset):
            raise BadImage("FORMAT", f"{name}: convert it to JPEG or PNG")
    for offset, magic, name, end in _MAGIC:
        if content.startswith(magic, offset) and (name != "WEBP" or content[:4] == b"RIFF"):
            return name, end
    if content[4:8] == b"ftyp":
        brands = content[8 : min(64, int.from_bytes(content[:4], "big"))]
        avif = b"avif" in brands or b"avis" in brands
        if avif and features.check("avif"):
            return "AVIF", b""
        heic = any(brand in brands for brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"))
        name = "AVIF, which this Pillow cannot read" if avif else "HEIC" if heic else "film"
        raise BadImage("FORMAT", f"{name}: convert it to JPEG or PNG")
    if not content.strip(b"\0"):
        raise BadImage("CORRUPT", "the file holds only zero bytes; copy it again")
    raise BadImage("FORMAT", _what_text(content[:1024]))


def _what_text(head: bytes) -> str:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"version https://git-lfs"):
        return "git-LFS pointer, not the picture: run `git lfs pull`"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "HTML page, probably an error page saved as a picture: download it again"
    if b"<svg" in text:
        return "SVG drawing: convert it to PNG"
    if text.startswith(b"<?xml"):
        return "XML text, not a picture: download it again"
    if all(byte >= 32 or byte in b"\t\r\n" for byte in head):
        return "text, not a picture: delete it or download it again"
    return f"unknown format (it begins with {head[:8].hex(' ')}): convert it to JPEG or PNG"


def _require_shape(
    width: int, height: int, max_pixels: int, min_side_px: int, max_aspect: float
) -> None:
    shorter, longer = sorted((width, height))
    if width * height > max_pixels:
        raise BadImage("PIXELS", f"{width} × {height} pixels; {_too_many(max_pixels)}")
    if shorter < min_side_px:
        raise BadImage("SHAPE", f"{width} × {height} pixels; each side needs {min_side_px} or more")
    if longer > max_aspect * shorter:
        raise BadImage(
            "SHAPE", f"{width} × {height} pixels; one side is over {max_aspect:g} times the other"
        )


def _too_many(max_pixels: int) -> str:
    return f"more than {max_pixels:,} pixels are taken for an attack; shrink it"


def _explain(error: Exception, content: bytes, file_format: str, end: bytes) -> BadImage:
    """Tell a file that stops early from one that is damaged inside."""
    words = " ".join(str(error).split())[:200] or type(error).__name__
    cut_off = (
        isinstance(error, EOFError)
        or any(word in words.lower() for word in _TRUNCATED_WORDS)
        or (isinstance(error, struct.error) and "requires a buffer" in words)
        or (end not in content[-64:])
        or (file_format == "WEBP" and len(content) < 8 + int.from_bytes(content[4:8], "little"))
    )
    # Pillow's own sentence for a header it cannot read names a Python object: of no use to anybody.
    words = "the header cannot be read" if isinstance(error, PIL.UnidentifiedImageError) else words
    if cut_off:
        return BadImage(
            "TRUNCATED", f"{file_format} file that stops early ({words}); copy it again"
        )
    return BadImage("CORRUPT", f"damaged {file_format} file ({words}); copy it again or delete it")


def _read(image: Image.Image, background: RGB) -> Decoded:
    """Decode the first frame fully and bring it to upright RGB."""
    notes: list[str] = []
    size, mode, file_format = image.size, image.mode, str(image.format)
    if getattr(image, "is_animated", False):
        notes.append("FIRST_FRAME")
    if file_format in ("JPEG", "MPO"):
        image.draft(image.mode, (DRAFT_SIDE_PX, DRAFT_SIDE_PX))
        if image.size != size:
            notes.append("REDUCED")
    stored = _orientation(image, notes)
    image.load()
    # A TIFF turns itself while it loads, its size is of the picture upright; the others do not.
    turn = _orientation(image, [])
    rgb = _to_rgb(image, background, notes)
    if turn in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[turn])
    if stored in _UPRIGHT:
        notes.append("EXIF_ORIENTED")
    width, height = size if (turn or 1) < 5 else size[::-1]
    return Decoded(np.asarray(rgb), width, height, mode, file_format, tuple(notes))


def _orientation(image: Image.Image, notes: list[str]) -> int | None:
    """Return EXIF's orientation; a picture with a damaged EXIF block is used without it."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG)
        return value if isinstance(value, int) and value in _UPRIGHT else None
    except Exception:  # TypeError, struct.error, ZeroDivisionError, SyntaxError … all seen
        notes.append("EXIF_CORRUPT")
        return None


def _to_rgb(image: Image.Image, background: RGB, notes: list[str]) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _rescale(image, background, notes)
    if image.mode in ("P", "PA"):
        notes.append("PALETTE")
    if image.mode == "CMYK":
        notes.append("CMYK")
    if image.has_transparency_data:
        notes.append("ALPHA")
        return _composite(image, background)
    return image.convert("RGB")


def _composite(image: Image.Image, background: RGB) -> Image.Image:
    """Lay a picture with transparency on one colour."""
    key = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(key, tuple) and max(key) > 255:
        # A 16-bit PNG names the see-through colour in 16 bits; Pillow has kept the upper 8.
        image.info["transparency"] = tuple(part >> 8 for part in key)
    if image.mode == "La":
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    canvas = Image.new("RGB", rgba.size, background)
    canvas.paste(rgba.convert("RGB"), mask=rgba.getchannel("A"))
    return canvas


def _rescale(image: Image.Image, background: RGB, notes: list[str]) -> Image.Image:
    """Bring 16-bit, 32-bit and float values to 0 … 255 by the narrowest usual range they fit in.

    Usual are 0 … 1 (floats), and 8, 10, 12, 14 and 16 bits: cameras and microscopes store 12
    bits in files of 16. Values that fit none are stretched from their least to their largest.
    `convert("RGB")` would clip: 99 % of a 16-bit picture turns white.
    """
    notes.append({"I": "THIRTY_TWO_BIT", "F": "FLOAT"}.get(image.mode, "SIXTEEN_BIT"))
    values: npt.NDArray[Any] = np.asarray(image).astype(np.float32)
    finite = np.isfinite(values)
    if not finite.any():
        raise BadImage("CORRUPT", "no pixel holds a number; export it again")
    low, high = float(values[finite].min()), float(values[finite].max())
    ranges = [1.0] if image.mode == "F" else []
    ranges += [2.0**bits - 1 for bits in (8, 10, 12, 14, 16)]
    usual = next((top for top in ranges if low >= 0 and high <= top), None)
    low, high = (low, high) if usual is None else (0.0, usual)
    values = np.where(finite, values, low)
    scale = 255.0 / (high - low) if high > low else 0.0
    grey = np.floor((values - low) * scale + 0.5).clip(0, 255).astype(np.uint8)
    key = image.info.get("transparency")
    if not isinstance(key, int):
        return Image.fromarray(grey).convert("RGB")
    notes.append("ALPHA")
    canvas = Image.new("RGB", image.size, background)
    canvas.paste(
        Image.fromarray(grey).convert("RGB"), mask=Image.fromarray(np.asarray(image) != key)
    )
    return canvas


def fit(pixels: Pixels, size_px: int, resize: str, background: RGB = (255, 255, 255)) -> Pixels:
    """Bring a picture to a square of `size_px`.

    Args:
        pixels: (H, W, 3) uint8.
        size_px: S.
        resize: crop: the shorter side to S, the centre kept. pad: the whole picture, centred on
            the background. squash: aspect ratio ignored. All three antialiased (bicubic).
            squash_linear: bilinear without antialiasing, OpenCV's INTER_LINEAR.
        background: RGB of the padding.

    Returns:
        (S, S, 3) uint8.

    Example:
        >>> fit(np.zeros((20, 30, 3), np.uint8), 16, "pad").shape
        (16, 16, 3)
    """
    height, width = pixels.shape[:2]
    square, image = (size_px, size_px), Image.fromarray(pixels)
    if resize == "squash_linear":
        return _linear(pixels, size_px)
    if resize == "squash":
        return np.asarray(image.resize(square, Image.Resampling.BICUBIC))
    if resize == "crop":
        # Cropping inside the resampling: a very long picture never becomes a huge intermediate.
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        return np.asarray(image.resize(square, Image.Resampling.BICUBIC, box=box))
    assert resize == "pad", resize
    scale = size_px / max(width, height)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    canvas = Image.new("RGB", square, background)
    corner = ((size_px - inner[0]) // 2, (size_px - inner[1]) // 2)
    canvas.paste(image.resize(inner, Image.Resampling.BICUBIC), corner)
    return np.asarray(canvas)


def _linear(pixels: Pixels, size_px: int) -> Pixels:
    """Bilinear, half-pixel centres, no antialiasing; Pillow's own transform rounds down."""
    first_row, second_row, down = _taps(pixels.shape[0], size_px)
    first_column, second_column, right = _taps(pixels.shape[1], size_px)
    down, right = down[:, None, None], right[None, :, None]
    upper, lower = (
        pixels[row][:, first_column] * (1 - right) + pixels[row][:, second_column] * right
        for row in (first_row, second_row)
    )
    mixed: Pixels = np.floor(upper * (1 - down) + lower * down + 0.5).astype(np.uint8)
    return mixed


def _taps(
    length: int, size_px: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """For each of S outputs: the two inputs it lies between, and the weight of the second."""
    centre = ((np.arange(size_px) + 0.5) * length / size_px - 0.5).clip(0, length - 1)
    first = np.floor(centre).astype(np.intp)
    return first, np.minimum(first + 1, length - 1), (centre - first).astype(np.float32)

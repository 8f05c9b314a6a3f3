"""The one decoder: the bytes of a picture become H × W × 3 uint8, the same at every entry.

numpy and Pillow only, since the small runtime ships this module and `formats` unchanged. Policies:
EXIF orientation is applied; transparency is laid on the stated background; 16-bit, 32-bit and
float values are rescaled, not clipped; of an animation the first frame counts; colour profiles
(ICC) are not applied; very large pictures are read reduced, in strips, so that none takes more
memory than it is given. libjpeg fills some damage with grey and tells nobody: such files pass.
Shapes: H × W pixels, S the side of the square a network sees.
"""

from __future__ import annotations

import io
import math
import threading
import warnings
from collections.abc import Iterator
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
)

from towernet.data.formats import BadImage, explain, sniff

VERSION = f"2 with Pillow {PIL.__version__}"
"""Part of every key under which decoded pixels are kept: other decoders, other pixels."""

MAX_PIXELS = 89_478_485
"""The most pixels a picture may have; more is taken for a decompression bomb. [Pillow's own]"""
MIN_SIDE_PX, MAX_ASPECT = 8, 20.0
DRAFT_SIDE_PX = 2048
"""JPEGs at least twice as large on both sides are read at 1/2, 1/4 or 1/8, never below this."""
WHOLE_PIXELS = 16_000_000
"""Above, every k × k pixels become their mean, by the smallest k that brings a picture below."""
MAX_BYTES = 320_000_000
"""The most memory that decoding may take: 70 million pixels of PNG, 19 of WebP. (With its process
and the command that started it this stays below 600 MB.)"""
MAX_SCANS = 100
"""Of a progressive JPEG, which has about 10; each one goes over the whole picture."""
# What decoding takes at its peak, bytes per pixel, measured; the others take one or four.
_PEAK_BYTES = {"WEBP": 16, "AVIF": 12}
_STRIP_PIXELS = 250_000

Pixels = npt.NDArray[np.uint8]
RGB = tuple[int, int, int]

# Image.open with named formats loads no plugin by itself, so they are imported above.
_PLUGINS = (
    AvifImagePlugin, BmpImagePlugin, GifImagePlugin, JpegImagePlugin,
    PngImagePlugin, TiffImagePlugin, WebPImagePlugin,
)  # fmt: skip
# How EXIF's orientation is undone: rows and columns swapped or not, then read forth or back.
_UPRIGHT = {
    2: (False, 1, -1),
    3: (False, -1, -1),
    4: (False, -1, 1),
    5: (True, 1, 1),
    6: (True, 1, -1),
    7: (True, -1, -1),
    8: (True, -1, 1),
}
_ORIENTATION_TAG = 0x0112
_SCAN = b"\xff\xda"
# Python's warning filters belong to the whole process: two threads must not swap them at once.
_warnings_lock = threading.Lock()


@dataclass(frozen=True)
class Decoded:
    """A picture, upright and opaque.

    Args:
        pixels: (H, W, 3) uint8; fewer than width × height where a huge picture was read reduced.
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
    max_bytes: int = MAX_BYTES,
) -> Decoded:
    """Decode a whole file; the answer is a function of its bytes and these arguments.

    Args:
        content: The file's bytes. Its name plays no part.
        background: RGB that transparent pixels are laid on.
        max_pixels: Refused above, from the header alone.
        min_side_px: The shorter side must have this many pixels.
        max_aspect: The longer side may be at most this many times the shorter.
        max_bytes: Of memory that decoding may take; refused above (RESOURCE), from the header.

    Raises:
        BadImage: whatever is wrong with the file; nothing else is raised for its content.
    """
    file_format, end = sniff(content)
    # One picture, one thread: dav1d would take one of each core, with its memory.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    try:
        with _warnings_lock, warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            with Image.open(io.BytesIO(content), formats=[file_format]) as image:
                _require_shape(*image.size, max_pixels, min_side_px, max_aspect)
                _require_cheap(image, content, max_bytes)
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
        raise explain(error, content, file_format, end) from error
    if told and not all(issubclass(one.category, Image.DecompressionBombWarning) for one in told):
        return Decoded(**vars(decoded) | {"notes": (*decoded.notes, "DECODER_WARNED")})
    return decoded


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


def _require_cheap(image: Image.Image, content: bytes, max_bytes: int) -> None:
    """Refuse what takes long or much memory, before it does."""
    file_format, num_pixels = str(image.format), image.width * image.height
    pixel_bytes = 1 if image.mode in ("1", "L", "P") else 4
    peak = _PEAK_BYTES.get(file_format, pixel_bytes)
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        assert image.fp is not None
        scan = content.find(_SCAN, max(0, image.fp.tell() - 16))  # its header was just read
        num_in_scan = int.from_bytes(content[scan + 4 : scan + 5], "big")
        if image.info.get("progressive") or num_in_scan < len(image.getbands()):
            # All coefficients are kept until the last scan, each scan goes over all of them. (A
            # byte 0xFF within a coded picture is followed by 0, so that a mark is a mark.)
            peak += 2 * len(image.getbands())
            num_scans = content.count(_SCAN, max(0, scan))
            if num_scans > MAX_SCANS:
                words = f"JPEG of {num_scans} scans, taken for an attack; save it anew"
                raise BadImage("RESOURCE", words)
    if isinstance(image, BmpImagePlugin.BmpImageFile) and image.tile[0].codec_name == "bmp_rle":
        peak += 2  # it is written in Python
    needed = len(content) + peak * num_pixels + 3 * num_pixels // _factor(*image.size) ** 2
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        needed += _tiff_bytes(image, pixel_bytes)
    if needed > max_bytes:
        raise BadImage(
            "RESOURCE",
            f"{image.width} × {image.height} pixels of {file_format} take {needed / 1e6:,.0f} MB to"
            f" decode and {max_bytes / 1e6:,.0f} MB are allowed; shrink it",
        )


def _tiff_bytes(image: TiffImagePlugin.TiffImageFile, pixel_bytes: int) -> int:
    """Return what a TIFF takes besides its pixels: to be turned, or one strip or tile unpacked."""
    tags = image.tag_v2
    if 322 in tags:
        at_once = tags[322] * tags[323]
    else:
        at_once = image.width * min(image.height, tags.get(278, image.height))
    unpacked = int(at_once * max(8, sum(tags.get(258, (8,)))) // 8)
    turned = tags.get(_ORIENTATION_TAG, 1) != 1
    return max(unpacked, image.width * image.height * pixel_bytes if turned else 0)


def _too_many(max_pixels: int) -> str:
    return f"more than {max_pixels:,} pixels are taken for an attack; shrink it"


def _read(image: Image.Image, background: RGB) -> Decoded:
    """Decode the first frame fully and bring it to upright RGB."""
    notes: list[str] = []
    size, mode, file_format = image.size, image.mode, str(image.format)
    if getattr(image, "is_animated", False):
        notes.append("FIRST_FRAME")
    if file_format in ("JPEG", "MPO"):
        image.draft(image.mode, (DRAFT_SIDE_PX, DRAFT_SIDE_PX))
    factor = _factor(*image.size)
    if image.size != size or factor > 1:
        notes.append("REDUCED")
    # A TIFF turns itself while it loads, its size is of the picture upright; the others do not,
    # and a PNG loads when it is asked for its EXIF: that it is damaged would be taken for EXIF's.
    is_tiff = file_format == "TIFF"
    stored = _orientation(image, notes) if is_tiff else None
    image.load()
    turn = None if is_tiff else _orientation(image, notes)
    pixels = _to_rgb(image, factor, background, notes)
    if turn in _UPRIGHT:
        swapped, down, right = _UPRIGHT[turn]
        turned = pixels.swapaxes(0, 1) if swapped else pixels
        pixels = np.ascontiguousarray(turned[::down, ::right])
    if stored or turn:
        notes.append("EXIF_ORIENTED")
    width, height = size if (turn or 1) < 5 else size[::-1]
    return Decoded(pixels, width, height, mode, file_format, tuple(notes))


def _factor(width: int, height: int) -> int:
    return math.ceil(math.sqrt(width * height / WHOLE_PIXELS))


def _orientation(image: Image.Image, notes: list[str]) -> int | None:
    """Return EXIF's orientation; a picture with a damaged EXIF block is used without it."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG)
        return value if isinstance(value, int) and value in _UPRIGHT else None
    except Exception:  # TypeError, struct.error, ZeroDivisionError, SyntaxError … all seen
        notes.append("EXIF_CORRUPT")
        return None


def _to_rgb(image: Image.Image, factor: int, background: RGB, notes: list[str]) -> Pixels:
    """Bring a loaded picture to RGB, reduced, strip by strip: never twice at its full size."""
    key = image.info.get("transparency")
    span = None
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        notes.append({"I": "THIRTY_TWO_BIT", "F": "FLOAT"}.get(image.mode, "SIXTEEN_BIT"))
        span = _span(image, factor)
    elif image.mode == "RGB" and isinstance(key, tuple) and max(key) > 255:
        # A 16-bit PNG names the see-through colour in 16 bits; Pillow has kept the upper 8.
        image.info["transparency"] = tuple(part >> 8 for part in key)
    if image.mode in ("P", "PA"):
        notes.append("PALETTE")
    if image.mode == "CMYK":
        notes.append("CMYK")
    if image.has_transparency_data and (span is None or isinstance(key, int)):
        notes.append("ALPHA")
    pixels = np.empty((-(-image.height // factor), -(-image.width // factor), 3), np.uint8)
    for top, strip in _strips(image, factor):
        if span is not None:
            rgb = _rescale(strip, span, background)
        elif image.has_transparency_data:
            rgb = _composite(strip, background)
        else:
            rgb = strip.convert("RGB")
        reduced = np.asarray(rgb.reduce(factor) if factor > 1 else rgb)
        pixels[top // factor : top // factor + len(reduced)] = reduced
    return pixels


def _strips(image: Image.Image, factor: int) -> Iterator[tuple[int, Image.Image]]:
    """Cut a picture into strips of some rows, a multiple of the factor; with each one its top."""
    rows = factor * max(1, _STRIP_PIXELS // (factor * image.width))
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        yield top, image.crop((0, top, image.width, bottom)) if rows < image.height else image


def _composite(image: Image.Image, background: RGB) -> Image.Image:
    """Lay a picture with transparency on one colour."""
    if image.mode == "La":
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    canvas = Image.new("RGB", rgba.size, background)
    canvas.paste(rgba.convert("RGB"), mask=rgba.getchannel("A"))
    return canvas


def _span(image: Image.Image, factor: int) -> tuple[float, float]:
    """Return the values of 16, 32 bits or decimals that become black and white.

    They are the narrowest usual range that all fit in: 0 … 1 (decimals), and 8, 10, 12, 14 and 16
    bits: cameras and microscopes store 12 bits in files of 16. Values that fit none are stretched
    from their least to their largest.
    """
    low, high = math.inf, -math.inf
    for _, strip in _strips(image, factor):
        values = np.asarray(strip).astype(np.float32)
        values = values[np.isfinite(values)]
        low, high = float(values.min(initial=low)), float(values.max(initial=high))
    if low > high:
        raise BadImage("CORRUPT", "no pixel holds a number; export it again")
    ranges = [1.0] if image.mode == "F" else []
    ranges += [2.0**bits - 1 for bits in (8, 10, 12, 14, 16)]
    usual = next((top for top in ranges if low >= 0 and high <= top), None)
    return (low, high) if usual is None else (0.0, usual)


def _rescale(image: Image.Image, span: tuple[float, float], background: RGB) -> Image.Image:
    """Bring values to 0 … 255; `convert("RGB")` would clip: a 16-bit picture turns white."""
    low, high = span
    values: npt.NDArray[Any] = np.asarray(image).astype(np.float32)
    values = np.where(np.isfinite(values), values, low)
    scale = 255.0 / (high - low) if high > low else 0.0
    grey = np.floor((values - low) * scale + 0.5).clip(0, 255).astype(np.uint8)
    rgb = Image.fromarray(grey).convert("RGB")
    key = image.info.get("transparency")
    if isinstance(key, int):
        rgb.paste(background, mask=Image.fromarray(np.asarray(image) == key))
    return rgb


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

"""The only image decoder: a file's bytes become H × W × 3 uint8, in the same way everywhere.

numpy and Pillow only, since the small runtime ships this module and `formats` unchanged. Policies:
EXIF orientation is applied; transparency is blended onto the given background; 16-bit, 32-bit and
float values are rescaled, not clipped; of an animation only the first frame is used; colour
profiles (ICC) are not applied; very large images are read at a reduced size, in strips, to stay
within the memory limit. libjpeg silently fills some damage with grey: such files pass.
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
"""Part of every cache key of decoded pixels: another decoder gives other pixels."""

MAX_PIXELS = 89_478_485
"""The most pixels an image can have; more counts as a decompression bomb. [Pillow's own limit]"""
MIN_SIDE_PX, MAX_ASPECT = 8, 20.0
DRAFT_SIDE_PX = 2048
"""JPEGs at least twice as large on both sides are read at 1/2, 1/4 or 1/8, never below this."""
WHOLE_PIXELS = 16_000_000
"""Larger images are reduced: k × k pixels become their mean, with the smallest k that suffices."""
MAX_BYTES = 320_000_000
"""The most memory that decoding can take: 70 million pixels of PNG, 19 of WebP. (Together with its
process and the command that started it this stays below 600 MB.)"""
MAX_SCANS = 100
"""Of a progressive JPEG, which usually has about 10; each scan covers the whole image."""
# Peak memory of decoding in bytes per pixel, measured; the other formats take one or four.
_PEAK_BYTES = {"WEBP": 16, "AVIF": 12}
_STRIP_PIXELS = 250_000

Pixels = npt.NDArray[np.uint8]
RGB = tuple[int, int, int]

# Image.open with a list of formats loads no plugin by itself, so they are imported above.
_PLUGINS = (
    AvifImagePlugin, BmpImagePlugin, GifImagePlugin, JpegImagePlugin,
    PngImagePlugin, TiffImagePlugin, WebPImagePlugin,
)  # fmt: skip
# How EXIF's orientation is undone: swap rows and columns or not, then the step along each.
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
# Python's warning filters belong to the whole process: two threads must not change them at once.
_warnings_lock = threading.Lock()


@dataclass(frozen=True)
class Decoded:
    """A decoded image, upright and opaque.

    Args:
        pixels: (H, W, 3) uint8; fewer than width × height if a huge image was read reduced.
        width: Of the image as displayed, after orientation.
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
    """Decode a whole file; the result depends only on its bytes and these arguments.

    Args:
        content: The file's bytes. Its name does not matter.
        background: RGB that transparent pixels are blended onto.
        max_pixels: More are refused, from the header alone.
        min_side_px: The shorter side must have at least this many pixels.
        max_aspect: The longer side can be at most this many times the shorter.
        max_bytes: Memory limit of decoding; more is refused (RESOURCE), from the header.

    Raises:
        BadImage: the file cannot be used; nothing else is raised for its content.
    """
    file_format, end = sniff(content)
    # One thread per image: dav1d would start one per core, each with its own memory.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    try:
        with _warnings_lock, warnings.catch_warnings(record=True) as seen:
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
    if seen and not all(issubclass(one.category, Image.DecompressionBombWarning) for one in seen):
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
    """Refuse an image that would take too long or too much memory, before it is decoded."""
    file_format, num_pixels = str(image.format), image.width * image.height
    pixel_bytes = 1 if image.mode in ("1", "L", "P") else 4
    peak = _PEAK_BYTES.get(file_format, pixel_bytes)
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        assert image.fp is not None
        scan = content.find(_SCAN, max(0, image.fp.tell() - 16))  # its header was just read
        num_in_scan = int.from_bytes(content[scan + 4 : scan + 5], "big")
        if image.info.get("progressive") or num_in_scan < len(image.getbands()):
            # All coefficients are kept until the last scan, and each scan covers all of them. (A
            # byte 0xFF in coded data is followed by 0, so only real markers are counted.)
            peak += 2 * len(image.getbands())
            num_scans = content.count(_SCAN, max(0, scan))
            if num_scans > MAX_SCANS:
                words = f"JPEG of {num_scans} scans, which looks like an attack; save it again"
                raise BadImage("RESOURCE", words)
    if isinstance(image, BmpImagePlugin.BmpImageFile) and image.tile[0].codec_name == "bmp_rle":
        peak += 2  # its decoder is written in Python
    needed = len(content) + peak * num_pixels + 3 * num_pixels // _factor(*image.size) ** 2
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        needed += _tiff_bytes(image, pixel_bytes)
    if needed > max_bytes:
        raise BadImage(
            "RESOURCE",
            f"{image.width} × {image.height} pixels of {file_format} take {needed / 1e6:,.0f} MB to"
            f" decode and the limit is {max_bytes / 1e6:,.0f} MB; shrink it",
        )


def _tiff_bytes(image: TiffImagePlugin.TiffImageFile, pixel_bytes: int) -> int:
    """Return the extra memory a TIFF takes: to be rotated, or for one unpacked strip or tile."""
    tags = image.tag_v2
    if 322 in tags:
        at_once = tags[322] * tags[323]
    else:
        at_once = image.width * min(image.height, tags.get(278, image.height))
    unpacked = int(at_once * max(8, sum(tags.get(258, (8,)))) // 8)
    turned = tags.get(_ORIENTATION_TAG, 1) != 1
    return max(unpacked, image.width * image.height * pixel_bytes if turned else 0)


def _too_many(max_pixels: int) -> str:
    return f"more than {max_pixels:,} pixels look like an attack; shrink it"


def _read(image: Image.Image, background: RGB) -> Decoded:
    """Decode the first frame fully and convert it to upright RGB."""
    notes: list[str] = []
    size, mode, file_format = image.size, image.mode, str(image.format)
    if getattr(image, "is_animated", False):
        notes.append("FIRST_FRAME")
    if file_format in ("JPEG", "MPO"):
        image.draft(image.mode, (DRAFT_SIDE_PX, DRAFT_SIDE_PX))
    factor = _factor(*image.size)
    if image.size != size or factor > 1:
        notes.append("REDUCED")
    # Pillow rotates a TIFF while it loads, and its size is that of the upright image; the others
    # are not rotated. A PNG loads when its EXIF is read: its damage would be taken for EXIF's.
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
    """Return EXIF's orientation; an image with a damaged EXIF block is used without it."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG)
        return value if isinstance(value, int) and value in _UPRIGHT else None
    except Exception:  # TypeError, struct.error, ZeroDivisionError, SyntaxError … all observed
        notes.append("EXIF_CORRUPT")
        return None


def _to_rgb(image: Image.Image, factor: int, background: RGB, notes: list[str]) -> Pixels:
    """Convert a loaded image to RGB, reduced, in strips: never twice in memory at full size."""
    key = image.info.get("transparency")
    span = None
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        notes.append({"I": "THIRTY_TWO_BIT", "F": "FLOAT"}.get(image.mode, "SIXTEEN_BIT"))
        span = _span(image, factor)
    elif image.mode == "RGB" and isinstance(key, tuple) and max(key) > 255:
        # A 16-bit PNG gives the transparent colour in 16 bits; Pillow has kept the upper 8.
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
    """Yield strips of an image, each with its top row; their height is a multiple of the factor."""
    rows = factor * max(1, _STRIP_PIXELS // (factor * image.width))
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        yield top, image.crop((0, top, image.width, bottom)) if rows < image.height else image


def _composite(image: Image.Image, background: RGB) -> Image.Image:
    """Blend an image with transparency onto one colour."""
    if image.mode == "La":
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    canvas = Image.new("RGB", rgba.size, background)
    canvas.paste(rgba.convert("RGB"), mask=rgba.getchannel("A"))
    return canvas


def _span(image: Image.Image, factor: int) -> tuple[float, float]:
    """Return the 16-bit, 32-bit or float values that become black and white.

    They are the narrowest usual range that contains all values: 0 … 1 (floats), and 8, 10, 12, 14
    and 16 bits: cameras and microscopes store 12 bits in 16-bit files. Values outside all ranges
    are stretched from their minimum to their maximum.
    """
    low, high = math.inf, -math.inf
    for _, strip in _strips(image, factor):
        values = np.asarray(strip).astype(np.float32)
        values = values[np.isfinite(values)]
        low, high = float(values.min(initial=low)), float(values.max(initial=high))
    if low > high:
        raise BadImage("CORRUPT", "no pixel is a finite number; export it again")
    ranges = [1.0] if image.mode == "F" else []
    ranges += [2.0**bits - 1 for bits in (8, 10, 12, 14, 16)]
    usual = next((top for top in ranges if low >= 0 and high <= top), None)
    return (low, high) if usual is None else (0.0, usual)


def _rescale(image: Image.Image, span: tuple[float, float], background: RGB) -> Image.Image:
    """Scale values to 0 … 255; `convert("RGB")` would clip: a 16-bit image would turn white."""
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
    """Resize an image to a square of `size_px`.

    Args:
        pixels: (H, W, 3) uint8.
        size_px: S.
        resize: crop: the shorter side to S, the centre kept. pad: the whole image, centred on
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
        # Crop while resampling: a very long image never becomes a huge intermediate.
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
    """Resize bilinearly: half-pixel centres, no antialiasing. Pillow's transform rounds down."""
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
    """Return for each of S outputs the two inputs around it, and the weight of the second."""
    centre = ((np.arange(size_px) + 0.5) * length / size_px - 0.5).clip(0, length - 1)
    first = np.floor(centre).astype(np.intp)
    return first, np.minimum(first + 1, length - 1), (centre - first).astype(np.float32)

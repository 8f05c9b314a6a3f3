"""What an image may need, judged from its header before anything is decoded."""

from __future__ import annotations

import math

from PIL import BmpImagePlugin, ImageFile, JpegImagePlugin, PpmImagePlugin, TiffImagePlugin

from towernet.data.formats import BadImage
from towernet.data.opening import is_deep_colour
from towernet.data.rules import Rules

WHOLE_PIXELS = 16_000_000
"""Larger images are reduced: k × k pixels become their mean, with the smallest k that suffices."""
MAX_SCANS = 100
"""Of a progressive JPEG, which usually has about 10; each scan covers the whole image."""
ORIENTATION_TAG = 0x0112
# Peak memory of decoding in bytes per pixel, measured; the other formats take one or four.
_PEAK_BYTES = {"WEBP": 16, "AVIF": 12, "HEIF": 5}
_SCAN = b"\xff\xda"


def factor_of(width: int, height: int) -> int:
    """Return the k by which an image is reduced."""
    return math.ceil(math.sqrt(width * height / WHOLE_PIXELS))


def require_shape(width: int, height: int, rules: Rules) -> None:
    """Refuse an image of too many pixels, too few, or too long.

    Raises:
        BadImage: PIXELS or SHAPE.
    """
    shorter, longer = sorted((width, height))
    if width * height > rules.max_pixels:
        raise BadImage(
            "PIXELS",
            f"{width} × {height} pixels; more than {rules.max_pixels:,} pixels look like an attack;"
            f" shrink it, or raise the limit with {_option(width, height)}",
        )
    if shorter < rules.min_side_px:
        raise BadImage(
            "SHAPE", f"{width} × {height} pixels; each side needs {rules.min_side_px} or more"
        )
    if longer > rules.max_aspect * shorter:
        raise BadImage(
            "SHAPE",
            f"{width} × {height} pixels; one side is over {rules.max_aspect:g} times the other",
        )


def _option(width: int, height: int) -> str:
    """Return the option that lets an image through."""
    return f"--max-megapixels {math.ceil(width * height / 1e6)}"


def require_cheap(
    image: ImageFile.ImageFile, full: tuple[int, int], content: bytes, max_bytes: int, rules: Rules
) -> None:
    """Refuse an image that would take too long or too much memory, before it is decoded.

    Args:
        image: Open, and a JPEG perhaps set to be read at a smaller size.
        full: Its width and height in the file.
        content: The file.
        max_bytes: The memory that decoding can take.
        rules: The limits.

    Raises:
        BadImage: RESOURCE.
    """
    file_format, num_pixels = str(image.format), image.width * image.height
    pixel_bytes = 1 if image.mode in ("1", "L", "P") else 4
    peak = _PEAK_BYTES.get(file_format, pixel_bytes)
    if rules.whole_depth and is_deep_colour(image):
        peak += pixel_bytes
    if isinstance(image, PpmImagePlugin.PpmImageFile) and image.tile[0].codec_name != "raw":
        # Numbers, and in plain files the words they are read from.
        plain = image.tile[0].codec_name == "ppm_plain"
        peak += len(image.getbands()) * (60 if plain and image.mode != "1" else 12)
    needed = len(content) + 3 * num_pixels // factor_of(*image.size) ** 2
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        needed += full[0] * full[1] * _kept_bytes(image, content, rules)
    if isinstance(image, BmpImagePlugin.BmpImageFile) and image.tile[0].codec_name == "bmp_rle":
        peak += 2  # its decoder is written in Python
    needed += peak * num_pixels
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        needed += _tiff_bytes(image, pixel_bytes)
    if needed > max_bytes:
        raise BadImage(
            "RESOURCE",
            f"{full[0]} × {full[1]} pixels of {file_format} take {needed / 1e6:,.0f} MB to"
            f" decode and the limit is {max_bytes / 1e6:,.0f} MB; shrink it, or raise the limit"
            f" with {_option(*full)}",
        )


def _kept_bytes(image: JpegImagePlugin.JpegImageFile, content: bytes, rules: Rules) -> int:
    """Return the bytes per pixel that a progressive JPEG keeps until its last scan; else 0."""
    assert image.fp is not None
    scan = content.find(_SCAN, max(0, image.fp.tell() - 16))  # its header was just read
    num_in_scan = int.from_bytes(content[scan + 4 : scan + 5], "big")
    if not image.info.get("progressive") and num_in_scan >= len(image.getbands()):
        return 0
    # All coefficients are kept, and each scan covers all of them. (A byte 0xFF in coded data is
    # followed by 0, so only real markers are counted.)
    num_scans = content.count(_SCAN, max(0, scan))
    if num_scans > MAX_SCANS:
        words = f"JPEG of {num_scans} scans, which looks like an attack; save it again"
        raise BadImage("RESOURCE", words)
    channels: float = len(image.getbands())
    if rules.more_files:  # colour is usually stored at half the size
        samples = [part[1] * part[2] for part in image.layer]
        channels = sum(samples) / max(samples)
    return math.ceil(2 * channels)


def _tiff_bytes(image: TiffImagePlugin.TiffImageFile, pixel_bytes: int) -> int:
    """Return the extra memory a TIFF takes: to be rotated, or for one unpacked strip or tile."""
    tags = image.tag_v2
    if 322 in tags:
        at_once = tags[322] * tags[323]
    else:
        at_once = image.width * min(image.height, tags.get(278, image.height))
    unpacked = int(at_once * max(8, sum(tags.get(258, (8,)))) // 8)
    turned = tags.get(ORIENTATION_TAG, 1) != 1
    return max(unpacked, image.width * image.height * pixel_bytes if turned else 0)

"""The only image decoder: a file's bytes become H × W × 3 uint8, in the same way everywhere.

numpy and Pillow only (and `pi-heif` for HEIC), since the small runtime ships this module and those
it imports unchanged. Policies: EXIF orientation is applied; transparency is blended onto the given
background; 16-bit, 32-bit and float values are rescaled, not clipped; of an animation only the
first frame is used; colour profiles (ICC) are converted to sRGB where the rules say so; very large
images are read at a reduced size, in strips, to stay within the memory limit. libjpeg silently
fills some damage with grey: such files pass.
Shapes: H × W pixels, S the side of the square a network sees.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image, ImageFile

from towernet.data import deep
from towernet.data.formats import BadImage, explain, sniff
from towernet.data.limits import ORIENTATION_TAG, factor_of, require_cheap, require_shape
from towernet.data.opening import Rows, heif_version, load, opened
from towernet.data.profiles import Convert, UnusableProfile, conversion
from towernet.data.rules import BEFORE, MAX_BYTES, RGB, Rules

VERSION = " with ".join(filter(None, ("4", f"Pillow {PIL.__version__}", heif_version())))
"""Part of every cache key of decoded pixels: another decoder gives other pixels."""

DRAFT_SIDE_PX = 2048
"""JPEGs at least twice as large on both sides are read at 1/2, 1/4 or 1/8, never below this."""
_STRIP_PIXELS = 250_000
_NEWER_FORMATS = ("PPM", "HEIF")

Pixels = npt.NDArray[np.uint8]

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
            THIRTY_TWO_BIT, FLOAT, FIRST_FRAME, REDUCED, ICC_CONVERTED, ICC_IGNORED, UPPER_BITS,
            MORE_CHANNELS, DECODER_WARNED.
        values: The least and the greatest value, without a few extreme ones, of a file of more than
            8 bits; None for others.
    """

    pixels: Pixels
    width: int
    height: int
    mode: str
    format: str
    notes: tuple[str, ...]
    values: deep.Range | None = None


def decode(content: bytes, rules: Rules = BEFORE, *, max_bytes: int = MAX_BYTES) -> Decoded:
    """Decode a whole file; the result depends only on its bytes and these arguments.

    Args:
        content: The file's bytes. Its name does not matter.
        rules: What the run decided about pixels, and the limits.
        max_bytes: Memory limit of decoding; more is refused (RESOURCE), from the header.

    Raises:
        BadImage: the file cannot be used; nothing else is raised for its content.
    """
    file_format, end = sniff(content)
    if content[2:3] == b"#" and file_format == "PPM":  # Pillow wants a blank before the comment
        content = content[:2] + b"\n" + content[2:]
    if file_format in _NEWER_FORMATS and not rules.more_files:
        raise BadImage(
            "FORMAT",
            f"{file_format}: convert it to JPEG or PNG (this run was started before it was read)",
        )
    try:
        with _warnings_lock, warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            with opened(content, file_format) as image:
                size = image.size
                if rules.more_files:
                    _draft(image)
                require_shape(*image.size, rules)
                require_cheap(image, size, content, max_bytes, rules)
                decoded = _read(image, size, content, rules)
    except BadImage:
        raise
    except MemoryError as error:
        raise BadImage(
            "RESOURCE", "decoding it needs more memory than allowed; shrink it"
        ) from error
    except Exception as error:  # Pillow raises ValueError, IndexError, struct.error, SyntaxError …
        raise explain(error, content, file_format, end) from error
    if seen:
        return Decoded(**vars(decoded) | {"notes": (*decoded.notes, "DECODER_WARNED")})
    return decoded


def _draft(image: ImageFile.ImageFile) -> None:
    """Have a large JPEG read at a smaller size."""
    if image.format in ("JPEG", "MPO"):
        image.draft(image.mode, (DRAFT_SIDE_PX, DRAFT_SIDE_PX))


def _read(
    image: ImageFile.ImageFile, size: tuple[int, int], content: bytes, rules: Rules
) -> Decoded:
    """Decode the first frame fully and convert it to upright RGB."""
    notes: list[str] = []
    mode, file_format = image.mode, str(image.format)
    if getattr(image, "is_animated", False):
        notes.append("FIRST_FRAME")
    if rules.whole_depth and _has_more_channels(image):
        notes.append("MORE_CHANNELS")
    _draft(image)
    factor = factor_of(*image.size)
    if image.size != size or factor > 1:
        notes.append("REDUCED")
    # Pillow rotates a TIFF while it loads, and its size is that of the upright image; the others
    # are not rotated. A PNG loads when its EXIF is read: its damage would be taken for EXIF's.
    is_tiff = file_format == "TIFF"
    stored = _orientation(image, notes) if is_tiff else None
    loaded, low = load(image, content, whole_depth=rules.whole_depth)
    # libheif has turned a HEIC as its boxes say.
    turn = None if is_tiff or file_format == "HEIF" else _orientation(image, notes)
    picture = _Picture(loaded, low, factor, rules, notes)
    pixels = picture.pixels()
    if turn in _UPRIGHT:
        swapped, down, right = _UPRIGHT[turn]
        turned = pixels.swapaxes(0, 1) if swapped else pixels
        pixels = np.ascontiguousarray(turned[::down, ::right])
    if stored or turn:
        notes.append("EXIF_ORIENTED")
    size = loaded.size if isinstance(loaded, Rows) else size
    width, height = size if (turn or 1) < 5 else size[::-1]
    return Decoded(pixels, width, height, mode, file_format, tuple(notes), picture.values)


def _orientation(image: Image.Image, notes: list[str]) -> int | None:
    """Return EXIF's orientation; an image with a damaged EXIF block is used without it."""
    try:
        value = image.getexif().get(ORIENTATION_TAG)
        return value if isinstance(value, int) and value in _UPRIGHT else None
    except Exception:  # TypeError, struct.error, ZeroDivisionError, SyntaxError … all observed
        notes.append("EXIF_CORRUPT")
        return None


def _has_more_channels(image: Image.Image) -> bool:
    """Whether a file has channels that Pillow leaves out, such as infrared beside colours."""
    return int(getattr(image, "tag_v2", {}).get(_CHANNELS_TAG, 1)) > len(image.getbands())


_PHOTOMETRIC_TAG, _CHANNELS_TAG = 262, 277  # of a TIFF


class _Picture:
    """A loaded image on its way to RGB, reduced, in strips: never twice in memory at full size."""

    def __init__(
        self,
        image: Image.Image | Rows,
        low: Image.Image | None,
        factor: int,
        rules: Rules,
        notes: list[str],
    ) -> None:
        self.image, self.low, self.factor, self.rules, self.notes = image, low, factor, rules, notes
        self.key = image.info.get("transparency")
        self.values: deep.Range | None = None
        self.span: deep.Range | None = None
        self.has_alpha = image.has_transparency_data
        is_grey = image.mode.startswith("I;16") or image.mode in deep.MODES
        self.is_deep = is_grey or low is not None
        tags = getattr(image, "tag_v2", {})
        # Pillow inverts such a TIFF of 8 bits itself.
        self.is_white_zero = rules.whole_depth and self.is_deep and tags.get(_PHOTOMETRIC_TAG) == 0
        if self.is_deep:
            notes.append(deep.MODES.get(image.mode, "SIXTEEN_BIT"))
            if low is image:
                notes.append("UPPER_BITS")
            self._measure()
        elif image.mode == "RGB" and isinstance(self.key, tuple) and max(self.key) > 255:
            # A 16-bit PNG gives the transparent colour in 16 bits; Pillow has kept the upper 8.
            image.info["transparency"] = tuple(part >> 8 for part in self.key)
        for note, modes in (("PALETTE", ("P", "PA")), ("CMYK", ("CMYK",))):
            if image.mode in modes:
                notes.append(note)
        if self.has_alpha and (not is_grey or isinstance(self.key, int)):
            notes.append("ALPHA")
        self.convert = self._conversion(is_grey)

    def _measure(self) -> None:
        """Find the values that become black and white."""
        rules, is_float = self.rules, self.image.mode == "F"
        strips = (values for _, _, values in self._strips() if values is not None)
        if rules.whole_depth:
            self.values = deep.usual_extremes(strips, self.image.width * self.image.height)
        own = self.values or deep.extremes(strips)
        self.span = rules.value_range or deep.usual_range(*own, is_float=is_float)

    def _conversion(self, is_grey: bool) -> Convert | None:
        """Return how colours become sRGB, None if nothing is to be done."""
        profile = self.image.info.get("icc_profile")
        if self.rules.colour_profile != "srgb" or not profile or self.image.mode == "LAB":
            return None
        mode = "CMYK" if self.image.mode == "CMYK" else "RGB"
        if (
            is_grey
            or (self.low and self.low.mode == "L")
            or self.image.mode in ("1", "L", "LA", "La")
        ):
            mode = "L"
        try:
            convert = conversion(profile, mode)
        except UnusableProfile:
            self.notes.append("ICC_IGNORED")
            return None
        if convert:
            self.notes.append("ICC_CONVERTED")
        return convert

    def pixels(self) -> Pixels:
        """Return (H, W, 3) pixels."""
        image, factor = self.image, self.factor
        height, width = -(-image.height // factor), -(-image.width // factor)
        pixels = np.empty((height, width, 3), np.uint8)
        for top, strip, values in self._strips():
            rgb = self._to_rgb(strip, values)
            reduced = np.asarray(rgb.reduce(factor) if factor > 1 else rgb)
            pixels[top // factor : top // factor + len(reduced)] = reduced
        return pixels

    def _to_rgb(self, strip: Image.Image, values: deep.Values | None) -> Image.Image:
        """Convert one strip: values to bytes, colours to sRGB, transparency to the background."""
        convert = self.convert or (lambda image: image.convert("RGB"))
        if values is None and not self.has_alpha:
            return convert(strip)
        mask: Image.Image | None = None
        if values is None:
            strip = strip.convert("LA") if strip.mode == "La" else strip
            strip = strip.convert("RGBA")
            opaque, mask = strip.convert("RGB"), strip.getchannel("A")
        else:
            assert self.span is not None
            scaled = deep.to_bytes(values, self.span)
            opaque = Image.fromarray(255 - scaled if self.is_white_zero else scaled)
            if strip.mode in ("RGBA", "LA"):
                mask = strip.getchannel("A")
            elif isinstance(self.key, int):
                mask = Image.fromarray(np.asarray(strip) != self.key)
            elif isinstance(self.key, tuple):
                mask = Image.fromarray((values != np.array(self.key)).any(-1))
        rgb = convert(opaque)
        if mask is None:
            return rgb
        canvas = Image.new("RGB", rgb.size, self.rules.background)
        canvas.paste(rgb, mask=mask)
        return canvas

    def _strips(self) -> Iterator[tuple[int, Image.Image, deep.Values | None]]:
        """Yield strips: the top row, the image, and its values if they have more than 8 bits.

        The height of all but the last is a multiple of the factor.
        """
        image, factor = self.image, self.factor
        num_at_once = _STRIP_PIXELS // (1 if self.low is None else 4)  # as floats of three channels
        rows = factor * max(1, num_at_once // (factor * image.width))
        for top in range(0, image.height, rows):
            bottom = min(top + rows, image.height)
            box = (0, top, image.width, bottom)
            is_whole = rows >= image.height and isinstance(image, Image.Image)
            strip, low = (image, self.low) if is_whole else (image.crop(box), self.low)
            low = low if low is None or is_whole else low.crop(box)
            assert isinstance(strip, Image.Image)
            yield top, strip, deep.values_of(strip, low) if self.is_deep else None


def fit(
    pixels: Pixels,
    size_px: int,
    resize: str,
    background: RGB = (255, 255, 255),
    *,
    crop_share: float = 1.0,
) -> Pixels:
    """Resize an image to a square of `size_px`.

    Args:
        pixels: (H, W, 3) uint8.
        size_px: S.
        resize: crop: the shorter side to S, the centre kept. pad: the whole image, centred on
            the background. squash: aspect ratio ignored. All three antialiased (bicubic).
            squash_linear: bilinear without antialiasing, OpenCV's INTER_LINEAR.
        background: RGB of the padding.
        crop_share: With crop: the side of the square that is kept, as a share of the shorter side.
            224/256 is what resizing to 256 and cropping to 224 keeps.

    Returns:
        (S, S, 3) uint8.

    Example:
        >>> fit(np.zeros((20, 30, 3), np.uint8), 16, "pad").shape
        (16, 16, 3)
    """
    assert crop_share == 1 or resize == "crop", resize
    height, width = pixels.shape[:2]
    square, image = (size_px, size_px), Image.fromarray(pixels)
    if resize == "squash_linear":
        return _linear(pixels, size_px)
    if resize == "squash":
        return np.asarray(image.resize(square, Image.Resampling.BICUBIC))
    if resize == "crop":
        # Crop while resampling: a very long image never becomes a huge intermediate.
        side = min(width, height) * crop_share
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

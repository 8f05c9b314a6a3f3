"""A file's bytes become an open Pillow image, before anything is decoded.

Pillow's plugins are called by name, PNM's pixels are read by numpy, and HEIC comes from `pi-heif`,
which is imported only when such a file is opened.
Shapes: H × W pixels, C channels.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from towernet.data.formats import BadImage

# Image.open with a list of formats loads no plugin by itself, so they are imported above.
_PLUGINS = (
    AvifImagePlugin, BmpImagePlugin, GifImagePlugin, JpegImagePlugin,
    PngImagePlugin, PpmImagePlugin, TiffImagePlugin, WebPImagePlugin,
)  # fmt: skip
_OTHER_BYTE = {"16B": "16L", "16L": "16B", "16N": "16B" if sys.byteorder == "little" else "16L"}


def heif_version() -> str:
    """Return the version of `pi-heif`, '' if it is not installed."""
    try:
        return metadata.version("pi-heif")
    except metadata.PackageNotFoundError:
        return ""


@contextmanager
def opened(content: bytes, file_format: str) -> Iterator[ImageFile.ImageFile]:
    """Open an image of a known format; only its header is read.

    The limits of the decoder replace Pillow's own, which belong to the whole process: callers hold
    the decoder's lock.
    """
    # One thread per image: dav1d would start one per core, each with its own memory.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        if file_format == "HEIF":
            yield _heif(content)
        else:
            with Image.open(io.BytesIO(content), formats=[file_format]) as image:
                yield image
    finally:
        Image.MAX_IMAGE_PIXELS = limit


class Rows:
    """A decoded HEIC in the memory of libheif: Pillow's images of strips are made of it.

    A whole image of Pillow's beside it would take as much memory again.
    """

    def __init__(self, image: ImageFile.ImageFile, file: Any) -> None:
        frame = file[file.primary_index]
        self.owners = file, frame  # the memory is theirs, and a view does not keep it
        data = np.frombuffer(frame.data, np.uint8)
        self.mode, self.info, self.size = str(frame.mode), image.info, frame.size
        self.width, self.height = self.size
        if self.width * self.height > image.width * image.height:
            raise BadImage("CORRUPT", "HEIF file of more pixels than it declares; copy it again")
        self.rows = data.reshape(-1, frame.stride)[: self.height]

    @property
    def has_transparency_data(self) -> bool:
        """Whether there is an alpha channel."""
        return self.mode[-1:] in ("A", "a")

    def crop(self, box: tuple[int, int, int, int]) -> Image.Image:
        """Return whole rows of the image."""
        channels = Image.getmodebands(self.mode)
        rows = self.rows[box[1] : box[3], : self.width * channels]
        return Image.frombytes(self.mode, (self.width, len(rows)), rows.tobytes())


def _heif(content: bytes) -> ImageFile.ImageFile:
    import pi_heif

    pi_heif.options.DECODE_THREADS = 1
    pi_heif.options.THUMBNAILS = False
    pi_heif.options.DEPTH_IMAGES = False
    pi_heif.options.AUX_IMAGES = False
    image: ImageFile.ImageFile = pi_heif.HeifImageFile(io.BytesIO(content))
    return image


def is_deep_colour(image: ImageFile.ImageFile) -> bool:
    """Whether the file has 16-bit colours, of which Pillow keeps the upper 8 bits."""
    if isinstance(image, PpmImagePlugin.PpmImageFile):
        return image.mode == "RGB" and _maxval(image) > 255
    return (
        any("16" in _rawmode(tile) for tile in image.tile)
        and image.mode
        in (
            "RGB",
            "RGBA",
        )
    ) or _is_planar_16(image)


def _rawmode(tile: Any) -> str:
    args = tile.args if isinstance(tile.args, str) else tile.args[0] if tile.args else ""
    return args if isinstance(args, str) else ""


def _is_planar_16(image: ImageFile.ImageFile) -> bool:
    """Whether it is an uncompressed TIFF of planes of 16 bits, which Pillow reads as 8 bits."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile) or image.mode not in ("RGB", "RGBA"):
        return False
    bits = image.tag_v2.get(258, (8,))
    return max(bits) == 16 and any(_rawmode(tile) in ("R", "G", "B", "A") for tile in image.tile)


def load(
    image: ImageFile.ImageFile, content: bytes, *, whole_depth: bool
) -> tuple[Image.Image | Rows, Image.Image | None]:
    """Decode an open image; of 16-bit colours also their lower 8 bits, in an image of its own.

    Returns:
        The image, and the lower bits of its colours, or of its grey, or None.
    """
    if isinstance(image, PpmImagePlugin.PpmImageFile):
        return _load_pnm(image, content, whole_depth=whole_depth)
    if image.format == "HEIF":
        import pi_heif

        file = pi_heif.HeifFile(io.BytesIO(content), remove_stride=False)
        return Rows(image, file), None
    if not (whole_depth and is_deep_colour(image)):
        image.load()
        return image, None
    if "RGBa;16" in _rawmode(image.tile[0]):  # divided by alpha, in 8 bits
        image.load()
        return image, image
    if "LA;16" in _rawmode(image.tile[0]):  # its four bytes are read as four channels
        with Image.open(io.BytesIO(content), formats=[str(image.format)]) as four:
            _set_rawmodes(four, lambda rawmode: "RGBA")
            image.load()
            four.load()
            return image, four.getchannel(1)
    if _is_planar_16(image):
        order = "L" if image.tag_v2.prefix == b"II" else "B"  # type: ignore[attr-defined]
        _set_rawmodes(image, lambda rawmode: f"{rawmode};16{order}")
    with Image.open(io.BytesIO(content), formats=[str(image.format)]) as lower:
        lower.tile = image.tile
        _set_rawmodes(lower, lambda rawmode: rawmode[:-3] + _OTHER_BYTE[rawmode[-3:]])
        image.load()
        lower.load()
    return image, lower


def _set_rawmodes(image: ImageFile.ImageFile, changed: Any) -> None:
    image.tile = [
        tile._replace(
            args=changed(tile.args)
            if isinstance(tile.args, str)
            else (changed(_rawmode(tile)), *(tile.args or ())[1:])
        )
        for tile in image.tile
    ]


# --- PNM: Pillow reads the header, and numpy the pixels


def _maxval(image: ImageFile.ImageFile) -> int:
    """Return the value that is white."""
    args: Any = image.tile[0].args
    if isinstance(args, str):
        return 65535 if "16" in args else 1 if args.startswith("1") else 255
    return int(args[1])


def _load_pnm(
    image: ImageFile.ImageFile, content: bytes, *, whole_depth: bool
) -> tuple[Image.Image, Image.Image | None]:
    """Return a PBM, PGM or PPM; values of more than 8 bits keep all their bits."""
    codec, _, start, _ = image.tile[0]
    maxval, channels = _maxval(image), 3 if image.mode == "RGB" else 1
    if codec == "raw" and maxval <= 255:
        image.load()
        return image, None
    shape = (image.height, image.width, channels)[: 2 + (channels > 1)]
    num, body = image.width * image.height * channels, memoryview(content)[start:]
    if codec == "ppm_plain":
        values = _plain(bytes(body), num, is_bits=image.mode == "1")
    else:
        values = np.frombuffer(
            body, np.uint8 if maxval < 256 else ">u2", min(num, _num(body, maxval))
        )
    if len(values) < num:
        raise BadImage(
            "TRUNCATED", f"truncated PPM file ({len(values):,} of {num:,} values); copy it again"
        )
    values = values.reshape(shape)
    if image.mode == "1":
        loaded, low = Image.fromarray(((1 - values) * 255).astype(np.uint8)), None
    elif maxval < 256:
        scaled = (values.astype(np.float32) * (255 / maxval) + 0.5).clip(0, 255)
        loaded, low = Image.fromarray(scaled.astype(np.uint8)), None
    elif channels == 1:
        loaded, low = Image.fromarray(values.astype(np.uint16)), None
    elif whole_depth:
        values = values.astype(np.uint16)
        loaded = Image.fromarray((values >> 8).astype(np.uint8))
        low = Image.fromarray((values & 255).astype(np.uint8))
    else:
        loaded, low = (
            Image.fromarray((values * (255 / maxval) + 0.5).clip(0, 255).astype(np.uint8)),
            None,
        )
    return loaded, low


def _num(body: memoryview, maxval: int) -> int:
    return len(body) // (1 if maxval < 256 else 2)


def _plain(body: bytes, num: int, *, is_bits: bool) -> npt.NDArray[Any]:
    """Return the numbers of a plain PNM; the digits of a PBM need no blanks between them."""
    if b"#" in body:
        body = b"\n".join(line.partition(b"#")[0] for line in body.splitlines())
    if is_bits:
        digits = np.frombuffer(body, np.uint8)
        bits: npt.NDArray[Any] = digits[(digits == 48) | (digits == 49)][:num] - 48
        if np.isin(digits, np.frombuffer(b"01 \t\r\n\v\f", np.uint8)).all():
            return bits
    elif not body.strip(b"0123456789 \t\r\n\v\f"):
        # (words of more than five digits are no values)
        return np.array(body.split(maxsplit=num)[:num], "S6").astype(np.int64).clip(0, 65535)
    raise BadImage("CORRUPT", "damaged PPM file (a value is not a number); copy it again")

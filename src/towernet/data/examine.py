"""The work of a decoding process on one file: light imports only.

Shapes: the thumbnail is 32 × 32 grey levels.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from towernet.data.decode import Decoded, Pixels, decode, fit
from towernet.data.formats import BadImage
from towernet.data.rules import BEFORE, MAX_BYTES, Rules

THUMBNAIL_PX = 32


class Examined(NamedTuple):
    """One file, fully read and decoded.

    Args:
        reason: '' or why it cannot be used, and `detail` the same in words.
        notes: What the decoder did, and CONSTANT for a single colour.
        values: The least and the greatest value, without a few extreme ones, of a file of more than
            8 bits; None for others.
        pixel_id: Hash of the decoded image: equal for the same image in different bytes.
        thumbnail: 1,024 grey levels.
    """

    content_id: str = ""
    num_bytes: int = 0
    width: int = 0
    height: int = 0
    mode: str = ""
    format: str = ""
    notes: tuple[str, ...] = ()
    values: tuple[float, float] | None = None
    pixel_id: str = ""
    thumbnail: bytes = b""
    reason: str = ""
    detail: str = ""


def examine(file: Path, max_bytes: int = MAX_BYTES, rules: Rules = BEFORE) -> Examined:
    """Read, hash and decode one file; the result includes why it cannot be used.

    Args:
        file: What is read.
        max_bytes: The memory it can take.
        rules: How it becomes pixels.

    Raises:
        MemoryError: it takes more than `max_bytes`.
    """
    try:
        content = _read(file, max_bytes)
    except OSError as error:
        words = f"cannot be read: {error.strerror}; check its disk"
        return Examined(reason="UNREADABLE", detail=words)
    found = Examined(hashlib.sha256(content).hexdigest(), len(content))
    try:
        decoded = _decode(content, max_bytes, rules)
    except BadImage as bad:
        return found._replace(reason=bad.reason, detail=bad.detail)
    del content
    image = Image.fromarray(decoded.pixels)
    constant = image.getcolors(maxcolors=1) is not None
    shape = "×".join(map(str, decoded.pixels.shape)).encode()
    pixel_id = hashlib.sha256(shape)
    pixel_id.update(decoded.pixels.data)
    small = image.convert("L").resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    return found._replace(
        width=decoded.width,
        height=decoded.height,
        mode=decoded.mode,
        format=decoded.format,
        notes=(*decoded.notes, "CONSTANT") if constant else decoded.notes,
        values=decoded.values,
        pixel_id=pixel_id.hexdigest(),
        thumbnail=small.tobytes(),
    )


class Wanted(NamedTuple):
    """One row of the cache: which image, and how it is fitted."""

    file: Path
    content_id: str
    size_px: int
    resize: str
    crop_share: float
    rules: Rules


class Unchecked(NamedTuple):
    """An image that was not checked before, and how it is fitted."""

    file: Path
    size_px: int
    resize: str
    crop_share: float
    rules: Rules


def prepared(unchecked: Unchecked, max_bytes: int = MAX_BYTES) -> bytes | str:
    """Return an image's size × size × 3 bytes, or a description of why it cannot be used.

    Raises:
        MemoryError: it takes more than `max_bytes`.
    """
    try:
        pixels = _decode(_read(unchecked.file, max_bytes), max_bytes, unchecked.rules).pixels
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    except BadImage as bad:
        return bad.detail
    return _fit(pixels, unchecked)


def fitted(wanted: Wanted, max_bytes: int = MAX_BYTES) -> bytes | str | None:
    """Return a row's size × size × 3 bytes.

    None if the file changed since it was checked; the error's text if it cannot be read.

    Raises:
        MemoryError: it takes more than `max_bytes`.
    """
    try:
        content = _read(wanted.file, max_bytes)
    except FileNotFoundError:
        return None
    except OSError as error:
        return str(error.strerror)
    if hashlib.sha256(content).hexdigest() != wanted.content_id:
        return None
    pixels = _decode(content, max_bytes, wanted.rules).pixels
    del content
    return _fit(pixels, wanted)


def _fit(pixels: Pixels, way: Wanted | Unchecked) -> bytes:
    square = fit(pixels, way.size_px, way.resize, way.rules.background, crop_share=way.crop_share)
    return square.tobytes()


def _read(file: Path, max_bytes: int) -> bytes:
    num_bytes = file.stat().st_size
    if num_bytes > max_bytes:
        words = f"the file has {num_bytes / 1e6:,.0f} MB and the limit is {max_bytes / 1e6:,.0f} MB"
        raise MemoryError(f"{words}; shrink it")
    return file.read_bytes()


def _decode(content: bytes, max_bytes: int, rules: Rules) -> Decoded:
    try:
        return decode(content, rules, max_bytes=max_bytes)
    except BadImage as bad:
        if bad.reason == "RESOURCE":  # the pool tries it again with more memory
            raise MemoryError(bad.detail) from bad
        raise

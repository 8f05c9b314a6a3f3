"""What a decoding process does with one file: light imports only.

Shapes: the thumbnail is 32 × 32 grey levels.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from towernet.data.decode import RGB, BadImage, decode, fit

THUMBNAIL_PX = 32


class Examined(NamedTuple):
    """One file, read whole and decoded whole.

    Args:
        reason: '' or why it cannot be used, and `detail` the same in words.
        notes: What the decoder did, and CONSTANT for a single colour.
        pixel_id: Hash of the decoded picture: equal for the same picture in other bytes.
        thumbnail: 1,024 grey levels.
    """

    content_id: str = ""
    num_bytes: int = 0
    width: int = 0
    height: int = 0
    mode: str = ""
    format: str = ""
    notes: tuple[str, ...] = ()
    pixel_id: str = ""
    thumbnail: bytes = b""
    reason: str = ""
    detail: str = ""


def examine(file: Path) -> Examined:
    """Read, hash and decode one file; whatever is wrong with it is in the answer."""
    try:
        content = file.read_bytes()
    except (OSError, MemoryError) as error:
        words = getattr(error, "strerror", None) or "larger than the memory allowed"
        return Examined(reason="UNREADABLE", detail=f"cannot be read: {words}; check its disk")
    found = Examined(hashlib.sha256(content).hexdigest(), len(content))
    try:
        decoded = decode(content)
    except BadImage as bad:
        return found._replace(reason=bad.reason, detail=bad.detail)
    image = Image.fromarray(decoded.pixels)
    constant = all(channel.histogram().count(0) == 255 for channel in image.split())
    shape = "×".join(map(str, decoded.pixels.shape)).encode()
    pixel_id = hashlib.sha256(shape)
    pixel_id.update(decoded.pixels.tobytes())
    small = image.convert("L").resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    return found._replace(
        width=decoded.width,
        height=decoded.height,
        mode=decoded.mode,
        format=decoded.format,
        notes=(*decoded.notes, "CONSTANT") if constant else decoded.notes,
        pixel_id=pixel_id.hexdigest(),
        thumbnail=small.tobytes(),
    )


class Wanted(NamedTuple):
    """One row of the cache: which picture, and how it is fitted."""

    file: Path
    content_id: str
    size_px: int
    resize: str
    background: RGB


def fitted(wanted: Wanted) -> bytes | None:
    """Return a row's size × size × 3 bytes, or None for a file that is not what was checked."""
    try:
        content = wanted.file.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(content).hexdigest() != wanted.content_id:
        return None
    pixels = decode(content, background=wanted.background).pixels
    return fit(pixels, wanted.size_px, wanted.resize, wanted.background).tobytes()

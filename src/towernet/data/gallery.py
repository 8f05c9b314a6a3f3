"""One image of the whole data set: a random image of each class in a square grid."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from towernet import rng
from towernet.data.decode import decode, fit
from towernet.data.ranges import rules_for
from towernet.data.rules import Rules
from towernet.data.source import Source
from towernet.data.table import USED, path_bytes
from towernet.errors import DataError
from towernet.words import shown

MAX_CLASSES = 400
"""At most this many classes are drawn; tiles for more would be too small."""

_WIDTH_PX, _MAX_TILE_PX, _MIN_TILE_PX, _GAP_PX = 1200, 200, 56, 10
_INK, _EDGE, _PAPER = (60, 60, 60), (205, 205, 205), (255, 255, 255)


def gallery(table: pd.DataFrame, source: Source, *, seed: int) -> Image.Image:
    """Draw a grid of n × n tiles with one used image of each class, as training sees it.

    Which image represents a class depends only on the seed and the images.

    Raises:
        DataError: no image is used, or one changed since it was checked.
    """
    used = table[table.status == USED]
    if not len(used):
        raise DataError("no usable image was found, so there is no gallery; see the reasons above")
    draws = rng.uniform(seed, 0, rng.keys(list(used.content_id)), "gallery")[:, 0]
    # The lowest draw of each class; by hand: pandas cannot group by names that are not UTF-8.
    least: dict[str, tuple[float, str]] = {}
    for drawn in zip(used.class_name, draws, used.path, strict=True):
        least[drawn[0]] = min(least.get(drawn[0], (2.0, "")), drawn[1:])
    chosen = sorted(least.items(), key=lambda item: path_bytes(item[0]))[:MAX_CLASSES]

    across = math.ceil(math.sqrt(len(chosen)))
    down = math.ceil(len(chosen) / across)
    tile = max(_MIN_TILE_PX, min(_MAX_TILE_PX, (_WIDTH_PX - _GAP_PX) // across - _GAP_PX))
    rules = rules_for(table, source.options)
    font = ImageFont.truetype(_font_file(), max(9, tile // 13))
    caption = round(font.size * 1.6)
    canvas = Image.new(
        "RGB",
        (across * (tile + _GAP_PX) + _GAP_PX, down * (tile + caption + _GAP_PX) + _GAP_PX),
        _PAPER,
    )
    draw = ImageDraw.Draw(canvas)
    for position, (name, (_, path)) in enumerate(chosen):
        row, column = divmod(position, across)
        left = _GAP_PX + column * (tile + _GAP_PX)
        top = _GAP_PX + row * (tile + caption + _GAP_PX)
        canvas.paste(_tile(source.files.location(path), path, tile, rules), (left, top))
        draw.rectangle((left, top, left + tile - 1, top + tile - 1), outline=_EDGE)
        text = _shortened(shown(name), font, tile)
        # Names are drawn as pixels, so nothing in a name can do harm.
        draw.text((left + tile / 2, top + tile + caption / 2), text, _INK, font, anchor="mm")
    return canvas


def _tile(file: Path | None, path: str, size_px: int, rules: Rules) -> Image.Image:
    try:
        content = file.read_bytes() if file else b""
        return Image.fromarray(fit(decode(content, rules).pixels, size_px, "crop"))
    except (OSError, DataError) as error:
        raise DataError(
            f"{shown(path)} changed since it was checked; run the command again"
        ) from error


def _shortened(text: str, font: ImageFont.FreeTypeFont, width_px: int) -> str:
    if font.getlength(text) <= width_px:
        return text
    while text and font.getlength(text + "…") > width_px:
        text = text[:-1]
    return text + "…"


def _font_file() -> str:
    """Return DejaVu Sans, which comes with matplotlib: Latin, Greek, Cyrillic, Arabic, Hebrew."""
    import matplotlib

    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")

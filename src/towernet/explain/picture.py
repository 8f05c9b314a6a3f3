"""Draw an explanation: the image, and a panel for each attention block.

Weights of positions are colours over the image: means over the channels in which positions differ.
Weights of whole channels are bars, the largest first.
"""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from towernet import files
from towernet.errors import ConfigError
from towernet.explain.maps import BlockMap, Explanation
from towernet.words import percent, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = (".png", ".svg", ".pdf")
_DPI = 150
# In inches: a panel's square, what is to its right and above it, and the edges of the page.
_SIDE, _SCALE, _TITLE, _EDGE, _LINE = 1.9, 0.68, 0.5, 0.22, 0.14
_HEAD, _HEAD_LINE = 0.36, 0.21  # of one line, and of each further one
_COLOURS, _ALPHA = "viridis", 0.62  # perceptually uniform, also for colour-blind readers
_INK, _SOFT, _BAR, _PAPER = "#1b1f24", "#59636e", "#6f8fc0", "#f3f5f8"
# Average width of a letter, in inches: in the smallest type, and in the head (with capitals).
_LETTER, _HEAD_LETTER = 0.062, 0.108
_LEAST_SPAN = 0.1  # of a scale, as a share of the mean, so that flat maps look flat
_TITLE_LETTERS, _BLOCK_LETTERS, _SENTENCE_LETTERS = 34, 22, 40

_ABOVE = (
    "Above each panel: the layer and its block, the mean ± standard deviation of the block's"
    " weights, and how many there are."
)
_POSITIONS = (
    "Colours: the weight of a position, the mean of the channels in which positions differ; each"
    " panel has its own scale."
)
_CHANNELS = "Bars: the weight of each channel, the largest first; the line is their mean."
_GAINS = "Gain: how much of the block is blended in; at 0 it has no effect on the prediction."
_CAVEAT = (
    "A map shows how strongly the block weights each part, not necessarily why the network predicts"
    " what it does."
)


def write_picture(explanation: Explanation, path: Path) -> None:
    """Draw an explanation into a .png, .svg or .pdf file.

    Raises:
        ConfigError: the file's name has another ending.
        EnvironmentFault: the system refuses to write it.
    """
    require_kind(path)
    files.write_bytes(path, picture(explanation, path.suffix.lower().removeprefix(".")))


def require_kind(path: Path) -> None:
    """Refuse a file name with another ending than .png, .svg and .pdf."""
    if path.suffix.lower() not in KINDS:
        raise ConfigError(f"--out is {path}; give a name that ends in .png, .svg or .pdf")


def picture(explanation: Explanation, kind: str = "png") -> bytes:
    """Return the content of the picture file; the same explanation gives the same bytes."""
    import matplotlib

    figure, stream = draw(explanation), io.BytesIO()
    dates = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with matplotlib.rc_context({"svg.hashsalt": "explain"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box is drawn instead
        figure.savefig(stream, format=kind, dpi=_DPI, metadata=dates[kind])
    return stream.getvalue()


def draw(explanation: Explanation) -> Figure:
    """Return the picture as a matplotlib figure; no window is opened."""
    import matplotlib
    from matplotlib.figure import Figure

    num_panels = 1 + len(explanation.maps)
    num_columns = columns_for(num_panels)
    num_rows = math.ceil(num_panels / num_columns)
    width = 2 * _EDGE + num_columns * (_SIDE + _SCALE)
    room = width - 2 * _EDGE
    head = textwrap.wrap(_sentence(explanation), int(room / _HEAD_LETTER))
    key = _key(explanation, int(room / _LETTER))
    head_height = _HEAD + _HEAD_LINE * (len(head) - 1)
    height = head_height + num_rows * (_TITLE + _SIDE) + _LINE * (len(key) + 1.5)
    with matplotlib.rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(width, height), facecolor="white")
        for i in range(num_panels):
            row, column = divmod(i, num_columns)
            left = _EDGE + column * (_SIDE + _SCALE)
            bottom = height - head_height - (row + 1) * (_TITLE + _SIDE)
            axes = figure.add_axes((left / width, bottom / height, _SIDE / width, _SIDE / height))
            if i == 0:
                _draw_image(axes, explanation)
            else:
                _draw_block(axes, explanation.maps[i - 1], explanation.pixels_SS3)
        left, top, bottom = _EDGE / width, 1 - 0.14 / height, 0.6 * _LINE / height
        figure.text(left, top, "\n".join(head), color=_INK, fontsize=11.5, va="top")
        figure.text(left, bottom, "\n".join(key), color=_SOFT, fontsize=7.5, va="bottom")
    return figure


def columns_for(num_panels: int) -> int:
    """Return the number of columns: for a page a little wider than high, with few empty places.

    Example:
        >>> [columns_for(num_panels) for num_panels in (1, 2, 5, 9, 17, 51)]
        [1, 2, 3, 3, 6, 9]
    """

    def fault(num_columns: int) -> float:
        num_rows = math.ceil(num_panels / num_columns)
        num_empty = num_columns * num_rows - num_panels
        return abs(math.log(num_columns / num_rows / 1.6)) + 0.5 * num_empty / num_columns

    return min(range(1, num_panels + 1), key=fault) if num_panels > 2 else num_panels


def _sentence(explanation: Explanation) -> str:
    unsure = " (not sure)" if explanation.sure is False else ""
    return (
        f"{explanation.network}: {_short(explanation.class_name, _SENTENCE_LETTERS)},"
        f" probability {percent(explanation.probability)}{unsure}"
    )


def _short(name: str, most: int) -> str:
    name = shown(name)
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _draw_image(axes: Any, explanation: Explanation) -> None:
    side_px = len(explanation.pixels_SS3)
    axes.imshow(explanation.pixels_SS3, interpolation="bilinear")
    name = _short(explanation.image.name, _TITLE_LETTERS)
    _title(axes, name, f"as the network sees it, {side_px} px")
    _without_ticks(axes)


def _draw_block(axes: Any, block: BlockMap, pixels_SS3: npt.NDArray[np.uint8]) -> None:
    channels, height, width = block.weights_CHW.shape
    if block.is_spatial:
        shape = f"{height}×{width}"
        _draw_positions(axes, block, pixels_SS3)
    else:
        shape = "1 channel" if channels == 1 else f"{channels} channels"
        _draw_channels(axes, block)
    name, place = _short(block.block, _BLOCK_LETTERS), shown(block.place)
    room = _TITLE_LETTERS - len(name) - 2
    place = place if len(place) <= room else f"…{place[1 - room :]}"
    gain = "" if block.gain is None else f", gain {gain_figure(block.gain)}"
    _title(axes, f"{place}: {name}", f"{figures(block)}{gain}, {shape}")


def figures(block: BlockMap) -> str:
    """Return a map's mean ± spread, with as many digits as a small mean needs."""
    least = block.mean if 0 < block.mean < 0.1 else 0.1
    digits = min(7, 2 - math.floor(math.log10(least)))
    return f"{_number(block.mean, digits)} ± {_number(block.spread, digits)}"


def gain_figure(gain: float) -> str:
    """Return a gain with two digits or more; a small one is not rounded to 0.

    Example:
        >>> gain_figure(-0.25), gain_figure(0.0021), gain_figure(0.0), gain_figure(5e-9)
        ('−0.25', '0.0021', '0.00', '5.0e-09')
    """
    if not math.isfinite(gain) or 0 < abs(gain) < 1e-7:
        return f"{'−' if gain < 0 else ''}{abs(gain):.1e}"
    digits = 2 if gain == 0 else 1 - math.floor(math.log10(abs(gain)))
    return _number(gain, max(2, digits))


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".replace("-", "−")


def _draw_positions(axes: Any, block: BlockMap, pixels_SS3: npt.NDArray[np.uint8]) -> None:
    weights_HW = block.positions()
    low, high = _scale(weights_HW)
    side_px = len(pixels_SS3)
    box = (-0.5, side_px - 0.5, side_px - 0.5, -0.5)
    grey_SS = pixels_SS3.mean(axis=2)
    # Brightened, so that the colours match the scale.
    axes.imshow(grey_SS, cmap="gray", vmin=-120, vmax=255, extent=box, interpolation="bilinear")
    drawn = axes.imshow(
        weights_HW, cmap=_COLOURS, vmin=low, vmax=high, extent=box, alpha=_ALPHA,
        interpolation="nearest",
    )  # fmt: skip
    _without_ticks(axes)
    scale = axes.figure.colorbar(drawn, cax=axes.inset_axes((1.035, 0, 0.05, 1)))
    scale.outline.set_visible(False)
    scale.locator = _few_ticks()
    scale.update_ticks()
    _soft_ticks(scale.ax)


def _scale(weights: npt.NDArray[np.float64]) -> tuple[float, float]:
    low, high = float(weights.min()), float(weights.max())
    middle, half = (low + high) / 2, max((high - low) / 2, _LEAST_SPAN * abs(weights.mean()) / 2)
    return middle - half, middle + half


def _draw_channels(axes: Any, block: BlockMap) -> None:
    weights_C = np.sort(block.weights_CHW[:, 0, 0].astype(np.float64))[::-1]
    axes.set_facecolor(_PAPER)
    axes.stairs(weights_C, fill=True, color=_BAR, linewidth=0)
    axes.axhline(block.mean, color=_INK, linewidth=0.8)
    axes.set_xlim(0, len(weights_C))
    axes.set_ylim(min(0.0, weights_C[-1]), max(1.0, weights_C[0]))
    axes.set_xticks([])
    axes.yaxis.tick_right()
    axes.yaxis.set_major_locator(_few_ticks())
    _soft_ticks(axes)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_SOFT)


def _soft_ticks(axes: Any) -> None:
    axes.tick_params(length=0, labelsize=7, colors=_SOFT, pad=2)


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(4)


def _title(axes: Any, first: str, second: str) -> None:
    for words, above, size, colour in ((first, 0.105, 8.5, _INK), (second, 0.025, 7.5, _SOFT)):
        axes.text(
            0, 1 + above, words, transform=axes.transAxes, fontsize=size, color=colour, va="bottom"
        )


def _without_ticks(axes: Any) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _key(explanation: Explanation, num_letters: int) -> list[str]:
    """Return the legend for the panels, in lines of at most `num_letters` letters."""
    spatial = {block.is_spatial for block in explanation.maps}
    has_gain = any(block.gain is not None for block in explanation.maps)
    words = [_ABOVE, *[_POSITIONS] * (True in spatial), *[_CHANNELS] * (False in spatial)]
    words += [_GAINS] * has_gain + [_CAVEAT]
    return [line for sentence in words for line in textwrap.wrap(sentence, num_letters)]

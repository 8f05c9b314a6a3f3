"""Pictures for the report: learning curves and heat maps as SVG, photographs as small JPEGs.

An SVG here carries no style of its own, only CSS variables of the page, so that it follows the
reader's light or dark setting and the page's policy can forbid inline styles.
Axes: K classes.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from jaxtyping import Int, UInt8
from markupsafe import Markup
from PIL import Image

from towernet.records.results import AttentionEpoch
from towernet.records.run import EpochMetrics

_Epoch = TypeVar("_Epoch", EpochMetrics, AttentionEpoch)

NUM_COLOURS = 8
DASHES = ("", "6 3", "1.5 2.5")  # 8 colours × 3 dashes tell 24 networks apart
THUMBNAIL_PX = 128
_MAX_POINTS = 60  # of one line; more could not be seen
_LOG_FROM = 6.0  # from this ratio of epochs on, a linear axis squeezes the short runs to nothing
_LEAST_SPAN = 0.1  # of an axis of accuracies: what is flat shall look flat
_ASIDE = 1.03  # by which factor points of the next curve are moved on a logarithmic axis
_DIGIT_WIDTH, _DIGIT_HEIGHT = 6.5, 9.0  # of a mark, in points
# Colours that matplotlib writes and `_inline` replaces by the page's variables.
_INK, _GRID = "#010101", "#020202"


@dataclass(frozen=True)
class Curve:
    """One network's values over epochs, one line for each of its runs."""

    name: str
    runs: tuple[tuple[tuple[float, float], ...], ...]
    index: int

    @property
    def colour(self) -> int:
        """Which of the page's series colours it has."""
        return self.index % NUM_COLOURS

    @property
    def dash(self) -> str:
        """Its dashes, as SVG writes them."""
        return DASHES[self.index // NUM_COLOURS % len(DASHES)]

    def mean(self) -> tuple[tuple[float, float], ...]:
        """Return the mean over the runs, as far as all of them go."""
        runs = [run for run in self.runs if run]
        return tuple(
            (sum(e for e, _ in points) / len(points), sum(v for _, v in points) / len(points))
            for points in zip(*runs, strict=False)
        )


def curve(
    name: str,
    index: int,
    runs: Sequence[Sequence[_Epoch]],
    value: Callable[[_Epoch], float],
) -> Curve:
    """Take one quantity out of what was found at each epoch of each run."""
    return Curve(name, tuple(tuple((row.epoch, value(row)) for row in run) for run in runs), index)


def learning_curves(
    curves: Sequence[Curve],
    *,
    key: str,
    label: str,
    is_fraction: bool,
    title: str,
    height: float = 3.8,
) -> Markup:
    """Draw all networks in one picture: a line each, thin ones for single runs under their mean.

    Args:
        curves: What is drawn.
        key: Makes the picture's ids unlike those of the page's other pictures.
        label: What the vertical axis shows.
        is_fraction: The values are in [0, 1] and shown in percent.
        title: The picture in words, for those who do not see it.
        height: Of the picture, in inches; it is 5.6 wide.
    """
    # matplotlib takes half a second to import, and only a report needs it.
    import matplotlib
    from matplotlib import ticker
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": key, "font.size": 10.5}):
        figure = Figure(figsize=(5.6, height), layout="constrained")
        axes = figure.add_subplot()
        for line in curves:
            colour, dash = f"#0300{line.colour:02x}", _matplotlib_dash(line.dash)
            if len(line.runs) > 1:
                for run in line.runs:
                    _draw(axes, run, color=colour, linestyle=dash, linewidth=0.7, alpha=0.35)
            _draw(axes, line.mean(), color=colour, linestyle=dash, linewidth=2.0)
        epochs = [epoch for line in curves for run in line.runs for epoch, _ in run]
        lasts = [run[-1][0] for line in curves for run in line.runs if run]
        if lasts and max(lasts) > _LOG_FROM * min(lasts) and min(epochs) > 0:
            _logarithmic(axes, "epoch")
        else:
            axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, min_n_ticks=1))
            axes.set_xlabel("epoch", color=_INK)
        axes.set_ylabel(label, color=_INK)
        if is_fraction:
            _in_percent(axes)
        else:
            axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:.3g}"))
        return _finished(figure, axes, title)


@dataclass(frozen=True)
class Accuracy:
    """An accuracy with its interval, at some cost, and a short mark of ours beside it."""

    at: float
    accuracy: float
    interval: Sequence[float]
    mark: str


def accuracies(
    points: Sequence[Accuracy],
    *,
    line: Sequence[tuple[float, float]],
    key: str,
    label: str,
    ticks: Sequence[int] | None,
    scored: str,
    title: str,
) -> Markup:
    """Draw accuracies with their intervals against what they cost, on a logarithmic axis.

    Args:
        points: What is drawn.
        line: The points that a line joins.
        key: Makes the picture's ids unlike those of the page's other pictures.
        label: What the horizontal axis shows.
        ticks: What is written on it; None: round numbers.
        scored: What the vertical axis shows.
        title: The picture in words, for those who do not see it.
    """
    import matplotlib
    from matplotlib import ticker
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": key, "font.size": 10.5}):
        figure = Figure(figsize=(5.6, 3.4), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(*zip(*line, strict=True), color="#030000", linewidth=1.2, alpha=0.6)
        for point in points:
            axes.plot([point.at] * 2, list(point.interval), color="#030000", linewidth=2, alpha=0.5)
            axes.plot([point.at], [point.accuracy], "o", color="#030000", markersize=6)
        _logarithmic(axes, label)
        if ticks is not None:
            axes.xaxis.set_major_locator(ticker.FixedLocator(ticks))
        least, most = min(point.at for point in points), max(point.at for point in points)
        axes.set_xlim(least / 1.3, most * 1.3)
        axes.set_ylabel(scored, color=_INK)
        _in_percent(axes)
        if any(point.mark for point in points):
            _mark(figure, axes, points)
        return _finished(figure, axes, title)


def _mark(figure: Any, axes: Any, points: Sequence[Accuracy]) -> None:
    """Write each point's mark beside it, where it covers neither another mark nor a point."""
    figure.draw_without_rendering()  # so that places are known
    per_point = 72 / figure.dpi
    places = per_point * axes.transData.transform([(p.at, p.accuracy) for p in points])
    taken = [(x - 3, y - 3, x + 3, y + 3) for x, y in places]
    for point, (x, y) in zip(points, places, strict=True):
        width = _DIGIT_WIDTH * len(point.mark)
        sides = [(7, 4), (7, -12), (-7 - width, 4), (-7 - width, -12)]
        sides += [(7, step) for step in (16, -24, 28, -36)]
        boxes = [(x + dx, y + dy, x + dx + width, y + dy + _DIGIT_HEIGHT) for dx, dy in sides]
        free = [not any(_overlap(box, other) for other in taken) for box in boxes]
        chosen = free.index(True) if True in free else 0
        taken.append(boxes[chosen])
        axes.annotate(
            point.mark, (point.at, point.accuracy), sides[chosen],
            textcoords="offset points", color=_INK,
        )  # fmt: skip


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two boxes of left, bottom, right and top share an area."""
    return all(one[i] < other[i + 2] and other[i] < one[i + 2] for i in (0, 1))


def accuracy_curves(
    curves: Sequence[tuple[Curve, Sequence[Sequence[float]]]],
    *,
    key: str,
    label: str,
    ticks: Sequence[int],
    scored: str,
    title: str,
) -> Markup:
    """Draw several networks' accuracies with their intervals, on a logarithmic axis.

    Args:
        curves: Each with one run, its points, and the interval of each point.
        key: As for `accuracies`, like the rest.
        label: What the horizontal axis shows.
        ticks: What is written on it.
        scored: What the vertical axis shows.
        title: The picture in words.
    """
    import matplotlib
    from matplotlib import ticker
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": key, "font.size": 10.5}):
        figure = Figure(figsize=(5.6, 3.8), layout="constrained")
        axes = figure.add_subplot()
        for place, (line, intervals) in enumerate(curves):
            colour, dash = f"#0300{line.colour:02x}", _matplotlib_dash(line.dash)
            # Side by side, else intervals at the same number would cover each other.
            aside = _ASIDE ** (place - (len(curves) - 1) / 2)
            points = [(at * aside, accuracy) for at, accuracy in line.runs[0]]
            axes.plot(
                *zip(*points, strict=True), marker="o", color=colour, linestyle=dash,
                linewidth=2.0, markersize=5,
            )  # fmt: skip
            for (at, _), interval in zip(points, intervals, strict=True):
                axes.plot([at] * 2, list(interval), color=colour, linewidth=2, alpha=0.4)
        _logarithmic(axes, label)
        axes.xaxis.set_major_locator(ticker.FixedLocator(ticks))
        axes.set_ylabel(scored, color=_INK)
        _in_percent(axes)
        return _finished(figure, axes, title)


def _logarithmic(axes: Any, label: str) -> None:
    from matplotlib import ticker

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5), numticks=12))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.set_xlabel(f"{label} (logarithmic)", color=_INK)


def _in_percent(axes: Any) -> None:
    from matplotlib import ticker

    low, high = axes.get_ylim()
    middle, half = (low + high) / 2, max(high - low, _LEAST_SPAN) / 2
    axes.set_ylim(max(0.0, middle - half), min(1.0, middle + half))
    # No steps of 2.5 %, which would be written as 2 and 3.
    axes.yaxis.set_major_locator(ticker.MaxNLocator("auto", steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(ticker.PercentFormatter(1.0, decimals=0, symbol=" %"))


def _finished(figure: Any, axes: Any, title: str) -> Markup:
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, length=0)
    axes.spines[:].set_visible(False)
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(stream.getvalue(), title)


def _matplotlib_dash(dash: str) -> Any:
    return (0, tuple(float(length) for length in dash.split())) if dash else "solid"


def _draw(axes: Any, points: Sequence[tuple[float, float]], **style: Any) -> None:
    if len(points) > _MAX_POINTS:
        kept = np.unique(np.linspace(0, len(points) - 1, _MAX_POINTS).round().astype(int))
        points = [points[i] for i in kept]
    if points:
        marker = "o" if len(points) < 3 else ""  # a line through one point is invisible
        axes.plot(*zip(*points, strict=True), marker=marker, markersize=5, **style)


def _inline(svg: str, title: str) -> Markup:
    """Make matplotlib's SVG part of the page: no styles, no ids but those in use, our colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"(?s)<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg)
    svg = re.sub(r' id="[a-zA-Z0-9.]+_\d+"', "", svg)
    svg = re.sub(r' style="([^"]*)"', _attributes, svg)
    svg = re.sub(r"<[^>]*>", _rounded, svg)  # in tags alone: what is written stays as it is
    svg = re.sub(r"#0300(0\d)", lambda colour: f"var(--series-{int(colour[1])})", svg)
    svg = svg.replace(_INK, "var(--soft)").replace(_GRID, "var(--line)")
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1">', svg, count=1)
    svg = re.sub(r"\s*\n\s*", "\n", svg)
    head = Markup('<svg role="img" class="curves" aria-label="{}" ').format(title)
    return head + Markup(svg.removeprefix("<svg "))


def _rounded(tag: re.Match[str]) -> str:
    return re.sub(
        r"\d+\.\d{2,}", lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), tag[0]
    )


def _attributes(style: re.Match[str]) -> str:
    """Turn `style="stroke: #000; font: 10px 'X'"` into attributes; the page chooses the font."""
    attributes = []
    for part in style[1].split(";"):
        name, _, value = (piece.strip() for piece in part.partition(":"))
        if name == "font":
            size = re.search(r"([\d.]+)px", value)
            assert size, f"matplotlib wrote a font without a size: {value}"
            attributes.append(f' font-size="{size[1]}"')
        elif name:
            attributes.append(f' {name}="{value}"')
    return "".join(attributes)


def confusion_paths(confusion_KK: Int[np.ndarray, "K K"]) -> list[tuple[str, str]]:
    """Return a large heat map as one path for each shade: (CSS classes, the path's data).

    A cell is a stroke of length and width 1: seven bytes, where a table's cell takes thirty.
    """
    paths: dict[str, list[str]] = {}
    for true, said in zip(*np.nonzero(confusion_KK), strict=True):
        share = confusion_KK[true, said] / confusion_KK[true].sum()
        paths.setdefault(shade(share, right=true == said), []).append(f"M{said} {true}h1")
    return [(classes, "".join(strokes)) for classes, strokes in sorted(paths.items())]


def shade(share: float | np.floating[Any], *, right: bool | np.bool_) -> str:
    """Return the CSS classes of a cell: right and wrong are two colours of ten levels each."""
    if not share:
        return "none"
    return f"{'right' if right else 'wrong'} h{max(1, round(10 * share))}"


def thumbnail(pixels: UInt8[npt.NDArray[np.uint8], "H W 3"]) -> str:
    """Return a photograph as a small JPEG data URI, its aspect ratio kept."""
    image = Image.fromarray(pixels)
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=70, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")

"""What the report says about few images: every network's accuracy against their number."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from towernet.records.judgement import MEASURE_WORDS
from towernet.records.results import Results, ShotsCurve, ShotsPoint
from towernet.report import figures


@dataclass(frozen=True)
class ShotsRow:
    """A network on few images of each class, and its line in the picture.

    Args:
        curve: What was found.
        colour: Of its line.
        dash: Of the same line.
        points: Those of the table's columns; None where a run failed.
    """

    curve: ShotsCurve
    colour: int
    dash: str
    points: tuple[ShotsPoint | None, ...]

    @property
    def name(self) -> str:
        """The network."""
        return self.curve.network


@dataclass(frozen=True)
class ShotsSection:
    """Accuracy against the number of training images of each class.

    Args:
        columns: The numbers of images, in words.
        rows: One of each network.
        figure: The picture of it.
        sentences: How many images networks from scratch would need to catch up.
    """

    columns: tuple[str, ...]
    rows: tuple[ShotsRow, ...]
    figure: Markup
    sentences: tuple[str, ...]


def shots_section(results: Results) -> ShotsSection | None:
    """Return the curves of all networks, None if they were not asked for or no run finished."""
    if results.shots is None:
        return None
    curves = [curve for curve in results.shots.curves if curve.points]
    if not curves:
        return None
    places = {network.name: index for index, network in enumerate(results.networks)}
    columns = {_column(p): p.num_images for curve in curves for p in curve.points}
    rows, drawn = [], []
    for curve in curves:
        line = figures.Curve(
            curve.network,
            (tuple((float(p.num_images), p.accuracy) for p in curve.points),),
            places[curve.network],
        )
        by_column = {_column(point): point for point in curve.points}
        points = tuple(by_column.get(column) for column in sorted(columns))
        rows.append(ShotsRow(curve, line.colour, line.dash, points))
        drawn.append((line, [point.interval for point in curve.points]))
    scored = MEASURE_WORDS[results.measure]
    return ShotsSection(
        tuple(words for _, _, words in sorted(columns)),
        tuple(rows),
        figures.accuracy_curves(
            drawn,
            key="shots",
            label="training images of each class",
            ticks=sorted(set(columns.values())),
            scored=scored,
            title=f"{scored.capitalize()} of every network against the number of training images of"
            " each class; the same values are in the table below.",
        ),
        results.shots.sentences,
    )


def _column(point: ShotsPoint) -> tuple[bool, int, str]:
    """Return a point's column: its place, and the number of images in words."""
    asked = point.most or point.num_images
    if point.is_all:
        return True, asked, f"all ({point.num_images:,} on average)"
    mean = "" if point.most is None else f" ({point.num_images:,} on average)"
    return False, asked, f"{asked:,}{mean}"

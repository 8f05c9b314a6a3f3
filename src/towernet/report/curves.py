"""The report's pictures of training, of cost and of growth, each with the numbers behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from towernet.comparison.wording.verdict import beats_guessing
from towernet.config import Measure
from towernet.names import NetworkName
from towernet.records.judgement import MEASURE_WORDS
from towernet.records.results import ClassGain, LearningCurve, Measured, Network, Results
from towernet.records.run import EpochMetrics
from towernet.records.scores import deciding
from towernet.report import figures
from towernet.report.tables import MAX_CLASS_ROWS


@dataclass(frozen=True)
class Timed:
    """A ranked network, its accuracy by the measure, and how long it takes for one image."""

    name: str
    rank: int | None
    accuracy: float
    interval: tuple[float, float]
    time_ms: float


@dataclass(frozen=True)
class Cost:
    """The networks to choose among by the time there is, fastest first, and all in a picture.

    `num_drawn`: how many are in the picture; `num_left_out`: how many are not, since they are not
    shown to beat guessing; `with_decoding`: whether the times include decoding an image's file.
    """

    front: tuple[Timed, ...]
    num_drawn: int
    num_left_out: int
    with_decoding: bool
    figure: Markup


@dataclass(frozen=True)
class CurveRow:
    """A network's mean curves in numbers, and its line in the pictures; None: nothing drawn."""

    name: str
    colour: int
    dash: str
    best: float | None
    best_epoch: float | None
    last_epoch: float | None
    last_loss: float | None


@dataclass(frozen=True)
class TrainingCurves:
    """Validation accuracy and training loss against the epoch."""

    accuracy: Markup
    loss: Markup
    rows: tuple[CurveRow, ...]


@dataclass(frozen=True)
class Growth:
    """Accuracy against the number of training images.

    Args:
        curve: What was found.
        figure: The picture of it.
        class_gains: The classes that gained most, where they are too many for a table.
    """

    curve: LearningCurve
    figure: Markup
    class_gains: tuple[ClassGain, ...]


def cost_section(results: Results, measured: Mapping[NetworkName, Measured]) -> Cost | None:
    """Return the front of accuracy against time, None where there is no choice."""
    ranked = [network for network in results.ranked if beats_guessing(network, results)]
    measure = results.measure
    with_decoding = has_decoding(ranked, measured)
    timed = [
        found
        for network in ranked
        if (found := _timed(network, measured[network.name], measure, with_decoding=with_decoding))
    ]
    if len(timed) < 2:
        return None
    best = front(timed)
    return Cost(
        tuple(best),
        len(timed),
        len(results.ranked) - len(ranked),
        with_decoding,
        figures.accuracies(
            [
                figures.Accuracy(row.time_ms, row.accuracy, row.interval, str(row.rank))
                for row in timed
            ],
            line=[(row.time_ms, row.accuracy) for row in best],
            key="cost",
            label="milliseconds per image",
            ticks=None,
            scored=MEASURE_WORDS[measure],
            title=f"{MEASURE_WORDS[measure].capitalize()} of these networks against its time per"
            " image; the same values are in the ranking.",
        ),
    )


def has_decoding(ranked: Sequence[Network], measured: Mapping[NetworkName, Measured]) -> bool:
    """Whether the time of decoding an image is known for every network."""
    return all(measured[network.name].image_ms is not None for network in ranked)


def _timed(
    network: Network, measured: Measured, measure: Measure, *, with_decoding: bool
) -> Timed | None:
    score, interval = network.score(measure), network.score_interval(measure)
    time_ms = measured.image_ms if with_decoding else measured.latency_ms
    if score is None or interval is None or not time_ms:
        return None
    return Timed(network.name, network.rank, score, interval, time_ms)


def front(networks: Sequence[Timed]) -> list[Timed]:
    """Return those that none of the others beats in both accuracy and time, fastest first."""
    found: list[Timed] = []
    for network in sorted(networks, key=lambda n: (n.time_ms, -n.accuracy)):
        if not found or network.accuracy > found[-1].accuracy:
            found.append(network)
    return found


def growth_section(curve: LearningCurve, measure: Measure) -> Growth:
    """Return what more images gave."""
    points = curve.points
    picture = figures.accuracies(
        [figures.Accuracy(float(p.num_images), p.accuracy, p.interval, "") for p in points],
        line=[(float(p.num_images), p.accuracy) for p in points],
        ticks=[p.num_images for p in points],
        key="growth",
        label="training images",
        scored=MEASURE_WORDS[measure],
        title=f"{MEASURE_WORDS[measure].capitalize()} against the number of training images; the"
        " same values are in the table below.",
    )
    return Growth(curve, picture, curve.classes[:MAX_CLASS_ROWS])


def training_curves(
    names: Sequence[str],
    metrics: Sequence[Sequence[Sequence[EpochMetrics]]],
    measure: Measure,
) -> TrainingCurves | None:
    """Return the two panels and, as their text alternative, the numbers behind them.

    Args:
        names: The networks.
        metrics: The epochs of each run of each of them.
        measure: What chose the epochs, which is drawn.
    """
    named = list(enumerate(zip(names, metrics, strict=True)))
    accuracy = [
        figures.curve(name, index, runs, lambda epoch: deciding(epoch).accuracy)
        for index, (name, runs) in named
    ]
    loss = [
        figures.curve(name, index, [_trained(run) for run in runs], lambda epoch: epoch.train_loss)
        for index, (name, runs) in named
    ]
    drawn = [pair for pair in zip(accuracy, loss, strict=True) if pair[0].mean() or pair[1].mean()]
    if not drawn:
        return None
    return TrainingCurves(
        accuracy=figures.learning_curves(
            accuracy,
            key="accuracy",
            label=f"validation {MEASURE_WORDS[measure]}",
            is_fraction=True,
            title=f"Validation {MEASURE_WORDS[measure]} of every network against the epoch; the"
            " same values are in the table “The curves in numbers”.",
        ),
        loss=figures.learning_curves(
            loss,
            key="loss",
            label="training loss",
            is_fraction=False,
            title="Training loss of every network against the epoch; the same"
            " values are in the table “The curves in numbers”.",
        ),
        rows=tuple(_curve_row(*pair) for pair in drawn),
    )


def _trained(epochs: Sequence[EpochMetrics]) -> list[EpochMetrics]:
    """Return the epochs without a fitted last layer, whose loss is of images not augmented."""
    return [epoch for epoch in epochs if epoch.step]


def _curve_row(accuracy: figures.Curve, loss: figures.Curve) -> CurveRow:
    best_epoch, best = max(accuracy.mean(), key=lambda point: point[1], default=(None, None))
    last_epoch, last_loss = loss.mean()[-1] if loss.mean() else (None, None)
    return CurveRow(
        accuracy.name, accuracy.colour, accuracy.dash, best, best_epoch, last_epoch, last_loss
    )

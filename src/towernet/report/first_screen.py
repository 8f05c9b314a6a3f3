"""The report's first screen: headline, one picture of two panels, three facts, what to do next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from towernet.records.judgement import AnswersJudged
from towernet.records.results import Results, TrainingTimes
from towernet.records.run import EpochMetrics
from towernet.records.scores import deciding
from towernet.report import figures, headline
from towernet.report.headline import Step

MAX_ROWS = 8  # networks in the picture; the ranking below shows all
_MAX_TICKS = 6


@dataclass(frozen=True)
class Standing:
    """A network in the picture; positions are percent of the picture's width.

    Args:
        name: The network.
        colour: Of its line in the curves.
        dash: Of the same line.
        score: Its accuracy, or balanced accuracy if that is the measure; None where it is not
            ranked.
        interval: 95 %.
        point: Where the score is drawn.
        whisker: Where the interval is drawn.
        reason: Why it is not ranked, '' where it is.
        barely_trained: Whether it is ranked after hardly any training.
    """

    name: str
    colour: int
    dash: str
    score: float | None
    interval: tuple[float, float] | None
    point: float
    whisker: tuple[float, float]
    reason: str
    barely_trained: bool


@dataclass(frozen=True)
class FirstScreen:
    """What a reader sees before scrolling.

    Args:
        headline: The answer in at most 15 words.
        standings: The networks with their scores and intervals, best first.
        num_more: How many networks the picture leaves out.
        ticks: The scale: each score that is labelled, and where.
        chance: Where always predicting the most frequent class is drawn, None where it is unknown.
        curves: Validation accuracy over epochs, None where no epoch was finished.
        facts: What the headline rests on.
        steps: What to do next.
    """

    headline: str
    standings: tuple[Standing, ...]
    num_more: int
    ticks: tuple[tuple[float, float], ...]
    chance: float | None
    curves: Markup | None
    facts: tuple[str, str, str]
    steps: tuple[Step, ...]


def first_screen(
    results: Results,
    metrics: Sequence[Sequence[Sequence[EpochMetrics]]],
    trusting: str,
    times: TrainingTimes | None,
) -> FirstScreen:
    """Return the first screen of a comparison or of a run.

    Args:
        results: What was found.
        metrics: The epochs of each run of each network.
        trusting: What to set before a command that runs custom code.
        times: The measured training times, where they were to be equal.
    """
    curves = [
        figures.curve(network.name, index, runs, lambda epoch: deciding(epoch).accuracy)
        for index, (network, runs) in enumerate(zip(results.networks, metrics, strict=True))
    ][:MAX_ROWS]
    means = [figures.Curve(curve.name, (curve.mean(),), curve.index) for curve in curves]
    drawn = figures.learning_curves(
        means,
        key="first-screen",
        label=f"validation {results.measure_words}",
        is_fraction=True,
        title=f"Validation {results.measure_words} of each network over its epochs; the section"
        " Training curves has it in numbers.",
        height=2.9,
    )
    return _screen(
        results,
        results.guessing if results.ranked else None,
        drawn if any(curve.mean() for curve in curves) else None,
        headline.facts(results, times),
        headline.steps(results, trusting, times),
    )


def first_screen_of_answers(judged: AnswersJudged) -> FirstScreen:
    """Return the first screen of a judgement of any program's predictions."""
    return _screen(judged, None, None, headline.facts(judged), headline.steps(judged))


def _screen(
    found: Results | AnswersJudged,
    majority: float | None,
    curves: Markup | None,
    facts: tuple[str, str, str],
    steps: tuple[Step, ...],
) -> FirstScreen:
    shown = found.networks[:MAX_ROWS]
    bounds = [
        bound
        for network in shown
        if network.status == "ranked"
        for bound in network.score_interval(found.measure) or ()
    ]
    low, high, ticks = _scale([*bounds, *([] if majority is None else [majority])])

    def at(value: float) -> float:
        return 100 * (value - low) / (high - low)

    standings = []
    for index, network in enumerate(shown):
        line = figures.Curve(network.name, (), index)
        is_ranked = network.status == "ranked"
        interval = network.score_interval(found.measure) if is_ranked else None
        score = network.score(found.measure) if is_ranked else None
        standings.append(
            Standing(
                network.name,
                line.colour,
                line.dash,
                score,
                interval,
                0.0 if score is None else at(score),
                (at(interval[0]), at(interval[1])) if interval else (0.0, 0.0),
                "" if is_ranked else network.status.replace("_", " "),
                network.barely_trained,
            )
        )
    return FirstScreen(
        headline=headline.headline(found),
        standings=tuple(standings),
        num_more=len(found.networks) - len(shown),
        ticks=tuple((tick, at(tick)) for tick in ticks) if bounds else (),
        chance=None if majority is None else at(majority),
        curves=curves,
        facts=facts,
        steps=steps,
    )


def _scale(values: Sequence[float]) -> tuple[float, float, list[float]]:
    """Return the ends of a scale of accuracies, and the round values between that are labelled."""
    least, most = min(values, default=0.0), max(values, default=1.0)
    step = next(
        step for step in (0.01, 0.02, 0.05, 0.1, 0.2) if most - least <= step * (_MAX_TICKS - 1)
    )
    first, last = math.floor(least / step + 1e-9), math.ceil(most / step - 1e-9)
    last = max(last, first + 1)
    return first * step, last * step, [number * step for number in range(first, last + 1)]

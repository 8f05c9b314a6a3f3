"""What the report draws and names: marks that can be read, true ticks, and only what was meant."""

from __future__ import annotations

import re
from itertools import pairwise
from types import SimpleNamespace

import pytest

from made_results import a_network, a_run, a_started_network, some_results, some_times
from towernet.comparison.judging.ranking import Judging, _selection_key
from towernet.names import NetworkName
from towernet.records.run import EpochMetrics
from towernet.report import figures
from towernet.report.curves import cost_section, training_curves


def drawn(points: list[tuple[float, float]]) -> str:
    return figures.accuracies(
        [
            figures.Accuracy(at, accuracy, (accuracy - 0.02, accuracy + 0.02), str(i + 1))
            for i, (at, accuracy) in enumerate(points)
        ],
        line=points,
        key="x",
        label="milliseconds",
        ticks=None,
        scored="accuracy",
        title="x",
    )


def marks(svg: str, num: int) -> list[tuple[float, float]]:
    """The places of the marks 1 to num in a picture, in points."""
    found = re.findall(r'text-anchor="start"[^>]* x="([\d.]+)" y="([\d.]+)"[^>]*>(\d+)</text>', svg)
    places = {int(mark): (float(x), float(y)) for x, y, mark in found}
    return [places[i + 1] for i in range(num)]


@pytest.mark.parametrize(
    "points",
    [
        [(12.0, 0.967), (12.0, 0.967)],
        [(12.0, 0.967), (12.0, 0.965), (12.1, 0.963), (12.2, 0.967)],
        [(5.0, 0.9), (12.0, 0.974), (12.0, 0.974), (11.9, 0.972), (20.0, 0.9)],
    ],
)
def test_marks_of_near_points_do_not_cover_each_other(points):
    places = marks(drawn(points), len(points))
    for i, (x, y) in enumerate(places):
        for other_x, other_y in places[:i]:
            assert abs(x - other_x) >= 6 or abs(y - other_y) >= 9, places


def test_ticks_are_what_they_say():
    for low in (0.05, 0.31, 0.62, 0.81, 0.86, 0.9, 0.95):
        svg = drawn([(5.0, low), (12.0, 0.99)])
        places = re.findall(r' y="([\d.]+)"[^>]*>(\d+) %</text>', svg)
        steps = [
            (float(y) - float(above), int(share) - int(smaller))
            for (y, smaller), (above, share) in pairwise(places)
        ]
        assert len(steps) >= 2, low
        per_percent = [points / percent for points, percent in steps]
        assert max(per_percent) < 1.05 * min(per_percent), (low, places)


def test_networks_that_only_guess_are_not_offered_for_their_speed():
    times = {"a": 13.0, "b": 5.0, "c": 1.0}
    measured = {NetworkName(n): some_times(latency_ms=t, decode_ms=1.0) for n, t in times.items()}
    networks = [a_network("a"), a_network("b", rank=2, accuracy=0.8, interval=(0.75, 0.85))]
    guesses = a_network("c", rank=3, accuracy=0.3, interval=(0.25, 0.35))
    results = some_results(networks=(*networks, guesses), comparisons=(), majority_accuracy=0.3)
    cost = cost_section(results, measured)
    assert cost is not None
    assert [network.name for network in cost.front] == ["b", "a"]
    assert (cost.num_drawn, cost.num_left_out) == (2, 1)
    alone = some_results(networks=(networks[0], guesses), comparisons=(), majority_accuracy=0.3)
    assert cost_section(alone, measured) is None


def epoch(number: float, step: int, loss: float) -> EpochMetrics:
    return EpochMetrics(
        epoch=number, step=step, learning_rate=0.1, train_loss=loss, train_accuracy=0.5,
        validation_loss=1.0, validation_accuracy=0.8,
    )  # fmt: skip


def test_the_loss_of_a_fitted_last_layer_is_no_part_of_a_training_curve():
    tuned = [epoch(0.0, 0, 0.01), epoch(1.0, 30, 0.9), epoch(2.0, 60, 0.7)]
    curves = training_curves(["tuned", "frozen"], [[tuned], [tuned[:1]]], "accuracy")
    assert curves is not None
    of_tuned, of_frozen = curves.rows
    assert (of_tuned.last_epoch, of_tuned.last_loss) == (2.0, 0.7)
    assert (of_frozen.best, of_frozen.last_loss) == (0.8, None)
    ticks = [float(tick) for tick in re.findall(r">([\d.]+)</text>", curves.loss)]
    assert 0.9 in ticks or 0.85 in ticks
    assert min(tick for tick in ticks if tick != 0) > 0.3


def test_of_equal_networks_the_frozen_one_comes_first_and_is_chosen():
    names = ["x/finetuned", "x/frozen"]
    networks = [a_started_network(name, runs=(a_run(),)) for name in names]
    judging = SimpleNamespace(
        protocol=SimpleNamespace(request=SimpleNamespace(measure="accuracy")), networks=networks
    )
    assert [network.name for network in Judging.ranked(judging)] == names[::-1]
    assert max(networks, key=_selection_key).name == "x/frozen"

"""Which network is the cheapest of those that are not shown to be worse, by measured time."""

from __future__ import annotations

from collections.abc import Mapping

from towernet.comparison.judging.pairs import BETTER, TOO_FEW_RUNS
from towernet.comparison.wording.pairs import pairs_of_first
from towernet.comparison.wording.verdict import beats_guessing
from towernet.names import NetworkName
from towernet.records.results import Measured, Results

WORTH_NAMING = 0.9
"""A network is called cheaper than the first if it takes less than this share of its time."""


def cheapest_words(results: Results, measured: Mapping[NetworkName, Measured]) -> str | None:
    """Name the network that takes the least time for an image, if not the first and not worse.

    Of those that were compared with the first. The time is that of decoding an image and of the
    network, at the network's own size; it decides nothing else.

    Args:
        results: What was found.
        measured: The times of each network.

    Returns:
        A sentence; None if the first is the fastest, or times are not known.
    """
    if results.ablation or len(results.ranked) < 2:
        return None
    first = results.ranked[0].name
    times = {
        network.name: measured[network.name].image_ms
        for network in results.ranked
        if beats_guessing(network, results)
    }
    # Where no difference could be shown, that none is shown says nothing.
    is_worse = {
        pair.second: pair.answer in (BETTER, TOO_FEW_RUNS) for pair in pairs_of_first(results)
    }
    sound = {
        name: time
        for name, time in times.items()
        if time is not None and (name == first or not is_worse.get(name, True))
    }
    if first not in sound:
        return None
    cheapest = min(sound, key=sound.__getitem__)
    if sound[cheapest] >= WORTH_NAMING * sound[first]:
        return None
    cost = (
        f"{sound[cheapest]:.3g} ms for one image, with decoding it, instead of"
        f" {sound[first]:.3g} ms"
    )
    if results.against not in (None, first):
        return f"{cheapest} is not shown to be worse than {first}, and takes {cost}."
    return f"Of the networks not shown to be worse, {cheapest} is the cheapest: {cost}."

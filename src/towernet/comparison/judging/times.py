"""Whether networks that were given the same training time took the same: promise and measurement.

Nothing here is exact, and nothing else depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from towernet.comparison.forecast import budget, most_steps
from towernet.comparison.wording.times import about_times
from towernet.data.prepare import Dataset
from towernet.engine.measure import Cost
from towernet.names import SCRATCH, NetworkName
from towernet.records.protocol import Protocol
from towernet.records.results import Measured, Network, TrainingTimes

MAX_RATIO = 1.15  # of the longest time to the shortest


def same_for_starts(
    networks: Sequence[Network], measured: Mapping[NetworkName, Measured]
) -> dict[NetworkName, Measured]:
    """Give a network the same times for an image, whatever it started from.

    Frozen, fine-tuned and from scratch it computes the same, at the same size: its times differ
    only by chance, and the least ones are those of all.
    """
    same: dict[tuple[NetworkName, int | None], list[Measured]] = {}
    keys = {n.name: (n.name.with_start(SCRATCH).canonical(), n.size_px) for n in networks}
    for name, key in keys.items():
        same.setdefault(key, []).append(measured[name])
    found = dict(measured)
    for name, key in keys.items():
        of = same[key]
        least = {
            field: min((v for each in of if (v := getattr(each, field)) is not None), default=None)
            for field in ("latency_ms", "decode_ms")
        }
        found[name] = measured[name].model_copy(update=least)
    return found


def training_times(
    protocol: Protocol,
    dataset: Dataset,
    networks: Sequence[Network],
    measured: Mapping[NetworkName, Measured],
) -> TrainingTimes | None:
    """Compare the times that networks were given with those they took, one run each.

    Args:
        protocol: What was decided before training.
        dataset: The images of the first repetition.
        networks: The results.
        measured: Their timings.

    Returns:
        None if the budget is epochs, or if fewer than two networks were given the same time.
    """
    minutes = protocol.request.recipe.train.minutes
    if minutes is None:
        return None
    by_design = _shorter_by_design(protocol, dataset)
    seconds = {
        network.name: timed
        for network in networks
        if network.status != "failed" and network.name not in by_design
        if (timed := measured[network.name].run_seconds) is not None
    }
    if len(seconds) < 2:
        return None
    shortest, longest = min(seconds, key=seconds.__getitem__), max(seconds, key=seconds.__getitem__)
    times = TrainingTimes(
        planned_seconds=60 * minutes,
        shortest=shortest,
        shortest_seconds=seconds[shortest],
        longest=longest,
        longest_seconds=seconds[longest],
        differ=seconds[longest] > MAX_RATIO * seconds[shortest],
        shorter_by_design=tuple(n.name for n in networks if n.name in by_design),
        sentence="",
    )
    several = protocol.request.runs > 1
    return times.model_copy(update={"sentence": about_times(times, several_runs=several)})


def _shorter_by_design(protocol: Protocol, dataset: Dataset) -> set[NetworkName]:
    """Return the networks that need less time than they were given.

    These are frozen ones, fine-tuned ones that reached their last epoch, and variants that would
    have had time for more steps than they share with others.
    """
    decided, request = protocol.decided, protocol.request
    shorter = {name for name in request.models if name.start == "frozen"}
    for name, cost in decided.costs.items():
        if name in decided.failures or name in shorter:
            continue
        recipe, num_steps = request.recipe_of(name), decided.num_steps[name]
        ended = recipe.train.max_epochs is not None and num_steps == most_steps(recipe, dataset)
        shares = bool(request.attention) and num_steps < budget(recipe, Cost.of(cost), dataset)
        if ended or shares:
            shorter.add(name)
    return shorter

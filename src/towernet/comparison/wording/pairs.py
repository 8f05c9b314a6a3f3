"""The judged pairs that a verdict is about, and their differences in words."""

from __future__ import annotations

from towernet.names import NetworkName
from towernet.records.judgement import Judged, Pair
from towernet.words import in_points, signed_points


def pairs_of_first(found: Judged) -> list[Pair]:
    """Return the judged pairs of the network that came first, the nearest other one first.

    It is the first of each.
    """
    firsts = {network.name for network in found.ranked[:1]}
    return [
        pair if pair.first in firsts else pair.turned()
        for pair in found.comparisons
        if firsts & {pair.first, pair.second}
    ]


def pairs_of_verdict(found: Judged) -> list[Pair]:
    """Return the pairs that the verdict is about: those of the first, or all with `against`."""
    if found.against is None or found.against == found.ranked[0].name:
        return pairs_of_first(found)
    return list(found.comparisons)


def only_pairs_words(found: Judged) -> list[str]:
    """Say which pairs were judged, unless all were."""
    if found.against is None:
        return []
    return [f"Only pairs with {found.against} were judged; no other difference is shown or denied."]


def gap_words(pair: Pair, over: str = "") -> str:
    """Say by how much the first network of a pair is ahead."""
    low, high = map(in_points, pair.interval)
    return f"{in_points(pair.difference)} points{over} [{low}, {high}]"


def signed_gap(pair: Pair) -> str:
    """Name the first network of a pair, and how far it is ahead or behind."""
    low, high = map(in_points, pair.interval)
    return f"{pair.first} ({signed_points(pair.difference)} points [{low}, {high}])"


def called(name: str, found: Judged) -> str:
    """Return a network's name; with "from scratch" where another has the same name and a start."""
    names = [network.name for network in found.networks if isinstance(network.name, NetworkName)]
    own = next((each for each in names if each == name), None)
    if own is None or own.start is not None:
        return name
    return f"{name} from scratch" if any(o.start and o.base == own.base for o in names) else name

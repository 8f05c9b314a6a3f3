"""Where attention goes in a network: before residual additions, after joints, at stages' ends.

A place is a module whose output is weighed; the module is called once per image and returns one
feature map. No network is known by its name: the places follow from the trace of its operations.

Shapes: B images, C channels, H × W pixels.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from towernet.attention.trace import ADDITIONS, LEARNT, Map, Trace
from towernet.errors import ConfigError
from towernet.registry import unknown_name
from towernet.words import kind

# Operations on a map and on numbers that do not come from the image: a layer's scale, a bias, new
# axes.
_SCALINGS = ADDITIONS | {"mul", "mul_", "__mul__", "__imul__", "__rmul__", "div", "permute"}


@dataclass(frozen=True)
class Place:
    """A module whose output attention can weigh.

    Args:
        name: The module, as in the network's state.
        channels: C of its output.
        size: H and W of its output, for the traced input.
        channels_last: Whether the output's axes are B, H, W, C.
        reason: Why here, as a phrase.
    """

    name: str
    channels: int
    size: tuple[int, int]
    channels_last: bool
    reason: str


def find_places(trace: Trace, where: str | Sequence[str]) -> list[Place]:
    """Return the places in the order they run.

    Args:
        trace: Of the network.
        where: "blocks", "stages", "last-of-stage", or names of modules or patterns of names.

    Raises:
        ConfigError: there are none, or a named module cannot be one.
        UnknownNameError: no module has the name.
    """
    if where == "blocks":
        places = _blocks(trace)
    elif where == "last-of-stage":
        places = list({place.size: place for place in _blocks(trace)}.values())
    elif where == "stages":
        places = _stages(trace)
    else:
        return _named(trace, [where] if isinstance(where, str) else where)
    if not places:
        raise ConfigError(
            f"{trace.network} has no {_WHAT[where]}: {_why_none(trace)}; name modules"
            " whose output is a feature map, if it has any"
        )
    return places


_WHAT = {
    "blocks": "place before a residual addition, after a joint of branches or at a stage's end",
    "last-of-stage": "place before a stage's last addition, joint or end",
    "stages": "stage that ends in one map",
}


def require_names(model: nn.Module, where: object) -> None:
    """Refuse what is neither a name nor a list of names, and an empty list.

    Raises:
        ConfigError: naming what it is.
    """
    is_list = False
    names = [where]
    if isinstance(where, Sequence) and not isinstance(where, str):
        is_list, names = True, list(where)
    remedy = f"give names, or one of {', '.join(map(repr, _WHAT))}"
    if not names:
        raise ConfigError(f"where names no module; {remedy}")
    for name in names:
        if isinstance(name, nn.Module):
            own = next((known for known, m in model.named_modules() if m is name), None)
            remedy = remedy if own is None else f"give its name, '{own}'"
        if not isinstance(name, str):
            raise ConfigError(f"where {'holds' if is_list else 'is'} {kind(name)}; {remedy}")


def _why_none(trace: Trace) -> str:
    if not any(found.is_feature_map and found.depth for found in trace.maps):
        return "it has no feature maps with a height and a width"
    if 2 * sum(not total.is_feature_map for total, _ in trace.additions) > len(trace.additions):
        return "its features are tokens, which have no height and no width"
    return "no module that is called exactly once returns only a feature map"


def _blocks(trace: Trace) -> list[Place]:
    """Return places before residual additions; at sizes that have none, after joints.

    Where a network has neither, at stages' ends.
    """
    found = _residual(trace)
    sizes = {place.size for place, _ in found.values()}
    for name, (place, at) in _joined(trace).items():
        if place.size not in sizes:
            found.setdefault(name, (place, at))
    if not found and not trace.additions:
        return _stages(trace)
    places = [place for place, _ in sorted(found.values(), key=lambda pair: pair[1])]
    # Maps of one pixel, or of one channel, in the middle of a network are parts of its own gates.
    return [place for place in places if place.size != (1, 1) and place.channels > 1] or places


def _residual(trace: Trace) -> dict[str, tuple[Place, int]]:
    """Return places by module, each with the time its map was made."""
    found: dict[str, tuple[Place, int]] = {}
    for total, where in trace.additions:
        branch = None if _is_part_of_a_sum(total) else _branch(*total.sources)
        if branch is not None and branch.is_feature_map:
            place = _place(trace, branch, f"before the addition in {where or 'the network'}")
            if place is not None:
                found.setdefault(place.name, (place, branch.made_at))
    return found


def _is_part_of_a_sum(total: Map) -> bool:
    return len(total.read_by) == 1 and total.read_by[0] in ADDITIONS


def _branch(first: Map, second: Map) -> Map | None:
    """Return which of two summands is the branch; None where neither is a shortcut.

    From where they split, a shortcut has at most half as many learnt layers as the branch. A
    pooling layer has none either: a summand computed from the other one is the branch.
    """
    shortcut, branch = sorted((first, second), key=lambda m: (m.depth, m.made_at))
    before_branch = branch.comes_from()
    if _unscaled(shortcut) in before_branch:
        return branch
    split = max((m.depth for m in shortcut.comes_from() & before_branch), default=0)
    is_shortcut = 2 * (shortcut.depth - split) <= branch.depth - split
    return branch if is_shortcut and branch.depth > shortcut.depth else None


def _unscaled(found: Map) -> Map:
    while found.made_from in _SCALINGS and len(found.sources) == 1:
        (found,) = found.sources
    return found


def _joined(trace: Trace) -> dict[str, tuple[Place, int]]:
    """Return places by module, each with the time its map was made."""
    found: dict[str, tuple[Place, int]] = {}
    for _, where in (*trace.additions, *trace.joints):
        output = trace.outputs.get(where)
        if output is None or output.depth < 2:  # the branches of a first layer are one layer
            continue
        place = _place(trace, output, f"after the branches joined in {where}")
        if place is not None:
            found.setdefault(place.name, (place, output.made_at))
    return found


def _place(trace: Trace, found: Map, reason: str) -> Place | None:
    """Return the module that makes a map, else one that passes it on, else one before a scaling."""
    fitting = [(name, passes_on) for name, passes_on in found.made_by if name in trace.outputs]
    if fitting:
        name = min(fitting, key=lambda pair: pair[1])[0]  # the innermost of each kind
        return _at(name, found, reason)
    if found.made_from in _SCALINGS and len(found.sources) == 1:
        (source,) = found.sources
        if source.is_feature_map and len(source.read_by) == 1:
            return _place(trace, source, reason)
    return None


def _at(name: str, found: Map, reason: str) -> Place:
    return Place(name, found.channels, found.size, found.is_channels_last, reason)


def _stages(trace: Trace) -> list[Place]:
    """Return where the stage of each size ends: everything after it depends on that one map.

    That is the first such map after the stage's last addition, or joint where it has none; later
    ones may belong to the next stage. A stage that has neither ends with its last map, if it
    comes after other stages, or no stage has additions or joints.
    """
    # The branches of a first layer are one layer.
    additions = [total for total, _ in trace.additions if total.depth > 1]
    joints = [total for total, _ in trace.joints if total.depth > 1]
    first = min((total.made_at for total in (*additions, *joints)), default=-1)
    last_of_tokens = max((t.made_at for t in additions if not t.is_feature_map), default=-1)
    learnt = {m.size for m in trace.maps if m.made_from in LEARNT and m.is_feature_map}
    cuts: dict[tuple[int, int], list[Map]] = {}
    for found in _cuts(trace):
        cuts.setdefault(found.size, []).append(found)
    places = []
    for size, maps in cuts.items():
        began, until = maps[0].made_at, maps[-1].made_at
        ends: list[Place | None] = []
        for totals in (additions, joints):
            inside = [total.made_at for total in totals if began <= total.made_at <= until]
            ends = ends or [_first_end(trace, maps, at) for at in reversed(inside)]
        if not ends and size in learnt and first < began and last_of_tokens < began:
            ends = [_placed(trace, found) for found in reversed(maps)]
        places += [end for end in ends if end is not None][:1]
    return places


def _first_end(trace: Trace, maps: list[Map], joined_at: int) -> Place | None:
    """Return the first map returned by a module that did the joining; else the first map."""
    after = [found for found in maps if found.made_at >= joined_at]

    def is_around(found: Map) -> bool:
        spans = [trace.spans[name] for name, _ in found.made_by if name != ""]
        return any(began < joined_at <= ended for began, ended in spans)

    after.sort(key=lambda found: not is_around(found))
    return next((place for found in after if (place := _placed(trace, found))), None)


def _placed(trace: Trace, found: Map) -> Place | None:
    return _place(trace, found, f"where the stage of {found.size[0]}×{found.size[1]} ends")


def _cuts(trace: Trace) -> Iterator[Map]:
    """Yield the feature maps through which everything passes: nothing made before is read after."""
    latest_read = -1
    for found in trace.maps:
        is_cut = latest_read <= found.made_at
        latest_read = max(latest_read, found.last_read)
        if is_cut and found.is_feature_map and found.depth and found.size != (1, 1):
            yield found


def _named(trace: Trace, patterns: Sequence[str]) -> list[Place]:
    chosen: dict[Map, Place] = {}  # a map is weighed once, also if several modules return it
    for pattern in patterns:
        names = fnmatch.filter([*trace.outputs, *trace.obstacles], pattern)
        if not names:
            known = list(trace.outputs)
            if pattern.lower().replace("-", "_").rstrip("s") in ("block", "stage", "last_of_stage"):
                known = list(_WHAT)
            raise unknown_name("module or place", pattern, known)
        fitting = [name for name in names if name in trace.outputs]
        if not fitting:
            name = names[0] or "the network itself"
            raise ConfigError(f"attention cannot go after {name}: {trace.obstacles[names[0]]}")
        for name in fitting:
            output = trace.outputs[name]
            chosen.setdefault(output, _at(name, output, f"named by '{pattern}'"))
    return [place for _, place in sorted(chosen.items(), key=lambda pair: pair[0].made_at)]

"""Where attention goes in a network: before residual additions, behind joints, at stages' ends.

A place is a module whose output is gated; the module is called once for an image and returns one
feature map. Nothing is known of any network by name; `watch` reads its operations.

Shapes: B images, C channels, H × W pixels.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from towernet.attention.fit import kind
from towernet.attention.trace import ADDITIONS, CHILD, LEARNT, Map, Tracer, trace
from towernet.errors import ConfigError
from towernet.registry import unknown_name

# Of a map and of numbers that do not come from the image: a layer's scale, a bias, new axes.
_SCALINGS = ADDITIONS | {"mul", "mul_", "__mul__", "__imul__", "__rmul__", "div", "permute"}


@dataclass(frozen=True)
class Place:
    """A module whose output attention can weigh.

    Args:
        name: The module, as in the network's state.
        channels: C of its output.
        size: H and W of its output, for the images it was watched with.
        channels_last: Whether the output's axes are B, H, W, C.
        reason: Why here, in words.
    """

    name: str
    channels: int
    size: tuple[int, int]
    channels_last: bool
    reason: str


def find_places(model: nn.Module, where: str | Sequence[str], *shape: int) -> list[Place]:
    """Return the places in the order they run.

    Args:
        model: The network.
        where: "blocks", "stages", "last-of-stage", or names of modules or patterns of names.
        shape: Of an input it takes, (B, C, H, W).

    Raises:
        ConfigError: there are none, or what is named is no place.
        UnknownNameError: no module has the name.
    """
    tracer = trace(model, *shape)
    if where == "blocks":
        places = _blocks(tracer)
    elif where == "last-of-stage":
        places = list({place.size: place for place in _blocks(tracer)}.values())
    elif where == "stages":
        places = _stages(tracer)
    else:
        return _named(tracer, [where] if isinstance(where, str) else where)
    if not places:
        raise ConfigError(
            f"{type(model).__name__} has no {_WHAT[where]}: {_why_none(tracer)}; name modules"
            " whose output is a feature map, if it has any"
        )
    return places


_WHAT = {
    "blocks": "place before a residual addition, behind a joint of branches or at a stage's end",
    "last-of-stage": "place before a stage's last addition, joint or end",
    "stages": "stage that ends in one map",
}


def require_names(model: nn.Module, where: object) -> None:
    """Refuse what is no name and no list of names, and an empty list."""
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


def _why_none(tracer: Tracer) -> str:
    if not any(found.is_feature_map and found.depth for found in tracer.all):
        return "it has no feature maps with a height and a width"
    if 2 * sum(not total.is_feature_map for total, _ in tracer.additions) > len(tracer.additions):
        return "its features are tokens, which have no height and no width"
    return "no module returns such a map alone, called once"


def _blocks(tracer: Tracer) -> list[Place]:
    """Return places before residual additions; at sizes that have none, behind joints.

    Where a network has neither, at stages' ends.
    """
    found = _residual(tracer)
    sizes = {place.size for place, _ in found.values()}
    for name, (place, at) in _joined(tracer).items():
        if place.size not in sizes:
            found.setdefault(name, (place, at))
    if not found and not tracer.additions:
        return _stages(tracer)
    places = [place for place, _ in sorted(found.values(), key=lambda pair: pair[1])]
    # Maps of one pixel, or of one channel, in the middle of a network are parts of its own gates.
    return [place for place in places if place.size != (1, 1) and place.channels > 1] or places


def _residual(tracer: Tracer) -> dict[str, tuple[Place, int]]:
    """Return places by module, each with when its map was made."""
    found: dict[str, tuple[Place, int]] = {}
    for total, where in tracer.additions:
        branch = None if _is_part_of_a_sum(total) else _branch(*total.sources)
        if branch is not None and branch.is_feature_map:
            place = _place(tracer, branch, f"before the addition in {where or 'the network'}")
            if place is not None:
                found.setdefault(place.name, (place, branch.made_at))
    return found


def _is_part_of_a_sum(total: Map) -> bool:
    return len(total.read_by) == 1 and total.read_by[0] in ADDITIONS


def _branch(first: Map, second: Map) -> Map | None:
    """Return which of two summands is the branch; None where neither is a shortcut.

    From where they parted, a shortcut has at most half as many learnt layers as the branch. A
    pooling has none either: what is made of the other summand is the branch.
    """
    shortcut, branch = sorted((first, second), key=lambda m: (m.depth, m.made_at))
    before_branch = branch.comes_from()
    if _unscaled(shortcut) in before_branch:
        return branch
    parted = max((m.depth for m in shortcut.comes_from() & before_branch), default=0)
    is_shortcut = 2 * (shortcut.depth - parted) <= branch.depth - parted
    return branch if is_shortcut and branch.depth > shortcut.depth else None


def _unscaled(found: Map) -> Map:
    while found.made_from in _SCALINGS and len(found.sources) == 1:
        (found,) = found.sources
    return found


def _joined(tracer: Tracer) -> dict[str, tuple[Place, int]]:
    """Return places by module, each with when its map was made."""
    found: dict[str, tuple[Place, int]] = {}
    for _, where in (*tracer.additions, *tracer.joints):
        if tracer.can_hold(where):
            output = tracer.returned[where]
            assert output is not None
            if output.depth < 2:  # the branches of a first layer are one layer
                continue
            place = _place(tracer, output, f"behind the branches joined in {where}")
            if place is not None:
                found.setdefault(place.name, (place, output.made_at))
    return found


def _place(tracer: Tracer, found: Map, reason: str) -> Place | None:
    """Return the module that makes a map, else one that passes it on, else one before a scaling."""
    fitting = [(name, passes_on) for name, passes_on in found.made_by if tracer.can_hold(name)]
    if fitting:
        name = min(fitting, key=lambda pair: pair[1])[0]  # the innermost of each kind
        return _at(name, found, reason)
    if found.made_from in _SCALINGS and len(found.sources) == 1:
        (source,) = found.sources
        if source.is_feature_map and len(source.read_by) == 1:
            return _place(tracer, source, reason)
    return None


def _at(name: str, found: Map, reason: str) -> Place:
    return Place(name, found.channels, found.size, found.is_channels_last, reason)


def _stages(tracer: Tracer) -> list[Place]:
    """Return where the stage of each size ends: behind it, all hangs on that one map.

    That is the first such map behind the stage's last addition, or joint where it has none; what
    comes after it may belong to the next stage. A stage that has neither ends with its last map,
    if it comes behind others, or no stage has any.
    """
    # The branches of a first layer are one layer.
    additions = [total for total, _ in tracer.additions if total.depth > 1]
    joints = [total for total, _ in tracer.joints if total.depth > 1]
    first = min((total.made_at for total in (*additions, *joints)), default=-1)
    last_of_tokens = max((t.made_at for t in additions if not t.is_feature_map), default=-1)
    learnt = {m.size for m in tracer.all if m.made_from in LEARNT and m.is_feature_map}
    cuts: dict[tuple[int, int], list[Map]] = {}
    for found in _cuts(tracer):
        cuts.setdefault(found.size, []).append(found)
    places = []
    for size, maps in cuts.items():
        began, until = maps[0].made_at, maps[-1].made_at
        ends: list[Place | None] = []
        for totals in (additions, joints):
            inside = [total.made_at for total in totals if began <= total.made_at <= until]
            ends = ends or [_first_end(tracer, maps, at) for at in reversed(inside)]
        if not ends and size in learnt and first < began and last_of_tokens < began:
            ends = [_placed(tracer, found) for found in reversed(maps)]
        places += [end for end in ends if end is not None][:1]
    return places


def _first_end(tracer: Tracer, maps: list[Map], joined_at: int) -> Place | None:
    """Return the first map that a module returns in which something was joined; else the first."""
    behind = [found for found in maps if found.made_at >= joined_at]

    def is_around(found: Map) -> bool:
        spans = [tracer.spans[name] for name, _ in found.made_by if name != ""]
        return any(began < joined_at <= ended for began, ended in spans)

    behind.sort(key=lambda found: not is_around(found))
    return next((place for found in behind if (place := _placed(tracer, found))), None)


def _placed(tracer: Tracer, found: Map) -> Place | None:
    return _place(tracer, found, f"where the stage of {found.size[0]}×{found.size[1]} ends")


def _cuts(tracer: Tracer) -> Iterator[Map]:
    """Yield the feature maps through which everything passes: nothing made before is read after."""
    latest_read = -1
    for found in tracer.all:
        is_cut = latest_read <= found.made_at
        latest_read = max(latest_read, found.last_read)
        if is_cut and found.is_feature_map and found.depth and found.size != (1, 1):
            yield found


def _named(tracer: Tracer, patterns: Sequence[str]) -> list[Place]:
    chosen: dict[Map, Place] = {}  # a map is weighed once, whatever returns it
    for pattern in patterns:
        names = fnmatch.filter(tracer.modules, pattern)
        if not names:
            known = [name for name in tracer.modules if tracer.can_hold(name)]
            if pattern.lower().replace("-", "_").rstrip("s") in ("block", "stage", "last_of_stage"):
                known = list(_WHAT)
            raise unknown_name("module or place", pattern, known)
        fitting = [name for name in names if tracer.can_hold(name)]
        if not fitting:
            what = names[0] or "the network itself"
            why = _why_not(tracer, names[0])
            raise ConfigError(f"attention cannot stand behind {what}: {why}")
        for name in fitting:
            output = tracer.returned[name]
            assert output is not None
            chosen.setdefault(output, _at(name, output, f"named by '{pattern}'"))
    return [place for _, place in sorted(chosen.items(), key=lambda pair: pair[0].made_at)]


def _why_not(tracer: Tracer, name: str) -> str:
    if CHILD in name.split("."):
        return "it is attention itself; name the module it stands behind"
    if tracer.calls[name] == 0:
        return "it is not called; name a module that is"
    if tracer.calls[name] > 1:
        return f"it is called {tracer.calls[name]} times for one image; name the module around it"
    if tracer.is_container(name):
        return "it calls its children in turn; name the last of them"
    return "its output is no feature map (B, C, H, W); name a module that returns one"

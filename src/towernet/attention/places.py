"""Where attention goes in a network, found by watching one image's shapes flow through it.

Nothing is known of any network by name: what is added to what, what is joined, and where all that
follows hangs on one map alone, is read off the operations. A place is a module whose output is
gated; the module is called once for an image and returns one feature map.

Shapes: B images, C channels, H × W pixels.
"""

from __future__ import annotations

import fnmatch
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from towernet.errors import ConfigError, in_one_line
from towernet.registry import unknown_name
from towernet.shapes import run_on_meta

# They call their children in turn: what is put into them would be called, too.
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_LEARNT = {"conv1d", "conv2d", "conv3d", "conv_transpose2d", "linear"}
_ADDITIONS = {"add", "add_", "__add__", "__iadd__", "__radd__"}
_JOINTS = {"cat", "concat", "concatenate"}


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


@dataclass
class _Map:
    """What is known of one tensor; what is changed in place becomes another."""

    shape: tuple[int, ...]
    made_at: int
    depth: int  # the most learnt layers on a way to it
    layout: str | None  # "H W": these axes come last; "C": the channels do
    made_by: list[str] = field(default_factory=list)  # modules that return it, innermost first
    last_read: int = -1

    @property
    def is_feature_map(self) -> bool:
        return len(self.shape) == 4 and self.layout is not None

    @property
    def channels(self) -> int:
        return self.shape[3] if self.layout == "C" else self.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.shape[1:3] if self.layout == "C" else self.shape[2:]
        return height, width


class _Watcher(TorchFunctionMode):
    """Keeps a record of every tensor that comes from the image."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.maps: dict[int, _Map] = {}
        self.all: list[_Map] = []
        self.kept: list[Tensor] = []  # a tensor that is gone would lend its identity to another
        self.clock = 0
        self.additions: list[tuple[_Map, _Map, str]] = []
        self.joints: list[str] = []
        self.running: list[str] = []
        self.calls: Counter[str] = Counter()
        self.returned: dict[str, _Map | None] = {}
        self.learnt_at: set[tuple[int, int]] = set()
        self.modules = dict(model.named_modules())

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation, and note what it read and made."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        read = [(t, self.maps[id(t)]) for t in _tensors([*args, *kwargs.values()])
                if id(t) in self.maps]  # fmt: skip
        versions = [tensor._version for tensor, _ in read]
        result = func(*args, **kwargs)
        made = _tensors([result])
        if not made or not read:  # asking for a shape reads nothing
            return result
        self.clock += 1
        sources = [source for _, source in read]
        for source in sources:
            source.last_read = self.clock
        if name in _ADDITIONS and len(sources) == 2 and sources[0].shape == sources[1].shape:
            # What was cut into windows and put together again has lost its axes' names.
            layout = sources[0].layout or sources[1].layout
            sources[0].layout = sources[1].layout = layout
            self.additions.append((sources[0], sources[1], self._where()))
            self.joints.append(self._where())
        elif name in _JOINTS:
            self.joints.append(self._where())
        depth = max(source.depth for source in sources) + (name in _LEARNT)
        unchanged = {
            id(tensor)
            for (tensor, _), version in zip(read, versions, strict=True)
            if tensor._version == version
        }
        for tensor in made:
            if id(tensor) not in unchanged:
                new = self._add(tensor, depth, _layout(name, tensor, sources, args, kwargs))
                if name in _LEARNT and new.is_feature_map:
                    self.learnt_at.add(new.size)
        return result

    def _add(self, tensor: Tensor, depth: int, layout: str | None) -> _Map:
        self.kept.append(tensor)
        new = _Map(tuple(tensor.shape), self.clock, depth, layout)
        self.maps[id(tensor)] = new
        self.all.append(new)
        return new

    def enter(self, name: str, inputs: tuple[Any, ...]) -> None:
        self.running.append(name)
        if name == "":
            for tensor in _tensors(inputs):
                self._add(tensor, 0, "H W")

    def leave(self, name: str, inputs: tuple[Any, ...], output: Any) -> None:
        self.running.pop()
        self.calls[name] += 1
        if not isinstance(output, Tensor):
            self.returned[name] = None
            return
        if id(output) not in self.maps:
            # An operation that torch functions do not see, such as an autograd.Function.
            known = [self.maps[id(t)] for t in _tensors(inputs) if id(t) in self.maps]
            if known:
                self.clock += 1
                for source in known:
                    source.last_read = self.clock
                layout = known[0].layout if output.dim() == len(known[0].shape) else None
                self._add(output, max(source.depth for source in known), layout)
        found = self.maps.get(id(output))
        self.returned[name] = found
        if found is not None:
            found.made_by.append(name)

    def _where(self) -> str:
        """Return the innermost running module that is no container."""
        names = (n for n in reversed(self.running) if not self._is_container(n))
        return next(names, "")

    def _is_container(self, name: str) -> bool:
        return isinstance(self.modules[name], CONTAINERS)

    def can_hold(self, name: str) -> bool:
        """Whether a module can be a place: called once, one feature map, no container."""
        found = self.returned.get(name)
        return (
            name != ""
            and self.calls[name] == 1
            and found is not None
            and found.is_feature_map
            and not self._is_container(name)
        )

    def place(self, found: _Map, reason: str) -> Place | None:
        """Return the first module that returns a map and can be a place."""
        for name in found.made_by:
            if self.can_hold(name):
                return Place(name, found.channels, found.size, found.layout == "C", reason)
        return None


def watch(model: nn.Module, *shape: int) -> _Watcher:
    """Send the shape of an input through a network and note what happens.

    Raises:
        ConfigError: the network cannot be run on it.
    """
    watcher = _Watcher(model)
    hooks = []
    for name, module in model.named_modules():
        hooks.append(
            module.register_forward_pre_hook(
                lambda module, inputs, name=name: watcher.enter(name, inputs)
            )
        )
        hooks.append(
            module.register_forward_hook(
                lambda module, inputs, output, name=name: watcher.leave(name, inputs, output)
            )
        )
    try:
        with watcher:
            run_on_meta(model, *shape)
    except Exception as error:  # each network says it in its own way
        raise ConfigError(
            f"{type(model).__name__} cannot be run on an input of shape {shape}"
            f" ({in_one_line(error)[:200]}); give input_shape=(1, channels, height, width) that it"
            " takes"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return watcher


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
    watcher = watch(model, *shape)
    if where == "blocks":
        places = [place for place, _ in _blocks(watcher)]
    elif where == "last-of-stage":
        places = list({place.size: place for place, _ in _blocks(watcher)}.values())
    elif where == "stages":
        places = _stages(watcher)
    else:
        return _named(watcher, [where] if isinstance(where, str) else where)
    if not places:
        raise ConfigError(
            f"{type(model).__name__} has no {_WHAT[where]}: {_why_none(watcher)}; name modules"
            " whose output is a feature map, if it has any"
        )
    return places


_WHAT = {
    "blocks": "place before a residual addition, behind a joint of branches or at a stage's end",
    "last-of-stage": "place before a stage's last addition, joint or end",
    "stages": "stage that ends in one map",
}


def _why_none(watcher: _Watcher) -> str:
    if not any(found.is_feature_map and found.depth for found in watcher.all):
        return "it has no feature maps with a height and a width"
    if any(len(found.shape) == 3 and found.depth for found in watcher.all):
        return "its features are tokens, which have no height and no width"
    return "no module returns such a map alone, called once"


def _blocks(watcher: _Watcher) -> list[tuple[Place, int]]:
    """Return places before residual additions; else behind joints; else at stages' ends."""
    found = _residual(watcher) or _joined(watcher)
    if found or watcher.additions:  # of tokens
        return found
    return [(place, i) for i, place in enumerate(_plain_stages(watcher))]


def _residual(watcher: _Watcher) -> list[tuple[Place, int]]:
    found: dict[str, tuple[Place, int]] = {}
    for first, second, where in watcher.additions:
        branch, shortcut = sorted((first, second), key=lambda m: (m.depth, m.made_at))[::-1]
        # Of branches of the same depth none is the shortcut.
        if not branch.is_feature_map or branch.depth == shortcut.depth:
            continue
        place = watcher.place(branch, f"before the addition in {where or 'the network'}")
        if place is not None:
            found.setdefault(place.name, (place, branch.made_at))
    return _in_order(found)


def _joined(watcher: _Watcher) -> list[tuple[Place, int]]:
    found: dict[str, tuple[Place, int]] = {}
    for where in watcher.joints:
        if watcher.can_hold(where):
            output = watcher.returned[where]
            assert output is not None
            place = watcher.place(output, f"behind the branches joined in {where}")
            if place is not None:
                found.setdefault(place.name, (place, output.made_at))
    return _in_order(found)


def _in_order(found: dict[str, tuple[Place, int]]) -> list[tuple[Place, int]]:
    places = sorted(found.values(), key=lambda pair: pair[1])
    # A map of one pixel in the middle of a network belongs to a gate of its own.
    return [pair for pair in places if pair[0].size != (1, 1)] or places


def _stages(watcher: _Watcher) -> list[Place]:
    """Return the first map behind the last block of each size on which all that follows hangs."""
    last_block = {place.size: at for place, at in _residual(watcher) or _joined(watcher)}
    if not last_block:
        return [] if watcher.additions else _plain_stages(watcher)
    ends: dict[tuple[int, int], Place] = {}
    for found in _cuts(watcher):
        if found.size not in ends and found.made_at >= last_block.get(found.size, math.inf):
            place = watcher.place(found, _end_of(found))
            if place is not None:
                ends[found.size] = place
    return list(ends.values())


def _plain_stages(watcher: _Watcher) -> list[Place]:
    """Return the last map of each size on which all that follows hangs, blocks or none."""
    ends: dict[tuple[int, int], Place] = {}
    for found in _cuts(watcher):
        place = watcher.place(found, _end_of(found))
        if place is not None and found.size in watcher.learnt_at:
            ends[found.size] = place
    return list(ends.values())


def _end_of(found: _Map) -> str:
    return f"where the stage of {found.size[0]}×{found.size[1]} ends"


def _cuts(watcher: _Watcher) -> Iterator[_Map]:
    """Yield the feature maps through which everything passes: nothing made before is read after."""
    latest_read = -1
    for found in watcher.all:
        is_cut = latest_read <= found.made_at
        latest_read = max(latest_read, found.last_read)
        if is_cut and found.is_feature_map and found.depth and found.size != (1, 1):
            yield found


def _named(watcher: _Watcher, patterns: Iterable[str]) -> list[Place]:
    chosen: dict[str, Place] = {}
    for pattern in patterns:
        names = fnmatch.filter(watcher.modules, pattern)
        if not names:
            known = [name for name in watcher.modules if watcher.can_hold(name)]
            if pattern.replace("-", "_") in ("block", "stage", "last_of_stage"):
                known = list(_WHAT)
            raise unknown_name("module or place", pattern, known)
        fitting = [name for name in names if watcher.can_hold(name)]
        if not fitting:
            raise ConfigError(
                f"attention cannot stand behind {names[0]}: {_why_not(watcher, names[0])}"
            )
        for name in fitting:
            output = watcher.returned[name]
            assert output is not None
            is_last = output.layout == "C"
            reason = f"named by '{pattern}'"
            chosen[name] = Place(name, output.channels, output.size, is_last, reason)
    order = {name: i for i, name in enumerate(watcher.returned)}
    return sorted(chosen.values(), key=lambda place: order[place.name])


def _why_not(watcher: _Watcher, name: str) -> str:
    if watcher.calls[name] == 0:
        return "it is not called; name a module that is"
    if watcher.calls[name] > 1:
        return f"it is called {watcher.calls[name]} times for one image; name the module around it"
    if isinstance(watcher.modules[name], CONTAINERS):
        return "it calls its children in turn; name the last of them"
    return "its output is no feature map (B, C, H, W); name a module that returns one"


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(value)
    return found


def _layout(
    name: str, made: Tensor, sources: list[_Map], args: Any, kwargs: dict[str, Any]
) -> str | None:
    """Return what is known of the order of a result's axes."""
    if name.startswith(("conv", "batch_norm", "pixel_")):
        return "H W" if made.dim() == 4 else None
    source = next((s for s in sources if s.layout is not None), None)
    if source is None:
        return None
    if name == "permute":
        given = args[1:] or (kwargs["dims"],)
        order = given[0] if isinstance(given[0], list | tuple) else given
        return _permuted(source.layout, [axis % made.dim() for axis in order])
    if name in ("transpose", "swapaxes"):
        order = list(range(made.dim()))
        first, second = (axis % made.dim() for axis in (args[1:] or kwargs.values()))
        order[first], order[second] = order[second], order[first]
        return _permuted(source.layout, order)
    if name in ("view", "reshape", "unflatten", "flatten"):
        # Channels in groups: the maps behind them are as they were.
        is_same = source.layout == "H W" and tuple(made.shape[-2:]) == source.shape[-2:]
        return "H W" if is_same and made.dim() >= 4 else None
    return source.layout if made.dim() == len(source.shape) else None


def _permuted(before: str | None, order: list[int]) -> str | None:
    last = len(order) - 1
    if before == "H W":
        if order[-2:] == [last - 1, last]:
            return "H W"
        return "C" if order == [0, 2, 3, 1] else None
    if order[-1] == last:
        return "C" if order == sorted(order) else None
    return "H W" if order == [0, 3, 1, 2] else None

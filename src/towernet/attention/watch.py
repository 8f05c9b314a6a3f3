"""What flows through a network: a record of every tensor that comes from one image's shape.

Nothing is known of any network by name: which axes of a tensor are pixels, and which modules
return it, is read off the operations.

Shapes: B images, C channels, H × W pixels, N = H·W.
"""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from towernet import torch_private
from towernet.attention.axes import (
    RESHAPES,
    VIEWS,
    Axes,
    broadcast,
    image,
    pixels,
    product,
    regrouped,
    unknown,
    viewed,
    with_channels,
)
from towernet.errors import ConfigError, in_one_line
from towernet.shapes import evaluating, run_on_meta

# The name that attention has in the module it stands behind.
CHILD = "added_attention"
# They call their children in turn: what is put into them would be called, too.
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
LEARNT = {"conv1d", "conv2d", "conv3d", "conv_transpose2d", "linear"}
ADDITIONS = {"add", "add_", "__add__", "__iadd__", "__radd__"}
_JOINTS = {"cat", "concat", "concatenate"}
_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
# Of matrices, each with how many tensors it multiplies.
_PRODUCTS = {"matmul": 2, "__matmul__": 2, "bmm": 2, "scaled_dot_product_attention": 3}


@dataclass(eq=False)
class Map:
    """What is known of one tensor; what is changed in place becomes another."""

    shape: tuple[int, ...]
    made_at: int
    made_from: str  # the operation
    sources: tuple[Map, ...]
    depth: int  # the most learnt layers on a way to it
    axes: Axes
    made_by: list[tuple[str, bool]] = field(default_factory=list)  # module, did it only pass it on
    read_by: list[str] = field(default_factory=list)  # operations
    last_read: int = -1

    @property
    def is_feature_map(self) -> bool:
        """Whether it is B, C, H, W or B, H, W, C."""
        return pixels(self.axes) is not None

    @property
    def is_channels_last(self) -> bool:
        """Whether it is B, H, W, C."""
        return pixels(self.axes) == (1, 2)

    @property
    def channels(self) -> int:
        """C of a feature map."""
        return self.shape[3] if self.is_channels_last else self.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """H and W of a feature map."""
        rows, columns = pixels(self.axes) or (2, 3)
        return self.shape[rows], self.shape[columns]

    def must_be_image(self) -> None:
        """Note that it is B, C, H, W, and so is what it was made of where no axis was moved."""
        if len(self.shape) == 4 and not self.is_feature_map:
            self.axes = image(self.shape)
            for source in self.sources:
                if self.made_from not in RESHAPES | VIEWS and source.shape[2:] == self.shape[2:]:
                    source.must_be_image()

    def comes_from(self) -> set[Map]:
        """Return itself and everything it was made of."""
        found, waiting = {self}, [self]
        while waiting:
            for source in waiting.pop().sources:
                if source not in found:
                    found.add(source)
                    waiting.append(source)
        return found


class Watcher(TorchFunctionMode):
    """Keeps a record of every tensor that comes from the image."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.modules = dict(model.named_modules())
        self.maps: dict[int, Map] = {}  # by the identity of the tensor
        self.all: list[Map] = []
        self.kept: list[Tensor] = []  # a tensor that is gone would lend its identity to another
        self.clock = 0
        self.additions: list[tuple[Map, str]] = []  # the sum, and the module that adds
        self.joints: list[tuple[Map, str]] = []
        self.running: list[tuple[str, int]] = []  # module, when it was called
        self.calls: Counter[str] = Counter()
        self.spans: dict[str, tuple[int, int]] = {}
        self.returned: dict[str, Map | None] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and note what it read and made."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        read = [(tensor, self.maps[id(tensor)])
                for tensor in tensors([*args, *kwargs.values()])
                if id(tensor) in self.maps]  # fmt: skip
        versions = [torch_private.num_changes(tensor) for tensor, _ in read]
        result = func(*args, **kwargs)
        changed = [tensor for (tensor, _), version in zip(read, versions, strict=True)
                   if torch_private.num_changes(tensor) != version]  # fmt: skip
        known = {id(tensor) for tensor, _ in read}
        made = changed + [tensor for tensor in tensors([result]) if id(tensor) not in known]
        if not made or not read:  # asking for a shape reads nothing, and dropout may do nothing
            return result
        sources = tuple(dict.fromkeys(source for _, source in read))
        if is_addition := _is_addition(name, sources):
            # What lost its axes' names on its way is of the same kind as what it is added to.
            first, second = sources
            first.axes = second.axes = broadcast([first.axes, second.axes], first.shape)
        if self._takes_images(name, args, kwargs):
            sources[0].must_be_image()
        self._read(sources, name)
        for tensor, axes in zip(made, self._axes(func, name, made, args, kwargs), strict=True):
            new = self._add(tensor, name, sources, axes)
            if is_addition:
                self.additions.append((new, self._where()))
            elif name in _JOINTS:
                self.joints.append((new, self._where()))
        return result

    def _read(self, sources: Iterable[Map], name: str) -> None:
        self.clock += 1
        for source in sources:
            source.last_read = self.clock
            source.read_by.append(name)

    def _add(self, tensor: Tensor, name: str, sources: tuple[Map, ...], axes: Axes) -> Map:
        self.kept.append(tensor)
        depth = max((source.depth for source in sources), default=0) + (name in LEARNT)
        new = Map(tuple(tensor.shape), self.clock, name, sources, depth, axes)
        self.maps[id(tensor)] = new
        self.all.append(new)
        return new

    def _axes(self, func: Any, name: str, made: list[Tensor], args: Any, kwargs: Any) -> list[Axes]:
        """Return what is known of the axes of what an operation made."""
        given = tensors([*args, *kwargs.values()])
        known = [self.maps[id(tensor)].axes for tensor in given if id(tensor) in self.maps]
        if name in VIEWS and len(given) == 1:
            return viewed(func, known[0], args[1:], kwargs)
        shapes = [tuple(tensor.shape) for tensor in made]
        if name in RESHAPES:
            return [regrouped(known[0], shape) for shape in shapes]
        if name in LEARNT:
            at = -1 if name == "linear" else 1
            return [with_channels(known[0], at, shape) for shape in shapes]
        if name in _PRODUCTS:
            left, *_, right = (
                self.maps[id(tensor)].axes if id(tensor) in self.maps else unknown(tensor.shape)
                for tensor in given[: _PRODUCTS[name]]
            )
            return [product(left, right, shape) for shape in shapes]
        return [broadcast(known, shape) for shape in shapes]

    def _takes_images(self, name: str, args: Any, kwargs: Any) -> bool:
        """Whether an operation is given B, C, H, W."""
        if name != "conv2d":
            return "pool2d" in name or name.startswith(("conv_transpose2d", "interpolate"))
        x, weight = tensors([*args, *kwargs.values()])[:2]
        if math.prod(weight.shape[2:]) > 1:
            return True
        # A 1×1 convolution may be given rows of tokens, whose proportions are not the image's.
        (height, width), (rows, columns) = self.all[0].shape[-2:], x.shape[-2:]
        return 2 / 3 < (rows * width) / (columns * height) < 3 / 2

    def enter(self, name: str, inputs: tuple[Any, ...]) -> None:
        """Note that a module begins; what the network itself is given is the image."""
        self.running.append((name, self.clock))
        if name == "":
            for tensor in tensors(inputs):
                self._add(tensor, "", (), image(tensor.shape))

    def leave(self, name: str, inputs: tuple[Any, ...], output: Any) -> None:
        """Note what a module returned."""
        _, began = self.running.pop()
        self.calls[name] += 1
        returned = tensors([output])
        unseen = [tensor for tensor in returned if id(tensor) not in self.maps]
        sources = tuple(self.maps[id(t)] for t in tensors(inputs) if id(t) in self.maps)
        if unseen and sources:
            # An operation that torch functions do not see, such as an autograd.Function.
            self._read(sources, name)
            for tensor in unseen:
                axes = broadcast([source.axes for source in sources], tensor.shape)
                self._add(tensor, name, sources, axes)
        self.spans[name] = began, self.clock
        for tensor in returned:
            if found := self.maps.get(id(tensor)):
                found.made_by.append((name, found.made_at <= began))
        self.returned[name] = self.maps.get(id(output)) if isinstance(output, Tensor) else None

    def _where(self) -> str:
        """Return the innermost running module that is no container."""
        names = (name for name, _ in reversed(self.running) if not self.is_container(name))
        return next(names, "")

    def is_container(self, name: str) -> bool:
        """Whether a module calls its children in turn."""
        return isinstance(self.modules[name], CONTAINERS)

    def can_hold(self, name: str) -> bool:
        """Whether attention can stand behind a module: called once, one feature map returned."""
        found = self.returned.get(name)
        return (
            name != ""
            and CHILD not in name.split(".")
            and self.calls[name] == 1
            and found is not None
            and found.is_feature_map
            and not self.is_container(name)
        )


def watch(model: nn.Module, *shape: int) -> Watcher:
    """Send the shape of an input through a network and note what happens.

    Where a network computes with numbers that are not its own on the way, which shapes alone do not
    have, an image of zeros is sent instead.

    Raises:
        ConfigError: the network cannot be run on it.
    """
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise ConfigError(f"{type(model).__name__} holds a network; give that, its .module")
    try:
        return _watched(model, lambda: run_on_meta(model, *shape))
    except Exception:  # each network says it in its own way
        try:
            return _watched(model, lambda: _run_on_zeros(model, *shape))
        except Exception as error:
            raise ConfigError(
                f"{type(model).__name__} cannot be run on an input of shape {shape}"
                f" ({in_one_line(error)[:200]}); {_remedy(model)}"
            ) from error


def _remedy(model: nn.Module) -> str:
    parameters = inspect.signature(model.forward).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind in _BY_POSITION]
    if len(needed) < 2:
        return "give input_shape=(1, channels, height, width) that it takes"
    return (
        f"places are found with one image and it takes {len(needed)} inputs, {', '.join(needed)}:"
        " attach to a part of it that takes an image alone"
    )


def _watched(model: nn.Module, run: Callable[[], Any]) -> Watcher:
    watcher = Watcher(model)
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
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return watcher


def _run_on_zeros(model: nn.Module, *shape: int) -> None:
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    image = torch.zeros(shape, device=like.device, dtype=like.dtype)
    with evaluating(model), torch.no_grad():
        model(image)


def tensors(values: Iterable[Any]) -> list[Tensor]:
    """Return the tensors among values, also those in lists."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += tensors(value)
    return found


def _is_addition(name: str, sources: tuple[Map, ...]) -> bool:
    return name in ADDITIONS and len(sources) == 2 and sources[0].shape == sources[1].shape

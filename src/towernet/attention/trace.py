"""What flows through a network: a record of every tensor that comes from one image's shape.

No network is known by its name: which axes of a tensor are pixels, and which modules return it,
follows from the operations.

Shapes: B images, C channels, H × W pixels, N = H·W.
"""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from towernet.attention.inserted import CHILD
from towernet.errors import ConfigError, first_line_of
from towernet.shapes import evaluating, run_on_meta

DEFAULT_SIZE_PX = 224
# They call all their children, one after another: a block put into one would be called, too.
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
LEARNT = {"conv1d", "conv2d", "conv3d", "conv_transpose2d", "linear"}
ADDITIONS = {"add", "add_", "__add__", "__iadd__", "__radd__"}
_JOINTS = {"cat", "concat", "concatenate"}
_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
# Of matrices, each with how many tensors it multiplies.
_PRODUCTS = {"matmul": 2, "__matmul__": 2, "bmm": 2, "scaled_dot_product_attention": 3}


@dataclass(eq=False)
class Map:
    """What is known of one tensor; a tensor changed in place gets a second record."""

    shape: tuple[int, ...]
    made_at: int
    made_from: str  # the operation
    sources: tuple[Map, ...]
    depth: int  # the largest number of learnt layers on a path to it
    axes: Axes
    made_by: list[tuple[str, bool]] = field(default_factory=list)  # module, whether it passed it on
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
        """Record that it is B, C, H, W, and so are its sources where no axis was moved."""
        if len(self.shape) == 4 and not self.is_feature_map:
            self.axes = image(self.shape)
            for source in self.sources:
                if self.made_from not in RESHAPES | VIEWS and source.shape[2:] == self.shape[2:]:
                    source.must_be_image()

    def comes_from(self) -> set[Map]:
        """Return itself and everything it was made from."""
        found, waiting = {self}, [self]
        while waiting:
            for source in waiting.pop().sources:
                if source not in found:
                    found.add(source)
                    waiting.append(source)
        return found


@dataclass(frozen=True)
class Trace:
    """What happened while one image's shape went through a network.

    Args:
        network: The name of the network's class.
        maps: Every tensor that comes from the image, in the order they were made.
        additions: The result of each addition of two maps, and the module that adds.
        joints: The result of each concatenation, and the module that concatenates.
        spans: When each module was called and when it returned.
        returned: The map each module returned; None where it returned anything else.
        outputs: Of the modules whose output attention can weigh, that output.
        obstacles: Of all other modules, why attention cannot weigh theirs.
    """

    network: str
    maps: Sequence[Map]
    additions: Sequence[tuple[Map, str]]
    joints: Sequence[tuple[Map, str]]
    spans: Mapping[str, tuple[int, int]]
    returned: Mapping[str, Map | None]
    outputs: Mapping[str, Map]
    obstacles: Mapping[str, str]


class _Tracer(TorchFunctionMode):
    """Keeps a record of every tensor that comes from the image."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.modules = dict(model.named_modules())
        self.maps: dict[int, Map] = {}  # by the identity of the tensor
        self.all: list[Map] = []
        self.kept: list[Tensor] = []  # once freed, its identity could be that of another tensor
        self.clock = 0
        self.additions: list[tuple[Map, str]] = []  # the sum, and the module that adds
        self.joints: list[tuple[Map, str]] = []
        self.running: list[tuple[str, int]] = []  # module, when it was called
        self.calls: Counter[str] = Counter()
        self.spans: dict[str, tuple[int, int]] = {}
        self.returned: dict[str, Map | None] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and record what it read and made."""
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
        if not made or not read:  # a query of a shape reads nothing, and dropout may do nothing
            return result
        sources = tuple(dict.fromkeys(source for _, source in read))
        if is_addition := _is_addition(name, sources):
            # A map whose axes were lost on the way has the axes of the one it is added to.
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
        """Return what is known of the axes of an operation's results."""
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
        """Whether the input of an operation is B, C, H, W."""
        if name != "conv2d":
            return "pool2d" in name or name.startswith(("conv_transpose2d", "interpolate"))
        x, weight = tensors([*args, *kwargs.values()])[:2]
        if math.prod(weight.shape[2:]) > 1:
            return True
        # A 1×1 convolution may get rows of tokens, whose proportions are not the image's.
        (height, width), (rows, columns) = self.all[0].shape[-2:], x.shape[-2:]
        return 2 / 3 < (rows * width) / (columns * height) < 3 / 2

    def enter(self, name: str, inputs: tuple[Any, ...]) -> None:
        """Record that a module starts; the input of the network itself is the image."""
        self.running.append((name, self.clock))
        if name == "":
            for tensor in tensors(inputs):
                self._add(tensor, "", (), image(tensor.shape))

    def leave(self, name: str, inputs: tuple[Any, ...], output: Any) -> None:
        """Record what a module returned."""
        _, began = self.running.pop()
        self.calls[name] += 1
        returned = tensors([output])
        unseen = [tensor for tensor in returned if id(tensor) not in self.maps]
        sources = tuple(self.maps[id(t)] for t in tensors(inputs) if id(t) in self.maps)
        if unseen and sources:
            # An operation that a TorchFunctionMode does not see, such as an autograd.Function.
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
        names = (name for name, _ in reversed(self.running) if not self._is_container(name))
        return next(names, "")

    def _is_container(self, name: str) -> bool:
        return isinstance(self.modules[name], _CONTAINERS)

    def trace(self) -> Trace:
        """Return the record."""
        outputs: dict[str, Map] = {}
        obstacles: dict[str, str] = {}
        for name in self.modules:
            found = self.returned.get(name)
            if obstacle := self._obstacle(name, found):
                obstacles[name] = obstacle
            elif found is not None:
                outputs[name] = found
        return Trace(
            type(self.modules[""]).__name__,
            self.all,
            self.additions,
            self.joints,
            self.spans,
            self.returned,
            outputs,
            obstacles,
        )

    def _obstacle(self, name: str, found: Map | None) -> str:
        """Return why attention cannot weigh a module's output, '' where it can."""
        if CHILD in name.split("."):
            return "it belongs to an attention block; name the module before the block"
        if self.calls[name] == 0:
            return "it is not called; name a module that is"
        if self.calls[name] > 1:
            return (
                f"it is called {self.calls[name]} times per image; name the module that contains it"
            )
        if self._is_container(name):
            return "it only calls its children one after another; name the last of them"
        if found is None or not found.is_feature_map:
            return "its output is no feature map (B, C, H, W); name a module that returns one"
        return "" if name else "name a module inside it"


def trace(model: nn.Module, input_shape: Sequence[int] | None = None) -> Trace:
    """Send the shape of an input through a network and record what happens.

    Some networks compute with numbers, which shapes alone do not have; they get an image of zeros.

    Args:
        model: The network.
        input_shape: Of an input it takes, (B, C, H, W). None: what it states itself, else 224 px.

    Raises:
        ConfigError: the network cannot be run on it.
    """
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise ConfigError(f"{type(model).__name__} wraps a network; pass that network, its .module")
    shape = _own_input_shape(model) if input_shape is None else input_shape
    try:
        return _traced(model, lambda: run_on_meta(model, *shape))
    except Exception:  # each network fails in its own way
        try:
            return _traced(model, lambda: _run_on_zeros(model, *shape))
        except Exception as error:
            raise ConfigError(
                f"{type(model).__name__} cannot be run on an input of shape {tuple(shape)}"
                f" ({first_line_of(error)[:200]}); {_remedy(model)}"
            ) from error


def _own_input_shape(model: nn.Module) -> tuple[int, int, int, int]:
    config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    size = config.get("input_size") if isinstance(config, dict) else None
    channels, height, width = size or (3, DEFAULT_SIZE_PX, DEFAULT_SIZE_PX)
    first = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), channels)
    # The first convolution may read what was computed from the image, such as pixels put into
    # channels.
    if first != channels and _runs_on(model, 1, first, height, width):
        channels = first
    return 1, channels, height, width


def _runs_on(model: nn.Module, *shape: int) -> bool:
    try:
        run_on_meta(model, *shape)
    except Exception:  # each network fails in its own way
        return False
    return True


def _remedy(model: nn.Module) -> str:
    parameters = inspect.signature(model.forward).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind in _BY_POSITION]
    if len(needed) < 2:
        return "give input_shape=(1, channels, height, width) that it takes"
    return (
        f"the network takes {len(needed)} inputs ({', '.join(needed)}), but tracing uses a single"
        " image: attach to a part of it that takes only an image"
    )


def _traced(model: nn.Module, run: Callable[[], Any]) -> Trace:
    tracer = _Tracer(model)
    hooks = []
    for name, module in model.named_modules():
        hooks.append(
            module.register_forward_pre_hook(
                lambda module, inputs, name=name: tracer.enter(name, inputs)
            )
        )
        hooks.append(
            module.register_forward_hook(
                lambda module, inputs, output, name=name: tracer.leave(name, inputs, output)
            )
        )
    try:
        with tracer:
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return tracer.trace()


def _run_on_zeros(model: nn.Module, *shape: int) -> None:
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    zeros = torch.zeros(shape, device=like.device, dtype=like.dtype)
    with evaluating(model), torch.no_grad():
        model(zeros)


def tensors(values: Iterable[Any]) -> list[Tensor]:
    """Return the tensors among values, including those in lists."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += tensors(value)
    return found


def _is_addition(name: str, sources: tuple[Map, ...]) -> bool:
    return name in ADDITIONS and len(sources) == 2 and sources[0].shape == sources[1].shape

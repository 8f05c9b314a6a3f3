"""Attention put into a network that is built already, from scratch or trained, and taken out again.

The network's own modules stay where they are and keep their names, so its weights load before and
after. A block is a child of the module whose output it weighs, called by a forward hook; export,
torch.compile, copying and state dicts treat it as any other module.

Shapes: B images, C channels, H × W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import torch
from jaxtyping import Float
from torch import Tensor, nn

from towernet import torch_private
from towernet.attention.base import ATTENTION, AttentionBlock
from towernet.attention.find import BLOCKS, attention_block
from towernet.attention.fit import builder_problem, built, kind, require_fit
from towernet.attention.places import Place, find_places, require_names
from towernet.attention.watch import CHILD
from towernet.errors import ConfigError
from towernet.names import block_and_options
from towernet.shapes import run_on_meta

DEFAULT_SIZE_PX = 224
Start = Literal["identity", "paper"]
Where = str | Sequence[str]


class FromIdentity(AttentionBlock):
    """Any block, blended in by one gain that starts at 0: x + gain·(block(x) − x).

    At its start it returns what comes in. The gain has a gradient from the first step, the block's
    parameters from the second. A block that shuffles channels leaves them in their order here: that
    permutation would be undone by the layer before it, and scrambles a trained network.

    Args:
        block: The block.

    Example:
        >>> from towernet.attention import ShuffleAttention
        >>> block, x = FromIdentity(ShuffleAttention(64)), torch.rand(2, 64, 7, 5)
        >>> bool((block(x) == x).all())
        True
    """

    starts_as_identity = True

    def __init__(self, block: AttentionBlock) -> None:
        super().__init__()
        self.block = block
        self.gain = nn.Parameter(torch.zeros(()))

    def attention_map(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B #C #H #W"]:
        """Return the block's map, as it would be at a gain of 1."""
        return self.block.attention_map(x_BCHW)

    def forward(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Return x + gain·(block(x) − x)."""
        return self.block.blend(x_BCHW, self.gain)


class OnChannelsLast(nn.Module):
    """A block for networks whose maps have the axes B, H, W, C (Swin, ConvNeXt's inside)."""

    def __init__(self, block: AttentionBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, x_BHWC: Float[Tensor, "B H W C"]) -> Float[Tensor, "B H W C"]:
        """Return the weighed map, with the same axes."""
        y_BHWC: Tensor = self.block(x_BHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return y_BHWC


@dataclass(frozen=True)
class Attached:
    """One block in a network.

    Args:
        place: Where, and why there.
        block: What was put there.
    """

    place: Place
    block: AttentionBlock

    @property
    def num_parameters(self) -> int:
        """Its trainable numbers."""
        return sum(parameter.numel() for parameter in self.block.parameters())


@torch.inference_mode(False)  # what is made in inference mode could not be trained
def attach(
    model: nn.Module,
    block: str | Callable[[int], AttentionBlock],
    where: Where = "blocks",
    *,
    start: Start = "identity",
    input_shape: tuple[int, int, int, int] | None = None,
) -> list[Attached]:
    """Put a block into a network at each of some places; the network is changed in place.

    Blocks are built as `block(channels)`, options by `functools.partial(CBAM, reduction=8)`. They
    take the number format, device, memory layout and mode of the modules they stand behind. What
    replaces modules by others (`SyncBatchNorm.convert_sync_batchnorm`, for one) goes first: a
    module that is replaced loses its attention.

    Args:
        model: A network of any library, trained or not.
        block: A name (`towernet attention` lists them; `package.module:Class` is one, too), a
            class, or a function of the number of channels.
        where: "blocks": before each residual addition (SA-Net's place), at map sizes that have none
            behind each joint of branches, where a network has neither at each stage's end.
            "stages": where a stage of one map size ends. "last-of-stage": only the last of a
            stage's "blocks". Else names of modules, or patterns such as "layer[34].*.bn3"; a star
            stands for anything, dots too.
        start: "identity": the network computes what it did before, by a gain that starts at 0
            (a block that starts as the identity by itself needs none). "paper": as its authors
            start the block.
        input_shape: Of an input the network takes, (1, channels, height, width). None: what the
            network says of itself, as timm's do, else 224 px.

    Returns:
        What was inserted, in the order it runs.

    Raises:
        UnknownNameError: no block or module has the name.
        ConfigError: there is no such place, the block does not fit one of them (it is tried on a
            map of each place's size, ours apart), or attention was attached there before. The
            network is as it was.

    Example:
        >>> from torchvision.models import resnet18
        >>> network = resnet18()
        >>> [attached.place.name for attached in attach(network, "shuffle", "last-of-stage")]
        ['layer1.1.bn2', 'layer2.1.bn2', 'layer3.1.bn2', 'layer4.1.bn2']
    """
    if start not in ("identity", "paper"):
        raise ConfigError(f"start is '{start}'; give 'identity' or 'paper'")
    _refuse_no_network(model)
    _refuse_programs(model)
    _refuse_broken(model)
    require_names(model, where)
    build = _builder(block)
    shape = _own_input_shape(model) if input_shape is None else input_shape
    if not (isinstance(shape, Sequence) and len(shape) == 4):
        raise ConfigError(f"input_shape is {shape}; give (1, channels, height, width)")
    places = find_places(model, where, *shape)
    inserted = []
    for place in places:  # all are built before the first is put in
        module = model.get_submodule(place.name)
        if hasattr(module, CHILD):
            raise ConfigError(f"{place.name} has attention already; detach it first")
        inserted.append(Attached(place, _built(build, place, start, model)))
    torch_private.watch_hooks_of_programs()
    for attached in inserted:
        _insert(model, attached)
    return inserted


def _refuse_no_network(model: object) -> None:
    if isinstance(model, nn.Module):
        return
    named = getattr(model, "__name__", None)
    what = f"'{named}', which builds one" if callable(model) and named else kind(model)
    raise ConfigError(
        f"the network is {what}; give one that is built, such as torchvision.models.resnet18()"
    )


def _builder(block: object) -> Callable[[int], AttentionBlock]:
    if isinstance(block, str):
        _, *options = block_and_options(block)
        if options:
            place = "@".join(options)
            raise ConfigError(f"the block is '{block}'; say the place beside it, where='{place}'")
        BLOCKS.trust(block)
        return attention_block(block)
    if not callable(block):
        raise ConfigError(
            f"the block is {kind(block)}; give a name such as 'se', a class derived from"
            " towernet.attention.AttentionBlock, or a function of the number of channels"
        )
    if problem := builder_problem(block):
        raise ConfigError(f"{getattr(block, '__name__', 'the block')} {problem}")
    return block


def _refuse_broken(model: nn.Module) -> None:
    """Refuse a network in which what `attach` put there was changed by halves."""
    for name, module in model.named_modules():
        name = name or "the network itself"
        child = getattr(module, CHILD, None)
        is_called = any(map(is_attention_hook, torch_private.forward_hooks(module)))
        if child is None and is_called:
            raise ConfigError(
                f"the attention behind {name} was taken away, and {name} calls it; detach(network)"
                " takes out the rest"
            )
        if isinstance(child, AttentionBlock | OnChannelsLast) and not is_called:
            raise ConfigError(
                f"the attention behind {name} is not called: {name} was put in the place of the"
                " module that called it, or lost its hooks; detach(network) takes it out, and"
                " attach comes after such changes"
            )


def _refuse_programs(model: nn.Module) -> None:
    for module in model.modules():
        if torch_private.is_compiled(module):
            raise ConfigError(
                "the network is compiled already; attach attention before torch.compile"
            )
        if isinstance(module, torch.jit.ScriptModule):
            raise ConfigError(
                "the network is a TorchScript program, in which nothing can be put; attach to the"
                " network it was made of"
            )


def detach(model: nn.Module) -> int:
    """Take out all that `attach` put in, or is left of it; return at how many places that was.

    Example:
        >>> from torchvision.models import resnet18
        >>> network = resnet18()
        >>> _ = attach(network, "shuffle")
        >>> detach(network)
        8
    """
    _refuse_no_network(model)
    num_places = 0
    for module in list(model.modules()):
        num_hooks = torch_private.remove_forward_hooks(module, is_attention_hook)
        if hasattr(module, CHILD):
            delattr(module, CHILD)
            num_places += 1
        else:
            num_places += bool(num_hooks)
    return num_places


def attention_blocks(model: nn.Module) -> dict[str, AttentionBlock]:
    """Return the attention blocks of a network by name, those inside others left out.

    Raises:
        ConfigError: one that was attached has since lost what calls it, or the other way round.
    """
    _refuse_no_network(model)
    _refuse_broken(model)
    found: dict[str, AttentionBlock] = {}
    for name, module in model.named_modules():
        if isinstance(module, AttentionBlock) and not _lies_in(name, found):
            found[name] = module
    return found


def attention_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """Return the parameters of a network's attention blocks."""
    for block in attention_blocks(model).values():
        yield from block.parameters()


class ParameterGroup(TypedDict):
    """A group of parameters as torch's optimisers take it."""

    params: list[nn.Parameter]
    weight_decay: float


def parameter_groups(model: nn.Module, *, weight_decay: float) -> list[ParameterGroup]:
    """Return parameters for an optimiser of torch, those of attention without weight decay.

    Decay pulls gates towards a half and gains towards 0.

    Example:
        >>> from torchvision.models import resnet18
        >>> network = resnet18()
        >>> _ = attach(network, "shuffle")
        >>> groups = parameter_groups(network, weight_decay=5e-4)
        >>> [(len(group["params"]), group["weight_decay"]) for group in groups]
        [(62, 0.0005), (56, 0.0)]
    """
    of_attention = set(attention_parameters(model))
    rest = [parameter for parameter in model.parameters() if parameter not in of_attention]
    return [
        {"params": rest, "weight_decay": weight_decay},
        {"params": [p for p in model.parameters() if p in of_attention], "weight_decay": 0.0},
    ]


def move_attention(before: nn.Module, now: nn.Module) -> None:
    """Put the attention that stands behind one module behind another, which takes its place."""
    if not hasattr(before, CHILD):
        return
    now.add_module(CHILD, before.get_submodule(CHILD))
    now.register_forward_hook(_weigh)


def is_attention_hook(hook: Any) -> bool:
    """Whether a forward hook is one of `attach`'s."""
    return hook is _weigh


def _weigh(module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    """Stand behind a module: a hook without a memory of its own, so that copies have theirs."""
    block = module.get_submodule(CHILD)
    if type(block) is FromIdentity and _is_nobody_elses(module, block):
        return block.block.blend_(output, block.gain)
    weighed: Tensor = block(output)
    return weighed


def _is_nobody_elses(module: nn.Module, block: nn.Module) -> bool:
    """Whether nobody but us holds what a module has just returned, nor asks the block for more."""
    return (
        not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and type(module) in _ALWAYS_NEW
        and "forward" not in vars(module)
        and torch_private.forward_hooks(module)[0] is _weigh
        and not torch_private.has_global_hook()
        and not torch_private.forward_pre_hooks(block)
        and not torch_private.forward_hooks(block)
        and "forward" not in vars(block)
        and not torch_private.calls_a_program(block)
        and not torch_private.is_watched()
    )


# Modules that return memory of their own, whatever comes in.
_ALWAYS_NEW = {nn.BatchNorm2d, nn.Conv2d, nn.GroupNorm}


def _built(
    build: Callable[[int], AttentionBlock], place: Place, start: Start, model: nn.Module
) -> AttentionBlock:
    """Return a block made ready for its place, and tried there."""
    try:
        block = built(build, place.channels)
        started = with_start(block, start)
        like = _adapt(started, model, place)
        if type(block) not in ATTENTION.values():  # ours are held to it by the tests
            shape = (2, place.channels, *place.size)
            require_fit(block, started, shape, like, as_identity=start == "identity")
    except ConfigError as error:
        raise ConfigError(f"at {place.name}, {error}") from error
    return started


def with_start(block: AttentionBlock, start: Start) -> AttentionBlock:
    """Return a block that starts as its authors do, or blended in from the identity."""
    if start == "paper" or block.starts_as_identity:
        return block
    block.wake()
    return FromIdentity(block)


def _adapt(block: AttentionBlock, model: nn.Module, place: Place) -> Tensor:
    """Make a block ready for its place; return a parameter of what stands there."""
    module = model.get_submodule(place.name)
    # A norm without weights, or a dropout, has none of its own: then as the network's first.
    like = next((p for p in (*module.parameters(), *model.parameters())
                 if p.is_floating_point()), None)  # fmt: skip
    if like is not None:
        block.to(like.device, like.dtype)
    if _is_channels_last(model):
        block.to(memory_format=torch.channels_last)
    block.train(module.training)
    return torch.zeros(()) if like is None else like


def _insert(model: nn.Module, attached: Attached) -> None:
    module = model.get_submodule(attached.place.name)
    child: nn.Module = attached.block
    if attached.place.channels_last:
        child = OnChannelsLast(attached.block).train(module.training)
    module.add_module(CHILD, child)
    module.register_forward_hook(_weigh)


def _is_channels_last(model: nn.Module) -> bool:
    weights = (m.weight for m in model.modules() if isinstance(m, nn.Conv2d))
    return any(
        weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
        for weight in weights
    )


def _own_input_shape(model: nn.Module) -> tuple[int, int, int, int]:
    config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    size = config.get("input_size") if isinstance(config, dict) else None
    channels, height, width = size or (3, DEFAULT_SIZE_PX, DEFAULT_SIZE_PX)
    first = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), channels)
    # Its first convolution may read what was made of the image, pixels put into channels for one.
    if first != channels and _runs_on(model, 1, first, height, width):
        channels = first
    return 1, channels, height, width


def _runs_on(model: nn.Module, *shape: int) -> bool:
    try:
        run_on_meta(model, *shape)
    except Exception:  # each network says it in its own way
        return False
    return True


def _lies_in(name: str, outer: dict[str, AttentionBlock]) -> bool:
    return any(name.startswith(f"{other}.") for other in outer)

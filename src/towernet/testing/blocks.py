"""The promises of an attention block, as checks that anyone can hold a block of their own to.

A check builds the block as `MyAttention(128)`, and with 24 channels where the block can be built
with so few.
Shapes: B images, C channels, H × W pixels.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from towernet.attention import AttentionBlock
from towernet.attention.fit import builder_problem, built, name_of, tensor_of
from towernet.testing.promises import Broken, difference, kept, require_close, without_gradient

CHANNELS, AWKWARD_CHANNELS = 128, 24
# A ReLU may be shut for one start and one input; it is not for all of these.
_STARTS = range(4, 9)
# A gain of 0 hides the block for a step; so does a last layer of zeros what lies before it.
_STEPS = 2

# Autocast and conversion ask for the same: one advice for both.
_INSIDE = (
    "compute in the parameters' number format, x.to(self.weight.dtype) for one (x.float() where it"
    " has none)"
)

BuildBlock = Callable[[int], AttentionBlock]
Check = Callable[[BuildBlock], None]
Shape = tuple[int, int, int, int]


def _promise(
    promise: str, *, remedy: str = "", maps: Sequence[tuple[int, int, int]] = ((2, 7, 5),)
) -> Callable[[Callable[[BuildBlock, Shape], None]], Check]:
    """Return a decorator that turns what a check finds, or what a block raises, into a sentence.

    The check is done for each number of channels on each of `maps`: images, height and width.
    """

    def decorate(check: Callable[[BuildBlock, Shape], None]) -> Check:
        def checked(block_class: BuildBlock) -> None:
            """Raise ContractError where the block breaks the promise."""
            for channels in _sizes(block_class):
                for num_images, height, width in maps:
                    shape = (num_images, channels, height, width)
                    at = f"{check.__name__}, {channels} channels, on a map of {shape}"
                    with kept(f"{name_of(block_class)} does not {promise} ({at})", remedy):
                        check(block_class, shape)

        checked.__name__, checked.__doc__ = check.__name__, check.__doc__
        return checked

    return decorate


def build_block(block_class: BuildBlock, channels: int = CHANNELS, seed: int = 4) -> AttentionBlock:
    """Return a block whose parameters have left their start values; the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        block = block_class(channels)
        with torch.no_grad():
            for parameter in block.parameters():
                parameter.add_(torch.randn_like(parameter))
    return block


def feature_map(*shape: int, seed: int = 1) -> Tensor:
    """Return a map of normal numbers; the same for the same shape and seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@_promise("work as an attention block")
def check_interface(block_class: BuildBlock, shape: Shape) -> None:
    """It is built with a number of channels; it and its map answer with a tensor each."""
    if problem := builder_problem(block_class):
        raise Broken(f"it {problem}")
    block, x_BCHW = built(block_class, shape[1]), feature_map(*shape)
    name = type(block).__name__
    tensor_of(f"{name}.forward", block, x_BCHW)
    tensor_of(f"{name}.attention_map", block.attention_map, x_BCHW)


@_promise(
    "keep its input's shape",
    remedy="return a map as large as the one that came in",
    maps=((2, 5, 7), (2, 1, 1), (2, 1, 3)),
)
def check_shape(block_class: BuildBlock, shape: Shape) -> None:
    """Same shape out as in, down to one pixel; the attention map fits over the input."""
    block, x_BCHW = build_block(block_class, shape[1]), feature_map(*shape)
    found = tuple(block(x_BCHW).shape)
    if found != shape:
        raise Broken(f"{shape} came in and {found} went out")
    found = tuple(block.attention_map(x_BCHW).shape)
    if len(found) != 4 or not all(f in (1, w) for f, w in zip(found, shape, strict=True)):
        raise Broken(f"the attention map over {shape} is {found}")


@_promise(
    "weigh with numbers from 0 to 1",
    remedy="return them from attention_map, say by sigmoid",
    maps=((2, 5, 7),),
)
def check_gates(block_class: BuildBlock, shape: Shape) -> None:
    """The attention map lies between 0 and 1, and is not the same everywhere."""
    block, x_BCHW = build_block(block_class, shape[1]), feature_map(*shape)
    map_BCHW = block.attention_map(x_BCHW).detach()
    least, most = float(map_BCHW.min()), float(map_BCHW.max())
    if not 0 <= least < most <= 1:
        raise Broken(f"its attention map goes from {least:.3g} to {most:.3g}")


@_promise(
    "treat each image on its own",
    remedy="take no statistics over the batch in evaluation mode",
    maps=((4, 7, 5),),
)
def check_batch_independence(block_class: BuildBlock, shape: Shape) -> None:
    """An image does not see its neighbours in the batch."""
    block = build_block(block_class, shape[1]).eval()
    x_BCHW = feature_map(*shape)
    require_close(
        block(x_BCHW)[2:3], block(x_BCHW[2:3]), "an image among others", rtol=1e-5, atol=1e-5
    )


@_promise(
    "pass a gradient to all its parts",
    remedy="take out what is not used, and detach() and no_grad() from what is",
)
def check_gradients(block_class: BuildBlock, shape: Shape) -> None:
    """The input and every parameter get a gradient, finite and not zero."""
    without: set[str] | None = None
    for seed in _STARTS:
        block = build_block(block_class, shape[1], seed)
        x_BCHW = feature_map(*shape, seed=seed).requires_grad_()
        (block(x_BCHW) * feature_map(*shape, seed=seed + 100)).sum().backward()
        missing = without_gradient({"the input": x_BCHW, **dict(block.named_parameters())})
        without = missing if without is None else without & missing
        if not without:
            break
    if without:
        raise Broken(f"none reaches {', '.join(sorted(without))}")


@_promise(
    "keep the memory layout", remedy="take out contiguous() and view(), or copy into x's layout"
)
def check_layout(block_class: BuildBlock, shape: Shape) -> None:
    """The memory layout that comes in goes out, and its gradient back, with the same numbers."""
    x_BCHW = feature_map(*shape)
    wanted_BCHW = build_block(block_class, shape[1])(x_BCHW)
    if not wanted_BCHW.is_contiguous():
        raise Broken("a contiguous map came in and another went out")
    x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last).requires_grad_()
    found_BCHW = build_block(block_class, shape[1])(x_BCHW)
    if not found_BCHW.is_contiguous(memory_format=torch.channels_last):
        raise Broken("a channels_last map came in and another went out")
    require_close(found_BCHW, wanted_BCHW, "the map in channels_last", rtol=1e-5, atol=1e-5)
    # Not backward(): what is accumulated in a leaf takes the leaf's layout.
    (grad_BCHW,) = torch.autograd.grad(found_BCHW, x_BCHW, torch.ones_like(found_BCHW))
    if not grad_BCHW.is_contiguous(memory_format=torch.channels_last):
        raise Broken("the gradient of a channels_last map lies in another layout")


@_promise(
    "compute its weights in full precision",
    remedy=f"leave autocast in forward by `with towernet.attention.full_precision(x.device.type):`,"
    f" as a GatedBlock does by itself, and there {_INSIDE}",
)
def check_autocast(block_class: BuildBlock, shape: Shape) -> None:
    """Under bf16 autocast a bf16 map stays one, and only its rounding shows, even far from 0."""
    x_BCHW = (feature_map(*shape) + 30).bfloat16()
    block = build_block(block_class, shape[1])
    with torch.autocast("cpu", torch.bfloat16):
        found_BCHW = block(x_BCHW)
    if found_BCHW.dtype != torch.bfloat16:
        raise Broken(f"under autocast a bf16 map became {_short(found_BCHW.dtype)}")
    wanted_BCHW = block(x_BCHW.float())
    # A gate may be rounded to the map's format before the product is: two or three roundings.
    require_close(
        found_BCHW.float(), wanted_BCHW, "a bf16 map under autocast", rtol=3 * 2**-8, atol=1e-3
    )


@_promise(
    "work in each number format",
    remedy=f"{_INSIDE}, and return the input's, y.to(x.dtype)",
)
def check_parameters_and_dtypes(block_class: BuildBlock, shape: Shape) -> None:
    """Converted as a whole or not at all, a block returns the format that it is given."""
    block, x_BCHW = build_block(block_class, shape[1]), feature_map(*shape)
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        for which, candidate in (
            (f"converted to {_short(dtype)}", copy.deepcopy(block).to(dtype)),
            ("left in fp32", block),
        ):
            y_BCHW = candidate(x_BCHW.to(dtype))
            if y_BCHW.dtype != dtype:
                raise Broken(
                    f"{which}, it was given {_short(dtype)} and returned {_short(y_BCHW.dtype)}"
                )
            if not torch.isfinite(y_BCHW).all():
                raise Broken(f"{which}, it returned numbers that are not finite")


@_promise(
    "give the same numbers after a round trip through its state",
    remedy="keep what it computes with in parameters and buffers",
)
def check_state(block_class: BuildBlock, shape: Shape) -> None:
    """A copy, and a fresh block with the old one's weights, compute what the old one does."""
    block, x_BCHW = build_block(block_class, shape[1]), feature_map(*shape)
    block(x_BCHW)  # in training mode: running statistics belong to the state
    wanted_BCHW = block.eval()(x_BCHW)
    require_close(copy.deepcopy(block)(x_BCHW), wanted_BCHW, "a deep copy", rtol=0.0, atol=0.0)
    fresh = build_block(block_class, shape[1], seed=5).eval()
    fresh.load_state_dict(copy.deepcopy(block.state_dict()))
    require_close(fresh(x_BCHW), wanted_BCHW, "the state in a fresh block", rtol=0.0, atol=0.0)


@_promise(
    "start where `starts_as_identity` and `blend` say",
    remedy="let blend(x, 0) be x, blend_ give what blend does, and the flag be true where"
    " Block(channels)(x) is x",
)
def check_identity(block_class: BuildBlock, shape: Shape) -> None:
    """`blend` goes from x at a gain of 0 to the block at 1; `starts_as_identity` keeps its word."""
    x_BCHW = feature_map(*shape)
    block = build_block(block_class, shape[1]).eval()
    least = 1e-5 * float(x_BCHW.abs().max())
    blended_BCHW = block.blend(x_BCHW, torch.tensor(0.0))
    require_close(blended_BCHW, x_BCHW, "blend with a gain of 0", rtol=0.0, atol=least)
    # A block may reorder the channels and its blend may not: at each position the numbers
    # are the same ones.
    blended_BCHW, y_BCHW = block.blend(x_BCHW, torch.tensor(1.0)), block(x_BCHW)
    require_close(
        blended_BCHW.sort(dim=1).values, y_BCHW.sort(dim=1).values,
        "blend with a gain of 1", rtol=1e-5, atol=1e-5,
    )  # fmt: skip

    with torch.no_grad():  # when nothing is trained, `attach` calls the other one
        gain = torch.tensor(0.7)
        blended_BCHW, over_BCHW = block.blend(x_BCHW, gain), block.blend_(x_BCHW.clone(), gain)
    require_close(over_BCHW, blended_BCHW, "blend_ beside blend", rtol=1e-5, atol=1e-5)

    fresh = block_class(shape[1]).eval()
    says, moved = fresh.starts_as_identity, difference(fresh(x_BCHW), x_BCHW)
    if says != (moved <= least):
        raise Broken(f"starts_as_identity is {says}, and as built it moves x by {moved:.2g}")


@_promise(
    "learn from where it is attached",
    remedy="use every parameter, and let wake() move the factors that start at 0",
    maps=((4, 7, 5),),
)
def check_trains(block_class: BuildBlock, shape: Shape) -> None:
    """Attached as the identity, every parameter and the gain have had a gradient by two steps."""
    without: set[str] | None = None
    for seed in _STARTS:
        missing = _without_gradient_in_training(block_class, shape, seed)
        without = missing if without is None else without & missing
        if not without:
            break
    if without:
        raise Broken(f"{', '.join(sorted(without))} had no gradient in {_STEPS} steps")


@_promise(
    "export with a batch of any size",
    remedy="compute with tensors only, and write no sizes, counters or .item() into the graph",
    maps=((3, 7, 5),),
)
def check_export(block_class: BuildBlock, shape: Shape) -> None:
    """The program of torch.export computes what the block does, for other batches too."""
    block = build_block(block_class, shape[1]).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(
        block, (feature_map(*shape),), dynamic_shapes=({0: batch},)
    ).module()
    for num_images in (3, 5, 1, 5):
        x_BCHW = feature_map(num_images, *shape[1:], seed=num_images)
        wanted_BCHW = block(x_BCHW)
        require_close(
            program(x_BCHW), wanted_BCHW, f"the program on {num_images} images",
            rtol=1e-5, atol=1e-5,
        )  # fmt: skip


@_promise(
    "run on the meta device",
    remedy="look at shapes only, and create tensors on the device of the one that came in",
)
def check_meta(block_class: BuildBlock, shape: Shape) -> None:
    """Shapes flow through it where there are no numbers, to count what it costs."""
    block = build_block(block_class, shape[1]).eval().to("meta")
    x_BCHW = torch.empty(shape, device="meta")
    found = tuple(block(x_BCHW).shape)
    if found != shape:
        raise Broken(f"{shape} came in and {found} went out")


ATTENTION_CHECKS: list[Check] = [
    check_interface,
    check_shape,
    check_gates,
    check_batch_independence,
    check_gradients,
    check_layout,
    check_autocast,
    check_parameters_and_dtypes,
    check_state,
    check_identity,
    check_trains,
    check_meta,
    check_export,
]


def check_block(block_class: BuildBlock) -> None:
    """Hold a block to every promise; takes about a second.

    Args:
        block_class: A subclass of AttentionBlock, or anything else that builds one when it is
            called with a number of channels.

    Raises:
        ContractError: The block breaks a promise; the sentence says which, how, and what to do.

    Example:
        >>> from towernet.attention import EfficientChannelAttention
        >>> check_block(EfficientChannelAttention)
    """
    for check in ATTENTION_CHECKS:
        check(block_class)


def _sizes(block_class: BuildBlock) -> list[int]:
    """Return the numbers of channels to try; a block may refuse the awkward one."""
    with contextlib.suppress(Exception):  # of another kind: the check will meet it, too
        try:
            block_class(AWKWARD_CHANNELS)
        except ValueError:
            return [CHANNELS]
    return [CHANNELS, AWKWARD_CHANNELS]


def _without_gradient_in_training(block_class: BuildBlock, shape: Shape, seed: int) -> set[str]:
    """Take a few steps of SGD from the identity; return what never had a gradient."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        block = block_class(shape[1])
    learnt: dict[str, nn.Parameter] = dict(block.named_parameters())
    if block.starts_as_identity:  # a gain of 0 would hide it for good
        gain = torch.tensor(1.0)
    else:
        block.wake()
        gain = learnt["the gain"] = nn.Parameter(torch.tensor(0.0))
    if not learnt:
        return set()
    optimizer = torch.optim.SGD(learnt.values(), lr=0.1)
    x_BCHW = feature_map(*shape, seed=seed)
    wanted_BCHW = feature_map(*shape, seed=seed + 100)
    without = set(learnt)
    for _ in range(_STEPS):
        optimizer.zero_grad()
        ((block.blend(x_BCHW, gain) - wanted_BCHW) ** 2).mean().backward()
        without &= without_gradient(learnt)
        optimizer.step()
    return without


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

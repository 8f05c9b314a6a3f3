"""The contract of an attention block, as checks for custom blocks.

A check builds the block as `MyAttention(128)`, and also with 24 channels if the block allows it.
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
from towernet.testing.promises import (
    Broken,
    as_contract_error,
    difference,
    require_close,
    without_gradient,
)

CHANNELS, AWKWARD_CHANNELS = 128, 24
# A ReLU may output only zeros for one seed; it does not for all of these.
_STARTS = range(4, 9)
# A gain of 0 blocks the block's gradient for a step; a last layer of zeros, that of the layers
# before it.
_STEPS = 2

# The same advice for autocast and conversion.
_INSIDE = (
    "compute in the parameters' number format, for example x.to(self.weight.dtype), or x.float() if"
    " there are no parameters"
)

BuildBlock = Callable[[int], AttentionBlock]
Check = Callable[[BuildBlock], None]
Shape = tuple[int, int, int, int]


def _promise(
    promise: str, *, remedy: str = "", maps: Sequence[tuple[int, int, int]] = ((2, 7, 5),)
) -> Callable[[Callable[[BuildBlock, Shape], None]], Check]:
    """Return a decorator that turns a check's finding, or a block's exception, into a sentence.

    The check runs for each number of channels on each of `maps`: images, height and width.
    """

    def decorate(check: Callable[[BuildBlock, Shape], None]) -> Check:
        def checked(block_class: BuildBlock) -> None:
            """Raise ContractError if the block breaks the promise."""
            for channels in _sizes(block_class):
                for num_images, height, width in maps:
                    shape = (num_images, channels, height, width)
                    at = f"{check.__name__}, {channels} channels, on a map of {shape}"
                    sentence = f"{name_of(block_class)} does not {promise} ({at})"
                    with as_contract_error(sentence, remedy):
                        check(block_class, shape)

        checked.__name__, checked.__doc__ = check.__name__, check.__doc__
        return checked

    return decorate


def build_block(block_class: BuildBlock, channels: int = CHANNELS, seed: int = 4) -> AttentionBlock:
    """Return a block with perturbed initial parameters; the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        block = block_class(channels)
        with torch.no_grad():
            for parameter in block.parameters():
                parameter.add_(torch.randn_like(parameter))
    return block


def feature_map(*shape: int, seed: int = 1) -> Tensor:
    """Return a feature map of normal random numbers; the same for the same shape and seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@_promise("work as an attention block")
def check_interface(block_class: BuildBlock, shape: Shape) -> None:
    """It is built with a number of channels; forward and attention_map each return a tensor."""
    if problem := builder_problem(block_class):
        raise Broken(f"it {problem}")
    block, x_BCHW = built(block_class, shape[1]), feature_map(*shape)
    name = type(block).__name__
    tensor_of(f"{name}.forward", block, x_BCHW)
    tensor_of(f"{name}.attention_map", block.attention_map, x_BCHW)


@_promise(
    "keep its input's shape",
    remedy="return a map of the same size as the input",
    maps=((2, 5, 7), (2, 1, 1), (2, 1, 3)),
)
def check_shape(block_class: BuildBlock, shape: Shape) -> None:
    """Input and output have the same shape, down to one pixel; the attention map broadcasts."""
    block, x_BCHW = build_block(block_class, shape[1]), feature_map(*shape)
    found = tuple(block(x_BCHW).shape)
    if found != shape:
        raise Broken(f"the input has shape {shape} and the output {found}")
    found = tuple(block.attention_map(x_BCHW).shape)
    if len(found) != 4 or not all(f in (1, w) for f, w in zip(found, shape, strict=True)):
        raise Broken(f"the input has shape {shape} and the attention map {found}")


@_promise(
    "use weights between 0 and 1",
    remedy="return such weights from attention_map, for example with sigmoid",
    maps=((2, 5, 7),),
)
def check_gates(block_class: BuildBlock, shape: Shape) -> None:
    """The attention map is between 0 and 1, and not constant."""
    block, x_BCHW = build_block(block_class, shape[1]), feature_map(*shape)
    map_BCHW = block.attention_map(x_BCHW).detach()
    least, most = float(map_BCHW.min()), float(map_BCHW.max())
    if not 0 <= least < most <= 1:
        raise Broken(f"its attention map ranges from {least:.3g} to {most:.3g}")


@_promise(
    "treat each image separately",
    remedy="use no batch statistics in evaluation mode",
    maps=((4, 7, 5),),
)
def check_batch_independence(block_class: BuildBlock, shape: Shape) -> None:
    """The other images of the batch do not affect an image's result."""
    block = build_block(block_class, shape[1]).eval()
    x_BCHW = feature_map(*shape)
    require_close(
        block(x_BCHW)[2:3], block(x_BCHW[2:3]), "an image in a batch", rtol=1e-5, atol=1e-5
    )


@_promise(
    "pass a gradient to its input and all its parameters",
    remedy="remove detach(), no_grad() and unused parameters",
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
        raise Broken(f"no gradient reaches {', '.join(sorted(without))}")


@_promise(
    "keep the memory layout", remedy="remove contiguous() and view(), or copy into x's layout"
)
def check_layout(block_class: BuildBlock, shape: Shape) -> None:
    """Output and gradient have the input's memory layout, with the same numbers in each layout."""
    x_BCHW = feature_map(*shape)
    wanted_BCHW = build_block(block_class, shape[1])(x_BCHW)
    if not wanted_BCHW.is_contiguous():
        raise Broken("the input is contiguous and the output is not")
    x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last).requires_grad_()
    found_BCHW = build_block(block_class, shape[1])(x_BCHW)
    if not found_BCHW.is_contiguous(memory_format=torch.channels_last):
        raise Broken("the input is channels_last and the output is not")
    require_close(found_BCHW, wanted_BCHW, "the output in channels_last", rtol=1e-5, atol=1e-5)
    # Not backward(): a gradient accumulated in a leaf gets the leaf's layout.
    (grad_BCHW,) = torch.autograd.grad(found_BCHW, x_BCHW, torch.ones_like(found_BCHW))
    if not grad_BCHW.is_contiguous(memory_format=torch.channels_last):
        raise Broken("the input is channels_last and its gradient is not")


@_promise(
    "compute its weights in full precision",
    remedy="disable autocast in forward with `with towernet.attention.full_precision("
    f"x.device.type):`, as GatedBlock does, and inside {_INSIDE}",
)
def check_autocast(block_class: BuildBlock, shape: Shape) -> None:
    """Under bf16 autocast a bf16 map stays bf16, with rounding errors only, even far from 0."""
    x_BCHW = (feature_map(*shape) + 30).bfloat16()
    block = build_block(block_class, shape[1])
    with torch.autocast("cpu", torch.bfloat16):
        found_BCHW = block(x_BCHW)
    if found_BCHW.dtype != torch.bfloat16:
        raise Broken(f"under autocast a bf16 map became {_short(found_BCHW.dtype)}")
    wanted_BCHW = block(x_BCHW.float())
    # The gate and the product can each be rounded to the map's format: two or three roundings.
    require_close(
        found_BCHW.float(), wanted_BCHW, "a bf16 map under autocast", rtol=3 * 2**-8, atol=1e-3
    )


@_promise(
    "work in each number format",
    remedy=f"{_INSIDE}, and return the input's format, y.to(x.dtype)",
)
def check_parameters_and_dtypes(block_class: BuildBlock, shape: Shape) -> None:
    """The output has the input's number format, whether the block is converted to it or not."""
    block, x_BCHW = build_block(block_class, shape[1]), feature_map(*shape)
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        for which, candidate in (
            (f"converted to {_short(dtype)}", copy.deepcopy(block).to(dtype)),
            ("left in fp32", block),
        ):
            y_BCHW = candidate(x_BCHW.to(dtype))
            if y_BCHW.dtype != dtype:
                raise Broken(
                    f"{which}, its input was {_short(dtype)} and its output {_short(y_BCHW.dtype)}"
                )
            if not torch.isfinite(y_BCHW).all():
                raise Broken(f"{which}, it returned NaN or Inf")


@_promise(
    "compute the same numbers after saving and loading its state",
    remedy="keep everything it computes with in parameters and buffers",
)
def check_state(block_class: BuildBlock, shape: Shape) -> None:
    """A copy, and a new block with the same state, compute the same as the block."""
    block, x_BCHW = build_block(block_class, shape[1]), feature_map(*shape)
    block(x_BCHW)  # in training mode, since running statistics are part of the state
    wanted_BCHW = block.eval()(x_BCHW)
    require_close(copy.deepcopy(block)(x_BCHW), wanted_BCHW, "a deep copy", rtol=0.0, atol=0.0)
    fresh = build_block(block_class, shape[1], seed=5).eval()
    fresh.load_state_dict(copy.deepcopy(block.state_dict()))
    require_close(fresh(x_BCHW), wanted_BCHW, "a new block with its state", rtol=0.0, atol=0.0)


@_promise(
    "start as `starts_as_identity` and `blend` specify",
    remedy="blend(x, 0) must return x, blend_ the same as blend, and starts_as_identity must be"
    " True exactly if Block(channels)(x) is x",
)
def check_identity(block_class: BuildBlock, shape: Shape) -> None:
    """`blend` goes from x at gain 0 to the block at gain 1; `starts_as_identity` is correct."""
    x_BCHW = feature_map(*shape)
    block = build_block(block_class, shape[1]).eval()
    least = 1e-5 * float(x_BCHW.abs().max())
    blended_BCHW = block.blend(x_BCHW, torch.tensor(0.0))
    require_close(blended_BCHW, x_BCHW, "blend with a gain of 0", rtol=0.0, atol=least)
    # A block can reorder the channels and its blend cannot: at each position the numbers are the
    # same, in any order.
    blended_BCHW, y_BCHW = block.blend(x_BCHW, torch.tensor(1.0)), block(x_BCHW)
    require_close(
        blended_BCHW.sort(dim=1).values, y_BCHW.sort(dim=1).values,
        "blend with a gain of 1", rtol=1e-5, atol=1e-5,
    )  # fmt: skip

    with torch.no_grad():  # without gradients, `attach` calls blend_
        gain = torch.tensor(0.7)
        blended_BCHW, over_BCHW = block.blend(x_BCHW, gain), block.blend_(x_BCHW.clone(), gain)
    require_close(over_BCHW, blended_BCHW, "blend_, compared with blend,", rtol=1e-5, atol=1e-5)

    fresh = block_class(shape[1]).eval()
    flag, moved = fresh.starts_as_identity, difference(fresh(x_BCHW), x_BCHW)
    if flag != (moved <= least):
        raise Broken(f"starts_as_identity is {flag}, and a new block changes x by {moved:.2g}")


@_promise(
    "learn when it is attached",
    remedy="use every parameter; wake() must give factors that start at 0 another value",
    maps=((4, 7, 5),),
)
def check_trains(block_class: BuildBlock, shape: Shape) -> None:
    """Attached as the identity, every parameter and the gain get a gradient within two steps."""
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
    remedy="compute with tensors only, and do not use .item(), counters or fixed sizes",
    maps=((3, 7, 5),),
)
def check_export(block_class: BuildBlock, shape: Shape) -> None:
    """The exported program computes the same as the block, for other batch sizes too."""
    block = build_block(block_class, shape[1]).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(
        block, (feature_map(*shape),), dynamic_shapes=({0: batch},)
    ).module()
    for num_images in (3, 5, 1, 5):
        x_BCHW = feature_map(num_images, *shape[1:], seed=num_images)
        wanted_BCHW = block(x_BCHW)
        require_close(
            program(x_BCHW), wanted_BCHW, f"the exported program on {num_images} images",
            rtol=1e-5, atol=1e-5,
        )  # fmt: skip


@_promise(
    "run on the meta device",
    remedy="use shapes only, and create tensors on the device of the input",
)
def check_meta(block_class: BuildBlock, shape: Shape) -> None:
    """It runs on meta tensors, which have no numbers, so that its cost can be counted."""
    block = build_block(block_class, shape[1]).eval().to("meta")
    x_BCHW = torch.empty(shape, device="meta")
    found = tuple(block(x_BCHW).shape)
    if found != shape:
        raise Broken(f"the input has shape {shape} and the output {found}")


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
    """Check every promise of a block; takes about a second.

    Args:
        block_class: A subclass of AttentionBlock, or any function of the number of channels that
            returns one.

    Raises:
        ContractError: The block breaks a promise; the message states which, how, and what to do.

    Example:
        >>> from towernet.attention import EfficientChannelAttention
        >>> check_block(EfficientChannelAttention)
    """
    for check in ATTENTION_CHECKS:
        check(block_class)


def _sizes(block_class: BuildBlock) -> list[int]:
    """Return the numbers of channels to try; a block can refuse the awkward one."""
    with contextlib.suppress(Exception):  # other exceptions will recur in the check
        try:
            block_class(AWKWARD_CHANNELS)
        except ValueError:
            return [CHANNELS]
    return [CHANNELS, AWKWARD_CHANNELS]


def _without_gradient_in_training(block_class: BuildBlock, shape: Shape, seed: int) -> set[str]:
    """Take a few steps of SGD from the identity; return the names that never had a gradient."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        block = block_class(shape[1])
    learnt: dict[str, nn.Parameter] = dict(block.named_parameters())
    if block.starts_as_identity:  # with a gain of 0 it would never get a gradient
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

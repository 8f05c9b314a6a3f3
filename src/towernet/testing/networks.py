"""The contract of a network, as checks for custom networks.

A check builds the network as `MyNet(5)`, and runs it on square images.
Shapes: B images, S × S pixels, K classes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from towernet.attention.fit import name_of
from towernet.errors import first_line_of
from towernet.models.own import BuildNetwork, network_problem
from towernet.shapes import run_on_meta, weights_on_meta
from towernet.testing.promises import Broken, as_contract_error, difference, without_gradient
from towernet.words import kind

NUM_CLASSES, SIZE_PX = 5, 128
NetworkCheck = Callable[[BuildNetwork, int], None]

_MODES = {"training": True, "evaluation": False}
# Each layer that starts at 0 blocks the gradient of the layers before it for a step.
_STEPS, _RATE = 3, 0.01
# In a batch, sums are computed in another order, layer after layer.
_LARGEST_ERROR = 1e-3
_OTHER_SIZES = (0.5, 0.75, 2.0)


def _promise(
    promise: str, *, remedy: str = ""
) -> Callable[[Callable[[BuildNetwork, int], None]], NetworkCheck]:
    """Return a decorator that turns a check's finding, or an exception, into a sentence."""

    def decorate(check: Callable[[BuildNetwork, int], None]) -> NetworkCheck:
        def checked(network_class: BuildNetwork, size_px: int = SIZE_PX) -> None:
            """Raise ContractError if the network breaks the promise."""
            at = f"{check.__name__}, {NUM_CLASSES} classes, {size_px}-px images"
            sentence = f"{name_of(network_class)} does not {promise} ({at})"
            with torch.random.fork_rng(devices=[]), as_contract_error(sentence, remedy):
                torch.manual_seed(3)  # for its random draws in training mode
                check(network_class, size_px)

        checked.__name__, checked.__doc__ = check.__name__, check.__doc__
        return checked

    return decorate


def build_network(
    network_class: BuildNetwork, num_classes: int = NUM_CLASSES, seed: int = 4
) -> Any:
    """Return a network with fresh weights, of any type; the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return network_class(num_classes)


def moved_network(network_class: BuildNetwork, seed: int = 4) -> nn.Module:
    """Return a network with perturbed initial weights, so that none of them is 0."""
    network: nn.Module = build_network(network_class, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            scale = float(parameter.abs().square().mean().sqrt()) or 1.0
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1 * scale)
    return network


def normalised_images(num_images: int, size_px: int, seed: int = 1) -> Float[Tensor, "B 3 S S"]:
    """Return images of normal random numbers; the same for the same sizes and seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((num_images, 3, size_px, size_px), generator=generator)


@_promise("build a network for each run")
def check_network_building(network_class: BuildNetwork, size_px: int) -> None:
    """It is built with the number of classes, a new one each time, and has trainable weights."""
    if problem := network_problem(network_class):
        raise Broken(f"it {problem}")
    try:
        network, other = (build_network(network_class) for _ in range(2))
    except Exception as error:
        raise Broken(
            f"{first_line_of(error)}; it must take the number of classes, and everything else by"
            " keyword with a default"
        ) from error
    if not isinstance(network, nn.Module):
        raise Broken(f"it builds {kind(network)}; it must return an instance of torch.nn.Module")
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise Broken("nothing in it is trained; give it parameters that require a gradient")
    if set(network.parameters()) & set(other.parameters()):
        raise Broken("two of them share their weights; each call must build a new network")


@_promise(
    "run on meta tensors",
    remedy="do not let values of tensors decide how it is built or run, and create tensors on the"
    " device of the input",
)
def check_network_outline(network_class: BuildNetwork, size_px: int) -> None:
    """Built and run on the meta device, it has the same shapes as on another device."""
    with weights_on_meta():
        network = network_class(NUM_CLASSES)
    if found := _logits_problem(run_on_meta(network, 1, 3, size_px, size_px), 1):
        raise Broken(f"an image gave {found}")
    shapes, wanted = (
        {(name, value.shape) for name, value in built.state_dict().items()}
        for built in (network, build_network(network_class))
    )
    if differ := sorted(name for name, _ in shapes ^ wanted):
        raise Broken(f"{differ[0]} has another shape on the meta device")


@_promise(
    "take its initial weights from torch's generator",
    remedy="use only torch's random generator",
)
def check_network_seed(network_class: BuildNetwork, size_px: int) -> None:
    """With the same torch seed it is built with the same numbers."""
    state, again = (build_network(network_class).state_dict() for _ in range(2))
    for name, value in state.items():
        if isinstance(value, Tensor) and not torch.equal(value, again[name]):
            raise Broken(f"with the same seed, {name} was built with different numbers")


@_promise("return a number for each class", remedy="return logits, (images, classes)")
@torch.no_grad()
def check_network_logits(network_class: BuildNetwork, size_px: int) -> None:
    """It returns finite logits (B, K), for any number of classes, in training and evaluation."""
    images_B3SS = normalised_images(3, size_px)
    for num_classes in (2, NUM_CLASSES):
        network = build_network(network_class, num_classes)
        for mode, trains in _MODES.items():
            if found := _logits_problem(network.train(trains)(images_B3SS), 3, num_classes):
                raise Broken(f"in {mode} mode, 3 images and {num_classes} classes gave {found}")
    outputs_BK = moved_network(network_class).eval()(images_B3SS)
    if (outputs_BK >= 0).all() and (outputs_BK.sum(dim=1) - 1).abs().max() < 1e-3:
        raise Broken("its outputs are probabilities; leave out the softmax")


@_promise(
    "repeat its outputs in evaluation mode",
    remedy="leave out dropout and other random draws in evaluation mode, as"
    " F.dropout(x, p, self.training) does",
)
@torch.no_grad()
def check_network_repetition(network_class: BuildNetwork, size_px: int) -> None:
    """In evaluation mode the same images give the same outputs, to the bit."""
    network, images_B3SS = moved_network(network_class).eval(), normalised_images(3, size_px)
    first_BK, second_BK = network(images_B3SS).clone(), network(images_B3SS)
    if not torch.equal(first_BK, second_BK):
        apart = difference(second_BK, first_BK)
        raise Broken(f"for the same images, its outputs differ by up to {apart:.2g}")


@_promise(
    "treat each image separately",
    remedy="use no batch statistics in evaluation mode",
)
@torch.no_grad()
def check_network_neighbours(network_class: BuildNetwork, size_px: int) -> None:
    """In evaluation mode it takes any number of images, which do not affect each other."""
    network, images_B3SS = moved_network(network_class).eval(), normalised_images(5, size_px)
    together_BK = network(images_B3SS)
    for first, last in ((2, 3), (0, 2)):
        apart_BK = network(images_B3SS[first:last])
        what = f"the output for {last - first} of 5 images"
        _require_alike(apart_BK, together_BK[first:last], what)


@_promise(
    "take images in either memory layout",
    remedy="use flatten or reshape instead of view",
)
@torch.no_grad()
def check_network_layout(network_class: BuildNetwork, size_px: int) -> None:
    """With images and weights in channels_last, the faster layout, the outputs are the same."""
    network, images_B3SS = moved_network(network_class).eval(), normalised_images(3, size_px)
    wanted_BK = network(images_B3SS)
    layout = torch.channels_last
    found_BK = network.to(memory_format=layout)(images_B3SS.contiguous(memory_format=layout))
    _require_alike(found_BK, wanted_BK, "the output in channels_last")


@_promise(
    "accept images of another size or raise an error",
    remedy="raise an error for a size that it cannot take, as flatten(1) before a linear layer does"
    " and view(-1, features) does not",
)
@torch.no_grad()
def check_network_sizes(network_class: BuildNetwork, size_px: int) -> None:
    """Images of another size give one output each, or an error, also on meta tensors.

    Training starts with smaller images if a network takes them, which is tried on meta tensors.
    """
    network = moved_network(network_class)
    for share in _OTHER_SIZES:
        other_px = max(1, round(share * size_px / 16)) * 16
        try:
            run_on_meta(network, 1, 3, other_px, other_px)
        except Exception:  # networks raise different kinds of exceptions
            continue
        for mode, trains in _MODES.items():
            at = f"in {mode} mode, 2 images of {other_px} px"
            try:
                outputs = network.train(trains)(normalised_images(2, other_px))
            except Exception as error:
                found = f"{at} raise {first_line_of(error)}, but meta tensors of this shape do not"
                raise Broken(found) from error
            if problem := _logits_problem(outputs, 2):
                raise Broken(f"{at} gave {problem}")


@_promise(
    "continue from its state",
    remedy="keep everything that affects its outputs in parameters and buffers, and use only"
    " torch's random generator",
)
@torch.no_grad()
def check_network_state(network_class: BuildNetwork, size_px: int) -> None:
    """A copy, and a new network with the same state, predict and train as the network does."""
    network, images_B3SS = moved_network(network_class), normalised_images(3, size_px)
    for name, value in network.state_dict().items():
        if not isinstance(value, Tensor) or value.is_complex():
            what = "complex numbers" if isinstance(value, Tensor) else kind(value)
            raise Broken(f"{name} in its state is {what}, which no weights file can store")
    network.train()(images_B3SS)  # running statistics are part of the state
    fresh = moved_network(network_class, seed=5)
    fresh.load_state_dict(copy.deepcopy(network.state_dict()))
    others = {"a deep copy": copy.deepcopy(network), "a new one with its state": fresh}
    wanted = _outputs(network, images_B3SS)
    for what, other in others.items():
        for mode, found_BK in _outputs(other, images_B3SS).items():
            if not torch.equal(found_BK, wanted[mode]):
                apart = difference(found_BK, wanted[mode])
                raise Broken(f"in {mode} mode, the outputs of {what} differ by up to {apart:.2g}")


@_promise(
    "train all its parameters",
    remedy="remove detach(), no_grad() and unused parameters, or freeze parameters with"
    " requires_grad_(False)",
)
def check_network_gradients(network_class: BuildNetwork, size_px: int) -> None:
    """In a few steps every parameter that requires a gradient gets one; each is finite.

    A gradient of 0 can be correct: a norm over a single pixel always has it.
    """
    network = build_network(network_class).train()
    learnt = {name: p for name, p in network.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD(learnt.values(), lr=_RATE)
    unreached, labels_B = set(learnt), torch.arange(4) % NUM_CLASSES
    for seed in range(_STEPS):
        optimizer.zero_grad(set_to_none=True)
        logits_BK = network(normalised_images(4, size_px, seed))
        F.cross_entropy(logits_BK.float(), labels_B).backward()
        zero = without_gradient(learnt)
        unreached &= {name for name in zero if learnt[name].grad is None}
        optimizer.step()
    if unreached or zero == set(learnt):
        missing = sorted(unreached) or ["any parameter"]
        some = ", ".join([*missing[:3], *(["…"] if len(missing) > 3 else [])])
        raise Broken(f"in {_STEPS} steps no gradient reached {some}")


NETWORK_CHECKS: list[NetworkCheck] = [
    check_network_building,
    check_network_outline,
    check_network_seed,
    check_network_logits,
    check_network_repetition,
    check_network_neighbours,
    check_network_layout,
    check_network_sizes,
    check_network_state,
    check_network_gradients,
]


def check_network(network_class: BuildNetwork, *, size_px: int = SIZE_PX) -> None:
    """Check every promise of a network; takes about thirty passes of a few images.

    Args:
        network_class: A class of networks, or any function of the number of classes that returns
            one.
        size_px: Side of the square images it will get. It can refuse others.

    Raises:
        ContractError: The network breaks a promise; the message states which, how, and what to do.

    Example:
        >>> from torchvision.models import shufflenet_v2_x0_5
        >>> check_network(lambda num: shufflenet_v2_x0_5(num_classes=num), size_px=64)
    """
    for check in NETWORK_CHECKS:
        check(network_class, size_px)


def _logits_problem(found: object, num_images: int, num_classes: int = NUM_CLASSES) -> str:
    """Return what was found instead of logits; '' if they are logits."""
    wanted = (num_images, num_classes)
    if not isinstance(found, Tensor):
        return kind(found)
    if tuple(found.shape) != wanted:
        return f"a tensor of {tuple(found.shape)} and not of {wanted}"
    if not found.is_floating_point():
        return f"a tensor of {str(found.dtype).removeprefix('torch.')}"
    if not found.is_meta and not found.isfinite().all():
        return "NaN or Inf"
    return ""


def _require_alike(found_BK: Tensor, wanted_BK: Tensor, what: str) -> None:
    if found_BK.shape != wanted_BK.shape:
        raise Broken(f"{what} is {tuple(found_BK.shape)} and not {tuple(wanted_BK.shape)}")
    apart, largest = difference(found_BK, wanted_BK), float(wanted_BK.abs().max())
    if not apart <= _LARGEST_ERROR * largest:
        raise Broken(f"{what} differs by up to {apart:.2g}; the largest value is {largest:.2g}")


def _outputs(network: nn.Module, images_B3SS: Tensor) -> dict[str, Tensor]:
    """Return its outputs in evaluation, and then in training mode; the same draws each time."""
    outputs = {}
    for mode in reversed(_MODES):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(6)
            outputs[mode] = network.train(_MODES[mode])(images_B3SS).clone()
    return outputs

"""Blocks inside a network: how one is called there, found again and taken out.

A block is a child, named `added_attention`, of the module whose output it weighs; a forward hook of
that module calls it. Export, torch.compile, copying and state dicts treat it as any other module.

Shapes: B images, C channels, H × W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypedDict

import torch
from jaxtyping import Float
from torch import Tensor, nn

from towernet import torch_private
from towernet.attention.base import AttentionBlock
from towernet.attention.blend import FromIdentity
from towernet.errors import ConfigError
from towernet.words import kind

# The name of a block in the module whose output it weighs.
CHILD = "added_attention"


class OnChannelsLast(nn.Module):
    """A block for networks whose maps have the axes B, H, W, C (Swin, ConvNeXt's inside)."""

    def __init__(self, block: AttentionBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, x_BHWC: Float[Tensor, "B H W C"]) -> Float[Tensor, "B H W C"]:
        """Return the weighed map, with the same axes."""
        y_BHWC: Tensor = self.block(x_BHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return y_BHWC


def insert(module: nn.Module, block: AttentionBlock, *, channels_last: bool) -> None:
    """Let a block weigh the output of a module.

    Args:
        module: The module.
        block: The block.
        channels_last: Whether the module's output has the axes B, H, W, C.
    """
    child = OnChannelsLast(block).train(module.training) if channels_last else block
    _put(module, child)


def move_attention(before: nn.Module, now: nn.Module) -> None:
    """Insert the block after one module after another one, which replaces it."""
    if hasattr(before, CHILD):
        _put(now, before.get_submodule(CHILD))


def _put(module: nn.Module, child: nn.Module) -> None:
    module.add_module(CHILD, child)
    module.register_forward_hook(_weigh)


def is_attention_hook(hook: Any) -> bool:
    """Whether a forward hook is one that `insert` registered."""
    return hook is _weigh


def _weigh(module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    """Weigh a module's output: a hook that keeps nothing, so a copied module calls its own copy."""
    block = module.get_submodule(CHILD)
    if type(block) is FromIdentity and _is_only_ours(module, block):
        return block.block.blend_(output, block.gain)
    weighed: Tensor = block(output)
    return weighed


# Modules that return new memory, whatever their input.
_ALWAYS_NEW = {nn.BatchNorm2d, nn.Conv2d, nn.GroupNorm}


def _is_only_ours(module: nn.Module, block: nn.Module) -> bool:
    """Whether no one else holds what a module has just returned, or watches the block."""
    return (
        not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        # torch.jit.trace traces twice, with and without gradients, and compares.
        and not torch_private.is_transformed_or_traced()
        and type(module) in _ALWAYS_NEW
        and "forward" not in vars(module)
        and torch_private.forward_hooks(module)[0] is _weigh
        and not torch_private.has_global_hook()
        and not torch_private.forward_pre_hooks(block)
        and not torch_private.forward_hooks(block)
        and "forward" not in vars(block)
        and not torch_private.has_compiled_call(block)
        and not torch_private.is_watched()
    )


def require_network(model: object) -> None:
    """Refuse what is not a network that is built.

    Raises:
        ConfigError: naming what it is.
    """
    if isinstance(model, nn.Module):
        return
    named = getattr(model, "__name__", None)
    what = f"'{named}', which builds one" if callable(model) and named else kind(model)
    raise ConfigError(
        f"the network is {what}; pass one that is built, such as torchvision.models.resnet18()"
    )


def require_intact(model: nn.Module) -> None:
    """Refuse a network in which a block or the hook that calls it was lost.

    Raises:
        ConfigError: naming the module.
    """
    for name, module in model.named_modules():
        name = name or "the network itself"
        child = getattr(module, CHILD, None)
        is_called = any(map(is_attention_hook, torch_private.forward_hooks(module)))
        if child is None and is_called:
            raise ConfigError(
                f"the attention block after {name} was removed, but {name} still calls it; call"
                " detach(network) to remove the rest"
            )
        if isinstance(child, AttentionBlock | OnChannelsLast) and not is_called:
            raise ConfigError(
                f"the attention block after {name} is never called: the module that called it was"
                " replaced or lost its hooks; call detach(network), and attach again after such"
                " changes"
            )


def require_uncompiled(model: nn.Module) -> None:
    """Refuse a network whose code is fixed already, by torch.compile or TorchScript.

    Raises:
        ConfigError: it is compiled, or a TorchScript program.
    """
    for module in model.modules():
        if torch_private.is_compiled(module):
            raise ConfigError(
                "the network is compiled already; attach attention before torch.compile"
            )
        if isinstance(module, torch.jit.ScriptModule):
            raise ConfigError(
                "the network is a TorchScript program, which cannot be changed; attach to the"
                " network it was made from"
            )


def detach(model: nn.Module) -> int:
    """Remove all that `attach` put in, or what is left of it; return the number of places.

    Example:
        >>> from torchvision.models import resnet18
        >>> from towernet.attention import attach
        >>> network = resnet18()
        >>> _ = attach(network, "shuffle")
        >>> detach(network)
        8
    """
    require_network(model)
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
    """Return the attention blocks of a network by name, without those inside other blocks.

    Raises:
        ConfigError: an attached block has lost the hook that calls it, or a hook its block.
    """
    require_network(model)
    require_intact(model)
    found: dict[str, AttentionBlock] = {}
    for name, module in model.named_modules():
        is_inside = any(name.startswith(f"{outer}.") for outer in found)
        if isinstance(module, AttentionBlock) and not is_inside:
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
        >>> from towernet.attention import attach
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

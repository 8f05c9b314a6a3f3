"""Every private name of torch that this package uses, each in a function with a plain name.

tests/test_0_torch_private.py tries each one first with the installed torch, so a release of torch
that renames one is detected at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor, nn

# The base classes of all batch norms and of all convolutions.
BATCH_NORM = nn.modules.batchnorm._BatchNorm
CONVOLUTION = nn.modules.conv._ConvNd


def is_view(tensor: Tensor) -> bool:
    """Whether a tensor is a view of another tensor's memory."""
    return tensor._is_view()


def num_changes(tensor: Tensor) -> int:
    """Return how often a tensor was changed in place."""
    return tensor._version


def forward_hooks(module: nn.Module) -> list[Callable[..., Any]]:
    """Return the hooks that are called after a module runs, in order."""
    return list(module._forward_hooks.values())


def forward_pre_hooks(module: nn.Module) -> list[Callable[..., Any]]:
    """Return the hooks that are called before a module runs, in order."""
    return list(module._forward_pre_hooks.values())


def remove_forward_hooks(module: nn.Module, is_wanted: Callable[[Any], bool]) -> int:
    """Remove the forward hooks for which `is_wanted` is true; return their number.

    torch removes hooks through handles, which a copied network does not have.
    """
    keys = [key for key, hook in module._forward_hooks.items() if is_wanted(hook)]
    for key in keys:
        del module._forward_hooks[key]
    return len(keys)


def has_global_hook() -> bool:
    """Whether hooks are called for all modules of the process."""
    return bool(nn.modules.module._has_any_global_hook())


def is_compiled(module: nn.Module) -> bool:
    """Whether a module is the result of torch.compile, or was compiled in place."""
    import torch._dynamo as dynamo  # takes 1.5 s, which only this check has to wait for

    return isinstance(module, dynamo.OptimizedModule) or has_compiled_call(module)


def has_compiled_call(module: nn.Module) -> bool:
    """Whether a module was compiled in place, by its method `compile`."""
    return module._compiled_call_impl is not None


def recompile_when_hooks_change() -> None:
    """Make torch.compile detect hooks that are added or removed; drop programs compiled before.

    By default it assumes that hooks stay as they are: a program compiled for a network without
    attention would then run in place of one with attention.
    """
    import torch._dynamo as dynamo

    if dynamo.config.skip_nnmodule_hook_guards:
        dynamo.config.skip_nnmodule_hook_guards = False
        torch.compiler.reset()


def is_transformed_or_traced() -> bool:
    """Whether the code runs in a torch.func transform, such as grad or vmap, or is traced."""
    return torch._C._are_functorch_transforms_active() or torch._C._get_tracing_state() is not None


def is_watched() -> bool:
    """Whether a torch mode sees every operation, or forward derivatives are computed.

    `torch.no_grad` turns off neither.
    """
    return (
        torch._C._len_torch_dispatch_stack() > 0
        or torch._C._is_torch_function_mode_enabled()
        or forward_ad._current_level >= 0
    )


def function_of(node: Any) -> type | None:
    """Return the `torch.autograd.Function` that made a node of a gradient's graph, if one did."""
    return getattr(type(node), "_forward_cls", None)


def is_compiled_backward(node: Any) -> bool:
    """Whether a node of a gradient's graph is the backward of a program of torch.compile."""
    return type(node).__name__ == "CompiledFunctionBackward"


def multiply_all_(tensors: list[Tensor], factor: float) -> None:
    """Multiply each of many tensors, in place."""
    torch._foreach_mul_(tensors, factor)


def add_all(tensors: list[Tensor], others: list[Tensor], factor: float) -> list[Tensor]:
    """Return each of many tensors plus a multiple of its partner."""
    return list(torch._foreach_add(tensors, others, alpha=factor))


def add_all_(tensors: list[Tensor], others: list[Tensor]) -> None:
    """Add to each of many tensors its partner, in place."""
    torch._foreach_add_(tensors, others)

"""Prepare a trained network for inference: fold norms, absorb permutations, use bf16 weights.

Shapes: C channels in, D channels out.
"""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from towernet import torch_private
from towernet.attention.inserted import CHILD, attention_blocks, is_attention_hook, move_attention
from towernet.attention.shuffle import ShuffleAttention, UnshuffledAttention, came_from
from towernet.attention.trace import tensors
from towernet.models.towernet import TowerNet
from towernet.shapes import run_on_meta

# Exactly these classes: subclasses may do more (timm's norms include an activation).
_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def optimize(
    model: nn.Module,
    *,
    size_px: int = 224,
    dtype: torch.dtype = torch.float32,
    absorb: bool = True,
    memory_format: torch.memory_format = torch.channels_last,
) -> nn.Module:
    """Return a copy that computes the same outputs in less time; it cannot be trained.

    Batch norms are folded into the convolutions before them, unless something else reads the
    convolution's output. Channel shuffles are absorbed: TowerNet's by the weights that read them,
    those of attention after a folded norm by the convolution before it.

    Args:
        model: Any network.
        size_px: Side of images it can take; it is run once, on meta tensors.
        dtype: Of convolutions and matrix products. With bfloat16 their weights are stored in it,
            and the network must be called under autocast.
        absorb: Whether shuffles are absorbed; in the C kernels shuffling costs nothing.
        memory_format: The layout of its weights.

    Example:
        >>> network = TowerNet(4).eval()
        >>> images = torch.rand(2, 3, 128, 128)
        >>> torch.testing.assert_close(optimize(network, size_px=128)(images), network(images))
    """
    fast = copy.deepcopy(model).eval().requires_grad_(False)
    for conv, norm in foldable(fast, size_px):
        fold(fast, conv, norm)
        if absorb:
            shuffle_before(fast, conv, norm)
    if absorb and isinstance(fast, TowerNet):
        absorb_shuffles(fast)
    if dtype != torch.float32:
        # Attention computes its statistics in the number format of its weights.
        of_attention = {m for block in attention_blocks(fast).values() for m in block.modules()}
        for module in fast.modules():
            if module in of_attention:
                continue
            if isinstance(module, torch_private.CONVOLUTION | nn.Linear):
                module.to(dtype)
    return fast.to(memory_format=memory_format)


def foldable(model: nn.Module, size_px: int) -> list[tuple[str, str]]:
    """Return the names of convolutions, each with the norm that alone reads its output."""
    outputs: dict[int, str] = {}  # the convolution by the id of its output
    readers: Counter[int] = Counter()
    kept: list[Tensor] = []  # a deleted tensor's id could be reused
    calls: Counter[str] = Counter()
    pairs: list[tuple[int, str, str]] = []

    class CountsReaders(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            if tensors([result]):  # getting a shape reads no numbers
                read = tensors([*args, *(kwargs or {}).values()])
                readers.update(id(tensor) for tensor in read)
                kept.extend([*read, *tensors([result])])
            return result

    def leave(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            calls[name] += 1
            if type(module) in _CONVS:
                outputs[id(output)] = name
            elif inputs and id(inputs[0]) in outputs:
                pairs.append((id(inputs[0]), outputs[id(inputs[0])], name))

        return hook

    hooks = [
        module.register_forward_hook(leave(name))
        for name, module in model.named_modules()
        if type(module) in (*_CONVS, *_NORMS) and not _is_changed_by_hooks(module)
    ]
    try:
        with CountsReaders():
            run_on_meta(model, 1, 3, size_px, size_px)
    finally:
        for hook in hooks:
            hook.remove()
    return [
        (conv, norm)
        for tensor, conv, norm in pairs
        # F.batch_norm is called once per norm, and reads its input once.
        if readers[tensor] == 1 and calls[conv] == calls[norm] == 1 and _has_statistics(model, norm)
    ]


def _is_changed_by_hooks(module: nn.Module) -> bool:
    """Whether hooks change a module's input or output, for example those of weight norm.

    Attention after a norm does not count: it reads the norm's output, folded or not.
    """
    hooks = torch_private.forward_hooks(module)
    if type(module) in _NORMS:
        hooks = [hook for hook in hooks if not is_attention_hook(hook)]
    return bool(hooks or torch_private.forward_pre_hooks(module))


def _has_statistics(model: nn.Module, name: str) -> bool:
    norm = model.get_submodule(name)
    return getattr(norm, "running_mean", None) is not None


def fold(model: nn.Module, conv_name: str, norm_name: str) -> None:
    """Fold a norm into the convolution before it; replace it by an identity."""
    conv, norm = model.get_submodule(conv_name), model.get_submodule(norm_name)
    assert isinstance(conv, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)
    assert norm.running_mean is not None and norm.running_var is not None
    # In double precision, so that folding does not change the predictions.
    scale_D = (norm.running_var.double() + norm.eps).rsqrt()
    shift_D = -norm.running_mean.double() * scale_D
    if norm.affine:
        scale_D, shift_D = scale_D * norm.weight.double(), shift_D * norm.weight.double()
        shift_D = shift_D + norm.bias.double()
    weight = conv.weight.double() * scale_D.reshape(-1, *[1] * (conv.weight.dim() - 1))
    if conv.bias is not None:
        shift_D = shift_D + conv.bias.double() * scale_D
    conv.weight = nn.Parameter(weight.to(conv.weight.dtype), requires_grad=False)
    conv.bias = nn.Parameter(shift_D.to(conv.weight.dtype), requires_grad=False)
    identity = nn.Identity()
    move_attention(norm, identity)
    model.set_submodule(norm_name, identity)


def shuffle_before(model: nn.Module, conv_name: str, place_name: str) -> None:
    """Permute the outputs of the convolution before shuffle attention, so that it need not shuffle.

    Each channel keeps the gates of its original position; nothing else reads that convolution.
    """
    conv, place = model.get_submodule(conv_name), model.get_submodule(place_name)
    attention = getattr(place, CHILD, None)
    assert isinstance(conv, nn.Conv1d | nn.Conv2d | nn.Conv3d) and conv.bias is not None
    if not (isinstance(attention, ShuffleAttention) and attention.shuffles and conv.groups == 1):
        return
    came_from_C = came_from(attention.channels)
    conv.weight = nn.Parameter(conv.weight[came_from_C], requires_grad=False)
    conv.bias = nn.Parameter(conv.bias[came_from_C], requires_grad=False)
    setattr(place, CHILD, UnshuffledAttention(attention).requires_grad_(False))


def absorb_shuffles(model: TowerNet) -> None:
    """Permute the inputs of the convolutions after each attention, so that it need not shuffle.

    The shuffle moves channel p(c) to c; without it, the weight for c applies to p(c).
    """
    before_inception = ("branch_1", "branch_3_reduce", "branch_5_reduce", "branch_pool", "shortcut")
    readers = {
        "attention_3": ["stage_4.conv"],
        "attention_4": [f"inception_5.{name}" for name in before_inception],
        "attention_5": [f"inception_6.{name}" for name in before_inception],
        "attention_6": [f"inception_7.{name}" for name in before_inception],
    }
    for name, convolutions in readers.items():
        attention = model.get_submodule(name)
        if not isinstance(attention, ShuffleAttention):
            continue  # another block is in its place
        came_from_C = came_from(attention.channels)
        for conv_name in convolutions:
            conv = model.get_submodule(conv_name)
            assert isinstance(conv, nn.Conv2d)
            weight_DCkk = conv.weight[:, torch.argsort(came_from_C)]
            conv.weight = nn.Parameter(weight_DCkk, requires_grad=False)
        attention.shuffles = False

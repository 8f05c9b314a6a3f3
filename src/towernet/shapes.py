"""Run a network on the meta device: only shapes are computed, no numbers.

So vgg19 takes as long as TowerNet, and the network itself is not changed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def run_on_meta(model: nn.Module, *shape: int) -> Tensor:
    """Run a network in evaluation mode on the shape of an input (B, C, H, W).

    Returns:
        The output of the network: for a classifier, logits without numbers.
    """
    state = dict([*model.named_parameters(), *model.named_buffers()])
    meta = {name: torch.empty_like(value, device="meta") for name, value in state.items()}
    floating = next((value for value in meta.values() if value.is_floating_point()), None)
    dtype = None if floating is None else floating.dtype
    images_BCHW = torch.empty(shape, device="meta", dtype=dtype)
    # A network may draw random numbers; weights drawn afterwards must not depend on it.
    own_randomness = torch.random.fork_rng(devices=[])
    with evaluating(model), _attributes_kept(model), torch.no_grad(), own_randomness:
        output: Tensor = torch.func.functional_call(model, meta, (images_BCHW,))
    return output


@contextlib.contextmanager
def _attributes_kept(model: nn.Module) -> Iterator[None]:
    """Undo assignments to modules' attributes: a detector caches anchors, here without numbers."""
    before = {module: dict(vars(module)) for module in model.modules()}
    try:
        yield
    finally:
        for module, attributes in before.items():
            for name in vars(module).keys() - attributes.keys():
                del vars(module)[name]
            vars(module).update(attributes)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode; restore the mode of each module afterwards."""
    was_training = {module: module.training for module in model.modules()}
    # The fused path of nn.MultiheadAttention hides its matrix products from the counter.
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    model.eval()
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for module, mode in was_training.items():
            module.training = mode


@contextlib.contextmanager
def weights_on_meta() -> Iterator[None]:
    """Build networks whose weights have shapes but no numbers, in milliseconds.

    The state of torch's random generator is restored afterwards.
    """
    with torch.random.fork_rng(devices=[]), _WeightsOnMeta():
        yield


class _WeightsOnMeta(TorchFunctionMode):
    """Create weights without memory or numbers, but leave other computations alone.

    `torch.device("meta")` would also affect the tensors with which some networks compute widths.
    """

    _FACTORIES = frozenset({torch.empty, torch.zeros, torch.ones, torch.full, torch.randn})

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Send the factories of weights to the meta device."""
        kwargs = dict(kwargs or {})
        if func in self._FACTORIES:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)

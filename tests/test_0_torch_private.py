"""Each private name of torch's that towernet uses, tested with the installed torch.

This file sorts before all others: if a new torch renamed one of them, this fails first.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from towernet import torch_private

ROOT = Path(__file__).parent.parent
HOME = ROOT / "src" / "towernet" / "torch_private.py"


def test_forward_hooks_are_found_and_removed():
    module = nn.ReLU()
    assert torch_private.forward_hooks(module) == torch_private.forward_pre_hooks(module) == []

    def after(module, inputs, output):
        return output + 1

    def before(module, inputs):
        return None

    module.register_forward_hook(after)
    module.register_forward_hook(lambda module, inputs, output: output * 3)
    module.register_forward_pre_hook(before)
    first, second = torch_private.forward_hooks(module)
    assert first is after and torch_private.forward_pre_hooks(module) == [before]
    assert module(torch.ones(1)) == 6
    assert torch_private.remove_forward_hooks(module, lambda hook: hook is after) == 1
    assert torch_private.forward_hooks(module) == [second]
    assert module(torch.ones(1)) == 3


def test_a_hook_for_all_modules_is_found():
    assert not torch_private.has_global_hook()
    for register in (
        nn.modules.module.register_module_forward_hook,
        nn.modules.module.register_module_forward_pre_hook,
    ):
        handle = register(lambda *_: None)
        try:
            assert torch_private.has_global_hook()
        finally:
            handle.remove()
    assert not torch_private.has_global_hook()


def test_a_compiled_module_is_recognised():
    module = nn.ReLU()
    assert not torch_private.is_compiled(module)
    program = torch.compile(module, backend="eager")
    assert torch_private.is_compiled(program) and not torch_private.is_compiled(module)
    assert not torch_private.has_compiled_call(module)
    module.compile(backend="eager")
    assert torch_private.has_compiled_call(module) and torch_private.is_compiled(module)


def test_programs_are_recompiled_when_hooks_change():
    torch_private.recompile_when_hooks_change()
    assert torch._dynamo.config.skip_nnmodule_hook_guards is False
    assert "skip_nnmodule_hook_guards" in torch._dynamo.config.get_config_copy()
    torch_private.recompile_when_hooks_change()  # a second call has no effect


def test_the_kinds_of_norms_and_convolutions_are_recognised():
    norms = nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm
    assert all(issubclass(norm, torch_private.BATCH_NORM) for norm in norms)
    assert not issubclass(nn.GroupNorm, torch_private.BATCH_NORM)
    convolutions = nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d
    assert all(issubclass(conv, torch_private.CONVOLUTION) for conv in convolutions)
    assert not issubclass(nn.Linear, torch_private.CONVOLUTION)


def test_views_and_changes_of_a_tensor_are_detected():
    x = torch.ones(3)
    assert torch_private.is_view(x[:2]) and not torch_private.is_view(x[[0, 1]])
    before = torch_private.num_changes(x)
    x.add(1)
    assert torch_private.num_changes(x) == before
    x.add_(1)
    assert torch_private.num_changes(x) == before + 1


def test_a_transform_or_a_trace_is_detected():
    seen = []

    def function(x: Tensor) -> Tensor:
        seen.append(torch_private.is_transformed_or_traced())
        return x.square().sum()

    function(torch.ones(2))
    torch.func.grad(function)(torch.ones(2))
    torch.vmap(function)(torch.ones(2, 2))
    with pytest.warns(FutureWarning, match="deprecated"):
        torch.jit.trace(function, torch.ones(2), check_trace=False)
    assert seen == [False, True, True, True]


class Functions(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class Dispatches(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("watch", [Functions, Dispatches, forward_ad.dual_level])
def test_a_mode_that_watches_every_operation_is_detected(watch):
    assert not torch_private.is_watched()
    with torch.no_grad(), watch():
        assert torch_private.is_watched()
    assert not torch_private.is_watched()


def test_the_function_of_a_gradient_is_found():
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, gradient):
            return 2 * gradient

    x = torch.ones(2, requires_grad=True)
    assert torch_private.function_of(Doubled.apply(x).grad_fn) is Doubled
    assert torch_private.function_of((2 * x).grad_fn) is None
    assert torch_private.function_of(None) is None
    assert not torch_private.is_compiled_backward((2 * x).grad_fn)
    program = torch.compile(lambda x: (2 * x).relu(), backend="aot_eager")
    assert torch_private.is_compiled_backward(program(x).grad_fn)


def test_many_tensors_are_computed_at_once():
    some, others = [torch.tensor([1.0, 2.0]), torch.tensor(3.0)], [torch.ones(2), torch.tensor(5.0)]
    added = torch_private.add_all(some, others, 2.0)
    assert [t.tolist() for t in added] == [[3.0, 4.0], 13.0]
    assert [t.tolist() for t in some] == [[1.0, 2.0], 3.0]
    torch_private.multiply_all_(some, 3.0)
    assert [t.tolist() for t in some] == [[3.0, 6.0], 9.0]
    torch_private.add_all_(some, others)
    assert [t.tolist() for t in some] == [[4.0, 7.0], 14.0]


OF_TORCH = {
    name
    for name in (*vars(nn.Module()), *dir(nn.Module), *dir(Tensor))
    if name.startswith("_") and not name.endswith("__")
}


def private_names(source: str) -> Iterator[str]:
    """Yield torch's private names that a program uses."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom | ast.Import):
            module = getattr(node, "module", "") or ""
            dotted = [f"{module}.{alias.name}".lstrip(".") for alias in node.names]
        elif isinstance(node, ast.Attribute):
            dotted = [ast.unparse(node)]
        else:
            continue
        for name in dotted:
            root, *rest = name.split(".")
            is_torchs = root in ("torch", "nn", "F") and any(p.startswith("_") for p in rest)
            if is_torchs or (isinstance(node, ast.Attribute) and node.attr in OF_TORCH):
                yield name


def test_no_other_file_uses_private_names():
    found = {
        f"{path.relative_to(ROOT)}: {name}"
        for folder in ("src", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        if path != HOME
        for name in private_names(path.read_text())
    }
    assert not found
    assert len(set(private_names(HOME.read_text()))) > 10


@pytest.mark.parametrize(
    "planted",
    [
        "import torch._dynamo",
        "from torch._C import _len_torch_dispatch_stack",
        "from torch.overrides import _get_current_function_mode",
        "torch._foreach_mul_(params, 2)",
        "norm._forward_hooks.clear()",
        "self._modules.clear()",
    ],
)
def test_a_private_name_elsewhere_is_detected(planted):
    assert len(list(private_names(planted))) >= 1
    assert not list(private_names("self._own()\nmodel.modules()\npair._replace(a=1)"))

"""Attention compiled for a device: it computes the formula's numbers, or gives a reason why not.

Tested on a CPU here.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from crashlab.lab import compiler
from towernet.attention import ShuffleAttention, fused
from towernet.engine import kernels


@pytest.fixture(autouse=True)
def _no_cached_result(monkeypatch):
    kernels.compiled_fault.cache_clear()
    monkeypatch.setattr(fused, "_programs", {})
    yield
    kernels.compiled_fault.cache_clear()


@pytest.mark.proof
@pytest.mark.skipif(compiler() is None, reason="no C compiler")
def test_compiled_attention_gives_the_formulas_numbers():
    # In a process without the tests' shape checks, which the compiler cannot read.
    code = "from towernet.engine import kernels; print(kernels.compiled_fault('cpu'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "None\n", done.stdout


# Training and inference, with and without a gain, wide and narrow maps, single images: more than
# the eight programs that torch allows for one piece of code.
EVERY_USE = """
import warnings
import torch
import torch._dynamo
from towernet.attention import ShuffleAttention, fused

warnings.simplefilter("error")
torch._dynamo.config.fail_on_recompile_limit_hit = True
torch.compile = lambda code, compile=torch.compile, **options: compile(
    code, backend="eager", **options
)
fused.enable("cpu")
for channels in (64, 320):
    block, gain = ShuffleAttention(channels), torch.nn.Parameter(torch.tensor(0.5))
    for dtype in (torch.float32, torch.bfloat16):
        for shape in ((8, 14, 14), (1, 7, 5)):
            x = torch.randn(shape[0], channels, *shape[1:], dtype=dtype)
            for x in (x, x.contiguous(memory_format=torch.channels_last)):
                for weigh in (block, lambda x: block.blend(x, gain)):
                    weigh(x.requires_grad_()).sum().backward()
                    with torch.inference_mode():
                        weigh(x.detach())
print(len(fused._programs) > 8)
"""


@pytest.mark.proof
def test_no_use_exceeds_the_compilers_limit():
    done = subprocess.run(
        [sys.executable, "-c", EVERY_USE], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr[-2000:]


def test_a_program_with_other_numbers_is_detected(monkeypatch):
    monkeypatch.setattr(
        fused, "_compiled", lambda formula: lambda x, *others: formula(x, *others) * 1.1
    )
    fault = kernels.compiled_fault("cpu")
    assert fault == "compiled attention and its formula give different results here"


def fail(formula):
    def program(*given):
        raise RuntimeError("no triton")

    return program


def test_a_compiler_that_fails_is_a_reason_and_no_crash(monkeypatch):
    monkeypatch.setattr(fused, "_compiled", fail)
    fault = kernels.compiled_fault("cpu")
    assert fault == "attention runs in eager mode, compiling failed: RuntimeError: no triton"


def test_a_program_that_fails_later_warns_once_and_the_formula_is_used(monkeypatch):
    block, x = ShuffleAttention(8, groups=2), torch.rand(2, 8, 3, 3)
    wanted = block(x)
    monkeypatch.setattr(fused, "_compiled", fail)
    with fused.enabled("cpu"):
        with pytest.warns(RuntimeWarning, match="compiling failed: RuntimeError: no triton"):
            assert torch.equal(block(x), wanted)
        assert torch.equal(block(x), wanted)  # a second warning would be an error


def test_it_is_compiled_only_for_the_enabled_device(monkeypatch):
    calls = []
    monkeypatch.setattr(
        fused, "_compiled", lambda formula: lambda *given: calls.append(1) or formula(*given)
    )
    block, x = ShuffleAttention(8, groups=2), torch.rand(2, 8, 3, 3)
    block(x)
    assert not calls
    with fused.enabled("cpu"):
        block(x)
        block.blend(x, torch.tensor(0.5))
    assert len(calls) == 2
    with fused.enabled("cuda"):
        block(x)
    assert len(calls) == 2

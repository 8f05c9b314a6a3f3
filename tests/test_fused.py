"""Attention compiled for a device: the formula's numbers, or a reason; tried on a CPU here."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from crashlab.lab import compiler
from towernet.attention import ShuffleAttention, fused
from towernet.engine import kernels


@pytest.fixture(autouse=True)
def _asked_anew():
    kernels.compiled_fault.cache_clear()
    yield
    kernels.compiled_fault.cache_clear()


@pytest.mark.skipif(compiler() is None, reason="no C compiler")
def test_compiled_attention_gives_the_formulas_numbers():
    # In a process without the tests' shape checks, which the compiler cannot read.
    code = "from towernet.engine import kernels; print(kernels.compiled_fault('cpu'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "None\n", done.stdout


def test_a_program_with_other_numbers_is_noticed(monkeypatch):
    monkeypatch.setattr(
        "towernet.attention.shuffle.compiled",
        lambda formula: lambda x, *others: formula(x, *others) * 1.01,
    )
    fault = kernels.compiled_fault("cpu")
    assert fault == "compiled attention does not do here what the formula does"


def test_a_compiler_that_fails_is_a_reason_and_no_crash(monkeypatch):
    def fail(formula):
        raise RuntimeError("no triton\nof this kind")

    monkeypatch.setattr("towernet.attention.shuffle.compiled", fail)
    fault = kernels.compiled_fault("cpu")
    assert fault == "attention cannot be compiled here (no triton)" or "no triton" in fault


def test_it_is_compiled_where_it_is_switched_on_and_nowhere_else(monkeypatch):
    calls = []
    monkeypatch.setattr(
        "towernet.attention.shuffle.compiled",
        lambda formula: lambda *given: calls.append(1) or formula(*given),
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

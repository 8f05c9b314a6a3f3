"""Entering and leaving a policy leaves the process's settings as they were."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
import torch

from conftest import TINY_NETWORK, process_state
from towernet.attention import fused
from towernet.engine import device, kernels
from towernet.engine.device import Policy
from towernet.native import ops

KERNELS = "native" if kernels.fault() is None else "torch"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Restore the process's settings after each test."""
    threads = torch.get_num_threads()
    with ops.enabled(False), fused.enabled():
        yield
    torch.set_num_threads(threads)


def check_restores(active: Callable[[int, str], AbstractContextManager[None]]) -> None:
    """Check that entering and leaving, with some threads and kernels, restores all settings."""
    torch.set_num_threads(3)
    fused.enable("cpu")
    ops.enable(KERNELS == "native")
    before = process_state()
    with active(2, "torch"):
        outer = process_state()
        assert (outer["threads"], outer["kernels"], outer["compiled for"]) == (2, False, set())
        with active(4, KERNELS):
            inner = process_state()
            assert (inner["threads"], inner["kernels"]) == (4, KERNELS == "native")
        assert process_state() == outer
    assert process_state() == before
    with contextlib.suppress(KeyboardInterrupt), active(2, "torch"):
        raise KeyboardInterrupt
    assert process_state() == before


def policy(threads: int, kernels: str) -> Policy:
    return Policy("cpu", "float32", True, threads, "", kernels)


def test_a_policy_leaves_the_process_as_it_was():
    check_restores(lambda threads, kernels: policy(threads, kernels).active())


@contextlib.contextmanager
def stays(threads: int, kernels: str) -> Iterator[None]:
    policy(threads, kernels).active().__enter__()
    torch.set_num_threads(threads)
    ops.enable(kernels == "native")
    fused.enable()
    yield


@contextlib.contextmanager
def stays_after_an_exception(threads: int, kernels: str) -> Iterator[None]:
    before = torch.get_num_threads(), ops._enabled, fused._devices
    stays(threads, kernels).__enter__()
    yield
    torch.set_num_threads(before[0])
    ops.enable(before[1])
    fused.enable(*before[2])


@contextlib.contextmanager
def always_disables_the_kernels(threads: int, kernels: str) -> Iterator[None]:
    with policy(threads, kernels).active():
        yield
    ops.enable(False)
    fused.enable()


@pytest.mark.parametrize("twin", [stays, stays_after_an_exception, always_disables_the_kernels])
def test_a_twin_that_does_not_restore_everything_is_detected(twin):
    with pytest.raises(AssertionError):
        check_restores(twin)


@pytest.mark.parametrize("workspace", [None, ":16:8"])
def test_the_settings_for_a_gpu_are_restored(monkeypatch, workspace):
    with monkeypatch.context() as patched:
        if workspace is not None:
            patched.setenv("CUBLAS_WORKSPACE_CONFIG", workspace)
        before = process_state()
        with pytest.raises(ZeroDivisionError), device._repeatable_cuda():
            inside = process_state()
            assert inside["workspace"] == (workspace or ":4096:8")
            assert not inside["tf32"] and inside["deterministic"] and inside["warns only"]
            raise ZeroDivisionError
        assert process_state() == before != inside


def test_a_policy_that_cannot_be_entered_changes_nothing():
    before = process_state()
    with pytest.raises(RuntimeError), policy(0, "torch").active():
        pass
    assert process_state() == before


@pytest.mark.proof
def test_choosing_training_and_evaluating_leave_the_process_as_it_was(towernet, photos, tmp_path):
    torch.set_num_threads(3)
    before = process_state()
    for words in (
        ("train", photos, "--model", TINY_NETWORK, "--epochs", 1, "--size", 64, "--batch-size", 8,
         "--threads", 1, "--out", tmp_path / "run"),
        ("evaluate", tmp_path / "run", photos),
        ("attention", "se", "--channels", 16, "--size", 5),
    ):  # fmt: skip
        done = towernet(*words)
        assert done.returncode == 0, done.stderr
        assert process_state() == before, words[0]

"""Whether the machine is busy: seen from this process, and said before training."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from towernet.comparison.forecast import busy_words
from towernet.config import load_recipe, override
from towernet.engine import load
from towernet.engine.load import LoadMeter

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or load._waited_seconds() is None,
    reason="this system does not count how long threads wait",
)


@pytest.fixture
def busy_processor() -> Iterator[None]:
    """Limit this thread to a processor on which another process computes without a pause."""
    before = os.sched_getaffinity(0)
    chosen = min(before)
    endless = "print(flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", endless], stdout=subprocess.PIPE) as other:
        os.sched_setaffinity(other.pid, {chosen})
        os.sched_setaffinity(0, {chosen})
        assert other.stdout is not None
        other.stdout.readline()
        yield
        os.sched_setaffinity(0, before)
        other.kill()


def compute(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def test_a_busy_process_on_the_same_processor_is_noticed(busy_processor):
    meter = LoadMeter()
    compute(1.0)
    slowdown = meter.slowdown(threads=1)
    assert slowdown is not None and slowdown > 1.5, slowdown


def test_a_process_that_needs_no_processor_is_not_slowed_down(busy_processor):
    """The load average and the pressure of the machine would say that it is."""
    meter = LoadMeter()
    time.sleep(1.0)
    slowdown = meter.slowdown(threads=1)
    assert slowdown is not None and slowdown < 1.2, slowdown


def test_threads_that_wait_for_each_other_are_not_taken_for_others():
    assert LoadMeter().slowdown(threads=len(os.sched_getaffinity(0)) + 1) is None


@pytest.mark.parametrize("slowdown", [None, 1.0, 1.19])
def test_a_free_machine_is_not_mentioned(slowdown):
    assert busy_words(load_recipe("default"), slowdown, 3600.0) is None


def test_a_busy_machine_is_mentioned_with_what_it_costs():
    recipe = load_recipe("default")
    assert busy_words(recipe, 2.0, 3600.0) == (
        "this machine is busy with other processes: a training step takes at least 2 times as long"
        " as on a free machine; in the planned time networks take at most 50 % of the steps; to"
        " take all, 60 minutes more would be needed at the present rate"
    )
    epochs = override(recipe, train={"epochs": 30})
    assert busy_words(epochs, 2.0, 3600.0).endswith(
        "; at the present rate everything takes 30 minutes longer"
    )


@pytest.mark.proof
@pytest.mark.timeout(300)  # on a busy machine
def test_it_is_said_before_training(busy_processor, towernet, photos, tmp_path):
    done = towernet(
        "train", photos, "--epochs", 1, "--size", 64, "--threads", 1, "--workers", 1,
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = done.stderr
    assert 0 < said.index("1 step, about") < said.index("this machine is busy"), said

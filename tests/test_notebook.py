"""In a notebook: a real kernel runs cells, and its messages are checked."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager

from conftest import TINY_NETWORK

pytestmark = pytest.mark.proof

SECONDS = 240  # for one cell: the machine may be busy with other tests
WORDS = f'"digits", model="{TINY_NETWORK}", size=64, images_per_class=8, batch_size=4'
HANDLERS = "import signal\nprint([signal.getsignal(number) for number in (1, 2, 10, 15)])"


@dataclass
class Cell:
    """The messages that a front end received while a cell ran."""

    messages: list[dict[str, Any]]

    def of(self, kind: str) -> list[Any]:
        return [each["content"] for each in self.messages if each["msg_type"] == kind]

    def printed(self, stream: str = "stdout") -> str:
        return "".join(each["text"] for each in self.of("stream") if each["name"] == stream)

    @property
    def bars(self) -> set[str]:
        """The displays that can be updated."""
        shown = [each["transient"].get("display_id") for each in self.of("display_data")]
        return {name for name in shown if name}

    @property
    def updates(self) -> list[str]:
        """The updates of the bars, as text."""
        return [bar_text(each) for each in self.messages if bar_text(each)]

    @property
    def error(self) -> tuple[str, str] | None:
        """The name of the exception that ended the cell, and its traceback as shown."""
        found = self.of("error")
        return (found[0]["ename"], "\n".join(found[0]["traceback"])) if found else None


def bar_text(message: dict[str, Any]) -> str:
    if message["msg_type"] != "update_display_data":
        return ""
    return str(message["content"]["data"]["text/plain"])


def trained(message: dict[str, Any]) -> bool:
    """Whether a bar shows a training step."""
    return "images/s" in bar_text(message)


@dataclass
class Kernel:
    """A kernel in a separate process, and its client."""

    manager: KernelManager
    client: Any

    def run(self, code: str, *, interrupt: Callable[[dict[str, Any]], bool] | None = None) -> Cell:
        """Run a cell; interrupt it at the first message for which `interrupt` is true."""
        messages: list[dict[str, Any]] = []
        waiting = [interrupt] if interrupt else []

        def receive(message: dict[str, Any]) -> None:
            messages.append(message)
            if waiting and waiting[0](message):
                waiting.clear()
                self.manager.interrupt_kernel()

        self.client.execute_interactive(code, output_hook=receive, timeout=SECONDS)
        cell = Cell(messages)
        assert not waiting, f"it ended before it could be interrupted: {cell.error}"
        return cell


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """One kernel for all cells, as in one notebook; it does not touch the user's files."""
    folder = tmp_path_factory.mktemp("kernel")
    manager = KernelManager(transport="ipc", connection_file=str(folder / "kernel.json"))
    own = {
        "IPYTHONDIR": str(folder / "ipython"),
        "TOWERNET_CACHE": str(tmp_path_factory.getbasetemp() / "cache"),
    }
    manager.start_kernel(env=os.environ | own, cwd=str(folder))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=SECONDS)
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


@pytest.fixture(scope="module")
def interrupted(kernel: Kernel) -> tuple[Cell, Path, int]:
    """A long training that was interrupted, its folder, and the step that it reported."""
    before = kernel.run(HANDLERS).printed()
    cell = kernel.run(
        f'import towernet\ntowernet.train({WORDS}, epochs=500, out="long")', interrupt=trained
    )
    assert kernel.run(HANDLERS).printed() == before
    assert cell.error is not None
    reported = re.search(r"long is complete up to step (\d+) of \d+", cell.error[1])
    assert reported, cell.error
    folder = Path(kernel.run("import os\nprint(os.getcwd())").printed().strip()) / "long"
    return cell, folder, int(reported[1])


def faults(cell: Cell) -> list[str]:
    """Return how the cell's output differs from a clean progress bar."""
    found = []
    if len(cell.bars) != 1 or len(cell.updates) < 2:
        found.append("not exactly one display is updated")
    texts = [each["data"].get("text/plain", "") for each in cell.of("display_data")]
    if cell.printed("stderr") or any("Warning" in text for text in texts):
        found.append("standard error or a warning was shown")
    if any("widget" in kind for each in cell.of("display_data") for kind in each["data"]):
        found.append("a widget, which some front ends cannot show")
    return found


def test_a_training_shows_one_bar_and_its_messages(kernel):
    cell = kernel.run(f'import towernet\nrun = towernet.train({WORDS}, epochs=1, out="short")')
    assert cell.error is None
    assert not faults(cell)
    assert cell.updates[0].startswith("reading files")
    assert re.fullmatch(rf"{TINY_NETWORK} (\d+) of \1 steps in \d+:\d\d", cell.updates[-1])
    lines = cell.printed().splitlines()
    assert lines[0].startswith("I read this as 10 classes")
    assert sum(" epoch 1 " in line for line in lines) == 1


def test_richs_progress_bar_would_be_detected(kernel):
    cell = kernel.run(
        "from rich.progress import track\nimport time\n"
        "for _ in track(range(3)):\n    time.sleep(0.2)"
    )
    assert len(faults(cell)) == 2


def test_an_interrupted_training_ends_its_step_and_shows_how_to_resume(interrupted):
    cell, folder, step = interrupted
    name, shown = cell.error
    assert name == "Interrupted"
    assert re.fullmatch(
        r"Interrupted: stopped as requested; long is complete up to step \d+ of \d+:"
        r" towernet train --resume long",
        shown,
    )
    assert not cell.printed("stderr")
    assert list(folder.glob("last/*.json")) == [folder / "last" / f"{step:09d}.json"]


def test_the_bar_of_a_resumed_training_shows_all_figures(kernel, interrupted):
    figures = r"epoch \d+\.\d/500  loss \d+\.\d+  accuracy \d+ %.*  \d+ images/s  [\d:]+ left"
    cell = kernel.run(
        'import towernet\ntowernet.train(resume="long")',
        interrupt=lambda message: bool(re.search("validation .* images/s", bar_text(message))),
    )
    shown = [each for each in cell.updates if "images/s" in each]
    assert all(re.search(figures, each) for each in shown)
    assert f"long resumes after step {interrupted[2]}" in cell.printed()


@pytest.mark.parametrize(("seconds", "moves"), [("progress.SECONDS_BETWEEN_UPDATES", 0), ("0", 50)])
def test_a_bar_is_updated_a_few_times_a_second_even_with_short_steps(kernel, seconds, moves):
    cell = kernel.run(
        "from towernet import progress\n"
        f"progress.SECONDS_BETWEEN_UPDATES = {seconds}\n"
        "screen = progress.screen()\n"
        "screen.begin('<small> & quick', 0, 50, 10)\n"
        "for step in range(1, 51):\n"
        "    screen.step(step, 1.5, 0.5, 1e6)\n"
        "screen.end()\n"
    )
    assert len([each for each in cell.messages if trained(each)]) == moves
    assert cell.updates[-1] == "<small> & quick 50 of 50 steps in 0:00"
    assert "&lt;small&gt; &amp; quick" in cell.of("update_display_data")[-1]["data"]["text/html"]


def test_the_next_cell_runs_and_can_be_interrupted_itself(kernel, interrupted):
    assert kernel.run("print(6 * 7)").printed() == "42\n"
    cell = kernel.run(
        "import time\nprint('asleep', flush=True)\ntime.sleep(60)",
        interrupt=lambda message: message["msg_type"] == "stream",
    )
    assert cell.error is not None
    assert cell.error[0] == "KeyboardInterrupt"


def test_an_error_a_user_can_fix_is_one_line(kernel):
    cell = kernel.run("import towernet\ntowernet.train()")
    assert cell.error == (
        "ConfigError",
        "ConfigError: no images are given; pass a folder of images, or --resume RUN",
    )
    cell = kernel.run("from towernet.errors import DataError\nraise DataError('two\\nlines')")
    assert cell.error == ("DataError", "DataError: two lines")
    name, shown = kernel.run("1 / 0").error
    assert name == "ZeroDivisionError"
    assert len(shown.splitlines()) > 1


def test_the_command_leaves_a_kernels_signals_as_they_were(kernel):
    before = kernel.run(HANDLERS).printed()
    cell = kernel.run('from towernet.cli.main import main\nassert main(["train", "nowhere"]) == 3')
    assert cell.error is None
    assert kernel.run(HANDLERS).printed() == before


def test_a_stop_switch_left_on_is_detected(kernel):
    before = kernel.run(HANDLERS).printed()
    kernel.run("from towernet.engine.stop import StopSwitch\nstop = StopSwitch().__enter__()")
    assert kernel.run(HANDLERS).printed() != before
    kernel.run("stop.__exit__(None, None, None)")
    assert kernel.run(HANDLERS).printed() == before

"""The progress of long work: bars, or plain lines where the output cannot be updated.

`screen()` returns one of three: bars on a terminal, a bar in a notebook, lines in a file.
"""

from __future__ import annotations

import contextlib
import html
import math
import sys
import time
from abc import ABC, abstractmethod
from typing import Any, TextIO, cast

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as RichProgress,
)

from towernet.engine.runlog import Progress
from towernet.records.run import EpochMetrics, EpochTiming
from towernet.words import clock_time, percent, shown

SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_UPDATES = 0.25  # of a notebook's bar: each is a message to the browser


def screen() -> Screen:
    """Return the progress display for a notebook, a terminal or a file."""
    if in_notebook():
        return Notebook()
    console = Console(file=cast(TextIO, _SafeStream(sys.stderr)), highlight=False, soft_wrap=True)
    return Bars(console) if console.is_terminal else Lines(console)


def in_notebook() -> bool:
    """Return whether an IPython kernel runs this: its cells can show output that is updated.

    IPython in a terminal has no kernel and counts as a terminal.
    """
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def epoch_words(name: str, metrics: EpochMetrics, timing: EpochTiming) -> str:
    """Return the line printed for an epoch."""
    balanced = metrics.validation_balanced
    of_classes = f", balanced {percent(balanced.accuracy):>7}" if balanced else ""
    return (
        f"{name:<14} epoch {metrics.epoch:<5.4g} loss {metrics.train_loss:.3f}"
        f"  accuracy {percent(metrics.train_accuracy):>7}"
        f"  validation {percent(metrics.validation_accuracy):>7}{of_classes}"
        f"  {timing.images_per_second:.0f} images/s"
    )


class Screen(Progress, ABC):
    """Shows the progress of runs and counts files, with the same words on every display.

    A subclass defines how to show a bar (`_open`, `_move`, `_close`) and a line (`_print`).
    """

    seconds_between_lines = SECONDS_BETWEEN_LINES

    def __init__(self) -> None:
        self.name = ""
        self.num_steps = self.steps_per_epoch = 0
        self.first_step = 0
        self.started = self.last_line = time.monotonic()
        self.counting = ""
        self.validation = ""  # shown in the bar where few epochs are printed

    def say(self, text: str) -> None:
        """Print a sentence, above the bar if there is one."""
        self._stop_counting()
        self._print(shown(text))

    def begin(self, name: str, step: int, num_steps: int, steps_per_epoch: int) -> None:
        """Start a run's bar."""
        self._stop_counting()
        self.name, self.num_steps, self.steps_per_epoch = name, num_steps, steps_per_epoch
        self.started = self.last_line = time.monotonic()
        self.first_step = step
        self.validation = ""
        self._open(name, step, num_steps)

    def step(self, step: int, loss: float, accuracy: float, images_per_second: float) -> None:
        """Move the run's bar."""
        epoch, num_epochs = (num / self.steps_per_epoch for num in (step, self.num_steps))
        figures = (
            f"epoch {epoch:.1f}/{num_epochs:.3g}  loss {loss:.3f}  accuracy {percent(accuracy, 0)}"
            f"{self.validation}  {images_per_second:.0f} images/s"
        )
        self._move(step, figures)

    def epoch(self, metrics: EpochMetrics, timing: EpochTiming) -> None:
        """Print an epoch's line, unless the last line is too recent."""
        words = epoch_words(self.name, metrics, timing)
        self._end_epoch(metrics.step, words, metrics.validation_accuracy)

    def _end_epoch(self, step: int, words: str, validation_accuracy: float) -> None:
        last = step == self.num_steps
        self._move(step)
        if last or time.monotonic() - self.last_line > self.seconds_between_lines:
            self.last_line = time.monotonic()
            self._print(words if last else f"{words}  {self._left(step)}")

    def end(self) -> None:
        """Remove the bar."""
        self._close()

    def count(self, what: str, done: int, total: int) -> None:
        """Show how many files are done: the `progress` of the data functions."""
        if what != self.counting:
            self._stop_counting()
            self.counting = what
            self._open(what, 0, total)
        self._move(done)
        if done >= total:
            self._stop_counting()

    def _stop_counting(self) -> None:
        if self.counting:
            self.counting = ""
            self._close()

    def _left(self, step: int) -> str:
        """Return the time left for the run, extrapolated from the time so far."""
        seconds = (time.monotonic() - self.started) / max(step - self.first_step, 1)
        return f"{clock_time(seconds * (self.num_steps - step))} left"

    @abstractmethod
    def _print(self, text: str) -> None:
        """Print one permanent line."""

    @abstractmethod
    def _open(self, what: str, done: int, total: int) -> None:
        """Start a bar: of files while `counting`, else of a run's steps."""

    @abstractmethod
    def _move(self, done: int, figures: str = "") -> None:
        """Update the bar, if there is one; without `figures` its figures stay."""

    @abstractmethod
    def _close(self) -> None:
        """End the bar, if there is one."""


class _SafeStream:
    """A stream that ignores errors of writing: a closed terminal must not end a long training."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


class Bars(Screen):
    """The display of a terminal: a bar that disappears when it is full.

    Args:
        console: On standard error, so results can be piped.
    """

    seconds_between_lines = 2.0

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console
        self.bars: RichProgress | None = None
        self.task: Any = None

    def _print(self, text: str) -> None:
        self.console.print(escape(text))

    def _open(self, what: str, done: int, total: int) -> None:
        self.bars = RichProgress(
            TextColumn("{task.description:<14}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            *([] if self.counting else [TextColumn("{task.fields[figures]}")]),
            console=self.console,
            transient=True,
        )
        self.bars.start()
        self.task = self.bars.add_task(escape(what), total=total, completed=done, figures="")

    def _move(self, done: int, figures: str = "") -> None:
        if self.bars is not None:
            fields = {"figures": figures} if figures else {}
            self.bars.update(self.task, completed=done, **fields)  # type: ignore[arg-type]

    def _close(self) -> None:
        if self.bars is not None:
            self.bars.stop()
            self.bars = None


class Lines(Screen):
    """The display for a file or pipe: a progress line every few seconds.

    Args:
        console: On standard error, so results can be piped.
    """

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console

    def _print(self, text: str) -> None:
        self.console.print(escape(text))

    def _open(self, what: str, done: int, total: int) -> None:
        if self.counting:
            self._print(f"{what}: {total}")

    def _move(self, done: int, figures: str = "") -> None:
        if figures and time.monotonic() - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = time.monotonic()
            self._print(
                f"{self.name:<14} step {done} of {self.num_steps}  {figures}  {self._left(done)}"
            )

    def _close(self) -> None:
        """There is no bar."""


class Notebook(Screen):
    """The display of a notebook's cell: one bar for all work, and messages below it.

    The bar is a display that is updated, which every front end supports without widgets. Messages
    go to standard output, since notebooks show standard error as errors.
    """

    seconds_between_lines = math.inf  # the bar shows it; a run's last line stays

    def __init__(self) -> None:
        super().__init__()
        self.handle: Any = None
        self.what, self.unit, self.done, self.total = "", "", 0, 0
        self.figures = ""
        self.opened = self.last_update = time.monotonic()

    def _print(self, text: str) -> None:
        print(text, flush=True)

    def _end_epoch(self, step: int, words: str, validation_accuracy: float) -> None:
        self.validation = f"  validation {percent(validation_accuracy, 0)}"
        super()._end_epoch(step, words, validation_accuracy)

    def _open(self, what: str, done: int, total: int) -> None:
        self.what, self.unit = shown(what), "" if self.counting else " steps"
        self.done, self.total, self.figures = done, total, ""
        self.opened = time.monotonic()
        self._show(self._so_far())

    def _move(self, done: int, figures: str = "") -> None:
        self.done, self.figures = done, figures or self.figures
        if self.what and time.monotonic() - self.last_update > SECONDS_BETWEEN_UPDATES:
            self._show(f"{self.figures}  {self._left(done)}" if self.figures else self._so_far())

    def _close(self) -> None:
        if self.what:  # the final state stays visible
            self._show(f"{self._so_far()} in {clock_time(time.monotonic() - self.opened)}")
            self.what = ""

    def _so_far(self) -> str:
        return f"{self.done} of {self.total}{self.unit}"

    def _show(self, words: str) -> None:
        from IPython.display import DisplayHandle

        self.last_update = time.monotonic()
        bar = _BAR.format(
            what=html.escape(self.what),
            done=self.done,
            total=max(self.total, 1),
            words=html.escape(words),
        )
        shows = {"text/plain": f"{self.what:<14} {words}", "text/html": bar}
        if self.handle is None:
            self.handle = DisplayHandle()  # type: ignore[no-untyped-call]
            self.handle.display(shows, raw=True)
        else:
            self.handle.update(shows, raw=True)


# Styled like printed lines (only JupyterLab defines the variables); in a narrow window the bar
# shrinks before the words do.
_BAR = (
    '<div style="display: flex; flex-wrap: wrap; align-items: center; gap: 0 1ch; margin: 0;'
    " padding: 0 1ch; white-space: pre-wrap; font-family: var(--jp-code-font-family, monospace);"
    ' font-size: var(--jp-code-font-size, inherit)">'
    '<span>{what:<14}</span><progress aria-label="{what}" value="{done}" max="{total}"'
    ' style="flex: 1 1 4em; max-width: 12em"></progress><span>{words}</span></div>'
)

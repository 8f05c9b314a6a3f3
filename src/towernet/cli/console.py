"""What a person sees while something long goes on: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Any, TextIO, cast

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from towernet.engine.runlog import Watcher
from towernet.errors import shown
from towernet.records.run import EpochMetrics, EpochTiming

SECONDS_BETWEEN_LINES = 10.0


def epoch_words(name: str, metrics: EpochMetrics, timing: EpochTiming) -> str:
    """Say one epoch in one line."""
    return (
        f"{name:<14} epoch {metrics.epoch:<5.4g} loss {metrics.train_loss:.3f}"
        f"  accuracy {100 * metrics.train_accuracy:5.1f} %"
        f"  validation {100 * metrics.validation_accuracy:5.1f} %"
        f"  {timing.images_per_second:.0f} images/s"
    )


def time_words(seconds: float) -> str:
    """Write a time left as minutes and seconds."""
    minutes, seconds = divmod(int(seconds), 60)
    return (
        f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
        if minutes >= 60
        else f"{minutes}:{seconds:02d}"
    )


class _Forgiving:
    """A stream whose reader may go away: a closed terminal must not end a night of training."""

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


class Screen(Watcher):
    """Watches runs and counts files; writes to standard error, so results can be piped."""

    def __init__(self) -> None:
        self.console = Console(
            file=cast(TextIO, _Forgiving(sys.stderr)), highlight=False, soft_wrap=True
        )
        self.live = self.console.is_terminal
        self.bars: Progress | None = None
        self.task: Any = None
        self.name = ""
        self.num_steps = self.steps_per_epoch = 0
        self.began_step = 0
        self.began = self.last_line = time.monotonic()
        self.counting = ""

    def say(self, text: str) -> None:
        """Print a sentence, above the bar if there is one."""
        self._stop_counting()
        self.console.print(escape(shown(text)))

    def begin(self, name: str, step: int, num_steps: int, steps_per_epoch: int) -> None:
        """Start a run's bar."""
        self._stop_counting()
        self.name, self.num_steps, self.steps_per_epoch = name, num_steps, steps_per_epoch
        self.began = self.last_line = time.monotonic()
        self.began_step = step
        if self.live:
            self._open("{task.fields[figures]}")
            assert self.bars is not None
            self.task = self.bars.add_task(
                escape(name), total=num_steps, completed=step, figures=""
            )

    def step(self, step: int, loss: float, accuracy: float, images_per_second: float) -> None:
        """Move the run's bar."""
        epoch, num_epochs = (num / self.steps_per_epoch for num in (step, self.num_steps))
        figures = (
            f"epoch {epoch:.1f}/{num_epochs:.3g}  loss {loss:.3f}  accuracy {100 * accuracy:.0f} %"
            f"  {images_per_second:.0f} images/s"
        )
        if self.bars is not None:
            self.bars.update(self.task, completed=step, figures=figures)
        elif time.monotonic() - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = time.monotonic()
            left = (
                (self.last_line - self.began) / (step - self.began_step) * (self.num_steps - step)
            )
            self.console.print(
                escape(
                    f"{self.name:<14} step {step} of {self.num_steps}  {figures}"
                    f"  {time_words(left)} left"
                )
            )

    def epoch(self, metrics: EpochMetrics, timing: EpochTiming) -> None:
        """Print an epoch's line. Short epochs share the line of the last one shown."""
        last = metrics.step == self.num_steps
        if self.bars is not None:
            self.bars.update(self.task, completed=metrics.step)
        if last or time.monotonic() - self.last_line > (
            2.0 if self.live else SECONDS_BETWEEN_LINES
        ):
            self.last_line = time.monotonic()
            left = (self.last_line - self.began) / max(metrics.step - self.began_step, 1)
            left *= self.num_steps - metrics.step
            self.console.print(
                escape(
                    epoch_words(self.name, metrics, timing)
                    + (f"  {time_words(left)} left" if not last else "")
                )
            )

    def end(self) -> None:
        """Take the bar away."""
        if self.bars is not None:
            self.bars.stop()
            self.bars = None

    def count(self, what: str, done: int, total: int) -> None:
        """Show how many files are done: the `progress` of the data functions."""
        if what != self.counting:
            self._stop_counting()
            self.counting = what
            if self.live:
                self._open("")
                assert self.bars is not None
                self.task = self.bars.add_task(escape(what), total=total, figures="")
            else:
                self.console.print(escape(f"{what}: {total}"))
        if self.bars is not None:
            self.bars.update(self.task, completed=done)
        if done >= total:
            self._stop_counting()

    def _stop_counting(self) -> None:
        if self.counting:
            self.counting = ""
            self.end()

    def _open(self, figures: str) -> None:
        self.bars = Progress(
            TextColumn("{task.description:<14}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            *([TextColumn(figures)] if figures else []),
            console=self.console,
            transient=True,
        )
        self.bars.start()


def the_command() -> str:
    """Return the command as it was typed, to repeat it."""
    import shlex

    return shlex.join(["towernet", *sys.argv[1:]])

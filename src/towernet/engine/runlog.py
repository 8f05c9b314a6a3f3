"""What a run reports while it trains: to the user, and to its files.

`metrics.jsonl` is exact; `timings.jsonl` is measured; the TensorBoard events are derived from
both and rebuilt when a run is resumed.
"""

from __future__ import annotations

import math
import shutil
import time
import traceback
from pathlib import Path
from statistics import fmean
from typing import Any

from towernet import files
from towernet.errors import first_line_of
from towernet.records.base import checked
from towernet.records.run import EpochMetrics, EpochTiming

SECONDS_BETWEEN_WRITES = 10.0


class Progress:
    """Receiver of a run's progress. This one ignores it; `progress.Screen` displays it."""

    def say(self, text: str) -> None:
        """Report one sentence."""

    def count(self, what: str, done: int, total: int) -> None:
        """Report the number of files done: the `progress` of the data functions."""

    def begin(self, name: str, step: int, num_steps: int, steps_per_epoch: int) -> None:
        """Report that a run starts, or resumes, at a step."""

    def step(self, step: int, loss: float, accuracy: float, images_per_second: float) -> None:
        """Report a step; the accuracy is the epoch's so far, on augmented images."""

    def epoch(self, metrics: EpochMetrics, timing: EpochTiming) -> None:
        """Report an evaluated epoch: its lines of the metrics and of the timings."""

    def end(self) -> None:
        """Report the end of the run, also after a failure."""


class RunLog:
    """The per-epoch files of one run.

    Args:
        folder: The run's folder.
        metrics: The exact lines so far; the file lacks some if the run was killed.
        timings: The measured ones.
    """

    def __init__(
        self, folder: Path, metrics: list[EpochMetrics], timings: list[EpochTiming]
    ) -> None:
        self.folder = folder
        self.board = Board(folder / "tensorboard")
        self._written, self._num_written = -math.inf, 0  # a first epoch is written at once
        for row in metrics:
            self.board.add(row)
        self.write(metrics, timings)

    def add(self, metrics: list[EpochMetrics], timings: list[EpochTiming]) -> None:
        """Report a new epoch: the last of these lines.

        The files are written as a whole, so not after every epoch if epochs are short.
        """
        if time.monotonic() - self._written > SECONDS_BETWEEN_WRITES:
            self.write(metrics, timings)
        self.board.add(metrics[-1])

    def write(self, metrics: list[EpochMetrics], timings: list[EpochTiming]) -> None:
        """Write the lines of all epochs, unless the files have them."""
        if len(metrics) == self._num_written:
            return
        self._written, self._num_written = time.monotonic(), len(metrics)
        files.write_jsonl(self.folder / "metrics.jsonl", (row.model_dump() for row in metrics))
        files.write_jsonl(self.folder / "timings.jsonl", (row.model_dump() for row in timings))


def read_metrics(folder: Path) -> list[EpochMetrics]:
    """Return the lines of a run's `metrics.jsonl`; none if it does not exist.

    Raises:
        DataError: it is damaged.
    """
    path = folder / "metrics.jsonl"
    return [checked(EpochMetrics, line, path) for line in files.read_jsonl(path)]


def read_timings(folder: Path) -> list[EpochTiming]:
    """Return the lines of a run's `timings.jsonl`; none if it does not exist.

    Raises:
        DataError: it is damaged.
    """
    path = folder / "timings.jsonl"
    return [checked(EpochTiming, line, path) for line in files.read_jsonl(path)]


def training_seconds(folder: Path) -> float:
    """Return a run's total seconds, evaluations included."""
    return float(sum(line.seconds for line in read_timings(folder)))


def mean_seconds(folder: Path, num_validation: int) -> tuple[float, float]:
    """Return what a finished run took on average: for a training step, and to evaluate an image.

    Args:
        folder: Of the run.
        num_validation: How many images were evaluated after each epoch.
    """
    # A fitted head is no step: its line is left out.
    lines = [line for line in read_timings(folder) if line.step]
    training = sum(line.train_seconds for line in lines)
    evaluating = sum(line.seconds - line.train_seconds for line in lines)
    return training / lines[-1].step, evaluating / (len(lines) * num_validation)


class Board:
    """The TensorBoard events of one run: the only file that is appended to, since it is read live.

    It need not be written atomically: it is rebuilt from the metrics at every start. (torch's own
    writer works in a thread, which prints a traceback when the disk is full.)

    Args:
        folder: Deleted and recreated.

    Raises:
        EnvironmentFault: it cannot be written; its methods raise this too.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self.path = folder / f"events.out.tfevents.{int(time.time())}"
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            self.path.touch()
        except OSError as error:
            raise files.refused(self.path, error) from error
        self._append(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def add(self, row: EpochMetrics) -> None:
        """Append one line of the metrics."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        figures = {
            "learning_rate": row.learning_rate,
            "loss/train": row.train_loss,
            "accuracy/train": row.train_accuracy,
            "loss/validation": row.validation_loss,
            "accuracy/validation": row.validation_accuracy,
        }
        if row.validation_balanced is not None:
            figures |= {
                "loss/validation_balanced": row.validation_balanced.loss,
                "accuracy/validation_balanced": row.validation_balanced.accuracy,
            }
        if blocks := list((row.attention or {}).values()):
            figures |= {
                "attention/gradient_norm": fmean(block.gradient_norm for block in blocks),
                "attention/gate_mean": fmean(block.gate_mean for block in blocks),
                "attention/gate_spread": fmean(block.gate_spread for block in blocks),
            }
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in figures.items()]
        self._append(Event(wall_time=time.time(), step=row.step, summary=Summary(value=values)))

    def _append(self, event: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        try:
            with self.path.open("ab") as stream:
                RecordWriter(stream).write(event.SerializeToString())
        except OSError as error:
            raise files.refused(self.path, error) from error


def log_failure(folder: Path, error: Exception) -> str:
    """Append a network's traceback to `failures.log`; return a sentence that refers to it."""
    log = folder / "failures.log"
    before = log.read_text(encoding="utf-8") if log.exists() else ""
    files.write_text(log, before + "".join(traceback.format_exception(error)))
    return f"it raised {first_line_of(error)}; {log} has the details"

"""What a run tells while it goes on: to the person watching, and to the files.

`metrics.jsonl` is exact; `timings.jsonl` is measured; the TensorBoard events are derived from
both and rebuilt when a run is resumed.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from towernet import files


class Watcher:
    """Whoever watches a run. This one tells nobody; the terminal's is `cli.console.Screen`."""

    def say(self, text: str) -> None:
        """Tell one sentence."""

    def count(self, what: str, done: int, total: int) -> None:
        """So many files are done: the `progress` of the data functions."""

    def begin(self, name: str, step: int, num_steps: int, steps_per_epoch: int) -> None:
        """A run starts, or goes on, at a step."""

    def step(self, step: int, loss: float, accuracy: float, images_per_second: float) -> None:
        """A step was taken; the accuracy is the epoch's so far, on augmented images."""

    def epoch(self, row: dict[str, Any]) -> None:
        """An epoch was evaluated."""

    def end(self) -> None:
        """The run is over, well or not."""


class RunLog:
    """The per-epoch files of one run.

    Args:
        folder: The run's folder.
        num_epochs: How many lines of an earlier session count; later ones are dropped.
    """

    def __init__(self, folder: Path, num_epochs: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.folder = folder
        self.metrics = files.read_jsonl(folder / "metrics.jsonl")[:num_epochs]
        self.timings = files.read_jsonl(folder / "timings.jsonl")[:num_epochs]
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        self.board = SummaryWriter(str(folder / "tensorboard"))
        for row in self.metrics:
            self._draw(row)

    def add(self, metrics: dict[str, Any], timings: dict[str, Any]) -> None:
        """Write one epoch's exact figures and its measured ones."""
        self.metrics.append(metrics)
        self.timings.append(timings)
        files.write_jsonl(self.folder / "metrics.jsonl", self.metrics)
        files.write_jsonl(self.folder / "timings.jsonl", self.timings)
        self._draw(metrics)

    def _draw(self, row: dict[str, Any]) -> None:
        for part in ("train", "validation"):
            for figure in ("loss", "accuracy"):
                self.board.add_scalar(f"{figure}/{part}", row[f"{part}_{figure}"], row["step"])
        self.board.add_scalar("learning_rate", row["learning_rate"], row["step"])

    def close(self) -> None:
        """Finish the TensorBoard file."""
        self.board.close()

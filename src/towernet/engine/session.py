"""What every part of a comparison works with: created once, passed on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from towernet import files
from towernet.data.source import Source
from towernet.engine.runlog import Progress
from towernet.engine.stop import StopSwitch
from towernet.records.run import Origin
from towernet.resume import NOTHING_ACCEPTED, Accept


@dataclass(frozen=True)
class Session:
    """On what, where and how a comparison is computed, and where its progress is reported.

    Nothing in it affects a result, except the device and the threads, which the protocol or the
    run's record keeps.

    Args:
        source: The images.
        folder: Where everything is written.
        origin: For the record: the command, and how the data was read.
        device: "auto" picks one, or keeps that of the start.
        threads: Computing threads; None: one per core, or as many as at the start.
        workers: Decoding processes.
        accept: The accepted differences from the start.
        progress: Receives the progress.
        stop: Signals that the user wants to stop.
    """

    source: Source
    folder: Path
    origin: Origin
    device: str = "auto"
    threads: int | None = None
    workers: int = 1
    accept: Accept = NOTHING_ACCEPTED
    progress: Progress = field(default_factory=Progress)
    stop: StopSwitch = field(default_factory=StopSwitch)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock.

        Raises:
            ConfigError: another process holds it.
            EnvironmentFault: the folder cannot be written.
        """
        with files.lock(self.folder / "lock", holder=str(self.folder), say=self.progress.say):
            yield

"""What every part of a comparison works with: created once, passed on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from towernet import files
from towernet.data.rules import Rules
from towernet.data.source import Source
from towernet.engine.device import Policy
from towernet.engine.features import Key
from towernet.engine.runlog import Progress
from towernet.engine.stop import StopSwitch
from towernet.records.contract import Contract
from towernet.records.run import Origin
from towernet.resume import NOTHING_ACCEPTED, Accept
from towernet.starts.find import FoundWeights


@dataclass(frozen=True)
class KeptWeights:
    """What reading pre-trained weights gave; runs of one command share it.

    Args:
        keys: Of features, by all that they depend on.
        tensors: Of networks without their last layer, by the network, K and the side of its images.
    """

    keys: dict[tuple[str, Contract, Rules, Policy], Key] = field(default_factory=dict)
    tensors: dict[tuple[str, int, int], Mapping[str, Tensor]] = field(default_factory=dict)


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
        weights: The pre-trained weights of the networks that start from some, by network.
        kept: What was read from them.
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
    weights: Mapping[str, FoundWeights] = field(default_factory=dict)
    kept: KeptWeights = field(default_factory=KeptWeights)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock.

        Raises:
            ConfigError: another process holds it.
            EnvironmentFault: the folder cannot be written.
        """
        with files.lock(self.folder / "lock", holder=str(self.folder), say=self.progress.say):
            yield

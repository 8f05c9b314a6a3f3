"""Where a comparison lies, or one run on its own, and what differs between the two.

A run on its own is a comparison of one network: without trials of learning rates, in one folder
that also holds the results, its protocol a part of `run.json`.
"""

from __future__ import annotations

import abc
from pathlib import Path
from typing import Literal

from towernet import files
from towernet.comparison.forecast import forecast_words
from towernet.comparison.protocol import make_protocol, read_protocol, write_protocol
from towernet.config import AS_BEGUN
from towernet.data.prepare import Dataset
from towernet.engine.measure import Cost
from towernet.engine.record import read_trained
from towernet.engine.session import Session
from towernet.errors import ConfigError, DataError
from towernet.names import NetworkName
from towernet.records.protocol import Decided, Protocol, Request
from towernet.records.run import RunRecord
from towernet.words import rough_time

Costs = dict[NetworkName, Cost]
Steps = dict[NetworkName, int]


class OutFolder(abc.ABC):
    """The folder of a comparison, or of a run on its own.

    Args:
        session: Whose folder it is.
    """

    kind: Literal["comparison", "run"]

    def __init__(self, session: Session) -> None:
        self.folder, self.session = session.folder, session

    @property
    def is_alone(self) -> bool:
        """Whether it is one run on its own."""
        return self.kind == "run"

    @property
    @abc.abstractmethod
    def again(self) -> str:
        """How to go on with what was stopped."""

    @abc.abstractmethod
    def existing_protocol(self) -> Protocol | None:
        """Return the protocol of what was begun here, None where nothing was.

        Raises:
            ConfigError: something else is here.
            DataError: its record is damaged.
        """

    @abc.abstractmethod
    def keep(self, protocol: Protocol) -> None:
        """Write down what was decided, where no run does."""

    @abc.abstractmethod
    def final_protocol(self, protocol: Protocol) -> Protocol:
        """Return the protocol by which the runs were made in the end."""

    @abc.abstractmethod
    def run_folder(self, name: NetworkName, repetition: int, share: float = 1.0) -> Path:
        """Return the folder of a run."""

    def trial_folder(self, name: NetworkName, number: int) -> Path:
        """Return the folder of a trial."""
        return self.folder / "trials" / f"{name.folder_name}-{number}"

    @abc.abstractmethod
    def forecast_words(self, request: Request, dataset: Dataset, costs: Costs, steps: Steps) -> str:
        """Say what it will take."""


class ComparisonFolder(OutFolder):
    """A comparison's folder: `protocol.toml`, `trials/`, `runs/`."""

    kind = "comparison"
    again = "say the same command again"

    def existing_protocol(self) -> Protocol | None:
        """Read `protocol.toml`."""
        protocol = read_protocol(self.folder / "protocol.toml")
        if protocol is None and not files.is_empty(self.folder):
            raise ConfigError(
                f"{self.folder} is not empty and holds no comparison; choose another --out"
            )
        if protocol is None and self.session.accept != AS_BEGUN:
            raise ConfigError(
                f"{self.folder} holds nothing to go on with; leave out --accept-data-change and"
                " --accept-changes"
            )
        return protocol

    def keep(self, protocol: Protocol) -> None:
        """Write `protocol.toml`."""
        write_protocol(self.folder / "protocol.toml", protocol)

    def final_protocol(self, protocol: Protocol) -> Protocol:
        """Return it as it is."""
        return protocol

    def run_folder(self, name: NetworkName, repetition: int, share: float = 1.0) -> Path:
        """Return a folder in `runs/`."""
        less = f"-{100 * share:g}-percent" if share < 1 else ""
        return self.folder / "runs" / f"{name.folder_name}-{repetition}{less}"

    def forecast_words(self, request: Request, dataset: Dataset, costs: Costs, steps: Steps) -> str:
        """Say what every network will take, and all of them together."""
        return forecast_words(request, dataset, costs, steps)


class RunFolder(OutFolder):
    """The folder of a run on its own.

    Args:
        session: Whose folder it is.
        resume: Whether a run in it is gone on with, and not refused.
    """

    kind = "run"

    def __init__(self, session: Session, *, resume: bool) -> None:
        super().__init__(session)
        self._resume = resume

    @property
    def again(self) -> str:
        """The command that goes on."""
        return f"towernet train --resume {self.folder}"

    def existing_protocol(self) -> Protocol | None:
        """Make a protocol of `run.json`."""
        if not (self.folder / "run.json").exists():
            if not files.is_empty(self.folder):
                raise ConfigError(f"{self.folder} is not empty; choose another --out")
            return None
        if not self._resume:
            raise ConfigError(
                f"{self.folder} already holds a run; go on with it by --resume {self.folder},"
                " or choose another --out"
            )
        record = run_alone(self.folder)
        name, plan = record.config.model, record.plan
        assert record.origin.cost is not None, "it is of a run on its own"
        decided = Decided(
            policy=plan.policy,
            num_steps={name: plan.num_steps},
            mixes={name: plan.mixes},
            failures={},
            costs={name: record.origin.cost},
        )
        return make_protocol(request_of(record), record.data, decided, record.versions)

    def keep(self, protocol: Protocol) -> None:
        """Leave that to the run, whose record holds it."""

    def final_protocol(self, protocol: Protocol) -> Protocol:
        """Return it with the versions that the run's record names."""
        return protocol.model_copy(update={"versions": run_alone(self.folder).versions})

    def run_folder(self, name: NetworkName, repetition: int, share: float = 1.0) -> Path:
        """Return the folder itself."""
        return self.folder

    def forecast_words(self, request: Request, dataset: Dataset, costs: Costs, steps: Steps) -> str:
        """Say what the one network will take."""
        ((name, cost),) = costs.items()
        seconds = steps[name] * cost.seconds_per_step(dataset, request.recipe.train.batch_size)
        return f"{name}: {steps[name]} steps, about {rough_time(seconds)}"


def run_alone(folder: Path) -> RunRecord:
    """Read the record of a run that was begun on its own.

    Raises:
        DataError: it is damaged, of a comparison, or of weights that were made elsewhere.
    """
    record = read_trained(folder)
    if record.origin.data is not None and record.origin.cost is not None:
        return record
    raise DataError(
        f"{folder / 'run.json'} is not of a run begun by `towernet train` (its origin names no"
        " data); a comparison goes on by its own command"
    )


def request_of(record: RunRecord) -> Request:
    """Return what was asked for when a run on its own was begun."""
    config = record.config
    return Request(
        models=(config.model,),
        recipe_name=config.recipe_name,
        recipe=config.recipe,
        seed=config.seed,
        images_per_class=config.images_per_class,
    )

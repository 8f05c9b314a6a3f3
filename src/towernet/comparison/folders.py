"""The folder of a comparison or of a single run, and the differences between the two.

A single run is a comparison of one network without learning-rate trials. Its folder also contains
the results, and its protocol is part of `run.json`.
"""

from __future__ import annotations

import abc
from dataclasses import replace
from pathlib import Path
from typing import Literal

from towernet import files
from towernet.comparison.forecast import forecast
from towernet.comparison.protocol import make_protocol, read_protocol, write_protocol
from towernet.data.encodings import AS_BEFORE
from towernet.data.prepare import Dataset
from towernet.data.table import read_table
from towernet.engine.measure import Cost
from towernet.engine.record import read_trained
from towernet.engine.session import Session
from towernet.errors import ConfigError, DataError
from towernet.names import NetworkName
from towernet.records.protocol import Decided, Protocol, Request
from towernet.records.reading import DEFAULT, Reading, options_of
from towernet.records.run import RunRecord
from towernet.resume import NOTHING_ACCEPTED
from towernet.words import counted, rough_time

Costs = dict[NetworkName, Cost]
Steps = dict[NetworkName, int]


class OutFolder(abc.ABC):
    """The folder of a comparison, or of a single run.

    Args:
        session: The session that uses the folder.
    """

    kind: Literal["comparison", "run"]

    def __init__(self, session: Session) -> None:
        self.folder, self.session = session.folder, session

    @property
    def is_single_run(self) -> bool:
        """Whether it is the folder of a single run."""
        return self.kind == "run"

    @property
    @abc.abstractmethod
    def how_to_resume(self) -> str:
        """How the user resumes after a stop."""

    @abc.abstractmethod
    def existing_protocol(self) -> Protocol | None:
        """Return the protocol that was started in this folder, None if there is none.

        Raises:
            ConfigError: the folder contains something else.
            DataError: the record is damaged.
        """

    @abc.abstractmethod
    def save_protocol(self, protocol: Protocol) -> None:
        """Write the protocol, unless a run's record contains it."""

    @abc.abstractmethod
    def final_protocol(self, protocol: Protocol) -> Protocol:
        """Return the protocol that the runs were finally made with."""

    @abc.abstractmethod
    def run_folder(
        self, name: NetworkName, repetition: int, share: float = 1.0, shots: int | None = None
    ) -> Path:
        """Return the folder of a run."""

    def trial_folder(self, name: NetworkName, number: int) -> Path:
        """Return the folder of a trial."""
        return self.folder / "trials" / f"{name.folder_name}-{number}"

    @abc.abstractmethod
    def forecast(
        self, request: Request, dataset: Dataset, costs: Costs, steps: Steps
    ) -> tuple[str, float]:
        """Describe how long it will take; return that and the seconds."""


class ComparisonFolder(OutFolder):
    """A comparison's folder: `protocol.toml`, `trials/`, `runs/`."""

    kind = "comparison"
    how_to_resume = "rerun the same command to resume"

    def existing_protocol(self) -> Protocol | None:
        """Read `protocol.toml`."""
        protocol = read_protocol(self.folder / "protocol.toml")
        if protocol is None and not files.is_empty(self.folder):
            raise ConfigError(
                f"{self.folder} is not empty and contains no comparison; choose another --out"
            )
        if protocol is None and self.session.accept != NOTHING_ACCEPTED:
            raise ConfigError(
                f"{self.folder} contains nothing to resume; leave out --accept-data-change and"
                " --accept-changes"
            )
        return protocol

    def save_protocol(self, protocol: Protocol) -> None:
        """Write `protocol.toml`."""
        write_protocol(self.folder / "protocol.toml", protocol)

    def final_protocol(self, protocol: Protocol) -> Protocol:
        """Return it unchanged."""
        return protocol

    def run_folder(
        self, name: NetworkName, repetition: int, share: float = 1.0, shots: int | None = None
    ) -> Path:
        """Return a folder in `runs/`."""
        less = f"-{100 * share:g}-percent" if share < 1 else ""
        if shots is not None:
            less = f"-{shots}-a-class"
        return self.folder / "runs" / f"{name.folder_name}-{repetition}{less}"

    def forecast(
        self, request: Request, dataset: Dataset, costs: Costs, steps: Steps
    ) -> tuple[str, float]:
        """Describe how long each network will take, and all together."""
        return forecast(request, dataset, costs, steps)


class RunFolder(OutFolder):
    """The folder of a single run.

    Args:
        session: The session that uses the folder.
        resume: Whether to resume an existing run instead of refusing it.
    """

    kind = "run"

    def __init__(self, session: Session, *, resume: bool) -> None:
        super().__init__(session)
        self._resume = resume

    @property
    def how_to_resume(self) -> str:
        """The command that resumes the run."""
        return f"towernet train --resume {self.folder}"

    def existing_protocol(self) -> Protocol | None:
        """Make a protocol of `run.json`."""
        if not (self.folder / "run.json").exists():
            if not files.is_empty(self.folder):
                raise ConfigError(f"{self.folder} is not empty; choose another --out")
            return None
        if not self._resume:
            raise ConfigError(
                f"{self.folder} already contains a run; resume it with --resume {self.folder}, or"
                " choose another --out"
            )
        record = read_single_run(self.folder)
        name, plan = record.config.model, record.plan
        assert record.origin.cost is not None, "it is the record of a single run"
        decided = Decided(
            policy=plan.policy,
            num_steps={name: plan.num_steps},
            mixes={name: plan.mixes},
            failures={},
            costs={name: record.origin.cost},
        )
        return make_protocol(request_of(record), record.data, decided, record.versions)

    def save_protocol(self, protocol: Protocol) -> None:
        """Do nothing: the run's record contains it."""

    def final_protocol(self, protocol: Protocol) -> Protocol:
        """Return it with the versions in the run's record."""
        return protocol.model_copy(update={"versions": read_single_run(self.folder).versions})

    def run_folder(
        self, name: NetworkName, repetition: int, share: float = 1.0, shots: int | None = None
    ) -> Path:
        """Return the folder itself."""
        return self.folder

    def forecast(
        self, request: Request, dataset: Dataset, costs: Costs, steps: Steps
    ) -> tuple[str, float]:
        """Describe how long the network will take."""
        ((name, cost),) = costs.items()
        recipe = request.recipe_of(name)
        if name.start == "frozen":
            seconds = dataset.num_images * cost.image_seconds
            return f"{name}: about {rough_time(seconds)} for the features of all images", seconds
        seconds = cost.seconds(steps[name], dataset, recipe.train.batch_size)
        return f"{name}: {counted(steps[name], 'step')}, about {rough_time(seconds)}", seconds


def read_single_run(folder: Path) -> RunRecord:
    """Read the record of a single run.

    Raises:
        DataError: it is damaged, part of a comparison, or of imported weights.
    """
    record = read_trained(folder)
    if record.is_single_run:
        return record
    raise DataError(
        f"{folder} was not started with `towernet train` (run.json names no cost in its origin);"
        " to resume a comparison, rerun its command"
    )


def reading_before(folder: Path, reading: Reading) -> Reading:
    """Return how to read the images of a comparison or run; one made before has its own rules.

    No question about masks is asked that was not asked when it was started.

    Args:
        folder: Of the comparison or run; can be missing.
        reading: For new ones.

    Raises:
        ConfigError: an option is given that there was not when it was started.
        DataError: its record or its list of images is damaged.
    """
    if (folder / "protocol.toml").exists():
        protocol = read_protocol(folder / "protocol.toml")
        assert protocol is not None, "the file exists"
        recorded = protocol.request.reading
        if recorded is None:
            _require_no_new_options(folder, reading)
    elif (folder / "run.json").exists():
        record = read_single_run(folder)
        recorded = record.origin.reading
        if recorded is not None:
            return as_started(recorded)
        assert record.origin.layout is not None and record.origin.skip_empty is not None
        reading = Reading(layout=record.origin.layout, skip_empty=record.origin.skip_empty)
    else:
        return reading
    if recorded is None:
        reading = replace(reading, masks="keep", encoding=AS_BEFORE)
    if recorded is None and reading.layout == "auto" and (folder / "samples.parquet").exists():
        table = read_table(folder / "samples.parquet")
        # What was read without a question would be asked about today.
        layout = "splits" if (table.given_split != "").any() else "classes"
        reading = replace(reading, layout=layout)
    return as_started(reading)


def as_started(reading: Reading) -> Reading:
    """Return the options of a run that was started, without a question that has come since."""
    return replace(reading, masks=AS_BEFORE) if reading.masks is None else reading


def _require_no_new_options(folder: Path, reading: Reading) -> None:
    before = ("layout", "skip_empty", "max_archive_gb", "max_archive_entries")
    changed = replace(reading, **{name: getattr(DEFAULT, name) for name in before})
    if words := options_of(changed):
        raise ConfigError(
            f"{folder} was started before there was {words[0]}, which would change its images;"
            f" leave it out, or choose another --out"
        )


def request_of(record: RunRecord) -> Request:
    """Return the request that a single run was started with."""
    config = record.config
    return Request(
        models=(config.model,),
        recipe_name=config.recipe_name,
        recipe=config.recipe,
        seed=config.seed,
        images_per_class=config.images_per_class,
        reading=record.origin.reading,
        measure=config.measure,
        weights=() if record.started_from is None else (record.started_from,),
        finetune=config.recipe if config.model.start == "finetuned" else None,
        # See `Request.single`.
        fixed_input=("size_px", "resize") if config.model.start else (),
    )

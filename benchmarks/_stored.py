"""What the tables read from benchmarks/results, which may be from older commits.

A comparison's results use the program's own records, unless these have changed since.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Self

from pydantic import BaseModel, ConfigDict

from _common import RESULTS
from towernet.comparison.judging.times import MAX_RATIO
from towernet.files import read_json
from towernet.names import NetworkName
from towernet.records.base import Interval
from towernet.records.judgement import Pair, Status
from towernet.records.results import AllMeasured, Made, NumImages, Proof, Shots, Variant
from towernet.words import counted


class Stored(BaseModel):
    """A part of a result file; values that no table shows are not read."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @classmethod
    def read(cls, path: Path) -> Self:
        return cls.model_validate(read_json(path))

    @classmethod
    def named(cls, name: str) -> Self:
        return cls.read(RESULTS / f"{name}.json")


class Machine(Stored):
    """The machine that computed a result."""

    processor: str
    threads: int
    dtype: str


class MadeOn(Stored):
    """The commit, date, machine and versions of a measurement."""

    commit: str
    date: str
    hardware: Machine
    versions: dict[str, str]

    def words(self) -> str:
        return (
            f"{self.hardware.processor}, {counted(self.hardware.threads, 'thread')},"
            f" {self.hardware.dtype}; torch {self.versions['torch']}, Python"
            f" {self.versions['python']}; commit {self.commit}, {self.date[:10]}."
        )


class NetworkFigures(Stored):
    """A network of a comparison."""

    name: NetworkName
    status: Status
    reason: str
    accuracy: float | None
    interval: Interval | None
    macro_f1: float | None
    parameters: int
    multiply_adds: int
    learning_rate: float
    epochs: float
    confusion: tuple[tuple[int, ...], ...] | None = None
    size_px: int | None = None

    @property
    def balanced_accuracy(self) -> float | None:
        """The mean over the classes of the share that is right."""
        if self.confusion is None:
            return None
        return fmean(row[i] / sum(row) for i, row in enumerate(self.confusion) if sum(row))


class ProvenVariant(Variant):
    """A network with a block whose training figures are known."""

    proof: Proof


class ComparisonResults(Stored):
    """The results of a comparison."""

    sentence: str
    num_images: NumImages
    size_px: int
    num_runs: int
    equal_within: float
    networks: tuple[NetworkFigures, ...]
    comparisons: tuple[Pair, ...]
    ablation: tuple[ProvenVariant, ...] = ()
    minutes: float | None = None
    shots: Shots | None = None

    @property
    def has_starts(self) -> bool:
        """Whether a network started from pre-trained weights."""
        return any(network.name.start for network in self.networks)


class Comparison(Stored):
    """A comparison, as `compare_sets.py` writes it."""

    commit: str
    date: str
    results: ComparisonResults
    measured: AllMeasured
    made: Made

    def times(self) -> str:
        """Return the measured training times if they differ, or are not those planned; else ''."""
        planned = 60 * (self.results.minutes or 0.0)
        seconds = {
            network.name: timed.training_seconds / self.results.num_runs
            for network in self.results.networks
            if network.status == "ranked"
            and network.name.start != "frozen"
            and (timed := self.measured.networks[network.name]).training_seconds is not None
        }
        if not planned or max(planned, *seconds.values()) <= MAX_RATIO * min(seconds.values()):
            return ""
        each = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
        return (
            f"Steps were fixed by estimates, for {planned:.0f} s a run; measured, a run took on"
            f" average: {each}."
        )

    def made_on(self) -> str:
        machine = Machine.model_validate(self.made.hardware.model_dump())
        return MadeOn(
            commit=self.commit, date=self.date, hardware=machine, versions=self.made.versions
        ).words()


class SamePair(Stored):
    """The difference of a network from itself under another name."""

    difference: float
    interval: Interval
    p_adjusted: float


class SameNetwork(MadeOn):
    """A comparison of a network with itself, as `same_network.py` writes it."""

    data: str
    num_runs: int
    accuracies: tuple[float, ...]
    pairs: tuple[SamePair, ...]
    called_better: int


class PlantedRow(Stored):
    """How many of the wrong labels in a set were found."""

    data: str
    num_images: int
    num_planted: int
    num_found: int
    found: float
    right_of_first: float


class PlantedLabels(Stored):
    """Sets with wrong labels, as `planted_labels.py` writes them."""

    commit: str
    date: str
    num_runs: int
    rows: tuple[PlantedRow, ...]

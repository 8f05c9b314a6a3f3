"""What the tables read of the results beside this file, which older commits wrote as well.

A comparison's results are the program's own records as far as these have not changed since.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from _common import RESULTS
from towernet.files import read_json
from towernet.names import NetworkName
from towernet.records.base import Interval
from towernet.records.judgement import Pair, Status
from towernet.records.results import AllMeasured, Made, NumImages, Proof, Variant
from towernet.words import counted


class Stored(BaseModel):
    """Something in a result's file; what no table shows is not read."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @classmethod
    def read(cls, path: Path) -> Self:
        return cls.model_validate(read_json(path))

    @classmethod
    def named(cls, name: str) -> Self:
        return cls.read(RESULTS / f"{name}.json")


class Machine(Stored):
    """What computed."""

    processor: str
    threads: int
    dtype: str


class MadeOn(Stored):
    """By what commit, when, and on what a result was measured."""

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


class ProvenVariant(Variant):
    """A network with a block of which is known what it did while it trained."""

    proof: Proof


class ComparisonResults(Stored):
    """What a comparison found."""

    sentence: str
    num_images: NumImages
    size_px: int
    num_runs: int
    equal_within: float
    networks: tuple[NetworkFigures, ...]
    comparisons: tuple[Pair, ...]
    ablation: tuple[ProvenVariant, ...] = ()


class Comparison(Stored):
    """A comparison, as `compare_sets.py` keeps it."""

    commit: str
    date: str
    results: ComparisonResults
    measured: AllMeasured
    made: Made

    def made_on(self) -> str:
        machine = Machine.model_validate(self.made.hardware.model_dump())
        return MadeOn(
            commit=self.commit, date=self.date, hardware=machine, versions=self.made.versions
        ).words()


class SamePair(Stored):
    """How a network differs from itself under another name."""

    difference: float
    interval: Interval
    p_adjusted: float


class SameNetwork(MadeOn):
    """A comparison of a network with itself, as `same_network.py` keeps it."""

    data: str
    num_runs: int
    accuracies: tuple[float, ...]
    pairs: tuple[SamePair, ...]
    called_better: int


class PlantedRow(Stored):
    """Which of the wrong labels in a set were found."""

    data: str
    num_images: int
    num_planted: int
    num_found: int
    found: float
    right_of_first: float


class PlantedLabels(Stored):
    """Sets with wrong labels, as `planted_labels.py` keeps them."""

    commit: str
    date: str
    num_runs: int
    rows: tuple[PlantedRow, ...]

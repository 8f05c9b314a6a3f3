"""The records in a run's folder: `run.json`, `metrics.jsonl`, `timings.jsonl`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field, StrictBool, StrictFloat, StrictInt, model_validator
from pydantic.dataclasses import dataclass

from towernet import files
from towernet.config import RunConfig
from towernet.records.base import START_OVER, Record, Text, checked
from towernet.records.contract import Contract
from towernet.records.reading import Reading
from towernet.records.scores import LastLayer, Validation
from towernet.records.weights import StartWeights

WEIGHTS_FILE = "best.safetensors"
"""In the folder of a finished run."""
METADATA_KEY = "towernet"
"""Of the metadata in each file of weights that this program writes."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class PolicyChoices:
    """How numbers are computed; all networks of a comparison share one.

    Args:
        device: "cpu", "cuda" or "mps".
        dtype: "float32" or "bfloat16" (autocast; weights and optimiser stay float32).
        channels_last: Whether feature maps are stored with channels last.
        threads: Threads of one operation; the number changes bits, so it is part of the policy.
        reason: What the self-test found, for the log.
        kernels: "native": the built-in kernels in C where they apply. "compiled": attention as one
            program. "torch": only torch's operations.
    """

    device: str
    dtype: str
    channels_last: StrictBool
    threads: StrictInt
    reason: str
    kernels: str = "torch"

    def kind(self) -> str:
        """Return a description without the threads."""
        layout = "channels_last" if self.channels_last else "contiguous"
        kernels = {"native": ", kernels in C", "compiled": ", attention compiled"}
        return f"{self.device}, {self.dtype}, {layout}{kernels.get(self.kernels, '')}"

    def words(self) -> str:
        """Return a description."""
        return f"{self.kind()}, {self.threads} thread{'' if self.threads == 1 else 's'}"


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Plan:
    """What was decided before the first step, by measurement or by the recipe.

    Args:
        num_steps: Optimiser steps of the whole run.
        learning_rate: The peak, from the recipe or a comparison's trial.
        policy: Device, dtype, layout, threads, kernels.
        mixes: Whether images are mixed: decided by the length of the planned run, so that its
            learning-rate trials do the same.
    """

    num_steps: StrictInt
    learning_rate: StrictFloat
    policy: PolicyChoices
    mixes: StrictBool = False


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class CostFigures:
    """What one network costs on the machine that measured it.

    Args:
        step_seconds: One training step, augmentation and averaging included; on average over a
            run that starts with smaller images.
        image_seconds: Evaluating one image.
        parameters: Trainable numbers.
        multiply_adds: For one image at the run's size.
    """

    step_seconds: StrictFloat
    image_seconds: StrictFloat
    parameters: StrictInt
    multiply_adds: StrictInt


class Hardware(Record):
    """The machine, and how it computed."""

    processor: Text
    cores: StrictInt | None
    memory_gib: StrictFloat
    device: str
    dtype: str
    channels_last: StrictBool
    threads: StrictInt
    kernels: str


class Origin(Record):
    """Where a run comes from: the command and the data; `cost` only for a single run."""

    command: Text
    source: Text
    """How the data was read."""
    data: Text | None = Field(None, exclude_if=lambda value: value is None)
    """Where the images are; missing in comparisons made before there was `reading`."""
    reading: Reading | None = Field(None, exclude_if=lambda value: value is None)
    """How images are found and read."""
    layout: str | None = Field(None, exclude_if=lambda value: value is None)
    """In runs made before there was `reading`, like `skip_empty`."""
    skip_empty: StrictBool | None = Field(None, exclude_if=lambda value: value is None)
    cost: CostFigures | None = Field(None, exclude_if=lambda value: value is None)
    weights: tuple[Text, ...] | None = Field(None, exclude_if=lambda value: value is None)
    """Which pre-trained weights the user gave, each as NETWORK=FILE; None: none."""


class RunSummary(Record):
    """How a finished run ended."""

    num_steps: StrictInt
    num_epochs: StrictFloat
    best_epoch: StrictFloat | None
    validation_accuracy: StrictFloat
    """Of the best epoch, like `validation_loss`."""
    validation_loss: StrictFloat
    final_validation_loss: StrictFloat
    """Of the last epoch, like `final_validation_accuracy`."""
    final_validation_accuracy: StrictFloat
    validation_balanced: Validation | None = Field(None, exclude_if=lambda value: value is None)
    """Means over the classes, of the best epoch, if the measure is balanced accuracy."""
    final_validation_balanced: Validation | None = Field(
        None, exclude_if=lambda value: value is None
    )
    """The same of the last epoch."""
    last_layer: LastLayer | None = Field(None, exclude_if=lambda value: value is None)
    """As fitted on features, before fine-tuning; None if it started from scratch."""


class RunRecord(Record):
    """The content of `run.json` for a run that was trained here."""

    format: StrictInt
    status: Literal["running", "finished"]
    config: RunConfig
    plan: Plan
    contract: Contract
    data: Text
    """Fingerprint of the images."""
    versions: dict[str, str]
    """What the bits depend on."""
    origin: Origin
    hardware: Hardware
    accepted: tuple[Text, ...] | None = Field(None, exclude_if=lambda value: value is None)
    """What had changed when it was continued, and was accepted."""
    summary: RunSummary | None = Field(None, exclude_if=lambda value: value is None)
    weights_sha256: Text | None = Field(None, exclude_if=lambda value: value is None)
    """Of `best.safetensors`; None while it runs, and for a trial, which keeps no weights."""
    started_from: StartWeights | None = Field(None, exclude_if=lambda value: value is None)
    """The pre-trained weights it started from."""

    @property
    def is_single_run(self) -> bool:
        """Whether it was trained by itself, not in a comparison."""
        return self.origin.cost is not None

    @model_validator(mode="after")
    def _ends_with_a_summary(self) -> RunRecord:
        if self.status == "finished" and self.summary is None:
            raise ValueError("summary is missing, although status is finished")
        return self


class ForeignWeights(Record):
    """The file that weights were imported from."""

    file: Text
    sha256: str


class ImportedRun(Record):
    """The content of `run.json` for weights that were trained elsewhere."""

    format: StrictInt
    status: Literal["finished"]
    config: RunConfig
    contract: Contract
    versions: dict[str, str]
    origin: Literal["imported"]
    source: ForeignWeights
    weights_sha256: Text


def read_run(folder: Path, *, todo: str = START_OVER) -> RunRecord | ImportedRun:
    """Read the record of a run, or of weights that were trained elsewhere.

    Args:
        folder: Of the run.
        todo: The remedy to give if the record is damaged.

    Raises:
        DataError: there is none, it is damaged, or a newer towernet made it.
    """
    path = folder / "run.json"
    values = files.read_record(path)
    files.require_format(path, values)
    if values.get("origin") == "imported":
        return checked(ImportedRun, values, path, todo=todo)
    return checked(RunRecord, values, path, todo=todo)


class BlockFigures(Record):
    """What one block of attention did in an epoch."""

    gate_mean: StrictFloat
    """Of its attention map over some images, all channels and positions."""
    gate_spread: StrictFloat
    """Its standard deviation."""
    gradient_norm: StrictFloat
    gain: StrictFloat | None = Field(None, exclude_if=lambda value: value is None)
    """By how much it is blended in; None if it is not blended."""


class EpochMetrics(Record):
    """A line of `metrics.jsonl`: exact."""

    epoch: StrictFloat
    step: StrictInt
    learning_rate: StrictFloat
    train_loss: StrictFloat
    train_accuracy: StrictFloat
    validation_loss: StrictFloat
    validation_accuracy: StrictFloat
    attention: dict[str, BlockFigures] | None = Field(None, exclude_if=lambda value: value is None)
    """By the block's place; None if the network has no attention."""
    validation_balanced: Validation | None = Field(None, exclude_if=lambda value: value is None)
    """Means over the classes, if the measure is balanced accuracy."""


class EpochTiming(Record):
    """A line of `timings.jsonl`: measured."""

    step: StrictInt
    train_seconds: StrictFloat
    images_per_second: StrictFloat
    seconds: StrictFloat
    """Including evaluation."""
    peak_memory_mib: StrictFloat

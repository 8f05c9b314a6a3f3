"""The weights of a run made here, as the start of another: trained on many images, used on few."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from towernet.data.table import TRAIN, USED, read_table
from towernet.errors import ConfigError, DataError
from towernet.names import SCRATCH, NetworkName
from towernet.records.contract import Contract
from towernet.records.run import WEIGHTS_FILE, ImportedRun, RunRecord, read_run
from towernet.records.weights import UNKNOWN, StartWeights, WeightsInput
from towernet.words import counted

SAMPLES_FILE = "samples.parquet"
_TODO = "restore it, or give other weights"


def is_run(path: Path) -> bool:
    """Whether a path is the folder of a run, or of a comparison, which is refused as one."""
    return (path / "run.json").exists() or (path / "protocol.toml").exists()


def run_at(path: Path) -> Path | None:
    """Return the folder of the run that a path means: the folder itself, or the file in it."""
    if is_run(path):
        return path
    for file in (path, Path(os.path.realpath(path))):  # also a link to the file
        if file.name == WEIGHTS_FILE and (file.parent / "run.json").exists():
            return file.parent
    return None


def of_run(base: str, folder: Path) -> tuple[StartWeights, Path]:
    """Return a run's weights, and their file.

    Args:
        base: The network that starts from them.
        folder: Of the run.

    Raises:
        ConfigError: the run is of another network, or has attention that this one lacks.
        DataError: it is a comparison, is not finished, or is damaged.
    """
    if not (folder / "run.json").exists():
        raise DataError(
            f"{folder} is a comparison; give one of its runs, which are in {folder / 'runs'}"
        )
    record = read_run(folder, todo=_TODO)
    if record.status != "finished" or record.weights_sha256 is None:
        raise DataError(f"{folder} is not finished; rerun the command that started it")
    network = record.config.model
    if network.base != base:
        raise ConfigError(
            f"{folder} is a run of {network}, and its weights do not fit {base}; give a run of"
            f" {base}, or compare {network.base}/finetuned"
        )
    if without_start(network) != base:
        raise ConfigError(
            f"{folder} is a run of {network}, whose attention {base} does not have; give a run of"
            f" {base}"
        )
    num_images = _num_training_images(record, folder)
    weights = StartWeights(
        network=base,
        sha256=record.weights_sha256,
        name=f"run {folder.absolute().name}",
        source=f"a run of {network} made with towernet",
        data=_data_of(record, num_images),
        num_images=num_images,
        terms=UNKNOWN,
        of_runs=_of_runs(record, num_images),
        input=_input_of(record.contract),
    )
    return weights, folder / WEIGHTS_FILE


def without_start(name: NetworkName) -> NetworkName:
    """Return the same network from scratch, by its shortest name."""
    return name.with_start(SCRATCH).canonical()


def _num_training_images(record: RunRecord | ImportedRun, folder: Path) -> int | None:
    path = folder / SAMPLES_FILE
    if isinstance(record, ImportedRun) or not path.exists():
        return None
    table = read_table(path)
    return int(((table.status == USED) & (table.split == TRAIN)).sum())


def _data_of(record: RunRecord | ImportedRun, num_images: int | None) -> str:
    if isinstance(record, ImportedRun):
        return UNKNOWN
    images = "images" if num_images is None else counted(num_images, "image")
    words = f"{images} of {len(record.contract.class_names)} classes"
    if record.started_from is not None:
        words += f"; before, {record.started_from.data} ({record.started_from.name})"
    return words


def _of_runs(
    record: RunRecord | ImportedRun, num_images: int | None
) -> Literal["all", "some"] | None:
    if isinstance(record, ImportedRun) or num_images is None:
        return None
    before = record.started_from
    return "all" if before is None or before.of_runs == "all" else "some"


def _input_of(contract: Contract) -> WeightsInput:
    return WeightsInput(
        size_px=contract.size_px,
        resize=contract.resize,
        crop_share=contract.crop_share,
        mean=contract.mean,
        std=contract.std,
    )

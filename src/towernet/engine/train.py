"""Training one network: the whole story, top to bottom.

Everything a run does is a function of its config, its images and its plan; timings decide
nothing after the first step. So a run that was stopped anywhere and resumed ends in the same
bytes as one that was not.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from towernet import files
from towernet.config import AS_BEGUN, Accept, RunConfig
from towernet.data.prepare import Dataset
from towernet.data.table import write_table
from towernet.engine import checkpoint
from towernet.engine.batches import steps_per_epoch
from towernet.engine.memory import reset_peak_memory
from towernet.engine.record import Plan, open_run
from towernet.engine.runlog import Watcher
from towernet.engine.state import State
from towernet.engine.stop import StopSwitch
from towernet.engine.trainer import Trainer
from towernet.records.contract import Contract


def train(
    config: RunConfig,
    dataset: Dataset,
    folder: Path,
    plan: Plan,
    *,
    watcher: Watcher,
    stop: StopSwitch,
    origin: dict[str, Any],
    accept: Accept = AS_BEGUN,
    resumable: bool = True,
    prefetch_depth: int | None = None,
) -> dict[str, Any]:
    """Train one network, or go on where it was stopped; a finished run is left as it is.

    The caller holds the folder's lock, since it also writes into it before and after.

    Args:
        config: What the run is.
        dataset: Its images; the test split is not touched.
        folder: Where it is written.
        plan: What was decided before the first step.
        watcher: Who is told how it goes.
        stop: Says when the user wants to stop.
        origin: For the record: the command and the data argument.
        accept: In what a resumed run may differ from what was begun.
        resumable: False for short trials: no weights and no state are kept.
        prefetch_depth: How many batches are made ahead; None: as the device needs. No bit changes.

    Returns:
        The run's record, as `run.json` holds it.

    Raises:
        Diverged: the loss is not a number.
        Interrupted: the user asked to stop; the state is on disk.
    """
    files.sweep(folder)
    if config.train_share < 1:
        dataset = dataset.with_train_share(
            config.train_share, seed=config.seed, repetition=config.repetition
        )
    record = open_run(config, dataset, folder, plan, origin, accept)
    if record["status"] == "finished":
        if resumable:
            checkpoint.require_weights(folder, record)
        checkpoint.drop_state(folder / "last")  # a kill may have left it
        return record
    # Accepted changes of the data do not change what a picture becomes for the network.
    dataset = replace(dataset, contract=Contract.from_json(record["contract"]))
    if accept.data or not (folder / "samples.parquet").exists():
        write_table(folder / "samples.parquet", dataset.table)
    plan.policy.apply()
    reset_peak_memory()
    try:
        with stop.patiently():
            state = Trainer(
                config,
                dataset,
                folder,
                plan,
                watcher=watcher,
                stop=stop,
                resumable=resumable,
                prefetch_depth=prefetch_depth,
            ).run()
    finally:
        watcher.end()
    record = record | {"status": "finished", "summary": _summary(state, dataset, config)}
    for name, sha256 in state.best.items():
        files.copy(folder / "last" / name, folder / "best.safetensors", sha256)
        record["weights_sha256"] = sha256
    files.write_json(folder / "run.json", record)
    checkpoint.drop_state(folder / "last")
    return record


def _summary(state: State, dataset: Dataset, config: RunConfig) -> dict[str, Any]:
    last = state.metrics[-1]
    num_steps_epoch = steps_per_epoch(len(dataset.train), config.recipe.train.batch_size)
    return {
        "num_steps": state.step,
        "num_epochs": round(state.step / num_steps_epoch, 4),
        "best_epoch": state.best_epoch,
        "validation_accuracy": state.best_accuracy,
        "validation_loss": state.best_loss,
        "final_validation_loss": last["validation_loss"],
        "final_validation_accuracy": last["validation_accuracy"],
    }

"""Training one network, from start to end.

Everything a run does is a function of its config, its images and its plan; timings have no effect
after the first step. So a run that was stopped anywhere and resumed ends with the same bytes as
one that was not.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from towernet import files
from towernet.config import RunConfig
from towernet.data.prepare import Dataset
from towernet.data.table import write_table
from towernet.engine import checkpoint
from towernet.engine.batches import steps_per_epoch
from towernet.engine.device import Policy
from towernet.engine.memory import reset_peak_memory
from towernet.engine.record import finished, open_run, write_run
from towernet.engine.session import Session
from towernet.engine.start import keep_frozen, start
from towernet.engine.state import State
from towernet.engine.trainer import Trainer
from towernet.records.run import Plan, RunRecord, RunSummary


def train(
    config: RunConfig,
    dataset: Dataset,
    session: Session,
    plan: Plan,
    *,
    is_trial: bool = False,
    prefetch_depth: int | None = None,
) -> RunRecord:
    """Train one network, or resume where it was stopped; a finished run is left as it is.

    The caller holds the folder's lock, since it also writes into it before and after.

    Args:
        config: The run's config.
        dataset: Its images; the test split is not used.
        session: The folder, where progress is reported, and the accepted differences.
        plan: What was decided before the first step.
        is_trial: Whether it is a short trial: neither weights nor the list of images are kept.
        prefetch_depth: Batches made ahead; None: the device's default. No bit changes.

    Returns:
        The run's record, as in `run.json`.

    Raises:
        Diverged: the loss is NaN or Inf.
        Interrupted: the user stopped it; the state is on disk.
    """
    folder, accept = session.folder, session.accept
    files.sweep(folder)
    if config.train_share < 1:
        dataset = dataset.with_train_share(
            config.train_share, seed=config.seed, repetition=config.repetition
        )
    whole = len(dataset.train)
    if config.shots is not None:
        dataset = dataset.with_shots(config.shots, seed=config.seed, repetition=config.repetition)
    found = session.weights[config.model.base] if config.weights_sha256 else None
    record = open_run(
        config,
        dataset,
        folder,
        plan,
        session.origin,
        accept,
        None if found is None else found.weights,
    )
    if record.status == "finished":
        if not is_trial:
            checkpoint.require_weights(folder, record.weights_sha256)
        checkpoint.drop_state(folder / "last")  # left over if the process was killed
        return record
    # Accepted changes of the data do not change the preprocessing.
    dataset = replace(dataset, contract=record.contract)
    if not is_trial and (accept.data or not (folder / "samples.parquet").exists()):
        write_table(folder / "samples.parquet", dataset.table)
    with Policy.of(plan.policy).active():
        reset_peak_memory()
        try:
            # A stop ends it at once: features that are computed are kept.
            started = None if found is None else start(config, dataset, session, plan)
            # Including the end: what was trained since the last state is only in memory until then.
            with session.stop.patiently():
                if started is not None and config.model.start == "frozen":
                    return _finish(folder, record, *keep_frozen(config.model, started, session))
                if config.shots is not None:
                    dataset = dataset.repeated(whole)
                trainer = Trainer(
                    config,
                    dataset,
                    session,
                    plan,
                    is_trial=is_trial,
                    prefetch_depth=prefetch_depth,
                    started=started,
                )
                state = trainer.run()
                weights_sha256 = trainer.keep_weights()
                summary = _summary(state, dataset, config)
                if started is not None:
                    summary = summary.model_copy(update={"last_layer": started.last_layer})
                return _finish(folder, record, summary, weights_sha256)
        finally:
            session.progress.end()


def _finish(
    folder: Path, record: RunRecord, summary: RunSummary, weights_sha256: str | None
) -> RunRecord:
    """Record that the run is finished, then delete its states."""
    record = finished(record, summary, weights_sha256)
    write_run(folder, record)
    checkpoint.drop_state(folder / "last")
    return record


def _summary(state: State, dataset: Dataset, config: RunConfig) -> RunSummary:
    last = state.metrics[-1]
    best = next(epoch for epoch in state.metrics if epoch.epoch == state.best_epoch)
    num_steps_epoch = steps_per_epoch(len(dataset.train), config.recipe.train.batch_size)
    return RunSummary(
        num_steps=state.step,
        num_epochs=round(state.step / num_steps_epoch, 4),
        best_epoch=state.best_epoch,
        validation_accuracy=best.validation_accuracy,
        validation_loss=best.validation_loss,
        final_validation_loss=last.validation_loss,
        final_validation_accuracy=last.validation_accuracy,
        validation_balanced=best.validation_balanced,
        final_validation_balanced=last.validation_balanced,
    )

"""Training one network: the whole story, top to bottom.

Everything a run does is a function of its config, its images and its plan; timings decide
nothing after the first step. So a run that was stopped anywhere and resumed ends in the same
bytes as one that was not.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from towernet import files, rng
from towernet.config import RunConfig, refuse_changes
from towernet.data.prepare import Dataset, fingerprint
from towernet.data.table import write_table
from towernet.engine import checkpoint
from towernet.engine.batches import epoch_batches, prefetch, steps_per_epoch
from towernet.engine.device import Policy, hardware, versions
from towernet.engine.evaluate import evaluate
from towernet.engine.memory import peak_memory_mib, reset_peak_memory
from towernet.engine.runlog import RunLog, Watcher
from towernet.engine.schedule import learning_rate
from towernet.engine.state import State, restore_tensors, state_tensors
from towernet.engine.step import average_weights, make_optimizer, train_step
from towernet.engine.stop import StopSwitch
from towernet.errors import DataError, TrainingError
from towernet.models.catalogue import build
from towernet.models.paddle import paddle_initial_weights

# Waiting for a GPU at every step would leave it idle; a bad loss is noticed this many steps late.
NUM_STEPS_UNREAD = {"cpu": 1, "mps": 20, "cuda": 50}
# On a CPU the prefetching thread would take its time from the step itself.
PREFETCH_DEPTH = {"cpu": 0, "mps": 2, "cuda": 2}


@dataclass(frozen=True)
class Plan:
    """What was decided before the first step, by measurement or by the recipe.

    Args:
        num_steps: Optimiser steps of the whole run.
        learning_rate: The peak, from the recipe or a comparison's trial.
        policy: Device, dtype, layout, threads.
    """

    num_steps: int
    learning_rate: float
    policy: Policy

    @staticmethod
    def from_json(values: dict[str, Any]) -> Plan:
        """Rebuild what `dataclasses.asdict` gave."""
        return Plan(**values | {"policy": Policy(**values["policy"])})


def run_seed(config: RunConfig) -> int:
    """Return the seed of a run's draws: all networks of one repetition share them."""
    return rng.derive(config.seed, "run", config.repetition)


def initial_model(config: RunConfig, num_classes: int, size_px: int) -> nn.Module:
    """Build the network with the weights its seed gives."""
    seed = rng.derive(run_seed(config), "weights")
    torch.manual_seed(seed)
    model = build(config.model, num_classes, size_px)
    if config.recipe.train.initial_weights == "paddle":
        paddle_initial_weights(model, seed)
    return model


def train(
    config: RunConfig,
    dataset: Dataset,
    folder: Path,
    plan: Plan,
    *,
    watcher: Watcher,
    stop: StopSwitch,
    origin: dict[str, Any],
    resumable: bool = True,
    prefetch_depth: int | None = None,
) -> dict[str, Any]:
    """Train one network, or go on where it was stopped; a finished run is left as it is.

    Args:
        config: What the run is.
        dataset: Its images; the test split is not touched.
        folder: Where it is written.
        plan: What was decided before the first step.
        watcher: Who is told how it goes.
        stop: Says when the user wants to stop.
        origin: For the record: the command and the data argument.
        resumable: False for short trials: no weights and no state are kept.
        prefetch_depth: How many batches are made ahead; None: as the device needs. No bit changes.

    Returns:
        The run's record, as `run.json` holds it.

    Raises:
        TrainingError: the loss is not a number.
        Interrupted: the user asked to stop; the state is on disk.
        ConfigError: another process writes into the folder.
    """
    with files.lock(folder / "lock", holder=str(folder)):
        record = open_run(config, dataset, folder, plan, origin)
        if record["status"] == "finished":
            if resumable:
                checkpoint.require_weights(folder, record)
            return record
        if not (folder / "samples.parquet").exists():
            write_table(folder / "samples.parquet", dataset.table)
        plan.policy.apply()
        reset_peak_memory()
        try:
            if prefetch_depth is None:
                prefetch_depth = PREFETCH_DEPTH[plan.policy.device]
            with stop.patiently():
                summary = _loop(
                    config, dataset, folder, plan, watcher, stop, resumable, prefetch_depth
                )
        finally:
            watcher.end()
        record = record | {"status": "finished", "summary": summary}
        if resumable:
            record["weights_sha256"] = files.sha256(folder / "best.safetensors")
        files.write_json(folder / "run.json", record)
        checkpoint.drop_state(folder / "last")
        return record


def open_run(
    config: RunConfig, dataset: Dataset, folder: Path, plan: Plan, origin: dict[str, Any]
) -> dict[str, Any]:
    """Write `run.json` for a new run, or read it and refuse whatever differs.

    Raises:
        ConfigError: the folder holds another run, or one with other choices.
        DataError: the folder's run was trained on other images.
    """
    wanted = {
        "config": config.model_dump(mode="json"),
        "plan": asdict(plan),
        "contract": dataset.contract.to_json(),
        "data": fingerprint(dataset.table),
        "versions": versions(),
    }
    path = folder / "run.json"
    if path.exists():
        record: dict[str, Any] = files.read_json(path)
        if record.get("data") != wanted["data"]:
            raise DataError(
                f"the images are not those {folder} was trained on; put them back,"
                " or choose another --out"
            )
        refuse_changes(folder, {key: record.get(key) for key in wanted}, wanted)
        return record
    record = wanted | {"status": "running", "origin": origin, "hardware": hardware(plan.policy)}
    files.write_json(path, record)
    return record


def _loop(
    config: RunConfig,
    dataset: Dataset,
    folder: Path,
    plan: Plan,
    watcher: Watcher,
    stop: StopSwitch,
    resumable: bool,
    prefetch_depth: int,
) -> dict[str, Any]:
    recipe, policy, contract = config.recipe, plan.policy, dataset.contract
    seed = run_seed(config)
    model = policy.place(initial_model(config, len(contract.class_names), contract.size_px))
    optimizer = make_optimizer(model, recipe.train, config.model)
    averaged = (
        average_weights(model, recipe.train.ema_fraction, plan.num_steps)
        if recipe.train.ema_fraction
        else None
    )
    evaluated = averaged.module if averaged is not None else model

    state = State()
    if resumable:
        found, damaged = checkpoint.read_state(folder / "last")
        for sentence in damaged:
            watcher.say(sentence)
        if found:
            state = State.from_json(found[1])
            restore_tensors(found[0], model, optimizer, averaged)
        if found or damaged:
            watcher.say(f"{folder.name} goes on after step {state.step}")

    num_steps_epoch = steps_per_epoch(len(dataset.train), recipe.train.batch_size)
    log = RunLog(folder, state.num_epochs_logged)
    watcher.begin(config.model, state.step, plan.num_steps, num_steps_epoch)
    unread: list[tuple[int, float, Tensor, Tensor, int]] = []

    def read_losses() -> float:
        """Wait for the device, add up, and stop at a loss that is not a number."""
        loss = math.nan
        for step, rate, loss_on_device, correct, num_images in unread:
            loss = loss_on_device.item()
            if not math.isfinite(loss):
                raise TrainingError(
                    f"{config.model}: the loss became {loss} at step {step + 1} of {plan.num_steps}"
                    f" (learning rate {rate:.3g}); give a smaller train.learning_rate in a recipe"
                )
            state.loss_sum += loss * num_images
            state.num_correct += int(correct.item())
            state.num_seen += num_images
        unread.clear()
        return loss

    def save() -> None:
        tensors = state_tensors(model, optimizer, averaged)
        checkpoint.write_state(folder / "last", state.step, tensors, state.to_json())

    def save_and_stop() -> None:
        if resumable:
            save()
        stop.raise_if_asked(f"{folder} is complete up to step {state.step} of {plan.num_steps}")

    try:
        while state.step < plan.num_steps:
            epoch, first = divmod(state.step, num_steps_epoch)
            started = time.perf_counter()
            batches = prefetch(
                lambda epoch=epoch, first=first: epoch_batches(  # type: ignore[misc]
                    dataset, recipe, policy, seed=seed, epoch=epoch, first=first
                ),
                prefetch_depth,
            )
            num_images_now = 0
            for images, labels in batches:
                rate = learning_rate(state.step, plan.num_steps, recipe.train, plan.learning_rate)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                # Dropout draws from torch's generator: seeded by the step, it needs no saving.
                torch.manual_seed(rng.derive(seed, "step", state.step))
                loss, logits = train_step(
                    model,
                    optimizer,
                    images,
                    labels,
                    label_smoothing=recipe.train.label_smoothing,
                    policy=policy,
                )
                if averaged is not None:
                    averaged.update_parameters(model)
                correct = (logits.argmax(dim=1) == labels).sum()
                unread.append((state.step, rate, loss, correct, len(labels)))
                state.step += 1
                num_images_now += len(labels)
                if len(unread) >= NUM_STEPS_UNREAD[policy.device]:
                    latest_loss = read_losses()
                    seconds = time.perf_counter() - started
                    accuracy = state.num_correct / state.num_seen
                    watcher.step(state.step, latest_loss, accuracy, num_images_now / seconds)
                # At an epoch's end it is evaluated first, and then stopped.
                if stop.exit_code and state.step % num_steps_epoch and state.step < plan.num_steps:
                    read_losses()
                    state.seconds += time.perf_counter() - started
                    save_and_stop()
                if state.step == plan.num_steps:
                    break
            batches.close()  # type: ignore[attr-defined]
            read_losses()
            train_seconds = time.perf_counter() - started

            validation_loss, validation_accuracy = evaluate(
                evaluated, dataset.pixels, dataset.validation, contract, policy
            )
            if not math.isfinite(validation_loss):
                raise TrainingError(
                    f"{config.model}: the validation loss became {validation_loss} after step"
                    f" {state.step} (learning rate {rate:.3g}); give a smaller"
                    " train.learning_rate in a recipe"
                )
            row = {
                "epoch": round(state.step / num_steps_epoch, 4),
                "step": state.step,
                "learning_rate": rate,
                "train_loss": state.loss_sum / state.num_seen,
                "train_accuracy": state.num_correct / state.num_seen,
                "validation_loss": validation_loss,
                "validation_accuracy": validation_accuracy,
            }
            if (validation_accuracy, -validation_loss) > (state.best_accuracy, -state.best_loss):
                state.best_epoch = row["epoch"]
                state.best_accuracy, state.best_loss = validation_accuracy, validation_loss
                if resumable:
                    meta = {"epoch": row["epoch"], "validation_accuracy": validation_accuracy}
                    checkpoint.write_weights(
                        folder / "best.safetensors", evaluated.state_dict(), meta
                    )
            timing = {
                "step": state.step,
                "train_seconds": train_seconds + state.seconds,
                "images_per_second": num_images_now / train_seconds,
                "seconds": time.perf_counter() - started + state.seconds,
                "peak_memory_mib": peak_memory_mib(policy.device),
            }
            log.add(row, timing)
            state.num_epochs_logged = len(log.metrics)
            state.loss_sum, state.num_correct, state.num_seen = 0.0, 0, 0
            state.seconds = 0.0
            watcher.epoch(row | timing)
            if state.step < plan.num_steps:
                if stop.exit_code:
                    save_and_stop()
                elif resumable:
                    save()
    finally:
        log.close()
    return {
        "num_steps": state.step,
        "num_epochs": round(state.step / num_steps_epoch, 4),
        "best_epoch": state.best_epoch,
        "validation_accuracy": state.best_accuracy,
        "validation_loss": state.best_loss,
        "final_validation_loss": log.metrics[-1]["validation_loss"],
        "final_validation_accuracy": log.metrics[-1]["validation_accuracy"],
    }

"""Training one network: the whole story, top to bottom.

Everything a run does is a function of its config, its images and its plan; timings decide
nothing after the first step. So a run that was stopped anywhere and resumed ends in the same
bytes as one that was not.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from towernet import files, rng
from towernet.config import AS_BEGUN, Accept, Decisive, RunConfig, refuse_changes
from towernet.data.prepare import Dataset, fingerprint
from towernet.data.table import write_table
from towernet.engine import checkpoint
from towernet.engine.attention_log import attention_figures, watched_gates
from towernet.engine.batches import epoch_batches, pixels_on_device, prefetch, steps_per_epoch
from towernet.engine.device import Policy, bits_depend_on, hardware
from towernet.engine.evaluate import evaluate
from towernet.engine.memory import peak_memory_mib, reset_peak_memory
from towernet.engine.optimizer import make_optimizer, set_learning_rate
from towernet.engine.runlog import RunLog, Watcher
from towernet.engine.schedule import learning_rate, training_size_px
from towernet.engine.state import State, restore_tensors, state_tensors
from towernet.engine.step import average_weights, train_step
from towernet.engine.stop import StopSwitch
from towernet.errors import DataError, Diverged, in_one_line
from towernet.models.catalogue import build
from towernet.models.paddle import paddle_initial_weights
from towernet.records.contract import Contract

# Waiting for a GPU at every step would leave it idle; a bad loss is noticed this many steps late.
NUM_STEPS_UNREAD = {"cpu": 1, "mps": 20, "cuda": 50}
# In an epoch longer than this its state is saved half way: a power cut costs minutes, not hours.
SECONDS_BETWEEN_SAVES = 300.0
# On a CPU the prefetching thread would take its time from the step itself.
PREFETCH_DEPTH = {"cpu": 0, "mps": 2, "cuda": 2}


@dataclass(frozen=True)
class Plan:
    """What was decided before the first step, by measurement or by the recipe.

    Args:
        num_steps: Optimiser steps of the whole run.
        learning_rate: The peak, from the recipe or a comparison's trial.
        policy: Device, dtype, layout, threads, kernels.
        mixes: Whether images are mixed: by the length of the run that is planned, so that its
            learning-rate trials do as it does.
    """

    num_steps: int
    learning_rate: float
    policy: Policy
    mixes: bool = False

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
        if prefetch_depth is None:
            prefetch_depth = PREFETCH_DEPTH[plan.policy.device]
        with stop.patiently():
            state = _loop(config, dataset, folder, plan, watcher, stop, resumable, prefetch_depth)
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


def open_run(
    config: RunConfig,
    dataset: Dataset,
    folder: Path,
    plan: Plan,
    origin: dict[str, Any],
    accept: Accept,
) -> dict[str, Any]:
    """Write `run.json` for a new run, or read it and refuse whatever differs.

    Raises:
        ConfigError: the folder holds another run, or one with other choices or versions.
        DataError: its run was trained on other images, or made by a newer towernet.
    """
    wanted: dict[str, Any] = {
        "config": config.model_dump(mode="json"),
        "plan": asdict(plan),
        "contract": asdict(dataset.contract),
        "data": fingerprint(dataset.table),
        "versions": bits_depend_on(plan.policy, [config.model]),
    }
    path = folder / "run.json"
    record: dict[str, Any]
    if not path.exists():
        record = wanted | {
            "format": files.FORMAT,
            "status": "running",
            "origin": origin,
            "hardware": hardware(plan.policy).model_dump(),
        }
        files.write_json(path, record)
        return record
    record = files.read_record(path)
    files.require_format(path, record)
    if record.get("status") == "finished":
        # Nothing is computed any more: what it was made from and by plays no part.
        wanted |= {key: record.get(key) for key in ("data", "versions")}
        wanted["plan"] |= {"policy": record.get("plan", {}).get("policy")}
    accepted = []
    if record.get("data") != wanted["data"]:
        if not accept.data:
            raise DataError(
                f"the images are not those {folder} was trained on; put them back, choose another"
                " --out, or go on with those that are left by --accept-data-change"
            )
        accepted.append("images")
    try:
        # What a picture becomes for the network stays as it was begun, also when fewer images
        # would give another mean; the classes must be the same.
        classes = {"class_names": wanted["contract"]["class_names"]}
        wanted["contract"] = record["contract"] | classes
        accepted += refuse_changes(folder, _decisive(record), _decisive(wanted), accept)
    except (KeyError, TypeError, ValidationError) as error:
        raise DataError(
            f"{path} is damaged ({in_one_line(error)}); restore it, or choose another --out"
        ) from error
    if accepted:
        record |= wanted | {
            "accepted": [*record.get("accepted", []), *accepted],
            "hardware": hardware(plan.policy).model_dump(),
        }
        files.write_json(path, record)
    return record


def _decisive(record: dict[str, Any]) -> Decisive:
    """Return what decides a run's bits, as `refuse_changes` compares it."""
    policy = Policy(**record["plan"]["policy"])
    plan = {key: record["plan"].get(key) for key in ("num_steps", "learning_rate", "mixes")}
    return Decisive(
        (
            # Validated: what an older version did not write down yet is as it was then.
            ("", RunConfig.model_validate(record["config"]).model_dump(mode="json")),
            ("plan", plan),
            ("contract", record["contract"]),
        ),
        record["versions"],
        policy.threads,
        policy.kind(),
    )


def _loop(
    config: RunConfig,
    dataset: Dataset,
    folder: Path,
    plan: Plan,
    watcher: Watcher,
    stop: StopSwitch,
    resumable: bool,
    prefetch_depth: int,
) -> State:
    policy, contract = plan.policy, dataset.contract
    num_steps_epoch = steps_per_epoch(len(dataset.train), config.recipe.train.batch_size)
    recipe = config.recipe if plan.mixes else config.recipe.unmixed()
    dataset = pixels_on_device(dataset, policy)
    seed = run_seed(config)
    model = policy.place(initial_model(config, len(contract.class_names), contract.size_px))
    optimizer = make_optimizer(model, recipe.train, config.model, policy.torch_dtype)
    averaged = (
        average_weights(model, recipe.train.ema_fraction, plan.num_steps)
        if recipe.train.ema_fraction
        else None
    )
    evaluated = averaged.module if averaged is not None else model

    state = State(run=_hash(config, plan))
    if resumable:
        found, damaged = checkpoint.read_state(folder / "last")
        for sentence in damaged:
            watcher.say(sentence)
        if found:
            run, state = state.run, State.from_json(found[1])
            if state.run != run:
                raise DataError(
                    f"{folder / 'run.json'} is not what the states beside it were made by; restore"
                    " it, or begin anew with another --out"
                )
            restore_tensors(found[0], model, optimizer, averaged)
        if not (found or damaged) and (folder / "metrics.jsonl").exists():
            watcher.say(f"no state is left in {folder / 'last'}: {folder.name} begins anew")
        if found or damaged:
            watcher.say(f"{folder.name} goes on after step {state.step}")

    log = RunLog(folder, state.metrics, state.timings)
    saved = time.monotonic()
    watcher.begin(config.model, state.step, plan.num_steps, num_steps_epoch)
    unread: list[tuple[int, float, Tensor, Tensor, int]] = []

    def size_of(step: int) -> int:
        return training_size_px(step, plan.num_steps, config.model, contract.size_px, recipe.train)

    def read_losses() -> float:
        """Wait for the device, add up, and stop at a loss that is not a number."""
        loss = math.nan
        for step, rate, loss_on_device, correct, num_images in unread:
            loss = loss_on_device.item()
            if not math.isfinite(loss):
                raise Diverged(
                    f"{config.model}: the loss became {loss} at step {step + 1} of {plan.num_steps}"
                    f" (learning rate {rate:.3g}); give a smaller train.learning_rate in a recipe"
                )
            state.loss_sum += loss * num_images
            state.num_correct += int(correct.item())
            state.num_seen += num_images
        unread.clear()
        return loss

    def complete() -> str:
        if not resumable:
            return f"the trial in {folder} begins anew"
        return f"{folder} is complete up to step {state.step} of {plan.num_steps}"

    def save(seconds: float) -> None:
        """Write the state; the seconds are those of an epoch that is not over."""
        nonlocal saved
        if resumable:
            tensors = state_tensors(model, optimizer, averaged)
            values = state.to_json() | {"seconds": seconds}
            checkpoint.write_state(folder / "last", state.step, tensors, values, state.best)
        saved = time.monotonic()

    while state.step < plan.num_steps:
        epoch, first = divmod(state.step, num_steps_epoch)
        started = time.perf_counter()
        batches = prefetch(
            lambda epoch=epoch, first=first: epoch_batches(  # type: ignore[misc]
                dataset, recipe, policy, seed=seed, epoch=epoch, first=first, size_px=size_of
            ),
            prefetch_depth,
        )
        num_images_now = 0
        for batch in batches:
            rate = learning_rate(state.step, plan.num_steps, recipe.train, plan.learning_rate)
            set_learning_rate(optimizer, rate)
            # Dropout draws from torch's generator: seeded by the step, it needs no saving.
            torch.manual_seed(rng.derive(seed, "step", state.step))
            loss, logits = train_step(
                model,
                optimizer,
                batch.images_BCHW,
                batch.targets,
                label_smoothing=recipe.train.label_smoothing,
                policy=policy,
            )
            if averaged is not None:
                averaged.update_parameters(model)
            num_images = len(batch.labels_B)
            correct = (logits.argmax(dim=1) == batch.labels_B).sum()
            unread.append((state.step, rate, loss, correct, num_images))
            state.step += 1
            num_images_now += num_images
            if len(unread) >= NUM_STEPS_UNREAD[policy.device]:
                latest_loss = read_losses()
                seconds = time.perf_counter() - started
                accuracy = state.num_correct / state.num_seen
                watcher.step(state.step, latest_loss, accuracy, num_images_now / seconds)
            # At an epoch's end it is evaluated first, and then saved or stopped.
            within = state.step % num_steps_epoch and state.step < plan.num_steps
            overdue = time.monotonic() - saved > SECONDS_BETWEEN_SAVES
            if within and (stop.exit_code or overdue):
                read_losses()
                save(state.seconds + time.perf_counter() - started)
                stop.raise_if_asked(complete())
            if state.step == plan.num_steps:
                break
        batches.close()  # type: ignore[attr-defined]
        read_losses()
        train_seconds = time.perf_counter() - started

        with watched_gates(evaluated) as gates:
            validation_loss, validation_accuracy = evaluate(
                evaluated, dataset.pixels, dataset.validation, contract, policy
            )
        if not math.isfinite(validation_loss):
            raise Diverged(
                f"{config.model}: the validation loss became {validation_loss} after step"
                f" {state.step} (learning rate {rate:.3g}); give a smaller"
                " train.learning_rate in a recipe"
            )
        row: dict[str, Any] = {
            "epoch": round(state.step / num_steps_epoch, 4),
            "step": state.step,
            "learning_rate": rate,
            "train_loss": state.loss_sum / state.num_seen,
            "train_accuracy": state.num_correct / state.num_seen,
            "validation_loss": validation_loss,
            "validation_accuracy": validation_accuracy,
        }
        if gates:
            row["attention"] = attention_figures(model, gates)
        if (validation_accuracy, -validation_loss) > (state.best_accuracy, -state.best_loss):
            state.best_epoch = row["epoch"]
            state.best_accuracy, state.best_loss = validation_accuracy, validation_loss
            if resumable:
                name = f"best-{state.step:09d}.safetensors"
                meta = {"epoch": row["epoch"], "validation_accuracy": validation_accuracy}
                sha256 = checkpoint.write_weights(
                    folder / "last" / name, evaluated.state_dict(), meta
                )
                state.best = {name: sha256}
        timing = {
            "step": state.step,
            "train_seconds": train_seconds + state.seconds,
            "images_per_second": num_images_now / train_seconds,
            "seconds": time.perf_counter() - started + state.seconds,
            "peak_memory_mib": peak_memory_mib(policy.device),
        }
        state.metrics.append(row)
        state.timings.append(timing)
        state.loss_sum, state.num_correct, state.num_seen, state.seconds = 0.0, 0, 0, 0.0
        # The state is first: it holds the lines too, and with it the epoch is never done again.
        save(0.0)
        log.write(state.metrics, state.timings)
        watcher.epoch(row | timing)
        if state.step < plan.num_steps:
            stop.raise_if_asked(complete())
    return state


def _hash(config: RunConfig, plan: Plan) -> str:
    # A share of 1 is what all runs had before there was one: their states go on.
    without = {"train_share"} if config.train_share == 1 else set()
    choices = config.model_dump(mode="json", exclude=without)
    decided = [choices, plan.num_steps, plan.learning_rate, plan.mixes]
    return files.digest(decided)

"""One run on its own: planned, trained, judged and recorded as a comparison of one network."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from towernet import files
from towernet.comparison.conclusion import Outcome, finish
from towernet.comparison.plan import budget, in_time, mixes, preflight
from towernet.comparison.protocol import Protocol, go_on, note_accepted
from towernet.config import AS_BEGUN, Accept, RunConfig
from towernet.data.archive import Limits
from towernet.data.changes import reconcile
from towernet.data.prepare import Dataset, fingerprint, prepare, sample_table
from towernet.data.source import DIGITS, Source, open_source
from towernet.engine.checkpoint import require_weights
from towernet.engine.device import Policy, choose_policy
from towernet.engine.measure import measure
from towernet.engine.memory import is_out_of_memory, out_of_memory_words
from towernet.engine.runlog import Watcher, log_failure
from towernet.engine.stop import StopSwitch
from towernet.engine.train import train
from towernet.errors import (
    ConfigError,
    DataError,
    Interrupted,
    TowernetError,
    TrainingError,
    in_one_line,
)
from towernet.models.catalogue import check_size
from towernet.records.protocol import Request
from towernet.records.run import Origin, Plan


def begin_run(
    config: RunConfig,
    source: Source,
    folder: Path,
    *,
    device: str,
    threads: int | None = None,
    origin: dict[str, Any],
    workers: int,
    watcher: Watcher,
    stop: StopSwitch,
) -> dict[str, Any]:
    """Train a network in a new folder; return what `results.json` holds.

    Raises:
        ConfigError: the folder already holds something.
        TowernetError: the choices, the images or the machine do not allow it.
        Interrupted: the user asked to stop; `resume_run` goes on.
    """
    check_size(config.model, config.recipe.data.size_px)
    with files.lock(folder / "lock", holder=str(folder)):
        if (folder / "run.json").exists():
            raise ConfigError(
                f"{folder} already holds a run; go on with it by --resume {folder},"
                " or choose another --out"
            )
        if not files.is_empty(folder):
            raise ConfigError(f"{folder} is not empty; choose another --out")
        files.sweep(folder)
        preflight(folder, _request(config), source, workers, watcher)
        table = _sample_table(config, source, workers, watcher)
        dataset = _dataset(config, table, source, workers, watcher)
        policy = choose_policy(device, threads)
        watcher.say(f"self-test: {policy.reason}; using {policy.words()}")
        cost = measure(config, dataset, policy)
        steps = budget(config.recipe, cost, dataset)
        seconds = steps * cost.seconds_per_step(dataset, config.recipe.train.batch_size)
        watcher.say(f"{config.model}: {steps} steps, about {in_time(seconds)}")
        rate = config.recipe.train.learning_rate
        plan = Plan(steps, rate, policy, mixes(config.recipe, steps, dataset))
        origin = origin | {"cost": asdict(cost)}
        return _train_and_conclude(config, plan, dataset, source, folder, origin, watcher, stop)


def resume_run(
    folder: Path,
    data: str | None,
    *,
    limits: Limits | None = None,
    device: str = "auto",
    threads: int | None = None,
    accept: Accept = AS_BEGUN,
    workers: int,
    watcher: Watcher,
    stop: StopSwitch,
) -> tuple[dict[str, Any], Source]:
    """Go on with a run that was stopped, to the bit; a finished one is left as it is.

    Args:
        folder: The run.
        data: Where its images are now, if not where they were.
        limits: What an archive may unpack to, where that is not the usual.
        device: "auto": as it was begun.
        threads: None: as it was begun.
        accept: In what it may differ from what was begun.
        workers: Decoding processes.
        watcher: Who is told how it goes.
        stop: Says when the user wants to stop.

    Raises:
        DataError: the folder holds no run, or the images are others.
    """
    files.read_json(folder / "run.json")  # no lock is made where no run is
    with files.lock(folder / "lock", holder=str(folder), say=watcher.say):
        record = files.read_record(folder / "run.json")
        files.require_format(folder / "run.json", record)
        try:
            config = RunConfig.model_validate(record["config"])
            plan = Plan(**record["plan"])
            origin, versions = record["origin"], record["versions"]
            Origin(**origin)
            if data is None and origin["data"] != DIGITS and not Path(origin["data"]).exists():
                raise DataError(
                    f"{origin['data']} is not there any more; say where the images are now:"
                    f" towernet train IMAGES --resume {folder}"
                )
            source = open_source(
                data or origin["data"],
                layout=origin["layout"],
                skip_empty=origin["skip_empty"],
                limits=limits,
                progress=watcher.count,
            )
        except (KeyError, TypeError, ValidationError) as error:
            raise DataError(
                f"{folder / 'run.json'} is not of a run begun by `towernet train`"
                f" ({in_one_line(error)}); a comparison goes on by its own command"
            ) from error
        watcher.say(source.reading)
        files.sweep(folder)
        preflight(folder, _request(config), source, workers, watcher)
        table = _sample_table(config, source, workers, watcher)
        table, changed = reconcile(folder, source.name, table, accept=accept.data)
        dataset = _dataset(config, table, source, workers, watcher)
        before = _protocol(config, plan, dataset, origin, versions)
        protocol, accepted = go_on(
            before, folder, before.request, device=device, threads=threads, accept=accept
        )
        plan = replace(plan, policy=protocol.policy)
        if changed or accepted:
            note_accepted(folder, [changed, *accepted], dataset, watcher)
        conclusion = _train_and_conclude(
            config, plan, dataset, source, folder, origin, watcher, stop, accept
        )
    return conclusion, source


def finished_run(folder: Path) -> dict[str, Any] | None:
    """Return the results of a run that has them, whatever became of its images; tidy up behind it.

    Raises:
        DataError: its weights are gone or were changed, or a file is damaged.
    """
    if not (folder / "results.json").exists():
        return None
    with files.lock(folder / "lock", holder=str(folder)):
        files.sweep(folder)
        record = files.read_record(folder / "run.json")
        files.require_format(folder / "run.json", record)
        run = files.read_record(folder / "run.json", "weights_sha256")
        require_weights(folder, run["weights_sha256"])
        return files.read_record(folder / "results.json", "results", "measured")


def _sample_table(
    config: RunConfig, source: Source, workers: int, watcher: Watcher
) -> pd.DataFrame:
    return sample_table(
        source,
        seed=config.seed,
        images_per_class=config.images_per_class,
        workers=workers,
        progress=watcher.count,
    )


def _dataset(
    config: RunConfig, table: pd.DataFrame, source: Source, workers: int, watcher: Watcher
) -> Dataset:
    return prepare(
        table,
        source,
        config.recipe.data,
        seed=config.seed,
        repetition=config.repetition,
        workers=workers,
        progress=watcher.count,
    )


def _train_and_conclude(
    config: RunConfig,
    plan: Plan,
    dataset: Dataset,
    source: Source,
    folder: Path,
    origin: dict[str, Any],
    watcher: Watcher,
    stop: StopSwitch,
    accept: Accept = AS_BEGUN,
) -> dict[str, Any]:
    try:
        record = train(
            config,
            dataset,
            folder,
            plan,
            watcher=watcher,
            stop=stop,
            origin=Origin(**origin),
            accept=accept,
        )
    except Interrupted as error:
        raise Interrupted(f"{error}: towernet train --resume {folder}", error.exit_code) from None
    except Exception as error:
        if is_out_of_memory(error):
            words = out_of_memory_words(config.recipe.train.batch_size)
            raise TrainingError(f"{config.model}: {words}") from error
        if isinstance(error, OSError | TowernetError):
            raise
        raise TrainingError(f"{config.model}: {log_failure(folder, error)}") from error
    return finish(
        [Outcome(config.model, plan.learning_rate, folders=[folder])],
        folder,
        _protocol(config, plan, dataset, origin, record.versions),
        lambda repetition: dataset,
        kind="run",
        title=source.name,
        origin=origin,
        watcher=watcher,
    )


def _request(config: RunConfig) -> Request:
    return Request(
        models=(config.model,),
        recipe_name=config.recipe_name,
        recipe=config.recipe,
        seed=config.seed,
        images_per_class=config.images_per_class,
    )


def _protocol(
    config: RunConfig,
    plan: Plan,
    dataset: Dataset,
    origin: dict[str, Any],
    versions: dict[str, str],
) -> Protocol:
    return Protocol(
        _request(config),
        fingerprint(dataset.table),
        Policy.of(plan.policy),
        {config.model: plan.num_steps},
        {config.model: plan.mixes},
        {config.model: origin["cost"]},
        {},
        versions,
    )

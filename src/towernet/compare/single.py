"""One run on its own: planned, trained, judged and recorded as a comparison of one network."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from towernet import files
from towernet.compare.plan import in_time, num_steps
from towernet.compare.protocol import Protocol, Request
from towernet.compare.results import Outcome, finish
from towernet.config import RunConfig
from towernet.data.prepare import Dataset, fingerprint, prepare, sample_table
from towernet.data.source import Source, open_source
from towernet.engine.device import choose_policy
from towernet.engine.measure import measure
from towernet.engine.runlog import Watcher
from towernet.engine.stop import StopSwitch
from towernet.engine.train import Plan, train
from towernet.errors import ConfigError, DataError, Interrupted, in_one_line
from towernet.models.catalogue import check_size


def begin_run(
    config: RunConfig,
    source: Source,
    folder: Path,
    *,
    device: str,
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
    if (folder / "run.json").exists():
        with files.lock(folder / "lock", holder=str(folder)):
            raise ConfigError(
                f"{folder} already holds a run; go on with it by --resume {folder},"
                " or choose another --out"
            )
    if folder.exists() and any(path.name != "lock" for path in folder.iterdir()):
        raise ConfigError(f"{folder} is not empty; choose another --out")
    dataset = _dataset(config, source, workers, watcher)
    policy = choose_policy(device)
    watcher.say(f"self-test: {policy.reason}; using {policy.words()}")
    cost = measure(config, dataset, policy)
    steps = num_steps(config.recipe, cost, dataset)
    watcher.say(
        f"{config.model}: {steps} steps, about"
        f" {in_time(steps * cost.seconds_per_step(dataset, config.recipe.train.batch_size))}"
    )
    plan = Plan(steps, config.recipe.train.learning_rate, policy)
    return _train_and_conclude(
        config, plan, dataset, source, folder, origin | {"cost": asdict(cost)}, watcher, stop
    )


def resume_run(
    folder: Path,
    data: str | None,
    *,
    workers: int,
    watcher: Watcher,
    stop: StopSwitch,
) -> tuple[dict[str, Any], Source]:
    """Go on with a run that was stopped, to the bit; a finished one is left as it is.

    Args:
        folder: The run.
        data: Where its images are now, if not where they were.
        workers: Decoding processes.
        watcher: Who is told how it goes.
        stop: Says when the user wants to stop.

    Raises:
        DataError: the folder holds no run, or the images are others.
    """
    record = files.read_json(folder / "run.json")
    try:
        config = RunConfig.model_validate(record["config"])
        plan = Plan.from_json(record["plan"])
        origin = record["origin"]
        source = open_source(
            data or origin["data"],
            layout=origin["layout"],
            skip_empty=origin["skip_empty"],
            progress=watcher.count,
        )
    except (KeyError, TypeError, ValidationError) as error:
        raise DataError(
            f"{folder / 'run.json'} is not of a run begun by `towernet train`"
            f" ({in_one_line(error)}); a comparison goes on by its own command"
        ) from error
    watcher.say(source.reading)
    dataset = _dataset(config, source, workers, watcher)
    return _train_and_conclude(config, plan, dataset, source, folder, origin, watcher, stop), source


def _dataset(config: RunConfig, source: Source, workers: int, watcher: Watcher) -> Dataset:
    table = sample_table(
        source,
        seed=config.seed,
        images_per_class=config.images_per_class,
        workers=workers,
        progress=watcher.count,
    )
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
) -> dict[str, Any]:
    try:
        train(config, dataset, folder, plan, watcher=watcher, stop=stop, origin=origin)
    except Interrupted as error:
        raise Interrupted(f"{error}: towernet train --resume {folder}", error.exit_code) from None
    request = Request(
        models=(config.model,),
        recipe_name=config.recipe_name,
        recipe=config.recipe,
        seed=config.seed,
        images_per_class=config.images_per_class,
    )
    protocol = Protocol(
        request,
        fingerprint(dataset.table),
        plan.policy,
        {config.model: plan.num_steps},
        {config.model: origin["cost"]},
    )
    return finish(
        [Outcome(config.model, plan.learning_rate, folders=[folder])],
        folder,
        protocol,
        lambda repetition: dataset,
        kind="run",
        title=source.name,
        origin=origin,
        watcher=watcher,
    )

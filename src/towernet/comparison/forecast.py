"""What a comparison needs: disk, before images are read; time, before networks are trained."""

from __future__ import annotations

import math
import resource
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import nn

from towernet import files
from towernet.comparison.protocol import SHARES
from towernet.config import Recipe
from towernet.data.prepare import Dataset
from towernet.engine.batches import steps_per_epoch
from towernet.engine.measure import Cost
from towernet.engine.session import Session
from towernet.engine.trainer import SECONDS_BETWEEN_SAVES
from towernet.errors import ConfigError, EnvironmentFault
from towernet.models.catalogue import outline
from towernet.models.summary import count_parameters
from towernet.names import NetworkName
from towernet.records.protocol import Request
from towernet.starts.load import head_of
from towernet.words import in_bytes, listed, percent, rough_time

BYTES_PER_NUMBER = 4
# Of the weights in a state: themselves, their average, the momentum, and the best so far.
NUM_COPIES_IN_STATE = 4
NUM_COPIES_WHILE_TRAINING = 3 * NUM_COPIES_IN_STATE  # two states, and the one being written
SPARE_BYTES = 20 * 2**20  # predictions, a report with pictures, TensorBoard
MIN_SLOWDOWN = 1.2  # less is not worth a sentence
FILES_AT_ONCE, FILES_PER_WORKER = 128, 8


def preflight(request: Request, session: Session) -> None:
    """Report how much disk is needed, and refuse to start if disk or open files cannot suffice.

    Args:
        request: The networks to train.
        session: Its folder exists and can be written, since its lock is held.

    Raises:
        EnvironmentFault: too little disk, or the limit of open files is too low.
    """
    folder, source = session.folder, session.source
    _allow_files(FILES_AT_ONCE + FILES_PER_WORKER * session.workers)
    num_classes = max(2, len(source.class_names))
    parameters = [
        count_parameters(outline(name, num_classes, request.recipe_of(name).data.size_px))
        for name in request.models
    ]
    for_runs = disk_bytes(parameters, request.runs)
    if request.learning_curve:
        for_runs += len(SHARES) * request.runs * max(parameters) * BYTES_PER_NUMBER
    for_runs += len(request.shots) * request.runs * sum(parameters) * BYTES_PER_NUMBER
    for_pixels = len(source.files) * 3 * sum(side**2 for side, _ in _decoded(request))
    # Rows of features, and once more while a part of them is in use.
    for_features = 2 * len(source.files) * BYTES_PER_NUMBER * sum(_num_features(request).values())
    cache = files.cache_folder()
    session.progress.say(
        f"disk: at most {in_bytes(for_runs)} in {folder} and"
        f" {in_bytes(for_pixels + for_features)} in {cache};"
        f" {in_bytes(shutil.disk_usage(folder).free)} are free"
    )
    written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    require_disk(folder, max(0, for_runs - written))


def _decoded(request: Request) -> set[tuple[int, float]]:
    """Return the sizes and crop shares of the decoded images that are kept; frozen needs none."""
    trained = [request.recipe_of(name).data for name in request.models if name.start != "frozen"]
    evaluated = {(data.size_px, data.crop_share) for data in trained}
    return evaluated | {(round(data.size_px * data.train_margin), 1.0) for data in trained}


def _num_features(request: Request) -> dict[str, int]:
    """Return how many features an image has under each set of weights, by network."""
    found = {}
    for name in request.models:
        if name.start is not None:
            size_px = request.recipe_of(name).data.size_px
            head = outline(name.base, 2, size_px).get_submodule(head_of(name.base, size_px))
            assert isinstance(head, nn.Linear), "a network with another last layer cannot start"
            found[name.base] = head.in_features
    return found


def _allow_files(num_files: int) -> None:
    """Raise the limit of open files to the number needed, if the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= num_files:
        return
    if hard != resource.RLIM_INFINITY and hard < num_files:
        raise EnvironmentFault(
            f"the limit of open files is {hard} and up to {num_files} are needed; raise the limit"
            f" (ulimit -n {num_files})"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (num_files, hard))


def budget(recipe: Recipe, cost: Cost, dataset: Dataset) -> int:
    """Return how many optimiser steps one run takes within the recipe's budget.

    Raises:
        ConfigError: the recipe has no budget.
    """
    train = recipe.train
    per_epoch = steps_per_epoch(len(dataset.train), train.batch_size)
    if train.epochs is not None:
        num_steps = train.epochs * per_epoch
    elif train.minutes is not None:
        num_steps = cost.steps_within(60 * train.minutes, dataset, train.batch_size)
    else:
        raise ConfigError("the recipe has no budget; give --epochs or --minutes")
    return num_steps if train.max_epochs is None else min(num_steps, most_steps(recipe, dataset))


def most_steps(recipe: Recipe, dataset: Dataset) -> int:
    """Return how many steps a run takes at most, of a recipe that limits its epochs."""
    train = recipe.train
    assert train.max_epochs is not None, "only called where there is a limit"
    return max(1, round(train.max_epochs * steps_per_epoch(len(dataset.train), train.batch_size)))


def same_for_all_variants(num_steps: dict[NetworkName, int]) -> dict[NetworkName, int]:
    """Give all variants of a network the number of steps that the slowest of them has time for.

    So they see the same images in the same order; the cost of attention is reported separately.
    """
    fewest: dict[str, int] = {}
    for name, steps in num_steps.items():
        if steps:  # 0 means that it cannot take a step
            network = name.without_block()
            fewest[network] = min(steps, fewest.get(network, steps))
    return {name: fewest[name.without_block()] if steps else 0 for name, steps in num_steps.items()}


def mixes(recipe: Recipe, num_steps: int, dataset: Dataset) -> bool:
    """Whether a run of this many steps is long enough to mix images."""
    return recipe.mixes(num_steps / steps_per_epoch(len(dataset.train), recipe.train.batch_size))


def trial_rates(recipe: Recipe) -> list[float]:
    """Return the learning rates to try for each network, lowest first."""
    return sorted({recipe.train.learning_rate * factor for factor in recipe.train.trial_factors})


def trial_steps(recipe: Recipe, num_steps: int) -> int:
    """Return how many steps one trial takes; a single learning rate needs no trial."""
    if len(trial_rates(recipe)) < 2:
        return 0
    return max(1, round(recipe.train.trial_share * num_steps))


def expected_seconds(
    recipe: Recipe, runs: int, dataset: Dataset, cost: Cost, num_steps: int
) -> tuple[float, float]:
    """Return the seconds one network's trials and runs will take."""
    train = recipe.train
    of_trial = cost.seconds(trial_steps(recipe, num_steps), dataset, train.batch_size)
    of_run = cost.seconds(num_steps, dataset, train.batch_size)
    return len(train.trial_factors) * of_trial, runs * of_run


def _curve_seconds(
    request: Request, name: NetworkName, dataset: Dataset, cost: Cost, num_steps: int
) -> float:
    """Return the seconds of one network's runs on fewer images, whose epochs are shorter."""
    batch_size = request.recipe_of(name).train.batch_size
    parts = [dataset.with_train_share(share, seed=request.seed, repetition=0) for share in SHARES]
    return sum(request.runs * cost.seconds(num_steps, part, batch_size) for part in parts)


def disk_bytes(parameters: Iterable[int], runs: int) -> int:
    """Return how much disk a comparison needs at most, without the decoded pixels."""
    parameters = list(parameters)
    kept = runs * sum(parameters)
    return (kept + NUM_COPIES_WHILE_TRAINING * max(parameters)) * BYTES_PER_NUMBER + SPARE_BYTES


def bytes_in_all(
    request: Request,
    dataset: Dataset,
    costs: Mapping[NetworkName, Cost],
    steps: Mapping[NetworkName, int],
    *,
    has_trials: bool,
) -> int:
    """Return about how much trials and runs write in all, including what is removed again.

    Every run writes its best weights once, and a state every few minutes, as trials do.
    """
    total, of_curves = SPARE_BYTES, [0]
    for name, cost in costs.items():
        weights = cost.parameters * BYTES_PER_NUMBER
        if name.start == "frozen":
            total += (1 + len(request.shots)) * request.runs * weights
        if not steps[name]:
            continue
        of_state = NUM_COPIES_IN_STATE * weights
        recipe = request.recipe_of(name)
        trials, runs = expected_seconds(recipe, request.runs, dataset, cost, steps[name])
        if has_trials:
            num_trials = len(trial_rates(recipe))
            total += num_trials * _num_states(trials / num_trials) * of_state
        total += request.runs * (weights + _num_states(runs / request.runs) * of_state)
        if request.learning_curve:
            num = len(SHARES) * request.runs
            seconds = _curve_seconds(request, name, dataset, cost, steps[name]) / num
            of_curves.append(num * (weights + _num_states(seconds) * of_state))
        per_run = weights + _num_states(runs / request.runs) * of_state
        total += len(request.shots) * request.runs * per_run
    return total + max(of_curves)


def _num_states(seconds: float) -> int:
    return int(seconds / SECONDS_BETWEEN_SAVES)


def require_disk(folder: Path, needed: int) -> None:
    """Refuse to start if the disk is too small.

    Raises:
        EnvironmentFault: it names the space that is needed and that is free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise EnvironmentFault(
            f"{folder} may need up to {in_bytes(needed)} of disk and {in_bytes(free)} are free;"
            " make room or choose another --out"
        )


def forecast(
    request: Request,
    dataset: Dataset,
    costs: dict[NetworkName, Cost],
    steps: dict[NetworkName, int],
) -> tuple[str, float]:
    """Describe in one sentence how long the comparison will take; return that and the seconds."""
    total, longest, of_shots, parts = 0.0, 0.0, 0.0, []
    for name, cost in costs.items():
        recipe = request.recipe_of(name)
        if name.start == "frozen":
            preparing = dataset.num_images * cost.image_seconds
            total += preparing
            parts.append(f"{name} {rough_time(preparing)} for the features of all images")
        if not steps[name]:
            continue
        trial, runs = expected_seconds(recipe, request.runs, dataset, cost, steps[name])
        total += trial + runs
        of_shots += len(request.shots) * runs
        longest = max(longest, _curve_seconds(request, name, dataset, cost, steps[name]))
        num_epochs = steps[name] / steps_per_epoch(len(dataset.train), recipe.train.batch_size)
        epochs = f"{num_epochs:.3g}"
        parts.append(
            f"{name} {epochs} epoch{'' if epochs == '1' else 's'}"
            f"{f' × {request.runs} runs' if request.runs > 1 else ''}"
            f" in {rough_time(runs)}"
            + (f" after {rough_time(trial)} of learning-rate trials" if trial else "")
        )
    if request.learning_curve:
        total += longest
        parts.append(f"the learning curve in up to {rough_time(longest)}")
    if request.shots:
        total += of_shots
        parts.append(f"with few images of each class {rough_time(of_shots)}")
    return f"about {rough_time(total)} on this machine: {', '.join(parts)}", total


def too_short_words(
    request: Request, dataset: Dataset, steps: Mapping[NetworkName, int]
) -> str | None:
    """Say which networks cannot be ranked in the planned time, and what would do; None if none."""
    if request.recipe.train.minutes is None:
        return None
    epochs = {
        name: num / steps_per_epoch(len(dataset.train), request.recipe_of(name).train.batch_size)
        for name, num in steps.items()
    }
    # One that starts from weights has learnt before.
    shares = {name: num for name, num in epochs.items() if 0 < num < 1 and name.start is None}
    if not shares:
        return None
    minutes = request.recipe.train.minutes / min(shares.values())
    return (
        f"{listed(list(shares))} will not see all training images, and so not be ranked; about"
        f" --minutes {math.ceil(minutes * 110) / 100:g} would be enough"
    )


def busy_words(recipe: Recipe, slowdown: float | None, seconds: float) -> str | None:
    """Say how much longer training takes because of other processes; None if hardly or unknown.

    Args:
        recipe: Its budget is epochs or minutes.
        slowdown: How many times longer a step takes than on a free machine.
        seconds: How long everything will take at the present rate.
    """
    if slowdown is None or slowdown < MIN_SLOWDOWN:
        return None
    text = (
        "this machine is busy with other processes: a training step takes at least"
        f" {slowdown:.3g} times as long as on a free machine;"
    )
    if recipe.train.minutes is None:
        longer = rough_time(seconds * (1 - 1 / slowdown))
        return f"{text} at the present rate everything takes {longer} longer"
    longer = rough_time(seconds * (slowdown - 1))
    return (
        f"{text} in the planned time networks take at most {percent(1 / slowdown, 0)} of the steps;"
        f" to take all, {longer} more would be needed at the present rate"
    )

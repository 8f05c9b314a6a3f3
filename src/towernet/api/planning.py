"""Plan a comparison for some hours: time every network, propose numbers of runs and minutes."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import pandas as pd

from towernet import choices, contestants
from towernet.api.options import Options, open_data
from towernet.comparison.costs import measure_networks
from towernet.comparison.proposal import Proposal, choose, propose
from towernet.config import DataConfig, Recipe
from towernet.data.left_out import before_training
from towernet.data.prepare import Dataset, prepare, sample_table
from towernet.data.source import Source
from towernet.engine.device import choose_policy, require_device
from towernet.engine.runlog import Progress
from towernet.errors import ConfigError, TrainingError
from towernet.models.catalogue import require_size
from towernet.names import NetworkName
from towernet.records.protocol import Request
from towernet.records.reading import options_of
from towernet.starts.find import resolve

MOST_HOURS = 100_000
LEAST_SIZE_PX = 32  # on smaller images most classes cannot be distinguished
LEAST_MINUTES = 0.01  # per run; with fewer there is nothing to propose


@dataclass(frozen=True)
class Planned:
    """Proposals for some hours, and the chosen one.

    Args:
        hours: Computing time in total.
        networks: Those that can be trained here.
        proposals: All proposals, those with the recipe's image size first.
        chosen: The best proposal.
        size_px: The image size if all proposals share it, else None.
        num_train: Training images.
        num_final: Images for the final evaluation.
        final_split: The split of those images.
        command: The command for the chosen proposal; None if the hours are too few.
    """

    hours: float
    networks: tuple[NetworkName, ...]
    proposals: tuple[Proposal, ...]
    chosen: Proposal
    size_px: int | None
    num_train: int
    num_final: int
    final_split: str
    command: str | None


def plan(
    data: str,
    *,
    models: str,
    hours: float,
    options: Options,
    progress: Progress,
    weights: Sequence[str] | None = None,
    against: str | None = None,
) -> Planned:
    """Time each network, and propose runs that fit into the hours.

    If the hours are too few for the recipe's image size, smaller ones are tried.

    Raises:
        ConfigError: there are fewer than two networks, or the hours are out of range.
        TrainingError: fewer than two networks can be trained here.
    """
    names = contestants.model_names(models)
    if len(names) < 2:
        raise ConfigError(f"--models is '{models}'; give two or more to compare")
    if all(name.start == "frozen" for name in names):
        raise ConfigError(
            f"--models is '{models}', and frozen networks take no time worth planning; compare"
            " them, or add one that is trained"
        )
    if not 0 < hours < MOST_HOURS:
        raise ConfigError(f"--hours is {hours:g}; give more than 0 and less than {MOST_HOURS:,}")
    require_device(options.device)
    source = open_data(data, options, progress)
    given = contestants.weights_given(weights)
    compared_with = contestants.compared_with(against, names, ())
    request = options.request(source, names, against=compared_with, weights=resolve(names, given))
    own_px = request.recipe.data.size_px
    for name in names:
        require_size(name, request.recipe_of(name).data.size_px)
    workers = choices.num_workers(options.workers)
    table = sample_table(
        source,
        seed=options.seed,
        images_per_class=options.images_per_class,
        reading=request.reading,
        workers=workers,
        progress=progress.count,
    )
    for words in before_training(table, source, request.recipe.data.resize):
        progress.say(words)
    policy = choose_policy(options.device, options.threads)
    proposals: list[Proposal] = []
    for size_px in [own_px, *(_smaller(names, request.recipe) if options.size is None else ())]:
        at_size = request.recipe.data.model_copy(update={"size_px": size_px})
        recipe = request.recipe.model_copy(update={"data": at_size})
        request = request.model_copy(update={"recipe": recipe})
        if size_px != own_px and request.weights:  # the command will have --size
            request = request.model_copy(
                update={"fixed_input": tuple({"size_px", *request.fixed_input})}
            )
        dataset_of = _datasets(table, source, request, workers, progress)
        dataset = dataset_of(names[0])
        costs, failures = measure_networks(request, dataset_of, policy, progress)
        costs = {name: cost for name, cost in costs.items() if name not in failures}
        if len(costs) < 2:
            raise TrainingError(
                f"only {', '.join(costs)} can be trained here; give two or more --models"
            )
        if compared_with is not None and compared_with not in costs:
            raise TrainingError(
                f"--against is {compared_with}, which cannot be trained here"
                f" ({failures[compared_with]}); give another network, or leave --against out"
            )
        proposals += propose(request, dataset, costs, hours)
        if choose(proposals).is_sound():
            break
    chosen, networks = choose(proposals), tuple(costs)
    sizes = {proposal.size_px for proposal in proposals}
    return Planned(
        hours,
        networks,
        tuple(proposals),
        chosen,
        own_px if len(sizes) == 1 else None,
        len(dataset.train),
        len(dataset.final),
        dataset.final_split,
        _command(data, networks, given, compared_with, chosen, own_px, options),
    )


def _datasets(
    table: pd.DataFrame, source: Source, request: Request, workers: int, progress: Progress
) -> Callable[[NetworkName], Dataset]:
    """Return the images as each network takes them."""

    @cache
    def prepared(data: DataConfig) -> Dataset:
        return prepare(
            table,
            source,
            data,
            seed=request.seed,
            reading=request.reading,
            workers=workers,
            progress=progress.count,
        )

    return lambda name: prepared(request.recipe_of(name).data)


def _smaller(names: Sequence[NetworkName], recipe: Recipe) -> Iterator[int]:
    """Yield sizes smaller than the recipe's that every network accepts."""
    for share in (0.75, 0.5):
        size_px = round(share * recipe.data.size_px)
        try:
            for name in names:
                require_size(name, size_px)
        except ConfigError:
            continue
        if size_px >= LEAST_SIZE_PX:
            yield size_px


def _command(
    data: str,
    networks: Sequence[NetworkName],
    weights: Sequence[str],
    against: NetworkName | None,
    chosen: Proposal,
    own_px: int,
    options: Options,
) -> str | None:
    """Return the command for a proposal, None if its minutes are too few."""
    if chosen.minutes < LEAST_MINUTES:
        return None
    words: list[object] = ["towernet", "compare", data, "--models", ",".join(networks)]
    words += [word for item in weights for word in ("--weights", item)]
    words += ["--runs", chosen.runs, "--minutes", _floor(chosen.minutes)]
    given = {
        "--against": (against, None),
        "--recipe": (options.recipe, "default"),
        "--size": (chosen.size_px, own_px if options.size is None else None),
        "--batch-size": (options.batch_size, None),
        "--seed": (options.seed, 0),
        "--device": (options.device, "auto"),
        "--threads": (options.threads, None),
        "--images-per-class": (options.images_per_class, None),
        "--resize": (options.resize, None),
        "--workers": (options.workers, None),
        "--measure": (options.measure, "accuracy"),
    }
    for option, (value, default) in given.items():
        if value != default:
            words += [option, value]
    words += options_of(options.reading)
    return shlex.join(map(str, words))


def _floor(minutes: float) -> str:
    """Return minutes with two digits, rounded down so that the hours suffice."""
    digits = 10.0 ** (2 - len(str(int(minutes)))) if minutes >= 1 else 100.0
    return f"{int(minutes * digits) / digits:g}"

"""`towernet plan`: what a comparison would take and could show, before anything is spent."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from towernet.cli import options
from towernet.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from towernet.comparison.proposal import Proposal
    from towernet.config import Recipe


MOST_HOURS = 100_000
LEAST_SIZE_PX = 32  # on smaller images hardly anything can be told apart
LEAST_MINUTES = 0.01  # of a run; with fewer there is nothing to propose


def plan(
    data: options.Data,
    models: options.Models = options.DEFAULT_MODELS,
    hours: Annotated[float, typer.Option(help="Hours of computing to spend in all.")] = 8.0,
    recipe: options.RecipeName = "default",
    size: options.Size = None,
    batch_size: options.BatchSize = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: options.Threads = None,
    images_per_class: options.ImagesPerClass = None,
    layout: options.Layout = "auto",
    skip_empty: options.SkipEmpty = False,
    workers: options.Workers = None,
    max_archive_gb: options.MaxArchiveGb = None,
    max_archive_entries: options.MaxArchiveEntries = None,
) -> None:
    """Measure each network here, propose runs that fit the hours, and say what they could show.

    Example: towernet plan photos/ --models towernet,resnet18 --hours 8
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from towernet import progress
    from towernet.comparison.plan import in_bytes, measure_networks
    from towernet.comparison.proposal import choose, propose
    from towernet.config import make
    from towernet.data.prepare import prepare, sample_table
    from towernet.data.source import open_source
    from towernet.engine.device import choose_policy, require_device
    from towernet.errors import TrainingError
    from towernet.models.catalogue import check_size
    from towernet.records.protocol import Request

    names = options.model_names(models)
    if len(names) < 2:
        raise ConfigError(f"--models is '{models}'; give two or more, which are compared")
    if not 0 < hours < MOST_HOURS:
        raise ConfigError(f"--hours is {hours:g}; give more than 0 and less than {MOST_HOURS:,}")
    require_device(device)
    screen = progress.screen()
    limits = options.archive_limits(max_archive_gb, max_archive_entries)
    source = open_source(
        data, layout=layout, skip_empty=skip_empty, limits=limits, progress=screen.count
    )
    screen.say(source.reading)
    resolved = options.resolve_recipe(
        recipe, source, epochs=None, minutes=None, size=size, batch_size=batch_size, no_flip=False
    )
    for name in names:
        check_size(name, resolved.data.size_px)
    num_workers = options.num_workers(workers)
    table = sample_table(
        source,
        seed=seed,
        images_per_class=images_per_class,
        workers=num_workers,
        progress=screen.count,
    )
    policy = choose_policy(device, threads)
    proposals: list[Proposal] = []
    for size_px in [resolved.data.size_px, *(_smaller(names, resolved) if size is None else ())]:
        at_size = resolved.data.model_copy(update={"size_px": size_px})
        request = make(
            Request,
            {
                "models": names,
                "recipe_name": recipe,
                "recipe": resolved.model_dump() | {"data": at_size.model_dump()},
                "seed": seed,
                "images_per_class": images_per_class,
            },
            where="the command line",
        )
        dataset = prepare(
            table, source, at_size, seed=seed, workers=num_workers, progress=screen.count
        )
        costs, failures = measure_networks(request, dataset, policy, screen)
        costs = {name: cost for name, cost in costs.items() if name not in failures}
        if len(costs) < 2:
            raise TrainingError(
                f"only {', '.join(costs)} can be trained here; give two or more --models"
            )
        proposals += propose(request, dataset, costs, hours)
        if choose(proposals).is_sound():
            break
    chosen = choose(proposals)
    one_size = len({proposal.size_px for proposal in proposals}) == 1

    console = Console(highlight=False, soft_wrap=True)
    num_final = len(dataset.final)
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("")
    if not one_size:
        shown.add_column("px", justify="right")
    for header in ("runs", "minutes a run", "epochs", "disk", "smallest difference shown"):
        shown.add_column(header, justify="right", no_wrap=True)
    for proposal in proposals:
        smallest = proposal.detectable
        shown.add_row(
            "→" if proposal is chosen else "",
            *([] if one_size else [str(proposal.size_px)]),
            str(proposal.runs),
            _number(proposal.minutes),
            _epochs(proposal),
            in_bytes(proposal.disk_bytes),
            "none" if smallest is None else f"{100 * smallest:.1f} points",
        )
    console.print()
    console.print(
        f"{hours:g} hours for {', '.join(costs)}"
        f"{f' at {resolved.data.size_px} px' if one_size else ''},"
        f" {len(dataset.train)} training and {num_final} {dataset.final_split} images:"
    )
    console.print(shown)
    console.print(_advice(chosen, num_final))
    if chosen.minutes < LEAST_MINUTES:
        return
    words: list[object] = ["towernet", "compare", data, "--models", ",".join(costs)]
    words += ["--runs", chosen.runs, "--minutes", _floor(chosen.minutes)]
    said = {
        "--recipe": (recipe, "default"),
        "--size": (chosen.size_px, resolved.data.size_px if size is None else None),
        "--batch-size": (batch_size, None),
        "--seed": (seed, 0),
        "--device": (device, "auto"),
        "--threads": (threads, None),
        "--images-per-class": (images_per_class, None),
        "--layout": (layout, "auto"),
        "--workers": (workers, None),
        "--max-archive-gb": (max_archive_gb, None),
        "--max-archive-entries": (max_archive_entries, None),
    }
    for option, (value, default) in said.items():
        if value != default:
            words += [option, value]
    if skip_empty:
        words.append("--skip-empty")
    console.print(escape(shlex.join(map(str, words))), style="bold")


def _smaller(names: Sequence[str], recipe: Recipe) -> Iterator[int]:
    """Yield smaller sizes that every network takes, for hours that are too few for the recipe's."""
    from towernet.models.catalogue import check_size

    for share in (0.75, 0.5):
        size_px = round(share * recipe.data.size_px)
        try:
            for name in names:
                check_size(name, size_px)
        except ConfigError:
            continue
        if size_px >= LEAST_SIZE_PX:
            yield size_px


def _epochs(proposal: Proposal) -> str:
    """Say how many epochs the minutes are, from the slowest network to the fastest."""
    least, most = min(proposal.epochs.values()), max(proposal.epochs.values())
    return " to ".join(dict.fromkeys((_number(least), _number(most))))


def _number(value: float) -> str:
    """Write a positive number to two digits or more, never with an exponent.

    Example:
        >>> _number(0.52), _number(8.44), _number(1961.0), _number(0.00004)
        ('0.52', '8.4', '1,961', '0')
    """
    if value < 0.01:
        return "0"
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _advice(chosen: Proposal, num_images: int) -> str:
    """Say what the chosen way is worth."""
    from towernet.comparison.proposal import SUPPOSED_ALONE, SUPPOSED_RUN_SPREAD

    slowest = min(chosen.epochs, key=chosen.epochs.__getitem__)
    if chosen.detectable is None:
        return (
            f"These hours are too few to compare networks: with more runs {slowest} would see its"
            " images too seldom. Give more --hours or fewer --models; single runs compare trained"
            " models only."
        )
    return (
        "A difference of that size would be shown in four of five such comparisons, if accuracy"
        f" varies by {100 * SUPPOSED_RUN_SPREAD:g} points from run to run and one of two networks"
        f" alone is right for {100 * SUPPOSED_ALONE:g} % of the images. More than these"
        f" {num_images} images to judge by would show smaller ones."
    )


def _floor(minutes: float) -> str:
    """Write minutes to two digits, rounded down so that the hours suffice."""
    digits = 10.0 ** (2 - len(str(int(minutes)))) if minutes >= 1 else 100.0
    return f"{int(minutes * digits) / digits:g}"

"""`towernet plan`: how many runs fit into some hours, and what they could show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from towernet.cli import options

if TYPE_CHECKING:
    from towernet.api.planning import Planned
    from towernet.comparison.proposal import Proposal


@options.reads_images
def plan(
    data: options.Data,
    models: options.Models = options.DEFAULT_MODELS,
    hours: Annotated[float, typer.Option(help="Total computing time, in hours.")] = 8.0,
    weights: options.Weights = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="Plan to compare the other networks with this one only: fewer pairs need fewer"
            " runs."
        ),
    ] = None,
    recipe: options.RecipeName = "default",
    size: options.Size = None,
    batch_size: options.BatchSize = None,
    resize: options.Resize = None,
    measure: options.Measure = "accuracy",
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: options.Threads = None,
    images_per_class: options.ImagesPerClass = None,
    workers: options.Workers = None,
    **reading: Any,
) -> None:
    """Time each network here; propose runs that fit into --hours, and what they could show.

    Example: towernet plan photos/ --models towernet,resnet18 --hours 8
    """
    given = locals() | reading
    del given["reading"]
    from towernet.api.options import Options
    from towernet.api.planning import plan as plan_hours
    from towernet.progress import screen

    planned = plan_hours(
        data,
        models=models,
        weights=weights,
        against=against,
        hours=hours,
        options=Options.of(given),
        progress=screen(),
    )
    _show(planned)


def _show(planned: Planned) -> None:
    """Print the proposals, what the chosen one could show, and its command."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from towernet.words import in_bytes

    console, one_size = Console(highlight=False, soft_wrap=True), planned.size_px is not None
    has_weights = any(name.start for name in planned.networks)  # these bring their own size
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("")
    if not one_size:
        shown.add_column("px", justify="right")
    for header in ("runs", "minutes a run", "epochs", "disk", "smallest difference shown"):
        shown.add_column(header, justify="right", no_wrap=True)
    for proposal in planned.proposals:
        smallest = proposal.detectable
        shown.add_row(
            "→" if proposal is planned.chosen else "",
            *([] if one_size else [str(proposal.size_px)]),
            str(proposal.runs),
            _number(proposal.minutes),
            _epochs(proposal),
            in_bytes(proposal.disk_bytes),
            "none" if smallest is None else f"{100 * smallest:.1f} points",
        )
    console.print()
    console.print(
        f"{planned.hours:g} {'hour' if planned.hours == 1 else 'hours'}"
        f" for {', '.join(planned.networks)}"
        f"{f' at {planned.size_px} px' if one_size and not has_weights else ''},"
        f" {planned.num_train} training and {planned.num_final} {planned.final_split} images:"
    )
    console.print(shown)
    console.print(_advice(planned.chosen, planned.num_final))
    if planned.command is not None:
        console.print(escape(planned.command), style="bold")


def _epochs(proposal: Proposal) -> str:
    """Return the number of epochs, from the slowest network to the fastest."""
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
    """Return what the chosen proposal could show."""
    from towernet.comparison.proposal import SUPPOSED_ALONE, SUPPOSED_RUN_SPREAD

    slowest = min(chosen.epochs, key=chosen.epochs.__getitem__)
    if chosen.detectable is None:
        return (
            "These hours are too few to compare networks: that needs several runs, and"
            f" {slowest} would then train for too few epochs. Give more --hours or fewer --models;"
            " one run each can only compare the trained models."
        )
    return (
        "Such a comparison detects a difference of this size 80 % of the time, assuming that"
        f" accuracy varies by {100 * SUPPOSED_RUN_SPREAD:g} points between runs and that exactly"
        f" one of the two networks is right on {100 * SUPPOSED_ALONE:g} % of the images. More than"
        f" {num_images} images would show smaller differences."
    )

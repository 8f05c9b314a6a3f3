"""`towernet models` and `towernet summary`: list the networks, and the layers of one."""

from __future__ import annotations

import json as json_module
from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from towernet import choices
from towernet.names import NetworkName

Size = Annotated[int, typer.Option(min=8, max=2048, help="Side of the images, in pixels.")]
Classes = Annotated[int, typer.Option(min=2, help="Number of classes.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@dataclass(frozen=True)
class Row:
    """A network in the list: its size, or why it has none."""

    name: str
    parameters: int | None
    multiply_adds: int | None
    problem: str | None


def models(
    names: Annotated[
        list[str] | None, typer.Argument(help="Networks to list; default: all.")
    ] = None,
    size: Size = 128,
    classes: Classes = 16,
    json: Json = False,
) -> None:
    """List the networks with their parameters and multiply-adds.

    Use any name with --model and --models. These options also take timm:<name>, if the
    package timm is installed, and a custom network, as my_nets:MyNet.

    Example: towernet models --size 224
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from towernet import progress
    from towernet.models import catalogue

    networks = [NetworkName(name) for name in names or catalogue.names()]
    choices.trust(networks)
    screen, rows = progress.screen(), []
    for number, name in enumerate(networks):
        screen.count("counting", number, len(networks))
        rows.append(_row(name, size, classes, is_requested=bool(names)))
    screen.count("counting", len(networks), len(networks))

    if json:
        typer.echo(json_module.dumps([asdict(row) for row in rows], indent=2))
        return
    table = Table(title=f"Networks for {classes} classes, {size} px")
    table.add_column("network")
    table.add_column("parameters", justify="right")
    table.add_column("multiply-adds", justify="right")
    for row in rows:
        if row.parameters is not None and row.multiply_adds is not None:
            cost = (f"{row.parameters / 1e6:.2f} M", f"{row.multiply_adds / 1e9:.3f} G")
            table.add_row(row.name, *cost)
    console = Console(highlight=False)
    console.print(table)
    for row in rows:
        if row.problem is not None:
            console.print(escape(row.problem), soft_wrap=True)
    console.print(
        "Multiply-adds are those of convolutions and matrix products, for one image."
        " timm:<name> is any network of the package timm, if that is installed.",
        soft_wrap=True,
    )


def summary(
    name: Annotated[str, typer.Argument(help="A name from `towernet models`, or timm:<name>.")],
    size: Size = 256,
    classes: Classes = 16,
    json: Json = False,
) -> None:
    """Print a network's layers, their output shapes and parameters.

    Example: towernet summary towernet --size 256 --classes 16
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from towernet.models import catalogue
    from towernet.models.summary import count_parameters, layers, multiply_adds

    choices.trust([NetworkName(name)])
    catalogue.require_size(name, size)
    network = catalogue.outline(name, classes, size)
    rows = layers(network, size)
    num_parameters, cost = count_parameters(network), multiply_adds(network, size)
    if json:
        totals = {"name": name, "parameters": num_parameters, "multiply_adds": cost}
        typer.echo(json_module.dumps(totals | {"layers": [asdict(row) for row in rows]}, indent=2))
        return
    table = Table(title=f"{escape(name)}, {classes} classes, {size} px")
    table.add_column("layer")
    table.add_column("kind")
    table.add_column("output", justify="right")
    table.add_column("parameters", justify="right")
    for row in rows:
        shape = "×".join(map(str, row.output_shape)) or "-"
        table.add_row(escape(row.name), row.kind, shape, f"{row.num_parameters:,}")
    # Names must stay whole to be copied, so on a narrow terminal or in a pipe the table is wider.
    console = Console(highlight=False)
    width = max(console.width, max(len(row.name) + len(row.kind) for row in rows) + 40)
    console.print(table, width=width)
    console.print(
        f"{num_parameters:,} parameters, {cost / 1e9:.3f} G multiply-adds"
        " in convolutions and matrix products",
        soft_wrap=True,
    )


def _row(name: str, size_px: int, num_classes: int, *, is_requested: bool) -> Row:
    from towernet.errors import ConfigError, UnknownNameError
    from towernet.models import catalogue
    from towernet.models.summary import count_parameters, multiply_adds

    try:
        network = catalogue.outline(name, num_classes, size_px)
        cost = multiply_adds(network, size_px)
    except Exception:
        # Checking the size of every network first would take twice as long.
        try:
            catalogue.require_size(name, size_px)
        except (ConfigError, UnknownNameError) as error:
            # A package can offer a network that does not exist; the others are still listed.
            if isinstance(error, UnknownNameError) and is_requested:
                raise
            return Row(name, None, None, str(error))
        raise
    return Row(name, count_parameters(network), cost, None)

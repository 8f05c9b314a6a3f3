"""`towernet attention`: list the blocks, measure their cost, check custom ones."""

from __future__ import annotations

import json as json_module
import math
from typing import TYPE_CHECKING, Annotated

import typer

from towernet import choices
from towernet.cli import options
from towernet.words import percent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from towernet.engine.block_cost import BlockCost
    from towernet.engine.device import Policy

BATCH_SIZE = 8


def attention(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Blocks to list; default: all. Give a custom block as"
            " my_package.blocks:MyAttention; it is also checked against the block contract."
        ),
    ] = None,
    channels: Annotated[
        int, typer.Option(min=1, help="Channels of the feature map that is timed.")
    ] = 256,
    size: Annotated[int, typer.Option(min=1, help="Side of that feature map, in pixels.")] = 28,
    device: options.Device = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """List the attention blocks with their papers, parameters and measured cost.

    Example: towernet attention --channels 512 --size 14

    Any block works in `towernet compare DATA --attention none,se` and in
    `towernet.attention.attach`.
    """
    from towernet.attention import ATTENTION
    from towernet.attention.find import attention_block, known_blocks
    from towernet.engine.block_cost import block_costs
    from towernet.engine.device import choose_policy, require_device
    from towernet.engine.memory import is_out_of_memory
    from towernet.errors import ConfigError, EnvironmentFault
    from towernet.testing import check_block

    require_device(device)
    for name in names or ():
        choices.trust_block(name)
    blocks = {name: attention_block(name) for name in names or known_blocks()}
    for name, block in blocks.items():
        if name not in ATTENTION:  # built-in blocks are checked by the tests
            check_block(block)
    policy = choose_policy(device, None)
    _require_memory(policy, channels, size)
    refused = {}
    for name, block in list(blocks.items()):
        try:
            block(channels)
        except ConfigError as error:
            refused[name] = str(error)
            del blocks[name]
    try:
        costs = block_costs(
            dict(blocks), policy, batch_size=BATCH_SIZE, channels=channels, size_px=size
        )
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise EnvironmentFault(
            f"memory ran out on {BATCH_SIZE}×{channels}×{size}×{size} feature maps; give a"
            " smaller --size or fewer --channels"
        ) from error
    if json:
        _print_json(costs, refused)
    else:
        _show(costs, refused, policy, f"{BATCH_SIZE}×{channels}×{size}×{size} feature maps")


def _print_json(costs: Mapping[str, BlockCost], refused: Mapping[str, str]) -> None:
    """Print the cost of blocks, and why some cannot take such a feature map, as one JSON list."""
    from towernet.attention.base import paper
    from towernet.attention.find import attention_block

    rows = [
        {
            "name": name,
            "paper": paper(attention_block(name)),
            "parameters": cost.parameters,
            "milliseconds": cost.milliseconds,
            "of_convolution": cost.of_convolution,
            "kernel": cost.kernel,
            "problem": None,
        }
        for name, cost in costs.items()
    ]
    rows += [{"name": name, "problem": problem} for name, problem in refused.items()]
    typer.echo(json_module.dumps(rows, indent=2))


def _show(
    costs: Mapping[str, BlockCost], refused: Mapping[str, str], policy: Policy, maps: str
) -> None:
    """Print the same as a table; `maps`: what was timed."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from towernet.attention.base import paper
    from towernet.attention.find import attention_block
    from towernet.cli.tables import WIDTH_OF_A_FILE

    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in ("block", "parameters", "kernel", "forward and\nbackward", "of a\nconvolution"):
        is_text = header in ("block", "kernel")
        table.add_column(header, justify="left" if is_text else "right", no_wrap=True)
    table.add_column("paper", overflow="fold", min_width=16)
    for name, cost in costs.items():
        table.add_row(
            escape(name),
            f"{cost.parameters:,}",
            cost.kernel,
            f"{cost.milliseconds:.2f} ms",
            percent(cost.of_convolution, 0),
            escape(paper(attention_block(name)) or "not given"),
        )
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH_OF_A_FILE
    console.print(table)
    console.print()
    for problem in refused.values():
        console.print(escape(problem), soft_wrap=True)
    console.print(
        f"Timed on {maps} ({policy.words()}) and compared with"
        " a 3×3 convolution with batch norm and the same number of channels.",
        soft_wrap=True,
    )
    if len({cost.kernel for cost in costs.values()}) > 1:
        console.print(
            "A native or compiled kernel runs the whole block as one program; the others run"
            " several torch operations. Times of different kernel types are therefore not directly"
            " comparable.",
            soft_wrap=True,
        )


def _require_memory(policy: Policy, channels: int, size: int) -> None:
    """Refuse feature maps that would not fit into memory, before the system kills the process.

    Raises:
        EnvironmentFault: with the memory they may need, the free memory, and a size that fits.
    """
    from towernet.engine.block_cost import memory_bytes
    from towernet.engine.memory import free_bytes
    from towernet.errors import EnvironmentFault

    needed, free = memory_bytes(BATCH_SIZE, channels, size), free_bytes(policy.device)
    if needed <= free:
        return
    of_weights = memory_bytes(BATCH_SIZE, channels, 0)
    each = memory_bytes(BATCH_SIZE, channels, 1) - of_weights
    most = math.isqrt(max(0, free - of_weights) // each)
    todo = f"--size {most} or less, or fewer --channels" if most else "fewer --channels"
    raise EnvironmentFault(
        f"timing blocks on {BATCH_SIZE}×{channels}×{size}×{size} feature maps may need"
        f" {needed / 1e9:,.1f} GB of memory and {free / 1e9:,.1f} GB are free; give {todo}"
    )

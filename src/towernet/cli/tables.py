"""The tables printed in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from towernet.cli import options
from towernet.records.base import Interval
from towernet.records.judgement import AnswersJudged
from towernet.records.results import Conclusion, Network, Results, Variant
from towernet.words import NOTHING, compact, p_value, percent, shown

WIDTH_OF_A_FILE = 120
PAIRS_SHOWN = 10


def terminal() -> Console:
    """Return the console for tables, with a fixed width if there is no terminal."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = WIDTH_OF_A_FILE
    return console


def ranking(conclusion: Conclusion, folder: Path, report: Path) -> None:
    """Print the verdict, the ranking, and the paths of the winner and the report."""
    from towernet.comparison.wording.starts import no_start_words
    from towernet.comparison.wording.times import FEW_EPOCHS_WORDS
    from towernet.comparison.wording.verdict import worth_using
    from towernet.starts.load import networks_here

    results = conclusion.results
    console = terminal()
    ranked = [network for network in results.networks if network.status == "ranked"]
    unranked = [network for network in results.networks if network.status != "ranked"]
    console.print()
    if ranked:
        table = _ranking_table(ranked, conclusion)
        wide = console.options.update(max_width=10 * console.width)
        if console.measure(table, options=wide).maximum > console.width:
            for column in table.columns:  # in two lines, so that they are not cut off
                last_word = str(column.header).replace("-", "- ").rsplit(" ", 1)
                column.header = "\n".join(last_word)
        console.print(table)
        if any(network.barely_trained for network in ranked):
            console.print(f"*   {FEW_EPOCHS_WORDS}")
        console.print()
    for network in unranked:
        failed = "failed: " if network.status == "failed" else ""
        console.print(escape(f"not ranked: {network.name} {failed}{network.reason}"))
    if unranked:
        console.print()
    if results.ablation:
        _print_ablation(console, results, results.ablation)
    console.print(escape(results.sentence), style="bold")
    times = conclusion.measured.times
    if times is not None and times.differ:
        console.print(escape(times.sentence))
    for remark in results.remarks:
        console.print(escape(remark))
    for words in (conclusion.measured.cheapest, no_start_words(results, networks_here)):
        if words is not None:
            console.print(escape(words))
    console.print()
    is_choice = results.kind == "comparison"
    if results.winner is not None and (worth_using(results) or not is_choice):
        run, name = folder / results.winner.folder, results.winner.name
        console.print(escape(shown(f"to use   {run}")))
        if name.own_code:  # which is not imported by itself
            console.print(escape(f"command  {options.predict_command(name, run)}"))
    console.print(escape(shown(f"report   {report}")))


def _ranking_table(ranked: Sequence[Network], conclusion: Conclusion) -> Table:
    """Return the ranked networks, one per line."""
    results = conclusion.results
    split = "test" if results.final_split == "test" else "selection set"
    is_balanced = results.measure == "balanced"
    table = Table(box=None, pad_edge=False, header_style="bold")
    networks = conclusion.measured.networks
    with_decoding = results.has_starts and all(networks[n.name].image_ms for n in ranked)
    for header in (
        "",
        "network",
        f"balanced, {split}" if is_balanced else split,
        "95 % interval",
        "accuracy" if is_balanced else "balanced",
        "macro F1",
        "parameters",
        "multiply-adds",
        "training",
        *(("px",) if results.has_starts else ()),
        "decoding + network" if with_decoding else "time per image",
    ):
        table.add_column(
            header,
            justify="left" if header in ("", "network") else "right",
            vertical="bottom",
            no_wrap=True,
        )
    for network in ranked:
        timed = networks[network.name]
        time_ms = timed.image_ms if with_decoding else timed.latency_ms
        table.add_row(
            f"{network.rank}.",
            escape(f"{network.name}{' *' if network.barely_trained else ''}"),
            percent(network.score(results.measure)),
            _span(network.score_interval(results.measure)),
            percent(network.accuracy if is_balanced else network.balanced_accuracy),
            percent(network.macro_f1),
            compact(network.parameters),
            compact(network.multiply_adds),
            f"{timed.training_seconds:.0f} s",
            *((str(network.size_px),) if results.has_starts else ()),
            NOTHING if time_ms is None else f"{time_ms:.1f} ms",
        )
    return table


def _print_ablation(console: Console, results: Results, variants: Sequence[Variant]) -> None:
    """Print the effect of each block, network by network."""
    from towernet.comparison.wording.ablation import answer_in_words
    from towernet.words import in_points, signed_points

    table = Table(box=None, pad_edge=False, header_style="bold")
    p = "p (Holm)" if len(results.comparisons) > 1 else "p"
    headers = ("network", "block", "difference", "95 % interval", p, "answer", "parameters")
    for header in headers:
        is_text = header in ("network", "block", "answer")
        table.add_column(header, justify="left" if is_text else "right", no_wrap=True)
    pairs = {pair.first: pair for pair in results.comparisons}
    for variant in variants:
        pair = pairs.get(variant.name)
        if pair is None:
            continue
        low, high = map(in_points, pair.interval)
        table.add_row(
            escape(variant.network),
            escape(variant.block),
            f"{signed_points(pair.difference)} points",
            f"{low} to {high}",
            p_value(pair.p_adjusted),
            answer_in_words(pair.answer, results.equal_within, results.num_runs),
            f"{variant.parameters:+,}",
        )
    if table.row_count:
        console.print(table)
        console.print()


def judgement(judged: AnswersJudged, report: Path | None) -> None:
    """Print the judgement of a table of predictions, and the path of the report."""
    from towernet.words import counted

    console = terminal()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    table.add_column("network", overflow="fold")
    is_balanced = judged.measure == "balanced"
    has_classes = judged.networks[0].balanced_accuracy is not None
    other = ("accuracy" if is_balanced else "balanced accuracy",) if has_classes else ()
    for header in (judged.measure_words, "95 % interval", *other):
        table.add_column(header, justify="right", no_wrap=True)
    for network in judged.networks:
        scores = [
            percent(network.score(judged.measure)),
            _span(network.score_interval(judged.measure)),
        ]
        if has_classes:
            scores.append(percent(network.accuracy if is_balanced else network.balanced_accuracy))
        table.add_row(f"{network.rank}.", Text(shown(network.name)), *scores)
    console.print()
    console.print(table)
    console.print()
    _print_differences(console, judged)
    console.print(escape(shown(judged.sentence)), style="bold")
    for remark in judged.remarks:
        console.print(escape(shown(remark)))
    console.print()
    groups = "" if judged.num_groups is None else f" in {counted(judged.num_groups, 'group')}"
    console.print(
        f"answers  {counted(len(judged.networks), 'network')}, {counted(judged.num_runs, 'run')} of"
        f" each, {counted(judged.num_images, 'image')}{groups}"
    )
    if report is not None:
        console.print(escape(shown(f"report   {report}")))


def _print_differences(console: Console, judged: AnswersJudged) -> None:
    """Print every pair of networks; if there are many, only those with the first in the ranking."""
    from towernet.comparison.wording.verdict import outcome_words
    from towernet.words import in_points

    pairs = judged.comparisons
    if judged.against is None and len(pairs) > PAIRS_SHOWN:
        pairs = tuple(pair for pair in pairs if pair.first == judged.networks[0].name)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in ("first", "second"):
        table.add_column(header, overflow="fold")
    p = "p (Holm)" if len(judged.comparisons) > 1 else "p"
    for header in ("difference", "95 % interval", p):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("answer", no_wrap=True)
    for pair in pairs:
        low, high = map(in_points, pair.interval)
        table.add_row(
            Text(shown(pair.first)),
            Text(shown(pair.second)),
            f"{in_points(pair.difference)} points",
            f"{low} to {high}",
            p_value(pair.p_adjusted),
            outcome_words(pair, judged.equal_within),
        )
    console.print(table)
    if more := len(judged.comparisons) - len(pairs):
        console.print(f"… and {more:,} more pairs (--out FOLDER or --json has all)")
    console.print()


def _span(bounds: Interval | None) -> str:
    return NOTHING if bounds is None else f"{100 * bounds[0]:.1f}–{percent(bounds[1])}"

"""The tables a person sees in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from towernet.cli import options
from towernet.errors import shown

WIDTH_OF_A_FILE = 120
CLASSES_SHOWN = 40


def count_words(number: int | float) -> str:
    """Write a large count in three digits.

    Example:
        >>> count_words(1_559_600), count_words(805_800_000)
        ('1.56 M', '806 M')
    """
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}"


def _console() -> Console:
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = WIDTH_OF_A_FILE
    return console


def ranking(conclusion: dict[str, Any], folder: Path, report: Path) -> None:
    """Print the answer, the ranking, and where everything is."""
    from towernet.comparison.wording.verdict import worth_using
    from towernet.names import NetworkName

    results, measured = conclusion["results"], conclusion["measured"]["networks"]
    console = _console()
    split = "test" if results["final_split"] == "test" else "selection set"
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in (
        "",
        "network",
        split,
        "95 % interval",
        "macro F1",
        "parameters",
        "multiply-adds",
        "training",
        "time per image",
    ):
        table.add_column(
            header, justify="left" if header in ("", "network") else "right", no_wrap=True
        )
    for network in results["networks"]:
        if network["status"] != "ranked":
            continue
        low, high = network["interval"]
        timed = measured[network["name"]]
        table.add_row(
            f"{network['rank']}.",
            escape(network["name"]),
            f"{100 * network['accuracy']:.1f} %",
            f"{100 * low:.1f}–{100 * high:.1f} %",
            f"{100 * network['macro_f1']:.1f} %",
            count_words(network["parameters"]),
            count_words(network["multiply_adds"]),
            f"{timed['training_seconds']:.0f} s",
            f"{timed['latency_ms']:.1f} ms",
        )
    console.print()
    if any(network["status"] == "ranked" for network in results["networks"]):
        console.print(table)
        console.print()
    unranked = [network for network in results["networks"] if network["status"] != "ranked"]
    for network in unranked:
        failed = "failed: " if network["status"] == "failed" else ""
        console.print(escape(f"not ranked: {network['name']} {failed}{network['reason']}"))
    if unranked:
        console.print()
    if results.get("ablation"):
        _print_ablation(console, results)
    console.print(escape(results["sentence"]), style="bold")
    for remark in results["remarks"]:
        console.print(escape(remark))
    console.print()
    is_choice = results["kind"] == "comparison"
    if results["winner"] is not None and (worth_using(results) or not is_choice):
        run, network = folder / results["winner"]["folder"], NetworkName(results["winner"]["name"])
        console.print(escape(shown(f"to use   {run}")))
        if network.own_code:  # which no record runs
            console.print(escape(f"by       {options.to_ask(network, run)}"))
    console.print(escape(shown(f"report   {report}")))


def _print_ablation(console: Console, results: dict[str, Any]) -> None:
    """Print what each block does, network by network."""
    from towernet.comparison.wording.ablation import answer_in_words, signed_points
    from towernet.comparison.wording.verdict import in_points

    table = Table(box=None, pad_edge=False, header_style="bold")
    p = "p (Holm)" if len(results["comparisons"]) > 1 else "p"
    headers = ("network", "block", "difference", "95 % interval", p, "answer", "parameters")
    for header in headers:
        is_text = header in ("network", "block", "answer")
        table.add_column(header, justify="left" if is_text else "right", no_wrap=True)
    rows = {row["first"]: row for row in results["comparisons"]}
    for variant in results["ablation"]:
        row = rows.get(variant["name"])
        if row is None:
            continue
        low, high = map(in_points, row["interval"])
        table.add_row(
            escape(variant["network"]),
            escape(variant["block"]),
            f"{signed_points(row['difference'])} points",
            f"{low} to {high}",
            "< 0.001" if row["p_adjusted"] < 0.001 else f"{row['p_adjusted']:.3f}",
            answer_in_words(row["answer"], results["equal_within"], results["num_runs"]),
            f"{variant['parameters']:+,}",
        )
    if table.row_count:
        console.print(table)
        console.print()


def evaluation(report: dict[str, Any]) -> None:
    """Print how right a run is about images: class by class, in all, and what to know beside."""
    from towernet.comparison.evaluation import asked_words

    console = _console()
    console.print()
    _print_classes(console, report["per_class"])
    _print_confusions(console, report["confusions"])

    def line(label: str, words: str) -> None:
        console.print(Text.assemble((f"{label:<19}", "bold"), shown(words)))

    num, right = report["num_images"], report["num_right"]
    low, high = report["interval"]
    line("network", f"{report['model']} in {report['run']}")
    line("images", asked_words(report))
    line(
        "accuracy",
        f"{_percent(report['accuracy'])} ({right:,} of {num:,}; 95 % interval {_percent(low)} to"
        f" {_percent(high)})",
    )
    line("macro F1", f"{100 * report['macro_f1']:.1f} %")
    line(
        "calibration error",
        f"{_percent(report['calibration_error'])} (between how sure it is and how often it is"
        " right, on average)",
    )
    if (sure := report["threshold"]) is not None:
        rightly = report["answered_accuracy"]
        line(
            "when sure",
            f"{_percent(report['coverage'])} of the answers are {_percent(sure)} sure or more"
            + ("" if rightly is None else f", and {_percent(rightly)} of those are right"),
        )
    console.print()
    for remark in report["remarks"]:
        console.print(escape(remark))
    if report["predictions"] is not None:
        console.print()
        line("predictions", report["predictions"])


def _print_classes(console: Console, rows: list[dict[str, Any]]) -> None:
    rows = [row for row in rows if row["num_images"]]
    num = len(rows)
    if num > CLASSES_SHOWN:
        rows = sorted(rows, key=lambda row: row["f1"])[:CLASSES_SHOWN]
        console.print(f"The {CLASSES_SHOWN} classes with the lowest F1 of {num:,}:")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("class", overflow="fold")
    for header in ("images", "precision", "recall", "F1"):
        table.add_column(header, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            Text(shown(row["class_name"])),
            f"{row['num_images']:,}",
            *(_rate(row[key], row[f"{key}_interval"]) for key in ("precision", "recall", "f1")),
        )
    console.print(table)
    console.print("In brackets: 95 % intervals.\n")


def _print_confusions(console: Console, rows: list[dict[str, Any]]) -> None:
    from towernet.comparison.judging.scores import MAX_CONFUSIONS

    if not rows:
        return
    more = f", {MAX_CONFUSIONS} of {len(rows):,}" if len(rows) > MAX_CONFUSIONS else ""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in ("is", "said"):
        table.add_column(header, overflow="fold")
    table.add_column("times", justify="right", no_wrap=True)
    for row in rows[:MAX_CONFUSIONS]:
        names = (Text(shown(row[key])) for key in ("class_name", "predicted"))
        table.add_row(*names, f"{row['num_images']:,}")
    console.print(f"The most frequent confusions{more}:")
    console.print(table)
    console.print()


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _rate(fraction: float, interval: Sequence[float] | None) -> str:
    """Write a rate with its interval; nothing where nothing tells it."""
    if interval is None:
        return "–"
    return f"{_percent(fraction)} ({100 * interval[0]:.0f}–{100 * interval[1]:.0f})"

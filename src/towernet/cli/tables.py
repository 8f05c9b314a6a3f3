"""The tables a person sees in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from towernet.errors import shown

WIDTH_OF_A_FILE = 120


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


def ranking(conclusion: dict[str, Any], folder: Path, report: Path) -> None:
    """Print the answer, the ranking, and where everything is."""
    results, measured = conclusion["results"], conclusion["measured"]["networks"]
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = WIDTH_OF_A_FILE
    split = "test" if results["final_split"] == "test" else "selection set"
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in (
        "",
        "network",
        split,
        "95 % interval",
        "macro-F1",
        "parameters",
        "multiply-adds",
        "training",
        "latency",
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
            f"{network['macro_f1']:.3f}",
            count_words(network["parameters"]),
            count_words(network["multiply_adds"]),
            f"{timed['training_seconds']:.0f} s",
            f"{timed['latency_ms']:.1f} ms",
        )
    console.print()
    if any(network["status"] == "ranked" for network in results["networks"]):
        console.print(table)
        console.print()
    for network in results["networks"]:
        if network["status"] != "ranked":
            failed = "failed: " if network["status"] == "failed" else ""
            console.print(escape(f"not ranked: {network['name']} {failed}{network['reason']}"))
    console.print(escape(results["sentence"]), style="bold")
    for remark in results["remarks"]:
        console.print(escape(remark))
    console.print()
    if results["winner"] is not None:
        console.print(escape(shown(f"to use   {folder / results['winner']['folder']}")))
    console.print(escape(shown(f"report   {report}")))

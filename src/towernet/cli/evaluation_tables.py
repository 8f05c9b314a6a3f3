"""The tables that `towernet evaluate` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from towernet.cli.tables import terminal
from towernet.comparison.judging.scores import MAX_CONFUSIONS
from towernet.comparison.wording.evaluation import images_words
from towernet.records.base import Interval
from towernet.records.evaluation import Confusion, Evaluation
from towernet.records.scores import ClassScores
from towernet.words import percent, shown

CLASSES_SHOWN = 40


def evaluation_tables(evaluation: Evaluation) -> None:
    """Print the scores of a run, per class and in total, its confusions and the remarks."""
    console = terminal()
    console.print()
    _print_classes(console, evaluation.per_class)
    _print_confusions(console, evaluation.confusions)

    def line(label: str, words: str) -> None:
        console.print(Text.assemble((f"{label:<19}", "bold"), shown(words)))

    low, high = evaluation.interval
    line("network", f"{evaluation.model} in {evaluation.run}")
    line("images", images_words(evaluation))
    line(
        "accuracy",
        f"{percent(evaluation.accuracy)} ({evaluation.num_right:,} of {evaluation.num_images:,};"
        f" 95 % interval {percent(low)} to {percent(high)})",
    )
    low, high = evaluation.balanced_interval
    line(
        "balanced accuracy",
        f"{percent(evaluation.balanced_accuracy)} (mean over the classes; 95 % interval"
        f" {percent(low)} to {percent(high)})",
    )
    line("macro F1", percent(evaluation.macro_f1))
    line(
        "calibration error",
        f"{percent(evaluation.calibration_error)} (average difference between"
        " probability and accuracy)",
    )
    if (sure := evaluation.threshold) is not None:
        rightly = evaluation.answered_accuracy
        line(
            "when sure",
            f"{percent(evaluation.coverage)} of the predictions have a probability of at least"
            f" {percent(sure)}"
            + ("" if rightly is None else f", and {percent(rightly)} of those are right"),
        )
    console.print()
    for remark in evaluation.remarks:
        console.print(escape(remark))
    if evaluation.predictions is not None:
        console.print()
        line("predictions", evaluation.predictions)


def _print_classes(console: Console, classes: Sequence[ClassScores]) -> None:
    rows = [row for row in classes if row.num_images]
    num = len(rows)
    if num > CLASSES_SHOWN:
        rows = sorted(rows, key=lambda row: row.f1)[:CLASSES_SHOWN]
        console.print(f"The {CLASSES_SHOWN} classes with the lowest F1 of {num:,}:")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("class", overflow="fold")
    for header in ("images", "precision", "recall", "F1"):
        table.add_column(header, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            Text(shown(row.class_name)),
            f"{row.num_images:,}",
            _rate(row.precision, row.precision_interval),
            _rate(row.recall, row.recall_interval),
            _rate(row.f1, row.f1_interval),
        )
    console.print(table)
    console.print("In brackets: 95 % intervals.\n")


def _print_confusions(console: Console, rows: Sequence[Confusion]) -> None:
    if not rows:
        return
    more = f", {MAX_CONFUSIONS} of {len(rows):,}" if len(rows) > MAX_CONFUSIONS else ""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in ("class", "predicted"):
        table.add_column(header, overflow="fold")
    table.add_column("times", justify="right", no_wrap=True)
    for row in rows[:MAX_CONFUSIONS]:
        table.add_row(
            Text(shown(row.class_name)), Text(shown(row.predicted)), f"{row.num_images:,}"
        )
    console.print(f"The most frequent confusions{more}:")
    console.print(table)
    console.print()


def _rate(fraction: float, interval: Interval | None) -> str:
    """Write a rate with its interval; a dash if it was not measured."""
    if interval is None:
        return "–"
    return f"{percent(fraction)} ({100 * interval[0]:.0f}–{100 * interval[1]:.0f})"

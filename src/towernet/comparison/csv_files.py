"""The results as CSV, for spreadsheets: the same numbers as `results.json`, one table a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from towernet import files

_NETWORK = (
    "rank", "name", "status", "accuracy", "interval", "macro_f1", "validation_accuracy",
    "parameters", "multiply_adds", "learning_rate", "epochs", "steps",
)  # fmt: skip
_MEASURED = (
    "training_seconds", "trial_seconds", "images_per_second", "latency_ms", "peak_memory_mib",
)  # fmt: skip
_RUN = (
    "accuracy", "macro_f1", "validation_accuracy", "validation_loss", "best_epoch", "temperature",
    "calibration_error", "folder",
)  # fmt: skip
_CLASS = (
    "class_name", "num_images", "precision", "precision_interval", "recall", "recall_interval",
    "f1", "f1_interval",
)  # fmt: skip
_DIFFERENCE = (
    "first", "second", "difference", "interval", "p", "p_adjusted", "chance_better",
    "chance_interval", "answer", "to_show", "runs_needed", "images_needed",
)  # fmt: skip


def write_csv_files(folder: Path, conclusion: Mapping[str, Any]) -> None:
    """Write `results.csv` and `classes.csv`; of a comparison also `runs.csv`, `differences.csv`.

    One line a network, a network's class, a run, and a pair of networks. An interval becomes two
    columns, `…_low` and `…_high`.
    """
    results, measured = conclusion["results"], conclusion["measured"]["networks"]
    networks = results["networks"]
    timed = [network | measured[network["name"]] for network in networks]
    _write(folder / "results.csv", (*_NETWORK, *_MEASURED), timed)
    classes = [
        row | {"name": network["name"]}
        for network in networks
        for row in network["per_class"] or []
    ]
    _write(folder / "classes.csv", ("name", *_CLASS), classes)
    if results["kind"] != "comparison":
        return
    runs = [
        run | {"name": network["name"], "run": number}
        for network in networks
        for number, run in enumerate(network["runs"])
    ]
    _write(folder / "runs.csv", ("name", "run", *_RUN), runs)
    _write(folder / "differences.csv", _DIFFERENCE, results["comparisons"])


def _write(path: Path, columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> None:
    head: list[str] = []
    for column in columns:
        head += (f"{column}_low", f"{column}_high") if "interval" in column else (column,)
    lines: list[list[Any]] = []
    for row in rows:
        line: list[Any] = []
        for column in columns:
            line += (row[column] or (None, None)) if "interval" in column else (row[column],)
        lines.append(line)
    files.write_csv(path, [head, *lines])

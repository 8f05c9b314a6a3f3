"""The results as CSV, for spreadsheets: the same numbers as `results.json`, one file per table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from towernet import files
from towernet.records.base import Record
from towernet.records.judgement import AnswersJudged, Judged, JudgedRun, Pair
from towernet.records.results import Conclusion, Measured, Network
from towernet.records.scores import ClassScores, RunScores

# The other fields of a network are separate tables, or are not figures.
_NETWORK = (
    "rank", "name", "status", "accuracy", "interval", "macro_f1", "validation_accuracy",
    "parameters", "multiply_adds", "learning_rate", "epochs", "steps",
)  # fmt: skip
# Added later, so last: spreadsheets may go by the position of a column.
_BALANCED = ("balanced_accuracy", "balanced_interval")
_MEASURED_LAST = ("run_seconds", "decode_ms", "preparing_seconds")
# What means nothing for a network of which only the last layer was fitted.
_OF_TRAINING = ("learning_rate", "epochs", "steps")
_MEASURED = tuple(field for field in Measured.model_fields if field not in _MEASURED_LAST)
_START = ("size_px", "weights", "weights_sha256")
_RUN_LAST = ("folder", "balanced_accuracy")
_NOT_OF_A_RUN = (*_RUN_LAST, "validation_balanced", "last_layer")
_RUN = (*(field for field in RunScores.model_fields if field not in _NOT_OF_A_RUN), *_RUN_LAST)
_CLASS = tuple(ClassScores.model_fields)
_PAIR = tuple(Pair.model_fields)
_JUDGED = ("rank", "name", "accuracy", "interval", *_BALANCED)
_JUDGED_RUN = tuple(JudgedRun.model_fields)


def write_csv_files(folder: Path, conclusion: Conclusion) -> None:
    """Write `results.csv` and `classes.csv`; for a comparison also `runs.csv`, `differences.csv`.

    They have one line per network, per class of a network, per run, and per pair of networks. An
    interval becomes two columns, `…_low` and `…_high`.
    """
    results, measured = conclusion.results, conclusion.measured.networks
    networks = results.networks
    _write(
        folder / "results.csv",
        (*_NETWORK, *_MEASURED, *_BALANCED, *_MEASURED_LAST, *_START),
        (
            [
                *_cells(_without_training(n), _NETWORK),
                *_cells(measured[n.name], _MEASURED),
                *_cells(n, _BALANCED),
                *_cells(measured[n.name], _MEASURED_LAST),
                n.size_px or results.size_px,
                n.started_from and n.started_from.name,
                n.started_from and n.started_from.sha256,
            ]
            for n in networks
        ),
    )
    _write(
        folder / "classes.csv",
        ("name", *_CLASS),
        ([n.name, *_cells(row, _CLASS)] for n in networks for row in n.per_class or ()),
    )
    if results.kind != "comparison":
        return
    _write(
        folder / "runs.csv",
        ("name", "run", *_RUN),
        ([n.name, i, *_cells(run, _RUN)] for n in networks for i, run in enumerate(n.runs)),
    )
    _write_pairs(folder, results)


def write_judged_csv_files(folder: Path, judged: AnswersJudged) -> None:
    """Write `results.csv`, `runs.csv` and `differences.csv` of a judgement."""
    networks = judged.networks
    _write(folder / "results.csv", _JUDGED, (_cells(n, _JUDGED) for n in networks))
    _write(
        folder / "runs.csv",
        ("name", *_JUDGED_RUN),
        ([n.name, *_cells(run, _JUDGED_RUN)] for n in networks for run in n.runs),
    )
    _write_pairs(folder, judged)


def _without_training(network: Network) -> Network:
    """Return a network without the figures of training, if they mean nothing for it."""
    return network.model_copy(update=dict.fromkeys(_OF_TRAINING)) if network.is_frozen else network


def _write_pairs(folder: Path, judged: Judged) -> None:
    _write(folder / "differences.csv", _PAIR, (_cells(pair, _PAIR) for pair in judged.comparisons))


def _write(path: Path, columns: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    head: list[str] = []
    for column in columns:
        head += (f"{column}_low", f"{column}_high") if _is_interval(column) else (column,)
    files.write_csv(path, [head, *lines])


def _cells(record: Record, columns: Sequence[str]) -> list[object]:
    """Return a record's values for these columns; an interval gives two cells."""
    cells: list[object] = []
    for column in columns:
        value = getattr(record, column)
        cells += (value or (None, None)) if _is_interval(column) else (value,)
    return cells


def _is_interval(column: str) -> bool:
    return column == "interval" or column.endswith("_interval")

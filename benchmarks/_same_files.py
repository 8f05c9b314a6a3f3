"""Compare two folders of results bit by bit, and find their first differences.

Compared are weights, metrics, samples, predictions, calibration, every CSV and `paper.tex`, and the
values of `results.json`, `run.json`, `protocol.toml` and `ledger.jsonl`, without measured times.
The rest of a folder (timings, TensorBoard, the report) is not compared, nor are the folders of
learning-rate trials, which earlier commits kept: the ledger has their results.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from towernet import files

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

EXACT = (
    "metrics.jsonl", "samples.parquet", "predictions.parquet", "calibration.json", "paper.tex",
)  # fmt: skip
OF_A_RUN = ("config", "plan", "contract", "data", "summary", "weights_sha256")  # in run.json
MEASURED_COLUMNS = (
    "training_seconds", "trial_seconds", "images_per_second", "latency_ms", "peak_memory_mib",
    "run_seconds",
)  # fmt: skip
MEASURED_COSTS = ("step_seconds", "image_seconds")  # of a network, in protocol.toml
MEASURED_OF_EVENTS = ("seconds", "step_seconds", "image_seconds", "date")  # in ledger.jsonl
# A difference in these files explains those in others, so it is named first.
CAUSES = ("protocol.toml", "samples.parquet", "run.json", "metrics.jsonl")
MAX_SHOWN = 60  # characters of a value


@dataclass(frozen=True)
class Comparison:
    """The result of comparing two folders.

    Args:
        num_files: Files compared, in the old folder.
        digest: SHA-256 of everything compared in the old folder.
        differences: One sentence each, explanations of others first; empty: the folders are equal.
        renamed: Folders of runs with the same content under another name: from new to old name.
    """

    num_files: int
    digest: str
    differences: tuple[str, ...]
    renamed: dict[str, str]


def compare_folders(old: Path, new: Path) -> Comparison:
    """Compare two folders, one file after the other."""
    before, after = contents(old), contents(new)
    renamed = renamed_runs(before, after)
    # A text with the folder's old name refers to nothing.
    texts = {name: f"{name}, which is not there" for name in renamed.values()} | renamed
    after = {_renamed_path(name, renamed): _replaced(value, texts) for name, value in after.items()}
    differences = [f"{name} is only in the old folder" for name in sorted(before.keys() - after)]
    differences += [f"{name} is only in the new folder" for name in sorted(after.keys() - before)]
    for name in sorted(before.keys() & after, key=_order):
        difference = first_difference(before[name], after[name])
        if difference is not None:
            differences.append(f"{name}: {difference}")
    if not before:
        differences.append("the old folder has no file that is compared")
    return Comparison(len(before), _digest(before), tuple(differences), renamed)


def contents(folder: Path) -> dict[str, Json]:
    """Return the compared content of each file, by relative path; for exact files, the SHA-256."""
    found = {
        path.relative_to(folder).as_posix(): _content(path)
        for path in folder.rglob("*")
        if path.is_file() and not _is_of_trial(path.relative_to(folder))
    }
    return {name: value for name, value in found.items() if value is not None}


def _is_of_trial(path: Path) -> bool:
    return path.parts[0] == "trials" and not path.parts[1].endswith("-run")


def first_difference(old: Json, new: Json, path: str = "") -> str | None:
    """Return where two values first differ, and how; None if they are equal.

    A key that is absent counts as null, and 1.0 as 1; -0.0 is not 0, nor is false.

    Example:
        >>> first_difference({"a": [1, None]}, {"a": [1.0, 2], "b": None})
        'a[1]: null → 2'
    """
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            here = f"{path}.{key}" if path else key
            if found := first_difference(old.get(key), new.get(key), here):
                return found
        return None
    if isinstance(old, list) and isinstance(new, list):
        for i, (one, other) in enumerate(zip(old, new, strict=False)):
            if found := first_difference(one, other, f"{path}[{i}]"):
                return found
        lengths = f"{path}: {len(old)} entries → {len(new)}"
        return None if len(old) == len(new) else lengths
    same = json.dumps(_plain(old)) == json.dumps(_plain(new))
    return None if same else f"{path}: {_shown(old)} → {_shown(new)}"


def policy(folder: Path) -> Json:
    """Return the number format, kernels and threads that a command chose before it trained."""
    for path in sorted(folder.rglob("run.json")):
        plan = json.loads(path.read_text(encoding="utf-8"))["plan"]
        return _without(plan["policy"], "reason")
    return None


def renamed_runs(before: dict[str, Json], after: dict[str, Json]) -> dict[str, str]:
    """Return the run folders with a new name and the same content: from new to old name."""
    old, new = _run_folders(before), _run_folders(after)
    gone: dict[str, list[str]] = {}
    for folder in sorted(old - new):
        gone.setdefault(_digest(_below(before, folder)), []).append(folder)
    renamed = {}
    for folder in sorted(new - old):
        if same := gone.get(_digest(_below(after, folder))):
            renamed[folder] = same.pop(0)
    return renamed


def _content(path: Path) -> Json:
    """Return the compared content of a file; None if it is not compared."""
    if path.suffix == ".safetensors" or path.name in EXACT:
        return {"SHA-256": files.sha256(path)}
    if path.suffix == ".csv":
        return _cells(path)
    reader = _READERS.get(path.name)
    return None if reader is None else reader(path.read_text(encoding="utf-8"))


def _results(text: str) -> Json:
    return {"results": json.loads(text).get("results")}


def _run(text: str) -> Json:
    record = json.loads(text)
    return _without({key: record.get(key) for key in OF_A_RUN}, "plan", "policy", "reason")


def _protocol(text: str) -> Json:
    value = _without(tomllib.loads(text), "decided", "policy", "reason")
    for key in MEASURED_COSTS:
        value = _without(value, "decided", "costs", "*", key)
    return value


def _ledger(text: str) -> Json:
    events: Json = [json.loads(line) for line in text.splitlines()]
    assert isinstance(events, list)
    for key in MEASURED_OF_EVENTS:
        events = [_without(event, key) for event in events]
    return events


_READERS = {
    "results.json": _results,
    "run.json": _run,
    "protocol.toml": _protocol,
    "ledger.jsonl": _ledger,
}


def _cells(path: Path) -> Json:
    """Return a table's cells, without the columns of timings.

    If there are no such columns, the cells are the text between commas, with quotes and line ends.
    """
    with path.open(encoding="utf-8", newline="") as stream:
        lines = stream.readlines()
    rows = list(csv.reader(lines))
    if rows and set(rows[0]) & set(MEASURED_COLUMNS):
        kept = [i for i, name in enumerate(rows[0]) if name not in MEASURED_COLUMNS]
        return [[row[i] for i in kept] for row in rows]
    return [[*re.split(r"[,\r\n]", line), line[-2:]] for line in lines]


def _without(value: Json, *path: str) -> Json:
    """Return a value without what is at the end of a path of keys; `*` is any key."""
    if not isinstance(value, dict):
        return value
    wanted, *rest = path
    return {
        key: _without(inner, *rest) if wanted in ("*", key) else inner
        for key, inner in value.items()
        if rest or wanted not in ("*", key)
    }


def _run_folders(found: dict[str, Json]) -> set[str]:
    return {name.removesuffix("/run.json") for name in found if name.endswith("/run.json")}


def _below(found: dict[str, Json], folder: str) -> dict[str, Json]:
    start = f"{folder}/"
    return {name.removeprefix(start): found[name] for name in found if name.startswith(start)}


def _renamed_path(name: str, renamed: dict[str, str]) -> str:
    for folder, old in renamed.items():
        if name.startswith(f"{folder}/"):
            return old + name.removeprefix(folder)
    return name


def _replaced(value: Json, texts: dict[str, str]) -> Json:
    """Replace the given texts by others, where they are a whole value."""
    if isinstance(value, dict):
        return {key: _replaced(inner, texts) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner, texts) for inner in value]
    return texts.get(value, value) if isinstance(value, str) else value


def _order(name: str) -> tuple[int, str]:
    last = Path(name).name
    return (CAUSES.index(last) if last in CAUSES else len(CAUSES), name)


def _digest(value: Json | dict[str, Json]) -> str:
    """Return the SHA-256 of a value; values without a first difference have the same."""
    text = json.dumps(_plain(value), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Json | dict[str, Json]) -> Json:
    """Normalise values that count as equal: null and absent, 1 and 1.0."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and value.is_integer() and str(value) != "-0.0":
        return int(value)
    return value


def _shown(value: Json) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"

"""What the report's tables say: names made inert, numbers made readable, counts taken.

Everything here is plain Python and pandas; the templates print it and compute nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from towernet.data.table import SPLITS, read_frame, shown
from towernet.rng import keys, uniform

# Bounds, so that a thousand classes or ten thousand bad files still make a page one can open.
MAX_CLASS_ROWS = 100
MAX_FILE_ROWS = 100
MAX_GALLERY = 100
NOTHING = "–"
Number = float | int


def short(text: str, limit: int = 40) -> str:
    """Return the text visibly, the middle left out when it is longer than `limit`."""
    text = shown(text)
    if len(text) <= limit:
        return text
    tail = limit // 3
    return f"{text[: limit - tail - 1]}…{text[-tail:]}"


def percent(fraction: Number | None, digits: int = 1) -> str:
    """Return 0.9123 as '91.2 %', which no line breaks."""
    return NOTHING if fraction is None else f"{100 * fraction:.{digits}f}\u00a0%"


def interval(bounds: Sequence[Number] | None) -> str:
    """Return (0.85, 0.97) as '85.0 % to 97.0 %'."""
    return NOTHING if bounds is None else f"{percent(bounds[0])} to {percent(bounds[1])}"


def span(bounds: Sequence[Number]) -> str:
    """Return (0.85, 0.974) as '85.0–97.4', in percent."""
    return f"{100 * bounds[0]:.1f}–{100 * bounds[1]:.1f}"


def whole(number: Number | None, unit: str = "") -> str:
    """Return 1559600 as '1,559,600'."""
    return NOTHING if number is None else f"{number:,.0f} {unit}".rstrip()


def compact(number: Number | None) -> str:
    """Return 1559600 as '1.56 M'."""
    if number is None:
        return NOTHING
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:  # 999,999 is one million to three digits
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g}"


def significant(number: Number | None, unit: str = "") -> str:
    """Return a number to three digits, without the exponent of large ones."""
    if number is None:
        return NOTHING
    return whole(number, unit) if number >= 999.5 else f"{number:.3g} {unit}".rstrip()


def decimals(number: Number | None, digits: int = 2) -> str:
    """Return a number with fixed digits, so that a column lines up."""
    return NOTHING if number is None else f"{number:.{digits}f}"


def duration(seconds: Number | None) -> str:
    """Return 200 as '3 min 20 s'."""
    if seconds is None:
        return NOTHING
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def difference_scale(pairs: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Return the ends, in whole points, of the scale on which differences are drawn."""
    bounds = [0.0, 0.01, *(bound for pair in pairs for bound in pair["interval"])]
    return math.floor(100 * min(bounds)) / 100, math.ceil(100 * max(bounds)) / 100


def accuracy_scale(networks: Sequence[dict[str, Any]], majority: Number) -> tuple[float, float]:
    """Return the ends, in whole 5 %, of the scale on which the accuracies are drawn."""
    values = [majority]
    for network in networks:
        values += network["interval"] or []
        values += [run["accuracy"] for run in network["runs"] if run["accuracy"] is not None]
    low = math.floor(20 * min(values)) / 20
    return low, max(math.ceil(20 * max(values)) / 20, low + 0.05)


def front(networks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return those that none of the others beats in both accuracy and time, fastest first."""
    found: list[dict[str, Any]] = []
    for network in sorted(networks, key=lambda n: (n["latency_ms"], -n["accuracy"])):
        if not found or network["accuracy"] > found[-1]["accuracy"]:
            found.append(network)
    return found


def worst_mistakes(folder: Path, network: dict[str, Any], *, limit: int) -> list[dict[str, Any]]:
    """Return a network's wrong answers, surest first, each picture once over all its runs."""
    wrong: dict[str, list[dict[str, Any]]] = {}
    num_asked: Counter[str] = Counter()  # without a test split not every run is asked all
    for run in network["runs"]:
        path = folder / run["folder"] / "predictions.parquet"
        if not path.exists():
            continue
        frame = read_frame(path)
        num_asked.update(map(str, frame["path"]))
        for row in frame[frame["predicted"] != frame["class_name"]].to_dict("records"):
            wrong.setdefault(str(row["path"]), []).append({str(k): v for k, v in row.items()})
    surest = [max(rows, key=lambda row: float(row["confidence"])) for rows in wrong.values()]
    surest.sort(key=lambda row: (-float(row["confidence"]), str(row["path"])))
    return [
        row | {"num_wrong": len(wrong[row["path"]]), "num_runs": num_asked[row["path"]]}
        for row in surest[:limit]
    ]


def data_card(table: pd.DataFrame) -> dict[str, Any]:
    """Return what the sample table says: counts, shapes, what was left out and why."""
    used = table[table["status"] == "used"]
    counts = Counter(zip(used["class_name"], used["split"], strict=True))
    classes = [
        {"class_name": name, "total": sum(counts[name, split] for split in SPLITS)}
        | {split: counts[name, split] for split in SPLITS}
        for name in sorted(set(used["class_name"]))
    ]
    largest = max((row["total"] for row in classes), default=1)
    smallest_first = sorted(classes, key=lambda row: row["total"])
    quarantined = table[table["status"] == "quarantined"]
    ignored = table[table["status"] == "ignored"]
    tied = used[used["cluster"] != ""]
    return {
        "num_found": len(table),
        "num_used": len(used),
        "num_quarantined": len(quarantined),
        "num_ignored": len(ignored),
        "num_classes": len(classes),
        "classes": classes if len(classes) <= MAX_CLASS_ROWS else smallest_first[:MAX_CLASS_ROWS],
        "largest": largest,
        "imbalance": largest / max(1, smallest_first[0]["total"]) if classes else 1.0,
        "widths": _range(used["width"]),
        "heights": _range(used["height"]),
        "formats": _tally(used["format"]),
        "modes": _tally(used["mode"]),
        "notes": _tally(note for notes in used["notes"] for note in str(notes).split(",") if note),
        "reasons_quarantined": _tally(quarantined["reason"]),
        "reasons_ignored": _tally(ignored["reason"]),
        "quarantined": quarantined.head(MAX_FILE_ROWS).to_dict("records"),
        "num_duplicates": int((table["reason"] == "DUPLICATE").sum()),
        "num_conflicts": int((table["reason"] == "LABEL_CONFLICT").sum()),
        "num_clusters": len(set(tied["cluster"])),
        "num_clustered": len(tied),
    }


def _range(values: pd.Series[Any]) -> dict[str, int]:
    if values.empty:
        return {"least": 0, "median": 0, "most": 0}
    return {"least": int(values.min()), "median": int(values.median()), "most": int(values.max())}


def _tally(values: Any) -> list[tuple[str, int]]:
    return sorted(Counter(map(str, values)).items(), key=lambda item: (-item[1], item[0]))


def gallery(table: pd.DataFrame, *, seed: int) -> list[dict[str, Any]]:
    """Return one random used image of each class, at most as many as make a 10 × 10 picture."""
    used = table[table["status"] == "used"]
    draw = uniform(seed, 0, keys(list(used["content_id"])), "report gallery")[:, 0]
    chosen: dict[str, str] = {}
    # Not groupby: pandas' own index type cannot hold a name that is not UTF-8.
    for row in used.iloc[np.argsort(draw, kind="stable")].to_dict("records"):
        chosen.setdefault(row["class_name"], row["path"])
    shown_names = sorted(list(chosen)[:MAX_GALLERY])
    return [{"path": chosen[name], "class_name": name} for name in shown_names]

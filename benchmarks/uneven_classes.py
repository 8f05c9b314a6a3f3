"""Which setting for uneven classes is better? Many short runs, judged on their validation images.

python benchmarks/uneven_classes.py --minutes-in-all 9    until the time is over; repeat to continue
python benchmarks/uneven_classes.py --only sign-digits --epochs 12

Each run trains one network with the measure `balanced` and one value of train.logit_adjustment;
run k of every value has the same images, initial weights and order. A row of the result is the
balanced accuracy, and the accuracy, of the best epoch on the run's validation images, and the
recall of its rarest class is part of the first. Differences from 0 (off) are judged by the
corrected resampled t test, since runs share images. No test image decides anything. In sign-digits,
whose classes have one size, 160, 80, 40, 20 and 10 images of the classes are kept, twice over.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

import towernet
from _common import RESULTS, commit, data_set
from towernet import files
from towernet.comparison.judging.statistics import judge_resampled
from towernet.records.base import read_record
from towernet.records.run import RunRecord

NAME = "uneven_classes"
SETS = ("caltech16", "sign-digits")
SIZES = (160, 80, 40, 20, 10)
VALUES = (0.0, 0.5, 1.0, 1.5)
MEASURES = ("validation_balanced", "validation_accuracy")


def images(name: str, folder: Path) -> Path:
    """Return the images of a set; of sign-digits, a table of the images that are kept."""
    archive = data_set(f"{name}.zip")
    if name != "sign-digits":
        return archive
    place = folder / name
    table = place / "uneven.csv"
    if table.exists():
        return table
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(place)
    by_class: dict[str, list[str]] = defaultdict(list)
    for path in sorted(place.rglob("*")):
        if path.is_file() and path.suffix.lower() in (".png", ".jpg", ".jpeg"):
            by_class[path.parent.name].append(path.relative_to(place).as_posix())
    rows = [
        (path, class_name)
        for number, class_name in enumerate(sorted(by_class))
        for path in by_class[class_name][: SIZES[number % len(SIZES)]]
    ]
    with table.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("path", "label"), *rows])
    return table


def run(data: Path, model: str, value: float, number: int, length: dict[str, Any]) -> Any:
    """Train once; return the figures on the validation images."""
    with tempfile.TemporaryDirectory() as made:
        recipe = Path(made) / "recipe.toml"
        recipe.write_text(f"[train]\nlogit_adjustment = {value}\n", encoding="utf-8")
        out = Path(made) / "run"
        start = time.perf_counter()
        found = towernet.train(
            data, model=model, recipe=str(recipe), measure="balanced", seed=number, out=out,
            threads=1, **length,
        )  # fmt: skip
        num_images = found.results.num_images
        summary = read_record(out / "run.json", RunRecord).summary
    assert summary is not None and summary.validation_balanced is not None, "it is finished"
    return {
        "validation_balanced": summary.validation_balanced.accuracy,
        "validation_accuracy": summary.validation_accuracy,
        "best_epoch": summary.best_epoch,
        "num_epochs": summary.num_epochs,
        "num_train": num_images.train,
        "num_validation": num_images.validation,
        "seconds": round(time.perf_counter() - start, 1),
    }


def judged(runs: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the mean of each value over the runs that all values have, and its difference."""
    rows = []
    for name in SETS:
        by_value = {value: runs.get(f"{name} {value:g}", {}) for value in VALUES}
        common = sorted(set.intersection(*(set(found) for found in by_value.values())), key=int)
        if len(common) < 2:
            continue
        for measure in MEASURES:
            scores = np.array([[by_value[v][k][measure] for k in common] for v in VALUES])
            pairs = [(i, 0) for i in range(1, len(VALUES))]
            first = by_value[VALUES[0]][common[0]]
            family = judge_resampled(scores, first["num_validation"], first["num_train"], pairs)
            for i, value in enumerate(VALUES):
                row = {
                    "data": name,
                    "measure": measure,
                    "logit_adjustment": value,
                    "num_runs": len(common),
                    "mean": float(scores[i].mean()),
                    "spread": float(scores[i].std(ddof=1)),
                }
                if i:
                    found = family.differences[i - 1]
                    row |= {
                        "difference": found.mean,
                        "interval": list(found.interval),
                        "p_adjusted": found.p_adjusted,
                    }
                rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes-in-all", type=float, default=1e9)
    parser.add_argument("--minutes", type=float, default=1.0, help="Of one run.")
    parser.add_argument("--epochs", type=int, help="Of one run, instead of --minutes.")
    parser.add_argument("--runs", type=int, default=10, help="Of each value.")
    parser.add_argument("--model", default="towernet_patch")
    parser.add_argument("--only", choices=SETS)
    args = parser.parse_args()
    length = {"epochs": args.epochs} if args.epochs else {"minutes": args.minutes}
    path, end = RESULTS / f"{NAME}.json", time.monotonic() + 60 * args.minutes_in_all
    made = {"model": args.model, "length": length}
    found: dict[str, Any] = files.read_json(path) if path.exists() else {}
    if found and {key: found[key] for key in made} != made:
        parser.error(f"{path.name} has runs of another model or length; move it away")
    runs: dict[str, dict[str, Any]] = found.get("runs", {})
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.runs):
            for name in SETS if args.only is None else (args.only,):
                for value in VALUES:
                    of_value = runs.setdefault(f"{name} {value:g}", {})
                    if str(number) in of_value:
                        continue
                    if time.monotonic() > end:
                        print("not complete; repeat the command to continue")
                        return
                    data = images(name, Path(folder))
                    of_value[str(number)] = run(data, args.model, value, number, length)
                    written = made | {"runs": runs, "rows": judged(runs)}
                    written |= {"commit": commit(), "date": files.now()}
                    files.write_json(path, written)
    for row in judged(runs):
        print(row)
    print("complete")


if __name__ == "__main__":
    main()

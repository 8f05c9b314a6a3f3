"""Which setting for uneven classes is better? Many short runs, judged on their validation images.

python benchmarks/uneven_classes.py --minutes-in-all 9    until the time is over; repeat to continue

Each run trains one network with the measure `balanced` and one setting: none, a value of
train.logit_adjustment, or train.balanced_drawing: each image of an epoch is drawn from a random
class. Run k of every setting has the same images and initial weights. A row of the result is the
balanced accuracy, or the accuracy, of the best epoch on the run's validation images. Differences
from no setting are judged by the corrected resampled t test, since runs share images. No test image
decides anything. In sign-digits, whose ten classes have one size, 160, 80, 40, 20 and 10 images are
kept of the first five classes, and as many of the others.
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
from towernet.data.table import read_table
from towernet.records.base import read_record
from towernet.records.run import RunRecord

NAME = "uneven_classes"
SETS = ("caltech16", "sign-digits")
SIZES = (160, 80, 40, 20, 10)
SETTINGS = {
    "none": "",
    "logit adjustment 1": "logit_adjustment = 1.0",
    "balanced drawing": "balanced_drawing = true",
}
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


def run(data: Path, model: str, setting: str, number: int, length: dict[str, Any]) -> Any:
    """Train once; return the figures on the validation images."""
    with tempfile.TemporaryDirectory() as made:
        recipe = Path(made) / "recipe.toml"
        recipe.write_text(f"[train]\n{SETTINGS[setting]}\n", encoding="utf-8")
        out = Path(made) / "run"
        start = time.perf_counter()
        found = towernet.train(
            data, model=model, recipe=str(recipe), measure="balanced", seed=number, out=out,
            threads=1, **length,
        )  # fmt: skip
        num_images = found.results.num_images
        summary = read_record(out / "run.json", RunRecord).summary
        table = read_table(out / "samples.parquet")
        counts = table[table.split == "validation"].class_name.value_counts()
    assert summary is not None and summary.validation_balanced is not None, "it is finished"
    return {
        "validation_balanced": summary.validation_balanced.accuracy,
        "validation_accuracy": summary.validation_accuracy,
        "best_epoch": summary.best_epoch,
        "num_epochs": summary.num_epochs,
        "num_train": num_images.train,
        "num_validation_by_class": counts.sort_index().to_dict(),
        "seconds": round(time.perf_counter() - start, 1),
    }


def judged(runs: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the mean of each setting over the runs that all have, and its difference to none."""
    rows = []
    for name in SETS:
        of_all = [runs.get(f"{name}, {setting}", {}) for setting in SETTINGS]
        common = sorted(set.intersection(*(set(found) for found in of_all)), key=int)
        if len(common) < 2:
            continue
        for measure in MEASURES:
            scores = np.array([[found[k][measure] for k in common] for found in of_all])
            pairs = [(i, 0) for i in range(1, len(SETTINGS))]
            first = of_all[0][common[0]]
            sizes = list(first["num_validation_by_class"].values())
            label_N = np.repeat(np.arange(len(sizes)), sizes)
            family = judge_resampled(
                scores,
                len(label_N),
                first["num_train"],
                pairs,
                label_N=label_N if measure == "validation_balanced" else None,
            )
            for i, setting in enumerate(SETTINGS):
                row = {
                    "data": name,
                    "measure": measure,
                    "setting": setting,
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
    parser.add_argument("--epochs", type=int, default=15, help="Of one run.")
    parser.add_argument("--size", type=int, default=64, help="Of images, in pixels.")
    parser.add_argument("--runs", type=int, default=10, help="Of each setting.")
    parser.add_argument("--model", default="towernet_patch")
    parser.add_argument("--only", choices=SETS)
    args = parser.parse_args()
    length = {"epochs": args.epochs, "size": args.size}
    path, end = RESULTS / f"{NAME}.json", time.monotonic() + 60 * args.minutes_in_all
    made = {"model": args.model, "length": length}
    found: dict[str, Any] = files.read_json(path) if path.exists() else {}
    if found and {key: found[key] for key in made} != made:
        parser.error(f"{path.name} has runs of another model or length; move it away")
    runs: dict[str, dict[str, Any]] = found.get("runs", {})
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.runs):
            for name in SETS if args.only is None else (args.only,):
                for setting in SETTINGS:
                    of_setting = runs.setdefault(f"{name}, {setting}", {})
                    if str(number) in of_setting:
                        continue
                    if time.monotonic() > end:
                        print("not complete; repeat the command to continue")
                        return
                    data = images(name, Path(folder))
                    of_setting[str(number)] = run(data, args.model, setting, number, length)
                    written = made | {"runs": runs, "rows": judged(runs)}
                    written |= {"commit": commit(), "date": files.now()}
                    files.write_json(path, written)
    for row in judged(runs):
        print(row)
    print("complete")


if __name__ == "__main__":
    main()

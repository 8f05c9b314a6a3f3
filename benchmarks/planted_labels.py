"""Are wrong labels found? A comparison on a set with one label in twenty changed.

Evaluated are the first 2F lines of `suspects.csv`, where F is the number of changed labels.
`python benchmarks/planted_labels.py caltech16 sign-digits`; run again, it continues.
"""

from __future__ import annotations

import argparse
import csv
import random
import shutil
import sys
from pathlib import Path

from _common import data_set, write_result
from towernet.cli.main import main as towernet
from towernet.data.source import open_source
from towernet.records.base import read_record
from towernet.records.results import Conclusion


def plant(name: str, folder: Path, share: float) -> set[str]:
    """Write the images into class folders, some into wrong ones; return the paths of those."""
    found = open_source(str(data_set(f"{name}.zip"))).files
    classes = sorted({file.class_name for file in found})
    chance = random.Random(0)
    wrong = set(chance.sample(range(len(found)), round(share * len(found))))
    planted = set()
    for number, file in enumerate(found):
        label = file.class_name
        if number in wrong:
            label = chance.choice([other for other in classes if other != label])
        target = folder / label / f"{number:05d}{Path(file.path).suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            shutil.copyfile(file.file, target)
        if number in wrong:
            planted.add(target.relative_to(folder).as_posix())
    return planted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", help="caltech16, sign-digits …: NAME.zip is used.")
    parser.add_argument("--share", type=float, default=0.05, help="Share of labels to change.")
    parser.add_argument("--model", default="towernet_patch", help="The network to train.")
    parser.add_argument("--runs", type=int, default=8, help="Of it.")
    parser.add_argument("--minutes", type=float, default=0.5, help="Of one run.")
    args = parser.parse_args()
    rows = []
    for name in args.names:
        images, folder = Path("runs") / f"planted-{name}-images", Path("runs") / f"planted-{name}"
        planted = plant(name, images, args.share)
        words = ["--models", args.model, "--minutes", f"{args.minutes:g}"]
        words += ["--runs", str(args.runs), "--out", str(folder)]
        if code := towernet(["compare", str(images), *words]):
            sys.exit(code)
        with (folder / "suspects.csv").open(newline="", encoding="utf-8") as stream:
            suspects = [row["path"] for row in csv.DictReader(stream)]
        results = read_record(folder / "results.json", Conclusion).results
        counts = results.num_images
        first = suspects[: 2 * len(planted)]
        rows.append(
            {
                "data": name,
                "num_images": counts.train + counts.validation + counts.test,
                "num_planted": len(planted),
                "num_suspects": len(suspects),
                "num_found": len(planted & set(first)),
                "found": len(planted & set(first)) / len(planted),
                "right_of_first": len(planted & set(first)) / max(1, len(first)),
                "accuracy_on_such_labels": results.networks[0].accuracy,
            }
        )
        shutil.rmtree(images)
    write_result("planted_labels", {"share": args.share, "num_runs": args.runs, "rows": rows})


if __name__ == "__main__":
    main()

"""A comparison on an image set, end to end through the command; run again, it continues.

python benchmarks/compare_sets.py caltech16 sign-digits --minutes 2.5
python benchmarks/compare_sets.py sign-digits --models towernet,resnet18 --runs 8 --minutes 1
python benchmarks/compare_sets.py caltech16 --models towernet_patch,mobilenet_v2/frozen --runs 8 \
    --minutes 1 --against mobilenet_v2/frozen --weights mobilenet_v2=mobilenet_v2-b0353104.pth
python benchmarks/compare_sets.py caltech16 --models mobilenet_v2,mobilenet_v2/frozen --runs 3 \
    --minutes 0.5 --shots 1,3,5,10,20 --weights mobilenet_v2=mobilenet_v2-b0353104.pth
python benchmarks/compare_sets.py caltech16 --models towernet --attention shuffle,se --runs 10 \
    --epochs 8 --threads 1
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _common import data_set, weight_file, write_result
from towernet.records.base import read_record
from towernet.records.results import Conclusion


def towernet(*words: object, **environment: str) -> str:
    """Run the command, its progress on this terminal; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "towernet", *map(str, words)],
        stdout=subprocess.PIPE, text=True, check=False, env=os.environ | environment,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def checked(name: str) -> dict[str, Any]:
    words = ("check", data_set(f"{name}.zip"), "--out", f"runs/check-{name}", "--json")
    with tempfile.TemporaryDirectory() as cache:  # empty, so everything is unpacked and decoded
        start = time.perf_counter()
        found: dict[str, Any] = json.loads(towernet(*words, TOWERNET_CACHE=cache))
        return found | {"seconds": time.perf_counter() - start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", help="caltech16, sign-digits …: NAME.zip is compared.")
    parser.add_argument("--minutes", type=float, help="Of one run; default: 4, or --epochs.")
    parser.add_argument("--epochs", type=int, help="Of one run.")
    parser.add_argument("--models", help="Default: the command's five.")
    parser.add_argument("--attention", help="Blocks that each network is given in turn.")
    parser.add_argument(
        "--weights", action="append", help="NETWORK=NAME, a file in $TOWERNET_WEIGHTS."
    )
    parser.add_argument("--against", help="Judge only the pairs with this network.")
    parser.add_argument("--shots", help="Also with so many training images of each class.")
    parser.add_argument("--threads", type=int, help="Default: one per core.")
    parser.add_argument("--runs", type=int, default=1, help="Of each network.")
    parser.add_argument("--check-only", action="store_true", help="Open no test split.")
    args = parser.parse_args()
    if args.attention and not args.models:
        parser.error("--attention needs --models, which its results are named after")
    for name in args.names:
        if not args.attention:
            write_result(f"check-{name}", checked(name))
        if args.check_only:
            continue
        kind = "compare" if args.runs == 1 else "verdict"
        if args.weights:
            kind = "shots" if args.shots else "starts"
        if args.attention:
            kind = "ablation-" + args.models.replace(",", "-")
        folder = Path("runs") / f"{kind}-{name}"
        if (folder / "results.json").exists():
            sys.exit(f"error: {folder} is finished, perhaps by another commit; move it away")
        budget = ["--minutes", f"{args.minutes or 4:g}"]
        if args.epochs:
            budget = ["--epochs", str(args.epochs)]
        words = [*budget, "--runs", str(args.runs), "--out", str(folder)]
        for option in ("threads", "against", "attention", "shots", "models"):
            if (value := getattr(args, option)) is not None:
                words = [f"--{option}", str(value), *words]
        given, plain = list[str](), list[str]()
        for item in args.weights or []:
            network, _, file = item.partition("=")
            plain += ["--weights", item]
            given += ["--weights", f"{network}={weight_file(file)}"]
        towernet("compare", data_set(f"{name}.zip"), *given, *words)
        conclusion = read_record(folder / "results.json", Conclusion)
        command = " ".join(["towernet", "compare", f"{name}.zip", *plain, *words])
        made = conclusion.made.model_copy(update={"command": command})
        write_result(
            f"{kind}-{name}", conclusion.model_copy(update={"made": made}).model_dump(mode="json")
        )


if __name__ == "__main__":
    main()

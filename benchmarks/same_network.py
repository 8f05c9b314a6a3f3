"""Is a network called better than itself? A real comparison of one network under several names.

All names share images, order and augmentation draws; each has its own initial weights.
`python benchmarks/same_network.py caltech16 --runs 8 --minutes 0.2`; run again, it continues.
"""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path

import torch
from torch import nn

from _common import data_set, write_result
from towernet.cli.main import main as towernet
from towernet.models.towernet import PatchTowerNet
from towernet.records.base import read_record
from towernet.records.results import Conclusion


def with_other_weights(num_classes: int, *, number: int) -> nn.Module:
    """Return `towernet_patch` with other initial weights."""
    torch.rand(number)  # advances the generator that draws the weights
    return PatchTowerNet(num_classes)


# One network each, by its import path: `same_network:same_0`.
MOST_NETWORKS = 16
for each in range(MOST_NETWORKS):
    globals()[f"same_{each}"] = functools.partial(with_other_weights, number=each)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="caltech16, sign-digits …: NAME.zip is used.")
    parser.add_argument("--networks", type=int, default=4, help="How many names to compare.")
    parser.add_argument("--runs", type=int, default=8, help="Of each.")
    parser.add_argument("--minutes", type=float, default=0.2, help="Of one run.")
    args = parser.parse_args()
    if not 2 <= args.networks <= MOST_NETWORKS:
        parser.error(f"--networks is {args.networks}; give from 2 to {MOST_NETWORKS}")
    names = [f"{Path(__file__).stem}:same_{number}" for number in range(args.networks)]
    folder = Path("runs") / f"same-{args.name}"
    words = ["--models", ",".join(names), "--minutes", f"{args.minutes:g}"]
    words += ["--runs", str(args.runs), "--out", str(folder)]
    if code := towernet(["compare", str(data_set(f"{args.name}.zip")), *words]):
        sys.exit(code)
    conclusion = read_record(folder / "results.json", Conclusion)
    results = conclusion.results
    assert len({network.validation_accuracy for network in results.networks}) > 1
    write_result(
        f"same_network-{args.name}",
        {
            "data": args.name,
            "network": "towernet_patch",
            "num_runs": results.num_runs,
            "num_images": results.num_images.model_dump(),
            "sentence": results.sentence,
            "accuracies": [network.accuracy for network in results.networks],
            "pairs": [
                pair.model_dump(include={"difference", "interval", "p_adjusted", "answer"})
                for pair in results.comparisons
            ],
            "called_better": sum(pair.answer == "better" for pair in results.comparisons),
            "hardware": conclusion.made.hardware.model_dump(),
            "versions": conclusion.made.versions,
        },
    )


if __name__ == "__main__":
    main()

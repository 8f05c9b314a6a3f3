"""Are verdicts on balanced accuracy calibrated, where classes have 400, 40 and 8 test images?

python benchmarks/simulate_balanced.py --minutes 9    until the time is over; repeat to continue
python benchmarks/simulate_balanced.py --only groups  only the scenes of this name

As `simulate_verdicts.py`, with three classes: each has its own accuracy, and each run its own luck
with each class, so that recall of the smallest varies most. Its work is done in pieces of 100
comparisons on one core; the sums so far are written to benchmarks/results after each piece, and
start over only if this script or the code that judges has changed. In the comparisons of equal
networks the balanced accuracies are equal; in the scene `opposite` the accuracies of classes are
not.
"""

from __future__ import annotations

import argparse
import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy is imported

import hashlib
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

import simulate_verdicts
from _common import RESULTS, commit
from simulate_verdicts import EASE, POOL, RUNS, SHARE, spread
from towernet import files
from towernet.comparison.judging import scores, significance, statistics, variance
from towernet.comparison.judging.scores import balanced_interval
from towernet.comparison.judging.statistics import judge

NAME = "simulate_balanced"
SIZES = (400, 40, 8)
PIECE = 100  # comparisons
LABELS = np.repeat(np.arange(len(SIZES)), SIZES)


@dataclass(frozen=True)
class Scene:
    """A kind of comparison, as in `simulate_verdicts.py`, with three classes.

    Args:
        name: Its name.
        networks: How many.
        accuracies: Approximate accuracy for each class.
        taste: Standard deviation of an image's ease for one network.
        seed_luck: Standard deviation due to a run's weights.
        training_luck: Standard deviation due to the images a run was trained on.
        class_luck: Standard deviation of a run's luck with each class.
        cluster: How many images of a class belong together.
        groups: How many groups the images are from, each with images of several classes; 0: none.
        opposite: How much better the first of two equal networks is at the largest class; it is
            worse at the others.
    """

    name: str
    networks: int = 2
    accuracies: tuple[float, ...] = (0.92, 0.8, 0.6)
    taste: float = 0.5
    seed_luck: float = 0.08
    training_luck: float = 0.04
    class_luck: tuple[float, ...] = (0.04, 0.1, 0.25)
    cluster: int = 1
    groups: int = 0
    opposite: float = 0.0

    def clusters(self) -> Any:
        """Return (N,): the cluster of each image."""
        if self.groups:
            return np.concatenate([np.arange(size) % self.groups for size in SIZES])
        starts = np.concatenate([np.arange(size) // self.cluster for size in SIZES])
        return np.unique(LABELS * 1000 + starts, return_inverse=True)[1]


SCENES = (
    Scene("two networks"),
    Scene("four networks", networks=4),
    Scene("images decide", taste=0.8, seed_luck=0.03, training_luck=0.02,
          class_luck=(0.02, 0.04, 0.1)),
    Scene("runs decide", seed_luck=0.25, training_luck=0.12, class_luck=(0.1, 0.25, 0.6)),
    Scene("similar classes", networks=4, accuracies=(0.85, 0.85, 0.85)),
    Scene("clusters of two", cluster=2),
    Scene("groups", groups=40),
    Scene("nearly perfect", accuracies=(0.99, 0.98, 0.95)),
    Scene("opposite", opposite=0.5),
)  # fmt: skip


def play(scene: Scene, num_runs: int, equal: bool, seed: int) -> dict[str, float]:
    """Return how many of `PIECE` comparisons had intervals that all contained the truth, in how
    many the interval of one network's score did, and in how many networks were called different.
    """
    chance = np.random.default_rng(seed)
    num, num_classes = scene.networks, len(SIZES)
    cluster = scene.clusters()
    numbered = np.unique(cluster, return_inverse=True)[1]
    base = 1 + EASE**2 + scene.taste**2 + scene.seed_luck**2 + scene.training_luck**2
    scale_G = np.sqrt(base + np.array(scene.class_luck) ** 2)
    held = shown = 0
    held_scores = 0.0
    for _ in range(PIECE):
        skill = np.tile(ndtri(scene.accuracies) * scale_G, (num, 1))
        if not equal:
            skill += chance.normal(0, 0.1, (num, 1)) * scale_G
            skill += chance.normal(0, 0.1, (num, num_classes)) * scale_G
        elif scene.opposite:
            skill = opposed(skill, scale_G, scene.opposite)
        worth = chance.normal(0, 1, (num, POOL))
        worth *= scene.training_luck * np.sqrt(POOL * SHARE / (1 - SHARE))
        worth -= worth.mean(axis=1, keepdims=True)
        drawn = chance.permuted(np.tile(np.arange(POOL), (num_runs, 1)), axis=1)
        chosen = np.zeros((num_runs, POOL))
        np.put_along_axis(chosen, drawn[:, : int(SHARE * POOL)], 1 / (SHARE * POOL), axis=1)
        run = worth @ chosen.T + chance.normal(0, scene.seed_luck, (num, num_runs))
        luck = chance.normal(0, 1, (num, num_runs, num_classes)) * np.array(scene.class_luck)
        ease = EASE * spread(chance, (), numbered)
        ease = ease + scene.taste * spread(chance, (num,), numbered)
        latent = (skill[:, None] + run[:, :, None] + luck)[:, :, LABELS] + ease[:, None, :]
        right = latent + chance.standard_normal(latent.shape) > 0
        family = judge(right, cluster, label_N=LABELS)
        truth = ndtr(skill / scale_G).mean(axis=1)
        held += all(
            d.interval[0] <= truth[d.first] - truth[d.second] <= d.interval[1]
            for d in family.differences
        )
        for network, score in zip(right, truth, strict=True):
            low, high = balanced_interval(network, cluster, LABELS)
            held_scores += (low <= score <= high) / num
        shown += any(d.is_shown() for d in family.differences)
    return {"held": held, "held_scores": held_scores, "shown": shown}


def opposed(skill: Any, scale_G: Any, gain: float) -> Any:
    """Return the skills of networks of equal balanced accuracy, the first better at one class."""
    wanted = ndtr(skill[0] / scale_G).mean()
    other = skill[0].copy()
    other[0] += gain * scale_G[0]

    def excess(loss: float) -> float:
        return float(ndtr((other - [0, loss, loss]) / scale_G).mean() - wanted)

    other[1:] -= brentq(excess, 0, 10)
    return np.array([other, *skill[1:]])


def judging() -> str:
    """Return a hash of the code that judges, and of the simulation's."""
    modules = (simulate_verdicts, scores, significance, statistics, variance)
    parts = [Path(__file__), *(Path(str(module.__file__)) for module in modules)]
    return hashlib.sha256(b"".join(path.read_bytes() for path in parts)).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--comparisons", type=int, default=2000)
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--only", help="a scene's name")
    args = parser.parse_args()
    path, end = RESULTS / f"{NAME}.json", time.monotonic() + 60 * args.minutes
    found: dict[str, Any] = files.read_json(path) if path.exists() else {}
    if found.get("judging") != judging():
        empty = [{"scene": s.name, "num_runs": num, **NOTHING} for s in SCENES for num in RUNS]
        found = {"judging": judging(), "seconds": 0.0, "rows": empty}
    rows: list[dict[str, Any]] = [row for row in found["rows"] if args.only in (None, row["scene"])]
    for number in range(args.comparisons // PIECE):
        for row in rows:
            if row["num_comparisons"] > number * PIECE:
                continue
            if time.monotonic() > end:
                print("not complete; repeat the command to continue")
                return
            start = time.perf_counter()
            add_piece(row, number)
            found["seconds"] += time.perf_counter() - start
            write(path, found)
            print(
                f"{row['scene']:16} {row['num_runs']:3} runs, {row['num_comparisons']:5}"
                f" comparisons: coverage {100 * row['coverage']:5.1f} %,"
                f" scores {100 * row['coverage_of_scores']:5.1f} %,"
                f" false {100 * row['false']:4.1f} %",
                flush=True,
            )
    print("complete")


NOTHING = {"num_comparisons": 0, "coverage": 0.0, "coverage_of_scores": 0.0, "false": 0.0}


def add_piece(row: dict[str, Any], number: int) -> None:
    """Play one more piece of a row, and add it to the row's shares."""
    scene = next(scene for scene in SCENES if scene.name == row["scene"])
    key = f"{scene.name}, {row['num_runs']}, {number}"
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:6])
    differing = play(scene, row["num_runs"], False, seed)
    equal = play(scene, row["num_runs"], True, seed + 1)
    before, row["num_comparisons"] = row["num_comparisons"], row["num_comparisons"] + PIECE
    for name, num in (
        ("coverage", differing["held"]),
        ("coverage_of_scores", differing["held_scores"]),
        ("false", equal["shown"]),
    ):
        row[name] = round((row[name] * before + num) / row["num_comparisons"], 6)


def write(path: Path, found: dict[str, Any]) -> None:
    """Write the sums so far, and what they were made with."""
    command = f"python benchmarks/{NAME}.py {' '.join(sys.argv[1:])}".strip()
    made = {"commit": commit(), "command": command, "date": files.now()}
    scenes = [asdict(scene) for scene in SCENES]
    files.write_json(path, found | {"class_sizes": SIZES, "scenes": scenes} | made)


if __name__ == "__main__":
    main()

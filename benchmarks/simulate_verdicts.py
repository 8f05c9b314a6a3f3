"""Are verdicts calibrated? Thousands of simulated comparisons whose truth is known.

Each is judged by `towernet.comparison.judging.statistics`, like a real one. A network classifies an
image correctly if the sum of its skill, the image's ease (for all networks and for this one), the
run's luck and a random number is above 0. A run's luck has two parts: its weights, and which images
of the labelled pool it was trained on: four of five, the same for all networks, so that training
sets overlap. The truth is then known in closed form.

Coverage: how often all intervals of a comparison contain the truth at once. Accuracies: how often
the interval of one network's accuracy does. False: how often equal networks were called different.
`fresh pool` is the coverage of the truth for another collection of training images, which the
interval does not claim.
"""

from __future__ import annotations

import argparse
import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy is imported: one thread per process

import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from _common import write_result
from towernet.comparison.judging.scores import accuracy_interval
from towernet.comparison.judging.statistics import judge

RUNS = (8, 10, 29)
POOL, SHARE = 200, 0.8
EASE = 1.5  # standard deviation of an image's ease for all networks


@dataclass(frozen=True)
class Scene:
    """A kind of comparison.

    Args:
        name: Its name.
        networks: How many.
        images: In the test split.
        cluster: How many images belong together.
        accuracy: Approximate accuracy of the networks.
        taste: Standard deviation of an image's ease for one network.
        seed_luck: Standard deviation due to a run's weights.
        training_luck: Standard deviation due to the images a run was trained on.
    """

    name: str
    networks: int = 4
    images: int = 350
    cluster: int = 1
    accuracy: float = 0.85
    taste: float = 0.5
    seed_luck: float = 0.08
    training_luck: float = 0.04


SCENES = (
    Scene("two networks", networks=2),
    Scene("four networks"),
    Scene("images decide", images=150, taste=0.8, seed_luck=0.03, training_luck=0.02),
    Scene("runs decide", images=2000, seed_luck=0.25, training_luck=0.12),
    Scene("clusters of five", images=400, cluster=5),
    Scene("nearly perfect", accuracy=0.985),
)


def play(scene: Scene, num_runs: int, num_comparisons: int, equal: bool, seed: int) -> Any:
    """Return how often all intervals contained the truth, for this pool and a fresh one, how often
    the interval of one network's accuracy did, and how often networks were called different.
    """
    chance = np.random.default_rng(seed)
    num, clusters = scene.networks, -(-scene.images // scene.cluster)
    cluster = np.repeat(np.arange(clusters), scene.cluster)[: scene.images]
    luck = scene.seed_luck**2 + scene.training_luck**2
    scale = np.sqrt(1 + EASE**2 + scene.taste**2 + luck)
    held = held_fresh = held_accuracy = shown = 0
    for _ in range(num_comparisons):
        skill = np.full(num, ndtri(scene.accuracy) * scale)
        if not equal:
            skill += chance.normal(0, 0.1 * scale, num)
        # The worth of each image of the pool to each network, scaled so that the mean over a run's
        # training images has the intended spread about the pool's mean.
        worth = chance.normal(0, 1, (num, POOL))
        worth *= scene.training_luck * np.sqrt(POOL * SHARE / (1 - SHARE))
        pool = np.zeros(num)
        if not equal:
            pool = worth.mean(axis=1)
        worth -= worth.mean(axis=1, keepdims=True)
        drawn = chance.permuted(np.tile(np.arange(POOL), (num_runs, 1)), axis=1)
        chosen = np.zeros((num_runs, POOL))
        np.put_along_axis(chosen, drawn[:, : int(SHARE * POOL)], 1 / (SHARE * POOL), axis=1)
        run = worth @ chosen.T + chance.normal(0, scene.seed_luck, (num, num_runs))
        ease = EASE * spread(chance, (), cluster) + scene.taste * spread(chance, (num,), cluster)
        latent = (skill + pool)[:, None, None] + run[:, :, None] + ease[:, None, :]
        right = latent + chance.standard_normal((num, num_runs, scene.images)) > 0
        family = judge(right, cluster)
        truth, truth_fresh = ndtr((skill + pool) / scale), ndtr(skill / scale)
        held += all(holds(d, truth) for d in family.differences)
        held_fresh += all(holds(d, truth_fresh) for d in family.differences)
        for network, accuracy in zip(right, truth, strict=True):
            low, high = accuracy_interval(network, cluster)
            held_accuracy += low <= accuracy <= high
        shown += any(d.is_shown() for d in family.differences)
    return held, held_fresh, held_accuracy / num, shown


def spread(chance: np.random.Generator, shape: tuple[int, ...], cluster: Any) -> Any:
    """Return (..., N) numbers of variance 1; those of one cluster share four fifths of it."""
    num = cluster.max() + 1
    if len(cluster) == num:
        return chance.standard_normal((*shape, len(cluster)))
    shared = chance.standard_normal((*shape, num))[..., cluster]
    own = chance.standard_normal((*shape, len(cluster)))
    return np.sqrt(0.8) * shared + np.sqrt(0.2) * own


def holds(difference: Any, accuracy: Any) -> bool:
    low, high = difference.interval
    return bool(low <= accuracy[difference.first] - accuracy[difference.second] <= high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--comparisons", type=int, default=2000)
    num: int = parser.parse_args().comparisons
    start = time.perf_counter()
    rows = []
    with ProcessPoolExecutor(os.cpu_count()) as processes:
        tasks = [
            (scene, num_runs, processes.submit(play, scene, num_runs, num, False, number),
             processes.submit(play, scene, num_runs, num, True, number + 1000))
            for number, (scene, num_runs) in enumerate((s, k) for s in SCENES for k in RUNS)
        ]  # fmt: skip
        for scene, num_runs, differing, equal in tasks:
            held, held_fresh, held_accuracy, _ = differing.result()
            *_, false = equal.result()
            row = {
                "scene": scene.name,
                "num_runs": num_runs,
                "coverage": held / num,
                "coverage_fresh_pool": held_fresh / num,
                "coverage_of_accuracies": held_accuracy / num,
                "false": false / num,
            }
            rows.append(row)
            print(
                f"{scene.name:18} {num_runs:3} runs: coverage {100 * held / num:5.1f} %,"
                f" fresh pool {100 * held_fresh / num:5.1f} %,"
                f" accuracies {100 * held_accuracy / num:5.1f} %, false {100 * false / num:4.1f} %",
                flush=True,
            )
    write_result(
        "simulate_verdicts",
        {
            "num_comparisons": num,
            "scenes": [asdict(scene) for scene in SCENES],
            "rows": rows,
            "seconds": time.perf_counter() - start,
        },
    )


if __name__ == "__main__":
    main()

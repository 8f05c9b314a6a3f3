"""How to use a budget of hours: how many runs, how long, and what the comparison could show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from towernet.comparison.forecast import disk_bytes
from towernet.comparison.judging.pairs import pairs_between
from towernet.comparison.judging.significance import min_runs, simultaneous_level
from towernet.comparison.judging.statistics import Family
from towernet.comparison.judging.variance import Cells, Variance
from towernet.config import Recipe
from towernet.data.prepare import Dataset
from towernet.engine.batches import steps_per_epoch
from towernet.engine.measure import Cost
from towernet.names import NetworkName
from towernet.records.protocol import Request

# Before training it is unknown how networks will differ. These assumptions are typical of small
# networks with some hundred images per class: the standard deviation of a network's accuracy from
# run to run, and the share of images that only one of two networks gets right, half of them in
# every run.
SUPPOSED_RUN_SPREAD, SUPPOSED_ALONE = 0.015, 0.1
FEWEST_EPOCHS = 8  # fewer would only compare how fast networks start to learn


@dataclass(frozen=True)
class Proposal:
    """One way to use the hours.

    Args:
        size_px: Size of the images of networks from scratch.
        runs: Number of runs of each network.
        minutes: Training time of one run.
        epochs: How many epochs those minutes give, by network; without frozen networks.
        disk_bytes: Disk needed at most, without the decoded pixels.
        detectable: The smallest difference it would show in four of five comparisons, a fraction;
            None if it can show none.
    """

    size_px: int
    runs: int
    minutes: float
    epochs: dict[NetworkName, float]
    disk_bytes: int
    detectable: float | None

    def is_sound(self) -> bool:
        """Whether it can show a difference, and trains networks from scratch for enough epochs."""
        of_scratch = [num for name, num in self.epochs.items() if name.start is None]
        return self.detectable is not None and min(of_scratch, default=math.inf) >= FEWEST_EPOCHS


def propose(
    request: Request, dataset: Dataset, costs: Mapping[NetworkName, Cost], hours: float
) -> list[Proposal]:
    """Return some ways to use this many hours, those with few runs first.

    Args:
        request: The networks and the recipe; its number of runs is ignored.
        dataset: The images.
        costs: The costs of the networks that can take a step here.
        hours: Total time for computing.
    """
    fewest = min_runs(len(_pairs(request, costs)))
    return [
        _proposal(request, dataset, costs, hours, runs)
        for runs in sorted({1, fewest, round(1.5 * fewest), 3 * fewest})
    ]


def choose(proposals: list[Proposal]) -> Proposal:
    """Return the sound proposal that shows the smallest difference.

    If none is sound, return the one with single runs, which are at least long.
    """
    sound = [proposal for proposal in proposals if proposal.is_sound()]
    return min(sound, key=lambda p: (p.detectable, p.runs), default=proposals[0])


def _proposal(
    request: Request, dataset: Dataset, costs: Mapping[NetworkName, Cost], hours: float, runs: int
) -> Proposal:
    # A frozen network takes no steps, so its runs take no part of the hours.
    trained = {name: cost for name, cost in costs.items() if name.start != "frozen"}
    # Learning-rate trials count towards the hours.
    trials = sum(_trial_share(request.recipe_of(name)) for name in trained)
    label_N = dataset.final.labels if request.measure == "balanced" else None
    cells = Cells.of(dataset.final_clusters(), label_N)
    num_judged = len(dataset.final) + len(dataset.validation)
    judging = runs * num_judged * sum(cost.image_seconds for cost in costs.values())
    started = {name.base: cost for name, cost in costs.items() if name.start is not None}
    preparing = dataset.num_images * sum(cost.image_seconds for cost in started.values())
    seconds = max(0.0, 3600 * hours - judging - preparing) / max(1, len(trained) * runs + trials)
    return Proposal(
        request.recipe.data.size_px,
        runs,
        seconds / 60,
        {
            name: _epochs(request.recipe_of(name), cost, dataset, seconds)
            for name, cost in trained.items()
        },
        disk_bytes([cost.parameters for cost in costs.values()], runs),
        detectable(len(costs), runs, cells, _pairs(request, costs)),
    )


def _pairs(request: Request, costs: Mapping[NetworkName, Cost]) -> list[tuple[int, int]]:
    """Return which of the networks are compared, by position."""
    names: list[str] = list(costs)
    return [
        (names.index(first), names.index(second))
        for first, second in pairs_between(names, request.against)
    ]


def _trial_share(recipe: Recipe) -> float:
    """Return the seconds of a network's learning-rate trials, as a share of those of one run."""
    train = recipe.train
    return train.trial_share * len(train.trial_factors) if len(train.trial_factors) > 1 else 0.0


def _epochs(recipe: Recipe, cost: Cost, dataset: Dataset, seconds: float) -> float:
    train = recipe.train
    per_epoch = steps_per_epoch(len(dataset.train), train.batch_size)
    epochs = seconds / cost.seconds_per_step(dataset, train.batch_size) / per_epoch
    return epochs if train.max_epochs is None else min(epochs, train.max_epochs)


def detectable(
    num_networks: int,
    num_runs: int,
    cells: Cells,
    pairs: Sequence[tuple[int, int]] | None = None,
) -> float | None:
    """Return the smallest difference that these runs would probably show, None if they show none.

    Args:
        num_networks: How many are compared.
        num_runs: Of each.
        cells: How the final images belong together and count.
        pairs: Which of them are compared, by position; None: all with all.

    Example:
        >>> images = Cells.of(np.arange(350))
        >>> detectable(4, 7, images) is None
        True
        >>> 0.03 < detectable(4, 8, images) < 0.09
        True
    """
    if pairs is None:
        pairs = list(combinations(range(num_networks), 2))
    if num_runs < min_runs(len(pairs)):
        return None
    level = simultaneous_level(np.eye(num_networks), pairs)
    run, half = 2 * SUPPOSED_RUN_SPREAD**2, SUPPOSED_ALONE / 2
    num_images = sum(cells.num_images)
    # How much more uncertain than of equal images that count the same: tied images count as one,
    # and those of small classes for many.
    loss_G = cells.size_of_classes() ** 2 / cells.clusters_of_classes()
    image = half * float(loss_G.sum()) / num_images
    num_clusters = cells.effective_clusters(loss_G, 0.0)
    variance = Variance(run, image, half, num_clusters, num_images)
    family = Family((), len(pairs), level, num_runs, num_images)
    return family.detectable(variance, num_runs, num_images)

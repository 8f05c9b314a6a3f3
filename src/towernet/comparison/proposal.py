"""How to use a budget of hours: how many runs, how long, and what the comparison could show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from towernet.comparison.forecast import disk_bytes
from towernet.comparison.judging.significance import min_runs, simultaneous_level
from towernet.comparison.judging.statistics import Family
from towernet.comparison.judging.variance import Cells, Variance
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
        size_px: Size of the images.
        runs: Number of runs of each network.
        minutes: Training time of one run.
        epochs: How many epochs those minutes give, by network.
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
        """Whether it can show a difference, and trains every network for enough epochs."""
        return self.detectable is not None and min(self.epochs.values()) >= FEWEST_EPOCHS


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
    fewest = min_runs(len(costs) * (len(costs) - 1) // 2)
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
    train = request.recipe.train
    # Learning-rate trials count towards the hours.
    trials = train.trial_share * len(train.trial_factors) if len(train.trial_factors) > 1 else 0
    label_N = dataset.final.labels if request.measure == "balanced" else None
    cells = Cells.of(dataset.final_clusters(), label_N)
    num_judged = len(dataset.final) + len(dataset.validation)
    judging = runs * num_judged * sum(cost.image_seconds for cost in costs.values())
    seconds = max(0.0, 3600 * hours - judging) / (len(costs) * (runs + trials))
    per_epoch = steps_per_epoch(len(dataset.train), train.batch_size)
    return Proposal(
        dataset.contract.size_px,
        runs,
        seconds / 60,
        {
            name: seconds / cost.seconds_per_step(dataset, train.batch_size) / per_epoch
            for name, cost in costs.items()
        },
        disk_bytes([cost.parameters for cost in costs.values()], runs),
        detectable(len(costs), runs, cells),
    )


def detectable(num_networks: int, num_runs: int, cells: Cells) -> float | None:
    """Return the smallest difference that these runs would probably show, None if they show none.

    Args:
        num_networks: How many are compared.
        num_runs: Of each.
        cells: How the final images belong together and count.

    Example:
        >>> images = Cells.of(np.arange(350))
        >>> detectable(4, 7, images) is None
        True
        >>> 0.03 < detectable(4, 8, images) < 0.09
        True
    """
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

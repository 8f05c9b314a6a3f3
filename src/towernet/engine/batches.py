"""Batches of augmented images, each a function of (seed, epoch, position) only.

So a run can start in the middle of an epoch, and prefetching changes no bit.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from towernet import rng
from towernet.config import Recipe
from towernet.data.prepare import Dataset, Part
from towernet.engine.augment import draws, mix, mixing_shares, training_input
from towernet.engine.device import Policy

Item = TypeVar("Item")
PIXEL_ROWS_AT_ONCE = 256
# Batches made ahead; on a CPU the thread would compete with the step itself.
PREFETCH_DEPTH = {"cpu": 0, "mps": 2, "cuda": 2}


def batch_starts(num_images: int, batch_size: int) -> list[int]:
    """Return where each batch starts, and the end; the last partial batch is kept.

    A single image left over joins the batch before it: batch norm cannot learn from one.
    """
    starts = list(range(0, num_images, batch_size))
    if len(starts) > 1 and num_images - starts[-1] == 1:
        starts.pop()
    return [*starts, num_images]


def steps_per_epoch(num_images: int, batch_size: int) -> int:
    """Return how many batches an epoch has."""
    return len(batch_starts(num_images, batch_size)) - 1


@dataclass(frozen=True)
class Batch:
    """The images and targets of one step.

    Args:
        images_BCHW: The network's input.
        labels_B: The class of each image; for a mixed one, the class with the larger share.
        targets: The same labels, or (B, K) probabilities if images are mixed.
    """

    images_BCHW: Tensor
    labels_B: Tensor
    targets: Tensor


def pixels_on_device(dataset: Dataset, policy: Policy) -> Dataset:
    """Return the data, with the training pixels on the GPU if they need at most a quarter of its
    free memory.
    """
    if policy.device != "cuda":
        return dataset
    mapped = dataset.train_pixels
    if isinstance(mapped, Tensor):
        return dataset
    free, _ = torch.cuda.mem_get_info()
    if mapped.nbytes > free // 4:
        return dataset
    pixels = torch.empty(mapped.shape, dtype=torch.uint8, device=policy.device)
    for start in range(0, len(pixels), PIXEL_ROWS_AT_ONCE):  # never all in memory at once
        rows = np.array(mapped[start : start + PIXEL_ROWS_AT_ONCE])
        pixels[start : start + PIXEL_ROWS_AT_ONCE] = torch.from_numpy(rows)
    return replace(dataset, open_train_pixels=lambda: pixels)


def make_batch(
    dataset: Dataset,
    recipe: Recipe,
    policy: Policy,
    seed: int,
    epoch: int,
    chosen: npt.NDArray[np.int64],
    size_px: int,
) -> Batch:
    """Return the training images at some positions, augmented to a size and possibly mixed."""
    part = dataset.train
    images = training_input(
        dataset.train_pixels,
        part.rows[chosen],
        draws(seed, epoch, part.keys[chosen]),
        recipe.augment,
        size_px=size_px,
        mean=dataset.contract.mean,
        std=dataset.contract.std,
        device=policy.device,
        kernels=policy.kernels == "native",
    )
    labels = torch.from_numpy(part.labels[chosen]).to(policy.device)
    targets = labels
    if recipe.augment.mixup_alpha:
        shares_B = mixing_shares(seed, epoch, part.keys[chosen], recipe.augment.mixup_alpha)
        shares = torch.from_numpy(shares_B).float().to(policy.device)
        targets = mix(F.one_hot(labels, len(dataset.contract.class_names)).float(), shares)
        images = mix(images, shares)
    images = images.contiguous(memory_format=policy.memory_format)
    return Batch(images, labels, targets)


def epoch_batches(
    dataset: Dataset,
    recipe: Recipe,
    policy: Policy,
    *,
    seed: int,
    epoch: int,
    size_px: Callable[[int], int],
    first: int = 0,
) -> Iterator[Batch]:
    """Yield an epoch's batches from number `first`; `size_px` maps a step to its image size."""
    if recipe.train.balanced_drawing:
        dataset = replace(dataset, train=drawn_by_class(dataset.train, seed, epoch))
    order = rng.order(seed, epoch, dataset.train.keys)
    parts = list(pairwise(batch_starts(len(order), recipe.train.batch_size)))
    for number, (start, end) in list(enumerate(parts))[first:]:
        step = epoch * len(parts) + number
        yield make_batch(dataset, recipe, policy, seed, epoch, order[start:end], size_px(step))


def drawn_by_class(part: Part, seed: int, epoch: int) -> Part:
    """Return as many images, each drawn from a random class; all classes are equally likely.

    The keys stay in their places, so an image that is drawn twice is augmented in two ways.
    """
    _, starts, counts = np.unique(np.sort(part.labels), return_index=True, return_counts=True)
    draws = rng.uniform(seed, epoch, part.keys, "balanced drawing", 2)
    of_class = (draws[:, 0] * len(starts)).astype(np.int64)
    within = (draws[:, 1] * counts[of_class]).astype(np.int64)
    chosen = np.argsort(part.labels, kind="stable")[starts[of_class] + within]
    return replace(
        part,
        rows=part.rows[chosen],
        labels=part.labels[chosen],
        paths=tuple(part.paths[i] for i in chosen.tolist()),
    )


def prefetch(make: Callable[[], Iterable[Item]], depth: int) -> Generator[Item, None, None]:
    """Yield what `make` yields, computed up to `depth` items ahead in a thread; 0: no thread."""
    if depth == 0:
        yield from make()
        return
    items: queue.Queue[tuple[str, object]] = queue.Queue(depth)
    closed = threading.Event()

    def put(kind: str, item: object) -> None:
        while not closed.is_set():
            try:
                items.put((kind, item), timeout=0.1)
                return
            except queue.Full:
                continue

    def fill() -> None:
        try:
            for item in make():
                put("item", item)
                if closed.is_set():
                    return
            put("end", None)
        except BaseException as error:  # raised again where the batch is consumed
            put("error", error)

    thread = threading.Thread(target=fill, daemon=True, name="prefetch")
    thread.start()
    try:
        while True:
            kind, item = items.get()
            if kind == "end":
                return
            if kind == "error":
                assert isinstance(item, BaseException)
                raise item
            yield item  # type: ignore[misc]
    finally:
        closed.set()
        thread.join()

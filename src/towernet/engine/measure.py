"""How long a step takes here, to convert minutes to steps before training starts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from math import ceil
from statistics import median

import numpy as np
import torch

from towernet.config import RunConfig
from towernet.data.prepare import Dataset
from towernet.engine.batches import make_batch, pixels_on_device, steps_per_epoch
from towernet.engine.device import Policy, fp32
from towernet.engine.memory import is_out_of_memory, out_of_memory_words, return_freed_memory
from towernet.engine.optimizer import make_optimizer
from towernet.engine.schedule import small_size_px
from towernet.engine.step import average_weights, norms_to_fix, train_step
from towernet.engine.validation import BATCH_SIZE, predict_logits
from towernet.errors import TowernetError, TrainingError, first_line_of
from towernet.models.catalogue import build, outline
from towernet.models.optimize import optimize
from towernet.models.summary import count_parameters, multiply_adds
from towernet.records.run import CostFigures

# Short, because every network is measured several times in turn.
MEASURING_SECONDS, NUM_STEPS_AT_MOST = 0.2, 10
# The first steps select kernels and allocate memory; a slow network has done so after one.
WARMING_SECONDS, NUM_WARMING_STEPS = 0.2, 4


class Cost(CostFigures):
    """The cost of one network on this machine."""

    @classmethod
    def of(cls, figures: CostFigures) -> Cost:
        """Return recorded figures as a cost."""
        return cls(**asdict(figures))

    def seconds_per_step(self, dataset: Dataset, batch_size: int) -> float:
        """Return the seconds of a step with its share of the evaluation after each epoch."""
        per_epoch = steps_per_epoch(len(dataset.train), batch_size)
        return self.step_seconds + self._evaluation_seconds(dataset) / per_epoch

    def seconds(self, num_steps: int, dataset: Dataset, batch_size: int) -> float:
        """Return the seconds of so many steps, with an evaluation after each epoch and the last."""
        num_evaluations = ceil(num_steps / steps_per_epoch(len(dataset.train), batch_size))
        return num_steps * self.step_seconds + num_evaluations * self._evaluation_seconds(dataset)

    def steps_within(self, seconds: float, dataset: Dataset, batch_size: int) -> int:
        """Return how many steps fit into some seconds with their evaluations; at least 1."""
        per_epoch = steps_per_epoch(len(dataset.train), batch_size)
        epochs = int(seconds / self.seconds(per_epoch, dataset, batch_size))
        left = seconds - self.seconds(epochs * per_epoch, dataset, batch_size)
        more = max(0, int((left - self._evaluation_seconds(dataset)) / self.step_seconds))
        return max(1, epochs * per_epoch + more)

    def _evaluation_seconds(self, dataset: Dataset) -> float:
        return len(dataset.validation) * self.image_seconds


def measure(config: RunConfig, dataset: Dataset, policy: Policy) -> Cost:
    """Take a few real steps with a temporary network, and evaluate a batch with it.

    A frozen network takes no steps; its cost is the seconds of one image's features.

    Raises:
        TrainingError: the network cannot take a step: memory, or an image size it cannot take.
    """
    return_freed_memory()  # of the previous network
    is_frozen = config.model.start == "frozen"
    try:
        if is_frozen:
            return _measure_frozen(config, dataset, policy)
        with policy.active():  # as in the runs: with the kernels, and with memory kept
            return _measure(config, dataset, policy)
    except TowernetError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            words = out_of_memory_words(BATCH_SIZE if is_frozen else config.recipe.train.batch_size)
            raise TrainingError(f"{config.model}: {words}") from error
        raise TrainingError(
            f"{config.model}: a training step fails on this machine ({first_line_of(error)});"
            " give a smaller --batch-size or another --size, or leave this network out"
        ) from error


def _measure_frozen(config: RunConfig, dataset: Dataset, policy: Policy) -> Cost:
    contract, calm = dataset.contract, fp32(policy)
    pixels = np.zeros((BATCH_SIZE, contract.size_px, contract.size_px, 3), np.uint8)
    with calm.active():
        model = build(config.model, len(contract.class_names), contract.size_px)
        model = optimize(calm.place(model.eval()), size_px=contract.size_px)

        def evaluate() -> None:
            predict_logits(model, pixels, contract, calm)

        seconds = _median_seconds(evaluate, calm)
    return replace(size_of(config, dataset), image_seconds=seconds / BATCH_SIZE)


def _measure(config: RunConfig, dataset: Dataset, policy: Policy) -> Cost:
    dataset = pixels_on_device(dataset, policy)
    contract, recipe = dataset.contract, config.recipe
    model = policy.place(build(config.model, len(contract.class_names), contract.size_px))
    optimizer = make_optimizer(model, recipe.train, config.model, policy.torch_dtype)
    averaged = average_weights(model, recipe.train.ema_fraction, 1000)
    fixed_norms = norms_to_fix(model, recipe.train)
    chosen = np.arange(min(recipe.train.batch_size, len(dataset.train)))

    def step(size_px: int) -> None:
        batch = make_batch(dataset, recipe, policy, config.seed, 0, chosen, size_px)
        train_step(
            model,
            optimizer,
            batch.images_BCHW,
            batch.targets,
            label_smoothing=recipe.train.label_smoothing,
            policy=policy,
            fixed_norms=fixed_norms,
        )
        if recipe.train.ema_fraction:
            averaged.update_parameters(model)

    def seconds_at(size_px: int) -> float:
        return _median_seconds(lambda: step(size_px), policy)

    step_seconds = seconds_at(contract.size_px)
    small_px = small_size_px(config.model, contract.size_px, recipe.train)
    if small_px < contract.size_px:
        share = recipe.train.small_share
        step_seconds = share * seconds_at(small_px) + (1 - share) * step_seconds
    rows = dataset.validation.rows[:BATCH_SIZE]

    def evaluate() -> None:
        predict_logits(model, dataset.pixels, contract, policy, rows=rows)

    evaluate_seconds = _median_seconds(evaluate, policy)
    return replace(
        size_of(config, dataset),
        step_seconds=step_seconds,
        image_seconds=evaluate_seconds / len(rows),
    )


def size_of(config: RunConfig, dataset: Dataset) -> Cost:
    """Return a network's cost as far as it is known without running it: no seconds."""
    contract = dataset.contract
    model = outline(config.model, len(contract.class_names), contract.size_px)
    return Cost(0.0, 0.0, count_parameters(model), multiply_adds(model, contract.size_px))


def _median_seconds(action: Callable[[], None], policy: Policy) -> float:
    def seconds_of_some(most_seconds: float, most_times: int) -> list[float]:
        seconds: list[float] = []
        while not seconds or (sum(seconds) < most_seconds and len(seconds) < most_times):
            start = time.perf_counter()
            action()
            if policy.device == "cuda":
                torch.cuda.synchronize()
            elif policy.device == "mps":
                torch.mps.synchronize()
            seconds.append(time.perf_counter() - start)
        return seconds

    seconds_of_some(WARMING_SECONDS, NUM_WARMING_STEPS)
    return median(seconds_of_some(MEASURING_SECONDS, NUM_STEPS_AT_MOST))

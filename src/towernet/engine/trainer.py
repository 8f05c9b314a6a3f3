"""Training of one network from the first step to the last.

The order in which random numbers are drawn, sums are added and files are written determines the
bytes of the result, and what is left if the process is killed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from towernet import files, rng
from towernet.config import RunConfig
from towernet.data.prepare import Dataset
from towernet.engine import checkpoint
from towernet.engine.attention_log import attention_figures, watched_gates
from towernet.engine.batches import (
    PREFETCH_DEPTH,
    Batch,
    epoch_batches,
    pixels_on_device,
    prefetch,
    steps_per_epoch,
)
from towernet.engine.device import Policy
from towernet.engine.learner import Learner, run_seed
from towernet.engine.memory import peak_memory_mib
from towernet.engine.record import identity
from towernet.engine.runlog import RunLog
from towernet.engine.schedule import learning_rate, training_size_px
from towernet.engine.session import Session
from towernet.engine.start import Started
from towernet.engine.state import State
from towernet.engine.validation import validate
from towernet.errors import DataError, Diverged, Interrupted
from towernet.records.base import checked
from towernet.records.run import WEIGHTS_FILE, EpochMetrics, EpochTiming, Plan
from towernet.records.scores import deciding

# Waiting for a GPU at every step would leave it idle; a bad loss is detected this many steps late.
NUM_STEPS_UNREAD = {"cpu": 1, "mps": 20, "cuda": 50}
# A kill costs the work since the last state, which is promised to be five minutes at most: these
# four, and the step or evaluation in between. A shorter run writes no state unless it is stopped.
SECONDS_BETWEEN_SAVES = 240.0


class UnreadLoss(NamedTuple):
    """The result of a step, still on the device."""

    step: int
    loss: Tensor
    num_correct: Tensor
    num_images: int


class Best(NamedTuple):
    """The best weights so far, as long as they are only in memory."""

    step: int
    weights: dict[str, Tensor]
    meta: dict[str, Any]


@dataclass
class Clock:
    """Time of an epoch since it was started or resumed, and the number of images trained on."""

    started: float = field(default_factory=time.perf_counter)
    num_images: int = 0
    train_seconds: float = 0.0

    def seconds(self) -> float:
        """Return the seconds until now."""
        return time.perf_counter() - self.started


class Trainer:
    """Trains one network to the end of its plan, or resumes where it was stopped.

    Args:
        config: The run's config.
        dataset: Its images.
        session: The folder, and where progress is reported.
        plan: What was decided before the first step.
        is_trial: Whether no weights are kept.
        prefetch_depth: Batches made ahead; None: the device's default.
        started: The network with a fitted head, where it starts from weights.
    """

    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset,
        session: Session,
        plan: Plan,
        *,
        is_trial: bool = False,
        prefetch_depth: int | None = None,
        started: Started | None = None,
    ) -> None:
        self.config, self.plan, self.policy = config, plan, Policy.of(plan.policy)
        self.folder, self.progress, self.stop = session.folder, session.progress, session.stop
        self.is_trial = is_trial
        device = self.policy.device
        self.prefetch_depth = PREFETCH_DEPTH[device] if prefetch_depth is None else prefetch_depth
        self.recipe = config.recipe if plan.mixes else config.recipe.unmixed()
        self.dataset, self.contract = pixels_on_device(dataset, self.policy), dataset.contract
        self.steps_per_epoch = steps_per_epoch(len(dataset.train), self.recipe.train.batch_size)
        num_train_K = np.bincount(dataset.train.labels, minlength=len(self.contract.class_names))
        self.started = started
        tensors = None if started is None else started.tensors
        self.learner = Learner(config, self.recipe, plan, self.contract, num_train_K, tensors)
        self.seed = run_seed(config)
        self.state = State(run=identity(config, plan))
        self.best: Best | None = None
        self.unread: list[UnreadLoss] = []
        self.saved = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether the last step was taken."""
        return self.state.step >= self.plan.num_steps

    @property
    def must_save(self) -> bool:
        """Whether minutes passed since the last state, or the user wants to stop."""
        overdue = time.monotonic() - self.saved > SECONDS_BETWEEN_SAVES
        return not self.is_over and bool(self.stop.exit_code or overdue)

    def run(self) -> State:
        """Train to the last step, epoch by epoch.

        Returns:
            The final state, with the lines of all epochs.

        Raises:
            DataError: the state on disk is from another run.
            Diverged: a loss is NaN or Inf.
            Interrupted: the user stopped it; the state is on disk.
        """
        self.resume()
        self.count_start()
        log = RunLog(self.folder, self.state.metrics, self.state.timings)
        self.progress.begin(
            self.config.model, self.state.step, self.plan.num_steps, self.steps_per_epoch
        )
        try:
            while not self.is_over:
                self.train_epoch(log)
        except (Diverged, Interrupted):
            log.write(self.state.metrics, self.state.timings)
            raise
        log.write(self.state.metrics, self.state.timings)
        return self.state

    def train_epoch(self, log: RunLog) -> None:
        """Train to the end of the epoch, evaluate, report, and save or stop if necessary."""
        clock = self.run_epoch()
        metrics = self.validate()
        self.keep_best(metrics)
        timing = self.timing(clock)
        self.state.end_epoch(metrics, timing)
        saved = self.must_save
        if saved:
            self.save(seconds=0.0)
            log.write(self.state.metrics, self.state.timings)
        log.add(self.state.metrics, self.state.timings)
        self.progress.epoch(metrics, timing)
        if saved:  # a signal since then stops the run after its next step, and state
            self.stop.raise_if_stopped(self.how_far())

    def resume(self) -> None:
        """Resume from the newest complete state, if there is one; report it."""
        last = self.folder / "last"
        found, damaged = checkpoint.read_state(last)
        for sentence in damaged:
            self.progress.say(sentence)
        if found is not None:
            tensors, values = found
            state = checked(State, values, last)
            if state.run != self.state.run:
                raise DataError(
                    f"{self.folder / 'run.json'} and the checkpoints in {last} are from different"
                    " runs; restore them, or start over with another --out"
                )
            self.learner.restore(tensors)
            self.state = state
        if not (found or damaged) and (self.folder / "metrics.jsonl").exists():
            self.progress.say(f"{last} contains no checkpoint; {self.folder.name} starts over")
        if found or damaged:
            self.progress.say(f"{self.folder.name} resumes after step {self.state.step}")

    def count_start(self) -> None:
        """Let a network with a fitted head count as epoch 0: training may not improve it.

        Not if attention already changes its answers at the start.
        """
        if self.started is None or self.state.metrics or self.state.step:
            return
        if self.config.model.block is None or self.config.model.block_start == "identity":
            self.keep_best(self.started.metrics)
            self.state.end_epoch(self.started.metrics, self.started.timing)

    def run_epoch(self) -> Clock:
        """Train to the end of the epoch, or of the run; save and stop in between if necessary."""
        clock = Clock()
        epoch, first = divmod(self.state.step, self.steps_per_epoch)
        batches = prefetch(lambda: self.batches(epoch, first), self.prefetch_depth)
        for batch in batches:
            self.take_step(batch)
            clock.num_images += len(batch.labels_B)
            if len(self.unread) >= NUM_STEPS_UNREAD[self.policy.device]:
                loss = self.read_losses()
                speed = clock.num_images / clock.seconds()
                self.progress.step(self.state.step, loss, self.state.train_accuracy, speed)
            # At the end of an epoch, evaluation comes first, then saving or stopping.
            if self.state.step % self.steps_per_epoch and self.must_save:
                self.read_losses()
                self.save(seconds=self.state.seconds + clock.seconds())
                self.stop.raise_if_stopped(self.how_far())
            if self.is_over:
                break
        batches.close()
        self.read_losses()
        clock.train_seconds = clock.seconds()
        return clock

    def batches(self, epoch: int, first: int) -> Iterator[Batch]:
        """Return an epoch's batches, starting at number `first`."""
        return epoch_batches(
            self.dataset,
            self.recipe,
            self.policy,
            seed=self.seed,
            epoch=epoch,
            first=first,
            size_px=self.size_px_of,
        )

    def size_px_of(self, step: int) -> int:
        """Return the side of a step's images, in pixels."""
        name, size_px = self.config.model, self.contract.size_px
        return training_size_px(step, self.plan.num_steps, name, size_px, self.recipe.train)

    def rate_of(self, step: int) -> float:
        """Return the learning rate of a step."""
        num_steps, peak = self.plan.num_steps, self.plan.learning_rate
        return learning_rate(step, num_steps, self.recipe.train, peak)

    def take_step(self, batch: Batch) -> None:
        """Train on one batch; leave its loss on the device."""
        step = self.state.step
        seed = rng.derive(self.seed, "step", step)
        loss, logits_BK = self.learner.take_step(batch, self.rate_of(step), seed)
        num_correct = (logits_BK.argmax(dim=1) == batch.labels_B).sum()
        self.unread.append(UnreadLoss(step, loss, num_correct, len(batch.labels_B)))
        self.state.step += 1

    def read_losses(self) -> float:
        """Wait for the device, and add up the results of the steps since the last call.

        Returns:
            The loss of the last step; NaN if there was none.

        Raises:
            Diverged: a loss is NaN or Inf.
        """
        loss = math.nan
        for step, loss_on_device, num_correct, num_images in self.unread:
            loss = loss_on_device.item()
            if not math.isfinite(loss):
                raise Diverged(
                    f"{self.config.model}: the loss became {loss} at step {step + 1} of"
                    f" {self.plan.num_steps} (learning rate {self.rate_of(step):.3g}); set a"
                    " smaller train.learning_rate in a recipe"
                )
            self.state.count(loss, int(num_correct.item()), num_images)
        self.unread.clear()
        return loss

    def validate(self) -> EpochMetrics:
        """Evaluate on the validation images; return the epoch's line of the metrics.

        Raises:
            Diverged: the loss is NaN or Inf.
        """
        state, rate = self.state, self.rate_of(self.state.step - 1)
        with watched_gates(self.learner.evaluated) as gates:
            loss, accuracy, balanced = validate(
                self.learner.evaluated,
                self.dataset.pixels,
                self.dataset.validation,
                self.contract,
                self.policy,
                self.config.measure,
            )
        if not math.isfinite(loss):
            raise Diverged(
                f"{self.config.model}: the validation loss became {loss} after step {state.step}"
                f" (learning rate {rate:.3g}); set a smaller train.learning_rate in a recipe"
            )
        return EpochMetrics(
            epoch=round(state.step / self.steps_per_epoch, 4),
            step=state.step,
            learning_rate=rate,
            train_loss=state.train_loss,
            train_accuracy=state.train_accuracy,
            validation_loss=loss,
            validation_accuracy=accuracy,
            attention=attention_figures(self.learner.model, gates) if gates else None,
            validation_balanced=balanced,
        )

    def keep_best(self, metrics: EpochMetrics) -> None:
        """Copy the weights if this epoch is the best so far."""
        state = self.state
        if not state.is_best(metrics):
            return
        best = deciding(metrics)
        state.best_epoch, state.best_loss = metrics.epoch, best.loss
        state.best_accuracy = best.accuracy
        if not self.is_trial:
            # In the computer's memory: a GPU has less, and the epochs until the next state may
            # improve them again.
            weights = self.learner.evaluated.state_dict()
            self.best = Best(
                state.step,
                {name: tensor.to("cpu", copy=True) for name, tensor in weights.items()},
                metrics.model_dump(include={"epoch", "validation_accuracy"}),
            )

    def timing(self, clock: Clock) -> EpochTiming:
        """Return the epoch's line of the timings."""
        return EpochTiming(
            step=self.state.step,
            train_seconds=clock.train_seconds + self.state.seconds,
            images_per_second=clock.num_images / clock.train_seconds,
            seconds=clock.seconds() + self.state.seconds,
            peak_memory_mib=peak_memory_mib(self.policy.device),
        )

    def save(self, *, seconds: float) -> None:
        """Write the state, and the best weights unless an earlier state did.

        Args:
            seconds: Those of an unfinished epoch.
        """
        last = self.folder / "last"
        if self.best is not None:
            name = f"best-{self.best.step:09d}.safetensors"
            sha256 = checkpoint.write_weights(last / name, self.best.weights, self.best.meta)
            self.state.best, self.best = {name: sha256}, None
        state = self.state.model_copy(update={"seconds": seconds})
        checkpoint.write_state(
            last, state.step, self.learner.tensors(), state.model_dump(), state.best
        )
        self.saved = time.monotonic()

    def keep_weights(self) -> str | None:
        """Write the best weights as `best.safetensors`, or give those of a state this name.

        Returns:
            Their hash; None for a trial.
        """
        path = self.folder / WEIGHTS_FILE
        if self.best is not None:
            return checkpoint.write_weights(path, self.best.weights, self.best.meta)
        for name, sha256 in self.state.best.items():
            files.link(self.folder / "last" / name, path, sha256)
            return sha256
        return None

    def how_far(self) -> str:
        """Return what is kept of the run, for the message to the user who stops it."""
        return f"{self.folder} is complete up to step {self.state.step} of {self.plan.num_steps}"

"""One network on its way from the first step to the last: each method is a step of the story.

The order in which random numbers are drawn, sums are added up and files are written decides the
bytes a run ends in, and what a kill leaves behind.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from towernet import rng
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
from towernet.engine.state import State
from towernet.engine.validation import validate
from towernet.errors import DataError, Diverged
from towernet.records.base import checked
from towernet.records.run import EpochMetrics, EpochTiming, Plan

# Waiting for a GPU at every step would leave it idle; a bad loss is noticed this many steps late.
NUM_STEPS_UNREAD = {"cpu": 1, "mps": 20, "cuda": 50}
# In an epoch longer than this its state is saved half way: a power cut costs minutes, not hours.
SECONDS_BETWEEN_SAVES = 300.0


class UnreadLoss(NamedTuple):
    """What a step came to, still on the device."""

    step: int
    loss: Tensor
    num_correct: Tensor
    num_images: int


@dataclass
class Clock:
    """How long an epoch takes, since it began or was resumed, and how many images it trained on."""

    started: float = field(default_factory=time.perf_counter)
    num_images: int = 0
    train_seconds: float = 0.0

    def seconds(self) -> float:
        """Return the seconds until now."""
        return time.perf_counter() - self.started


class Trainer:
    """Trains one network to the end of its plan, or goes on where it was stopped.

    Args:
        config: What the run is.
        dataset: Its images.
        session: Where it is written, and who watches.
        plan: What was decided before the first step.
        resumable: Whether weights and states are kept.
        prefetch_depth: How many batches are made ahead; None: as the device needs.
    """

    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset,
        session: Session,
        plan: Plan,
        *,
        resumable: bool = True,
        prefetch_depth: int | None = None,
    ) -> None:
        self.config, self.plan, self.policy = config, plan, Policy.of(plan.policy)
        self.folder, self.progress, self.stop = session.folder, session.progress, session.stop
        self.resumable = resumable
        device = self.policy.device
        self.prefetch_depth = PREFETCH_DEPTH[device] if prefetch_depth is None else prefetch_depth
        self.recipe = config.recipe if plan.mixes else config.recipe.unmixed()
        self.dataset, self.contract = pixels_on_device(dataset, self.policy), dataset.contract
        self.steps_per_epoch = steps_per_epoch(len(dataset.train), self.recipe.train.batch_size)
        self.learner = Learner(config, self.recipe, plan, self.contract)
        self.seed = run_seed(config)
        self.state = State(run=identity(config, plan))
        self.unread: list[UnreadLoss] = []
        self.saved = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether the last step was taken."""
        return self.state.step >= self.plan.num_steps

    def run(self) -> State:
        """Train to the last step, epoch by epoch.

        Returns:
            Where the run ended, with the lines of all its epochs.

        Raises:
            DataError: the state that is found is another run's.
            Diverged: a loss is not a number.
            Interrupted: the user asked to stop; the state is on disk.
        """
        if self.resumable:
            self.resume()
        log = RunLog(self.folder, self.state.metrics, self.state.timings)
        self.progress.begin(
            self.config.model, self.state.step, self.plan.num_steps, self.steps_per_epoch
        )
        while not self.is_over:
            clock = self.run_epoch()
            metrics = self.validate()
            self.keep_best(metrics)
            timing = self.timing(clock)
            self.state.end_epoch(metrics, timing)
            # The state is first: it holds the lines too, and with it the epoch is never done again.
            self.save(seconds=0.0)
            log.write(self.state.metrics, self.state.timings)
            self.progress.epoch(metrics, timing)
            if not self.is_over:
                self.stop.raise_if_asked(self.how_far())
        return self.state

    def resume(self) -> None:
        """Go on from the newest whole state, where there is one; say so."""
        last = self.folder / "last"
        found, damaged = checkpoint.read_state(last)
        for sentence in damaged:
            self.progress.say(sentence)
        if found is not None:
            tensors, values = found
            state = checked(State, values, last)
            if state.run != self.state.run:
                raise DataError(
                    f"{self.folder / 'run.json'} is not what the states beside it were made by;"
                    " restore it, or begin anew with another --out"
                )
            self.learner.restore(tensors)
            self.state = state
        if not (found or damaged) and (self.folder / "metrics.jsonl").exists():
            self.progress.say(f"no state is left in {last}: {self.folder.name} begins anew")
        if found or damaged:
            self.progress.say(f"{self.folder.name} goes on after step {self.state.step}")

    def run_epoch(self) -> Clock:
        """Train to the end of the epoch, or of the run; save and stop in between where need be."""
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
            # At an epoch's end it is evaluated first, and then saved or stopped.
            within = self.state.step % self.steps_per_epoch and not self.is_over
            overdue = time.monotonic() - self.saved > SECONDS_BETWEEN_SAVES
            if within and (self.stop.exit_code or overdue):
                self.read_losses()
                self.save(seconds=self.state.seconds + clock.seconds())
                self.stop.raise_if_asked(self.how_far())
            if self.is_over:
                break
        batches.close()
        self.read_losses()
        clock.train_seconds = clock.seconds()
        return clock

    def batches(self, epoch: int, first: int) -> Iterator[Batch]:
        """Return an epoch's batches from number `first` on."""
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
        """Learn from one batch; what comes of it is left on the device."""
        step = self.state.step
        seed = rng.derive(self.seed, "step", step)
        loss, logits_BK = self.learner.take_step(batch, self.rate_of(step), seed)
        num_correct = (logits_BK.argmax(dim=1) == batch.labels_B).sum()
        self.unread.append(UnreadLoss(step, loss, num_correct, len(batch.labels_B)))
        self.state.step += 1

    def read_losses(self) -> float:
        """Wait for the device, and add up what the steps since the last time came to.

        Returns:
            The loss of the last step; NaN if all were read before.

        Raises:
            Diverged: one is not a number.
        """
        loss = math.nan
        for step, loss_on_device, num_correct, num_images in self.unread:
            loss = loss_on_device.item()
            if not math.isfinite(loss):
                raise Diverged(
                    f"{self.config.model}: the loss became {loss} at step {step + 1} of"
                    f" {self.plan.num_steps} (learning rate {self.rate_of(step):.3g}); give a"
                    " smaller train.learning_rate in a recipe"
                )
            self.state.count(loss, int(num_correct.item()), num_images)
        self.unread.clear()
        return loss

    def validate(self) -> EpochMetrics:
        """Ask the network about the validation images; return the epoch's line of the metrics.

        Raises:
            Diverged: the loss is not a number.
        """
        state, rate = self.state, self.rate_of(self.state.step - 1)
        with watched_gates(self.learner.evaluated) as gates:
            loss, accuracy = validate(
                self.learner.evaluated,
                self.dataset.pixels,
                self.dataset.validation,
                self.contract,
                self.policy,
            )
        if not math.isfinite(loss):
            raise Diverged(
                f"{self.config.model}: the validation loss became {loss} after step {state.step}"
                f" (learning rate {rate:.3g}); give a smaller train.learning_rate in a recipe"
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
        )

    def keep_best(self, metrics: EpochMetrics) -> None:
        """Write the weights down if no epoch before had better ones."""
        state = self.state
        if not state.is_best(metrics):
            return
        state.best_epoch, state.best_loss = metrics.epoch, metrics.validation_loss
        state.best_accuracy = metrics.validation_accuracy
        if self.resumable:
            name = f"best-{state.step:09d}.safetensors"
            weights = self.learner.evaluated.state_dict()
            meta = metrics.model_dump(include={"epoch", "validation_accuracy"})
            state.best = {
                name: checkpoint.write_weights(self.folder / "last" / name, weights, meta)
            }

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
        """Write the state; the seconds are those of an epoch that is not over."""
        if self.resumable:
            state = self.state.model_copy(update={"seconds": seconds})
            checkpoint.write_state(
                self.folder / "last",
                state.step,
                self.learner.tensors(),
                state.model_dump(),
                state.best,
            )
        self.saved = time.monotonic()

    def how_far(self) -> str:
        """Say what is kept of the run, to whoever stops it."""
        if not self.resumable:
            return f"the trial in {self.folder} begins anew"
        return f"{self.folder} is complete up to step {self.state.step} of {self.plan.num_steps}"

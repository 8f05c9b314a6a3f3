"""Training the networks of a protocol, run by run; an error of one network stops only that one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from towernet import files
from towernet.comparison.folders import OutFolder
from towernet.comparison.forecast import trial_rates, trial_steps
from towernet.comparison.outcome import Failure, Finished, Outcome
from towernet.config import RunConfig
from towernet.data.prepare import Dataset
from towernet.engine.checkpoint import drop_state
from towernet.engine.memory import is_out_of_memory, out_of_memory_words
from towernet.engine.record import read_trained
from towernet.engine.runlog import log_failure, mean_seconds, training_seconds
from towernet.engine.session import Session
from towernet.engine.train import train
from towernet.errors import (
    Diverged,
    EnvironmentFault,
    Interrupted,
    TowernetError,
    TrainingError,
    first_line_of,
)
from towernet.names import NetworkName
from towernet.records.ledger import (
    Ledger,
    RunFailed,
    RunOnFewerFailed,
    RunOnShotsFailed,
    Trial,
)
from towernet.records.protocol import Protocol
from towernet.records.run import Plan, RunSummary
from towernet.words import counted

NO_RATE = 0.0  # of a frozen network, whose last layer is fitted without steps


@dataclass(frozen=True)
class Runs:
    """The runs of one protocol.

    Args:
        protocol: The protocol, frozen before the first step.
        session: The images, the folder and the device.
        out: The folder of a comparison or of a single run.
        ledger: The events so far.
        dataset_of: The images of each repetition, as a network takes them.
    """

    protocol: Protocol
    session: Session
    out: OutFolder
    ledger: Ledger
    dataset_of: Callable[[int, NetworkName], Dataset]

    def trial(self, name: NetworkName, rate: float) -> Trial:
        """Train a network for a short time with this learning rate, unless that was done.

        Only the ledger keeps it.
        """
        folder = self.out.trial_folder(name, self._number_of(name, rate))
        trial = self.ledger.find(Trial, network=name, learning_rate=rate)
        if trial is None:
            self.session.progress.say(f"{name}, trial of learning rate {rate:.3g}")
            trial = self._trial(name, rate, folder)
            self.ledger.add(trial)
        # Also after a kill before it was removed; and the parent, if it is empty.
        files.remove(folder)
        with contextlib.suppress(OSError):
            folder.parent.rmdir()
        return trial

    def _trial(self, name: NetworkName, rate: float, folder: Path) -> Trial:
        num_steps = self._trial_steps(name)
        ended = self._attempt(
            name, lambda: self._train(name, folder, num_steps, rate, 0, is_trial=True)
        )
        found = None if isinstance(ended, Failure) else ended
        step_seconds, image_seconds = None, None
        if found is not None:
            num_validation = len(self.dataset_of(0, name).validation)
            step_seconds, image_seconds = mean_seconds(folder, num_validation)
        return Trial(
            network=name,
            learning_rate=rate,
            num_steps=num_steps,
            validation_loss=found and found.final_validation_loss,
            validation_accuracy=found and found.final_validation_accuracy,
            validation_balanced=found and found.final_validation_balanced,
            reason=ended.reason if isinstance(ended, Failure) else None,
            seconds=ended.seconds if isinstance(ended, Failure) else training_seconds(folder),
            step_seconds=step_seconds,
            image_seconds=image_seconds,
        )

    def first_run(self, outcome: Outcome) -> Finished | Failure:
        """Train a network for the first time, after moving a run with a replaced rate away."""
        folder = self.out.run_folder(outcome.name, 0)
        replaced = {event.learning_rate for event in outcome.fell_apart}
        if replaced and (folder / "run.json").exists():
            rate = read_trained(folder).plan.learning_rate
            if rate in replaced:
                kept = self.out.trial_folder(outcome.name, self._number_of(outcome.name, rate))
                kept = kept.with_name(f"{kept.name}-run")
                files.remove(kept)
                kept.parent.mkdir(exist_ok=True)
                files.move(folder, kept)
        return self.run(outcome, 0)

    def run(
        self, outcome: Outcome, repetition: int, share: float = 1.0, *, shots: int | None = None
    ) -> Finished | Failure:
        """Train one network once, unless that has already failed.

        Args:
            outcome: The network; a finished run is added to it.
            repetition: Which of its runs.
            share: Of each class's training images.
            shots: So many training images of each class, instead of a share; None: no such limit.
        """
        name, rate = outcome.name, outcome.learning_rate
        if (failed := self._failed_before(outcome, repetition, share, shots)) is not None:
            return failed
        if not self.out.is_single_run:
            of = f" on {100 * share:g} % of the training images" if share < 1 else ""
            if shots is not None:
                of = f" on {counted(shots, 'training image')} of each class"
            with_rate = "" if name.start == "frozen" else f", learning rate {rate:.3g}"
            self.session.progress.say(
                f"{name}{of}, run {repetition + 1} of {self.protocol.request.runs}{with_rate}"
            )
        folder = self.out.run_folder(name, repetition, share, shots)
        num_steps = self.protocol.decided.num_steps[name]
        ended = self._attempt(
            name,
            lambda: self._train(
                name, folder, num_steps, rate, repetition, share=share, shots=shots
            ),
        )
        if isinstance(ended, Failure):
            drop_state(folder / "last")
            self._record_failure(outcome, repetition, share, shots, ended)
            return ended
        outcome.folders.append(folder)
        return Finished(ended, training_seconds(folder))

    def note_failure(self, outcome: Outcome, ended: Finished | Failure) -> None:
        """Mark a network as failed if its run did."""
        if isinstance(ended, Failure):
            outcome.failure = ended.reason
            self.session.progress.say(f"{outcome.name} failed: {ended.reason}")

    def _number_of(self, name: NetworkName, rate: float) -> int:
        return trial_rates(self.protocol.request.recipe_of(name)).index(rate)

    def _trial_steps(self, name: NetworkName) -> int:
        recipe = self.protocol.request.recipe_of(name)
        return trial_steps(recipe, self.protocol.decided.num_steps[name])

    def _failed_before(
        self, outcome: Outcome, repetition: int, share: float, shots: int | None
    ) -> Failure | None:
        which = {
            "network": outcome.name,
            "repetition": repetition,
            "learning_rate": outcome.learning_rate,
        }
        failed: RunFailed | RunOnFewerFailed | RunOnShotsFailed | None
        if shots is not None:
            failed = self.ledger.find(RunOnShotsFailed, **which, shots=shots)
        elif share < 1:
            failed = self.ledger.find(RunOnFewerFailed, **which, train_share=share)
        else:
            failed = self.ledger.find(RunFailed, **which)
        if failed is None:
            return None
        return Failure(failed.reason, failed.diverged, failed.seconds)

    def _record_failure(
        self,
        outcome: Outcome,
        repetition: int,
        share: float,
        shots: int | None,
        failure: Failure,
    ) -> None:
        event = RunFailed(
            network=outcome.name,
            repetition=repetition,
            learning_rate=outcome.learning_rate,
            reason=failure.reason,
            diverged=failure.diverged,
            seconds=failure.seconds,
        )
        values = event.model_dump(exclude={"event"})
        if shots is not None:
            self.ledger.add(RunOnShotsFailed(**values, shots=shots))
        elif share < 1:
            self.ledger.add(RunOnFewerFailed(**values, train_share=share))
        else:
            self.ledger.add(event)

    def _train(
        self,
        name: NetworkName,
        folder: Path,
        num_steps: int,
        rate: float,
        repetition: int,
        *,
        share: float = 1.0,
        shots: int | None = None,
        is_trial: bool = False,
    ) -> RunSummary:
        request, decided = self.protocol.request, self.protocol.decided
        weights = request.weights_of(name)
        config = RunConfig(
            model=name,
            recipe_name=request.recipe_name_of(name),
            recipe=request.recipe_of(name),
            seed=request.seed,
            repetition=repetition,
            images_per_class=request.images_per_class,
            train_share=share,
            shots=shots,
            measure=request.measure,
            weights_sha256=weights and weights.sha256,
        )
        plan = Plan(num_steps, rate, decided.policy, decided.mixes[name])
        session = replace(self.session, folder=folder)
        if self.out.is_single_run:  # its record also serves as the protocol
            origin = session.origin.model_copy(update={"cost": decided.costs[name]})
            session = replace(session, origin=origin)
        with contextlib.nullcontext() if self.out.is_single_run else session.locked():
            dataset = self.dataset_of(repetition, name)
            record = train(config, dataset, session, plan, is_trial=is_trial)
        assert record.summary is not None, "it is finished"
        return record.summary

    def _attempt(self, name: NetworkName, action: Callable[[], RunSummary]) -> RunSummary | Failure:
        """Call the action; return a failure of the network, so that the comparison continues."""
        started = time.monotonic()
        try:
            return action()
        except Interrupted as error:
            raise Interrupted(f"{error}: {self.out.how_to_resume}", error.exit_code) from None
        except Exception as error:
            if self.out.is_single_run:
                self._raise_training_error(name, error)
            reason = self._reason(name, error)
            return Failure(reason, isinstance(error, Diverged), time.monotonic() - started)

    def _reason(self, name: NetworkName, error: Exception) -> str:
        """Return why a network failed; raise errors that are not caused by the network."""
        if isinstance(error, TrainingError):
            return str(error).removeprefix(f"{name}: ")
        if isinstance(error, TowernetError):
            raise error
        if isinstance(error, OSError):
            # Caused by the machine, not by the network, so the network is not marked as failed.
            raise EnvironmentFault(
                f"{first_line_of(error)}; free some space, then rerun the same command"
            ) from error
        return self._words(name, error)

    def _raise_training_error(self, name: NetworkName, error: Exception) -> None:
        """Raise the error of the only network as a training error, unless it is of another kind."""
        if isinstance(error, OSError | TowernetError) and not is_out_of_memory(error):
            raise error
        raise TrainingError(f"{name}: {self._words(name, error)}") from error

    def _words(self, name: NetworkName, error: Exception) -> str:
        if is_out_of_memory(error):
            return out_of_memory_words(self.protocol.request.recipe_of(name).train.batch_size)
        # Any error of a network stops only that network; the log has the traceback.
        return log_failure(self.session.folder, error)

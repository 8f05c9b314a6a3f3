"""A comparison from start to end: plan, learning-rate trials, runs, the test split, the results.

Every step leaves its outcome on disk, so saying the same command again goes on where it stopped.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from towernet import files
from towernet.comparison.conclusion import Outcome, finish, learnt, training_seconds, worth
from towernet.comparison.judging.learning_curve import LAST_DOUBLING, SHARES, FewerImages
from towernet.comparison.plan import (
    budget,
    measure_networks,
    mixes,
    plan_words,
    preflight,
    same_for_all_variants,
    trial_rates,
    trial_steps,
)
from towernet.comparison.protocol import (
    Ledger,
    Protocol,
    go_on,
    note_accepted,
    read_protocol,
)
from towernet.comparison.rates import beats_guessing, best_rate, fell_apart
from towernet.comparison.wording import ablation
from towernet.comparison.wording.verdict import num_pairs, too_few_runs
from towernet.config import AS_BEGUN, Accept, RunConfig
from towernet.data.changes import reconcile
from towernet.data.prepare import Dataset, fingerprint, prepare, sample_table
from towernet.data.source import Source
from towernet.data.table import write_table
from towernet.engine.batches import steps_per_epoch
from towernet.engine.checkpoint import drop_state
from towernet.engine.device import bits_depend_on, choose_policy
from towernet.engine.memory import is_out_of_memory, out_of_memory_words
from towernet.engine.runlog import Watcher, log_failure
from towernet.engine.stop import StopSwitch
from towernet.engine.train import train
from towernet.errors import (
    ConfigError,
    DataError,
    Diverged,
    EnvironmentFault,
    Interrupted,
    TowernetError,
    TrainingError,
    in_one_line,
)
from towernet.models.catalogue import check_size
from towernet.records.protocol import Request
from towernet.records.run import Origin, Plan, RunRecord


def compare(
    request: Request,
    source: Source,
    folder: Path,
    *,
    device: str,
    threads: int | None = None,
    workers: int,
    command: str,
    watcher: Watcher,
    stop: StopSwitch,
    accept: Accept = AS_BEGUN,
) -> dict[str, Any]:
    """Train every network under one protocol, or go on; return what `results.json` holds.

    Raises:
        TowernetError: the request, the images or the machine do not allow it.
        Interrupted: the user asked to stop; the same command goes on.
    """
    for name in request.models:
        check_size(name, request.recipe.data.size_px)
    with files.lock(folder / "lock", holder=str(folder), say=watcher.say):
        protocol = read_protocol(folder / "protocol.toml")
        if protocol is None and not files.is_empty(folder):
            raise ConfigError(
                f"{folder} is not empty and holds no comparison; choose another --out"
            )
        if protocol is None and accept != AS_BEGUN:
            raise ConfigError(
                f"{folder} holds nothing to go on with; leave out --accept-data-change and"
                " --accept-changes"
            )
        files.sweep(folder)
        accepted: list[str] = []
        if protocol is not None:
            protocol, accepted = go_on(
                protocol, folder, request, device=device, threads=threads, accept=accept
            )
        preflight(folder, request, source, workers, watcher)
        table = sample_table(
            source,
            seed=request.seed,
            images_per_class=request.images_per_class,
            workers=workers,
            progress=watcher.count,
        )
        table, changed = reconcile(folder, source.name, table, accept=accept.data)

        @cache
        def dataset_of(repetition: int) -> Dataset:
            return prepare(
                table,
                source,
                request.recipe.data,
                seed=request.seed,
                repetition=repetition,
                workers=workers,
                progress=watcher.count,
            )

        if request.learning_curve and dataset_of(0).final_split == "validation":
            raise ConfigError(
                "--learning-curve needs a test split: without one the images that judge also chose"
                " the network; leave it out, or hold images out (data.test_fraction)"
            )
        if protocol is None:
            protocol = _decide(request, dataset_of(0), folder, device, threads, watcher)
        elif (changed or accepted) and not (folder / "results.json").exists():
            protocol = replace(protocol, fingerprint=fingerprint(dataset_of(0).table))
            # First: a kill in between is then met by the same words said again.
            protocol.write(folder / "protocol.toml")
            note_accepted(folder, [changed, *accepted], dataset_of(0), watcher)
        elif not changed and protocol.fingerprint != fingerprint(dataset_of(0).table):
            raise DataError(
                f"the images are not those {folder} was begun with; put them back, or choose"
                " another --out"
            )
        if not (folder / "samples.parquet").exists():
            write_table(folder / "samples.parquet", dataset_of(0).table)
        origin = {"command": command, "source": source.reading}
        ledger = Ledger(folder / "ledger.jsonl")
        comparison = Comparison(protocol, folder, ledger, dataset_of, watcher, stop, origin, accept)
        outcomes, fewer = [], None
        if not (folder / "results.json").exists():  # what is finished stays as it is
            outcomes = comparison.run_all()
            fewer = comparison.run_with_fewer(outcomes) if request.learning_curve else None
        return finish(
            outcomes,
            folder,
            protocol,
            dataset_of,
            fewer=fewer,
            kind="comparison",
            title=source.name,
            origin=origin,
            watcher=watcher,
        )


def _decide(
    request: Request,
    dataset: Dataset,
    folder: Path,
    device: str,
    threads: int | None,
    watcher: Watcher,
) -> Protocol:
    """Measure, turn minutes into steps, and write it all down before the first step."""
    policy = choose_policy(device, threads)
    costs, failures = measure_networks(request, dataset, policy, watcher)
    num_steps = {
        name: 0 if name in failures else budget(request.recipe, cost, dataset)
        for name, cost in costs.items()
    }
    if request.attention:
        num_steps = same_for_all_variants(num_steps)
    watcher.say(plan_words(request, dataset, costs, num_steps))
    able = [name for name in costs if name not in failures]
    num_comparisons = (
        sum(
            {variant["name"], variant["without"]} <= set(able)
            for variant in ablation.variants(request.models, request.attention)
        )
        if request.attention
        else num_pairs(len(able))
    )
    few = too_few_runs(num_comparisons, request.runs)
    if few is not None and not dataset.leaves_out_anew:
        watcher.say(few)
    protocol = Protocol(
        request,
        fingerprint(dataset.table),
        policy,
        num_steps,
        {name: mixes(request.recipe, steps, dataset) for name, steps in num_steps.items()},
        {name: asdict(cost) for name, cost in costs.items()},
        failures,
        bits_depend_on(policy, request.models),
    )
    protocol.write(folder / "protocol.toml")
    return protocol


# In the ledger: with which learning rate a network began, and how its first run bore it.
_CHOSEN, _LASTED, _FELL_APART = "rate chosen", "rate lasted", "rate fell apart"


@dataclass(frozen=True)
class Failure:
    """Why a network could not be trained, and after how long; one that `diverged` may bear another
    learning rate.
    """

    reason: str
    diverged: bool
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """The runs of one protocol, in one folder."""

    protocol: Protocol
    folder: Path
    ledger: Ledger
    dataset_of: Callable[[int], Dataset]
    watcher: Watcher
    stop: StopSwitch
    origin: dict[str, Any]
    accept: Accept = AS_BEGUN

    def run_all(self) -> list[Outcome]:
        """Do what is not done yet: the trials of every network, then run after run."""
        request = self.protocol.request
        outcomes = [self.choose_learning_rate(name) for name in request.models]
        for repetition in range(request.runs):
            for outcome in outcomes:
                if outcome.failure is None and repetition == 0:
                    self.first_run(outcome)
                elif outcome.failure is None:
                    self.run(outcome, repetition)
        return outcomes

    def run_with_fewer(self, outcomes: list[Outcome]) -> FewerImages | None:
        """Train the network that is best on validation with fewer images; None if none learnt."""
        dataset, best = self.dataset_of(0), None
        for outcome in outcomes:
            if outcome.failure is None:
                runs = [
                    files.read_record(folder / "run.json", "summary")["summary"]
                    for folder in outcome.folders
                ]
                batch_size = self.protocol.request.recipe.train.batch_size
                num_steps = self.protocol.num_steps[outcome.name]
                num_epochs = num_steps / steps_per_epoch(len(dataset.train), batch_size)
                status, _ = learnt(runs, num_epochs, dataset)
                value = worth(runs, self.protocol.costs[outcome.name]["parameters"])
                if status == "ranked" and (best is None or value > best[0]):
                    best = value, outcome
        if best is None:
            return None
        fewer = FewerImages(best[1].name)
        for share in SHARES:
            part = Outcome(best[1].name, best[1].learning_rate)
            for repetition in range(self.protocol.request.runs):
                if part.failure is None:
                    self.run(part, repetition, share)
            if part.failure is None:
                fewer.folders[share] = part.folders
            elif share == LAST_DOUBLING:
                fewer.failure = part.failure
        return fewer

    def choose_learning_rate(self, name: str) -> Outcome:
        """Try each learning rate on a short run of its own, unless that was done; take the best, or
        the next best where a first run has shown what the best is worth.
        """
        recipe = self.protocol.request.recipe
        rates = trial_rates(recipe)
        if (reason := self.protocol.failures.get(name)) is not None:
            return Outcome(name, rates[0], failure=reason)
        num_steps = trial_steps(recipe, self.protocol.num_steps[name])
        if num_steps == 0:
            return Outcome(name, rates[0])
        trials = []
        for i, rate in enumerate(rates):
            trial = self.ledger.find("trial", network=name, learning_rate=rate)
            if trial is None:
                self.watcher.say(f"{name}, trial of learning rate {rate:.3g}")
                trial = self._trial(
                    name, self.folder / "trials" / f"{_file_name(name)}-{i}", num_steps, rate
                )
            trials.append(trial)
        outcome = Outcome(name, rates[0], trials)
        if not outcome.finished_trials:
            return replace(outcome, failure=trials[-1]["reason"])
        chosen = self.ledger.find(_CHOSEN, network=name)
        if chosen is None:
            finished = outcome.finished_trials
            chosen = self.ledger.add(
                _CHOSEN,
                network=name,
                learning_rate=self._best_rate(finished),
                by_trials=any(beats_guessing(trial, self.dataset_of(0)) for trial in finished),
            )
        outcome.learning_rate, outcome.rate_by_trials = chosen["learning_rate"], chosen["by_trials"]
        for event in self.ledger.find_all(_FELL_APART, network=name):
            self._leave_rate(outcome, event)
        return outcome

    def _best_rate(self, trials: list[dict[str, Any]]) -> float:
        own_rate = self.protocol.request.recipe.train.learning_rate
        return best_rate(trials, own_rate, self.dataset_of(0))

    def first_run(self, outcome: Outcome) -> None:
        """Train a network once; where that falls apart, again with the rate that did next best.

        A short trial may like a rate that a whole run, which stays longer near its height, does not
        bear: then it would be the rate that is compared, and not the network.
        """
        while True:
            failure = self._run_once(outcome, repetition=0)
            event = self._fallen(outcome, failure)
            if event is None:
                self._note(outcome, failure)
                return
            # Written down before it is acted on: killed in between, the next start acts on it.
            self.ledger.add(_FELL_APART, **event)
            self._leave_rate(outcome, event)
            self.watcher.say(
                f"{outcome.name} {'diverged' if event['diverged'] else 'fell apart'} under learning"
                f" rate {event['learning_rate']:.3g}: it goes on with {outcome.learning_rate:.3g}"
            )

    def _fallen(self, outcome: Outcome, failure: Failure | None) -> dict[str, Any] | None:
        """Return what is written down of a first run that fell apart while another rate is left to
        go on with; None where the run stands.
        """
        name, rate = outcome.name, outcome.learning_rate
        trial = next((t for t in outcome.trials if t["learning_rate"] == rate), None)
        if trial is None or (failure is not None and not failure.diverged):
            return None
        accuracy = None
        if failure is None:
            if self.ledger.find(_LASTED, network=name, learning_rate=rate) is not None:
                return None
            run = files.read_record(outcome.folders[0] / "run.json", "summary")["summary"]
            if not fell_apart(run, trial, self.dataset_of(0)):
                self.ledger.add(_LASTED, network=name, learning_rate=rate)
                return None
            accuracy = run["final_validation_accuracy"]
        event = {"network": name, "learning_rate": rate, "diverged": failure is not None}
        left = replace(outcome, fell_apart=[*outcome.fell_apart, event]).trials_left
        if not left:
            return None
        return event | {
            "validation_accuracy": accuracy,
            "instead": self._best_rate(left),
            "seconds": training_seconds(outcome.folders[0]) if failure is None else failure.seconds,
        }

    def _leave_rate(self, outcome: Outcome, event: dict[str, Any]) -> None:
        """Go on with the next rate; the run that fell apart is kept among the trials."""
        name, rate = outcome.name, event["learning_rate"]
        folder = self._run_folder(name, repetition=0)
        record = folder / "run.json"
        if record.exists() and files.read_record(record, "plan")["plan"]["learning_rate"] == rate:
            number = [trial["learning_rate"] for trial in outcome.trials].index(rate)
            kept = self.folder / "trials" / f"{_file_name(name)}-{number}-run"
            files.remove(kept)
            files.move(folder, kept)
        outcome.folders.clear()
        outcome.fell_apart.append(event)
        outcome.learning_rate = event["instead"]

    def _trial(self, name: str, folder: Path, num_steps: int, rate: float) -> dict[str, Any]:
        # A trial that was interrupted begins anew: it is short and keeps no state.
        files.remove(folder)
        figures: dict[str, Any] = {}
        started = time.monotonic()
        failure = self._attempt(
            lambda: figures.update(
                dict(self._train(name, folder, num_steps, rate, 0, resumable=False).summary or ())
            )
        )
        return self.ledger.add(
            "trial",
            network=name,
            learning_rate=rate,
            num_steps=num_steps,
            # The last evaluation, not the best: a rate that falls apart late is no good rate.
            validation_loss=figures.get("final_validation_loss"),
            validation_accuracy=figures.get("final_validation_accuracy"),
            reason=failure and failure.reason,
            seconds=time.monotonic() - started,
        )

    def run(self, outcome: Outcome, repetition: int, share: float = 1.0) -> None:
        """Train one network once, on a share of the images, or note why it could not be."""
        self._note(outcome, self._run_once(outcome, repetition, share))

    def _note(self, outcome: Outcome, failure: Failure | None) -> None:
        if failure is not None:
            outcome.failure = failure.reason
            self.watcher.say(f"{outcome.name} failed: {failure.reason}")

    def _run_once(self, outcome: Outcome, repetition: int, share: float = 1.0) -> Failure | None:
        name, request, rate = outcome.name, self.protocol.request, outcome.learning_rate
        of = ""
        event: dict[str, Any] = {"event": "run failed"}
        if share < 1:
            of = f" on {100 * share:g} % of the training images"
            event = {"event": "run on fewer images failed", "train_share": share}
        event |= {"network": name, "repetition": repetition, "learning_rate": rate}
        if (failed := self.ledger.find(**event)) is not None:
            return Failure(failed["reason"], failed["diverged"], failed["seconds"])
        self.watcher.say(
            f"{name}{of}, run {repetition + 1} of {request.runs}, learning rate {rate:.3g}"
        )
        folder, num_steps = self._run_folder(name, repetition, share), self.protocol.num_steps[name]
        failure = self._attempt(
            lambda: self._train(name, folder, num_steps, rate, repetition, share=share)
        )
        if failure is None:
            outcome.folders.append(folder)
        else:
            drop_state(folder / "last")
            self.ledger.add(**event, **asdict(failure))
        return failure

    def _run_folder(self, name: str, repetition: int, share: float = 1.0) -> Path:
        less = f"-{100 * share:g}-percent" if share < 1 else ""
        return self.folder / "runs" / f"{_file_name(name)}-{repetition}{less}"

    def _train(
        self,
        name: str,
        folder: Path,
        num_steps: int,
        rate: float,
        repetition: int,
        *,
        share: float = 1.0,
        resumable: bool = True,
    ) -> RunRecord:
        request = self.protocol.request
        config = RunConfig(
            model=name,
            recipe_name=request.recipe_name,
            recipe=request.recipe,
            seed=request.seed,
            repetition=repetition,
            images_per_class=request.images_per_class,
            train_share=share,
        )
        with files.lock(folder / "lock", holder=str(folder)):
            return train(
                config,
                self.dataset_of(repetition),
                folder,
                Plan(num_steps, rate, self.protocol.policy, self.protocol.mixes[name]),
                watcher=self.watcher,
                stop=self.stop,
                origin=Origin(**self.origin),
                accept=self.accept,
                resumable=resumable,
            )

    def _attempt(self, action: Callable[[], Any]) -> Failure | None:
        """Do it; a network's own failure is returned, and the comparison goes on."""
        started, diverged = time.monotonic(), False
        try:
            action()
            return None
        except Interrupted as error:
            raise Interrupted(f"{error}: say the same command again", error.exit_code) from None
        except TrainingError as error:
            reason = str(error).partition(": ")[2]  # after the network's name
            diverged = isinstance(error, Diverged)
        except TowernetError:
            raise
        except OSError as error:
            # The machine's fault, not the network's: nothing is written down against it.
            raise EnvironmentFault(
                f"{in_one_line(error)}; make room, then say the same command again"
            ) from error
        except Exception as error:
            if is_out_of_memory(error):
                reason = out_of_memory_words(self.protocol.request.recipe.train.batch_size)
            else:  # whatever a network raises costs that network alone; the log keeps the rest
                reason = log_failure(self.folder, error)
        return Failure(reason, diverged, time.monotonic() - started)


def _file_name(model_name: str) -> str:
    """Return a network's name as a folder can have it, on any system and in any shell."""
    plain = model_name.replace(":", "_").replace("/", "_")
    short = re.sub(r"[^\w.+@-]", "_", plain)[:80]
    return short if short == plain else f"{short}-{files.digest(model_name)[:8]}"

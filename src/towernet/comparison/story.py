"""A comparison from start to end: plan, learning-rate trials, runs, the test split, the results.

Every step writes its outcome to disk, so rerunning the same command continues where it stopped.
A single run is a comparison of one network.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial

import numpy as np

from towernet import files
from towernet.comparison.conclusion import conclude, finished
from towernet.comparison.costs import (
    are_checked_by_trials,
    check_by_trials,
    correction_words,
    has_trials,
    measure_networks,
    steps_of,
    unchecked_words,
    with_final_steps,
)
from towernet.comparison.fewer_images import run_with_fewer, run_with_shots
from towernet.comparison.folders import ComparisonFolder, OutFolder, RunFolder
from towernet.comparison.forecast import (
    busy_words,
    bytes_in_all,
    mixes,
    preflight,
    too_short_words,
    trial_rates,
)
from towernet.comparison.judging.pairs import pairs_between
from towernet.comparison.judging.significance import min_runs
from towernet.comparison.outcome import Outcome
from towernet.comparison.protocol import (
    make_protocol,
    resumed,
    same_weights,
)
from towernet.comparison.rates import RateSearch
from towernet.comparison.runs import NO_RATE, Runs
from towernet.comparison.wording.verdict import too_few_runs
from towernet.config import DataConfig
from towernet.data.changes import reconcile
from towernet.data.left_out import before_training
from towernet.data.prepare import Dataset, fingerprint, prepare, sample_table
from towernet.data.table import write_table
from towernet.engine.device import Policy, bits_depend_on, choose_policy
from towernet.engine.load import LoadMeter
from towernet.engine.session import Session
from towernet.engine.start import part_features
from towernet.errors import ConfigError, DataError, TrainingError
from towernet.models.catalogue import require_size
from towernet.names import NetworkName
from towernet.records.ledger import ChangeAccepted, FeaturesReady, Ledger, StepsFixed
from towernet.records.protocol import Decided, Images, Protocol, Request, variants
from towernet.records.results import Conclusion
from towernet.starts.overlap import require_no_overlap
from towernet.words import counted, in_bytes

DatasetOf = Callable[[int, NetworkName], Dataset]


def compare(request: Request, session: Session) -> Conclusion:
    """Train every network under one protocol, or resume; return the content of `results.json`.

    Raises:
        TowernetError: the request, the images or the machine do not allow it.
        Interrupted: the user requested a stop; the same command resumes.
    """
    return _carry_out(request, session, ComparisonFolder(session))


def train_single_run(request: Request, session: Session, *, resume: bool = False) -> Conclusion:
    """Train one network in its own folder, or resume; return the content of `results.json`.

    Raises:
        TowernetError: the request, the images or the machine do not allow it.
        Interrupted: the user requested a stop; the session's folder can be resumed.
    """
    assert len(request.models) == 1, "several networks are a comparison"
    return _carry_out(request.single(), session, RunFolder(session, resume=resume))


def _carry_out(request: Request, session: Session, out: OutFolder) -> Conclusion:
    for name in request.models:
        require_size(name, request.recipe_of(name).data.size_px)
    with session.locked():
        protocol, accepted = out.existing_protocol(), list[str]()
        files.sweep(session.folder)
        if protocol is not None:
            if protocol.request.reading is None:  # made when there was one way to read images
                request = request.model_copy(update={"reading": None})
            request = same_weights(protocol.request, request, session.folder)
            protocol, accepted = resumed(protocol, request, session)
        preflight(request, session)
        dataset_of, changed = _open_images(request, session)
        if protocol is None or changed:
            _require_unseen(request, dataset_of, session)
        ledger = Ledger(session.folder / "ledger.jsonl")
        if protocol is None:
            protocol = _decide(request, dataset_of, session, out)
            out.save_protocol(protocol)
        else:
            first = dataset_of(0, request.models[0])
            protocol = _continued(protocol, first, changed, accepted, out, ledger)
        if not (out.is_single_run or (session.folder / "samples.parquet").exists()):
            write_table(session.folder / "samples.parquet", dataset_of(0, request.models[0]).table)
        outcomes, fewer, shots = [], None, None
        if finished(session.folder) is None:  # finished results are not changed
            runs = Runs(protocol, session, out, ledger, dataset_of)
            _prepare_starts(runs)
            outcomes = _try_rates(runs)
            protocol = _with_final_steps(runs)
            runs = replace(runs, protocol=protocol)
            _run_all(runs, outcomes)
            fewer = run_with_fewer(runs, outcomes) if request.learning_curve else None
            shots = run_with_shots(runs, outcomes) if request.shots else None
        protocol = out.final_protocol(protocol)
        return conclude(
            outcomes, fewer, protocol, dataset_of, session, ledger, kind=out.kind, shots=shots
        )


def _open_images(request: Request, session: Session) -> tuple[DatasetOf, str]:
    """Return the images of each repetition, and a description of changes since the start."""
    table = sample_table(
        session.source,
        seed=request.seed,
        images_per_class=request.images_per_class,
        reading=request.reading,
        workers=session.workers,
        progress=session.progress.count,
    )
    table, changed = reconcile(
        session.folder, session.source.name, table, accept=session.accept.data
    )
    for resize in dict.fromkeys(request.recipe_of(name).data.resize for name in request.models):
        for words in before_training(table, session.source, resize):
            session.progress.say(words)

    @cache
    def prepared(repetition: int, data: DataConfig) -> Dataset:
        return prepare(
            table,
            session.source,
            data,
            seed=request.seed,
            repetition=repetition,
            reading=request.reading,
            workers=session.workers,
            progress=session.progress.count,
        )

    def dataset_of(repetition: int, name: NetworkName) -> Dataset:
        return prepared(repetition, request.recipe_of(name).data)

    first = dataset_of(0, request.models[0])
    if request.learning_curve and first.final_split == "validation":
        raise ConfigError(
            "--learning-curve needs a test split: without one the same images would choose the"
            " network and evaluate it; leave it out, or hold images out (data.test_fraction)"
        )
    if request.shots and first.redraws_final_split:
        raise ConfigError(
            "--shots needs a test split, on which all networks are evaluated; leave it out, or hold"
            " images out (data.test_fraction)"
        )
    most = int(np.bincount(first.train.labels).max())
    if too_many := [shots for shots in request.shots if shots >= most]:
        raise ConfigError(
            f"--shots has {too_many[0]}, and no class has more than"
            f" {counted(most, 'training image')}, so these runs would be the whole ones again; give"
            " smaller numbers"
        )
    return dataset_of, changed


def _require_unseen(request: Request, dataset_of: DatasetOf, session: Session) -> None:
    """Refuse weights of a run made here that learned from images which this comparison holds out.

    Raises:
        ConfigError: naming one.
    """
    for found in session.weights.values():
        if found.run is None:
            continue
        words = require_no_overlap(
            found.run,
            [dataset_of(k, request.models[0]).table for k in range(request.runs)],
            session.source,
            workers=session.workers,
            progress=session.progress.count,
        )
        if words:
            session.progress.say(words)


def _continued(
    protocol: Protocol,
    dataset: Dataset,
    changed: str,
    accepted: list[str],
    out: OutFolder,
    ledger: Ledger,
) -> Protocol:
    """Return the protocol to continue with, for the current images if a change was accepted.

    Args:
        protocol: The written protocol.
        dataset: The current images.
        changed: Accepted changes of the images, in words; '' if there are none.
        accepted: Other accepted changes.
        out: The folder of a comparison or of a single run.
        ledger: The events so far.

    Raises:
        DataError: the images differ.
    """
    now = protocol.model_copy(update={"images": Images(fingerprint=fingerprint(dataset.table))})
    differs = [words for words in (changed, *accepted) if words]
    if differs and (out.is_single_run or finished(out.folder) is None):
        # A comparison's protocol first: after a kill in between, the same command repeats this.
        out.save_protocol(now)
        for words in differs:
            out.session.progress.say(f"accepted: {words}")
            ledger.add(ChangeAccepted(words=words))
        write_table(out.folder / "samples.parquet", dataset.table)
        return now
    if out.is_single_run:  # the run compares its images itself
        return now
    if not changed and protocol.images != now.images:
        raise DataError(
            f"the images differ from those {out.folder} was started with; restore them, or choose"
            " another --out"
        )
    return protocol


def _decide(request: Request, dataset_of: DatasetOf, session: Session, out: OutFolder) -> Protocol:
    """Measure the networks and turn minutes into steps, before the first step."""
    dataset = dataset_of(0, request.models[0])
    policy = choose_policy(session.device, session.threads)
    say = session.progress.say
    load = LoadMeter()
    costs, failures = measure_networks(
        request,
        partial(dataset_of, 0),
        policy,
        session.progress,
        leave_out=not out.is_single_run,
    )
    # A thread that waits for a GPU says nothing about its steps.
    slowdown = load.slowdown(policy.threads) if policy.device == "cpu" else None
    _require_contestant(request, failures)
    num_steps = steps_of(request, dataset, costs, failures)
    words, seconds = out.forecast(request, dataset, costs, num_steps)
    say(words)
    too_short = too_short_words(request, dataset, num_steps)
    if too_short is not None and not out.is_single_run:
        say(too_short)
    takes_steps = any(num_steps.values())
    if takes_steps and (busy := busy_words(request.recipe, slowdown, seconds)) is not None:
        say(busy)
    in_all = bytes_in_all(request, dataset, costs, num_steps, has_trials=not out.is_single_run)
    say(
        f"disk: about {in_bytes(in_all)} will be written to {session.folder} in all, including what"
        " is removed again"
    )
    few = _too_few_words(request, [name for name in costs if name not in failures])
    if few is not None and not dataset.redraws_final_split:
        say(few)
    decided = Decided(
        policy=policy,
        num_steps=num_steps,
        steps_are_final=out.is_single_run or not are_checked_by_trials(request),
        mixes={
            name: mixes(request.recipe_of(name), num, dataset) for name, num in num_steps.items()
        },
        failures=failures,
        costs=costs,
    )
    return make_protocol(
        request, fingerprint(dataset.table), decided, bits_depend_on(policy, request.models)
    )


def _prepare_starts(runs: Runs) -> None:
    """Compute what all runs with pre-trained weights need, so that no run waits for it.

    The test images are not read before the end.
    """
    ledger, session = runs.ledger, runs.session
    policy = Policy.of(runs.protocol.decided.policy)
    of_network = {name.base: name for name in runs.protocol.request.models if name.start}
    for network, name in of_network.items():
        if ledger.find(FeaturesReady, network=network) is not None:
            continue
        session.progress.say(f"features of all images but the test images, by {network}")
        began, dataset = time.monotonic(), runs.dataset_of(0, name)
        with policy.active():
            for part in (dataset.train, dataset.validation):
                part_features(name, dataset, part, session, policy)
        seconds = time.monotonic() - began
        num_images = len(dataset.train) + len(dataset.validation)
        ledger.add(FeaturesReady(network=network, num_images=num_images, seconds=seconds))


def _require_contestant(request: Request, failures: Mapping[NetworkName, str]) -> None:
    """Refuse a comparison with a network that cannot be trained.

    Raises:
        TrainingError: naming it, and why.
    """
    if request.against is not None and request.against in failures:
        raise TrainingError(
            f"--against is {request.against}, which cannot be trained here"
            f" ({failures[request.against]}); give another network, or leave --against out"
        )


def _too_few_words(request: Request, able: Sequence[NetworkName]) -> str | None:
    """Say that so many runs cannot show any difference between these networks, None if they can."""
    if request.attention:
        pairs = variants(request.models, request.attention)
        num_comparisons = sum({pair.name, pair.without} <= set(able) for pair in pairs)
    else:
        num_comparisons = len(pairs_between(able, request.against))
    few = too_few_runs(num_comparisons, request.runs)
    is_all_pairs = not request.attention and request.against is None
    if few is not None and is_all_pairs and request.runs >= min_runs(len(able) - 1):
        few = f"{few.removesuffix('.')}, or --against NETWORK to compare with one network only."
    return few


def _try_rates(runs: Runs) -> list[Outcome]:
    """Do the trials that are not done yet; return each network's outcome before its first run."""
    request, decided = runs.protocol.request, runs.protocol.decided
    searches = [_search(runs, name) for name in request.models]
    if not decided.steps_are_final:
        # Every network tries a rate before any tries the next: a round that compares their seconds.
        for number in range(max(len(search.rates) for search in searches)):
            for search in searches:
                if search.name not in decided.failures and len(search.rates) > 1:
                    for rate in search.rates[number : number + 1]:
                        search.trial(rate)
    return [_initial_outcome(runs, search) for search in searches]


def _with_final_steps(runs: Runs) -> Protocol:
    """Let the trials confirm or correct the steps, once: before the first run."""
    protocol, ledger = runs.protocol, runs.ledger
    if protocol.decided.steps_are_final:
        return protocol
    fixed = ledger.find(StepsFixed)
    if fixed is None:
        dataset = runs.dataset_of(0, protocol.request.models[0])
        fixed = check_by_trials(protocol, ledger, dataset)
        if fixed.corrected:
            runs.session.progress.say(correction_words(fixed))
        if (unchecked := unchecked_words(fixed, ledger)) is not None:
            runs.session.progress.say(unchecked)
        # Recorded before the protocol changes, so that after a kill the next start changes it.
        ledger.add(fixed)
    protocol = with_final_steps(protocol, fixed)
    runs.out.save_protocol(protocol)
    return protocol


def _run_all(runs: Runs, outcomes: list[Outcome]) -> None:
    """Do the runs that are not done yet."""
    request = runs.protocol.request
    searches = [_search(runs, name) for name in request.models]
    for repetition in range(request.runs):
        for search, outcome in zip(searches, outcomes, strict=True):
            if outcome.failure is None and repetition == 0:
                runs.note_failure(outcome, search.first_run(outcome))
            elif outcome.failure is None:
                runs.note_failure(outcome, runs.run(outcome, repetition))


def _search(runs: Runs, name: NetworkName) -> RateSearch:
    request = runs.protocol.request
    recipe = request.recipe_of(name)
    own_rate = NO_RATE if name.start == "frozen" else recipe.train.learning_rate
    tries = has_trials(request, name) and not runs.out.is_single_run
    return RateSearch(
        name,
        tuple(trial_rates(recipe)) if tries else (own_rate,),
        own_rate,
        runs.dataset_of(0, name),
        runs.ledger,
        runs.session.progress.say,
        trial=partial(runs.trial, name),
        run=runs.first_run,
    )


def _initial_outcome(runs: Runs, search: RateSearch) -> Outcome:
    """Return a network's outcome before its first run: its learning rate, or why it failed."""
    if (reason := runs.protocol.decided.failures.get(search.name)) is not None:
        return Outcome(search.name, search.rates[0], failure=reason)
    if len(search.rates) == 1:
        return Outcome(search.name, search.rates[0])
    return search.choose()

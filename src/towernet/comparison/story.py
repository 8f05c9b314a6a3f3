"""A comparison from start to end: plan, learning-rate trials, runs, the test split, the results.

Every step writes its outcome to disk, so rerunning the same command continues where it stopped.
A single run is a comparison of one network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

from towernet import files
from towernet.comparison.conclusion import conclude, finished
from towernet.comparison.costs import (
    are_checked_by_trials,
    check_by_trials,
    correction_words,
    measure_networks,
    steps_of,
    unchecked_words,
    with_final_steps,
)
from towernet.comparison.folders import ComparisonFolder, OutFolder, RunFolder
from towernet.comparison.forecast import (
    busy_words,
    bytes_in_all,
    mixes,
    preflight,
    too_short_words,
    trial_rates,
)
from towernet.comparison.judging.learning_curve import FewerImages
from towernet.comparison.judging.networks import learnt, num_epochs_of, selection_key
from towernet.comparison.outcome import Outcome
from towernet.comparison.protocol import LAST_DOUBLING, SHARES, make_protocol, resumed
from towernet.comparison.rates import RateSearch
from towernet.comparison.runs import Runs
from towernet.comparison.wording.verdict import num_pairs, too_few_runs
from towernet.data.changes import reconcile
from towernet.data.left_out import before_training
from towernet.data.prepare import Dataset, fingerprint, prepare, sample_table
from towernet.data.table import write_table
from towernet.engine.device import bits_depend_on, choose_policy
from towernet.engine.load import LoadMeter
from towernet.engine.record import summary_of
from towernet.engine.session import Session
from towernet.errors import ConfigError, DataError
from towernet.models.catalogue import require_size
from towernet.names import NetworkName
from towernet.records.ledger import ChangeAccepted, Ledger, StepsFixed
from towernet.records.protocol import Decided, Images, Protocol, Request, variants
from towernet.records.results import Conclusion
from towernet.words import in_bytes


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
    return _carry_out(request, session, RunFolder(session, resume=resume))


def _carry_out(request: Request, session: Session, out: OutFolder) -> Conclusion:
    for name in request.models:
        require_size(name, request.recipe.data.size_px)
    with session.locked():
        protocol, accepted = out.existing_protocol(), list[str]()
        files.sweep(session.folder)
        if protocol is not None:
            if protocol.request.reading is None:  # made when there was one way to read images
                request = request.model_copy(update={"reading": None})
            protocol, accepted = resumed(protocol, request, session)
        preflight(request, session)
        dataset_of, changed = _open_images(request, session)
        ledger = Ledger(session.folder / "ledger.jsonl")
        if protocol is None:
            protocol = _decide(request, dataset_of(0), session, out)
            out.save_protocol(protocol)
        else:
            protocol = _continued(protocol, dataset_of(0), changed, accepted, out, ledger)
        if not (out.is_single_run or (session.folder / "samples.parquet").exists()):
            write_table(session.folder / "samples.parquet", dataset_of(0).table)
        outcomes, fewer = [], None
        if finished(session.folder) is None:  # finished results are not changed
            runs = Runs(protocol, session, out, ledger, dataset_of)
            outcomes = _try_rates(runs)
            protocol = _with_final_steps(runs)
            runs = replace(runs, protocol=protocol)
            _run_all(runs, outcomes)
            fewer = _run_with_fewer(runs, outcomes) if request.learning_curve else None
        protocol = out.final_protocol(protocol)
        return conclude(outcomes, fewer, protocol, dataset_of, session, ledger, kind=out.kind)


def _open_images(request: Request, session: Session) -> tuple[Callable[[int], Dataset], str]:
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
    for words in before_training(table, session.source, request.recipe.data.resize):
        session.progress.say(words)

    @cache
    def dataset_of(repetition: int) -> Dataset:
        return prepare(
            table,
            session.source,
            request.recipe.data,
            seed=request.seed,
            repetition=repetition,
            reading=request.reading,
            workers=session.workers,
            progress=session.progress.count,
        )

    if request.learning_curve and dataset_of(0).final_split == "validation":
        raise ConfigError(
            "--learning-curve needs a test split: without one the same images would choose the"
            " network and evaluate it; leave it out, or hold images out (data.test_fraction)"
        )
    return dataset_of, changed


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


def _decide(request: Request, dataset: Dataset, session: Session, out: OutFolder) -> Protocol:
    """Measure the networks and turn minutes into steps, before the first step."""
    policy = choose_policy(session.device, session.threads)
    say = session.progress.say
    load = LoadMeter()
    costs, failures = measure_networks(
        request, dataset, policy, session.progress, leave_out=not out.is_single_run
    )
    # A thread that waits for a GPU says nothing about its steps.
    slowdown = load.slowdown(policy.threads) if policy.device == "cpu" else None
    num_steps = steps_of(request, dataset, costs, failures)
    words, seconds = out.forecast(request, dataset, costs, num_steps)
    say(words)
    too_short = too_short_words(request.recipe, dataset, num_steps)
    if too_short is not None and not out.is_single_run:
        say(too_short)
    if (busy := busy_words(request.recipe, slowdown, seconds)) is not None:
        say(busy)
    in_all = bytes_in_all(request, dataset, costs, num_steps, has_trials=not out.is_single_run)
    say(
        f"disk: about {in_bytes(in_all)} will be written to {session.folder} in all, including what"
        " is removed again"
    )
    able = {name for name in costs if name not in failures}
    num_comparisons = (
        sum(
            {variant.name, variant.without} <= able
            for variant in variants(request.models, request.attention)
        )
        if request.attention
        else num_pairs(len(able))
    )
    few = too_few_runs(num_comparisons, request.runs)
    if few is not None and not dataset.redraws_final_split:
        say(few)
    decided = Decided(
        policy=policy,
        num_steps=num_steps,
        steps_are_final=out.is_single_run or not are_checked_by_trials(request),
        mixes={name: mixes(request.recipe, num, dataset) for name, num in num_steps.items()},
        failures=failures,
        costs=costs,
    )
    return make_protocol(
        request, fingerprint(dataset.table), decided, bits_depend_on(policy, request.models)
    )


def _try_rates(runs: Runs) -> list[Outcome]:
    """Do the trials that are not done yet; return each network's outcome before its first run."""
    request, decided = runs.protocol.request, runs.protocol.decided
    searches = [_search(runs, name) for name in request.models]
    if not decided.steps_are_final:
        # Every network tries a rate before any tries the next: a round that compares their seconds.
        for rate in trial_rates(request.recipe):
            for search in searches:
                if search.name not in decided.failures:
                    search.trial(rate)
    return [_initial_outcome(runs, search) for search in searches]


def _with_final_steps(runs: Runs) -> Protocol:
    """Let the trials confirm or correct the steps, once: before the first run."""
    protocol, ledger = runs.protocol, runs.ledger
    if protocol.decided.steps_are_final:
        return protocol
    fixed = ledger.find(StepsFixed)
    if fixed is None:
        fixed = check_by_trials(protocol, ledger, runs.dataset_of(0))
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
    recipe = runs.protocol.request.recipe
    own_rate = recipe.train.learning_rate
    return RateSearch(
        name,
        (own_rate,) if runs.out.is_single_run else tuple(trial_rates(recipe)),
        own_rate,
        runs.dataset_of(0),
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


def _run_with_fewer(runs: Runs, outcomes: list[Outcome]) -> FewerImages | None:
    """Train the network that is best on validation with fewer images; None if no network learnt."""
    best = _best_so_far(runs, outcomes)
    if best is None:
        return None
    fewer = FewerImages(best.name)
    for share in SHARES:
        part = Outcome(best.name, best.learning_rate)
        for repetition in range(runs.protocol.request.runs):
            if part.failure is None:
                runs.note_failure(part, runs.run(part, repetition, share))
        if part.failure is None:
            fewer.folders[share] = part.folders
        elif share == LAST_DOUBLING:
            fewer.failure = part.failure
    return fewer


def _best_so_far(runs: Runs, outcomes: list[Outcome]) -> Outcome | None:
    """Return the network that is best on validation, None if no network learnt."""
    dataset, best = runs.dataset_of(0), None
    for outcome in outcomes:
        if outcome.failure is None:
            ended = [summary_of(folder) for folder in outcome.folders]
            num_epochs = num_epochs_of(outcome, runs.protocol, dataset)
            status, _ = learnt(ended, num_epochs, dataset)
            value = selection_key(ended, runs.protocol.decided.costs[outcome.name].parameters)
            if status == "ranked" and (best is None or value > best[0]):
                best = value, outcome
    return best and best[1]

"""The results of a comparison: the final split evaluated once, a ranking, and the conclusion.

`results` is exact: the same runs give the same bytes. Times are stored separately.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from towernet import files
from towernet.attention.base import paper
from towernet.attention.find import attention_block
from towernet.comparison.csv_files import write_csv_files
from towernet.comparison.judging.attention import judged_pairs, proof
from towernet.comparison.judging.labels import suspect_labels, write_suspects
from towernet.comparison.judging.learning_curve import FewerImages, learning_curve
from towernet.comparison.judging.networks import best_run
from towernet.comparison.judging.pairs import pairs_between
from towernet.comparison.judging.ranking import NOT_FINITE, Judging
from towernet.comparison.judging.scores import majority_accuracy
from towernet.comparison.judging.shots import FewShots, shots_curve
from towernet.comparison.judging.times import same_for_starts, training_times
from towernet.comparison.outcome import Outcome
from towernet.comparison.protocol import LAST_DOUBLING, digest_of, written_digest
from towernet.comparison.wording import ablation
from towernet.comparison.wording.cheapest import cheapest_words
from towernet.comparison.wording.paper import latex
from towernet.comparison.wording.remarks import remarks
from towernet.comparison.wording.shots import catching_up
from towernet.comparison.wording.verdict import verdict
from towernet.data.leaks import leaks
from towernet.data.prepare import Dataset
from towernet.engine.device import Policy, hardware, versions
from towernet.engine.runlog import training_seconds
from towernet.engine.session import Session
from towernet.names import NetworkName
from towernet.records.base import read_record
from towernet.records.ledger import ChangeAccepted, FeaturesReady, FinalSplitOpened, Ledger
from towernet.records.protocol import Protocol, Request, variants
from towernet.records.results import (
    AllMeasured,
    Conclusion,
    LearningCurve,
    Made,
    Measured,
    Network,
    NoLearningCurve,
    NumImages,
    Results,
    Shots,
    TrainingTimes,
    Variant,
    Winner,
)

MAX_SUSPECTS = 200  # in the results; suspects.csv contains all of them


def finished(folder: Path) -> Conclusion | None:
    """Return the results in a folder, None if there are none yet.

    Raises:
        DataError: they are damaged.
    """
    path = folder / "results.json"
    return read_record(path, Conclusion) if path.exists() else None


def conclude(
    outcomes: Sequence[Outcome],
    fewer: FewerImages | None,
    protocol: Protocol,
    dataset_of: Callable[[int, NetworkName], Dataset],
    session: Session,
    ledger: Ledger,
    *,
    kind: Literal["comparison", "run"],
    shots: Sequence[FewShots] | None = None,
) -> Conclusion:
    """Evaluate the final split, once; write `results.json` and the files derived from it.

    Args:
        outcomes: The trained networks.
        fewer: The runs with fewer images, if they were requested.
        protocol: The protocol, frozen before the first step.
        dataset_of: The images of each repetition, as a network takes them.
        session: The folder of the runs, and the progress.
        ledger: The events so far.
        kind: A comparison or a single run.
        shots: The runs with a few images of each class, if they were requested.

    Returns:
        The content of `results.json`.
    """
    folder = session.folder
    if (done := finished(folder)) is not None:
        session.progress.say(f"{folder} is finished; its results are unchanged")
        return done
    dataset = dataset_of(0, protocol.request.models[0])
    policy = Policy.of(protocol.decided.policy)
    if ledger.find(FinalSplitOpened) is None:
        ledger.add(FinalSplitOpened(split=dataset.final_split, num_images=len(dataset.final)))
    # The number of threads changes bits, so it must be that of the runs also if all are finished.
    with policy.active():
        judging = Judging(protocol, session, dataset_of)
        for outcome in outcomes:
            judging.add(outcome)
        results = _results(judging, outcomes, fewer, ledger, kind)
        if shots is not None:
            found = _shots(shots, results, judging)
            told = (*results.remarks, *found.sentences)
            results = results.model_copy(update={"shots": found, "remarks": told})
    measured = same_for_starts(results.networks, judging.measured)
    times = training_times(protocol, dataset, results.networks, measured)
    conclusion = Conclusion(
        results=results,
        measured=_all_measured(
            _with_preparing(measured, ledger), fewer, shots or (), times, results
        ),
        made=Made(
            command=session.origin.command,
            source=session.origin.source,
            versions=versions(),
            hardware=hardware(policy),
            date=files.now(),
        ),
    )
    write_csv_files(folder, conclusion)
    if kind == "comparison":
        files.write_text(folder / "paper.tex", latex(results, conclusion.made, times))
    files.write_json(folder / "results.json", conclusion.model_dump())
    return conclusion


def _results(
    judging: Judging,
    outcomes: Sequence[Outcome],
    fewer: FewerImages | None,
    ledger: Ledger,
    kind: Literal["comparison", "run"],
) -> Results:
    """Rank the networks, judge their differences, and describe the result."""
    protocol, session, dataset = judging.protocol, judging.session, judging.dataset
    request, networks, best = protocol.request, judging.ranked(), judging.best
    several = request.runs > 1
    of_blocks = _variants(outcomes, networks, protocol) if request.attention else None
    pairs = (
        pairs_between([n.name for n in networks if n.status == "ranked"], request.against)
        if of_blocks is None
        else judged_pairs(of_blocks, networks)
    )
    comparisons = judging.comparisons(pairs)
    curve = None if fewer is None else _learning_curve(fewer, judging)
    held_out = judging.out_of_sample
    suspects = [] if held_out is None else suspect_labels(held_out, dataset)
    write_suspects(session.folder / "suspects.csv", suspects)
    written = written_digest(session.folder / "protocol.toml")
    results = Results(
        title=session.source.name,
        kind=kind,
        final_split="test" if len(dataset.test) else "validation",
        class_names=dataset.contract.class_names,
        num_images=NumImages(
            train=len(dataset.train), validation=len(dataset.validation), test=len(dataset.test)
        ),
        majority_accuracy=majority_accuracy(dataset.train.labels, dataset.final.labels),
        size_px=_size_px(request),
        recipe=request.recipe_name,
        balances_classes=request.recipe.train.balances_classes,
        minutes=request.recipe.train.minutes,
        seed=request.seed,
        num_runs=request.runs,
        resampled=dataset.redraws_final_split and several,
        redrawn=dataset.is_redrawn and several,
        protocol=written or digest_of(protocol),
        equal_within=request.equal_within,
        measure=request.measure,
        against=request.against,
        networks=networks,
        winner=best and Winner(name=best.name, folder=best_run(best.runs).folder),
        comparisons=comparisons,
        ablation=of_blocks,
        learning_curve=curve,
        leaks=leaks(dataset.table),
        num_suspects=len(suspects),
        suspects=tuple(suspects[:MAX_SUSPECTS]),
        accepted=tuple(event.words for event in ledger.find_all(ChangeAccepted)),
        sentence="",
        remarks=(),
    )
    if of_blocks is not None:
        sentence, notes = ablation.sentence(results), ablation.remarks(results)
    else:
        sentence, notes = verdict(results), remarks(results)
    return results.model_copy(update={"sentence": sentence, "remarks": tuple(notes)})


def _size_px(request: Request) -> int:
    """Return the size of the images of networks from scratch; if there are none, of the first."""
    first = next((name for name in request.models if name.start is None), request.models[0])
    return request.recipe_of(first).data.size_px


def _with_preparing(
    measured: dict[NetworkName, Measured], ledger: Ledger
) -> dict[NetworkName, Measured]:
    """Return the measured times with those of computing features, for networks with weights."""
    seconds = {event.network: event.seconds for event in ledger.find_all(FeaturesReady)}
    return {
        name: timed.model_copy(update={"preparing_seconds": seconds[name.base]})
        if name.start is not None and name.base in seconds
        else timed
        for name, timed in measured.items()
    }


def _all_measured(
    measured: dict[NetworkName, Measured],
    fewer: FewerImages | None,
    shots: Sequence[FewShots],
    times: TrainingTimes | None,
    results: Results,
) -> AllMeasured:
    total = sum(timed.training_seconds + timed.trial_seconds for timed in measured.values())
    if fewer is not None:
        total += sum(
            training_seconds(run_folder)
            for folders in fewer.folders.values()
            for run_folder in folders
        )
    total += sum(
        training_seconds(run_folder)
        for few in shots
        for folders in few.folders.values()
        for run_folder in folders
    )
    prepared = {
        name.base: timed.preparing_seconds
        for name, timed in measured.items()
        if timed.preparing_seconds is not None  # the same for all networks with these weights
    }
    total += sum(prepared.values())
    cheapest = cheapest_words(results, measured)
    return AllMeasured(networks=measured, total_seconds=total, times=times, cheapest=cheapest)


def _variants(
    outcomes: Sequence[Outcome], networks: Sequence[Network], protocol: Protocol
) -> tuple[Variant, ...]:
    """Return each network's blocks: their paper, added parameters, and proof that they learnt."""
    folders = {outcome.name: outcome.folders for outcome in outcomes}
    parameters = {network.name: network.parameters for network in networks}
    return tuple(
        Variant(
            **variant.model_dump(),
            parameters=parameters[variant.name] - parameters[variant.without],
            paper=paper(attention_block(variant.plain_block)),
            proof=proof(folders[variant.name]),
        )
        for variant in variants(protocol.request.models, protocol.request.attention)
    )


def _learning_curve(fewer: FewerImages, judging: Judging) -> LearningCurve | NoLearningCurve:
    """Compare the runs with fewer images with those with all images."""
    judging.session.progress.say(f"evaluating {fewer.name}, trained on fewer images")
    failure = fewer.failure
    by_share = {1.0: judging.right.get(fewer.name, [])}
    for share, folders in fewer.folders.items():
        predictions = judging.predict(fewer.name, folders)
        if all(of_run.are_finite for of_run in predictions):
            by_share[share] = [of_run.right_N for of_run in predictions]
    if failure is None and not (by_share[1.0] and LAST_DOUBLING in by_share):
        failure = NOT_FINITE
    if failure is not None:
        return NoLearningCurve(network=fewer.name, failure=failure)
    request = judging.protocol.request
    return learning_curve(
        fewer.name,
        by_share,
        judging.dataset,
        request.seed,
        request.equal_within,
        request.measure,
    )


def _shots(few: Sequence[FewShots], results: Results, judging: Judging) -> Shots:
    """Evaluate the runs with a few images of each class, next to those with all images."""
    by_name = {each.name: each for each in few}
    curves = []
    for name in [network.name for network in results.networks if network.name in by_name]:
        judging.session.progress.say(f"evaluating {name}, trained on a few images of each class")
        found, failures = by_name[name], dict(by_name[name].failures)
        right: dict[int | None, list[npt.NDArray[np.bool_]]] = {}
        if name in judging.right:
            right[None] = judging.right[name]
        for shots, folders in found.folders.items():
            predictions = judging.predict(name, folders)
            if all(of_run.are_finite for of_run in predictions):
                right[shots] = [of_run.right_N for of_run in predictions]
            else:
                failures[shots] = NOT_FINITE
        measure = judging.protocol.request.measure
        curves.append(shots_curve(name, right, failures, judging.dataset, measure))
    return Shots(curves=tuple(curves), sentences=catching_up(curves))

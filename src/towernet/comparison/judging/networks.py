"""A network's row of the results: its scores, its cost, and whether it learnt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, median

import numpy as np

from towernet.comparison.judging.answers import RunPredictions, combined
from towernet.comparison.judging.scores import (
    accuracy_interval,
    balanced_interval,
    balanced_resampled_interval,
    confusion_matrix,
    macro_f1,
    majority_accuracy,
    per_class,
    resampled_interval,
)
from towernet.comparison.outcome import Outcome
from towernet.data.balance import balanced_accuracy, num_classes_in
from towernet.data.prepare import Dataset
from towernet.engine.batches import steps_per_epoch
from towernet.engine.record import summary_of
from towernet.engine.runlog import read_timings, training_seconds
from towernet.engine.schedule import small_size_px
from towernet.models.catalogue import outline
from towernet.models.summary import layers, map_sides
from towernet.names import NetworkName
from towernet.records.judgement import Status
from towernet.records.ledger import RateFellApart, Trial
from towernet.records.protocol import Protocol
from towernet.records.results import Measured, Network
from towernet.records.scores import OnValidation, RunScores, TrialScores, deciding
from towernet.words import percent


def network_of(
    outcome: Outcome,
    predictions: Sequence[RunPredictions],
    folder: Path,
    protocol: Protocol,
    dataset: Dataset,
) -> Network:
    """Return a network's row of the results, without its rank.

    Args:
        outcome: Its outcome.
        predictions: Those of its runs; none if it failed.
        folder: The comparison's folder.
        protocol: The protocol, frozen before the first step.
        dataset: The images of the first repetition.
    """
    request, decided = protocol.request, protocol.decided
    class_names, recipe = dataset.contract.class_names, request.recipe_of(outcome.name)
    size_px = recipe.data.size_px
    confusions = [
        confusion_matrix(of_run.dataset.final.labels, of_run.predicted_N, len(class_names))
        for of_run in predictions
    ]
    runs = tuple(
        _run_scores(of_run, confusion, folder)
        for of_run, confusion in zip(predictions, confusions, strict=True)
    )
    num_epochs = num_epochs_of(outcome, protocol, dataset)
    first_map_px, last_map_px = map_sides(
        layers(outline(outcome.name, len(class_names), size_px), size_px)
    )
    row = Network(
        name=outcome.name,
        status="failed",
        reason=outcome.failure or "",
        rank=None,
        accuracy=None,
        interval=None,
        macro_f1=None,
        validation_accuracy=None,
        confusion=None,
        per_class=None,
        calibration=None,
        parameters=decided.costs[outcome.name].parameters,
        multiply_adds=decided.costs[outcome.name].multiply_adds,
        learning_rate=outcome.learning_rate,
        trials=tuple(
            TrialScores(
                learning_rate=trial.learning_rate,
                validation_loss=trial.validation_loss,
                validation_accuracy=trial.validation_accuracy,
                validation_balanced=trial.validation_balanced,
            )
            for trial in outcome.trials
        ),
        rate_by_trials=outcome.rate_by_trials,
        fell_apart=tuple(event.learning_rate for event in outcome.fell_apart),
        epochs=round(num_epochs, 4),
        steps=decided.num_steps[outcome.name],
        mixed=decided.mixes[outcome.name],
        first_map_px=first_map_px,
        last_map_px=last_map_px,
        first_size_px=size_px
        if outcome.name.start == "frozen"
        else small_size_px(outcome.name, size_px, recipe.train),
        size_px=size_px if any(name.start for name in request.models) else None,
        started_from=request.weights_of(outcome.name),
        runs_are_same=_are_same(outcome, predictions),
        runs=runs,
    )
    if outcome.failure is not None:
        return row
    labels_N, predicted_RN, cluster_N = combined(predictions)
    status, reason = learnt(outcome.name, runs, num_epochs, dataset)
    right_RN = predicted_RN == labels_N
    if dataset.redraws_final_split and len(predictions) > 1:
        right = [of_run.right_N for of_run in predictions]
        labels = [of_run.dataset.final.labels for of_run in predictions]
        interval = resampled_interval(right, len(dataset.train))
        of_balanced = balanced_resampled_interval(right, labels, len(dataset.train))
    else:
        interval = accuracy_interval(right_RN, cluster_N)
        of_balanced = balanced_interval(right_RN, cluster_N, labels_N)
    balanced = [run.balanced_accuracy for run in runs if run.balanced_accuracy is not None]
    assert len(balanced) == len(runs), "only records made before have none"
    return row.model_copy(
        update={
            "status": status,
            "reason": reason,
            "accuracy": fmean(run.accuracy for run in runs),
            "interval": interval,
            "balanced_accuracy": fmean(balanced),
            "balanced_interval": of_balanced,
            "macro_f1": fmean(run.macro_f1 for run in runs),
            "validation_accuracy": fmean(run.validation_accuracy for run in runs),
            "confusion": tuple(map(tuple, np.sum(confusions, axis=0).tolist())),
            "per_class": per_class(labels_N, predicted_RN, cluster_N, class_names),
            "calibration": predictions[runs.index(best_run(runs))].calibration,
        }
    )


def _run_scores(of_run: RunPredictions, confusion: np.ndarray, folder: Path) -> RunScores:
    summary, calibration = summary_of(of_run.folder), of_run.calibration
    return RunScores(
        folder=of_run.folder.relative_to(folder).as_posix(),
        accuracy=float(confusion.trace() / confusion.sum()),
        macro_f1=macro_f1(confusion),
        validation_accuracy=summary.validation_accuracy,
        validation_loss=summary.validation_loss,
        best_epoch=summary.best_epoch,
        temperature=calibration and calibration.temperature,
        calibration_error=calibration and calibration.calibration_error,
        balanced_accuracy=balanced_accuracy(of_run.right_N, of_run.dataset.final.labels),
        validation_balanced=summary.validation_balanced,
        last_layer=summary.last_layer,
    )


def num_epochs_of(outcome: Outcome, protocol: Protocol, dataset: Dataset) -> float:
    """Return the number of epochs of a network's runs."""
    batch_size = protocol.request.recipe_of(outcome.name).train.batch_size
    return protocol.decided.num_steps[outcome.name] / steps_per_epoch(
        len(dataset.train), batch_size
    )


def learnt(
    name: NetworkName, runs: Iterable[OnValidation], num_epochs: float, dataset: Dataset
) -> tuple[Status, str]:
    """Return whether a network learnt enough to be ranked, and if not, why.

    One that starts from pre-trained weights need not see all training images: its last layer has.

    Uses validation images, as the choice of the winner does: the final split decides nothing.
    """
    if num_epochs < 1 and name.start is None:
        return "not_enough_time", (
            f"did not have enough time: it saw only {percent(num_epochs, 0)} of the training images"
        )
    runs = list(runs)
    is_balanced = runs[0].validation_balanced is not None
    guessed = guessing(dataset, is_balanced=is_balanced)
    if fmean(deciding(run).accuracy for run in runs) <= guessed:
        of_guessing = (
            f"has a balanced accuracy of {percent(guessed)} on the validation images"
            if is_balanced
            else f"is right for {percent(guessed)} of the validation images"
        )
        return "did_not_learn", (
            "did not learn under this recipe: always predicting the most frequent class"
            f" {of_guessing}"
        )
    return "ranked", ""


def guessing(dataset: Dataset, *, is_balanced: bool) -> float:
    """Return the accuracy on validation images of always predicting the most frequent class."""
    labels = dataset.validation.labels
    if is_balanced:
        return 1 / num_classes_in(labels)
    return majority_accuracy(dataset.train.labels, labels)


def selection_key(runs: Sequence[OnValidation], parameters: int) -> tuple[float, float, float]:
    """Return the key by which the network to use is the largest; never uses the final split."""
    return (
        fmean(deciding(run).accuracy for run in runs),
        -fmean(deciding(run).loss for run in runs),
        -float(parameters),
    )


def best_run(runs: Sequence[RunScores]) -> RunScores:
    """Return the run of a network to use: the best on its validation images."""
    return max(runs, key=lambda run: (deciding(run).accuracy, -deciding(run).loss))


def _are_same(outcome: Outcome, predictions: Sequence[RunPredictions]) -> bool:
    if outcome.name.start != "frozen" or len(predictions) < 2:
        return False
    return len({tuple(of_run.dataset.train.paths) for of_run in predictions}) == 1


def measured_of(outcome: Outcome, predictions: Sequence[RunPredictions]) -> Measured:
    """Return the measured times and memory of a network."""
    lines = [line for folder in outcome.folders for line in read_timings(folder)]
    # A last layer is fitted before the first step, which says nothing about training.
    speeds = [line.images_per_second for line in lines if line.step]
    seconds = [training_seconds(folder) for folder in outcome.folders]
    decoding = [of_run.decode_ms for of_run in predictions if of_run.decode_ms is not None]
    tried: list[Trial | RateFellApart] = [*outcome.trials, *outcome.fell_apart]
    return Measured(
        training_seconds=float(sum(seconds)),
        run_seconds=median(seconds) if seconds else None,
        trial_seconds=sum(event.seconds for event in tried),
        # The median: an epoch during which the command was suspended (Ctrl-Z) must not count.
        images_per_second=median(speeds) if speeds else None,
        latency_ms=median(of_run.latency_ms for of_run in predictions) if predictions else None,
        decode_ms=median(decoding) if decoding else None,
        peak_memory_mib=max((line.peak_memory_mib for line in lines), default=None),
    )

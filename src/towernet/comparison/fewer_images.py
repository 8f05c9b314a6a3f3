"""Runs on fewer training images, after the whole runs: shares of them, or a few of each class."""

from __future__ import annotations

from towernet.comparison.judging.learning_curve import FewerImages
from towernet.comparison.judging.networks import learnt, num_epochs_of, selection_key
from towernet.comparison.judging.shots import FewShots
from towernet.comparison.outcome import Outcome
from towernet.comparison.protocol import LAST_DOUBLING, SHARES
from towernet.comparison.runs import Runs
from towernet.engine.record import summary_of


def run_with_fewer(runs: Runs, outcomes: list[Outcome]) -> FewerImages | None:
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


def run_with_shots(runs: Runs, outcomes: list[Outcome]) -> list[FewShots]:
    """Train every network that could be trained with a few images of each class."""
    request, found = runs.protocol.request, []
    for outcome in outcomes:
        if outcome.failure is not None:
            continue
        few = FewShots(outcome.name)
        for shots in request.shots:
            part = Outcome(outcome.name, outcome.learning_rate)
            for repetition in range(request.runs):
                if part.failure is None:
                    runs.note_failure(part, runs.run(part, repetition, shots=shots))
            if part.failure is None:
                few.folders[shots] = part.folders
            else:
                few.failures[shots] = part.failure
        found.append(few)
    return found


def _best_so_far(runs: Runs, outcomes: list[Outcome]) -> Outcome | None:
    """Return the network that is best on validation, None if no network learnt."""
    best = None
    for outcome in outcomes:
        if outcome.failure is None:
            dataset = runs.dataset_of(0, outcome.name)
            ended = [summary_of(folder) for folder in outcome.folders]
            num_epochs = num_epochs_of(outcome, runs.protocol, dataset)
            status, _ = learnt(outcome.name, ended, num_epochs, dataset)
            value = selection_key(ended, runs.protocol.decided.costs[outcome.name].parameters)
            if status == "ranked" and (best is None or value > best[0]):
                best = value, outcome
    return best and best[1]

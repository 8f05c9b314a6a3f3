"""Judging a table of answers by the same statistics and sentences as a comparison."""

from __future__ import annotations

from statistics import fmean
from typing import NamedTuple

import numpy as np

from towernet.comparison.answers.columns import Ints
from towernet.comparison.answers.table import AnswerTable
from towernet.comparison.judging.pairs import pair_of, pairs_between
from towernet.comparison.judging.scores import accuracy_interval, balanced_interval
from towernet.comparison.judging.statistics import judge
from towernet.comparison.wording.remarks import remarks_on_answers
from towernet.comparison.wording.verdict import sentence
from towernet.config import Measure
from towernet.data.balance import balanced_accuracy
from towernet.records.base import Interval
from towernet.records.judgement import AnsweringNetwork, AnswersJudged, JudgedRun


def judge_answers(
    table: AnswerTable,
    *,
    title: str,
    equal_within: float,
    measure: Measure = "accuracy",
    against: str | None = None,
) -> AnswersJudged:
    """Rank the networks of a table, judge each pair of them, and describe the result.

    Args:
        table: Their answers.
        title: The title of the judgement.
        equal_within: The largest difference that does not matter, a fraction.
        measure: What they are ranked and judged by; the balanced accuracy needs labels.
        against: The only network to compare the others with; None: judge all pairs.
    """
    label_N = table.label_N
    accuracy_MK = table.right_MKN.sum(axis=2) / table.right_MKN.shape[2]
    accuracies = [fmean(map(float, runs)) for runs in accuracy_MK]
    balanced = None if label_N is None else _balanced(table, label_N)
    scores = accuracies
    if measure == "balanced":
        assert balanced is not None, "the caller requires labels"
        scores = [each.accuracy for each in balanced]
    # Ties keep the order of the table, so that a comparison's order, by size, is kept.
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    networks = tuple(
        AnsweringNetwork(
            name=table.networks[i],
            status="ranked",
            reason="",
            rank=rank,
            accuracy=accuracies[i],
            interval=accuracy_interval(table.right_MKN[i], table.cluster_N),
            balanced_accuracy=balanced and balanced[i].accuracy,
            balanced_interval=balanced and balanced[i].interval,
            runs=tuple(
                JudgedRun(
                    run=run,
                    accuracy=float(accuracy_MK[i, k]),
                    balanced_accuracy=balanced and balanced[i].runs[k],
                )
                for k, run in enumerate(table.runs)
            ),
        )
        for rank, i in enumerate(order, start=1)
    )
    # In the order of the ranking, as in a comparison: the last digits depend on it.
    names = [network.name for network in networks]
    positions = {name: position for position, name in enumerate(names)}
    family = judge(
        table.right_MKN[np.array(order)],
        table.cluster_N,
        [(positions[a], positions[b]) for a, b in pairs_between(names, against)],
        label_N=label_N if measure == "balanced" else None,
    )
    found = AnswersJudged(
        title=title,
        num_images=table.right_MKN.shape[2],
        num_groups=table.num_groups,
        num_runs=len(table.runs),
        equal_within=equal_within,
        measure=measure,
        against=against,
        networks=networks,
        comparisons=tuple(
            pair_of(family, difference, names, equal_within) for difference in family.differences
        ),
        sentence="",
        remarks=(),
    )
    words = {"sentence": sentence(found), "remarks": tuple(remarks_on_answers(found))}
    return found.model_copy(update=words)


class _Balanced(NamedTuple):
    """The balanced accuracy of a network, its interval, and that of each run."""

    accuracy: float
    interval: Interval
    runs: list[float]


def _balanced(table: AnswerTable, label_N: Ints) -> list[_Balanced]:
    found = []
    for right_KN in table.right_MKN:
        runs = [balanced_accuracy(run, label_N) for run in right_KN]
        interval = balanced_interval(right_KN, table.cluster_N, label_N)
        found.append(_Balanced(fmean(runs), interval, runs))
    return found

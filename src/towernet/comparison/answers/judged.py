"""Judging a table of answers by the same statistics and sentences as a comparison."""

from __future__ import annotations

from statistics import fmean

import numpy as np

from towernet.comparison.answers.table import AnswerTable
from towernet.comparison.judging.pairs import pair_of
from towernet.comparison.judging.scores import accuracy_interval
from towernet.comparison.judging.statistics import judge
from towernet.comparison.wording.remarks import remarks_on_answers
from towernet.comparison.wording.verdict import sentence
from towernet.records.judgement import AnsweringNetwork, AnswersJudged, JudgedRun


def judge_answers(table: AnswerTable, *, title: str, equal_within: float) -> AnswersJudged:
    """Rank the networks of a table, judge each pair of them, and describe the result.

    Args:
        table: Their answers.
        title: The title of the judgement.
        equal_within: The largest difference in accuracy that does not matter, a fraction.
    """
    accuracy_MK = table.right_MKN.sum(axis=2) / table.right_MKN.shape[2]
    accuracies = [fmean(map(float, runs)) for runs in accuracy_MK]
    # Ties keep the order of the table, so that a comparison's order, by size, is kept.
    order = sorted(range(len(accuracies)), key=lambda i: -accuracies[i])
    networks = tuple(
        AnsweringNetwork(
            name=table.networks[i],
            status="ranked",
            reason="",
            rank=rank,
            accuracy=accuracies[i],
            interval=accuracy_interval(table.right_MKN[i], table.cluster_N),
            runs=tuple(
                JudgedRun(run=run, accuracy=float(accuracy))
                for run, accuracy in zip(table.runs, accuracy_MK[i], strict=True)
            ),
        )
        for rank, i in enumerate(order, start=1)
    )
    # In the order of the ranking, as in a comparison: the last digits depend on it.
    family = judge(table.right_MKN[np.array(order)], table.cluster_N)
    names = [network.name for network in networks]
    found = AnswersJudged(
        title=title,
        num_images=table.right_MKN.shape[2],
        num_groups=table.num_groups,
        num_runs=len(table.runs),
        equal_within=equal_within,
        networks=networks,
        comparisons=tuple(
            pair_of(family, difference, names, equal_within) for difference in family.differences
        ),
        sentence="",
        remarks=(),
    )
    words = {"sentence": sentence(found), "remarks": tuple(remarks_on_answers(found))}
    return found.model_copy(update=words)

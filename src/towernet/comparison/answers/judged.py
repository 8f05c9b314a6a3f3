"""What a table of answers is worth: the statistics of a comparison, and their words."""

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
    """Rank the networks of a table, judge each pair of them, and say what came out.

    Args:
        table: Their answers.
        title: What these are called.
        equal_within: The largest difference in accuracy that does not matter, a fraction.
    """
    accuracy_MK = table.right_MKN.sum(axis=2) / table.right_MKN.shape[2]
    accuracies = [fmean(map(float, runs)) for runs in accuracy_MK]
    # As level ones are in the table: so a comparison's own order, by size, lasts.
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
    # In the order of the ranking, as a comparison's: the last digits depend on it.
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
    said = {"sentence": sentence(found), "remarks": tuple(remarks_on_answers(found))}
    return found.model_copy(update=said)

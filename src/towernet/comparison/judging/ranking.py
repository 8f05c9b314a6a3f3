"""The networks of a comparison asked about the final split, ranked, and compared pair by pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from towernet.comparison.judging.answers import Answers, ask, out_of_sample
from towernet.comparison.judging.labels import OutOfSample
from towernet.comparison.judging.networks import measured_of, network_of, worth
from towernet.comparison.judging.pairs import pair_of
from towernet.comparison.judging.statistics import judge, judge_resampled
from towernet.comparison.outcome import Outcome
from towernet.data.prepare import Dataset
from towernet.engine.session import Session
from towernet.names import NetworkName
from towernet.records.judgement import Pair
from towernet.records.protocol import Protocol
from towernet.records.results import Measured, Network


@dataclass
class Judging:
    """The networks of a comparison, judged one after another.

    Args:
        protocol: What was frozen before the first step.
        session: Where, and who watches.
        dataset_of: The images of each repetition.
        networks: Their rows of the results so far.
        measured: What was timed for each.
        right: Which images each one's runs named correctly.
        best: The network to use so far.
        asked: What its runs said of images they were not trained on; of it alone, since one
            network's answers can be large.
    """

    protocol: Protocol
    session: Session
    dataset_of: Callable[[int], Dataset]
    networks: list[Network] = field(default_factory=list)
    measured: dict[NetworkName, Measured] = field(default_factory=dict)
    right: dict[str, list[npt.NDArray[np.bool_]]] = field(default_factory=dict)
    best: Network | None = None
    asked: OutOfSample | None = None

    @property
    def dataset(self) -> Dataset:
        """The images of the first repetition."""
        return self.dataset_of(0)

    def add(self, outcome: Outcome) -> None:
        """Evaluate a network's kept weights on the final split, in full precision."""
        self.session.progress.say(f"{outcome.name} answers for {len(self.dataset.final)} images")
        answers = self.ask(outcome.folders)
        if not all(answer.are_numbers for answer in answers):
            outcome.failure, answers = "its answers are not numbers", []
        network = network_of(outcome, answers, self.session.folder, self.protocol, self.dataset)
        self.networks.append(network)
        self.measured[outcome.name] = measured_of(outcome, answers)
        if answers:
            self.right[outcome.name] = [answer.right_N for answer in answers]
        if network.status == "ranked" and (
            self.best is None or _worth(network) > _worth(self.best)
        ):
            self.best, self.asked = network, None  # the one before goes before another is built
            self.asked = out_of_sample(answers)

    def ask(self, run_folders: Sequence[Path]) -> list[Answers]:
        """Ask the runs of a network, one for each repetition."""
        return [
            ask(run_folder, self.protocol.decided.policy, self.dataset_of(repetition))
            for repetition, run_folder in enumerate(run_folders)
        ]

    def ranked(self) -> tuple[Network, ...]:
        """Return all networks in their order, those that learnt with their ranks.

        By accuracy; a tie goes to the smaller network, then to the name: never to a timing.
        """
        ordered = sorted(
            self.networks,
            key=lambda n: (n.status != "ranked", -(n.accuracy or 0.0), n.parameters, n.name),
        )
        return tuple(
            network.model_copy(update={"rank": position + 1})
            if network.status == "ranked"
            else network
            for position, network in enumerate(ordered)
        )

    def comparisons(self, pairs: Sequence[tuple[str, str]]) -> tuple[Pair, ...]:
        """Judge pairs of networks, all of them together."""
        if not pairs:
            return ()
        dataset, right = self.dataset, self.right
        names = list(dict.fromkeys(name for pair in pairs for name in pair))
        positions = [(names.index(first), names.index(second)) for first, second in pairs]
        if dataset.leaves_out_anew and len(right[names[0]]) > 1:
            accuracies = np.array([[run.mean() for run in right[name]] for name in names])
            family = judge_resampled(accuracies, len(dataset.final), len(dataset.train), positions)
        else:
            answers = np.array([right[name] for name in names])
            family = judge(answers, dataset.final_clusters(), positions)
        margin = self.protocol.request.equal_within
        return tuple(pair_of(family, found, names, margin) for found in family.differences)


def _worth(network: Network) -> tuple[float, float, float]:
    return worth(network.runs, network.parameters)

"""The networks of a comparison evaluated on the final split, ranked, and compared in pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from towernet.comparison.judging.answers import RunPredictions, out_of_sample, predict_final
from towernet.comparison.judging.labels import OutOfSample
from towernet.comparison.judging.networks import measured_of, network_of, selection_key
from towernet.comparison.judging.pairs import pair_of
from towernet.comparison.judging.statistics import judge, judge_resampled
from towernet.comparison.outcome import Outcome
from towernet.data.balance import balanced_accuracy
from towernet.data.prepare import Dataset
from towernet.engine.session import Session
from towernet.names import NetworkName
from towernet.records.judgement import Pair
from towernet.records.protocol import Protocol
from towernet.records.results import Measured, Network

NOT_FINITE = "its predictions contain NaN or Inf"


@dataclass
class Judging:
    """The networks of a comparison, judged one after another.

    Args:
        protocol: The protocol, frozen before the first step.
        session: The folder, and the progress.
        dataset_of: The images of each repetition, as a network takes them.
        networks: Their rows of the results so far.
        measured: The measured times of each network.
        right: Which images the runs of each network classified correctly.
        best: The network to use so far.
        out_of_sample: Its runs' predictions for images they were not trained on; only those of the
            best network are kept, since they can be large.
    """

    protocol: Protocol
    session: Session
    dataset_of: Callable[[int, NetworkName], Dataset]
    networks: list[Network] = field(default_factory=list)
    measured: dict[NetworkName, Measured] = field(default_factory=dict)
    right: dict[str, list[npt.NDArray[np.bool_]]] = field(default_factory=dict)
    best: Network | None = None
    out_of_sample: OutOfSample | None = None

    @property
    def dataset(self) -> Dataset:
        """The images of the first repetition, as the first network takes them."""
        return self.dataset_of(0, self.protocol.request.models[0])

    def add(self, outcome: Outcome) -> None:
        """Evaluate a network's saved weights on the final split, in full precision."""
        self.session.progress.say(f"evaluating {outcome.name} on {len(self.dataset.final)} images")
        predictions = self.predict(outcome.name, outcome.folders)
        if not all(of_run.are_finite for of_run in predictions):
            outcome.failure, predictions = NOT_FINITE, []
        network = network_of(outcome, predictions, self.session.folder, self.protocol, self.dataset)
        self.networks.append(network)
        self.measured[outcome.name] = measured_of(outcome, predictions)
        if predictions:
            self.right[outcome.name] = [of_run.right_N for of_run in predictions]
        if network.status == "ranked" and (
            self.best is None or _selection_key(network) > _selection_key(self.best)
        ):
            self.best, self.out_of_sample = network, None  # free the old one before the next
            self.out_of_sample = out_of_sample(predictions)

    def predict(self, name: NetworkName, run_folders: Sequence[Path]) -> list[RunPredictions]:
        """Return the predictions of a network's runs, one run for each repetition."""
        return [
            predict_final(
                name,
                self.protocol.decided.policy,
                self.dataset_of(repetition, name),
                replace(self.session, folder=run_folder),
            )
            for repetition, run_folder in enumerate(run_folders)
        ]

    def ranked(self) -> tuple[Network, ...]:
        """Return all networks in order, those that learnt with their ranks.

        The order is by score, then by size, smaller first, then frozen before trained, then by
        name; never by a measured time.
        """
        measure = self.protocol.request.measure
        ordered = sorted(
            self.networks,
            key=lambda n: (
                n.status != "ranked",
                -(n.score(measure) or 0.0),
                n.parameters,
                not n.is_frozen,
                n.name,
            ),
        )
        return tuple(
            network.model_copy(update={"rank": position + 1})
            if network.status == "ranked"
            else network
            for position, network in enumerate(ordered)
        )

    def comparisons(self, pairs: Sequence[tuple[str, str]]) -> tuple[Pair, ...]:
        """Judge pairs of networks, all pairs together."""
        if not pairs:
            return ()
        dataset, right = self.dataset, self.right
        names = list(dict.fromkeys(name for pair in pairs for name in pair))
        positions = [(names.index(first), names.index(second)) for first, second in pairs]
        label_N = dataset.final.labels if self.protocol.request.measure == "balanced" else None
        if dataset.redraws_final_split and len(right[names[0]]) > 1:
            scores = np.array([self._scores(name) for name in names])
            num = len(dataset.final), len(dataset.train)
            family = judge_resampled(scores, *num, positions, label_N=label_N)
        else:
            right_MKN = np.array([right[name] for name in names])
            family = judge(right_MKN, dataset.final_clusters(), positions, label_N=label_N)
        margin = self.protocol.request.equal_within
        return tuple(pair_of(family, found, names, margin) for found in family.differences)

    def _scores(self, name: str) -> list[float]:
        """Return the score of each run of a network, each on its own images."""
        if self.protocol.request.measure == "accuracy":
            return [run.mean() for run in self.right[name]]
        return [
            balanced_accuracy(run, self.dataset_of(repetition, NetworkName(name)).final.labels)
            for repetition, run in enumerate(self.right[name])
        ]


def _selection_key(network: Network) -> tuple[float, float, float, bool]:
    # A network that fine-tuning did not improve is its frozen one, which took less.
    return (*selection_key(network.runs, network.parameters), network.is_frozen)

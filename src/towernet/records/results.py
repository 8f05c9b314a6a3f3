"""The results of a comparison: the content of `results.json`.

`Conclusion` is the file. `results` in it is exact: the same runs give the same bytes. Timings are
separate, and so is where and when the file was made.

Rates and accuracies are fractions in [0, 1]; intervals are 95 %.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt, model_validator

from towernet.names import OWN_BLOCK, NetworkName
from towernet.records.base import Fraction, Interval, Record, Text
from towernet.records.judgement import Judged, JudgedNetwork, Pair
from towernet.records.leaks import Leak
from towernet.records.run import Hardware
from towernet.records.scores import Calibration, ClassScores, RunScores, TrialScores
from towernet.records.weights import StartWeights

Split = Literal["train", "validation", "test"]


FEW_EPOCHS = 2  # fewer hardly train a network: its place says little


class Network(JudgedNetwork):
    """A network of the comparison, all its runs together."""

    name: NetworkName
    macro_f1: StrictFloat | None
    validation_accuracy: StrictFloat | None
    confusion: tuple[tuple[StrictInt, ...], ...] | None
    """(K, K) images, rows the true class, columns the prediction; the sum over runs."""
    per_class: tuple[ClassScores, ...] | None
    calibration: Calibration | None
    """Of the run to use."""
    parameters: StrictInt
    """Trainable numbers."""
    multiply_adds: StrictInt
    """For one image."""
    learning_rate: StrictFloat
    trials: tuple[TrialScores, ...]
    rate_by_trials: StrictBool | None
    """Whether its trials chose the learning rate; None without trials."""
    fell_apart: tuple[StrictFloat, ...]
    """Learning rates under which its first run diverged, or ended worse than its trial."""
    epochs: StrictFloat
    steps: StrictInt
    mixed: StrictBool
    """Whether its training images were mixed."""
    first_map_px: StrictInt | None
    """Side of the first feature map."""
    last_map_px: StrictInt | None
    first_size_px: StrictInt
    """Side of the images in the first part of a run."""
    size_px: StrictInt | None = Field(None, exclude_if=lambda value: value is None)
    """Side of its images; missing where no network has a start, so that all have the same."""
    started_from: StartWeights | None = Field(None, exclude_if=lambda value: value is None)
    """The pre-trained weights it started from; missing if it was trained from scratch."""
    runs_are_same: StrictBool = Field(False, exclude_if=lambda value: not value)
    """Whether its runs are one and the same, since nothing is drawn: a frozen network, whose
    training images came with the data."""
    runs: tuple[RunScores, ...]

    @property
    def is_frozen(self) -> bool:
        """Whether only a last layer was fitted: it has no epochs, steps and learning rate."""
        return self.name.start == "frozen"

    def trained(self, figure: float | int | None) -> float | int | None:
        """Return `epochs`, `steps` or `learning_rate`; None if these mean nothing for it."""
        return None if self.is_frozen else figure

    @property
    def barely_trained(self) -> bool:
        """Whether it is ranked although it passed through the images fewer than two times."""
        return self.status == "ranked" and not self.is_frozen and self.epochs < FEW_EPOCHS


class VariantName(Record):
    """A network with a block, and the same network without it."""

    network: Text
    block: Text
    """With its place and its start, as the user specified them."""
    name: NetworkName
    without: NetworkName

    @property
    def plain_block(self) -> str:
        """The block alone, without its place and its start."""
        return self.name.block or OWN_BLOCK


class AttentionEpoch(Record):
    """What the blocks of a network did in one epoch: means over blocks and runs."""

    epoch: StrictFloat
    gain: StrictFloat | None
    """By how much a block is blended in; None if it is not blended."""
    gradient_norm: StrictFloat
    gate_mean: StrictFloat
    gate_spread: StrictFloat


class Proof(Record):
    """Evidence that a network's attention was active while it trained, and learnt."""

    num_blocks: StrictInt
    learns: StrictBool
    """Whether in every run gradients reached every block, and its gates moved."""
    epochs: tuple[AttentionEpoch, ...]


class Variant(VariantName):
    """Facts about a network with a block, in addition to its scores."""

    parameters: StrictInt
    """Those the block adds."""
    paper: Text
    """The paper that describes the block, '' if its code names none."""
    proof: Proof | None


class CurvePoint(Record):
    """The winner, trained on a share of the training images."""

    share: StrictFloat
    num_images: StrictInt
    accuracy: StrictFloat
    """Balanced if that is the measure, like the accuracy of each run."""
    interval: Interval
    runs: tuple[StrictFloat, ...]
    """The accuracy of each."""


class ClassGain(Record):
    """What the last doubling of the training images gave one class."""

    class_name: Text
    num_train: StrictInt
    recall: StrictFloat
    gain: StrictFloat
    interval: Interval
    p: StrictFloat
    p_adjusted: StrictFloat
    is_shown: StrictBool


class LearningCurve(Record):
    """How accuracy grew with the training images."""

    network: NetworkName
    points: tuple[CurvePoint, ...]
    gain: Pair
    """All images against half of them."""
    classes: tuple[ClassGain, ...]
    runs_for_classes: StrictInt | None
    """How many runs could show differences between classes, if there are fewer."""
    sentence: Text


class NoLearningCurve(Record):
    """Why there is none although it was requested."""

    network: NetworkName
    failure: Text


class ShotsPoint(Record):
    """A network, trained on so many images of each class."""

    num_images: StrictInt
    """Of each class; the mean over the classes if some have fewer than `most`."""
    most: StrictInt | None = Field(None, exclude_if=lambda value: value is None)
    """The number that was asked for, if a class has fewer; it has all of its images."""
    is_all: StrictBool = Field(False, exclude_if=lambda value: not value)
    """Whether these are all training images; `num_images` is then the mean over the classes."""
    accuracy: StrictFloat
    """Balanced if that is the measure, like the accuracy of each run."""
    interval: Interval
    """Of this point alone."""
    runs: tuple[StrictFloat, ...]
    """The accuracy of each."""


class ShotsCurve(Record):
    """How accurate a network is with few images of each class."""

    network: NetworkName
    points: tuple[ShotsPoint, ...]
    """Fewest images first. Without those that failed."""
    failures: tuple[Text, ...] = Field((), exclude_if=lambda value: not value)
    """Which points are missing, and why."""


class Shots(Record):
    """Accuracy against the number of training images of each class, for every network."""

    curves: tuple[ShotsCurve, ...]
    """In the order of the ranking."""
    sentences: tuple[Text, ...]
    """How many images networks from scratch would need to catch up."""


class Suspect(Record):
    """An image whose label looks wrong."""

    path: Text
    class_name: Text
    looks_like: Text
    confidence_in_label: StrictFloat
    confidence: StrictFloat
    num_runs: StrictInt
    """How many runs predicted it."""


class NumImages(Record):
    """How many images each split has; in the first run if they are redrawn."""

    train: StrictInt
    validation: StrictInt
    test: StrictInt

    def of(self, split: Split) -> int:
        """Return how many a split has."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[split]


class Winner(Record):
    """The network to use, chosen on validation images, and its run to use."""

    name: NetworkName
    folder: Text


class Results(Judged):
    """The exact results of a comparison."""

    title: Text
    """Name of the data."""
    kind: Literal["comparison", "run"]
    final_split: Literal["validation", "test"]
    class_names: tuple[Text, ...]
    num_images: NumImages
    majority_accuracy: Fraction
    """How often the most common class of the training images is correct."""
    size_px: StrictInt
    recipe: Text
    balances_classes: StrictBool = Field(False, exclude_if=lambda value: not value)
    """Whether the recipe has `train.balanced_drawing` or `train.logit_adjustment`."""
    minutes: StrictFloat | None
    """The budget of one run, None if it is epochs."""
    seed: StrictInt
    resampled: StrictBool
    """Whether each run was judged on the images it left out."""
    redrawn: StrictBool
    """Whether training and validation images were redrawn for each run."""
    protocol: Text
    """SHA-256 of everything that affects the result."""
    networks: tuple[Network, ...]
    """Ranked ones first, by score."""
    winner: Winner | None
    ablation: tuple[Variant, ...] | None = Field(None, exclude_if=lambda value: value is None)
    """Every network with a block, if blocks were compared."""
    learning_curve: LearningCurve | NoLearningCurve | None = Field(
        None, exclude_if=lambda value: value is None
    )
    shots: Shots | None = Field(None, exclude_if=lambda value: value is None)
    """Every network on a few images of each class, if that was asked for."""
    leaks: tuple[Leak, ...] = Field((), exclude_if=lambda value: not value)
    """Copies across the splits that came with the data, and what was done about them."""
    num_suspects: StrictInt
    suspects: tuple[Suspect, ...]
    """The most doubtful of them."""
    accepted: tuple[Text, ...]
    """What had changed when the comparison was continued, and was accepted."""

    @property
    def ranked(self) -> tuple[Network, ...]:
        """The networks that have a rank, the most accurate first."""
        return tuple(network for network in self.networks if network.status == "ranked")

    @property
    def winner_came_first(self) -> bool:
        """Whether the winner came first on the final images, alone or with others."""
        if self.winner is None:
            return False
        two = {self.ranked[0].name, self.winner.name}
        return len(two) == 1 or any(
            two == {pair.first, pair.second} and pair.difference == 0 for pair in self.comparisons
        )

    @property
    def guessing(self) -> float:
        """The score of always naming the most common class of the training images."""
        if self.measure == "accuracy":
            return self.majority_accuracy
        rows = next((n.per_class for n in self.networks if n.per_class), ())
        return 1 / (sum(row.num_images > 0 for row in rows) or len(self.class_names))

    @property
    def has_starts(self) -> bool:
        """Whether a network started from pre-trained weights."""
        return any(network.started_from is not None for network in self.networks)

    @property
    def num_judged(self) -> int:
        """How many images the final split has."""
        return self.num_images.of(self.final_split)

    @property
    def split_words(self) -> str:
        """The word for the final split before "images"."""
        return "test" if self.final_split == "test" else "selection-set"

    def network(self, name: str) -> Network:
        """Return the network of this name."""
        return next(network for network in self.networks if network.name == name)


class Measured(Record):
    """Timings of one network."""

    training_seconds: StrictFloat
    """Of all its runs."""
    run_seconds: StrictFloat | None = Field(None, exclude_if=lambda value: value is None)
    """Of one run, the median; None if none finished, or in results made before this was kept."""
    trial_seconds: StrictFloat
    images_per_second: StrictFloat | None
    latency_ms: StrictFloat | None
    """Of a single image, the network alone."""
    decode_ms: StrictFloat | None = Field(None, exclude_if=lambda value: value is None)
    """Of decoding the file of a single image; None in results made before."""
    peak_memory_mib: StrictFloat | None
    preparing_seconds: StrictFloat | None = Field(None, exclude_if=lambda value: value is None)
    """Of computing the features that its pre-trained weights give; shared by networks with the same
    weights. None if it starts from none."""

    @property
    def image_ms(self) -> float | None:
        """Of a single image, with decoding it; None where one of the two is not known."""
        if self.latency_ms is None or self.decode_ms is None:
            return None
        return self.latency_ms + self.decode_ms


class TrainingTimes(Record):
    """The training time that all networks of a comparison were given, and the times they took."""

    planned_seconds: StrictFloat
    """Of each run."""
    shortest: NetworkName
    shortest_seconds: StrictFloat
    """Measured, of one run: the median over runs."""
    longest: NetworkName
    longest_seconds: StrictFloat
    differ: StrictBool
    """Whether the longest is more than 15 % longer than the shortest."""
    shorter_by_design: tuple[NetworkName, ...]
    """Variants that take only as many steps as their slowest variant; not compared here."""
    sentence: Text
    """What differs and what to do, or that the times agree."""


class AllMeasured(Record):
    """Timings of a comparison."""

    networks: dict[NetworkName, Measured]
    total_seconds: StrictFloat
    times: TrainingTimes | None = Field(None, exclude_if=lambda value: value is None)
    """None unless several networks were given the same time, and in results made before."""
    cheapest: Text | None = Field(None, exclude_if=lambda value: value is None)
    """Which network not shown to be worse takes less time for an image, if one does."""


class Made(Record):
    """How, where and when the results were made."""

    command: Text
    source: Text
    """How the data was read."""
    versions: dict[str, str]
    hardware: Hardware
    date: Text


class Conclusion(Record):
    """The content of `results.json`."""

    results: Results
    measured: AllMeasured
    made: Made

    @model_validator(mode="after")
    def _has_the_same_networks(self) -> Conclusion:
        names = {network.name for network in self.results.networks}
        if names != set(self.measured.networks):
            raise ValueError("results.networks and measured.networks have different networks")
        if not {name for p in self.results.comparisons for name in (p.first, p.second)} <= names:
            raise ValueError("results.comparisons names a network that results.networks does not")
        against = self.results.against
        if against is not None and not (
            against in names and all(pair.second == against for pair in self.results.comparisons)
        ):
            raise ValueError("results.comparisons has a pair without results.against")
        winner = self.results.winner
        if winner is not None and winner.folder not in {
            run.folder for n in self.results.networks if n.name == winner.name for run in n.runs
        }:
            raise ValueError("results.winner names a folder that is not a run of its network")
        return self

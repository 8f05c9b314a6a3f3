"""Judgements of networks by the images they predict correctly, and of every pair of networks.

A comparison's `Results` extend a judgement; `towernet judge` makes one from a table of predictions.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, StrictFloat, StrictInt

from towernet.config import Measure
from towernet.records.base import Interval, Record, Text

Answer = Literal["better", "worse", "equal", "open", "too_few_runs"]
MEASURE_WORDS: dict[Measure, str] = {
    "accuracy": "accuracy",
    "balanced": "balanced accuracy",
}
Status = Literal["ranked", "failed", "not_enough_time", "did_not_learn"]


class Pair(Record):
    """How the scores of two networks differ, and how certain that is.

    A score is the accuracy, or the balanced accuracy if that is the measure.
    """

    first: Text
    second: Text
    difference: StrictFloat
    """Score of the first minus that of the second, over all runs."""
    interval: Interval
    """95 %, for all pairs at once."""
    p: StrictFloat
    p_adjusted: StrictFloat
    """By Holm's procedure over all pairs."""
    chance_better: StrictFloat
    """How often the first was ahead in a run, a tie counting half."""
    chance_interval: Interval
    answer: Answer
    """The outcome: the first is better, worse, equal within the margin, or not shown."""
    to_show: StrictFloat | None
    """The difference that `runs_needed` or `images_needed` would probably show."""
    runs_needed: StrictInt | None
    images_needed: StrictInt | None

    def turned(self) -> Pair:
        """Return the same difference, seen from the second network."""
        (low, high), (least, most) = self.interval, self.chance_interval
        turned: dict[Answer, Answer] = {"better": "worse", "worse": "better"}
        return self.model_copy(
            update={
                "first": self.second,
                "second": self.first,
                "difference": -self.difference,
                "interval": (-high, -low),
                "chance_better": 1 - self.chance_better,
                "chance_interval": (1 - most, 1 - least),
                "answer": turned.get(self.answer, self.answer),
            }
        )


class JudgedNetwork(Record):
    """One network, all its runs together."""

    name: Text
    status: Status
    reason: Text
    """Why it is not ranked, '' if it is."""
    rank: StrictInt | None
    accuracy: StrictFloat | None
    """The mean over runs; None if it failed."""
    interval: Interval | None
    balanced_accuracy: StrictFloat | None = Field(None, exclude_if=lambda value: value is None)
    """The mean over the classes of the share of each that is right; missing if the classes are not
    known, or the results were made before it was shown."""
    balanced_interval: Interval | None = Field(None, exclude_if=lambda value: value is None)

    def score(self, measure: Measure) -> float | None:
        """Return the accuracy or the balanced accuracy."""
        return self.accuracy if measure == "accuracy" else self.balanced_accuracy

    def score_interval(self, measure: Measure) -> Interval | None:
        """Return its interval."""
        return self.interval if measure == "accuracy" else self.balanced_interval

    @property
    def barely_trained(self) -> bool:
        """Whether it is ranked after so few epochs that its place says little; False if unknown."""
        return False


class Judged(Record):
    """What every judgement contains."""

    num_runs: StrictInt
    """Of each network."""
    equal_within: StrictFloat
    """The largest difference in score that does not matter."""
    measure: Measure = Field("accuracy", exclude_if=lambda value: value == "accuracy")
    """What the score of a network is; missing if it is accuracy."""
    networks: tuple[JudgedNetwork, ...]
    """Ranked ones first, by score."""
    against: Text | None = Field(None, exclude_if=lambda value: value is None)
    """The only network that the others were compared with; missing if every pair was judged."""
    comparisons: tuple[Pair, ...]
    """Every pair that was judged, all of them together. The first of a pair is the one with the
    higher score, or with `against` the one that is compared with it."""
    sentence: Text
    """The verdict."""
    remarks: tuple[Text, ...]
    """What a careful reader should also know."""

    @property
    def measure_words(self) -> str:
        """What the score of a network is called."""
        return MEASURE_WORDS[self.measure]

    @property
    def ranked(self) -> tuple[JudgedNetwork, ...]:
        """The networks that have a rank, the one with the highest score first."""
        return tuple(network for network in self.networks if network.status == "ranked")

    @property
    def num_judged(self) -> int:
        """How many images the networks were judged on."""
        raise NotImplementedError

    @property
    def split_words(self) -> str:
        """The word for those images before "images"."""
        raise NotImplementedError


class JudgedRun(Record):
    """One run of a network in a table of predictions."""

    run: Text
    """Its name in the table."""
    accuracy: StrictFloat
    balanced_accuracy: StrictFloat | None = Field(None, exclude_if=lambda value: value is None)

    def score(self, measure: Measure) -> float | None:
        """Return the accuracy or the balanced accuracy."""
        return self.accuracy if measure == "accuracy" else self.balanced_accuracy


class AnsweringNetwork(JudgedNetwork):
    """A network of which only predictions are known."""

    runs: tuple[JudgedRun, ...]


class AnswersJudged(Judged):
    """The judgement of a table of predictions: the content of `judgement.json`."""

    title: Text
    """Name of the predictions."""
    num_images: StrictInt
    num_groups: StrictInt | None
    """Of images that belong together; None if all images are independent."""
    networks: tuple[AnsweringNetwork, ...]
    """By score."""

    @property
    def num_judged(self) -> int:
        """How many images there are predictions for."""
        return self.num_images

    @property
    def split_words(self) -> str:
        """Empty: the table does not give the split of the images."""
        return ""

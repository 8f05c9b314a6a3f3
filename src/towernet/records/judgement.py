"""What is judged: networks by the images they got right, and every pair of them.

A comparison's `Results` are a judgement and more; `towernet judge` gives one of anybody's answers.
"""

from __future__ import annotations

from typing import Literal

from pydantic import StrictFloat, StrictInt

from towernet.records.base import Interval, Record, Text

Answer = Literal["better", "worse", "equal", "open", "too_few_runs"]
Status = Literal["ranked", "failed", "not_enough_time", "did_not_learn"]


class Pair(Record):
    """How the accuracies of two networks differ, and what that is worth."""

    first: Text
    second: Text
    difference: StrictFloat
    """Accuracy of the first less that of the second, over all runs."""
    interval: Interval
    """95 %, for all pairs at once."""
    p: StrictFloat
    p_adjusted: StrictFloat
    """By Holm's procedure over all pairs."""
    chance_better: StrictFloat
    """How often the first was ahead in a run, a tie counting half."""
    chance_interval: Interval
    answer: Answer
    """What became of it: the first is better, worse, equal within the margin, or not shown."""
    to_show: StrictFloat | None
    """The difference that `runs_needed` or `images_needed` would probably show."""
    runs_needed: StrictInt | None
    images_needed: StrictInt | None


class JudgedNetwork(Record):
    """One network, all its runs together."""

    name: Text
    status: Status
    reason: Text
    """Why it is not ranked, '' where it is."""
    rank: StrictInt | None
    accuracy: StrictFloat | None
    """The mean over runs; None where it failed."""
    interval: Interval | None


class Judged(Record):
    """What every judgement holds."""

    num_runs: StrictInt
    """Of each network."""
    equal_within: StrictFloat
    """The largest difference in accuracy that does not matter."""
    networks: tuple[JudgedNetwork, ...]
    """Ranked ones first, by accuracy."""
    comparisons: tuple[Pair, ...]
    """Every pair that was judged, all of them together."""
    sentence: Text
    """The verdict."""
    remarks: tuple[Text, ...]
    """What a careful reader should know beside it."""

    @property
    def ranked(self) -> tuple[JudgedNetwork, ...]:
        """The networks that have a rank, the most accurate first."""
        return tuple(network for network in self.networks if network.status == "ranked")

    @property
    def num_judged(self) -> int:
        """How many images the networks were judged by."""
        raise NotImplementedError

    @property
    def split_words(self) -> str:
        """What those images are called in front of "images"."""
        raise NotImplementedError


class JudgedRun(Record):
    """One run of a network, among somebody's answers."""

    run: Text
    """What the table calls it."""
    accuracy: StrictFloat


class AnsweringNetwork(JudgedNetwork):
    """A network of which there is nothing but its answers."""

    runs: tuple[JudgedRun, ...]


class AnswersJudged(Judged):
    """What somebody's answers are worth: all that `judgement.json` holds."""

    title: Text
    """What the answers are called."""
    num_images: StrictInt
    num_groups: StrictInt | None
    """Of images that belong together; None where each stands for itself."""
    networks: tuple[AnsweringNetwork, ...]
    """By accuracy."""

    @property
    def num_judged(self) -> int:
        """How many images there are answers for."""
        return self.num_images

    @property
    def split_words(self) -> str:
        """Nothing: which images they are, the table does not say."""
        return ""

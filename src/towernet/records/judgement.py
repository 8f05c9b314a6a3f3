"""Judgements of networks by the images they predict correctly, and of every pair of networks.

A comparison's `Results` extend a judgement; `towernet judge` makes one from a table of predictions.
"""

from __future__ import annotations

from typing import Literal

from pydantic import StrictFloat, StrictInt

from towernet.records.base import Interval, Record, Text

Answer = Literal["better", "worse", "equal", "open", "too_few_runs"]
Status = Literal["ranked", "failed", "not_enough_time", "did_not_learn"]


class Pair(Record):
    """How the accuracies of two networks differ, and how certain that is."""

    first: Text
    second: Text
    difference: StrictFloat
    """Accuracy of the first minus that of the second, over all runs."""
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

    @property
    def barely_trained(self) -> bool:
        """Whether it is ranked after so few epochs that its place says little; False if unknown."""
        return False


class Judged(Record):
    """What every judgement contains."""

    num_runs: StrictInt
    """Of each network."""
    equal_within: StrictFloat
    """The largest difference in accuracy that does not matter."""
    networks: tuple[JudgedNetwork, ...]
    """Ranked ones first, by accuracy."""
    comparisons: tuple[Pair, ...]
    """Every pair, all of them judged together."""
    sentence: Text
    """The verdict."""
    remarks: tuple[Text, ...]
    """What a careful reader should also know."""

    @property
    def ranked(self) -> tuple[JudgedNetwork, ...]:
        """The networks that have a rank, the most accurate first."""
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
    """By accuracy."""

    @property
    def num_judged(self) -> int:
        """How many images there are predictions for."""
        return self.num_images

    @property
    def split_words(self) -> str:
        """Empty: the table does not give the split of the images."""
        return ""

"""Checking a table of answers: every run of every network must have answers for the same images.

Shapes: R rows, M networks, K runs, N images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from towernet.comparison.answers.columns import (
    KEYS,
    Column,
    Ints,
    column_of,
    quoted,
    require_columns,
)
from towernet.comparison.answers.reading import RawTable, load_table
from towernet.comparison.judging.statistics import MAX_RUNS
from towernet.errors import DataError
from towernet.words import composed, counted, listed

Bools = npt.NDArray[np.bool_]

MAX_NETWORKS = 50  # every pair is judged; with more, the column is probably not the network
_TRUE, _FALSE = ("1", "true", "1.0"), ("0", "false", "0.0")


@dataclass(frozen=True)
class AnswerTable:
    """Which images the runs of some networks classified correctly.

    Args:
        networks: (M,) their names, in the order in which they first appear in the table.
        runs: (K,) their names; run k of every network shares its random draws.
        right_MKN: Whether each run of each network classified each image correctly.
        cluster_N: Which images belong together.
        num_groups: The number of groups if the table groups its images, else None.
        label_N: The class of each image, None if the table has no labels.
    """

    networks: tuple[str, ...]
    runs: tuple[str, ...]
    right_MKN: Bools
    cluster_N: Ints
    num_groups: int | None
    label_N: Ints | None = None


def read_answers(answers: pd.DataFrame | str | Path) -> AnswerTable:
    """Read a table of answers, and check that it can be judged.

    Args:
        answers: A data frame, or a CSV or Parquet file, with the columns network, run and image,
            either right or label and answer, and optionally group.

    Raises:
        DataError: it cannot be judged; the message names the row, network, run or image.
    """
    return _Checks(load_table(answers)).table()


class _Checks:
    """The columns of a table, and its checks."""

    def __init__(self, table: RawTable) -> None:
        self.raw = table
        self.name = table.name
        require_columns(table)
        if not len(table.frame):
            raise DataError(f"{self.name} contains no answers; add a row for each")
        self.network, self.run, self.image = (column_of(table, name) for name in KEYS)
        has = table.frame.columns
        self.label = column_of(table, "label") if "label" in has else None
        self.answer = column_of(table, "answer") if {"label", "answer"} <= set(has) else None
        self.group = column_of(table, "group", empty=True) if "group" in has else None

    def table(self) -> AnswerTable:
        """Make all checks, those with the most helpful messages first."""
        right_R = self._right()
        self._require_networks()
        unit_R = self._units()
        self._require_each_once(unit_R)
        for column, what in ((self.label, "label"), (self.group, "group")):
            if column is not None:
                self._require_one_of_each_image(column, what)
        self._require_same_runs()
        self._require_same_images(unit_R)
        if self.label is not None and len(self.label.texts) == 1:
            raise DataError(
                f"{self.name}: every label is {self.label[0]}; with one class there is nothing to"
                " judge, use images of two or more classes"
            )
        return self._arranged(right_R)

    def _right(self) -> Bools:
        """Return (R,): whether each row's answer is right.

        Raises:
            DataError: a value is neither true nor false, or contradicts the label and answer.
        """
        by_answer = self._right_by_answer()
        if "right" not in self.raw.frame:
            assert by_answer is not None, "required above"
            return by_answer
        column = column_of(self.raw, "right")
        folded = [text.strip().casefold() for text in column.texts]
        is_known = np.array([text in (*_TRUE, *_FALSE) for text in folded])[column.codes]
        if not is_known.all():
            row = int((~is_known).argmax())
            raise DataError(
                f"{self.name}: 'right' is {column[row]} in {self.raw.row(row)}; use 1 or 0, or true"
                " or false"
            )
        right_R: Bools = np.array([text in _TRUE for text in folded])[column.codes]
        if by_answer is not None and (right_R != by_answer).any():
            assert self.label is not None and self.answer is not None
            row = int((right_R != by_answer).argmax())
            raise DataError(
                f"{self.name}: {self.raw.row(row)} has the label {self.label[row]}, the answer"
                f" {self.answer[row]} and {column[row]} under 'right'; make them agree, or leave"
                " out 'right' or 'answer'"
            )
        return right_R

    def _right_by_answer(self) -> Bools | None:
        if self.label is None or self.answer is None:
            return None
        code_of: dict[str, int] = {}
        same = [
            code_of.setdefault(composed(text), code) for code, text in enumerate(self.label.texts)
        ]
        label_of = np.array([code_of.get(composed(text), -1) for text in self.answer.texts])
        if (label_of < 0).all():
            raise self._other_names("", self.answer.texts)
        for code, name in enumerate(self.network.texts):
            answers = np.unique(self.answer.codes[self.network.codes == code])
            # A single answer may be a mistake; several mean that other names are used.
            if len(answers) > 1 and (label_of[answers] < 0).all():
                unknown = [self.answer.texts[answer] for answer in answers]
                raise self._other_names(f" of {quoted(name)}", unknown)
        by_answer: Bools = label_of[self.answer.codes] == np.array(same)[self.label.codes]
        return by_answer

    def _other_names(self, whose: str, answers: Sequence[str]) -> DataError:
        assert self.label is not None, "answers are compared with labels"
        labels, others = (
            listed([quoted(t) for t in texts[:3]]) for texts in (self.label.texts, answers)
        )
        return DataError(
            f"{self.name}: no answer{whose} is one of the labels (labels such as {labels}, answers"
            f" such as {others}); use the same class names in both columns"
        )

    def _require_networks(self) -> None:
        names = self.network.texts
        if len(names) == 1:
            raise DataError(
                f"{self.name} contains the answers of only one network, {quoted(names[0])}; add"
                " those of another to compare it with"
            )
        if len(names) > MAX_NETWORKS:
            raise DataError(
                f"{self.name} contains {len(names):,} networks; use at most {MAX_NETWORKS}"
            )
        if len(self.run.texts) > MAX_RUNS:
            raise DataError(
                f"{self.name} contains {len(self.run.texts):,} runs; use at most {MAX_RUNS:,}"
            )

    def _units(self) -> Ints:
        """Return (R,): a number for each row that identifies its network and run."""
        units: Ints = self.network.codes * len(self.run.texts) + self.run.codes
        return units

    def _unit_name(self, unit: int) -> str:
        network, run = divmod(unit, len(self.run.texts))
        return f"network {quoted(self.network.texts[network])}, run {quoted(self.run.texts[run])}"

    def _require_each_once(self, unit_R: Ints) -> None:
        cell_R = unit_R * len(self.image.texts) + self.image.codes
        is_duplicate = pd.Series(cell_R).duplicated().to_numpy()
        if is_duplicate.any():
            row = int(is_duplicate.argmax())
            before, num = int((cell_R == cell_R[row]).argmax()), int(is_duplicate.sum())
            more = "" if num == 1 else f" (one of {num:,} duplicate rows)"
            raise DataError(
                f"{self.name}: rows {self.raw.rows[before]} and {self.raw.rows[row]} are both for"
                f" {self._unit_name(int(unit_R[row]))}, image {self.image[row]}{more}; keep one"
                " answer for each"
            )

    def _require_one_of_each_image(self, column: Column, what: str) -> None:
        code_N = np.empty(len(self.image.texts), np.int64)
        code_N[self.image.codes[::-1]] = column.codes[::-1]  # the value of the first row wins
        differs = code_N[self.image.codes] != column.codes
        if differs.any():
            row = int(differs.argmax())
            first = int((self.image.codes == self.image.codes[row]).argmax())
            one, other = ("none" if column.codes[i] < 0 else column[i] for i in (first, row))
            raise DataError(
                f"{self.name}: image {self.image[row]} has the {what} {one} in"
                f" {self.raw.row(first)} and {other} in {self.raw.row(row)}; give every image one"
                f" {what}"
            )

    def _require_same_runs(self) -> None:
        has_MK = np.zeros((len(self.network.texts), len(self.run.texts)), dtype=bool)
        has_MK[self.network.codes, self.run.codes] = True
        if has_MK.all():
            return
        least = int(has_MK.sum(axis=1).argmin())
        run = int((~has_MK[least]).argmax())
        other = int(has_MK[:, run].argmax())
        raise DataError(
            f"{self.name}: network {quoted(self.network.texts[least])} has"
            f" {has_MK[least].sum()} of {counted(has_MK.shape[1], 'run')}: run"
            f" {quoted(self.run.texts[run])} is missing, but {quoted(self.network.texts[other])}"
            " has it; runs are compared in pairs, so use the same run names for every network"
        )

    def _require_same_images(self, unit_R: Ints) -> None:
        num_units = len(self.network.texts) * len(self.run.texts)
        num_images = len(self.image.texts)
        counts = np.bincount(unit_R, minlength=num_units)
        if (counts == num_images).all():
            return
        unit = int(counts.argmin())
        has_N = np.zeros(num_images, dtype=bool)
        has_N[self.image.codes[unit_R == unit]] = True
        image = int((~has_N).argmax())
        other = int(unit_R[(self.image.codes == image).argmax()])
        num = num_images - int(counts[unit])
        more = "" if num == 1 else f" (and {num - 1:,} more)"
        raise DataError(
            f"{self.name}: {self._unit_name(unit)} has answers for {counts[unit]:,} of"
            f" {counted(num_images, 'image')}: {quoted(self.image.texts[image])} is missing{more},"
            f" but {self._unit_name(other)} has it; every run needs answers for the same images"
        )

    def _arranged(self, right_R: Bools) -> AnswerTable:
        networks, runs, images = self.network.texts, self.run.texts, self.image.texts
        run_order, image_order = _in_order(runs), _in_order(images)
        right_MKN = np.zeros((len(networks), len(runs), len(images)), dtype=bool)
        run_R, image_R = _places(run_order)[self.run.codes], _places(image_order)[self.image.codes]
        right_MKN[self.network.codes, run_R, image_R] = right_R
        group_N = np.full(len(images), -1)
        if self.group is not None:
            places = _places(_in_order(self.group.texts))
            code_R = self.group.codes
            group_N[image_R] = np.where(code_R < 0, -1, places[code_R]) if len(places) else -1
        label_N = None
        if self.label is not None:
            label_N = np.empty(len(images), np.int64)
            label_N[image_R] = self.label.codes
        # An image without a group becomes a group of its own, after the others.
        alone = group_N < 0
        num_named = 0 if self.group is None else len(self.group.texts)
        group_N[alone] = num_named + np.arange(alone.sum())
        return AnswerTable(
            networks=networks,
            runs=tuple(runs[code] for code in run_order),
            right_MKN=right_MKN,
            cluster_N=group_N,
            num_groups=None if self.group is None else num_named + int(alone.sum()),
            label_N=label_N,
        )


def _in_order(texts: tuple[str, ...]) -> Ints:
    """Return the codes in the order of their texts; whole numbers by value: 9 comes before 10."""
    try:
        numbers = [int(text) for text in texts]
    except ValueError:
        return np.array(sorted(range(len(texts)), key=texts.__getitem__), np.int64)
    return np.array(sorted(range(len(texts)), key=lambda i: (numbers[i], texts[i])), np.int64)


def _places(order: Ints) -> Ints:
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    return places

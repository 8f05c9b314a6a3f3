"""How copies are marked in the sample table: what each is a copy of, and in which given split.

An image has at most one note of a kind and a split for each other split: NEAR_DUPLICATE_IN_TEST
means that the test split has a near duplicate of it. The used members of a cluster, except the
first, have a note of the kind alone, such as MIRRORED. `detail` names the other image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from towernet.data.duplicates import NearDuplicates, groups
from towernet.data.table import IGNORED, QUARANTINED, SPLITS, USED, Texts
from towernet.data.turns import CODES, MIRRORED, UPRIGHT, back, then

ACROSS_SPLITS = "DUPLICATE_ACROSS_SPLITS"
SAME_BYTES, SAME_PIXELS = "SAME_BYTES", "SAME_PIXELS"
KINDS = (SAME_BYTES, SAME_PIXELS, *CODES)  # the closest first
LUMP, OTHER_CLASS = "NEAR_DUPLICATE_LUMP", "NEAR_DUPLICATE_OTHER_CLASS"
TURNED_OTHER_CLASS, MIRRORED_OTHER_CLASS = "TURNED_OTHER_CLASS", "MIRRORED_OTHER_CLASS"
TURNED_COPIES = "TURNED_COPIES"  # a turned copy is in its class, tied or in a lump
NOTES = {
    *KINDS,
    *(f"{kind}_IN_{split.upper()}" for kind in KINDS for split in SPLITS),
    *(LUMP, OTHER_CLASS, TURNED_OTHER_CLASS, MIRRORED_OTHER_CLASS, TURNED_COPIES),
}
_WORDS = (
    "the same bytes as {}",
    "the same pixels as {}",
    "a near duplicate of {}",
    "a copy of {} turned by 90°",
    "a copy of {} turned by 180°",
    "a copy of {} turned by 270°",
    "a mirrored copy of {}",
    "a copy of {} mirrored and turned by 90°",
    "a copy of {} mirrored top to bottom",
    "a copy of {} mirrored and turned by 270°",
)
_OF_TURN = KINDS.index(CODES[UPRIGHT])  # the place of a turn's kind in KINDS

Rows = npt.NDArray[np.int64]


class Copies:
    """Marks copies in the columns of a table that is being built.

    Args:
        paths: Of all rows, sorted by their bytes.
        content_ids: Of all rows, as bytes.
        texts: The text columns.
    """

    def __init__(
        self, paths: npt.NDArray[Any], content_ids: npt.NDArray[Any], texts: dict[str, Texts]
    ) -> None:
        self.paths, self.content_ids, self.texts = paths, content_ids, texts
        stages = [
            SPLITS.index(text) if text in SPLITS else 0 for text in texts["given_split"].texts
        ]
        self._stages = np.array(stages, np.int8)[texts["given_split"].codes]

    def exclude_same_bytes(self) -> None:
        """Of identical files use the one in the latest split, or none if their classes differ.

        Results are measured on the test split, then on the validation split, so those stay whole.
        Within a split, the first in byte order is used.
        """
        used = self.used()
        for members in groups(self.content_ids.view(np.uint64)[::4][used]):
            rows = used[members]  # equal in 64 bits; now all bits are compared
            for same in groups(self.content_ids[rows]):
                self._exclude(rows[same])

    def used(self) -> Rows:
        """Return the used rows."""
        status = self.texts["status"]
        return np.flatnonzero(status.codes == status.code(USED))

    def _exclude(self, same: Rows) -> None:
        texts, class_codes = self.texts, self.texts["class_name"].codes[same]
        alike, others = same[class_codes == class_codes[0]], same[class_codes != class_codes[0]]
        if len(others):
            texts["status"][same] = QUARANTINED
            texts["reason"][same] = "LABEL_CONFLICT"
            for rows, path in ((alike, self.paths[others[0]]), (others, self.paths[same[0]])):
                texts["detail"][rows] = f"the same bytes as {path}; keep it in one class only"
            return
        stages = self._stages[same]
        kept = same[np.argmax(stages)]  # the first one of the latest split
        texts["status"][same[same != kept]] = IGNORED
        for row, stage in zip(same.tolist(), stages.tolist(), strict=True):
            for other in sorted({*stages.tolist()} - {stage}):
                self._note(row, _in_split(0, other))
            if stage < self._stages[kept]:
                self._leave_out(row, 0, int(kept))
            elif row != kept:
                texts["reason"][row] = "DUPLICATE"
                texts["detail"][row] = _WORDS[0].format(self.paths[kept])

    def _leave_out(self, row: int, kind: int, kept: int) -> None:
        texts, split = self.texts, SPLITS[self._stages[kept]]
        texts["status"][row], texts["reason"][row] = IGNORED, ACROSS_SPLITS
        words = _WORDS[kind].format(self.paths[kept])
        texts["detail"][row] = f"{words}, which is in the {split} split that came with the data"

    def _note(self, row: int, note: str) -> None:
        notes = self.texts["notes"]
        notes[row] = f"{notes[row]},{note}" if notes[row] else note

    def tie(self, near: NearDuplicates, used: Rows, pixel_ids: npt.NDArray[np.uint64]) -> None:
        """Set the clusters; of one in several given splits, only the images of the latest stay.

        Args:
            near: The near duplicates among the used rows.
            used: The used rows.
            pixel_ids: Of all rows.
        """
        for members in groups(near.clusters):
            rows, turns = used[members], near.turns[members]
            least = min(self.content_ids[rows].tolist())
            self.texts["cluster"][rows] = least.ljust(32, b"\0").hex()
            self._mark(_Cluster(rows, turns.tolist(), pixel_ids[rows], self._stages[rows]))
        for is_so, note in (
            (near.in_lump, LUMP),
            (near.across_classes, OTHER_CLASS),
            (near.has_turned, TURNED_COPIES),
        ):
            for row in used[is_so].tolist():
                self._note(row, note)
        for first, second, turn in near.turned_across.tolist():
            self._contrast(int(used[first]), int(used[second]), turn)
            self._contrast(int(used[second]), int(used[first]), back(turn))

    def _mark(self, cluster: _Cluster) -> None:
        """Note what each member is a copy of."""
        stages = cluster.stages.tolist()
        of_stage, latest = {stage: cluster.of_stage(stage) for stage in {*stages}}, max(stages)
        for member, (row, stage) in enumerate(zip(cluster.rows.tolist(), stages, strict=True)):
            for other in sorted(of_stage.keys() - {stage}):
                kind, kept = cluster.closest(member, of_stage[other])
                self._note(row, _in_split(kind, other))
                if other == latest:
                    self._leave_out(row, kind, int(cluster.rows[kept]))
            first = of_stage[latest][0]
            if stage == latest and member != first:
                kind = cluster.kind(member, first)
                self._note(row, KINDS[kind])
                self.texts["detail"][row] = _WORDS[kind].format(self.paths[cluster.rows[first]])

    def _contrast(self, row: int, other: int, turn: int) -> None:
        """Note that an image is a turned copy of one of another class."""
        note = MIRRORED_OTHER_CLASS if turn == MIRRORED else TURNED_OTHER_CLASS
        if note in self.texts["notes"][row].split(","):
            return
        self._note(row, note)
        if not self.texts["detail"][row]:
            self.texts["detail"][row] = _WORDS[_OF_TURN + turn].format(self.paths[other])


class _Cluster:
    """The members of a cluster: their rows, turns, pixels and given splits."""

    def __init__(
        self,
        rows: Rows,
        turns: list[int],
        pixel_ids: npt.NDArray[np.uint64],
        stages: npt.NDArray[np.int8],
    ) -> None:
        self.rows, self.turns, self.stages = rows, turns, stages
        self.pixel_ids: list[int] = pixel_ids.tolist()

    def of_stage(self, stage: int) -> list[int]:
        """Return the members in a split, but only one of each kind of picture."""
        some: dict[tuple[int, int], int] = {}
        for member in np.flatnonzero(self.stages == stage).tolist():
            some.setdefault((self.turns[member], self.pixel_ids[member]), member)
        return list(some.values())

    def kind(self, member: int, other: int) -> int:
        """Return the place in KINDS of how one member is a copy of another."""
        if self.pixel_ids[member] == self.pixel_ids[other]:
            return KINDS.index(SAME_PIXELS)
        return _OF_TURN + then(back(self.turns[other]), self.turns[member])

    def closest(self, member: int, others: Sequence[int]) -> tuple[int, int]:
        """Return the closest kind, and the first of some others that is a copy of that kind."""
        return min((self.kind(member, other), other) for other in others)


def _in_split(kind: int, stage: int) -> str:
    return f"{KINDS[kind]}_IN_{SPLITS[stage].upper()}"

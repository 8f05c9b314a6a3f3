"""The content of some data, as printed by `towernet check --json`."""

from __future__ import annotations

from pydantic import StrictFloat, StrictInt

from towernet.records.base import Record, Text
from towernet.records.leaks import Copy, Leak


class OfClass(Record):
    """How many files of one class are used, quarantined and ignored."""

    used: StrictInt
    quarantined: StrictInt
    ignored: StrictInt


class Spread(Record):
    """How a number varies over the images."""

    min: StrictInt
    median: StrictFloat
    max: StrictInt


class QuarantinedFile(Record):
    """A file that is not used, and why."""

    path: Text
    class_name: Text
    reason: Text
    detail: Text


class NearDuplicates(Record):
    """Images that look alike."""

    clusters: StrictInt
    files: StrictInt
    not_tied: StrictInt
    """In lumps that are too large to be kept on one side of every split."""
    across_classes: tuple[Text, ...]
    groups: tuple[tuple[Copy, ...], ...]
    """Images that are kept within one split: in each group, copies of the first; up to 1,000."""
    num_turned_across: StrictInt
    turned_across: tuple[Copy, ...]
    """Turned or mirrored copies of an image of another class, which are not tied; up to 1,000."""


class Checked(Record):
    """Counts of what was found."""

    data: Text
    reading: Text
    """How the data was read."""
    found: StrictInt
    used: StrictInt
    quarantined: StrictInt
    ignored: StrictInt
    classes: dict[Text, OfClass]
    leaks: tuple[Leak, ...]
    """Copies across the given splits, by kind."""
    leaked: tuple[Copy, ...]
    """The images left out because of them; up to 1,000."""
    given_splits: dict[str, int]
    width: Spread | None
    height: Spread | None
    modes: dict[str, int]
    value_range: tuple[StrictFloat, StrictFloat] | None = None
    """Values of images of more than 8 bits that become black and white; None if there are none."""
    formats: dict[str, int]
    notes: dict[str, int]
    quarantined_files: tuple[QuarantinedFile, ...]
    quarantined_reasons: dict[str, int]
    ignored_reasons: dict[str, int]
    duplicates: StrictInt
    label_conflicts: StrictInt
    near_duplicates: NearDuplicates
    warnings: tuple[Text, ...]
    written: tuple[Text, ...]
    problem: Text | None
    """Why it cannot be trained on."""

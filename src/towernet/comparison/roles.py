"""The role of an image for a run: in which split of the run it is, recognised by its bytes.

The run's sample table lists its training, validation and test images.

Shapes: N images that are evaluated.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from towernet.data import splits
from towernet.data.changes import GONE
from towernet.data.table import SPLITS, TEST, TRAIN, USED, VALIDATION, read_table
from towernet.errors import DataError
from towernet.records.run import ImportedRun, RunRecord
from towernet.registry import unknown_name

# For images in none of its splits: removed from the data since, tied to an image that it learnt
# from, or neither.
REMOVED, TIED, UNKNOWN = "taken_away", "tied", "unknown"
LEARNT_FROM = (TRAIN, VALIDATION, REMOVED)
UNSEEN, ALL = "unseen", "all"
# In the order in which they are listed.
ROLES = (*LEARNT_FROM, TIED, TEST, UNKNOWN)
ROLES_OF_SPLIT = {
    UNSEEN: (TEST, UNKNOWN),
    TEST: (TEST,),
    VALIDATION: (VALIDATION,),
    TRAIN: (TRAIN,),
    ALL: ROLES,
}

Roles = npt.NDArray[np.object_]


def roles_of_split(split: str) -> tuple[str, ...]:
    """Return the roles of the images that `--split` selects.

    Raises:
        UnknownNameError: it is not a key of `ROLES_OF_SPLIT`.
    """
    if split not in ROLES_OF_SPLIT:
        raise unknown_name("split", split, ROLES_OF_SPLIT)
    return ROLES_OF_SPLIT[split]


def known_images(folder: Path, record: RunRecord | ImportedRun) -> pd.DataFrame | None:
    """Return the run's sample table; None for imported weights without one.

    Raises:
        DataError: the table is missing or damaged.
    """
    path = folder / "samples.parquet"
    if isinstance(record, ImportedRun) and not path.exists():
        return None
    if not path.exists():
        raise DataError(f"{path}, the list of the run's training images, is missing; restore it")
    return read_table(path)


def roles(used: pd.DataFrame, known: pd.DataFrame | None) -> Roles:
    """Return the role of each image for a run, (N,).

    Args:
        used: The images, as rows of a sample table.
        known: The run's own sample table, None if it has none.
    """
    role_N = np.full(len(used), UNKNOWN, dtype=object)
    if known is None:
        return role_N

    def are_among(some: pd.Series[bool]) -> npt.NDArray[np.bool_]:
        same: npt.NDArray[np.bool_] = used.content_id.isin(known.content_id[some]).to_numpy(bool)
        return same

    role_N[are_among(known.reason == GONE)] = REMOVED
    for split in SPLITS:
        role_N[are_among((known.status == USED) & (known.split == split))] = split
    unit_N = splits.tied(used)
    is_tied = np.isin(unit_N, unit_N[np.isin(role_N, LEARNT_FROM)])
    role_N[is_tied & (role_N == UNKNOWN)] = TIED
    return role_N


def count(role_N: Roles) -> dict[str, int]:
    """Return how many images have each role, in the order in which they are listed."""
    num = Counter(role_N.tolist())
    return {role: num[role] for role in ROLES if num[role]}

"""What an image is to a run: it knows images by their bytes.

Its own sample table says which trained it, which chose its epoch, and which were locked away.

Shapes: N images that are asked about.
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

# Besides being of one of its splits: taken away since, tied to an image that it learnt from, or
# neither.
TAKEN_AWAY, TIED, UNKNOWN = "taken_away", "tied", "unknown"
LEARNT_FROM = (TRAIN, VALIDATION, TAKEN_AWAY)
UNSEEN, ALL = "unseen", "all"
# In the order in which they are told.
ROLES = (*LEARNT_FROM, TIED, TEST, UNKNOWN)
ASKED = {
    UNSEEN: (TEST, UNKNOWN),
    TEST: (TEST,),
    VALIDATION: (VALIDATION,),
    TRAIN: (TRAIN,),
    ALL: ROLES,
}

Roles = npt.NDArray[np.object_]


def asked_roles(split: str) -> tuple[str, ...]:
    """Return which images a split asks for.

    Raises:
        UnknownNameError: it is no key of `ASKED`.
    """
    if split not in ASKED:
        raise unknown_name("split", split, ASKED)
    return ASKED[split]


def known_images(folder: Path, record: RunRecord | ImportedRun) -> pd.DataFrame | None:
    """Return the run's sample table; None where its images are not known, as of weights that came.

    Raises:
        DataError: the table is missing or damaged.
    """
    path = folder / "samples.parquet"
    if isinstance(record, ImportedRun) and not path.exists():
        return None
    if not path.exists():
        raise DataError(f"{path} is missing, and it says which images trained the run; restore it")
    return read_table(path)


def roles(used: pd.DataFrame, known: pd.DataFrame | None) -> Roles:
    """Return what each image is to a run, (N,).

    Args:
        used: The images, as rows of a sample table.
        known: The run's own sample table, None where it has none.
    """
    role_N = np.full(len(used), UNKNOWN, dtype=object)
    if known is None:
        return role_N

    def are_among(some: pd.Series[bool]) -> npt.NDArray[np.bool_]:
        same: npt.NDArray[np.bool_] = used.content_id.isin(known.content_id[some]).to_numpy(bool)
        return same

    role_N[are_among(known.reason == GONE)] = TAKEN_AWAY
    for split in SPLITS:
        role_N[are_among((known.status == USED) & (known.split == split))] = split
    unit_N = splits.tied(used)
    is_tied = np.isin(unit_N, unit_N[np.isin(role_N, LEARNT_FROM)])
    role_N[is_tied & (role_N == UNKNOWN)] = TIED
    return role_N


def count(role_N: Roles) -> dict[str, int]:
    """Return how many images have each role, in the order in which they are told."""
    num = Counter(role_N.tolist())
    return {role: num[role] for role in ROLES if num[role]}

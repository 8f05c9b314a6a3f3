"""The predictions of a finished comparison as a table that `towernet.judge` reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from towernet.data.splits import tied
from towernet.data.table import USED, read_frame, read_table
from towernet.errors import DataError
from towernet.records.results import Results


def answers_table(folder: Path, results: Results) -> pd.DataFrame:
    """Return the predictions of every run of the ranked networks for the final images.

    Judging this table reproduces the comparison's figures if it compared every pair of networks
    (with attention, a network with a block is only compared with the same network without one).
    The table cannot be judged if each run was evaluated on different images.

    Args:
        folder: The comparison's folder, with `samples.parquet` and the runs.
        results: The content of its `results.json`.

    Returns:
        A row for each prediction, with the columns network, run, image, label, answer and group;
        networks in the order of the ranking, images in the order of the sample table. Images that
        are tied, as near duplicates or by a group, have the same group.

    Raises:
        DataError: a file is missing or damaged, or the files do not belong together.
    """
    table = read_table(folder / "samples.parquet")
    used = table[table["status"] == USED]
    group_of = dict(zip(used["path"], tied(used).tolist(), strict=True))
    parts = []
    for network in results.networks:
        if network.status != "ranked":
            continue
        for number, run in enumerate(network.runs):
            path = folder / run.folder / "predictions.parquet"
            answers = read_frame(path)
            try:
                groups = [group_of[image] for image in answers["path"]]
            except KeyError as error:
                raise DataError(
                    f"{path} contains {error}, which the comparison did not use; restore it"
                ) from error
            parts.append(
                pd.DataFrame(
                    {
                        "network": _repeated(network.name, len(answers)),
                        "run": np.full(len(answers), number),
                        "image": answers["path"],
                        "label": answers["class_name"],
                        "answer": answers["predicted"],
                        "group": np.array(groups, np.int64),
                    }
                )
            )
    if not parts:
        raise DataError(f"no network of {folder} was ranked, so there are no predictions to judge")
    return pd.concat(parts, ignore_index=True)


def _repeated(text: str, times: int) -> pd.Series:
    # As objects, like the other texts: they need not be valid UTF-8.
    return pd.Series([str(text)] * times, dtype=object)

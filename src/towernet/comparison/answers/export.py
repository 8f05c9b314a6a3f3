"""The answers of a finished comparison as a table that `towernet.judge` reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from towernet.data.splits import tied
from towernet.data.table import USED, read_frame, read_table
from towernet.errors import DataError
from towernet.records.results import Results


def answers_table(folder: Path, results: Results) -> pd.DataFrame:
    """Return what every run of the ranked networks answered for the final images.

    Judged, it gives the comparison's own figures, where that compared each network with each (with
    attention, a network with a block is only compared with its like without one). Where each run
    was judged on images of its own it cannot be.

    Args:
        folder: The comparison's, with `samples.parquet` and the runs.
        results: What its `results.json` says.

    Returns:
        A row for each answer, with the columns network, run, image, label, answer and group;
        networks in the order of the ranking, images in that of the sample table. What near
        duplicates or groups tie together has the same group.

    Raises:
        DataError: a file is missing or damaged, or they do not belong together.
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
                    f"{path} answers for {error}, which the comparison did not use; restore it"
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
        raise DataError(f"no network of {folder} was ranked, so it has no answers to judge")
    return pd.concat(parts, ignore_index=True)


def _repeated(text: str, times: int) -> pd.Series:
    # Of objects, as the other texts, of which some need not be UTF-8.
    return pd.Series([str(text)] * times, dtype=object)

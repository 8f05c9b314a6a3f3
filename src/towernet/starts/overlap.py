"""Weights from a run made here must not have seen the images that a comparison is judged by.

A network that was trained on a test image, or on a copy of it, knows the answer. So the images that
the run learned from are compared with those that are held out in any repetition: by their bytes,
and by their pixels (near duplicates, turned, mirrored, lighter and darker copies). If the run
started from another run, so are the images of that one, and so on.

Shapes: N images.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from towernet import files
from towernet.data import duplicates
from towernet.data.changes import GONE
from towernet.data.examine import Examined, examine
from towernet.data.ranges import rules_of
from towernet.data.source import Source, open_source
from towernet.data.table import TEST, TRAIN, USED, VALIDATION, read_table
from towernet.data.thumbnails import Thumbnails
from towernet.data.workers import Count, in_processes
from towernet.errors import ConfigError, TowernetError
from towernet.records.reading import DEFAULT
from towernet.records.run import RunRecord, read_run
from towernet.records.weights import StartWeights
from towernet.starts.runs import SAMPLES_FILE, run_at
from towernet.words import counted, shown

_HELD_OUT = (VALIDATION, TEST)
_TODO = "restore it, or give other weights"


def require_no_overlap(
    run: Path,
    tables: Sequence[pd.DataFrame],
    source: Source,
    *,
    workers: int,
    progress: Count | None = None,
) -> str:
    """Refuse a run that learned from images with which this comparison chooses or measures.

    Args:
        run: Folder of the run whose weights are the start.
        tables: The sample table of each repetition, with its splits.
        source: The images of this comparison.
        workers: How many processes decode.
        progress: Called as progress(what, done, total).

    Returns:
        What could not be compared, as sentences to show; '' if everything was.

    Raises:
        ConfigError: it, or a run that it started from, did learn from some; the message counts them
            and names one.
        DataError: the record of a run or its sample table is damaged.
    """
    runs, unknown = _with_earlier(run)
    held = _held_out(tables)
    said = [_compared(each, run, held, source, workers, progress) for each in runs]
    return ". ".join(words for words in (*said, unknown) if words)


def _with_earlier(run: Path) -> tuple[list[Path], str]:
    """Return a run and those that it started from, the last first, and which is gone, in words."""
    runs = [run]
    while True:
        record = read_run(runs[-1], todo=_TODO)
        if not isinstance(record, RunRecord) or (before := record.started_from) is None:
            return runs, ""
        given = dict(item.split("=", 1) for item in record.origin.weights or ())
        where = given.get(before.network, "")
        earlier = run_at(Path(where)) if where else None
        if earlier is not None and earlier not in runs and _has(earlier, before):
            runs.append(earlier)
        elif before.of_runs is None:
            return runs, ""
        else:
            return runs, (
                f"{runs[-1]} started from weights of another run ({before.name}), which is no"
                f" longer at {where}, so the images that this one learned from could not be"
                " compared with those of this comparison"
            )


def _has(run: Path, weights: StartWeights) -> bool:
    """Whether these are the weights of a run; False for a comparison."""
    is_one = (run / "run.json").exists()
    return is_one and read_run(run, todo=_TODO).weights_sha256 == weights.sha256


def _compared(
    run: Path,
    given: Path,
    held: pd.DataFrame,
    source: Source,
    workers: int,
    progress: Count | None,
) -> str:
    """Compare the images that one run learned from, as `require_no_overlap` does.

    Args:
        run: Its folder.
        given: The run whose weights are the start, for the message.
        held: Path and content id of the images held out.
        source: The images of this comparison.
        workers: How many processes decode.
        progress: Called as progress(what, done, total).
    """
    record = read_run(run, todo=_TODO)
    if not isinstance(record, RunRecord) or not (run / SAMPLES_FILE).exists():
        return (
            f"{run} has no list of the images that its weights were trained on, so they could not"
            " be compared with the images of this comparison"
        )
    who = str(run) if run == given else f"{given} started from {run}, which"
    known = read_table(run / SAMPLES_FILE)
    is_seen = ((known.status == USED) & known.split.isin((TRAIN, VALIDATION))) | (
        known.reason == GONE
    )
    is_same = held.content_id.isin(_with_copies(known, is_seen)).to_numpy(bool)
    if is_same.any():
        raise _overlap(who, held.path[is_same], len(held), "the same files")
    seen = known[is_seen]
    there, unknown = _where(record, seen)
    ours = dict(zip(source.files.paths, source.files.locations, strict=True))
    locations = [ours[path] for path in held.path]
    is_copy, num_changed = _copies(there, locations, record, source, workers, progress)
    unknown += num_changed
    if is_copy.any():
        raise _overlap(who, held.path[is_copy], len(held), "copies, turned or not,")
    if not unknown:
        return ""
    return (
        f"{unknown:,} of the {counted(len(seen), 'image')} that {run} learned from were changed"
        " or are no longer where they were, so only their bytes could be compared: a near or turned"
        " copy of them would not have been noticed"
    )


def _held_out(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return path and content id of the images that are held out in any repetition."""
    some = [
        table.loc[(table.status == USED) & table.split.isin(_HELD_OUT), ["path", "content_id"]]
        for table in tables
    ]
    return pd.concat(some).drop_duplicates("path").reset_index(drop=True)


def _with_copies(known: pd.DataFrame, is_seen: pd.Series[bool]) -> set[str]:
    """Return the content ids of images, and of those that the run's table ties to them."""
    clusters = set(known.cluster[is_seen]) - {""}
    return set(known.content_id[is_seen | known.cluster.isin(clusters)]) - {""}


def _where(record: RunRecord, seen: pd.DataFrame) -> tuple[list[tuple[Path, str]], int]:
    """Return place and content id of the images that are still there, and how many are not."""
    data = record.origin.data
    if data is None:
        return [], len(seen)
    try:
        source = open_source(data, record.origin.reading or DEFAULT, min_classes=1)
    except TowernetError:
        return [], len(seen)
    places = dict(zip(source.files.paths, source.files.locations, strict=True))
    there = [
        (places[path], content_id)
        for path, content_id in zip(seen.path, seen.content_id, strict=True)
        if path in places and places[path].exists()
    ]
    return there, len(seen) - len(there)


def _copies(
    there: Sequence[tuple[Path, str]],
    locations: Sequence[Path],
    record: RunRecord,
    source: Source,
    workers: int,
    progress: Count | None,
) -> tuple[npt.NDArray[np.bool_], int]:
    """Return (N,) whether each held-out image is a copy of one that the run learned from.

    Also returns how many of the latter have changed since, or cannot be read.
    """
    if not there or not locations:
        return np.zeros(len(locations), bool), 0
    wanted = [content_id for _, content_id in there] + [""] * len(locations)
    total = len(there) + len(locations)
    pixel_ids, is_read = np.zeros(total, np.uint64), np.zeros(total, bool)
    with contextlib.closing(Thumbnails(files.cache_folder())) as thumbnails:
        done = 0
        for first, paths, reading in (
            (0, [path for path, _ in there], record.origin.reading or DEFAULT),
            (len(there), list(locations), source.options),
        ):
            rules = rules_of(reading)
            answers = in_processes(
                partial(examine, rules=rules), paths, workers=workers, alone_bytes=rules.max_bytes
            )
            for position, answer in answers:
                done += 1
                if progress is not None:
                    progress("comparing with the images of the weights", done, total)
                row = first + position
                if (
                    isinstance(answer, Examined)
                    and not answer.reason
                    and wanted[row] in ("", answer.content_id)
                ):
                    pixel_ids[row] = int(answer.pixel_id[:16], 16)
                    thumbnails.write(row, answer.thumbnail)
                    is_read[row] = True
        rows = np.flatnonzero(is_read)
        labels = duplicates.alike(pixel_ids[rows], lambda some: thumbnails.read(rows[some]))
    is_copy = np.zeros(total, bool)
    is_copy[rows] = np.isin(labels, labels[rows < len(there)])
    return is_copy[len(there) :], int((~is_read[: len(there)]).sum())


def _overlap(who: str, paths: pd.Series[str], num_held: int, what: str) -> ConfigError:
    return ConfigError(
        f"{who} learned from {what} of {len(paths):,} of the {num_held:,} images that this"
        f" comparison holds out, such as {shown(paths.iloc[0])}, so its weights know their answers;"
        " give weights of a run on other images, or leave these images out here"
    )

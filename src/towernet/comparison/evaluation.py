"""How right a trained run is about labelled images, and which of them it may be asked about.

The run knows images by their bytes: its own sample table says which trained it, which chose its
epoch, and which were locked away. A look at those after the end is written into the ledger, since
a test split that is looked at often becomes one that is chosen by.

Shapes: N images that are asked about, K classes.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.special

from towernet import files
from towernet.comparison.judging.calibration import answered, bands_of, calibration_error
from towernet.comparison.judging.scores import (
    Labels,
    accuracy_interval,
    confusion_matrix,
    confusions,
    macro_f1,
    per_class,
)
from towernet.comparison.protocol import LATER_LOOK, Ledger
from towernet.data import splits
from towernet.data.cache import open_pixels
from towernet.data.changes import GONE
from towernet.data.check import check
from towernet.data.prepare import labels_of
from towernet.data.source import Source
from towernet.data.table import (
    IGNORED,
    QUARANTINED,
    SPLITS,
    TEST,
    TRAIN,
    USED,
    VALIDATION,
    counted,
    listed,
    path_bytes,
    read_table,
    shown,
)
from towernet.engine.device import DEFAULT_THREADS, Policy, fp32
from towernet.engine.evaluate import BATCH_SIZE, predict_logits
from towernet.engine.runlog import Watcher
from towernet.errors import DataError, EnvironmentFault
from towernet.predict import Predictor, find_run, load_run, read_run

# What an image is to a run, besides being of one of its splits: taken away since, tied to an image
# that it learnt from, or neither.
TAKEN_AWAY, TIED, UNKNOWN = "taken_away", "tied", "unknown"
LEARNT_FROM = (TRAIN, VALIDATION, TAKEN_AWAY)
UNSEEN, ALL = "unseen", "all"
ASKED = {
    UNSEEN: (TEST, UNKNOWN),
    TEST: (TEST,),
    VALIDATION: (VALIDATION,),
    TRAIN: (TRAIN,),
    ALL: (*LEARNT_FROM, TIED, TEST, UNKNOWN),
}
_WORDS = {
    TRAIN: "trained it",
    VALIDATION: "chose its epoch",
    TAKEN_AWAY: "may have trained it before being taken away",
    TIED: "duplicated or shared a group with those",
    TEST: "tested it",
    UNKNOWN: "played no part in it",
}
# A multiple of the batch, so that an image has the same neighbours, and the same bits, as it had in
# the comparison; not all at once, since the answers for a million images are large.
NUM_AT_ONCE = 4 * BATCH_SIZE
PREDICTIONS_HEAD = "path,class_name,predicted,confidence,probability_of_true"
_NAMES_SHOWN = 10


def open_run(folder: Path, *, say: Callable[[str], None]) -> Predictor:
    """Load a run, or a comparison's winner, so that it computes as when it was judged.

    Args:
        folder: Of the run or of the comparison.
        say: Told when this machine cannot compute like that.

    Raises:
        DataError: the folder holds no finished run, or a damaged one.
    """
    folder = find_run(folder)
    plan = read_run(folder).get("plan")
    if plan is None:  # weights from elsewhere: nobody judged them
        return load_run(folder)
    try:
        policy = fp32(Policy(**plan["policy"]))
        try:
            policy.apply()
        except EnvironmentFault:
            say(
                "this machine cannot compute as the run did, so torch alone does, on the CPU: the"
                " last digits may differ"
            )
            policy = replace(policy, device="cpu", kernels="torch", threads=DEFAULT_THREADS)
            policy.apply()
    except (KeyError, TypeError, RuntimeError) as error:
        raise DataError(f"{folder / 'run.json'} is damaged ({error}); train again") from error
    return load_run(folder, policy)


def evaluate(
    predictor: Predictor, source: Source, *, split: str, workers: int, watcher: Watcher
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Ask a run about labelled images; return how right it is, and its answers.

    Args:
        predictor: From `open_run`.
        source: The images, from `open_source`.
        split: Which of them, a key of `ASKED`.
        workers: Decoding processes.
        watcher: Told how it goes.

    Returns:
        Plain numbers, words and lists, rates as fractions; and the columns of
        `predictions.parquet`, one row an image.

    Raises:
        DataError: the run does not know a class, no image is left, or the test split is locked.
        EnvironmentFault: the ledger cannot be written.
    """
    folder, contract = predictor.folder, predictor.contract
    record = read_run(folder)
    _require_known_classes(source, contract.class_names, folder)
    table = check(source, workers=workers, progress=watcher.count)
    used = table[table.status == USED]
    found = _found(table)
    if not len(used):
        raise DataError(f"no file of {shown(source.name)} can be used: {_found_words(found)}")
    known = _known(folder, record)
    role_N = _roles(used, known)
    rows = np.flatnonzero(np.isin(role_N, ASKED[split]))
    asked, left_out = _count(role_N[rows]), _count(role_N[~np.isin(role_N, ASKED[split])])
    if not len(rows):
        raise _nothing_left(split, left_out, source)
    ledger_folder = _ledger_folder(folder)
    if TEST in asked:
        _require_open(folder, ledger_folder, record, watcher)

    part = used.iloc[rows]
    labels_N = labels_of(part, contract.class_names)
    said = _ask(predictor, source, part, labels_N, workers, watcher)
    figures = _figures(predictor, labels_N, said, splits.tied(used)[rows])
    # Nothing is told before the look is written down.
    later_looks = _note_look(folder, ledger_folder, asked[TEST], watcher) if TEST in asked else None
    report = {
        "run": str(folder),
        "model": record["config"]["model"],
        "data": source.name,
        "reading": source.reading,
        "split": split,
        "found": found,
        "asked": asked,
        "left_out": left_out,
        **figures,
        "later_looks": later_looks,
    }
    report["remarks"] = _remarks(report, is_known=known is not None)
    return report, predictions(part["path"].tolist(), labels_N, said, contract.class_names)


def _figures(
    predictor: Predictor, labels_N: Labels, said: Said, cluster_N: Labels
) -> dict[str, Any]:
    """Return how right answers are, and how sure; all classes and all confusions."""
    class_names = predictor.contract.class_names
    right_N = said.predicted_N == labels_N
    confusion_KK = confusion_matrix(labels_N, said.predicted_N, len(class_names))
    bands = bands_of(said.confidence_N, right_N)
    absent = np.flatnonzero(confusion_KK.sum(axis=1) == 0)
    return {
        "num_images": len(labels_N),
        "num_right": int(right_N.sum()),
        "accuracy": float(right_N.mean()),
        "interval": list(accuracy_interval(right_N[None], cluster_N)),
        "macro_f1": macro_f1(confusion_KK),
        "temperature": predictor.temperature,
        "calibration_error": calibration_error(bands),
        "bands": bands,
        "threshold": predictor.threshold,
        **answered(said.confidence_N, right_N, predictor.threshold),
        "per_class": per_class(labels_N, said.predicted_N[None], cluster_N, class_names),
        "classes_without_images": [class_names[label] for label in absent],
        "confusions": [
            {"class_name": class_names[true], "predicted": class_names[named], "num_images": num}
            for true, named, num in confusions(confusion_KK)
        ],
    }


class Said(NamedTuple):
    """What a network says of N images.

    Args:
        predicted_N: The position of the class it names.
        confidence_N: Its probability for that.
        of_true_N: Its probability for the true class.
    """

    predicted_N: Labels
    confidence_N: npt.NDArray[np.float64]
    of_true_N: npt.NDArray[np.float64]


def said_of(labels_N: Labels, logits_NK: npt.NDArray[np.float32], temperature: float) -> Said:
    """Return what logits say of images of these classes."""
    probabilities = scipy.special.softmax(logits_NK.astype(np.float64) / temperature, axis=1)
    of_true = probabilities[np.arange(len(labels_N)), labels_N]
    return Said(logits_NK.argmax(axis=1), probabilities.max(axis=1), of_true)


def predictions(
    paths: Sequence[str], labels_N: Labels, said: Said, class_names: tuple[str, ...]
) -> pd.DataFrame:
    """Return the columns of `predictions.parquet`, one row an image.

    Args:
        paths: (N,) their keys in the sample table.
        labels_N: Their true classes.
        said: What a network says of them.
        class_names: In the order of its logits.
    """
    names = np.array(class_names, dtype=object)
    # Names need not be UTF-8, which pandas' own string type would demand of them.
    return pd.DataFrame(
        {
            "path": pd.Series(paths, dtype=object),
            "class_name": pd.Series(names[labels_N], dtype=object),
            "predicted": pd.Series(names[said.predicted_N], dtype=object),
            "confidence": said.confidence_N,
            "probability_of_true": said.of_true_N,
        }
    )


def write_predictions(path: Path, answers: pd.DataFrame) -> None:
    """Write answers as CSV, one line an image, their numbers in full.

    Raises:
        EnvironmentFault: it cannot be written.
    """
    assert ",".join(answers.columns) == PREDICTIONS_HEAD
    files.write_csv(path, chain([answers.columns], answers.itertuples(index=False, name=None)))


def _ask(
    predictor: Predictor,
    source: Source,
    part: pd.DataFrame,
    labels_N: Labels,
    workers: int,
    watcher: Watcher,
) -> Said:
    """Return what the run says of each image.

    Raises:
        DataError: an answer is no number.
    """
    contract = predictor.contract
    pixels = open_pixels(
        part,
        source,
        size_px=contract.size_px,
        resize=contract.resize,
        background=contract.background,
        workers=workers,
        progress=watcher.count,
    )
    num = len(part)
    # Made beforehand: what is kept of each step would lie between what the next ones need.
    said = Said(np.zeros(num, np.int64), np.zeros(num), np.zeros(num))
    for start in range(0, num, NUM_AT_ONCE):
        rows = np.arange(start, min(start + NUM_AT_ONCE, num))
        logits_NK = predict_logits(predictor.model, pixels, contract, predictor.policy, rows=rows)
        if not np.isfinite(logits_NK).all():
            raise DataError(
                f"{predictor.folder} answers with what are no numbers, as a network does whose"
                " weights are damaged; train again"
            )
        some = said_of(labels_N[rows], logits_NK, predictor.temperature)
        for whole, values in zip(said, some, strict=True):
            whole[rows] = values
        watcher.count("answering", int(rows[-1]) + 1, num)
    return said


def _require_known_classes(source: Source, class_names: tuple[str, ...], folder: Path) -> None:
    unknown = sorted(set(source.class_names) - set(class_names), key=path_bytes)
    if unknown:
        num = "a class" if len(unknown) == 1 else f"{len(unknown):,} classes"
        raise DataError(
            f"{shown(source.name)} holds {num} that {folder} does not know ({_listed(unknown)}); it"
            f" knows {_listed(class_names)}: give it images of those, under those names"
        )


def _known(folder: Path, record: dict[str, Any]) -> pd.DataFrame | None:
    """Return the run's sample table; None where its images are not known, as of weights that came.

    Raises:
        DataError: the table is missing or damaged.
    """
    path = folder / "samples.parquet"
    if record.get("origin") == "imported" and not path.exists():
        return None
    if not path.exists():
        raise DataError(f"{path} is missing, and it says which images trained the run; restore it")
    return read_table(path)


def _roles(used: pd.DataFrame, known: pd.DataFrame | None) -> npt.NDArray[np.object_]:
    """Return what each used image is to the run."""
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


def _count(role_N: npt.NDArray[np.object_]) -> dict[str, int]:
    """Return how many images have each role, in the order in which they are told."""
    num = Counter(role_N.tolist())
    return {role: num[role] for role in _WORDS if num[role]}


def _ledger_folder(folder: Path) -> Path:
    """Return the comparison that a run is part of, or the run itself."""
    comparison = folder.resolve().parent.parent
    return comparison if (comparison / "protocol.toml").exists() else folder


def _require_open(
    folder: Path, ledger_folder: Path, record: dict[str, Any], watcher: Watcher
) -> None:
    """Refuse to look at test images before the end; meet a ledger that cannot be written now.

    Raises:
        DataError: the comparison, or the run alone, is not finished.
    """
    if not (ledger_folder / "results.json").exists():
        is_alone = isinstance(record.get("origin"), dict) and "data" in record["origin"]
        if ledger_folder != folder:
            todo = "its comparison has ended; say the command of that again"
        elif is_alone:
            todo = f"it is finished; go on with it by: towernet train --resume {folder}"
        else:
            todo = "its comparison has ended, and it lies outside; give it where that is"
        raise DataError(
            f"some of these images are test images of {folder} and stay locked until {todo}, or ask"
            " about others (--split validation)"
        )
    # Here, so that a folder that cannot be written is met before the work.
    with _ledger(ledger_folder, watcher):
        pass


def _note_look(folder: Path, ledger_folder: Path, num_images: int, watcher: Watcher) -> int:
    """Write down that test images were looked at; return how often that was done since the end."""
    run = folder.resolve().relative_to(ledger_folder.resolve()).as_posix()
    with _ledger(ledger_folder, watcher) as ledger:
        ledger.add(LATER_LOOK, run=run, num_images=num_images, date=files.now())
        return ledger.count(LATER_LOOK)


@contextlib.contextmanager
def _ledger(folder: Path, watcher: Watcher) -> Iterator[Ledger]:
    """Read a folder's ledger and hold its lock."""
    with files.lock(folder / "lock", holder=str(folder), wait=True, say=watcher.say):
        yield Ledger(folder / "ledger.jsonl")


def _found(table: pd.DataFrame) -> dict[str, Any]:
    """Return what became of the files, as `check` tells it."""
    return {
        "files": len(table),
        USED: int((table.status == USED).sum()),
        **{
            status: dict(Counter(table.reason[table.status == status]).most_common())
            for status in (QUARANTINED, IGNORED)
        },
    }


def _found_words(found: dict[str, Any]) -> str:
    parts = [
        f"{sum(found[status].values()):,} {status} ("
        + ", ".join(f"{reason} {num:,}" for reason, num in found[status].items())
        + ")"
        for status in (QUARANTINED, IGNORED)
        if found[status]
    ]
    return (
        f"{counted(found['files'], 'file')} found, {found[USED]:,} used,"
        f" {' and '.join(parts)}; `towernet check` names each"
    )


def roles_words(num_by_role: dict[str, int]) -> str:
    """Say what images were to the run: "27 trained it and 6 chose its epoch"."""
    parts = [f"{num:,} {_WORDS[role]}" for role, num in num_by_role.items()]
    return listed(parts)


def asked_words(report: dict[str, Any]) -> str:
    """Say how many images were asked about, and what they were to the run."""
    of_what = f"{report['num_images']:,} of {shown(report['data'])}"
    if len(report["asked"]) > 1:
        return f"{of_what}: {roles_words(report['asked'])}"
    return f"{of_what}, which {_WORDS[next(iter(report['asked']))]}"


def _nothing_left(split: str, left_out: dict[str, int], source: Source) -> DataError:
    wanted = {
        UNSEEN: "is new to the run",
        TEST: "is a test image of the run",
        VALIDATION: "is a validation image of the run",
        TRAIN: "is a training image of the run",
    }[split]
    todo = "give other images" if split == UNSEEN else "give the run's own images"
    num = sum(left_out.values())
    return DataError(
        f"none of the {counted(num, 'usable image')} in {shown(source.name)} {wanted}"
        f" ({roles_words(left_out)}); {todo}, or count all in by --split all"
    )


def _remarks(report: dict[str, Any], *, is_known: bool) -> list[str]:
    """Say what has to be known beside the figures."""
    said = []
    asked, left_out, found = (report[key] for key in ("asked", "left_out", "found"))
    num = report["num_images"]
    if learnt_from := {role: asked[role] for role in (*LEARNT_FROM, TIED) if role in asked}:
        of_all = f"Of these {counted(num, 'image')} {roles_words(learnt_from)}"
        of_one = f"These images {_WORDS[next(iter(learnt_from))]}"
        said.append(
            f"{of_one if num in learnt_from.values() else of_all}: the figures flatter the network."
        )
    if not is_known:
        said.append(
            "Which images trained these weights is not known: if some of these did, the figures"
            " flatter the network."
        )
    if left_out:
        left = sum(left_out.values())
        said.append(
            f"{left:,} of {counted(num + left, 'image')} {'is' if left == 1 else 'are'} left out:"
            f" {roles_words(left_out)}; --split all counts them in."
        )
    if found[QUARANTINED] or found[IGNORED]:
        said.append(f"{_found_words(found)}.")
    if absent := report["classes_without_images"]:
        num_classes = len(report["per_class"])
        verb = "has no image" if len(absent) == 1 else "have no images"
        said.append(
            f"{len(absent):,} of the {num_classes:,} classes it knows {verb} here:"
            f" {_listed(absent)}; macro F1 is the mean over the others."
        )
    if (looks := report["later_looks"]) is not None:
        times = "once more" if looks == 1 else f"{looks:,} more times"
        said.append(
            f"These test images have now been looked at {times} since they were opened; choosing by"
            " them makes them a selection set."
        )
    return said


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN:,} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(map(shown, names[:_NAMES_SHOWN])) + more

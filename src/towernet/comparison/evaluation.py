"""Evaluation of a trained run on labelled images.

Images it was trained on would give too optimistic a result (`roles`). Test images are locked until
the comparison has ended, and each later evaluation on them is recorded (`later_look`).

Shapes: N images that are evaluated, K classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.special

from towernet import files
from towernet.comparison.judging.calibration import answered, bands_of, calibration_error
from towernet.comparison.judging.scores import (
    Labels,
    accuracy_interval,
    balanced_interval,
    confusion_matrix,
    confusions,
    macro_f1,
    per_class,
)
from towernet.comparison.later_look import record_later_look, require_open
from towernet.comparison.roles import count, known_images, roles, roles_of_split
from towernet.comparison.wording.evaluation import found_words, nothing_left_words, remarks
from towernet.data import class_sizes, splits
from towernet.data.balance import balanced_accuracy
from towernet.data.cache import open_pixels
from towernet.data.check import check
from towernet.data.leaks import with_copies
from towernet.data.prepare import labels_of
from towernet.data.ranges import rules_of
from towernet.data.rules import of_contract
from towernet.data.source import Source
from towernet.data.table import IGNORED, QUARANTINED, TEST, USED
from towernet.engine.device import Policy, default_threads, fp32
from towernet.engine.runlog import Progress
from towernet.engine.validation import BATCH_SIZE, predict_logits
from towernet.errors import DataError, EnvironmentFault
from towernet.predict import TRAIN_AGAIN, Predictor, find_run, load_run
from towernet.records.evaluation import Confusion, Evaluation, Figures, Found, Question
from towernet.records.run import ImportedRun, read_run
from towernet.words import composed, shown, some_listed

# A multiple of the batch size, so that each image is in the same batch, and gets the same bits, as
# in the comparison. Not all at once, since the logits of a million images are large.
NUM_AT_ONCE = 4 * BATCH_SIZE
PREDICTIONS_HEAD = "path,class_name,predicted,confidence,probability_of_true"


def open_predictor(folder: Path, *, say: Callable[[str], None]) -> Predictor:
    """Load a run, or a comparison's winner, so that it computes as in the comparison.

    Args:
        folder: The folder of the run or of the comparison.
        say: Prints a message when this machine cannot compute like that.

    Raises:
        DataError: the folder contains no finished run, or a damaged one.
    """
    folder = find_run(folder)
    record = read_run(folder, todo=TRAIN_AGAIN)
    if isinstance(record, ImportedRun):  # imported weights were part of no comparison
        return load_run(folder)
    try:
        policy = _usable_here(fp32(Policy.of(record.plan.policy)), say)
    except RuntimeError as error:  # for example, an invalid number of threads
        raise DataError(f"{folder / 'run.json'} is damaged ({error}); train again") from error
    with policy.active():
        return load_run(folder, policy)


def _usable_here(policy: Policy, say: Callable[[str], None]) -> Policy:
    """Return the policy if this machine can enter it, else one with torch on the CPU."""
    try:
        with policy.active():
            return policy
    except EnvironmentFault:
        say(
            "this machine cannot compute as the run did; using torch on the CPU instead, so the"
            " last digits may differ"
        )
    policy = replace(policy, device="cpu", kernels="torch", threads=default_threads())
    with policy.active():
        return policy


def evaluate(
    predictor: Predictor, source: Source, *, split: str, workers: int, progress: Progress
) -> tuple[Evaluation, pd.DataFrame]:
    """Evaluate a run on labelled images; return the evaluation and the predictions.

    Args:
        predictor: From `open_predictor`.
        source: The images, from `open_source`.
        split: Which of them, a key of `roles.ROLES_OF_SPLIT`.
        workers: Number of decoding processes.
        progress: Shows the progress.

    Returns:
        The evaluation, and the columns of `predictions.parquet`, one row per image.

    Raises:
        DataError: the run does not know a class, no image is left, or the test split is locked.
        UnknownNameError: there is no such split.
        EnvironmentFault: the ledger cannot be written.
    """
    wanted_roles = roles_of_split(split)
    folder, class_names = predictor.folder, predictor.contract.class_names
    record = read_run(folder, todo=TRAIN_AGAIN)
    if source.options.min_images is None:  # else some classes may be left out
        _require_known_classes(source, set(), class_names, folder)
    rules = of_contract(predictor.contract, rules_of(source.options))
    table = with_copies(check(source, workers=workers, progress=progress.count, rules=rules))
    left_out = class_sizes.left_out_classes(table, source.options.min_images)
    _require_known_classes(source, left_out, class_names, folder)
    used = table[table.status == USED]
    found = _found(table)
    if not len(used):
        raise DataError(f"no file of {shown(source.name)} can be used: {found_words(found)}")
    known = known_images(folder, record)
    role_N = roles(used, known)
    is_wanted_N = np.isin(role_N, wanted_roles)
    question = Question(
        run=str(folder),
        model=record.config.model,
        data=source.name,
        reading=source.reading,
        split=split,
        found=found,
        asked=count(role_N[is_wanted_N]),
        left_out=count(role_N[~is_wanted_N]),
    )
    if not question.asked:
        raise DataError(nothing_left_words(split, question.left_out, source.name))
    if num_test := question.asked.get(TEST, 0):
        require_open(folder, record, progress)

    part = used[is_wanted_N]
    labels_N = labels_of(part, class_names)
    with predictor.policy.active():
        predictions = _predict(predictor, source, part, labels_N, workers, progress)
    figures = _figures(predictor, labels_N, predictions, splits.tied(used)[is_wanted_N])
    # Recorded before any result is shown.
    later_looks = record_later_look(folder, num_test, progress) if num_test else None
    evaluation = Evaluation(
        **dict(question),
        **dict(figures),
        later_looks=later_looks,
        remarks=tuple(remarks(question, figures, later_looks, is_known=known is not None)),
        predictions=None,
    )
    table = predictions_table(part["path"].tolist(), labels_N, predictions, class_names)
    return evaluation, table


def _figures(
    predictor: Predictor, labels_N: Labels, predictions: Predictions, cluster_N: Labels
) -> Figures:
    """Return accuracy, calibration, the scores of all classes, and all confusions."""
    class_names = predictor.contract.class_names
    right_N = predictions.predicted_N == labels_N
    confusion_KK = confusion_matrix(labels_N, predictions.predicted_N, len(class_names))
    bands = bands_of(predictions.confidence_N, right_N)
    given = answered(predictions.confidence_N, right_N, predictor.threshold)
    absent = np.flatnonzero(confusion_KK.sum(axis=1) == 0)
    return Figures(
        num_images=len(labels_N),
        num_right=int(right_N.sum()),
        accuracy=float(right_N.mean()),
        interval=accuracy_interval(right_N[None], cluster_N),
        balanced_accuracy=balanced_accuracy(right_N, labels_N),
        balanced_interval=balanced_interval(right_N[None], cluster_N, labels_N),
        macro_f1=macro_f1(confusion_KK),
        temperature=predictor.temperature,
        calibration_error=calibration_error(bands),
        bands=bands,
        threshold=predictor.threshold,
        coverage=given.coverage,
        answered_accuracy=given.accuracy,
        per_class=per_class(labels_N, predictions.predicted_N[None], cluster_N, class_names),
        classes_without_images=tuple(class_names[label] for label in absent),
        confusions=tuple(
            Confusion(class_name=class_names[true], predicted=class_names[wrong], num_images=num)
            for true, wrong, num in confusions(confusion_KK)
        ),
    )


class Predictions(NamedTuple):
    """A network's predictions for N images.

    Args:
        predicted_N: Index of the predicted class.
        confidence_N: Probability of the predicted class.
        of_true_N: Probability of the true class.
    """

    predicted_N: Labels
    confidence_N: npt.NDArray[np.float64]
    of_true_N: npt.NDArray[np.float64]


def predictions_of(
    labels_N: Labels, logits_NK: npt.NDArray[np.float32], temperature: float
) -> Predictions:
    """Return the predictions that these logits give for images with these labels."""
    probabilities = scipy.special.softmax(logits_NK.astype(np.float64) / temperature, axis=1)
    of_true = probabilities[np.arange(len(labels_N)), labels_N]
    return Predictions(logits_NK.argmax(axis=1), probabilities.max(axis=1), of_true)


def predictions_table(
    paths: Sequence[str], labels_N: Labels, predictions: Predictions, class_names: tuple[str, ...]
) -> pd.DataFrame:
    """Return the columns of `predictions.parquet`, one row per image.

    Args:
        paths: (N,) the images' keys in the sample table.
        labels_N: Their true classes.
        predictions: A network's predictions for them.
        class_names: In the order of the logits.
    """
    names = np.array(class_names, dtype=object)
    # As objects: names need not be valid UTF-8, which pandas' string type requires.
    return pd.DataFrame(
        {
            "path": pd.Series(paths, dtype=object),
            "class_name": pd.Series(names[labels_N], dtype=object),
            "predicted": pd.Series(names[predictions.predicted_N], dtype=object),
            "confidence": predictions.confidence_N,
            "probability_of_true": predictions.of_true_N,
        }
    )


def write_predictions(path: Path, table: pd.DataFrame) -> None:
    """Write predictions as CSV, one line per image, with all digits.

    Raises:
        EnvironmentFault: the file cannot be written.
    """
    assert ",".join(table.columns) == PREDICTIONS_HEAD
    files.write_csv(path, chain([table.columns], table.itertuples(index=False, name=None)))


def _predict(
    predictor: Predictor,
    source: Source,
    part: pd.DataFrame,
    labels_N: Labels,
    workers: int,
    progress: Progress,
) -> Predictions:
    """Return the run's prediction for each image.

    Raises:
        DataError: a logit is NaN or infinite.
    """
    contract = predictor.contract
    pixels = open_pixels(
        part,
        source,
        size_px=contract.size_px,
        resize=contract.resize,
        crop_share=contract.crop_share,
        rules=of_contract(contract, rules_of(source.options)),
        workers=workers,
        progress=progress.count,
    )
    num = len(part)
    # Allocated first: results kept from each step would fragment the memory of the next steps.
    predictions = Predictions(np.zeros(num, np.int64), np.zeros(num), np.zeros(num))
    for start in range(0, num, NUM_AT_ONCE):
        rows = np.arange(start, min(start + NUM_AT_ONCE, num))
        logits_NK = predict_logits(predictor.model, pixels, contract, predictor.policy, rows=rows)
        if not np.isfinite(logits_NK).all():
            raise DataError(
                f"{predictor.folder} predicted NaN or Inf; its weights are probably corrupt, train"
                " again"
            )
        some = predictions_of(labels_N[rows], logits_NK, predictor.temperature)
        for whole, values in zip(predictions, some, strict=True):
            whole[rows] = values
        progress.count("predicting", int(rows[-1]) + 1, num)
    return predictions


def _require_known_classes(
    source: Source, left_out: set[str], class_names: tuple[str, ...], folder: Path
) -> None:
    known = {composed(name) for name in (*class_names, *left_out)}
    unknown = [name for name in source.class_names if composed(name) not in known]
    if unknown:
        num = "a class" if len(unknown) == 1 else f"{len(unknown):,} classes"
        raise DataError(
            f"{shown(source.name)} contains {num} that the run in {folder} was not trained on"
            f" ({some_listed(unknown)}); its classes are {some_listed(class_names)}: use images of"
            " these classes, under these names"
        )


def _found(table: pd.DataFrame) -> Found:
    """Return how many files were used, quarantined and ignored, as `check` reports it."""
    quarantined, ignored = (
        dict(Counter(table.reason[table.status == status]).most_common())
        for status in (QUARANTINED, IGNORED)
    )
    num_used = int((table.status == USED).sum())
    return Found(files=len(table), used=num_used, quarantined=quarantined, ignored=ignored)

"""What trained runs answer for the final split: the one look at it.

Shapes: N images, K classes, R runs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
import scipy.special

from towernet import files
from towernet.comparison.evaluation import predictions, said_of
from towernet.comparison.judging.calibration import calibrated
from towernet.comparison.judging.labels import OutOfSample
from towernet.comparison.judging.scores import Labels
from towernet.data.prepare import Dataset
from towernet.data.table import write_frame
from towernet.engine.device import Policy, fp32
from towernet.engine.validation import predict_logits
from towernet.predict import CALIBRATION_FILE, Predictor, load_run
from towernet.records.run import PolicyChoices
from towernet.records.scores import Calibration

NUM_LATENCY_RUNS = 15


@dataclass(frozen=True)
class Answers:
    """What one run answered for the final split.

    Args:
        folder: The run.
        dataset: Its images.
        logits_NK: One row an image.
        latency_ms: Milliseconds for one image alone, median.
        validation_logits_NK: What it answered for its own validation images.
        calibration: What its confidence is worth, None where no split is left to tell it on.
    """

    folder: Path
    dataset: Dataset
    logits_NK: npt.NDArray[np.float32]
    latency_ms: float
    validation_logits_NK: npt.NDArray[np.float32]
    calibration: Calibration | None

    @property
    def predicted_N(self) -> npt.NDArray[np.int64]:
        """The class it named for each image."""
        named: npt.NDArray[np.int64] = self.logits_NK.argmax(axis=1)
        return named

    @property
    def right_N(self) -> npt.NDArray[np.bool_]:
        """Which images it named correctly."""
        is_right: npt.NDArray[np.bool_] = self.predicted_N == self.dataset.final.labels
        return is_right

    @property
    def are_numbers(self) -> bool:
        """Whether its answers are; else the first class would be the largest of them."""
        return bool(np.isfinite(self.logits_NK).all())


def ask(run_folder: Path, policy: PolicyChoices, dataset: Dataset) -> Answers:
    """Ask a run's kept weights about the final split, in full precision, and keep what they say."""
    files.remove(run_folder / CALIBRATION_FILE)  # one of an end that was cut short
    predictor = load_run(run_folder, fp32(Policy.of(policy)))
    logits = _logits(predictor, dataset, dataset.final.rows)
    # Where there is no test split these are the same images.
    validation_logits = (
        logits
        if dataset.final_split == "validation"
        else _logits(predictor, dataset, dataset.validation.rows)
    )
    calibration = _calibrate(run_folder, dataset, validation_logits, logits)
    degree = calibration.temperature if calibration else 1.0
    said = said_of(dataset.final.labels, logits, degree)
    write_frame(
        run_folder / "predictions.parquet",
        predictions(dataset.final.paths, dataset.final.labels, said, dataset.contract.class_names),
    )
    latency_ms = _latency_ms(predictor, dataset)
    return Answers(run_folder, dataset, logits, latency_ms, validation_logits, calibration)


def _logits(
    predictor: Predictor, dataset: Dataset, rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    return predict_logits(
        predictor.model, dataset.pixels, predictor.contract, predictor.policy, rows=rows
    )


def _calibrate(
    run_folder: Path,
    dataset: Dataset,
    logits_NK: npt.NDArray[np.float32],
    final_logits_NK: npt.NDArray[np.float32],
) -> Calibration | None:
    """Fit a run's confidence on its validation images, and write what `predict` needs of it."""
    if dataset.final_split == "validation":
        return None
    if not (np.isfinite(logits_NK).all() and np.isfinite(final_logits_NK).all()):
        return None
    found = calibrated(
        (logits_NK, dataset.validation.labels), (final_logits_NK, dataset.final.labels)
    )
    kept = found.model_dump(include={"temperature", "threshold", "wanted_accuracy"})
    files.write_json(run_folder / CALIBRATION_FILE, kept)
    return found


def _latency_ms(predictor: Predictor, dataset: Dataset) -> float:
    """Return the median time for one image alone, decoding not included."""
    milliseconds = []
    for i in range(NUM_LATENCY_RUNS + 1):
        start = time.perf_counter()
        predictor.probabilities(dataset.pixels[i % len(dataset.pixels)][None])
        milliseconds.append(1000 * (time.perf_counter() - start))
    return median(milliseconds[1:])  # the first one chooses kernels


def together(answers: Sequence[Answers]) -> tuple[Labels, Labels, Labels]:
    """Return (N,) labels, (R, N) answers and (N,) clusters of a network's runs.

    Runs that each left out other images become one run of them all, an image's answers tied.
    """
    labels, said, clusters = (
        [answer.dataset.final.labels for answer in answers],
        [answer.predicted_N for answer in answers],
        [answer.dataset.final_clusters() for answer in answers],
    )
    if answers[0].dataset.leaves_out_anew:
        return np.concatenate(labels), np.concatenate(said)[None], np.concatenate(clusters)
    return labels[0], np.array(said), clusters[0]


def out_of_sample(answers: Sequence[Answers]) -> OutOfSample:
    """Gather what a network's runs say of images they were not trained on."""
    dataset = answers[0].dataset
    found = OutOfSample(len(dataset.pixels), len(dataset.contract.class_names))
    for answer in answers:
        degree = answer.calibration.temperature if answer.calibration else 1.0
        dataset = answer.dataset
        parts = {dataset.final_split: (dataset.final.rows, answer.logits_NK)}
        parts["validation"] = (dataset.validation.rows, answer.validation_logits_NK)
        for rows, logits_NK in parts.values():
            if np.isfinite(logits_NK).all():
                said = scipy.special.softmax(logits_NK.astype(np.float64) / degree, axis=1)
                found.add(rows, said)
    return found

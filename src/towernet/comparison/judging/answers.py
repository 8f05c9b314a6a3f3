"""Predictions of trained runs for the final split, which is evaluated only once.

Shapes: N images, K classes, R runs.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
import scipy.special

from towernet import files
from towernet.comparison.evaluation import predictions_of, predictions_table
from towernet.comparison.judging.calibration import calibrated
from towernet.comparison.judging.labels import OutOfSample
from towernet.comparison.judging.scores import Labels
from towernet.data.formats import BadImage
from towernet.data.prepare import Dataset, Part
from towernet.data.source import Source
from towernet.data.table import write_frame
from towernet.engine.device import Policy, fp32
from towernet.engine.session import Session
from towernet.engine.start import frozen_logits
from towernet.engine.validation import predict_logits
from towernet.names import NetworkName
from towernet.predict import CALIBRATION_FILE, Predictor, load_run
from towernet.records.run import PolicyChoices
from towernet.records.scores import Calibration

NUM_LATENCY_RUNS = 15


@dataclass(frozen=True)
class RunPredictions:
    """The predictions of one run for the final split.

    Args:
        folder: The run's folder.
        dataset: Its images.
        logits_NK: One row per image.
        latency_ms: Median milliseconds for a single image, of the network alone.
        decode_ms: Median milliseconds for decoding its file; None if it could not be read again.
        validation_logits_NK: The logits for its own validation images.
        calibration: The calibration of its confidence, None if no split is left to measure it on.
    """

    folder: Path
    dataset: Dataset
    logits_NK: npt.NDArray[np.float32]
    latency_ms: float
    decode_ms: float | None
    validation_logits_NK: npt.NDArray[np.float32]
    calibration: Calibration | None

    @property
    def predicted_N(self) -> npt.NDArray[np.int64]:
        """The predicted class of each image."""
        predicted: npt.NDArray[np.int64] = self.logits_NK.argmax(axis=1)
        return predicted

    @property
    def right_N(self) -> npt.NDArray[np.bool_]:
        """Which images it classified correctly."""
        is_right: npt.NDArray[np.bool_] = self.predicted_N == self.dataset.final.labels
        return is_right

    @property
    def are_finite(self) -> bool:
        """Whether no logit is NaN or infinite; argmax would take a NaN for the largest."""
        return bool(np.isfinite(self.logits_NK).all())


def predict_final(
    name: NetworkName, policy: PolicyChoices, dataset: Dataset, session: Session
) -> RunPredictions:
    """Predict the final split with a run's saved weights, in full precision; write the result.

    Args:
        name: The network.
        policy: How numbers are computed.
        dataset: The run's images.
        session: Its folder is the run's.
    """
    run_folder = session.folder
    files.remove(run_folder / CALIBRATION_FILE)  # may be left from an interrupted evaluation
    predictor = load_run(run_folder, fp32(Policy.of(policy)))

    def logits_of(part: Part) -> npt.NDArray[np.float32]:
        if name.start == "frozen":  # its features are kept, so the network need not run again
            return frozen_logits(name, dataset, part, session, predictor.policy)
        model, contract = predictor.model, predictor.contract
        return predict_logits(model, dataset.pixels, contract, predictor.policy, rows=part.rows)

    logits = logits_of(dataset.final)
    # Without a test split these are the same images.
    validation_logits = (
        logits if dataset.final_split == "validation" else logits_of(dataset.validation)
    )
    calibration = _calibrate(run_folder, dataset, validation_logits, logits)
    degree = calibration.temperature if calibration else 1.0
    final = dataset.final
    predictions = predictions_of(final.labels, logits, degree)
    write_frame(
        run_folder / "predictions.parquet",
        predictions_table(final.paths, final.labels, predictions, dataset.contract.class_names),
    )
    latency_ms, decode_ms = milliseconds(predictor, dataset, session.source)
    return RunPredictions(
        run_folder, dataset, logits, latency_ms, decode_ms, validation_logits, calibration
    )


def _calibrate(
    run_folder: Path,
    dataset: Dataset,
    logits_NK: npt.NDArray[np.float32],
    final_logits_NK: npt.NDArray[np.float32],
) -> Calibration | None:
    """Calibrate a run's confidence on its validation images; write the part `predict` needs."""
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


def milliseconds(
    predictor: Predictor, dataset: Dataset, source: Source
) -> tuple[float, float | None]:
    """Return the median times for a single image: of the network alone, and of decoding its file.

    The latter is None if none of these files can be read any more. Nothing exact depends on them.
    """
    of_network, of_decoding = [], []
    paths, size_px = dataset.final.paths, predictor.contract.size_px
    for i in range(NUM_LATENCY_RUNS + 1):
        pixels = np.zeros((size_px, size_px, 3), np.uint8)
        file = source.files.location(paths[i % len(paths)])
        # It could be read before; since then it may have been moved or changed.
        with contextlib.suppress(OSError, BadImage):
            content = file.read_bytes() if file is not None else b""
            start = time.perf_counter()
            pixels = predictor.pixels(content)
            of_decoding.append(1000 * (time.perf_counter() - start))
        start = time.perf_counter()
        predictor.probabilities(pixels[None])
        of_network.append(1000 * (time.perf_counter() - start))
    # The first call chooses kernels.
    decode_ms = median(of_decoding[1:]) if len(of_decoding) > 1 else None
    return median(of_network[1:]), decode_ms


def combined(runs: Sequence[RunPredictions]) -> tuple[Labels, Labels, Labels]:
    """Return (N,) labels, (R, N) predicted classes and (N,) clusters of a network's runs.

    Runs that were evaluated on different images become one run over all of them, in which the
    predictions for one image are tied.
    """
    labels, predicted, clusters = (
        [run.dataset.final.labels for run in runs],
        [run.predicted_N for run in runs],
        [run.dataset.final_clusters() for run in runs],
    )
    if runs[0].dataset.redraws_final_split:
        return np.concatenate(labels), np.concatenate(predicted)[None], np.concatenate(clusters)
    return labels[0], np.array(predicted), clusters[0]


def out_of_sample(runs: Sequence[RunPredictions]) -> OutOfSample:
    """Collect the predictions of a network's runs for images they were not trained on."""
    dataset = runs[0].dataset
    found = OutOfSample(dataset.num_images, len(dataset.contract.class_names))
    for run in runs:
        degree = run.calibration.temperature if run.calibration else 1.0
        dataset = run.dataset
        parts = {dataset.final_split: (dataset.final.rows, run.logits_NK)}
        parts["validation"] = (dataset.validation.rows, run.validation_logits_NK)
        for rows, logits_NK in parts.values():
            if np.isfinite(logits_NK).all():
                found.add(
                    rows, scipy.special.softmax(logits_NK.astype(np.float64) / degree, axis=1)
                )
    return found

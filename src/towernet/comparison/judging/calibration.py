"""Calibration: how well confidence matches accuracy, and when a prediction is not sure.

Source: Guo et al. On calibration of modern neural networks. ICML 2017. arXiv:1706.04599
(temperature, expected calibration error).

Shapes: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from towernet.records.scores import Band, Calibration

NUM_BINS = 15
COLDEST, HOTTEST = 0.05, 20.0

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def temperature(logits_NK: npt.NDArray[np.floating[Any]], labels_N: Labels) -> float:
    """Return the temperature: the number to divide logits by that makes the labels most likely.

    A prior with the weight of one image favours 1; without it, predictions that are all correct
    would give 0.

    Example:
        >>> logits = np.array([[9.0, 0.0]] * 4000)  # sure of the first class, right in 3 of 4
        >>> t = temperature(logits, np.array([0, 0, 0, 1] * 1000))
        >>> round(float(softmax(logits[0] / t)[0]), 3)
        0.75
    """
    logits = logits_NK.astype(np.float64)
    rows = np.arange(len(labels_N))

    def loss(log_temperature: float) -> float:
        of_true = log_softmax(logits / np.exp(log_temperature), axis=1)[rows, labels_N]
        return float(log_temperature**2 / (2 * len(rows)) - of_true.mean())

    bounds = (np.log(COLDEST), np.log(HOTTEST))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return round(float(np.exp(found.x)), 4)


def reliability(probabilities_NK: Floats, labels_N: Labels) -> tuple[Band, ...]:
    """Return mean confidence and accuracy for each band of confidence that contains images."""
    return bands_of(probabilities_NK.max(axis=1), probabilities_NK.argmax(axis=1) == labels_N)


def bands_of(confidence_N: Floats, right_N: npt.NDArray[np.bool_]) -> tuple[Band, ...]:
    """Return the same as `reliability`, from confidences and which predictions are correct."""
    bins_N = np.minimum((confidence_N * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    return tuple(
        Band(
            confidence=float(confidence_N[bins_N == number].mean()),
            accuracy=float(right_N[bins_N == number].mean()),
            num_images=int((bins_N == number).sum()),
        )
        for number in range(NUM_BINS)
        if (bins_N == number).any()
    )


def calibration_error(bands: Sequence[Band]) -> float:
    """Return the expected calibration error: the mean gap between confidence and accuracy."""
    total = sum(band.num_images for band in bands)
    gaps = (band.num_images * abs(band.confidence - band.accuracy) for band in bands)
    return float(sum(gaps) / total)


@dataclass(frozen=True)
class Answered:
    """A network's performance on the images where it is sure.

    Args:
        coverage: Share of these images.
        accuracy: Accuracy on them; None if there are none.
    """

    coverage: float
    accuracy: float | None


def answered(confidence_N: Floats, right_N: npt.NDArray[np.bool_], sure: float | None) -> Answered:
    """Return the share of predictions with at least this confidence, and their accuracy."""
    is_sure_N = np.zeros(len(right_N), dtype=bool) if sure is None else confidence_N >= sure
    return Answered(
        float(is_sure_N.mean()), float(right_N[is_sure_N].mean()) if is_sure_N.any() else None
    )


def threshold(probabilities_NK: Floats, labels_N: Labels, wanted: float) -> float | None:
    """Return the lowest confidence above which predictions have the wanted accuracy.

    None if no confidence is high enough. At least ten predictions must be above it.
    """
    confidence_N = probabilities_NK.max(axis=1)
    right_N = probabilities_NK.argmax(axis=1) == labels_N
    order = np.argsort(-confidence_N, kind="stable")
    shares = np.cumsum(right_N[order]) / np.arange(1, len(order) + 1)
    # Predictions with equal confidence are all included or all excluded.
    lasts = np.append(np.diff(confidence_N[order]) != 0, True)
    enough = np.flatnonzero((shares >= wanted) & lasts & (np.arange(len(order)) >= 9))
    return float(confidence_N[order][enough[-1]]) if enough.size else None


def calibrated(
    validation: tuple[npt.NDArray[np.floating[Any]], Labels],
    final: tuple[npt.NDArray[np.floating[Any]], Labels],
) -> Calibration:
    """Return a run's calibration: fitted on validation images, measured on the final split.

    Args:
        validation: (N, K) logits and (N,) labels.
        final: The same for the final split.
    """
    degree = temperature(*validation)
    of_validation = softmax(validation[0].astype(np.float64) / degree, axis=1)
    raw = softmax(final[0].astype(np.float64), axis=1)
    warm = softmax(final[0].astype(np.float64) / degree, axis=1)
    confidence, right = warm.max(axis=1), warm.argmax(axis=1) == final[1]
    bands = bands_of(confidence, right)
    accuracy = float((of_validation.argmax(axis=1) == validation[1]).mean())
    # The larger of 95 % and the accuracy at which half the mistakes are left.
    wanted = max(0.95, 1 - (1 - accuracy) / 2)
    sure = threshold(of_validation, validation[1], wanted)
    given = answered(confidence, right, sure)
    return Calibration(
        temperature=degree,
        calibration_error_before=calibration_error(reliability(raw, final[1])),
        calibration_error=calibration_error(bands),
        bands=bands,
        wanted_accuracy=wanted,
        threshold=sure,
        coverage=given.coverage,
        answered_accuracy=given.accuracy,
    )

"""Whether a network is as sure as it is right, and when it had better say that it does not know.

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
    """Return the number that logits are divided by, so that these answers are least surprising.

    With a prior worth one image that it is 1: else answers that are all right would make it 0.

    Example:
        >>> logits = np.array([[9.0, 0.0]] * 4000)  # sure of the first class, right in 3 of 4
        >>> t = temperature(logits, np.array([0, 0, 0, 1] * 1000))
        >>> round(float(softmax(logits[0] / t)[0]), 3)
        0.75
    """
    logits = logits_NK.astype(np.float64)
    rows = np.arange(len(labels_N))

    def surprise(log_temperature: float) -> float:
        said = log_softmax(logits / np.exp(log_temperature), axis=1)[rows, labels_N]
        return float(log_temperature**2 / (2 * len(rows)) - said.mean())

    bounds = (np.log(COLDEST), np.log(HOTTEST))
    found = minimize_scalar(surprise, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return round(float(np.exp(found.x)), 4)


def reliability(probabilities_NK: Floats, labels_N: Labels) -> tuple[Band, ...]:
    """Return, for each band of confidence that has images, how sure and how right they were."""
    return bands_of(probabilities_NK.max(axis=1), probabilities_NK.argmax(axis=1) == labels_N)


def bands_of(confidence_N: Floats, right_N: npt.NDArray[np.bool_]) -> tuple[Band, ...]:
    """Return the same of answers whose confidence is known, and which of them are right."""
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
    """Return the expected calibration error: how far confidence is from accuracy, on average."""
    total = sum(band.num_images for band in bands)
    gaps = (band.num_images * abs(band.confidence - band.accuracy) for band in bands)
    return float(sum(gaps) / total)


@dataclass(frozen=True)
class Answered:
    """What a network answers where it says nothing that it is not sure of.

    Args:
        coverage: Share of the images that it answers for.
        accuracy: How many of those answers are right; None where there are none.
    """

    coverage: float
    accuracy: float | None


def answered(confidence_N: Floats, right_N: npt.NDArray[np.bool_], sure: float | None) -> Answered:
    """Return the share of answers that are at least so sure, and how many of those are right."""
    is_sure_N = np.zeros(len(right_N), dtype=bool) if sure is None else confidence_N >= sure
    return Answered(
        float(is_sure_N.mean()), float(right_N[is_sure_N].mean()) if is_sure_N.any() else None
    )


def threshold(probabilities_NK: Floats, labels_N: Labels, wanted: float) -> float | None:
    """Return the least confidence from which on so many of these answers are right.

    None where no confidence is enough. At least ten answers must be left to tell.
    """
    confidence_N = probabilities_NK.max(axis=1)
    right_N = probabilities_NK.argmax(axis=1) == labels_N
    order = np.argsort(-confidence_N, kind="stable")
    shares = np.cumsum(right_N[order]) / np.arange(1, len(order) + 1)
    # Answers of one confidence are given together or not at all.
    lasts = np.append(np.diff(confidence_N[order]) != 0, True)
    enough = np.flatnonzero((shares >= wanted) & lasts & (np.arange(len(order)) >= 9))
    return float(confidence_N[order][enough[-1]]) if enough.size else None


def calibrated(
    validation: tuple[npt.NDArray[np.floating[Any]], Labels],
    final: tuple[npt.NDArray[np.floating[Any]], Labels],
) -> Calibration:
    """Return what a run's confidence is worth: fitted on validation images, told on the final ones.

    Args:
        validation: (N, K) logits and (N,) labels.
        final: The same of the final split.
    """
    degree = temperature(*validation)
    of_validation = softmax(validation[0].astype(np.float64) / degree, axis=1)
    raw = softmax(final[0].astype(np.float64), axis=1)
    warm = softmax(final[0].astype(np.float64) / degree, axis=1)
    confidence, right = warm.max(axis=1), warm.argmax(axis=1) == final[1]
    bands = bands_of(confidence, right)
    accuracy = float((of_validation.argmax(axis=1) == validation[1]).mean())
    # Half as many mistakes among what is answered, or nineteen in twenty right: the larger.
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

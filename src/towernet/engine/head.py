"""The last layer of a network, fitted on features: multinomial logistic regression.

scikit-learn fits it on standardised features, so that one strength suits all features; the
standardisation is then folded into the weights, so the result is an ordinary linear layer. The loss
is the mean cross-entropy over the images plus strength / 2 times the sum of the squared weights.
The strength is chosen by the cross-entropy on images that were not fitted on. All is computed by
one thread: the bits depend neither on the number of cores nor on what else runs.
Shapes: N images, M validation images, D features, K classes, L of them with training images.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax, logsumexp
from threadpoolctl import threadpool_limits

from towernet.config import Measure
from towernet.data.balance import Labels, balanced_mean
from towernet.errors import DataError

Features = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

STRENGTHS = tuple(float(10**exponent) for exponent in np.arange(1, -3.1, -0.5).round(1))
"""What is tried: 10 to 0.001, in half powers of ten."""
USUAL_STRENGTH = 1.0
"""Where nothing can choose one: no images are left that were not fitted on."""
MOST_FOLDS = 5
_LEAST_DEVIATION = 0.01  # as a share of the median of all features that vary
_MOST_ITERATIONS, _LARGEST_GRADIENT = 1000, 1e-5  # a smaller gradient ends a fit
_ROWS_AT_ONCE = 1024

Fold = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
ChosenOn = Literal["validation", "folds", "nothing"]


@dataclass(frozen=True)
class Head:
    """A fitted last layer: logits_NK = features_ND @ weight_KD.T + bias_K.

    Args:
        weight_KD: float32.
        bias_K: float32.
        strength: How strongly the weights were held near 0.
        chosen_on: What chose it: the validation images; the training images, each predicted by a
            head fitted on others ("folds"); or nothing.
        losses: The strengths that were tried, each with its mean cross-entropy in nats.
        without_images: Classes that had no training images. Their weights are 0, and their bias is
            so low that none of the N training images gives one of them a probability over
            1 / (N + 1).
    """

    weight_KD: Features
    bias_K: Features
    strength: float
    chosen_on: ChosenOn
    losses: tuple[tuple[float, float], ...]
    without_images: tuple[int, ...] = ()


def fit_head(
    train_ND: Features,
    labels_N: Labels,
    validation_MD: Features,
    labels_M: Labels,
    *,
    num_classes: int,
    units_N: Labels | None = None,
    measure: Measure = "accuracy",
    balanced: bool = False,
) -> Head:
    """Fit the last layer on the features of the training images.

    Its strength is chosen from `STRENGTHS`: on the validation images; or, if there are more of
    these than training images, within the training images, of which each class then needs two that
    are not tied. Of equal ones the largest is taken.

    Args:
        train_ND: Features of the training images.
        labels_N: Their classes.
        validation_MD: Features of the validation images.
        labels_M: Their classes.
        num_classes: K.
        units_N: The same number for training images that near duplicates or groups tie; None: no
            images are tied.
        measure: What chooses the strength: the mean cross-entropy of all images, or the mean over
            the classes of their means ("balanced").
        balanced: Whether all classes have the same weight in the loss, instead of all images.

    Raises:
        DataError: fewer than two classes have training images, or the features are too small.
    """
    trained_L, label_N = np.unique(labels_N, return_inverse=True)
    if len(trained_L) < 2:
        raise DataError(
            f"a last layer cannot be fitted: {len(trained_L)} of {num_classes} classes have"
            " training images; add images of the others, or leave out their classes"
        )
    fitter = _Fitter(len(trained_L), balanced)
    # Images of classes that it cannot know say nothing about the strength.
    known_M = np.isin(labels_M, trained_L)
    validation_MD, label_M = validation_MD[known_M], np.searchsorted(trained_L, labels_M[known_M])
    chosen_on: ChosenOn = "validation" if len(label_M) else "nothing"
    folds: list[Fold] = []
    if len(label_M) > len(label_N):
        folds = _folds(label_N, np.arange(len(label_N)) if units_N is None else units_N)
    if folds:
        chosen_on = "folds"
    with threadpool_limits(1):
        losses: list[tuple[float, float]] = []
        if chosen_on == "validation":
            per_image = fitter.losses(train_ND, label_N, validation_MD, label_M)
            losses = _means(per_image, label_M, measure)
        elif chosen_on == "folds":
            per_image = _losses_in_folds(fitter, train_ND, label_N, folds)
            losses = _means(per_image, label_N, measure)
        best = min(losses, key=lambda tried: tried[1], default=(USUAL_STRENGTH, math.nan))
        weight_LD, bias_L = fitter.fit(train_ND, label_N, best[0])
        weight_KD = np.zeros((num_classes, train_ND.shape[1]))
        bias_K = np.zeros(num_classes)
        weight_KD[trained_L], bias_K[trained_L] = weight_LD, bias_L
        without = np.setdiff1d(np.arange(num_classes), trained_L)
        if len(without):
            logits_NL = _logits(train_ND, weight_LD, bias_L)
            bias_K[without] = logsumexp(logits_NL, axis=1).min() - math.log(len(label_N))
    with np.errstate(over="ignore"):
        weights, biases = weight_KD.astype(np.float32), bias_K.astype(np.float32)
    if not (np.isfinite(weights).all() and np.isfinite(biases).all()):
        raise DataError(
            "a last layer cannot be fitted: the features are so close to 0 that its weights are too"
            " large for 32 bits; the pre-trained weights are probably damaged, so give others"
        )
    return Head(
        weights,
        biases,
        best[0],
        chosen_on,
        tuple(losses),
        tuple(without.tolist()),
    )


def _means(loss_SN: Floats, label_N: Labels, measure: Measure) -> list[tuple[float, float]]:
    """Return each strength with its mean loss."""
    mean = np.mean if measure == "accuracy" else lambda loss_N: balanced_mean(loss_N, label_N)
    return [(one, float(mean(loss_N))) for one, loss_N in zip(STRENGTHS, loss_SN, strict=True)]


def _folds(label_N: Labels, units_N: Labels) -> list[Fold]:
    """Return which training images are fitted on and left out, in each fold.

    Tied images are left out together: a head fitted on one knows the others. None are returned
    where a class would have all its images in one fold.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    of_classes = np.unique(np.stack([label_N, units_N]), axis=1)[0]
    num = min(MOST_FOLDS, int(np.bincount(of_classes).min()))
    if num < 2:
        return []
    # Not shuffled: pictures of one series follow each other, and so come into the same fold.
    is_tied = len(np.unique(units_N)) < len(units_N)
    drawn = StratifiedGroupKFold(num) if is_tied else StratifiedKFold(num)
    folds = list(drawn.split(label_N, label_N, units_N if is_tied else None))
    num_classes = len(np.unique(label_N))
    if any(len(np.unique(label_N[fitted])) < num_classes for fitted, _ in folds):
        return []
    return folds


def _losses_in_folds(
    fitter: _Fitter, train_ND: Features, label_N: Labels, folds: Sequence[Fold]
) -> Floats:
    """Return each training image's loss, for all strengths, by heads fitted without its fold."""
    loss_SN = np.zeros((len(STRENGTHS), len(label_N)))
    for fitted, left_out in folds:
        loss_SN[:, left_out] = fitter.losses(
            train_ND[fitted], label_N[fitted], train_ND[left_out], label_N[left_out]
        )
    return loss_SN


@dataclass(frozen=True)
class _Fitter:
    """Fits L classes, all of which have images."""

    num_classes: int
    balanced: bool

    def losses(
        self, train_ND: Features, label_N: Labels, other_MD: Features, label_M: Labels
    ) -> Floats:
        """Return the loss of other images for each strength, in nats."""
        losses = []
        for weight_LD, bias_L in self._path(train_ND, label_N, STRENGTHS):
            logits_ML = _logits(other_MD, weight_LD, bias_L)
            losses.append(-log_softmax(logits_ML, axis=1)[np.arange(len(label_M)), label_M])
        return np.array(losses)

    def fit(self, train_ND: Features, label_N: Labels, strength: float) -> tuple[Floats, Floats]:
        """Return the weights and biases for one strength; they do not depend on others tried."""
        return next(self._path(train_ND, label_N, (strength,)))

    def _path(
        self, train_ND: Features, label_N: Labels, strengths: tuple[float, ...]
    ) -> Iterator[tuple[Floats, Floats]]:
        """Yield weights and biases for each strength, each fit starting where the last ended."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        x_ND, mean_D, std_D = _standardised(train_ND)
        model = LogisticRegression(
            tol=_LARGEST_GRADIENT,
            max_iter=_MOST_ITERATIONS,
            warm_start=True,
            class_weight="balanced" if self.balanced else None,
        )
        # Of two classes scikit-learn fits the difference w of their weights. Half of it each, they
        # have half the squares of w.
        halves = 2 if self.num_classes == 2 else 1
        for strength in strengths:
            model.C = halves / (strength * len(label_N))
            with warnings.catch_warnings():
                # A fit that is stopped counts as it is: the images that choose have seen no other.
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(x_ND, label_N)
            weight_LD, bias_L = model.coef_, model.intercept_
            if self.num_classes == 2:
                weight_LD = np.concatenate([-weight_LD, weight_LD]) / 2
                bias_L = np.concatenate([-bias_L, bias_L]) / 2
            weight_LD = weight_LD / std_D
            yield weight_LD, bias_L - weight_LD @ mean_D


def _standardised(features_ND: Features) -> tuple[Floats, Floats, Floats]:
    """Return (N, D) features of mean 0 and deviation 1, the means and the deviations.

    A feature that hardly varies stays small: an image that differs in it would else outweigh all
    others.
    """
    x_ND = features_ND.astype(np.float64)
    mean_D = x_ND.mean(axis=0)
    x_ND -= mean_D
    variance_D = np.einsum("nd,nd->d", x_ND, x_ND) / len(x_ND)
    std_D = np.sqrt(variance_D)
    varies_D = features_ND.min(axis=0) < features_ND.max(axis=0)
    usual = float(np.median(std_D[varies_D])) if varies_D.any() else 1.0
    std_D = np.maximum(std_D, _LEAST_DEVIATION * usual)
    x_ND /= std_D
    return x_ND, mean_D, std_D


def _logits(features_MD: Features, weight_LD: Floats, bias_L: Floats) -> Floats:
    """Return (M, L) logits, without a copy of all features in double precision."""
    parts = [
        features_MD[start : start + _ROWS_AT_ONCE].astype(np.float64) @ weight_LD.T + bias_L
        for start in range(0, len(features_MD), _ROWS_AT_ONCE)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, len(bias_L)))

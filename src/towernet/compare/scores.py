"""How good answers are: accuracy with its interval, F1, confusion, and who differs from whom.

Shapes: N images, K classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]


def confusion_matrix(labels_N: Labels, predicted_N: Labels, num_classes: int) -> Labels:
    """Return (K, K) counts, rows the true class, columns the answer."""
    pairs = np.bincount(labels_N * num_classes + predicted_N, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)


def per_class(confusion_KK: Labels, class_names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return precision, recall and F1 of each class; 0 where a class was never answered."""
    hits = confusion_KK.diagonal()
    num_true, num_answered = confusion_KK.sum(axis=1), confusion_KK.sum(axis=0)
    return [
        {
            "class_name": name,
            "precision": float(hits[i] / max(num_answered[i], 1)),
            "recall": float(hits[i] / max(num_true[i], 1)),
            "f1": float(2 * hits[i] / max(num_true[i] + num_answered[i], 1)),
            "num_images": int(num_true[i]),
        }
        for i, name in enumerate(class_names)
    ]


def macro_f1(confusion_KK: Labels) -> float:
    """Return the mean F1 over the classes that have images."""
    hits = confusion_KK.diagonal()
    sums = confusion_KK.sum(axis=0) + confusion_KK.sum(axis=1)
    present = confusion_KK.sum(axis=1) > 0
    return float(np.mean(2 * hits[present] / sums[present]))


def wilson(accuracy: float, num_images: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval of an accuracy over so many independent images."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(accuracy * num_images, num_images, method="wilson")
    # Rounding must not leave a perfect score outside its own interval.
    return min(float(low), accuracy), max(float(high), accuracy)


def sign_flip_p(differences_K: npt.NDArray[np.float64]) -> float:
    """Return the two-sided p of paired differences being as large if their signs were chance.

    Exact up to 16 runs; beyond, from 65,536 draws with a fixed seed. The smallest it can be with
    K runs is 2 / 2^K.
    """
    from scipy.stats import permutation_test

    result = permutation_test(
        (differences_K,),
        lambda values, axis: values.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=2**16,
        rng=np.random.default_rng(0),
    )
    return float(result.pvalue)


def mcnemar_p(right_N: npt.NDArray[np.bool_], other_right_N: npt.NDArray[np.bool_]) -> float:
    """Return the exact two-sided p of two models being right on the same images equally often.

    Source: McNemar, Psychometrika 1947; the exact form is a sign test on the images that
    one got right and the other wrong.
    """
    from scipy.stats import binomtest

    only_first = int((right_N & ~other_right_N).sum())
    only_second = int((~right_N & other_right_N).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second).pvalue)

"""How good answers are: accuracy with its interval, F1, confusion.

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

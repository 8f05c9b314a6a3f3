"""How uneven classes are, and means in which all classes count the same.

Shapes: N images, G classes that have images.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from towernet.words import percent, shown

Labels = npt.NDArray[np.int64]

VERY_UNEVEN = 10.0
"""How many times as many images as the smallest class the largest one has, to be mentioned."""
UNEVEN, LARGE_SHARE = 3.0, 1.5
"""The same if the largest class also has this many times its even share of all images."""


def balanced_mean(values_N: npt.NDArray[np.float64], label_N: Labels) -> float:
    """Return the mean over the classes of the means over the images of each.

    Example:
        >>> balanced_mean(np.array([1.0, 1.0, 1.0, 0.0]), np.array([0, 0, 0, 1]))
        0.5
    """
    num_G = np.bincount(label_N)
    has_images = num_G > 0
    return float((np.bincount(label_N, values_N)[has_images] / num_G[has_images]).mean())


def balanced_accuracy(right_N: npt.NDArray[np.bool_], label_N: Labels) -> float:
    """Return the mean over the classes that have images of the share of them that is right."""
    return balanced_mean(right_N.astype(np.float64), label_N)


def effective_number(label_N: Labels) -> float:
    """Return how many images of equal weight make a mean as certain as these make a balanced one.

    Source: Kish, Survey Sampling, 1965.

    Example:
        >>> effective_number(np.arange(20) % 2)
        20.0
        >>> round(effective_number(np.repeat([0, 1, 2], [400, 40, 8])))
        59
    """
    num_G = np.bincount(label_N)
    num_G = num_G[num_G > 0]
    return float(len(num_G) ** 2 / (1 / num_G).sum())


def num_classes_in(label_N: Labels) -> int:
    """Return G, how many classes have images."""
    return len(np.unique(label_N))


def uneven_words(num_by_class: Mapping[str, int]) -> str:
    """Say how uneven the classes are and what to do about it, '' where it matters little.

    Args:
        num_by_class: How many usable images each class has.

    Example:
        >>> uneven_words({"cat": 90, "dog": 10})
        'the classes are uneven: cat has 90 images and dog 10 (9 to 1), so always naming cat is \
right for 90.0 %; with --measure balanced all classes count the same, and it scores 50.0 %'
        >>> uneven_words({"cat": 60, "dog": 40})
        ''
    """
    sizes = {name: num for name, num in num_by_class.items() if num}
    if len(sizes) < 2:
        return ""
    largest, smallest = max(sizes, key=sizes.__getitem__), min(sizes, key=sizes.__getitem__)
    ratio, share = sizes[largest] / sizes[smallest], sizes[largest] / sum(sizes.values())
    if ratio < VERY_UNEVEN and (ratio < UNEVEN or share * len(sizes) < LARGE_SHARE):
        return ""
    name = shown(largest)
    times = f"{ratio:.2g}" if ratio < 10 else f"{ratio:,.0f}"
    return (
        f"the classes are uneven: {name} has {sizes[largest]:,} images and {shown(smallest)}"
        f" {sizes[smallest]:,} ({times} to 1), so always naming {name} is right for"
        f" {percent(share)}; with --measure balanced all classes count the same, and it scores"
        f" {percent(1 / len(sizes))}"
    )

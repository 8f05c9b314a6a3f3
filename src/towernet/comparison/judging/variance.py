"""The variance of a mean over runs and images, where images may weigh differently.

In an accuracy all images count the same. In a balanced accuracy all classes do, so an image of a
large class counts less; how many images a class has is then not chance, and images only vary about
the mean of their class. An accuracy is treated as the case of one class.

Sources: Gallas, One-shot estimate of MRMC variance, Academic Radiology 2006 (the sum of variances);
Satterthwaite, Biometrics Bulletin 1946 (its degrees of freedom); Bonett and Price, Adjusted Wald
confidence interval for a difference of binomial proportions based on paired data, JEBS 2012 (two
images are added, one in favour of each network; here only to the variance, as clusters that differ
like the observed ones); Price and Bonett, An improved confidence interval for a linear function of
binomial proportions, Computational Statistics & Data Analysis 2004 (classes share what is added).

Shapes: K runs, N images, C clusters of images that belong together, U cells: the images of one
class in one cluster, G classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Cells:
    """Which images belong together, and how much they count.

    Args:
        cell_N: The cell of each image.
        weight_N: What each image counts; on average 1.
        size_U: What the images of each cell count together.
        cluster_U: The cluster of each cell.
        classes: For each class, which cells it has; they are next to each other.
        num_images: For each class, how many images it has.
    """

    cell_N: Ints
    weight_N: Floats
    size_U: Floats
    cluster_U: Ints
    classes: tuple[slice, ...]
    num_images: tuple[int, ...]

    @classmethod
    def of(cls, cluster_N: Ints, label_N: Ints | None = None) -> Cells:
        """Return the cells of images.

        Args:
            cluster_N: Which images belong together.
            label_N: The classes, if all of them count the same; None: all images do. If all have
                the same number of images, their mean is the accuracy, and is treated as one.
        """
        if label_N is None or len(set(np.unique(label_N, return_counts=True)[1].tolist())) == 1:
            label_N = np.zeros(len(cluster_N), np.int64)
        return cls.of_classes(cluster_N, label_N)

    @classmethod
    def of_classes(cls, cluster_N: Ints, label_N: Ints) -> Cells:
        """Return the cells of images whose classes count the same."""
        _, cluster_N = np.unique(cluster_N, return_inverse=True)
        num_C = len(np.bincount(cluster_N))
        _, label_N, num_G = np.unique(label_N, return_inverse=True, return_counts=True)
        weight_N = len(label_N) / (len(num_G) * num_G[label_N])
        cells_U, cell_N = np.unique(label_N * num_C + cluster_N, return_inverse=True)
        ends = np.searchsorted(cells_U, np.arange(len(num_G) + 1) * num_C).tolist()
        return cls(
            cell_N=cell_N,
            weight_N=weight_N,
            size_U=np.bincount(cell_N, weight_N).astype(np.float64),
            cluster_U=cells_U % num_C,
            classes=tuple(slice(*each) for each in pairwise(ends)),
            num_images=tuple(num_G.tolist()),
        )

    @classmethod
    def of_sizes(cls, size_C: Floats) -> Cells:
        """Return the cells of clusters that count this much, all of one class."""
        num = len(size_C)
        each = np.arange(num)
        return cls(each, np.ones(num), size_C, each, (slice(0, num),), (num,))

    @property
    def num_clusters(self) -> int:
        """C, how many clusters there are."""
        return int(self.cluster_U.max()) + 1

    def size_of_classes(self) -> Floats:
        """Return (G,): what the images of each class count together."""
        return np.array([float(self.size_U[cells].sum()) for cells in self.classes])

    def clusters_of_classes(self) -> Ints:
        """Return (G,): how many clusters have images of each class."""
        return np.array([cells.stop - cells.start for cells in self.classes])

    def sums(self, values_KN: npt.NDArray[np.generic]) -> Floats:
        """Return (K, U): the weighted sums of the values over each cell."""
        num = len(self.size_U)
        return np.array(
            [np.bincount(self.cell_N, values * self.weight_N, num) for values in values_KN]
        )

    def means(self, sums_KU: Floats) -> Floats:
        """Return (G, K): each run's mean over each class.

        Nothing is known about the spread of a class with a single cluster, so for such a class it
        is the mean over all classes.
        """
        each = [slice(0, None) if self._is_single(cells) else cells for cells in self.classes]
        return np.array(
            [sums_KU[:, cells].sum(axis=1) / float(self.size_U[cells].sum()) for cells in each]
        )

    def around(self, sums_KU: Floats, mean_GK: Floats) -> Floats:
        """Return (K, C): by how much the clusters differ from these means of their classes."""
        around_KU = self._around_each(sums_KU, mean_GK)
        return np.array([np.bincount(self.cluster_U, run) for run in around_KU])

    def _around_each(self, sums_KU: Floats, mean_GK: Floats) -> Floats:
        """Return (K, U): the same for each cell.

        It is scaled such that its squares, times `scale`, estimate each class's variance.
        """
        parts = []
        for cells, mean_K in zip(self.classes, mean_GK, strict=True):
            num = cells.stop - cells.start
            widened = 1.0 if self._is_single(cells) else num / max(1, num - 1)
            widened /= self.num_clusters / max(1, self.num_clusters - 1)
            around = sums_KU[:, cells] - np.outer(mean_K, self.size_U[cells])
            parts.append(around * math.sqrt(widened))
        return np.concatenate(parts, axis=1)

    def _is_single(self, cells: slice) -> bool:
        return len(self.classes) > 1 and cells.stop - cells.start == 1

    @property
    def scale(self) -> float:
        """The factor from the sum of squares of `around` to the variance of a mean."""
        num = self.num_clusters
        return num / max(1, num - 1) / float(self.size_U.sum()) ** 2

    def variances(self, sum_U: Floats) -> Floats:
        """Return (G,): how much each class adds to the variance over images of a mean."""
        sums_KU = sum_U[None]
        (around_U,) = self._around_each(sums_KU, self.means(sums_KU))
        return np.array(
            [self.scale * float((around_U[cells] ** 2).sum()) for cells in self.classes]
        )

    def added(self, sum_U: Floats) -> Floats:
        """Return (G,): how much two more images would add to a variance, shared by the classes."""
        total, num_classes = float(self.size_U.sum()), len(self.classes)
        added = []
        for cells, num in zip(self.classes, self.num_images, strict=True):
            weight = float(self.size_U[cells].sum()) / num
            # By how many images a cluster differs if it differs: 1 with one run and single images.
            # If none differs this is unknown, and whole clusters may differ.
            differing = float(np.abs(sum_U[cells]).sum())
            whole = weight * num / (cells.stop - cells.start)
            size = float((sum_U[cells] ** 2).sum()) / differing if differing else whole
            added.append(2 / num_classes * size**2 / (total + 2 * weight) ** 2)
        return np.array(added)

    def effective_clusters(self, variance_G: Floats, added: float) -> float:
        """Return by how many clusters a variance is as well known, if classes add this much to it.

        By Satterthwaite's formula, since it is known badly if a small class adds most of it.

        Args:
            variance_G: Estimated for each class.
            added: A variance that is added to these and not estimated.
        """
        num_clusters = self.num_clusters
        if len(self.classes) == 1 or not variance_G.any():
            return float(num_clusters)
        num_G = self.clusters_of_classes()
        uncertainty = float((variance_G**2 / np.maximum(1, num_G - 1)).sum())
        return min(float(num_clusters), 1 + (float(variance_G.sum()) + added) ** 2 / uncertainty)


@dataclass(frozen=True)
class Variance:
    """The components of the variance of a mean difference, for one run and one image.

    Args:
        run: Variance of the expected difference from run to run.
        image: Variance of the expected difference from image to image.
        rest: Remaining variance of one run's prediction for one image.
        num_clusters: C, the number of images or clusters it was estimated from; fewer if it is
            mostly that of a small class.
        num_images: N, the number of images in them.
        runs_vary: Whether runs vary by more than the rest explains. Where they do not, their
            variance is 0, and does not make that of the mean less certain.
        images_vary: The same of images.
    """

    run: float
    image: float
    rest: float
    num_clusters: float
    num_images: int
    runs_vary: bool = True
    images_vary: bool = True

    def standard_error(self, num_runs: int, num_images: int) -> float:
        """Return the standard error of the mean difference over this many runs and images."""
        return math.sqrt(sum(self._parts(num_runs, num_images)))

    def degrees_of_freedom(self, num_runs: int, num_images: int) -> float:
        """Return Satterthwaite's degrees of freedom, for clusters as large as the observed ones."""
        run, image, rest = self._parts(num_runs, num_images)
        clusters = max(1.0, self.num_clusters * num_images / self.num_images - 1)
        total = run + image + rest
        if num_runs == 1:
            return clusters
        uncertainty = 0.0
        if self.runs_vary:
            uncertainty += (run + rest) ** 2 / (num_runs - 1)
        if self.images_vary:
            uncertainty += (image + rest) ** 2 / clusters
        if self.runs_vary == self.images_vary:  # else the rest is in one of these and cancels out
            uncertainty += rest**2 / ((num_runs - 1) * clusters)
        if not uncertainty:  # nothing varies, so all of it was added
            return clusters
        return max(1.0, total**2 / uncertainty)

    def _parts(self, num_runs: int, num_images: int) -> tuple[float, float, float]:
        return (
            self.run / num_runs,
            self.image / num_images,
            self.rest / (num_runs * num_images),
        )


def estimate(net_KU: Floats, cells: Cells) -> Variance:
    """Estimate the components of a difference's variance.

    Args:
        net_KU: For each run and cell, how many more images the first network got right, weighted.
        cells: How the images belong together and count.
    """
    num_runs, num_images = len(net_KU), sum(cells.num_images)
    of_runs, of_images, of_rest = spread(net_KU, cells)
    by_cell_U = net_KU.mean(axis=0)
    added_G = cells.added(by_cell_U)
    # Of an accuracy both always count as varying, so that results made before stay what they are.
    is_accuracy = len(cells.classes) == 1
    # The variances over runs and over images both contain the rest; neither can be negative.
    return Variance(
        run=max(0.0, of_runs - of_rest) * num_runs,
        image=(max(0.0, of_images - of_rest) + float(added_G.sum())) * num_images,
        rest=of_rest * num_runs * num_images,
        num_clusters=cells.effective_clusters(cells.variances(by_cell_U), float(added_G.sum())),
        num_images=num_images,
        runs_vary=is_accuracy or of_runs > of_rest,
        images_vary=is_accuracy or of_images > of_rest,
    )


def spread(net_KU: Floats, cells: Cells) -> tuple[float, float, float]:
    """Return the observed variances of a mean: over runs, over clusters, and the rest.

    Each of the first two contains the rest. The mean is the sum of `net_KU` over that of the sizes.
    """
    num_runs = len(net_KU)
    by_cell_U = net_KU.mean(axis=0)
    mean_GK = cells.means(net_KU)
    usual_G = np.array([mean_K.mean() for mean_K in mean_GK])
    around_C = cells.around(by_cell_U[None], usual_G[:, None])[0]
    of_images = cells.scale * float((around_C**2).sum())
    if num_runs == 1:
        return 0.0, of_images, 0.0
    by_run_K = net_KU.sum(axis=1) / float(cells.size_U.sum())
    of_runs = float(by_run_K.var(ddof=1)) / num_runs
    rest_KC = cells.around(net_KU - by_cell_U, mean_GK - usual_G[:, None])
    of_rest = cells.scale * float((rest_KC**2).sum()) / ((num_runs - 1) * num_runs)
    return of_runs, of_images, of_rest


def covariance(right_MKU: Floats, cells: Cells) -> Floats:
    """Return (M, M): the covariance of the networks' scores, over runs and over images."""
    num_runs = right_MKU.shape[1]
    by_run_MK = right_MKU.sum(axis=2) / float(cells.size_U.sum())
    usual_GM = np.array(
        [[mean_K.mean() for mean_K in cells.means(right_KU)] for right_KU in right_MKU]
    ).T
    around_MC = cells.around(right_MKU.mean(axis=1), usual_GM)
    total: Floats = cells.scale * around_MC @ around_MC.T
    if num_runs > 1:
        total = total + np.atleast_2d(np.cov(by_run_MK)) / num_runs
    return total

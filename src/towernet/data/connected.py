"""Connected components: of near duplicates, and of groups that a split keeps together."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


def chain(labels: npt.NDArray[Any]) -> Indices:
    """Return (P, 2) pairs that connect all the members of each label."""
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    (alike,) = np.nonzero(ordered[1:] == ordered[:-1])
    return np.stack([order[alike], order[alike + 1]], axis=1)


def components(num: int, pairs: Indices) -> Indices:
    """Return (num,) the number of the connected component that each of `num` things is in.

    Args:
        num: How many there are.
        pairs: (P, 2) which of them are connected.

    Example:
        >>> components(4, np.array([[0, 1], [3, 1]])).tolist()
        [0, 0, 1, 0]
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(num, num))
    labels: Indices = connected_components(graph, directed=False)[1].astype(np.int64)
    return labels


def forest(num: int, pairs: Indices) -> Indices:
    """Return as few of the pairs as connect the same things, at most one less than `num`.

    Args:
        num: How many there are.
        pairs: (P, 2) which of them are connected.

    Example:
        >>> forest(3, np.array([[0, 1], [1, 2], [2, 0]])).tolist()
        [[0, 1], [1, 2]]
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    ones = np.ones(len(pairs))
    graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(num, num)).tocsr()
    tree = minimum_spanning_tree(graph).tocoo()
    return np.stack([tree.row, tree.col], axis=1).astype(np.int64)

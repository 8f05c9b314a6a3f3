"""The eight ways in which a square can be turned and mirrored.

Turn t is: mirrored left to right if t is 4 or more, then turned clockwise t % 4 times by 90°.
Shapes: N images, H × W pixels of a square.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

UPRIGHT, MIRRORED = 0, 4
NUM_TURNS = 8
CODES = (
    "NEAR_DUPLICATE",
    "TURNED_90",
    "TURNED_180",
    "TURNED_270",
    "MIRRORED",
    "MIRRORED_TURNED_90",
    "MIRRORED_TURNED_180",
    "MIRRORED_TURNED_270",
)


def turned(square_NHW: npt.NDArray[Any], turn: int) -> npt.NDArray[Any]:
    """Return square images turned.

    Example:
        >>> turned(np.array([[[1, 2], [3, 4]]]), 1).tolist()
        [[[3, 1], [4, 2]]]
    """
    if turn >= MIRRORED:
        square_NHW = square_NHW[:, :, ::-1]
    return np.rot90(square_NHW, -(turn % 4), axes=(1, 2))


def turned_frequencies(low_NHW: npt.NDArray[Any], turn: int) -> npt.NDArray[Any]:
    """Return the cosine transform of turned images, from that of the upright ones.

    Mirroring left to right changes the sign of every odd horizontal frequency; turning clockwise
    exchanges the axes and then mirrors.
    """
    sign_W = (-1.0) ** np.arange(low_NHW.shape[-1])
    if turn >= MIRRORED:
        low_NHW = low_NHW * sign_W
    for _ in range(turn % 4):
        low_NHW = low_NHW.swapaxes(1, 2) * sign_W
    return low_NHW


def then(first: int, second: int) -> int:
    """Return the turn that is one turn, followed by a second.

    Example:
        >>> then(4, 1), then(1, 4)  # mirrored and then turned is not turned and then mirrored
        (5, 7)
    """
    mirrored = (first >= MIRRORED) != (second >= MIRRORED)
    quarters = second % 4 + (-first if second >= MIRRORED else first) % 4
    return MIRRORED * mirrored + quarters % 4


def back(turn: int) -> int:
    """Return the turn that undoes a turn."""
    return turn if turn >= MIRRORED else -turn % 4

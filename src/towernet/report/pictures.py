"""The pictures a report shows, through the one decoder."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from towernet.data.decode import decode
from towernet.data.rules import Rules
from towernet.data.source import Source
from towernet.errors import DataError


def pictures(source: Source, rules: Rules) -> Callable[[str], npt.NDArray[np.uint8] | None]:
    """Return a function from a path in the sample table to its picture, None if unavailable.

    Args:
        source: The images.
        rules: How they became pixels in training.
    """

    def picture(path: str) -> npt.NDArray[np.uint8] | None:
        file = source.files.location(path)
        try:
            return decode(file.read_bytes(), rules).pixels if file else None
        except (OSError, DataError):
            return None

    return picture

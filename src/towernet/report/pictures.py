"""The pictures a report shows, through the one decoder."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from towernet.data.decode import decode
from towernet.data.source import Source
from towernet.errors import DataError


def pictures(source: Source) -> Callable[[str], npt.NDArray[np.uint8] | None]:
    """Return what gives a picture by its path in the sample table, None when it is not at hand."""
    file_of = {entry.path: entry.file for entry in source.files}

    def picture(path: str) -> npt.NDArray[np.uint8] | None:
        if path not in file_of:
            return None
        try:
            return decode(file_of[path].read_bytes()).pixels
        except (OSError, DataError):
            return None

    return picture

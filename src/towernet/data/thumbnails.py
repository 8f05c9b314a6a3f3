"""The thumbnails of the images that are checked, kept while near duplicates are searched.

Shapes: T = 1,024 pixels of a thumbnail.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from towernet.data.examine import THUMBNAIL_PX
from towernet.errors import EnvironmentFault

_MEMORY_BYTES = 4 << 20

Indices = npt.NDArray[np.int64]
Grey = npt.NDArray[np.uint8]


class Thumbnails:
    """N thumbnails of a kilobyte each, in an unnamed temporary file if there are many."""

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._stream = tempfile.SpooledTemporaryFile(  # noqa: SIM115 - ended by `close`
                _MEMORY_BYTES, dir=str(folder)
            )
        except OSError as error:
            raise _not_written(folder, error) from error
        self._folder = folder

    def write(self, position: int, thumbnail: bytes) -> None:
        """Store one thumbnail at its position; positions left out are undefined."""
        try:
            self._stream.seek(position * THUMBNAIL_PX**2)
            self._stream.write(thumbnail)
        except OSError as error:
            raise _not_written(self._folder, error) from error

    def read(self, positions: Indices) -> Grey:
        """Return those at some positions as (n, 1024) grey levels."""
        grey_nT = np.empty((len(positions), THUMBNAIL_PX**2), np.uint8)
        for row, position in zip(grey_nT, positions.tolist(), strict=True):
            self._stream.seek(position * THUMBNAIL_PX**2)
            row[:] = np.frombuffer(self._stream.read(THUMBNAIL_PX**2), np.uint8)
        return grey_nT

    def close(self) -> None:
        """Free the disk space."""
        self._stream.close()


def _not_written(folder: Path, error: OSError) -> EnvironmentFault:
    return EnvironmentFault(
        f"the thumbnails, a kilobyte for each image, cannot be written to {folder}:"
        f" {error.strerror}; free some space or point TOWERNET_CACHE to a larger disk"
    )

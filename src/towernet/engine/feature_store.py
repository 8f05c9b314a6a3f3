"""Features on disk: rows by the hash of an image's bytes, in files that are never changed.

A file belongs to one key and contains n rows: n hashes of 32 bytes, n × D float32 in little-endian,
and n checksums, each of a hash and its row. It is written atomically every few seconds, so a kill
loses no more, and processes that write at the same time cannot damage each other's files. A row
whose checksum is wrong counts as missing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import zlib
from collections.abc import Container, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from towernet import files
from towernet.errors import EnvironmentFault

SECONDS_KEPT = 5.0
"""Rows that are not on disk yet are at most this old, or one row older."""
_ID_BYTES, _CHECKSUM_BYTES = 32, 4
_ABANDONED_S = 3600.0  # temporary files of killed commands; others may be written right now

Rows = npt.NDArray[np.float32]


class Store(AbstractContextManager["Store"]):
    """The features under one key; leaving its block writes what was added.

    Args:
        key: Of everything that the rows' bits depend on, besides the image.
        num_features: D.

    Raises:
        EnvironmentFault: the cache's folder cannot be created.
    """

    def __init__(self, key: str, num_features: int) -> None:
        self.num_features = num_features
        self.folder = files.cache_folder() / "features"
        self._key, self._row_bytes = key, 4 * num_features
        self._record_bytes = _ID_BYTES + self._row_bytes + _CHECKSUM_BYTES
        self._added: list[tuple[bytes, bytes]] = []
        self._written = time.monotonic()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise files.refused(self.folder, error) from error

    def locked(self) -> AbstractContextManager[None]:
        """Wait for other commands that add rows under this key; keep them out in the block."""
        return files.lock(self.folder / f"{self._key}.lock", holder=str(self.folder), wait=True)

    def make_room(self, num_rows: int) -> None:
        """Drop the files that were used least recently until so many more rows fit.

        Raises:
            EnvironmentFault: the disk is too small even then.
        """
        files.sweep(self.folder, older_than_s=_ABANDONED_S)
        files.make_room(
            self.folder,
            files.kept_files(self.folder, "*.rows"),
            needed=num_rows * self._record_bytes,
            who_needs="the features need",
        )

    def rows(self, wanted: Container[str]) -> Iterator[tuple[str, Rows]]:
        """Yield the hash and the (D,) features of images that are wanted and intact.

        Args:
            wanted: Hashes; they can be removed from it as they come.

        Raises:
            EnvironmentFault: a file cannot be read.
        """
        for file in sorted(self.folder.glob(f"{self._key}-*.rows")):
            try:
                found = self._of_file(file, wanted)
            except FileNotFoundError:  # another command dropped it
                continue
            except OSError as error:
                raise EnvironmentFault(
                    f"{file} cannot be read: {error.strerror}; delete it, or point TOWERNET_CACHE"
                    " to another disk"
                ) from error
            for content_id, row_D in found:
                if content_id in wanted:  # else it was in this file twice
                    yield content_id, row_D

    def _of_file(self, file: Path, wanted: Container[str]) -> list[tuple[str, Rows]]:
        with file.open("rb") as stream:
            num, rest = divmod(os.fstat(stream.fileno()).st_size, self._record_bytes)
            if rest:  # it was cut
                file.unlink(missing_ok=True)
                return []
            hashes = stream.read(num * _ID_BYTES)
            ids = [hashes[i * _ID_BYTES : (i + 1) * _ID_BYTES] for i in range(num)]
            if not any(one.hex() in wanted for one in ids):
                return []
            rows = stream.read(num * self._row_bytes)
            checksums = np.frombuffer(stream.read(), "<u4")
        with contextlib.suppress(OSError):  # a read-only cache
            os.utime(file)  # for dropping the least recently used first
        found = []
        for i, one in enumerate(ids):
            row = rows[i * self._row_bytes : (i + 1) * self._row_bytes]
            if one.hex() in wanted and zlib.crc32(one + row) == checksums[i]:
                found.append((one.hex(), np.frombuffer(row, "<f4")))
        return found

    def add(self, content_id: str, row_D: Rows) -> None:
        """Keep an image's features.

        Raises:
            EnvironmentFault: the disk is full or cannot be written.
        """
        self._added.append((bytes.fromhex(content_id), row_D.astype("<f4").tobytes()))
        if time.monotonic() - self._written > SECONDS_KEPT:
            self._write()

    def __exit__(self, *_: object) -> None:
        self._write()

    def _write(self) -> None:
        if self._added:
            ids, rows = zip(*self._added, strict=True)
            checksums = [zlib.crc32(one + row) for one, row in self._added]
            content = b"".join([*ids, *rows, np.array(checksums, "<u4").tobytes()])
            name = f"{self._key}-{hashlib.sha256(content).hexdigest()[:16]}.rows"
            files.write_bytes(self.folder / name, content)
        self._added, self._written = [], time.monotonic()

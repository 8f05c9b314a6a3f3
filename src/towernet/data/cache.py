"""Decoded pictures, kept as one uint8 array on disk that all networks and epochs read.

An array's name is a hash of what it is made from: which bytes, how fitted, by which decoder. It
is mapped, not loaded, so it costs no memory of its own; it is written beside and renamed, so it
is there whole or not at all. Behind the array stands a checksum of each row, compared once in each
process: a disk that lies must not spoil a night of training.
Shapes: N used pictures, S the side of the square.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zlib
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
import pandas as pd

from towernet import files
from towernet.data import decode
from towernet.data.examine import Wanted, fitted
from towernet.data.source import Source
from towernet.data.table import USED
from towernet.data.workers import Count, Died, in_processes
from towernet.errors import DataError, EnvironmentFault
from towernet.words import shown

Shape = tuple[int, int, int, int]


def open_pixels(
    table: pd.DataFrame,
    source: Source,
    *,
    size_px: int,
    resize: str,
    background: tuple[int, int, int] = (255, 255, 255),
    workers: int,
    progress: Count | None = None,
) -> npt.NDArray[np.uint8]:
    """Map the decoded pictures of a table, decoding them first if that was never done.

    Args:
        table: The sample table.
        source: Where its files lie.
        size_px: S.
        resize: The rule of `decode.fit`.
        background: RGB of transparency and padding.
        workers: How many processes decode; the pixels do not depend on it.
        progress: Called as progress(what, done, total) while decoding.

    Returns:
        (N, S, S, 3), read only; row i is the i-th row of the table whose status is used.

    Raises:
        DataError: a file is not what it was when it was checked.
        EnvironmentFault: the disk is too small or cannot be written.
    """
    used = table[table.status == USED]
    shape = (len(used), size_px, size_px, 3)
    made_from = [decode.VERSION, list(used.content_id), size_px, resize, list(background)]
    key = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()
    folder = files.cache_folder() / "pixels"
    file = folder / f"{key}.npy"
    pixels = _map(file, shape)
    if pixels is None:
        # One builds at a time; who waited finds it built.
        with files.lock(folder / "lock", holder=str(folder), wait=True):
            pixels = _map(file, shape)
            if pixels is None:
                wanted = [
                    Wanted(_location(source, path), content_id, size_px, resize, background)
                    for path, content_id in zip(used.path, used.content_id, strict=True)
                ]
                files.sweep(folder)
                # What another process has mapped stays readable to it until it ends.
                files.make_room(
                    folder,
                    files.kept_files(folder, "*.npy", but=file),
                    needed=_num_bytes(shape),
                    who_needs="the decoded images need",
                )
                _build(file, shape, wanted, list(used.path), workers, progress)
                pixels = _map(file, shape)
                assert pixels is not None, f"{file} was written and cannot be read"
    return pixels


def _map(file: Path, shape: Shape) -> npt.NDArray[np.uint8] | None:
    """Map an array; None if it is not there, is damaged, or was cut short."""
    try:
        pixels: npt.NDArray[np.uint8] = np.load(file, mmap_mode="r", allow_pickle=False)
        status = file.stat()
        with contextlib.suppress(OSError):  # a cache shared for reading only
            os.utime(file)  # used last: dropped last
        as_made = pixels.shape == shape and pixels.dtype == np.uint8
        if not as_made or status.st_size != _num_bytes(shape):
            return None
        file_id = status.st_dev, status.st_ino
        if file_id not in _sound:
            if not _is_sound(file, shape):
                return None
            _sound.add(file_id)
    except (FileNotFoundError, ValueError, EOFError):
        return None
    except OSError as error:
        raise EnvironmentFault(
            f"{file} cannot be read: {error.strerror}; delete it, or point TOWERNET_CACHE to"
            " another disk"
        ) from error
    # All runs of a comparison share one mapping: each would count as memory of its own.
    return _mapped.setdefault(file_id, pixels)


_sound: set[tuple[int, int]] = set()
"""The files, by disk and number, whose checksums this process has compared."""
_mapped: WeakValueDictionary[tuple[int, int], npt.NDArray[np.uint8]] = WeakValueDictionary()
"""Their mappings that are in use; a file that is mapped keeps its number."""


def _is_sound(file: Path, shape: Shape) -> bool:
    """Whether each row is what was written (5 GB/s, and the first epoch finds it in memory)."""
    with file.open("rb") as stream:  # read, not mapped: a failing disk would kill the process
        stream.seek(_HEADER_BYTES)
        row_bytes = int(np.prod(shape[1:]))
        found = [zlib.crc32(stream.read(row_bytes)) for _ in range(shape[0])]
        return stream.read() == np.array(found, "<u4").tobytes()


def _num_bytes(shape: Shape) -> int:
    return _HEADER_BYTES + int(np.prod(shape)) + _CHECKSUM_BYTES * shape[0]


def _build(
    file: Path,
    shape: Shape,
    wanted: list[Wanted],
    paths: list[str],
    workers: int,
    progress: Count | None,
) -> None:
    """Decode in parallel and write each row at its place; through the stream, not a mapping.

    (On a full disk a write fails with an error; a mapped page kills the process.)
    """
    row_bytes = int(np.prod(shape[1:]))
    checksums = np.zeros(shape[0], "<u4")
    with files.atomic(file) as stream:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        assert stream.tell() == _HEADER_BYTES
        for done, (position, row) in enumerate(
            in_processes(fitted, wanted, workers=workers), start=1
        ):
            if isinstance(row, Died):
                raise DataError(f"{shown(paths[position])}: {row.detail}; then run it again")
            if row is None:
                raise _changed(paths[position])
            if isinstance(row, str):
                raise EnvironmentFault(
                    f"{shown(paths[position])} cannot be read ({row}); check its disk, then say the"
                    " same command again"
                )
            stream.seek(_HEADER_BYTES + position * row_bytes)
            stream.write(row)
            checksums[position] = zlib.crc32(row)
            if progress:
                progress("preparing images", done, len(wanted))
        stream.seek(_HEADER_BYTES + shape[0] * row_bytes)
        stream.write(checksums.tobytes())


def _location(source: Source, path: str) -> Path:
    if (file := source.files.location(path)) is None:
        raise _changed(path)
    return file


def _changed(path: str) -> DataError:
    return DataError(f"{shown(path)} changed since it was checked; run the command again")


_HEADER_BYTES = 128
"""numpy pads the header of an array file to this."""
_CHECKSUM_BYTES = 4

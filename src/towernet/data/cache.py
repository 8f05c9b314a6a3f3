"""Decoded images, stored as one uint8 array on disk that all networks and epochs read.

An array's name is a hash of its inputs: which bytes, how fitted, by which decoder. It is mapped,
not loaded, so it adds no memory; it is written to a temporary file and renamed, so it is complete
or absent. A checksum of each row follows the array and is verified once per process: silent disk
errors must not spoil a night of training.
Shapes: N used images, S the side of the square.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zlib
from dataclasses import asdict
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
import pandas as pd

from towernet import files
from towernet.data import decode
from towernet.data.examine import Wanted, fitted
from towernet.data.rules import BEFORE, Rules
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
    crop_share: float = 1.0,
    rules: Rules = BEFORE,
    workers: int,
    progress: Count | None = None,
) -> npt.NDArray[np.uint8]:
    """Map the decoded images of a table; decode them first if they are not in the cache.

    Args:
        table: The sample table.
        source: Where its files are.
        size_px: S.
        resize: The rule of `decode.fit`.
        crop_share: The same, with crop.
        rules: How files become pixels, with the RGB of transparency and padding.
        workers: How many processes decode; the pixels do not depend on it.
        progress: Called as progress(what, done, total) while decoding.

    Returns:
        (N, S, S, 3), read only; row i is the i-th row of the table whose status is used.

    Raises:
        DataError: a file changed since it was checked.
        EnvironmentFault: the disk is too small or cannot be written.
    """
    used = table[table.status == USED]
    shape = (len(used), size_px, size_px, 3)
    made_from = [decode.VERSION, list(used.content_id), size_px, resize, asdict(rules)]
    if crop_share < 1:  # arrays of the whole square keep their names
        made_from.append(crop_share)
    key = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()
    folder = files.cache_folder() / "pixels"
    file = folder / f"{key}.npy"
    pixels = _map(file, shape)
    if pixels is None:
        # One process builds at a time; those that waited find it built.
        with files.lock(folder / "lock", holder=str(folder), wait=True):
            pixels = _map(file, shape)
            if pixels is None:
                wanted = wanted_images(
                    used, source, size_px=size_px, resize=resize, crop_share=crop_share, rules=rules
                )
                files.sweep(folder)
                # Arrays that another process has mapped stay readable to it until it ends.
                files.make_room(
                    folder,
                    files.kept_files(folder, "*.npy", but=file),
                    needed=_num_bytes(shape),
                    who_needs="the decoded images need",
                )
                _build(file, shape, wanted, list(used.path), workers, progress, rules.max_bytes)
                pixels = _map(file, shape)
                assert pixels is not None, f"{file} was written and cannot be read"
    return pixels


def _map(file: Path, shape: Shape) -> npt.NDArray[np.uint8] | None:
    """Map an array; None if it is missing, damaged or truncated."""
    try:
        pixels: npt.NDArray[np.uint8] = np.load(file, mmap_mode="r", allow_pickle=False)
        status = file.stat()
        with contextlib.suppress(OSError):  # a read-only cache
            os.utime(file)  # for dropping the least recently used first
        as_made = pixels.shape == shape and pixels.dtype == np.uint8
        if not as_made or status.st_size != _num_bytes(shape):
            return None
        file_id = status.st_dev, status.st_ino
        if file_id not in _verified:
            if not _is_intact(file, shape):
                return None
            _verified.add(file_id)
    except (FileNotFoundError, ValueError, EOFError):
        return None
    except OSError as error:
        raise EnvironmentFault(
            f"{file} cannot be read: {error.strerror}; delete it, or point TOWERNET_CACHE to"
            " another disk"
        ) from error
    # All runs of a comparison share one mapping: several would each count as used memory.
    return _mapped.setdefault(file_id, pixels)


_verified: set[tuple[int, int]] = set()
"""The files, by device and inode, whose checksums this process has verified."""
_mapped: WeakValueDictionary[tuple[int, int], npt.NDArray[np.uint8]] = WeakValueDictionary()
"""Their mappings that are in use; a mapped file keeps its inode."""


def _is_intact(file: Path, shape: Shape) -> bool:
    """Whether each row has its checksum (5 GB/s, and the first epoch finds the file in memory)."""
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
    alone_bytes: int,
) -> None:
    """Decode in parallel and write each row at its place, through a stream, not a mapping.

    On a full disk a write raises an error; a mapped page would kill the process.
    """
    row_bytes = int(np.prod(shape[1:]))
    checksums = np.zeros(shape[0], "<u4")
    with files.atomic(file) as stream:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        assert stream.tell() == _HEADER_BYTES
        for done, (position, row) in enumerate(
            in_processes(fitted, wanted, workers=workers, alone_bytes=alone_bytes), start=1
        ):
            row = require_pixels(paths[position], row)
            stream.seek(_HEADER_BYTES + position * row_bytes)
            stream.write(row)
            checksums[position] = zlib.crc32(row)
            if progress:
                progress("preparing images", done, len(wanted))
        stream.seek(_HEADER_BYTES + shape[0] * row_bytes)
        stream.write(checksums.tobytes())


def wanted_images(
    images: pd.DataFrame,
    source: Source,
    *,
    size_px: int,
    resize: str,
    crop_share: float,
    rules: Rules,
) -> list[Wanted]:
    """Return what the decoding processes are asked for, one for each row of a sample table.

    Raises:
        DataError: a file is no longer there.
    """
    return [
        Wanted(_location(source, path), content_id, size_px, resize, crop_share, rules)
        for path, content_id in zip(images.path, images.content_id, strict=True)
    ]


def require_pixels(path: str, answer: bytes | str | Died | None) -> bytes:
    """Return the pixels that a decoding process answered with for a checked image.

    Raises:
        DataError: the file changed since it was checked, or decoding failed this time.
        EnvironmentFault: it cannot be read.
    """
    if isinstance(answer, Died):
        raise DataError(f"{shown(path)}: {answer.detail}; then run the command again")
    if answer is None:
        raise _changed(path)
    if isinstance(answer, str):
        raise EnvironmentFault(
            f"{shown(path)} cannot be read ({answer}); check its disk, then run the same command"
            " again"
        )
    return answer


def _location(source: Source, path: str) -> Path:
    if (file := source.files.location(path)) is None:
        raise _changed(path)
    return file


def _changed(path: str) -> DataError:
    return DataError(f"{shown(path)} changed since it was checked; run the command again")


_HEADER_BYTES = 128
"""numpy pads the header of an array file to this."""
_CHECKSUM_BYTES = 4

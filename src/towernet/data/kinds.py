"""Which files of a data set may be images: by the ending of the name, and by the first bytes."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from towernet.data.formats import begins_as_image
from towernet.data.table import path_bytes

# Files with these endings are no images unless they begin like one.
OTHER_SUFFIXES = {
    *(".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xml", ".yaml", ".yml"),
    *(".toml", ".html", ".htm", ".pdf", ".py", ".sh", ".bat", ".log", ".ini", ".cfg", ".conf"),
    *(".ipynb", ".names", ".data", ".list", ".lst", ".md5", ".sha256", ".xls", ".xlsx", ".ods"),
    *(".doc", ".docx", ".rtf", ".mat", ".npy", ".npz", ".h5", ".hdf5", ".pkl", ".pickle", ".pt"),
    *(".pth", ".onnx", ".safetensors", ".ckpt", ".pb", ".tflite", ".parquet", ".arrow", ".feather"),
    *(".db", ".sqlite", ".lock", ".bak", ".tmp", ".part", ".url", ".lnk", ".properties"),
    *(".geojson", ".cache", ".xmp", ".aae", ".pts", ".label", ".ann", ".bib", ".tex"),
    *(".r", ".m", ".js", ".css"),
}  # fmt: skip
_HEAD_BYTES, _LIST_BYTES = 64, 1 << 16
_IS_LIST = 0.5  # the share of a CSV's first rows that must name a file


class Kinds(NamedTuple):
    """The files found.

    Args:
        images: Those that may be images.
        others: Those that are none.
        masks: Those that are masks and left out, with the image each belongs to.
    """

    images: list[str]
    others: list[str]
    masks: Mapping[str, str] = MappingProxyType({})


def kinds_of(paths: Iterable[str], location: Callable[[str], Path]) -> Kinds:
    """Divide files into those that may be images and others, in the order given.

    Files without an ending may be images in a class folder, unless they begin like XML. (Their
    content is checked later.)

    Args:
        paths: The files.
        location: Returns where the bytes of one are.
    """
    found = Kinds([], [])
    for path in paths:
        suffix = suffix_of(path)
        other = (suffix in OTHER_SUFFIXES and not _begins_as_image(location(path))) or (
            not suffix and _head(location(path)).startswith(b"<")
        )
        (found.others if other else found.images).append(path)
    return found


def suffix_of(path: str) -> str:
    """Return the ending of a file's name in lower case, such as '.jpg'."""
    return os.path.splitext(path)[1].lower()  # noqa: PTH122 - a million times


def _begins_as_image(file: Path) -> bool:
    return begins_as_image(_head(file)) is not None


def _head(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(_HEAD_BYTES)
    except OSError:
        return b""


def list_of_images(kinds: Kinds, location: Callable[[str], Path]) -> str:
    """Return the path of a CSV that lists the images, '' if there is none."""
    names = {path.rpartition("/")[2] for path in kinds.images}
    names |= {os.path.splitext(name)[0] for name in names}  # noqa: PTH122
    for path in sorted(kinds.others, key=path_bytes):
        if suffix_of(path) == ".csv" and _lists(location(path), names):
            return path
    return ""


def _lists(file: Path, names: set[str]) -> bool:
    """Whether most of the first rows of a CSV contain the name of an image."""
    try:
        with file.open("rb") as stream:
            head = stream.read(_LIST_BYTES)
    except OSError:
        return False
    coding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    lines = head.decode(coding, errors="replace").splitlines()[1:]
    mark = max(",;\t", key=lambda char: "".join(lines[:20]).count(char))
    try:
        rows = list(csv.reader(lines[:-1] if len(head) == _LIST_BYTES else lines, delimiter=mark))
    except csv.Error:
        return False
    hits = [any(_last_part(cell) in names for cell in row) for row in rows if row]
    return bool(hits) and sum(hits) >= _IS_LIST * len(hits)


def _last_part(cell: str) -> str:
    return cell.strip().replace("\\", "/").rpartition("/")[2]

"""Imported weights, read without running any code.

Three kinds of file are read: PaddlePaddle's parameters, safetensors, and what torch.save wrote.
All others are refused before they are parsed. Their kind is recognised by content if possible, else
by name.
"""

from __future__ import annotations

import json
import math
import stat
import struct
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import torch

from towernet.errors import DataError
from towernet.models.paddle import read_pdparams, towernet_state_dict
from towernet.models.refusals import SAVE, damaged, quoted
from towernet.models.torch_file import Parts, opened, read_torch

Value = TypeVar("Value")

_MAX_BYTES = 2**32  # the largest network of the catalogue, vit_h_14, has 2.5 GB of weights
_MAX_HEADER_BYTES = 5_000_000  # a network of a thousand tensors needs 0.1 MB

_REFUSED = {
    "pickle": f"a pickle, which can run code; open it where it was made and save with {SAVE}",
    "Lightning": "a Lightning checkpoint; save its weights with"
    " torch.save(torch.load(FILE, weights_only=True)['state_dict'], 'weights.pt')",
    "TorchScript": "a TorchScript archive, which can run code; if you trust it, save with"
    " torch.save(torch.jit.load(FILE).state_dict(), 'weights.pt')",
    "torch.package": f"a torch.package, which can run code; if you trust it, save with {SAVE}",
    "numpy": "a numpy file, whose arrays may be pickles; name them as the network does and save"
    " with safetensors.numpy.save_file(arrays, 'weights.safetensors')",
    "keras": f"a Keras file; build the network in torch, copy its weights and save with {SAVE}",
    "tensorflow": f"a TensorFlow file; build the network in torch, copy its weights and save with"
    f" {SAVE}",
    "onnx": f"an ONNX file, which lacks the names of the weights; save them with {SAVE} where it"
    " was exported",
    "gguf": "a GGUF file, which contains a language model; give the weights of an image classifier",
    "unknown": f"of an unknown kind; save the weights with {SAVE}",
}
_READ = {".pdparams": "paddle", ".safetensors": "safetensors"}
_SUFFIXES = {
    ".pkl": "pickle", ".pickle": "pickle", ".joblib": "pickle", ".ckpt": "Lightning",
    ".npy": "numpy", ".npz": "numpy", ".h5": "keras", ".hdf5": "keras", ".keras": "keras",
    ".pb": "tensorflow", ".tflite": "tensorflow", ".onnx": "onnx", ".gguf": "gguf",
}  # fmt: skip
_PERHAPS_OF_TORCH = ("unknown", "pickle", "Lightning")
_MAGIC = (
    (0, b"\x89HDF", "keras"),
    (0, b"\x93NUMPY", "numpy"),
    (0, b"GGUF", "gguf"),
    (4, b"TFL3", "tensorflow"),
    (2, b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "old torch"),
    (0, b"PK\x03\x04", "zip"),
)
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def read_foreign(path: Path) -> Parts:
    """Read the named tensors of an untrusted file, by the keys that lead to them.

    Raises:
        DataError: the file cannot be read, is of another kind, is damaged, or contains code.
    """
    require_file(path)
    try:
        kind = _kind(path)
        if kind in _REFUSED:
            raise DataError(f"{path} is {_REFUSED[kind].replace('FILE', repr(path.name))}")
        if kind == "paddle":
            return {"": towernet_state_dict(read_pdparams(path))}
        if kind == "safetensors":
            return _read_safetensors(path)
        return read_torch(path, is_archive=kind != "old torch")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; check the path") from error


def require_file(path: Path) -> None:
    """Refuse what is not a plain file, is empty, or is larger than any network.

    Raises:
        DataError: it is, or cannot be read.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; check the path") from error
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would block
        raise DataError(f"{path} is not a file; give the file that contains the weights")
    if not status.st_size:
        raise DataError(f"{path} is empty; copy or download it again, or give other weights")
    if status.st_size > _MAX_BYTES:
        raise DataError(
            f"{path} has {status.st_size / 1e9:.1f} GB, and the limit is"
            f" {_MAX_BYTES / 1e9:.1f} GB of weights; give those of one network"
        )


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in _READ:
        return _READ[suffix]
    with path.open("rb") as stream:
        head = stream.read(32)
    for at, magic, kind in _MAGIC:
        if head[at:].startswith(magic):
            if kind != "zip":
                return kind
            by_name = _SUFFIXES.get(suffix, "unknown")
            return by_name if by_name not in _PERHAPS_OF_TORCH else _kind_of_zip(path)
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    if head[8:9] == b"{":
        return "safetensors"
    return "pickle" if head[:1] == b"\x80" else "unknown"


def _kind_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return "torch"  # its reader reports what is wrong
    inside = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inside or any(name.startswith("code/") for name in inside):
        return "TorchScript"
    if any(name.startswith(".data/extern_modules") for name in inside):
        return "torch.package"
    if "model.weights.h5" in names:
        return "keras"
    if any(name.endswith(".npy") for name in names):
        return "numpy"
    return "torch" if "data.pkl" in inside else "unknown"


# Safetensors. The library detects most damage, but does not report the tensor, takes the last of
# two tensors with the same name, and reads headers of 100 MB.


def _read_safetensors(path: Path) -> Parts:
    try:
        _check_header(path)
        with opened(path) as name, safetensors.safe_open(name, framework="pt") as tensors:
            return {"": {key: tensors.get_tensor(key) for key in tensors.keys()}}  # noqa: SIM118
    except DataError:
        raise
    except (RecursionError, ValueError, safetensors.SafetensorError) as error:
        raise damaged(path, str(error)) from error


def metadata_of(path: Path) -> dict[str, Any]:
    """Return what the header of a safetensors file says besides its tensors; {} for other files.

    Raises:
        DataError: the file cannot be read, or is damaged.
    """
    try:
        if _kind(path) != "safetensors":
            return {}
        found = _check_header(path)
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; check the path") from error
    except (RecursionError, ValueError) as error:
        raise damaged(path, str(error)) from error
    return found if isinstance(found, dict) else {}


def _check_header(path: Path) -> Any:
    """Refuse a damaged header; return the metadata in it."""
    num_bytes_left = path.stat().st_size - 8
    with path.open("rb") as stream:
        (num_bytes,) = struct.unpack("<Q", stream.read(8).ljust(8, b"\xff"))
        if num_bytes > num_bytes_left:
            raise damaged(path, f"its header should have {num_bytes:,} bytes and is truncated")
        if num_bytes > _MAX_HEADER_BYTES:
            raise damaged(path, f"its header is too large: {num_bytes:,} bytes")
        header = json.loads(stream.read(num_bytes).decode(), object_pairs_hook=_each_once)
    if not isinstance(header, dict):
        raise damaged(path, "its header is not a JSON object")
    metadata = header.pop("__metadata__", None)
    places = sorted(_place(path, name, entry) for name, entry in header.items())
    end = 0
    for start, stop, name in places:
        if start != end:
            raise damaged(path, f"{quoted(name)} starts at byte {start:,} and not at {end:,}")
        end = stop
    if end != num_bytes_left - num_bytes:
        last = quoted(places[-1][2]) if places else "nothing"
        raise damaged(
            path,
            f"{last} ends at byte {end:,}, but the data ends at {num_bytes_left - num_bytes:,}",
        )
    return metadata


def _place(path: Path, name: str, entry: Any) -> tuple[int, int, str]:
    """Return a tensor's start and end offsets, and its name."""
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(start), int(stop)]}:
            pass
        case _:
            raise damaged(path, f"{quoted(name)} lacks its dtype, shape or offsets")
    if dtype not in _DTYPES:
        raise damaged(path, f"{quoted(name)} has the dtype {quoted(dtype)}")
    if len(shape) > 8 or not all(
        isinstance(side, int) and 0 <= side <= _MAX_BYTES for side in shape
    ):
        raise damaged(path, f"{quoted(name)} has the shape {str(shape)[:60]}")
    if stop - start != math.prod(shape) * _DTYPES[dtype].itemsize:
        raise damaged(
            path, f"{quoted(name)} has {stop - start:,} bytes for the shape {shape} of {dtype}"
        )
    return start, stop, name


def _each_once(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{quoted(twice)} is in its header twice")
    return found

"""Imported weights: read without running any code, and checked against a known network.

Three kinds of file are read: PaddlePaddle's parameters, safetensors, and what torch.save wrote.
All others are refused before they are parsed. Their kind is recognised by content if possible, else
by name.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import stat
import struct
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import torch
from torch import Tensor, nn

from towernet.errors import DataError
from towernet.models.catalogue import outline, require_size
from towernet.models.paddle import read_pdparams, towernet_state_dict
from towernet.models.pickles import instructions
from towernet.words import shown

Value = TypeVar("Value")

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_MAX_BYTES = 2**32  # the largest network of the catalogue, vit_h_14, has 2.5 GB of weights
_MAX_HEADER_BYTES = 5_000_000  # a network of a thousand tensors needs 0.1 MB
_MAX_PICKLE_BYTES = 50_000_000
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and torch.compile

# What a state dict, a training state or a tensor is written with.
_GLOBALS = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(tensor_v2|parameter)"
    r"|torch (\w+Storage|Size|device|float\d+|bfloat16|u?int\d+|bool)"
)

_SAVE = "torch.save(network.state_dict(), 'weights.pt')"
_REFUSED = {
    "pickle": f"a pickle, which can run code; open it where it was made and save with {_SAVE}",
    "old torch": "in torch's format from before version 1.6; save it again with"
    " torch.save(torch.load(FILE, weights_only=True), 'weights.pt')",
    "Lightning": "a Lightning checkpoint; save its weights with"
    " torch.save(torch.load(FILE, weights_only=True)['state_dict'], 'weights.pt')",
    "TorchScript": "a TorchScript archive, which can run code; if you trust it, save with"
    " torch.save(torch.jit.load(FILE).state_dict(), 'weights.pt')",
    "torch.package": f"a torch.package, which can run code; if you trust it, save with {_SAVE}",
    "numpy": "a numpy file, whose arrays may be pickles; name them as the network does and save"
    " with safetensors.numpy.save_file(arrays, 'weights.safetensors')",
    "keras": f"a Keras file; build the network in torch, copy its weights and save with {_SAVE}",
    "tensorflow": f"a TensorFlow file; build the network in torch, copy its weights and save with"
    f" {_SAVE}",
    "onnx": f"an ONNX file, which lacks the names of the weights; save them with {_SAVE} where it"
    " was exported",
    "gguf": "a GGUF file, which contains a language model; give the weights of an image classifier",
    "unknown": f"of an unknown kind; save the weights with {_SAVE}",
}
_READ = {".pdparams": "paddle", ".safetensors": "safetensors"}
_SUFFIXES = {
    ".pkl": "pickle", ".pickle": "pickle", ".joblib": "pickle", ".ckpt": "Lightning",
    ".npy": "numpy", ".npz": "numpy", ".h5": "keras", ".hdf5": "keras", ".keras": "keras",
    ".pb": "tensorflow", ".tflite": "tensorflow", ".onnx": "onnx", ".gguf": "gguf",
}  # fmt: skip
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


def read_foreign(path: Path) -> dict[str, Tensor]:
    """Read the named tensors of an untrusted file.

    Raises:
        DataError: the file cannot be read, is of another kind, is damaged, or contains code.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would block
            raise DataError(f"{path} is not a file; give the file that contains the weights")
        if status.st_size > _MAX_BYTES:
            raise DataError(
                f"{path} has {status.st_size / 1e9:.1f} GB, and the limit is"
                f" {_MAX_BYTES / 1e9:.1f} GB of weights; give those of one network"
            )
        kind = _kind(path)
        if kind in _REFUSED:
            raise DataError(f"{path} is {_REFUSED[kind].replace('FILE', repr(path.name))}")
        if kind == "paddle":
            return towernet_state_dict(read_pdparams(path))
        return _read_safetensors(path) if kind == "safetensors" else _read_torch(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; check the path") from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[str]:
    """Yield a path by file descriptor, since torch and safetensors reject paths not in UTF-8."""
    with path.open("rb") as stream:
        yield f"/dev/fd/{stream.fileno()}"


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in _READ:
        return _READ[suffix]
    with path.open("rb") as stream:
        head = stream.read(32)
    for at, magic, kind in _MAGIC:
        if head[at:].startswith(magic):
            return _SUFFIXES.get(suffix) or _kind_of_zip(path) if kind == "zip" else kind
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


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        _check_header(path)
        with _opened(path) as name, safetensors.safe_open(name, framework="pt") as tensors:
            return {key: tensors.get_tensor(key) for key in tensors.keys()}  # noqa: SIM118
    except DataError:
        raise
    except (RecursionError, ValueError, safetensors.SafetensorError) as error:
        raise _damaged(path, str(error)) from error


def _check_header(path: Path) -> None:
    num_bytes_left = path.stat().st_size - 8
    with path.open("rb") as stream:
        (num_bytes,) = struct.unpack("<Q", stream.read(8).ljust(8, b"\xff"))
        if num_bytes > num_bytes_left:
            raise _damaged(path, f"its header should have {num_bytes:,} bytes and is truncated")
        if num_bytes > _MAX_HEADER_BYTES:
            raise _damaged(path, f"its header is too large: {num_bytes:,} bytes")
        header = json.loads(stream.read(num_bytes).decode(), object_pairs_hook=_each_once)
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a JSON object")
    header.pop("__metadata__", None)
    places = sorted(_place(path, name, entry) for name, entry in header.items())
    end = 0
    for start, stop, name in places:
        if start != end:
            raise _damaged(path, f"{_quoted(name)} starts at byte {start:,} and not at {end:,}")
        end = stop
    if end != num_bytes_left - num_bytes:
        last = _quoted(places[-1][2]) if places else "nothing"
        raise _damaged(
            path,
            f"{last} ends at byte {end:,}, but the data ends at {num_bytes_left - num_bytes:,}",
        )


def _place(path: Path, name: str, entry: Any) -> tuple[int, int, str]:
    """Return a tensor's start and end offsets, and its name."""
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(start), int(stop)]}:
            pass
        case _:
            raise _damaged(path, f"{_quoted(name)} lacks its dtype, shape or offsets")
    if dtype not in _DTYPES:
        raise _damaged(path, f"{_quoted(name)} has the dtype {_quoted(dtype)}")
    if len(shape) > 8 or not all(
        isinstance(side, int) and 0 <= side <= _MAX_BYTES for side in shape
    ):
        raise _damaged(path, f"{_quoted(name)} has the shape {str(shape)[:60]}")
    if stop - start != math.prod(shape) * _DTYPES[dtype].itemsize:
        raise _damaged(
            path, f"{_quoted(name)} has {stop - start:,} bytes for the shape {shape} of {dtype}"
        )
    return start, stop, name


def _each_once(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{_quoted(twice)} is in its header twice")
    return found


# What torch.save wrote: a zip of a pickle and the numbers.


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        _check_archive(path)
        with _opened(path) as name, warnings.catch_warnings(action="ignore"):
            # Memory-mapped: a storage that claims more bytes than it has is cut, not overrun.
            found = torch.load(name, map_location="cpu", weights_only=True, mmap=True)
    except DataError:
        raise
    except Exception as error:  # a damaged archive raises many kinds of exceptions
        raise _damaged(path, str(error)) from error
    if not isinstance(found, dict):
        raise _no_weights(path, f"it contains a {type(found).__name__}")
    wrapped = (found[key] for key in _WRAPPERS if isinstance(found.get(key), dict))
    found = next(wrapped, found)
    for name, value in found.items():
        if not isinstance(name, str):
            raise _no_weights(path, f"a name in it is a {type(name).__name__}")
        if (
            type(value) not in (Tensor, nn.Parameter)
            or value.layout != torch.strided
            or value.device.type != "cpu"
            or value.is_quantized
        ):
            raise _no_weights(path, f"{_quoted(name)} is not a plain tensor")
    return found


def _check_archive(path: Path) -> None:
    """Check an archive's pickle before torch reads it.

    torch allows more calls than needed here, and its reader has no limit on the work.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise _damaged(path, "its members are larger than the file")
        if len({member.filename for member in members}) < len(members):
            raise _damaged(path, "two of its members have the same name")
        # Memory-mapped reads would take compressed bytes for numbers, and check no checksums.
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise _damaged(path, "its members are compressed")
        if (bad := archive.testzip()) is not None:
            raise _damaged(path, f"the checksum of {shown(bad)[:80]} is wrong")
        for member in members:
            if not member.filename.endswith("data.pkl"):
                continue
            if member.file_size > _MAX_PICKLE_BYTES:
                raise _damaged(
                    path, f"its list of tensors is too large: {member.file_size:,} bytes"
                )
            for opcode, argument in instructions(archive.read(member)):
                if opcode.name == "GLOBAL" and not _GLOBALS.fullmatch(argument):
                    raise DataError(
                        f"{path} contains code that loading weights does not need"
                        f" ({shown(argument.replace(' ', '.'))[:100]}), so it was not opened;"
                        f" save the weights alone with {_SAVE}"
                    )


# From tensors to a network.


def fit(
    tensors: dict[str, Tensor], name: str, num_classes: int, size_px: int, *, path: Path
) -> dict[str, Tensor]:
    """Return the state of a network from imported tensors.

    Args:
        tensors: From `read_foreign`.
        name: The network, as listed by `towernet models`.
        num_classes: K, the number of classes.
        size_px: Side of its square images.
        path: Where the tensors are from, for the message.

    Raises:
        UnknownNameError: no network has the name.
        ConfigError: the network cannot take images of this size.
        DataError: a tensor is missing, unexpected, has another shape or kind, or is not finite.
    """
    require_size(name, size_px)
    expected = outline(name, num_classes, size_px).state_dict()
    for prefix in _PREFIXES:
        if tensors and all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    state = {}
    for key, wanted in expected.items():
        value = tensors.get(key)
        if value is None and key.endswith("num_batches_tracked"):
            value = torch.zeros((), dtype=wanted.dtype)  # older files lack it, and it is not used
        if value is None:
            num = len(expected.keys() - tensors.keys())
            raise DataError(f"{path} lacks {key} of {name} ({num} missing); {_OTHER_MODEL}")
        if value.shape != wanted.shape:
            raise DataError(
                f"{key} in {path} has the shape {tuple(value.shape)}, but in {name} for"
                f" {num_classes} classes it has {tuple(wanted.shape)}; {_OTHER_MODEL} and a class"
                " name for each output"
            )
        if value.is_floating_point() != wanted.is_floating_point() or value.is_complex():
            raise DataError(
                f"{key} in {path} has {value.dtype}, but {name} needs {wanted.dtype};"
                f" {_OTHER_MODEL}"
            )
        state[key] = value.detach().to(wanted.dtype, copy=True).contiguous()
        if not state[key].isfinite().all():
            raise DataError(
                f"{key} in {path} contains NaN or Inf; give weights saved before training failed"
            )
    if unknown := sorted(tensors.keys() - expected.keys()):
        raise DataError(
            f"{path} contains {_quoted(unknown[0])}, which is not in {name} ({len(unknown)}"
            f" unknown); {_OTHER_MODEL}"
        )
    return state


_OTHER_MODEL = "give the --model that these weights belong to"


def _quoted(name: str) -> str:
    return f"'{shown(name)[:80]}'"


def _damaged(path: Path, found: str) -> DataError:
    first = next(iter(found.splitlines()), "")[:120]
    return DataError(f"{path} is damaged ({first}); copy it again, or save it again with {_SAVE}")


def _no_weights(path: Path, found: str) -> DataError:
    return DataError(f"{path} contains no network weights ({found}); save them with {_SAVE}")

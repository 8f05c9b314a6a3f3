"""Files of torch.save: read without importing what they name.

They are a zip of a pickle and the numbers or, before torch 1.6, five pickles and then the numbers;
some of torchvision's weights are still published so.

A training checkpoint holds more than weights: options, optimisers, counters. Objects that only hold
such settings become empty ones here. A file that names any other class is not opened.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from towernet.errors import DataError
from towernet.models.pickles import instructions
from towernet.models.refusals import SAVE, damaged, no_weights, quoted
from towernet.words import shown

Parts = dict[str, dict[str, Tensor]]
"""Named tensors by the keys that lead to them, joined by dots; '' for those of the file itself."""

StandIn = Callable[..., Any] | tuple[Callable[..., Any], str]

_MAX_PICKLE_BYTES = 50_000_000
_MAX_OLD_PICKLES_BYTES = 4_000_000  # a network of a thousand tensors needs 0.2 MB
_MAX_NESTING = 4
# The keys under which programs store a state dict, for the advice on a file that is not opened.
_USUAL_KEYS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params",
)  # fmt: skip
# Under these are no weights of a network, though there may be named tensors.
_OF_TRAINING = re.compile(
    r"(?i).*(optim|sched|scaler|callback|loop|hyper_?param|rng_state).*|opt|args"
)

# What a state dict, a training state or a tensor is written with.
_GLOBALS = re.compile(
    r"collections (OrderedDict|Counter)|_codecs encode"
    r"|torch\._utils _rebuild_(tensor_v2|parameter)"
    r"|torch (\w+Storage|Size|device|float\d+|bfloat16|u?int\d+|bool)"
)
# Settings and numbers, replaced by empty objects. The second are kinds of dictionaries.
_SETTINGS = re.compile(
    r"argparse Namespace|types SimpleNamespace|pathlib(\._local)? \w*Path|datetime \w+|typing \w+"
    r"|numpy (dtype|ndarray|bool_?|float\d+|u?int\d+)|numpy\.dtypes \w+"
    r"|numpy\._?core\.multiarray (scalar|_reconstruct)|omegaconf(\.\w+)+ \w+"
    r"|(__builtin__|builtins) (bool|int|float|str|list|tuple|object)"
)
_DICTIONARIES = re.compile(
    r"collections defaultdict|(__builtin__|builtins) dict|easydict EasyDict|yacs\.config CfgNode"
    r"|addict\.addict Dict|box\.box Box|munch Munch|(pytorch_)?lightning[\w.]* AttributeDict"
)
_SLOW_CODINGS = ("punycode", "idna")  # they take the square of the length


class _Settings:
    """Stands for an object of a class that is not imported; keeps nothing of it."""

    def __init__(self, *_: Any) -> None:
        """Take whatever the class took."""

    def __setstate__(self, state: Any) -> None:
        """Drop the state."""


class _Dictionary:
    """Stands for a class of dictionaries; makes plain ones."""

    def __new__(cls, *_: Any) -> Any:
        """Return an empty dictionary, which the file then fills."""
        return {}


@contextlib.contextmanager
def opened(path: Path) -> Iterator[str]:
    """Yield a path by file descriptor, since torch and safetensors reject paths not in UTF-8."""
    with path.open("rb") as stream:
        yield f"/dev/fd/{stream.fileno()}"


def read_torch(path: Path, *, is_archive: bool = True) -> Parts:
    """Read all dictionaries of named tensors in a file of torch.save.

    Args:
        path: The file.
        is_archive: Whether it is a zip.

    Raises:
        DataError: it is damaged, contains code, or no named tensors.
    """
    try:
        stand_ins = _check_archive(path) if is_archive else _check_old(path)
        with (
            opened(path) as name,
            warnings.catch_warnings(action="ignore"),
            torch.serialization.safe_globals(stand_ins),
        ):
            # Memory-mapped: a storage that claims more bytes than it has is cut, not overrun. In
            # the old format torch compares the number of bytes with what it reads.
            found = torch.load(name, map_location="cpu", weights_only=True, mmap=is_archive)
    except DataError:
        raise
    except Exception as error:  # a damaged archive raises many kinds of exceptions
        raise damaged(path, str(error)) from error
    if not isinstance(found, dict):
        raise no_weights(path, f"it contains a {type(found).__name__}")
    parts = dict(_parts(path, found, ()))
    if not parts:
        raise no_weights(path, _instead(found))
    return parts


def _parts(
    path: Path, found: dict[Any, Any], keys: tuple[str, ...]
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the named tensors of a dictionary, then those of the dictionaries in it."""
    named = {}
    for name, value in found.items():
        if isinstance(name, str) and isinstance(value, Tensor):
            if (
                type(value) not in (Tensor, nn.Parameter)
                or value.layout != torch.strided
                or value.device.type != "cpu"
                or value.is_quantized
                # Repeated by strides of 0, a few bytes would become gigabytes when copied.
                or value.numel() * value.itemsize > value.untyped_storage().nbytes()
            ):
                raise no_weights(path, f"{quoted(name)} is not a plain tensor")
            named[name] = value
    if named:
        yield ".".join(keys), named
    for key, value in found.items():
        if (
            isinstance(key, str)
            and isinstance(value, dict)
            and len(keys) < _MAX_NESTING
            and not _OF_TRAINING.fullmatch(key)
        ):
            yield from _parts(path, value, (*keys, key))


def _instead(found: dict[Any, Any]) -> str:
    for name in found:
        if not isinstance(name, str):
            return f"a name in it is a {type(name).__name__}"
    return f"{quoted(next(iter(found)))} is not a plain tensor" if found else "it is empty"


def _check_archive(path: Path) -> list[StandIn]:
    """Check an archive's pickle before torch reads it; return stand-ins for the classes it names.

    torch allows more calls than needed here, and its reader has no limit on the work.
    """
    stand_ins: list[StandIn] = []
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise damaged(path, "its members are larger than the file")
        if len({member.filename for member in members}) < len(members):
            raise damaged(path, "two of its members have the same name")
        # Memory-mapped reads would take compressed bytes for numbers, and check no checksums.
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise DataError(
                f"{path} has compressed members, which torch.save never writes; save the weights"
                f" again with {SAVE}"
            )
        if (bad := archive.testzip()) is not None:
            raise damaged(path, f"the checksum of {shown(bad)[:80]} is wrong")
        for member in members:
            if not member.filename.endswith("data.pkl"):
                continue
            if member.file_size > _MAX_PICKLE_BYTES:
                raise DataError(
                    f"{path} has a list of tensors of {member.file_size:,} bytes, and the limit is"
                    f" {_MAX_PICKLE_BYTES:,}; save the weights alone with {SAVE}"
                )
            stand_ins += _check_pickle(path, archive.read(member))
    return stand_ins


def _check_old(path: Path) -> list[StandIn]:
    """Check the pickles at the start of a file in the format from before torch 1.6."""
    with path.open("rb") as stream:
        pickles = io.BytesIO(stream.read(_MAX_OLD_PICKLES_BYTES))
    # A number for the format, its version, facts about the machine, the tensors, their storages.
    return [stand_in for _ in range(5) for stand_in in _check_pickle(path, pickles)]


def _check_pickle(path: Path, content: bytes | io.BytesIO) -> list[StandIn]:
    named: dict[str, Any] = {}
    encodes, slow, key = False, "", None
    for opcode, argument in instructions(content):
        if opcode.name == "GLOBAL":
            if _SETTINGS.fullmatch(argument):
                named[argument] = _Settings
            elif _DICTIONARIES.fullmatch(argument):
                named[argument] = _Dictionary
            elif not _GLOBALS.fullmatch(argument):
                raise _contains_code(path, argument, key)
            encodes |= argument == "_codecs encode"
        elif isinstance(argument, str) and len(argument) < 32:
            key = key or (argument if argument in _USUAL_KEYS else None)
            slow = slow or (argument if _plain(argument) in _SLOW_CODINGS else "")
    if encodes and slow:
        raise damaged(path, f"bytes in it are encoded as {slow}")
    return [
        (stand_in, name.replace("__builtin__", "builtins").replace(" ", "."))
        for name, stand_in in named.items()
    ]


def _plain(coding: str) -> str:
    return re.sub("[^a-z]", "", coding.lower())


def _contains_code(path: Path, name: str, key: str | None) -> DataError:
    loaded = f"torch.load({path.name!r}, weights_only=False){f'[{key!r}]' if key else ''}"
    remedy = f"save the weights alone with {SAVE}"
    if re.match(r"torch\.nn\.modules\.|\w[\w.]* .*(Model|Net|Module)\w*$", name):
        remedy = (
            "it is a whole network: if you trust it, save its weights alone where it was made with"
            f" torch.save({loaded}.state_dict(), 'weights.pt')"
        )
    elif key:
        remedy = f"if you trust it, save its weights alone with torch.save({loaded}, 'weights.pt')"
    return DataError(
        f"{path} contains code that loading weights does not need"
        f" ({shown(name.replace(' ', '.'))[:100]}), so it was not opened; {remedy}"
    )

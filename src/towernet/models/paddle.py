"""PaddlePaddle's parameter files and initial weights, without PaddlePaddle.

A .pdparams file is a pickle, which can run code. Only the few instructions that a dictionary of
numpy arrays needs are allowed, and no name in it is imported: each is replaced by a harmless
stand-in, and the arrays are made from the plain bytes afterwards.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from towernet import rng
from towernet.errors import DataError
from towernet.models.blocks import start_as_paddle
from towernet.models.pickles import instructions

Array = npt.NDArray[np.float32]

_MAX_BYTES = 2**30  # vgg19 has 0.56 GB of weights
# What a dictionary of arrays consists of, in protocols 2 to 4; nothing that builds objects.
# fmt: off
_OPCODES = frozenset({
    "PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BINFLOAT", "BININT",
    "BININT1", "BININT2", "LONG1", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES",
    "SHORT_BINBYTES", "BINBYTES8", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1",
    "TUPLE2", "TUPLE3", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "GLOBAL", "STACK_GLOBAL",
    "REDUCE", "BUILD", "MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET",
})
# fmt: on
_NAME_TABLE = "StructuredToParameterName@@"
_SPLIT_TABLE = "UnpackBigParamInfor@@"


def paddle_initial_weights(model: nn.Module, seed: int) -> None:
    """Give any network PaddlePaddle's initial weights, in place: see `blocks.start_as_paddle`."""
    start_as_paddle(model, torch.Generator().manual_seed(rng.derive(seed, "initial weights")))


def read_pdparams(path: Path) -> dict[str, Array]:
    """Read the arrays of a .pdparams file by their structured names, as float32.

    Raises:
        DataError: the file cannot be read, is too large, is of another kind, or contains code.
    """
    try:
        num_bytes = path.stat().st_size
        if num_bytes > _MAX_BYTES:
            raise DataError(
                f"{path} has {num_bytes / 1e9:.1f} GB, and the limit is {_MAX_BYTES / 1e9:.1f} GB"
                " of parameters; give those of one network"
            )
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; check the path") from error
    found = _unpickle(content, path)
    # Arrays may share their bytes; each would get its own copy.
    total = sum(len(value.content) for value in found.values() if isinstance(value, _Array))
    if total > _MAX_BYTES:
        raise _not_parameters(path, f"its arrays are too large: {total / 1e9:.1f} GB")
    found = _join_parts(found, path)
    found.pop(_NAME_TABLE, None)
    arrays = {}
    for name, value in found.items():
        if not isinstance(name, str):
            raise _not_parameters(path, f"a name in it is a {type(name).__name__.strip('_')}")
        if not isinstance(value, _Array):
            raise _not_parameters(path, f"{name!r:.60} is a {type(value).__name__.strip('_')}")
        arrays[name] = value.to_numpy(path, name)
    return arrays


def _unpickle(content: bytes, path: Path) -> dict[Any, Any]:
    try:
        for opcode, _ in instructions(content):
            if opcode.name not in _OPCODES:
                raise _hostile(path, f"the pickle instruction {opcode.name}")
        found = _Unpickler(io.BytesIO(content), path).load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle raises many kinds of exceptions
        raise _not_parameters(path, str(error)[:80] or type(error).__name__) from error
    if not isinstance(found, dict):
        raise _not_parameters(path, f"it contains a {type(found).__name__.strip('_')}")
    return found


def _join_parts(found: dict[Any, Any], path: Path) -> dict[Any, Any]:
    """Join the arrays that protocols 2 and 3 split into parts below 1 GiB."""
    table = found.pop(_SPLIT_TABLE, {})
    try:
        for name, entry in table.items():
            parts = [found.pop(part) for part in entry["slices"]]
            found[name] = parts[0].joined(parts[1:], entry["OriginShape"])
    except Exception as error:  # the table can be any object
        raise _not_parameters(path, f"its table of parts is damaged, {error!r:.60}") from error
    return found


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, path: Path) -> None:
        super().__init__(stream)
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        """Return the harmless stand-in for one of the names in pickled arrays."""
        make = _STAND_INS.get((module.replace("numpy._core", "numpy.core"), name))
        if make is None:
            raise _hostile(self.path, f"{module}.{name}"[:100])
        return _Callable(make)


class _Callable:
    """The stand-in for a name in the file; a new one each time, so changes to it have no effect."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a name is given a state")


class _Dtype:
    """Stand-in for numpy.dtype, as pickled for numbers."""

    __slots__ = ("code",)

    def __init__(self, code: str, _align: object = False, _copy: object = False) -> None:
        if not isinstance(code, str) or len(code) > 8:
            raise pickle.UnpicklingError("a dtype is damaged")
        self.code = code

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 8 or state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("a dtype is damaged")
        self.code = state[1] + self.code.lstrip("<>|=")


class _Array:
    """Stand-in for numpy.ndarray: the plain bytes, shape, dtype and order."""

    __slots__ = ("content", "dtype", "fortran", "shape")

    def __init__(self, *_: object) -> None:
        self.shape: tuple[int, ...] = (0,)
        self.dtype, self.fortran, self.content = "f4", False, b""

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        if not (
            isinstance(shape, tuple)
            and all(isinstance(length, int) and length >= 0 for length in shape)
            and isinstance(dtype, _Dtype)
            and isinstance(fortran, bool)
            and isinstance(content, bytes)
        ):
            raise pickle.UnpicklingError("an array is damaged")
        self.shape, self.dtype, self.fortran, self.content = shape, dtype.code, fortran, content

    def joined(self, others: list[_Array], shape: Any) -> _Array:
        """Return one array of this shape from this one's content followed by the others'."""
        whole = _Array()
        kind = _Dtype(self.dtype)
        content = b"".join(part.content for part in [self, *others])
        whole.__setstate__((1, tuple(shape), kind, False, content))
        return whole

    def to_numpy(self, path: Path, name: str) -> Array:
        """Return the numbers as float32.

        Raises:
            DataError: they are not floating-point numbers, or their count does not fit the shape.
        """
        if self.dtype.lstrip("<>=|") not in ("f2", "f4", "f8"):
            raise DataError(
                f"{path}: {name} has numbers of type {self.dtype!r:.20};"
                " save the network as float32"
            )
        dtype = np.dtype(self.dtype)
        if (
            len(self.shape) > 8
            or max(self.shape, default=0) > _MAX_BYTES
            or len(self.content) != math.prod(self.shape) * dtype.itemsize
        ):
            raise _not_parameters(
                path, f"{name} has {len(self.content)} bytes for the shape {self.shape!r:.60}"
            )
        order = "F" if self.fortran else "C"
        array = np.frombuffer(self.content, dtype).reshape(self.shape, order=order)  # type: ignore[call-overload]
        return np.ascontiguousarray(array, dtype=np.float32).reshape(self.shape)


def _latin_1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes are encoded as {encoding!r:.20}")
    return text.encode("latin-1")


def _empty_bytes() -> bytes:
    return b""


def _array_type() -> None:
    raise pickle.UnpicklingError("numpy.ndarray is called")


_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _array_type,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _latin_1,  # protocol 2 writes bytes as text,
    ("__builtin__", "bytes"): _empty_bytes,  # and no bytes as a call
}


def _hostile(path: Path, what: str) -> DataError:
    return DataError(
        f"{path} contains code that loading weights does not need ({what}), so it was not opened;"
        " save the parameters again with paddle.save(network.state_dict(), …)"
    )


def _not_parameters(path: Path, found: str) -> DataError:
    return DataError(
        f"{path} contains no network parameters ({found});"
        " save them with paddle.save(network.state_dict(), …)"
    )


# The modules by the notebook's name and by TowerNet's.
_MODULES = {
    **{f"b{stage}.0.0": f"stage_{stage}.conv" for stage in (1, 2, 3, 4)},
    **{f"b{stage}.0.1": f"stage_{stage}.norm" for stage in (1, 2, 3, 4)},
    **{"b3.2": "attention_3", "b4.2": "attention_4", "b5.2": "attention_5", "b5.5": "attention_6"},
    **{
        f"b5.{index}.{in_notebook}": f"{block}.{name}"
        for index, block in ((0, "inception_5"), (3, "inception_6"), (6, "inception_7"))
        for in_notebook, name in (
            ("conv1", "shortcut"),
            ("b5.0.route1x1_1", "branch_1"),
            ("b5.0.route1x1_2", "branch_3_reduce"),
            ("b5.0.route3x3_2", "branch_3"),
            ("b5.0.route1x1_3", "branch_5_reduce"),
            ("b5.0.route5x5_3", "branch_5"),
            ("b5.0.route1x1_4", "branch_pool"),
        )
    },
    "b6": "head",
}
_PARAMETERS = {
    "_mean": "running_mean",
    "_variance": "running_var",
    "cweight": "channel_weight",
    "cbias": "channel_bias",
    "sweight": "spatial_weight",
    "sbias": "spatial_bias",
    "gn.weight": "norm_weight",
    "gn.bias": "norm_bias",
}


def towernet_state_dict(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, Tensor]:
    """Return the state of a TowerNet from the notebook's arrays.

    Raises:
        DataError: an array is missing, unexpected, has another shape, or is not finite.
    """
    from towernet.models.towernet import TowerNet

    if "b6.bias" not in arrays or arrays["b6.bias"].ndim != 1 or not arrays["b6.bias"].size:
        raise DataError(
            "these are not TowerNet's parameters: b6.bias, one number per class, is missing;"
            " give the file that the notebook saved"
        )
    with torch.device("meta"):
        expected = TowerNet(arrays["b6.bias"].size).state_dict()
    state: dict[str, Tensor] = {}
    for in_notebook, name in _names():
        if in_notebook not in arrays:
            raise DataError(
                f"the parameters lack {in_notebook}; give the file that the notebook saved"
            )
        array = arrays[in_notebook]
        shape = _paddle_shape(in_notebook, tuple(expected[name].shape))
        if array.shape != shape:
            raise DataError(
                f"{in_notebook} has the shape {array.shape} and TowerNet's is {shape};"
                " give the file that the notebook saved"
            )
        if not np.isfinite(array).all():
            raise DataError(f"{in_notebook} contains NaN or Inf; give a file saved before that")
        array = array.T if in_notebook == "b6.weight" else array  # Paddle's linear is [in, out]
        state[name] = torch.tensor(array, dtype=torch.float32).reshape(expected[name].shape)
    if unknown := sorted(set(arrays) - {in_notebook for in_notebook, _ in _names()}):
        raise DataError(
            f"the parameters contain {unknown[0]!r}, which is not in TowerNet"
            f" ({len(unknown)} unknown); give the file that the notebook saved"
        )
    for name, value in expected.items():
        if name.endswith("num_batches_tracked"):  # torch only; not used with a fixed momentum
            state[name] = torch.zeros((), dtype=value.dtype)
    assert state.keys() == expected.keys()
    return state


def _names() -> list[tuple[str, str]]:
    """Return each array's name in the notebook and in TowerNet."""
    pairs = []
    for in_notebook, module in _MODULES.items():
        names = ["weight", "bias"]
        if module.startswith("attention"):
            names = ["cweight", "cbias", "sweight", "sbias", "gn.weight", "gn.bias"]
        elif module.endswith("norm"):
            names += ["_mean", "_variance"]
        pairs += [
            (f"{in_notebook}.{name}", f"{module}.{_PARAMETERS.get(name, name)}") for name in names
        ]
    return pairs


def _paddle_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if name == "b6.weight":
        return shape[::-1]
    return (1, *shape, 1, 1) if name.endswith(("cweight", "cbias", "sweight", "sbias")) else shape

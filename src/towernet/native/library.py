"""The kernels' shared library: compiled once for this processor, kept in the cache, loaded.

It uses the threads torch has already started (a second pool would wait, spinning, for the cores of
the first), so it is linked against no OpenMP of its own and needs one that speaks GNU's names.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from towernet import files
from towernet.errors import EnvironmentFault

_SOURCES = tuple(sorted(Path(__file__).parent.glob("*.[chi]*")))
_FLAGS = ("-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-fPIC",
          "-Wno-psabi")  # fmt: skip
_COMPILERS = ("cc", "gcc", "clang")
_TIMEOUT_S = 120


@dataclass(frozen=True)
class Library:
    """The loaded kernels.

    Args:
        functions: The C functions, by attribute.
        identity: What their bits depend on: a hash of sources, compiler, flags and processor.
    """

    functions: ctypes.CDLL
    identity: str


@dataclass(frozen=True)
class Missing:
    """Why there are no kernels here, in words that end a sentence."""

    reason: str


@functools.cache
def load() -> Library | Missing:
    """Return the kernels, compiled first if this machine has not done so, or why there are none."""
    if not hasattr(ctypes.CDLL(None), "GOMP_parallel"):
        return Missing("torch was built with another OpenMP than GNU's")
    compiler = _compiler()
    if compiler is None:
        return Missing("no C compiler was found (install gcc)")
    try:
        identity = _identity(compiler)
        folder = files.cache_folder() / "native"
        path = folder / f"{identity}.so"
        if not path.exists():
            with files.lock(folder / "lock", holder=str(folder), wait=True):
                if not path.exists():
                    _compile(compiler, path)
        functions = ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError, EnvironmentFault) as error:
        return Missing(f"the kernels could not be compiled ({_in_short(error)})")
    functions.num_blocks.restype = ctypes.c_int64
    return Library(functions, identity)


def _compiler() -> str | None:
    names = (os.environ["CC"],) if os.environ.get("CC") else _COMPILERS
    return next((path for name in names if (path := shutil.which(name))), None)


def _identity(compiler: str) -> str:
    """Hash what decides the machine code: the same hash, the same bits."""
    target = _run([compiler, "-march=native", "-E", "-v", "-x", "c", os.devnull])
    made_from = hashlib.sha256(" ".join(_FLAGS).encode() + target.encode())
    for source in _SOURCES:
        made_from.update(source.read_bytes())
    return made_from.hexdigest()[:16]


def _compile(compiler: str, path: Path) -> None:
    """Compile without linking first: what is linked with -fopenmp brings a pool of its own."""
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        folder = Path(name)
        programs = [source for source in _SOURCES if source.suffix == ".c"]
        objects = [folder / f"{source.stem}.o" for source in programs]
        for source, target in zip(programs, objects, strict=True):
            _run([compiler, *_FLAGS, "-c", str(source), "-o", str(target)])
        _run([compiler, "-shared", *map(str, objects), "-o", str(folder / "kernels.so")])
        files.write_bytes(path, (folder / "kernels.so").read_bytes())


def _run(words: list[str]) -> str:
    """Run the compiler in its own language; return what it printed."""
    done = subprocess.run(
        words, capture_output=True, text=True, check=True, timeout=_TIMEOUT_S,
        stdin=subprocess.DEVNULL, env=os.environ | {"LC_ALL": "C"},
    )  # fmt: skip
    return done.stdout + done.stderr


def _in_short(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = [line for line in str(error.stderr).splitlines() if "error" in line]
        return (lines or ["it ended in an error"])[0][:160]
    return str(error)[:160]


assert torch  # its OpenMP must be in the process before `load` looks for it

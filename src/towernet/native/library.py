"""The kernels' shared library: compiled once for this processor, kept in the cache, loaded.

It uses the threads torch has already started (a second pool would spin, waiting for the cores of
the first), so it is not linked against its own OpenMP, and torch's must have GNU's function names.
The library is a program, so the cache's folder must be writable for this user only.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shlex
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
# clang uses function names of another OpenMP, which GNU's lacks, so gcc is tried first.
_COMPILERS = ("gcc", "cc", "clang")
_TIMEOUT_S = 120
_UNFINISHED = ".compiling-"


@dataclass(frozen=True)
class Library:
    """The loaded kernels.

    Args:
        functions: The C functions, as attributes.
        identity: What their bits depend on: a hash of sources, flags, compiler and processor.
    """

    functions: ctypes.CDLL
    identity: str


@dataclass(frozen=True)
class Missing:
    """Why there are no kernels here; the reason can end a sentence."""

    reason: str


@functools.cache
def load() -> Library | Missing:
    """Return the kernels, compiled first if necessary, or why there are none."""
    if not hasattr(ctypes.CDLL(None), "GOMP_parallel"):
        return Missing("torch was not built with GNU's OpenMP")
    wanted = [shlex.split(os.environ["CC"])] if os.environ.get("CC") else [[n] for n in _COMPILERS]
    compilers = [words for words in wanted if words and shutil.which(words[0])]
    if not compilers:
        named = f"CC is {os.environ['CC']}" if os.environ.get("CC") else "install gcc"
        return Missing(f"no C compiler was found ({named})")
    missing = Missing("")
    for compiler in compilers:
        found = _load_with(compiler)
        if isinstance(found, Library):
            return found
        missing = missing if missing.reason else found  # the first compiler's reason
    return missing


def _load_with(compiler: list[str]) -> Library | Missing:
    try:
        identity = _identity(compiler)
        folder = files.cache_folder() / "native"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / f"{identity}.so"
        if not path.exists():
            with files.lock(folder / "lock", holder=str(folder), wait=True):
                if not path.exists():
                    _compile(compiler, path)
        if not (_only_we_write(folder) and _only_we_write(path)):
            return Missing(
                f"other users can write to {folder}, and the code in it would be run; set"
                " TOWERNET_CACHE to a folder that only you can write to"
            )
    except (OSError, subprocess.SubprocessError, EnvironmentFault) as error:
        return Missing(f"the kernels could not be compiled ({_in_short(error)})")
    try:
        functions = ctypes.CDLL(str(path))
    except OSError as error:
        path.unlink(missing_ok=True)  # damaged, or for other libraries: recompiled next time
        return Missing(f"the kernels could not be loaded ({_in_short(error)})")
    functions.num_blocks.restype = ctypes.c_int64
    return Library(functions, identity)


def _only_we_write(path: Path) -> bool:
    status = path.stat()
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _identity(compiler: list[str]) -> str:
    """Hash what determines the machine code: the same hash, the same bits."""
    # A compiler's predefined macros include its version and the processor's instructions.
    macros = _run([*compiler, *_FLAGS, "-dM", "-E", "-x", "c", os.devnull])
    made_from = hashlib.sha256(" ".join(_FLAGS).encode() + macros.encode())
    for source in _SOURCES:
        made_from.update(source.read_bytes())
    return made_from.hexdigest()[:16]


def _compile(compiler: list[str], path: Path) -> None:
    """Compile, then link without -fopenmp, which would bring a second thread pool."""
    for leftover in path.parent.glob(f"{_UNFINISHED}*"):  # of killed processes; we hold the lock
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=_UNFINISHED) as name:
        folder = Path(name)
        programs = [source for source in _SOURCES if source.suffix == ".c"]
        objects = [folder / f"{source.stem}.o" for source in programs]
        for source, target in zip(programs, objects, strict=True):
            _run([*compiler, *_FLAGS, "-c", str(source), "-o", str(target)])
        made = folder / "kernels.so"
        _run([*compiler, "-shared", *map(str, objects), "-o", str(made)])
        files.write_bytes(path, made.read_bytes())
        path.chmod(0o600)


def _run(words: list[str]) -> str:
    """Run the compiler with messages in English; return what it printed."""
    done = subprocess.run(
        words, capture_output=True, check=True, timeout=_TIMEOUT_S, stdin=subprocess.DEVNULL,
        encoding="utf-8", errors="replace", env=os.environ | {"LC_ALL": "C"},
    )  # fmt: skip
    return done.stdout + done.stderr


def _in_short(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = [line for line in str(error.stderr).splitlines() if "error" in line]
        return (lines or ["it ended with an error"])[0][:160]
    return str(error)[:160]


assert torch  # its OpenMP must be loaded before `load` looks for it

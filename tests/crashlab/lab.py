"""Trials of the real command under real faults: killed at an instant, refused by the disk.

`Lab` starts `server.py` with `interpose.c` preloaded; each trial is a fork of it that runs one
command. The files that a trial leaves are then checked from outside.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
EXACT_FILES = (
    "best.safetensors",
    "metrics.jsonl",
    "predictions.parquet",
    "samples.parquet",
)


class Ended(NamedTuple):
    """How a command ended; a negative exit code is the signal that ended it."""

    exit_code: int
    seconds: float
    stdout: str
    stderr: str


def compiler() -> str | None:
    """Return a C compiler, if the machine has one."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


class Lab:
    """A server for trials; `with Lab(folder) as lab: lab.run(words, out)`.

    Args:
        folder: Where the library is built; its `cache` is the commands' cache.
    """

    def __init__(self, folder: Path) -> None:
        library = folder / "libinterpose.so"
        cc = compiler()
        assert cc, "no C compiler; install gcc"
        subprocess.run(
            [cc, "-shared", "-fPIC", "-O2", "-o", library, HERE / "interpose.c"], check=True
        )
        # One thread each, so that parallel trials do not compete for the cores.
        environment = os.environ | {
            "LD_PRELOAD": str(library),
            "OMP_NUM_THREADS": "1",
            "TOWERNET_CACHE": str(folder / "cache"),
        }
        self.process = subprocess.Popen(
            [sys.executable, HERE / "server.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.kill()
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def run(
        self,
        words: list[str],
        watched: Path,
        *,
        action: str = "count",
        nth: int = 0,
        after_s: float | None = None,
        log: Path | None = None,
        memory_mb: int | None = None,
        seconds_between_saves: float | None = 0.0,
    ) -> Ended:
        """Run a command to its end, or to the fault.

        Args:
            words: The words after `towernet`.
            watched: The folder whose file operations count.
            action: "count", "kill", "fail once", or "fail ever": a full disk from then on.
            nth: The operation that the action hits, from 1.
            after_s: Kill it after this many seconds instead.
            log: The file in which each operation is logged.
            memory_mb: How much memory the command can take.
            seconds_between_saves: The trainer's; 0: a state after every step, so that faults hit
                states; None: as users have it, so that short runs write none.
        """
        assert self.process.stdin and self.process.stdout
        trial = {
            "words": words,
            "out": str(watched),
            "action": action,
            "nth": nth,
            "after_s": after_s,
            "log": log and str(log),
            "memory_mb": memory_mb,
            "seconds_between_saves": seconds_between_saves,
        }
        self.process.stdin.write(json.dumps(trial) + "\n")
        self.process.stdin.flush()
        return Ended(**json.loads(self.process.stdout.readline()))


def operations(log: Path) -> list[tuple[int, str, str]]:
    """Return the number, kind and path of every operation in a log, without random names."""
    found = []
    for line in log.read_text().splitlines():
        number, kind, path = line.split(" ", 2)
        found.append((int(number), kind, re.sub(r"\.towernet-\w+\.tmp", ".tmp", path)))
    return found


def exact(folder: Path) -> dict[str, Any]:
    """Return what must be the same to the byte in a run, or a comparison and all its runs."""
    found: dict[str, Any] = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for name in EXACT_FILES
        for path in folder.rglob(name)
    }
    results = json.loads((folder / "results.json").read_text())
    return found | {"results": results["results"]}


def files_in(folder: Path) -> set[str]:
    """Return the names of all files, without the times in TensorBoard's names."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    return {re.sub(r"events\.out.*", "events", name) for name in names}


def policy(folder: Path) -> str:
    """Return what the self-test chose, which depends on timing: number format, layout, kernels."""
    for path in (*folder.glob("run.json"), *folder.glob("runs/*/run.json")):
        chosen = json.loads(path.read_text())["plan"]["policy"]
        return json.dumps({key: chosen[key] for key in sorted(chosen) if key != "reason"})
    return ""


def epochs_done(folder: Path) -> dict[str, int]:
    """Return the step of the last recorded epoch of each run, by the run's folder name."""
    done = {}
    for path in (*folder.glob("metrics.jsonl"), *folder.glob("runs/*/metrics.jsonl")):
        done[path.parent.name] = json.loads(path.read_text().splitlines()[-1])["step"]
    return done


def went_on_from(ended: Ended) -> dict[str, int]:
    """Return the step from which each run reports that it continues."""
    return {
        name: int(step)
        for name, step in re.findall(r"^(\S+) resumes after step (\d+)$", ended.stderr, re.M)
    }

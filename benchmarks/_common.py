"""Shared by the benchmarks: the image sets' folder, and writing results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
from pydantic_core import to_jsonable_python

from towernet import files

RESULTS = Path(__file__).parent / "results"


def data_set(name: str) -> Path:
    """Return an image set's path; exit with a message if there is none."""
    folder = os.environ.get("TOWERNET_DATA")
    if not folder:
        sys.exit("error: TOWERNET_DATA is not set; set it to the folder of the image sets")
    path = Path(folder) / name
    if not path.exists():
        sys.exit(f"error: {name} is not in the folder given by TOWERNET_DATA; copy it there")
    return path


def commit() -> str:
    """Return the measured commit, with `-dirty` if files other than its results differ."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=RESULTS, capture_output=True, text=True, check=False
        ).stdout.strip()

    differs = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":!.")
    return git("describe", "--always") + ("-dirty" if differs else "")


def own_bytes(process: psutil.Process) -> int:
    """Return a process tree's memory without mapped files; 0 once it has ended.

    The system can drop mapped pixels.
    """
    try:
        tree = [process, *process.children(recursive=True)]
        memories = [member.memory_info() for member in tree]
    except psutil.NoSuchProcess:
        return 0
    return sum(memory.rss - memory.shared for memory in memories)


def weight_file(name: str) -> Path:
    """Return a file of pre-trained weights, in $TOWERNET_WEIGHTS or in weights/ by the data."""
    folder = os.environ.get("TOWERNET_WEIGHTS") or data_set("").parent / "weights"
    path = Path(folder) / name
    if not path.exists():
        sys.exit(f"error: {name} is not in {folder}; set TOWERNET_WEIGHTS to its folder")
    return path


def write_result(name: str, result: dict[str, Any]) -> None:
    """Write a result, which may contain records, with the commit and the command."""
    result = to_jsonable_python(result)
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    path = RESULTS / f"{name}.json"
    files.write_json(path, result | {"commit": commit(), "command": command, "date": files.now()})
    print(json.dumps(result, indent=2)[:2000])
    print(f"written to benchmarks/results/{path.name}")

"""Check out two commits and run a case with each, optionally interrupted."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from _common import data_set
from towernet import files
from towernet.errors import INTERRUPTED

ROOT = Path(__file__).parent.parent
PACKAGES = (
    "torch", "torchvision", "numpy", "pillow", "scikit-learn", "scipy", "statsmodels", "cleanlab",
)  # fmt: skip
OUT = "out"  # a relative path, so that no result contains the temporary folder's name
SECONDS_OF_TRAINING = 0.3  # before a run is interrupted; a whole run takes several seconds


class CaseFault(Exception):
    """A case did not run as expected; the text gives the command and how it ended."""


@dataclass(frozen=True)
class Case:
    """A command that both commits run.

    Args:
        name: For --only, and the folder of its outputs.
        command: The arguments of `towernet`; an archive is one of the image sets.
        again: The command that finishes it after an interrupt; empty: it is not interrupted.
    """

    name: str
    command: str
    again: str = ""

    @property
    def commands(self) -> list[str]:
        """The commands to run, in order."""
        return [self.command, self.again] if self.again else [self.command]


@dataclass(frozen=True)
class Commit:
    """One of the two commits, checked out.

    Args:
        role: "old" or "new".
        sha: Its full hash.
        tree: Its worktree.
        cache: Its own TOWERNET_CACHE.
        outputs: A folder for each case, with its printed output and the folder `OUT`.
    """

    role: str
    sha: str
    tree: Path
    cache: Path
    outputs: Path

    def environment(self) -> dict[str, str]:
        """Return the environment to run this commit's `python -m towernet` with one thread."""
        return os.environ | {
            "PYTHONPATH": str(self.tree / "src"),
            "TOWERNET_CACHE": str(self.cache),
            "OMP_NUM_THREADS": "1",
        }


@dataclass(frozen=True)
class Ran:
    """How a case was run; written next to its outputs once they are complete."""

    sha: str
    commands: list[str]
    machine: dict[str, str]
    seconds: float
    cpu_seconds: float


def git(*words: object) -> str:
    """Return git's output for this repository; exit with its message if it fails."""
    done = subprocess.run(
        ["git", *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"error: git {words[0]} failed: {done.stderr.strip()}")
    return done.stdout.strip()


@contextlib.contextmanager
def checked_out(role: str, sha: str, folder: Path, keep: Path) -> Iterator[Commit]:
    """Create a worktree of a commit in a temporary folder; remove it at the end."""
    tree = folder / role
    try:
        git("worktree", "add", "--detach", tree, sha)
        commit = Commit(role, sha, tree, folder / f"cache-{role}", keep / f"{role}-{sha[:12]}")
        imported = subprocess.run(
            [sys.executable, "-c", "import towernet; print(towernet.__file__)"],
            cwd=folder, env=commit.environment(), capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        if not Path(imported).resolve().is_relative_to(tree.resolve()):
            sys.exit(f"error: Python imports towernet from {imported}, not from {tree}")
        yield commit
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would leave it behind
        subprocess.run(
            ["git", "worktree", "remove", "--force", str(tree)],
            cwd=ROOT, capture_output=True, check=False,
        )  # fmt: skip


def run(case: Case, commit: Commit, machine: dict[str, str], *, reuse: bool) -> Ran:
    """Run a case with one commit, unless its outputs from an earlier call can be reused.

    Raises:
        CaseFault: a command did not end as expected.
    """
    # Another call of the script may use the same folder.
    lock = commit.outputs / f"{case.name}.lock"
    with files.lock(lock, holder=str(commit.outputs), wait=True):
        return _run(case, commit, machine, reuse)


def _run(case: Case, commit: Commit, machine: dict[str, str], reuse: bool) -> Ran:
    folder = commit.outputs / case.name
    record = folder / "ran.json"
    if reuse and record.exists():
        ran = Ran(**files.read_json(record))
        if (ran.sha, ran.commands, ran.machine) == (commit.sha, case.commands, machine):
            print(f"{case.name}: reusing the {commit.role} commit's outputs", file=sys.stderr)
            return ran
    print(f"{case.name}: running the {commit.role} commit", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    start, cpu_start = time.perf_counter(), cpu_seconds()
    if case.again:
        interrupt(case.command, commit, folder)
    finish(case.commands[-1], commit, folder)
    seconds = round(time.perf_counter() - start, 1)
    ran = Ran(commit.sha, case.commands, machine, seconds, round(cpu_seconds() - cpu_start, 1))
    files.write_json(record, asdict(ran))
    return ran


def cpu_seconds() -> float:
    """Return the CPU time of all finished child processes, hardly affected by other load."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextlib.contextmanager
def started(command: str, commit: Commit, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command in its own session: Ctrl-C reaches only this script, which stops it."""
    words = [str(data_set(word)) if word.endswith(".zip") else word for word in command.split()]
    with (folder / "stdout.txt").open("ab") as out, (folder / "stderr.txt").open("ab") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "towernet", *words],
            cwd=folder, env=commit.environment(), start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=out, stderr=err,
        )  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def finish(command: str, commit: Commit, folder: Path) -> None:
    """Run a command to its end.

    Raises:
        CaseFault: it failed.
    """
    with started(command, commit, folder) as process:
        exit_code = process.wait()
    if exit_code:
        raise CaseFault(ended(command, commit, folder, exit_code))


def interrupt(command: str, commit: Commit, folder: Path) -> None:
    """Start a command, and interrupt it within the only epoch of a run.

    Raises:
        CaseFault: it ended too early, or left no state of a step within the epoch.
    """
    with started(command, commit, folder) as process:
        while process.poll() is None and not trains(folder / OUT):
            time.sleep(0.02)
        time.sleep(SECONDS_OF_TRAINING)
        process.send_signal(signal.SIGINT)
        exit_code = process.wait()
    steps = {
        int(state.stem): files.read_json(run / "run.json")["plan"]["num_steps"]
        for run in run_folders(folder / OUT)
        for state in run.glob("last/*.json")
    }
    if exit_code != INTERRUPTED or not any(0 < step < last for step, last in steps.items()):
        words = ended(command, commit, folder, exit_code)
        raise CaseFault(f"not interrupted in the middle of training: {words}")
    print(f"interrupted after steps {steps}", file=sys.stderr)


def run_folders(out: Path) -> list[Path]:
    """Return the folders of runs, without trials, which are too short to be interrupted."""
    return [out, *out.glob("runs/*")]


def trains(out: Path) -> bool:
    """Whether a run trains: its TensorBoard file is created right before."""
    return any(next(run.glob("tensorboard/*"), None) is not None for run in run_folders(out))


def ended(command: str, commit: Commit, folder: Path, exit_code: int) -> str:
    """Return how a command ended, in words."""
    lines = (folder / "stderr.txt").read_text(errors="replace").strip().splitlines()
    last = f": {lines[-1]}" if lines else ""
    return f"the {commit.role} commit's `towernet {command}` ended with {exit_code}{last}"


def this_machine() -> dict[str, str]:
    """Return what the bits depend on besides the commit, as far as it is known here."""
    cpu: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            cpu.setdefault(key.strip(), value.strip())
    return {
        "processor": cpu.get("model name") or platform.machine(),
        "instructions": files.digest(sorted(cpu.get("flags", "").split()))[:16],
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }

"""No verb but `weights get` tries to reach another machine: every attempt would be written down."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import towernet

pytestmark = pytest.mark.proof

NETWORK = "mobilenet_v2"
# Python calls it before each such operation, in whatever library; the libraries in C that
# towernet uses open no connections. Sockets within this machine are those of its processes.
HOOK = """
import os, sys

def write_down(event, args):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.connect", "socket.sendto"):
        address = args[1] if event in ("socket.connect", "socket.sendto") else args[0]
        if event.startswith("socket.get") or isinstance(address, tuple):
            with open(os.environ["ATTEMPTS"], "a") as stream:
                stream.write(f"{event} {address}\\n")
            raise OSError("no connection is allowed here")

sys.addaudithook(write_down)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run Python with the hook; return the result and what was attempted."""
    folder = tmp_path_factory.mktemp("hook")
    (folder / "sitecustomize.py").write_text(HOOK)
    attempts = folder / "attempts"

    def run(*words: object) -> tuple[subprocess.CompletedProcess[str], str]:
        attempts.write_text("")
        path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
        done = subprocess.run(
            [sys.executable, *map(str, words)],
            capture_output=True, text=True, check=False,
            env=os.environ | {"PYTHONPATH": path, "ATTEMPTS": str(attempts)},
        )  # fmt: skip
        return done, attempts.read_text()

    return run


@pytest.fixture(scope="module")
def compared(run, photos: Path, weight_files: Path, tmp_path_factory) -> Path:
    """A comparison of the three starts, made without a connection."""
    out = tmp_path_factory.mktemp("compared") / "out"
    done, attempts = run(
        "-m", "towernet", "compare", photos, "--models", NETWORK, "--starts",
        "scratch,frozen,finetuned", "--weights",
        f"{NETWORK}={weight_files / 'mobilenet_v2-b0353104.pth'}", "--epochs", 1, "--size", 64,
        "--out", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert attempts == ""
    return out


VERBS = {
    "check": lambda c: ("check", c.photos),
    "plan": lambda c: (
        "plan", c.photos, "--models", "resnet18,resnet34", "--size", 64, "--hours", 0.1,
    ),
    "train": lambda c: (
        "train", c.photos, "--model", f"{NETWORK}/frozen", "--size", 64, "--weights",
        f"{NETWORK}={c.weights}", "--out", c.folder / "run",
    ),
    "predict": lambda c: ("predict", c.compared, c.picture),
    "evaluate": lambda c: ("evaluate", c.compared, c.photos),
    "explain": lambda c: ("explain", c.attention, c.picture, "--out", c.folder / "map.png"),
    "judge": lambda c: ("judge", c.answers),
    "import-weights": lambda c: (
        "import-weights", c.weights, "--model", NETWORK, "--classes", c.classes, "--out",
        c.folder / "imported",
    ),
    "models": lambda c: ("models",),
    "attention": lambda c: ("attention",),
    "summary": lambda c: ("summary", NETWORK),
    "weights": lambda c: ("weights",),
    "weights of a network": lambda c: ("weights", NETWORK),
    "missing weights": lambda c: ("train", c.photos, "--model", "resnet18/frozen"),
}  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_tries_to_connect(
    verb, run, compared, photos, weight_files, finished_run, tmp_path
):
    case = SimpleNamespace(
        photos=photos, compared=compared, folder=tmp_path, attention=finished_run,
        picture=next(photos.rglob("*.png")),
        weights=weight_files / "mobilenet_v2-b0353104.pth",
        answers=tmp_path / "answers.csv", classes=tmp_path / "classes.txt",
    )  # fmt: skip
    towernet.load(compared).answers().to_csv(case.answers, index=False)
    case.classes.write_text("".join(f"class {number}\n" for number in range(1000)))
    done, attempts = run("-m", "towernet", *VERBS[verb](case))
    assert attempts == ""
    assert "Traceback" not in done.stderr
    wanted = {"missing weights": 3, "explain": 2}  # the run of this test has no attention
    assert done.returncode == wanted.get(verb, 0), done.stderr


def test_the_check_of_connections_sees_an_attempt(run):
    code = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9/')"
    done, attempts = run("-c", code)
    assert done.returncode == 1
    assert "127.0.0.1" in attempts


def test_every_verb_is_tried(run):
    done, _ = run("-m", "towernet", "--help")
    verbs = set(re.findall(r"^│ ([a-z-]+) +[A-Z]", done.stdout, re.MULTILINE))
    assert verbs == {"compare", *(verb for verb in VERBS if " " not in verb)}

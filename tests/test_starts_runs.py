"""Runs with pre-trained weights that are killed, resumed and used, through the real command."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import run_towernet
from crashlab.lab import exact

NETWORK = "mobilenet_v2"
pytestmark = pytest.mark.proof


@pytest.fixture(scope="module")
def given(weight_files: Path) -> list[object]:
    """The option that names the weights."""
    return ["--weights", f"{NETWORK}={weight_files / 'mobilenet_v2-b0353104.pth'}"]


def start(*words: object, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "towernet", *map(str, words)]
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | environment
    )


@pytest.mark.parametrize("kind", ["finetuned", "frozen"])
def test_a_run_resumes_to_the_same_bytes(kind, photos, given, tmp_path):
    """A fine-tuned run is stopped in the middle, a frozen one killed before its end."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    words = ("--model", f"{NETWORK}/{kind}", "--epochs", 4, "--size", 64, "--batch-size", 8)
    done = run_towernet("train", photos, *words, *given, "--out", whole)
    assert done.returncode == 0, done.stderr
    record = json.loads((whole / "run.json").read_text())
    # The same run from its start, with the timed choices already made.
    stopped.mkdir()
    unfinished = {key: value for key, value in record.items() if key != "summary"}
    del unfinished["weights_sha256"]
    (stopped / "run.json").write_text(json.dumps(unfinished | {"status": "running"}))
    shutil.copy(whole / "samples.parquet", stopped)
    process = start("train", "--resume", stopped)
    wanted = "metrics.jsonl" if kind == "finetuned" else "samples.parquet"
    while not (stopped / wanted).exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM if kind == "finetuned" else signal.SIGKILL)
    process.communicate()
    assert process.returncode in (143, -signal.SIGKILL)
    resumed = run_towernet("train", "--resume", stopped)
    assert resumed.returncode == 0, resumed.stderr
    assert exact(stopped) == exact(whole)


def test_a_killed_comparison_continues_with_the_features_that_were_kept(photos, given, tmp_path):
    words = [
        "compare",
        photos,
        "--models",
        f"{NETWORK}/frozen",
        "--size",
        96,
        "--workers",
        1,
        *given,
    ]
    cache = {"TOWERNET_CACHE": str(tmp_path / "cache")}
    process = start(*words, "--out", tmp_path / "killed", **cache)
    while not list((tmp_path / "cache").glob("features/**/*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert run_towernet(*words, "--out", tmp_path / "whole").returncode == 0
    again = run_towernet(*words, "--out", tmp_path / "killed", env=os.environ | cache)
    assert again.returncode == 0, again.stderr
    results = [
        json.loads((tmp_path / name / "results.json").read_text())["results"]
        for name in ("killed", "whole")
    ]
    protocols = [results[i].pop("protocol") for i in (0, 1)]
    assert results[0] == results[1]
    assert all(protocols)


def test_a_changed_weight_file_is_refused_when_a_run_is_resumed(photos, weight_files, tmp_path):
    file = tmp_path / "weights.pth"
    shutil.copy(weight_files / "mobilenet_v2-b0353104.pth", file)
    words = ("--model", f"{NETWORK}/frozen", "--size", 64, "--out", tmp_path / "out")
    given = ("--weights", f"{NETWORK}={file}")
    assert run_towernet("train", photos, *words, *given).returncode == 0
    record = json.loads((tmp_path / "out/run.json").read_text())
    del record["summary"], record["weights_sha256"]
    (tmp_path / "out/run.json").write_text(json.dumps(record | {"status": "running"}))
    (tmp_path / "out/results.json").unlink()
    import torch

    tensors = torch.load(file, weights_only=True)
    tensors["features.0.0.weight"][0, 0, 0, 0] += 1
    torch.save(tensors, file)
    refused = run_towernet("train", "--resume", tmp_path / "out")
    assert refused.returncode == 2
    assert "other weights of mobilenet_v2" in refused.stderr
    assert "Traceback" not in refused.stderr

"""The command killed at file operations, with a failing disk or a closed terminal; then resumed.

The full set is in `benchmarks/faults.py`; this is a small part of it.
"""

from __future__ import annotations

import json
import math
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import TINY_NETWORK, run_towernet
from crashlab.lab import (
    epochs_done,
    exact,
    files_in,
    operations,
    policy,
    went_on_from,
)

WORDS = ["--model", TINY_NETWORK, "--epochs", "2", "--size", "64", "--batch-size", "8"]


@pytest.fixture(scope="module")
def undisturbed(lab, photos, tmp_path_factory):
    """A complete run: its files, and its file operations."""
    folder = tmp_path_factory.mktemp("undisturbed")
    out = folder / "run"
    ended = lab.run(["train", str(photos), *WORDS, "--out", str(out)], out, log=folder / "log")
    assert ended.exit_code == 0, ended.stderr
    return exact(out), files_in(out), operations(folder / "log"), policy(out)


def operation(undisturbed, kind: str, ending: str, which: int = 0) -> int:
    """Return the number of an operation on a file."""
    found = [number for number, k, path in undisturbed[2] if k == kind and path.endswith(ending)]
    return found[which]


@pytest.mark.proof
@pytest.mark.parametrize(
    ("kind", "ending", "which"),
    [
        ("rename", "run.json", 0),
        ("write", "last/.tmp", -1),
        ("rename", "last/000000004.json", 0),
        ("rename", "metrics.jsonl", 0),
        ("unlink", ".safetensors", -1),
        ("rename", "results.json", 0),
    ],
)
def test_killed_at_a_file_operation_and_resumed_it_gives_the_same_bytes(
    lab, undisturbed, photos, tmp_path, kind, ending, which
):
    wanted, wanted_files, _, wanted_policy = undisturbed
    out = tmp_path / "run"
    begin = ["train", str(photos), *WORDS, "--out", str(out)]
    nth = operation(undisturbed, kind, ending, which)
    assert lab.run(begin, out, action="kill", nth=nth).exit_code == -signal.SIGKILL
    done, started = epochs_done(out), (out / "run.json").exists()
    finished = started and '"status": "finished"' in (out / "run.json").read_text()
    ended = lab.run(["train", "--resume", str(out)] if started else begin, out)
    assert ended.exit_code == 0, ended.stderr
    assert files_in(out) == wanted_files
    if policy(out) == wanted_policy:  # depends on timing; nearly always the same
        assert exact(out) == wanted
    if not finished:
        assert all(went_on_from(ended).get(run, 0) >= step for run, step in done.items())


def weights_written(log: list[tuple[int, str, str]]) -> list[str]:
    """Return the names of all files of weights or states that were written, in order."""
    return [
        Path(path).name
        for _, kind, path in log
        if kind == "rename" and (path.endswith(".safetensors") or "/last/" in path)
    ]


@pytest.mark.proof
def test_a_short_run_writes_its_weights_once_and_no_state(lab, undisturbed, photos, tmp_path):
    out = tmp_path / "run"
    begin = ["train", str(photos), *WORDS, "--out", str(out)]
    ended = lab.run(begin, out, log=tmp_path / "log", seconds_between_saves=None)
    assert ended.exit_code == 0, ended.stderr
    assert weights_written(operations(tmp_path / "log")) == ["best.safetensors"]
    assert len(weights_written(undisturbed[2])) > 10  # with a state after every step
    assert files_in(out) == undisturbed[1]
    assert exact(out) == undisturbed[0] or policy(out) != undisturbed[3]


@pytest.mark.proof
@pytest.mark.parametrize("saved", [0, 2, 4])  # never; in the first epoch; at its end
def test_killed_long_after_its_last_state_and_resumed_it_gives_the_same_bytes(
    lab, undisturbed, photos, tmp_path, saved
):
    out, rehearsal = tmp_path / "run", tmp_path / "rehearsal" / "run"
    begin = ["train", str(photos), *WORDS, "--out"]
    state = f"last/{saved:09d}.json" if saved else "samples.parquet"
    nth = operation(undisturbed, "rename", state) + 1
    assert lab.run([*begin, str(out)], out, action="kill", nth=nth).exit_code == -signal.SIGKILL
    # Killed again as the last epoch is recorded, and no state was written since.
    shutil.copytree(out, rehearsal)
    again, log = ["train", "--resume"], tmp_path / "log"
    ended = lab.run([*again, str(rehearsal)], rehearsal, log=log, seconds_between_saves=None)
    assert ended.exit_code == 0, ended.stderr
    nth = [n for n, _, path in operations(log) if path.endswith("timings.jsonl")][-1]
    killed = lab.run(
        [*again, str(out)], out, action="kill", nth=nth + 1, seconds_between_saves=None
    )
    assert killed.exit_code == -signal.SIGKILL
    assert epochs_done(out) == {"run": 8}
    assert max((int(path.stem) for path in out.glob("last/*.json")), default=0) == saved
    ended = lab.run([*again, str(out)], out, seconds_between_saves=None)
    assert ended.exit_code == 0, ended.stderr
    assert went_on_from(ended) == ({"run": saved} if saved else {})
    assert files_in(out) == undisturbed[1]
    assert exact(out) == exact(rehearsal)
    assert exact(out) == undisturbed[0] or policy(out) != undisturbed[3]


@pytest.mark.proof
@pytest.mark.parametrize(
    ("kind", "ending"),
    [
        ("rename", "trials/shufflenet_v2_x0_5-1/last/000000006.json"),
        ("unlink", "trials/shufflenet_v2_x0_5-1/run.json"),  # the ledger has its result
    ],
)
def test_a_killed_trial_is_resumed_and_leaves_nothing(lab, photos, tmp_path, kind, ending):
    recipe, whole, out = (tmp_path / name for name in ("long.toml", "whole", "out"))
    recipe.write_text("[train]\ntrial_share = 1.0\ntrial_factors = [0.5, 1.0]\n")
    words = ["compare", str(photos), "--models", TINY_NETWORK, *WORDS[2:], "--recipe", str(recipe)]
    ended = lab.run([*words, "--out", str(whole)], whole, log=tmp_path / "log")
    assert ended.exit_code == 0, ended.stderr
    found = operations(tmp_path / "log")
    nth = next(n for n, k, path in found if k == kind and path.endswith(ending))
    killed = lab.run([*words, "--out", str(out)], out, action="kill", nth=nth + 1)
    assert killed.exit_code == -signal.SIGKILL
    ended = lab.run([*words, "--out", str(out)], out)
    assert ended.exit_code == 0, ended.stderr
    resumed = {f"{TINY_NETWORK}-1": 6} if kind == "rename" else {}
    assert went_on_from(ended) == resumed
    assert files_in(out) == files_in(whole)
    assert not (out / "trials").exists()
    if policy(out) == policy(whole):
        assert exact(out) == exact(whole)
        measured = dict.fromkeys(("seconds", "step_seconds", "image_seconds"), 0)
        trials = [
            [json.loads(line) | measured for line in path.read_text().splitlines()]
            for path in (out / "ledger.jsonl", whole / "ledger.jsonl")
        ]
        assert trials[0] == trials[1] and len(trials[0]) > 2


@pytest.mark.proof
@pytest.mark.parametrize(
    ("action", "kind", "ending", "which"),
    [
        ("fail once", "write", "last/.tmp", 1),
        ("fail once", "fsync", "last/.tmp", 0),
        ("fail once", "rename", "metrics.jsonl", 0),
        ("fail once", "unlink", "last/000000004.safetensors", 0),
        ("fail ever", "create", ".tmp", 3),
        ("fail ever", "write", "lock", 0),
    ],
)
def test_a_failing_disk_is_a_one_line_error_and_nothing_is_lost(
    lab, undisturbed, photos, tmp_path, action, kind, ending, which
):
    out = tmp_path / "run"
    begin = ["train", str(photos), *WORDS, "--out", str(out)]
    ended = lab.run(begin, out, action=action, nth=operation(undisturbed, kind, ending, which))
    assert ended.exit_code == 4, ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert last.startswith(f"error: {out}") and "Traceback" not in ended.stderr
    if "cannot be written" in last:
        assert "bytes of it were written" in last and "are free on its disk" in last
    done, started = epochs_done(out), (out / "run.json").exists()
    finished = started and '"status": "finished"' in (out / "run.json").read_text()
    again = lab.run(["train", "--resume", str(out)] if started else begin, out)
    assert again.exit_code == 0, again.stderr
    assert files_in(out) == undisturbed[1]
    if policy(out) == undisturbed[3]:
        assert exact(out) == undisturbed[0]
    if not finished:
        assert all(went_on_from(again).get(run, 0) >= step for run, step in done.items())


@pytest.mark.proof
def test_a_closed_terminal_does_not_end_the_training(photos, tmp_path):
    out = tmp_path / "run"
    words = ["train", str(photos), *WORDS[:2], "--epochs", "6", *WORDS[4:], "--out", str(out)]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "towernet", *words])
    seen = b""
    while b"steps, about" not in seen:  # the plan; training starts
        seen += os.read(terminal, 4096)
    os.close(terminal)  # the system hangs up
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert (out / "report.html").exists()


@pytest.mark.proof
def test_a_terminal_closed_while_the_command_starts_does_not_end_it(photos, tmp_path):
    words = ["train", photos, *WORDS, "--out", tmp_path / "run"]
    with subprocess.Popen([sys.executable, "-m", "towernet", *map(str, words)]) as process:
        status = Path(f"/proc/{process.pid}/status")
        if not status.exists():
            pytest.skip("the system does not show which signals a process handles")
        while not int(status.read_text().partition("SigIgn:")[2].split()[0], 16) & 1:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGHUP)
    assert process.returncode == 0


@pytest.mark.proof
@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 143)])
def test_a_signal_from_a_cluster_leaves_a_checkpoint(photos, tmp_path, number, exit_code):
    out = tmp_path / "run"
    words = ["train", photos, *WORDS[:2], "--epochs", "500", *WORDS[4:], "--out", out]
    with subprocess.Popen(
        [sys.executable, "-m", "towernet", *map(str, words)], stderr=subprocess.PIPE, text=True
    ) as process:
        while not (out / "metrics.jsonl").exists():
            assert process.poll() is None
            time.sleep(0.1)
        assert not (out / "last").exists()
        process.send_signal(number)
        _, printed = process.communicate(timeout=60)
    assert process.returncode == exit_code
    assert f"towernet train --resume {out}" in printed.splitlines()[-1]
    (state,) = out.glob("last/*.json")
    assert f"is complete up to step {int(state.stem)} of" in printed


def test_too_low_a_limit_of_open_files_is_detected_before_reading(photos, tmp_path):
    import resource

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))

    ended = run_towernet("train", photos, *WORDS, "--out", tmp_path / "run", preexec_fn=few)
    assert ended.returncode == 4
    assert "the limit of open files is 60 and up to" in ended.stderr.splitlines()[-1]
    assert "ulimit -n" in ended.stderr
    assert "reading files" not in ended.stderr


@pytest.mark.proof
def test_a_network_too_large_for_memory_is_named_and_the_others_continue(lab, photos, tmp_path):
    out = tmp_path / "comparison"
    words = ["compare", str(photos), "--models", f"vgg19,{TINY_NETWORK}", *WORDS[2:]]
    ended = lab.run([*words, "--out", str(out)], out, memory_mb=900)
    assert ended.exit_code == 0, ended.stderr
    results = json.loads((out / "results.json").read_text())["results"]
    failed, other = sorted(results["networks"], key=lambda n: n["name"] == TINY_NETWORK)
    assert (failed["name"], failed["status"]) == ("vgg19", "failed")
    assert "ran out of memory at 8 images per step" in failed["reason"]
    assert "give --batch-size 4" in failed["reason"]
    assert other["status"] != "failed" and len(other["runs"]) == 1


@pytest.mark.proof
def test_a_network_with_nan_predictions_never_wins(lab, photos, tmp_path):
    import torch

    from towernet.engine.checkpoint import read_weights, write_weights

    out = tmp_path / "run"
    assert lab.run(["train", str(photos), *WORDS, "--out", str(out)], out).exit_code == 0
    tensors, meta = read_weights(out / "best.safetensors")
    poisoned = {
        name: torch.full_like(tensor, math.nan) if name == "fc.bias" else tensor
        for name, tensor in tensors.items()
    }
    record = json.loads((out / "run.json").read_text())
    record["weights_sha256"] = write_weights(out / "best.safetensors", poisoned, meta)
    (out / "run.json").write_text(json.dumps(record))
    (out / "results.json").unlink()
    ended = lab.run(["train", "--resume", str(out)], out)
    assert ended.exit_code == 5
    assert "its predictions contain NaN or Inf" in ended.stderr.splitlines()[-1]
    results = json.loads((out / "results.json").read_text())["results"]
    assert results["winner"] is None and results["networks"][0]["accuracy"] is None


@pytest.mark.parametrize("content", ["[]", "null", "{}", "", '{"format": 1}'])
@pytest.mark.parametrize("name", ["run.json", "results.json", "ledger.jsonl"])
def test_a_file_with_other_content_is_named(
    towernet, finished_run, tmp_path, photos, name, content
):
    out = Path(shutil.copytree(finished_run, tmp_path / "run"))
    (out / name).write_text(content)
    if name == "ledger.jsonl":
        (out / "results.json").unlink()
    ended = towernet("train", photos, "--resume", out)
    if ended.returncode:
        assert ended.returncode == 3, ended.stderr
        assert str(out / name) in ended.stderr.splitlines()[-1]
    else:
        assert name == "ledger.jsonl" and content in ("{}", "", '{"format": 1}')


def test_a_damaged_lock_file_does_not_lock_anyone_out(towernet, finished_run, tmp_path):
    out = Path(shutil.copytree(finished_run, tmp_path / "run"))
    (out / "lock").write_bytes(bytes(range(128, 256)))
    assert towernet("train", "--resume", out).returncode == 0


@pytest.mark.proof
def test_missing_states_are_reported(lab, undisturbed, photos, tmp_path):
    out = tmp_path / "run"
    nth = operation(undisturbed, "rename", "metrics.jsonl") + 3
    words = ["train", str(photos), *WORDS, "--out", str(out)]
    assert lab.run(words, out, action="kill", nth=nth).exit_code == -signal.SIGKILL
    shutil.rmtree(out / "last")
    ended = lab.run(["train", "--resume", str(out)], out)
    assert ended.exit_code == 0
    assert f"{out / 'last'} contains no checkpoint; run starts over" in ended.stderr
    assert exact(out) == undisturbed[0] or policy(out) != undisturbed[3]

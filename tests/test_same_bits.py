"""Two folders of results are compared bit by bit, and each kind of difference is named."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tomli_w
from safetensors.numpy import save_file

RUN = "runs/small-0"
RESULTS = {
    "results": {
        "networks": [
            {"name": "small", "accuracy": 0.75, "rank": 1, "mixed": False, "reason": None,
             "runs": [{"folder": RUN, "accuracy": 0.75}]},
        ],
        "winner": {"name": "small", "folder": RUN},
    },
    "measured": {"total_seconds": 3.25},
    "made": {"date": "2026-01-01T00:00:00+00:00"},
}  # fmt: skip
RECORD = {
    "config": {"model": "small"},
    "plan": {"num_steps": 4, "policy": {"dtype": "float32", "reason": "1.2× as fast"}},
    "contract": {"mean": [0.5]},
    "data": "0f",
    "summary": {"validation_loss": 1.5},
    "weights_sha256": "ff",
    "hardware": {"memory_gib": 8},
}
PROTOCOL = {
    "request": {"models": ["small"]},
    "decided": {
        "policy": {"dtype": "float32", "reason": "1.2× as fast"},
        "costs": {"small": {"step_seconds": 0.5, "image_seconds": 0.25, "parameters": 12}},
    },
}
EVENTS = [
    {"event": "trial", "learning_rate": 0.05, "seconds": 1.5},
    {"event": "test split looked at again", "run": RUN, "date": "2026-01-01T00:00:00+00:00"},
]


@pytest.fixture
def same_files(monkeypatch):
    """The module that compares."""
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
    return importlib.import_module("_same_files")


@pytest.fixture
def old(tmp_path) -> Path:
    """A small comparison's folder, as the command writes it."""
    folder = tmp_path / "old"
    run = folder / RUN
    (run / "tensorboard").mkdir(parents=True)
    save_file({"weight": np.arange(12, dtype=np.float32)}, run / "best.safetensors")
    (run / "metrics.jsonl").write_text('{"step": 4, "train_loss": 1.25}\n')
    (run / "timings.jsonl").write_text('{"step": 4, "seconds": 2.5}\n')
    (run / "tensorboard" / "events.out.tfevents.1").write_bytes(b"1")
    (run / "calibration.json").write_text('{"temperature": 1.5}\n')
    pd.DataFrame({"path": ["a.png"], "predicted": ["a"]}).to_parquet(run / "predictions.parquet")
    pd.DataFrame({"path": ["a.png"]}).to_parquet(folder / "samples.parquet")
    write_json(run / "run.json", RECORD)
    write_json(folder / "results.json", RESULTS)
    (folder / "protocol.toml").write_text(tomli_w.dumps(PROTOCOL))
    (folder / "ledger.jsonl").write_text("".join(json.dumps(event) + "\n" for event in EVENTS))
    (folder / "results.csv").write_text("name,accuracy,latency_ms\r\nsmall,0.75,1.5\r\n")
    (folder / "runs.csv").write_text(f"name,run,folder\r\nsmall,0,{RUN}\r\n")
    return folder


@pytest.fixture
def new(old, tmp_path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(old, tmp_path / "new"))


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True))


def replace(path: Path, before: str, after: str) -> None:
    text = path.read_bytes().decode()
    assert text.count(before) == 1, text
    path.write_bytes(text.replace(before, after).encode())


def flip_last_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_equal_folders_are_equal(same_files, old, new):
    found = same_files.compare_folders(old, new)
    assert found.differences == ()
    assert found.num_files == 11
    assert found.renamed == {}
    assert found.digest == same_files.compare_folders(new, old).digest


def test_trials_can_be_absent_and_first_runs_with_a_replaced_rate_cannot(same_files, old, new):
    for name, number in (("small-0", 0), ("small-0-run", 1)):
        shutil.copytree(old / RUN, old / "trials" / name)
        found = same_files.compare_folders(old, new).differences
        assert bool(found) == bool(number)
        assert all("trials/small-0-run" in words for words in found)


def test_measured_times_can_differ(same_files, old, new):
    replace(new / "results.json", "3.25", "4.5")
    replace(new / "results.json", "2026", "2027")
    replace(new / "results.csv", "1.5", "1.75")
    replace(new / "protocol.toml", "step_seconds = 0.5", "step_seconds = 0.625")
    replace(new / "protocol.toml", "1.2×", "1.3×")
    replace(new / RUN / "run.json", r"1.2\u00d7", r"1.3\u00d7")
    replace(new / RUN / "timings.jsonl", "2.5", "2.75")
    replace(new / "ledger.jsonl", '"seconds": 1.5', '"seconds": 1.75')
    replace(new / "ledger.jsonl", "2026", "2027")
    (new / RUN / "tensorboard" / "events.out.tfevents.1").rename(new / RUN / "tensorboard" / "2")
    found = same_files.compare_folders(old, new)
    assert found.differences == ()
    assert found.digest == same_files.compare_folders(old, old).digest


@pytest.mark.parametrize(
    ("name", "before", "after", "difference"),
    [
        (f"{RUN}/metrics.jsonl", "1.25", "1.26", "SHA-256: "),
        (f"{RUN}/calibration.json", "1.5", "1.6", "SHA-256: "),
        ("results.json", '"rank": 1', '"rank": 2', "results.networks[0].rank: 1 → 2"),
        ("results.json", '"rank": 1', '"rank": true', "results.networks[0].rank: 1 → true"),
        ("results.json", '"mixed": false', '"mixed": 0', "results.networks[0].mixed: false → 0"),
        ("results.json", '"reason": null', '"reason": ""', 'networks[0].reason: null → ""'),
        ("results.json", '"rank": 1', '"place": 1', "results.networks[0].place: null → 1"),
        (f"{RUN}/run.json", "float32", "bfloat16", 'plan.policy.dtype: "float32" → "bfloat16"'),
        (f"{RUN}/run.json", '"mean": [\n      0.5', '"mean": [\n      0.25', "mean[0]: 0.5 → 0.25"),
        (f"{RUN}/run.json", '"0f"', '"0e"', 'data: "0f" → "0e"'),
        (f"{RUN}/run.json", '"model": "small"', '"model": "large"', "config.model: "),
        (f"{RUN}/run.json", "1.5", "1.6", "summary.validation_loss: 1.5 → 1.6"),
        (f"{RUN}/run.json", '"ff"', '"fe"', 'weights_sha256: "ff" → "fe"'),
        ("protocol.toml", "= 12", "= 13", "decided.costs.small.parameters: 12 → 13"),
        ("ledger.jsonl", "0.05", "0.06", "[0].learning_rate: 0.05 → 0.06"),
        ("ledger.jsonl", '{"event": "trial", "learning_rate": 0.05, "seconds": 1.5}\n', "",
         '[0].event: "trial" → "test split looked at again"'),
        ("results.csv", "0.75", "0.76", '[1][1]: "0.75" → "0.76"'),
        ("runs.csv", "small,0", '"small",0', r'[1][0]: "small" → "\"small\""'),
        ("runs.csv", f"{RUN}\r\n", f"{RUN}\n", "runs.csv: [1]"),
        ("runs.csv", f"{RUN}\r\n", f"{RUN}\r\nsmall,1,x\r\n", ": 2 entries → 3"),
    ],
)  # fmt: skip
def test_each_difference_is_named(same_files, old, new, name, before, after, difference):
    replace(new / name, before, after)
    found = same_files.compare_folders(old, new)
    (words,) = found.differences
    assert words.startswith(f"{name}: ")
    assert difference in words
    assert found.digest != same_files.compare_folders(new, old).digest


@pytest.mark.parametrize(
    "name", [f"{RUN}/best.safetensors", f"{RUN}/predictions.parquet", "samples.parquet"]
)
def test_one_bit_of_a_file_is_a_difference(same_files, old, new, name):
    flip_last_bit(new / name)
    (words,) = same_files.compare_folders(old, new).differences
    assert words.startswith(f"{name}: SHA-256: ")


@pytest.mark.parametrize(
    "name", [f"{RUN}/best.safetensors", f"{RUN}/calibration.json", "results.json", "runs.csv"]
)
def test_a_missing_file_is_a_difference_either_way(same_files, old, new, name):
    (new / name).unlink()
    assert same_files.compare_folders(old, new).differences == (
        f"{name} is only in the old folder",
    )
    assert same_files.compare_folders(new, old).differences == (
        f"{name} is only in the new folder",
    )


def test_folders_without_results_are_not_equal(same_files, tmp_path):
    found = same_files.compare_folders(tmp_path, tmp_path)
    assert found.differences == ("the old folder has no file that is compared",)


def test_null_and_absent_are_equal_and_so_are_1_and_1_0(same_files, old, new):
    replace(new / "results.json", '"reason": null', '"more": null')
    replace(new / "results.json", '"rank": 1', '"rank": 1.0')
    found = same_files.compare_folders(old, new)
    assert found.differences == ()
    assert found.digest == same_files.compare_folders(new, old).digest
    assert same_files.first_difference([0.0], [-0.0]) == "[0]: 0.0 → -0.0"


def rename_run(folder: Path, name: str) -> None:
    (folder / RUN).rename(folder / name)
    for path in ("results.json", "runs.csv", "ledger.jsonl"):
        text = (folder / path).read_bytes().decode()
        (folder / path).write_bytes(text.replace(RUN, name).encode())


def test_a_run_can_have_another_folder_name_which_is_reported(same_files, old, new):
    rename_run(new, "runs/small-3f9a-0")
    found = same_files.compare_folders(old, new)
    assert found.differences == ()
    assert found.renamed == {"runs/small-3f9a-0": RUN}


def test_a_renamed_run_with_other_bits_is_not_taken_for_the_same(same_files, old, new):
    rename_run(new, "runs/small-3f9a-0")
    flip_last_bit(new / "runs/small-3f9a-0" / "best.safetensors")
    found = same_files.compare_folders(old, new)
    assert found.renamed == {}
    assert f"{RUN}/best.safetensors is only in the old folder" in found.differences
    assert "runs/small-3f9a-0/best.safetensors is only in the new folder" in found.differences


def test_results_that_name_the_folder_as_it_was_are_a_difference(same_files, old, new):
    (new / RUN).rename(new / "runs/small-3f9a-0")
    found = same_files.compare_folders(old, new)
    assert found.renamed == {"runs/small-3f9a-0": RUN}
    assert [words.partition(":")[0] for words in found.differences] == [
        "ledger.jsonl",
        "results.json",
        "runs.csv",
    ]


def test_the_difference_that_explains_the_others_is_named_first(same_files, old, new):
    flip_last_bit(new / RUN / "best.safetensors")
    replace(new / "runs.csv", "small,", "large,")
    replace(new / RUN / "run.json", "float32", "bfloat16")
    first, *others = same_files.compare_folders(old, new).differences
    assert first.startswith(f"{RUN}/run.json: plan.policy.dtype")
    assert len(others) == 2


def test_the_number_format_is_found_without_its_reason(same_files, old, new):
    assert same_files.policy(old) == {"dtype": "float32"} == same_files.policy(new)
    replace(new / RUN / "run.json", "float32", "bfloat16")
    assert same_files.policy(new) == {"dtype": "bfloat16"}

"""A comparison through the command: plan, trials, runs, test split, results, report, resume."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import TINY_NETWORK, run_towernet
from towernet.errors import DATA

OTHER_NETWORK = "towernet_patch"
WORDS = (
    "--models", f"{TINY_NETWORK},{OTHER_NETWORK}", "--epochs", 8, "--size", 64,
    "--batch-size", 8, "--workers", 1,
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(photos, tmp_path_factory):
    """A finished comparison, and what it printed."""
    folder = tmp_path_factory.mktemp("finished") / "comparison"
    done = run_towernet("compare", photos, *WORDS, "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def results_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())["results"]


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def exact_files(folder: Path) -> dict[str, bytes]:
    """Everything that must be the same to the byte, by relative path."""
    names = ("best.safetensors", "metrics.jsonl", "samples.parquet", "predictions.parquet")
    found = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.name in names and "trials" not in path.parts
    }
    return found | {"results": json.dumps(results_of(folder), sort_keys=True).encode()}


def test_a_comparison_gives_a_ranking_a_winner_and_a_report(finished):
    folder, done = finished
    results = results_of(folder)
    assert {network["name"] for network in results["networks"]} == {TINY_NETWORK, OTHER_NETWORK}
    assert results["num_images"] == {"train": 27, "validation": 6, "test": 9}
    for network in results["networks"]:
        assert len(network["trials"]) == 3
        assert network["accuracy"] == pytest.approx(
            np.trace(network["confusion"]) / np.sum(network["confusion"])
        )
        low, high = network["interval"]
        assert low <= network["accuracy"] <= high
    assert results["sentence"] in " ".join(done.stdout.split())
    assert (folder / "report.html").exists()
    assert not (folder / "trials").exists()
    in_all = rf"^disk: about [\d.]+ MB will be written to {folder} in all, including"
    assert re.search(in_all, done.stderr, re.M)
    for name in ("results", "runs"):
        assert (folder / f"{name}.csv").read_text().count("\n") == 3
    assert (folder / "classes.csv").read_text().count("\n") == 1 + 2 * 3
    differences = (folder / "differences.csv").read_text()
    assert differences.startswith("first,second,difference,interval_low,interval_high,p,")
    for pair in results["comparisons"]:
        assert f"{pair['first']},{pair['second']},{pair['difference']}," in differences
    assert r"\begin{tabular}" in (folder / "paper.tex").read_text()
    assert (folder / "suspects.csv").read_text().startswith("path,class_name,looks_like,")
    ranked = [network for network in results["networks"] if network["status"] == "ranked"]
    assert len(results["comparisons"]) == len(ranked) * (len(ranked) - 1) // 2
    for pair in results["comparisons"]:
        first, second = (
            next(network for network in ranked if network["name"] == pair[key])
            for key in ("first", "second")
        )
        assert pair["difference"] == pytest.approx(first["accuracy"] - second["accuracy"])
    assert "on this machine" in done.stderr
    assert "I read this as 3 classes" in done.stderr


def test_the_test_split_is_opened_once_after_all_runs(finished):
    folder, _ = finished
    events = [json.loads(line)["event"] for line in _lines(folder / "ledger.jsonl")]
    assert events.count("final split opened") == 1
    assert events[-1] == "final split opened"


def test_rerunning_the_command_changes_nothing(towernet, finished, photos):
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    again = towernet("compare", photos, *WORDS, "--out", folder)
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")} == before
    assert "is finished" in again.stderr


def test_different_options_are_refused_and_listed(towernet, finished, photos):
    folder, _ = finished
    other = towernet("compare", photos, *WORDS, "--out", folder, "--seed", 3)
    assert other.returncode == 2
    assert "was started with other choices (seed: 0 → 3)" in other.stderr
    assert other.stderr.strip().splitlines()[-1].startswith("error: ")


def test_a_protocol_that_was_changed_is_refused(towernet, finished, photos, tmp_path):
    folder, _ = finished
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    path = moved / "protocol.toml"
    path.write_text(path.read_text().replace("equal_within = 0.005", "equal_within = 0.05"))
    done = towernet("compare", photos, *WORDS, "--out", moved)
    assert done.returncode == DATA
    assert "protocol.toml was changed after the comparison started" in done.stderr


def test_a_different_device_is_refused_and_named(towernet, finished, photos):
    folder, _ = finished
    other = towernet("compare", photos, *WORDS, "--out", folder, "--device", "cuda")
    assert other.returncode == 2
    assert "(device: cpu → cuda)" in other.stderr


def test_a_folder_with_other_content_is_refused(towernet, finished, photos):
    folder, _ = finished
    run_folder = next((folder / "runs").iterdir())
    before = (run_folder / "samples.parquet").read_bytes()
    other = towernet("compare", photos, *WORDS, "--out", run_folder)
    assert other.returncode == 2
    assert "is not empty and contains no comparison" in other.stderr
    assert (run_folder / "samples.parquet").read_bytes() == before
    among = towernet("compare", photos, *WORDS, "--out", photos / "results")
    assert among.returncode == 2
    assert "would be among the images" in among.stderr
    assert not (photos / "results").exists()


def test_results_written_after_a_kill_do_not_depend_on_the_threads(
    towernet, finished, photos, tmp_path
):
    import torch

    from towernet.comparison.protocol import read_protocol

    folder, _ = finished
    again = Path(shutil.copytree(folder, tmp_path / "again"))
    (again / "results.json").unlink()
    for path in again.rglob("predictions.parquet"):
        path.unlink()
    threads = torch.get_num_threads()
    decided = read_protocol(again / "protocol.toml").decided.policy.threads
    torch.set_num_threads(1 if decided > 1 else 2)
    try:
        assert towernet("compare", photos, *WORDS, "--out", again).returncode == 0
    finally:
        torch.set_num_threads(threads)
    assert exact_files(again) == exact_files(folder)


def test_a_missing_device_does_not_mark_a_network_as_failed(towernet, finished, photos, tmp_path):
    import torch

    from towernet.comparison.protocol import read_protocol, write_protocol

    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    folder, _ = finished
    moved = Path(shutil.copytree(folder, tmp_path / "moved"))
    (moved / "results.json").unlink()
    protocol = read_protocol(moved / "protocol.toml")
    policy = replace(protocol.decided.policy, device="cuda")
    decided = protocol.decided.model_copy(update={"policy": policy})
    on_a_gpu = protocol.model_copy(update={"decided": decided})
    write_protocol(moved / "protocol.toml", on_a_gpu)
    ledger = (moved / "ledger.jsonl").read_bytes()
    done = towernet("compare", photos, *WORDS, "--out", moved)
    assert done.returncode in (2, 4)
    assert "cuda" in done.stderr
    assert (moved / "ledger.jsonl").read_bytes() == ledger


def test_other_images_are_refused(towernet, finished, own_photos):
    folder, _ = finished
    (own_photos / "lying" / "00.png").unlink()
    other = towernet("compare", own_photos, *WORDS, "--out", folder)
    assert other.returncode == 3
    assert "1 image removed (lying/00.png)" in other.stderr


def start(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "towernet", *map(str, words)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


@pytest.mark.proof
def test_stopped_with_ctrl_c_and_rerun_it_gives_the_same_bytes(finished, photos, tmp_path):
    """Real interrupts at several moments of a protocol whose timed choices are already made."""
    folder, _ = finished
    stopped = tmp_path / "stopped"
    stopped.mkdir()
    shutil.copy(folder / "protocol.toml", stopped)
    shutil.copy(folder / "samples.parquet", stopped)
    codes = []
    while 0 not in codes:
        process = start("compare", photos, *WORDS, "--out", stopped)
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if len(codes) < 4 and line.startswith((TINY_NETWORK, OTHER_NETWORK)):
                time.sleep(0.2 * len(codes))
                process.send_signal(signal.SIGINT)
                break
        lines.append(process.stderr.read())
        process.stderr.close()
        codes.append(process.wait())
        assert codes[-1] in (0, 130), lines
        assert "Traceback" not in "".join(lines)
    assert codes.count(130) >= 2
    assert exact_files(stopped) == exact_files(folder)


def test_a_moved_comparison_predicts(towernet, finished, photos, tmp_path):
    folder, _ = finished
    moved = Path(shutil.copytree(folder, tmp_path / "elsewhere" / "moved"))
    images = [photos / "lying" / "03.png", photos / "standing" / "05.png"]
    done = towernet("predict", moved, *images, "--json", "--top", 2)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["path"] for row in rows] == [str(path) for path in images]
    for row in rows:
        first, second = row["predictions"]
        assert first["probability"] >= second["probability"]
        assert {first["class_name"], second["class_name"]} <= {"lying", "standing", "leaning"}


def test_predict_reproduces_the_predictions_of_the_comparison(towernet, finished, photos):
    from towernet.data.table import read_frame

    folder, _ = finished
    run_folder = folder / results_of(folder)["winner"]["folder"]
    recorded = read_frame(run_folder / "predictions.parquet")
    images = [photos / path for path in recorded.path]
    rows = json.loads(towernet("predict", folder, *images, "--json").stdout)
    for row, predicted, confidence in zip(
        rows, recorded.predicted, recorded.confidence, strict=True
    ):
        assert row["predictions"][0]["class_name"] == predicted
        assert row["predictions"][0]["probability"] == pytest.approx(confidence, abs=1e-5)


def test_predict_marks_what_is_not_sure(towernet, finished, photos, tmp_path):
    folder, _ = finished
    run_folder = Path(
        shutil.copytree(folder / results_of(folder)["winner"]["folder"], tmp_path / "run")
    )
    image = photos / "lying" / "00.png"
    path = run_folder / "calibration.json"
    kept = json.loads(path.read_text())
    assert kept.keys() == {"temperature", "threshold", "wanted_accuracy"}
    for threshold, sure in ((0.0, True), (1.0, False), (None, None)):
        path.write_text(json.dumps(kept | {"threshold": threshold}))
        (row,) = json.loads(towernet("predict", run_folder, image, "--json").stdout)
        assert row["sure"] is sure
        printed = towernet("predict", run_folder, image).stdout
        assert printed.endswith("  (not sure)\n") == (sure is False)
    for damage in ({"temperature": float("inf")}, {"temperature": "1"}, {"threshold": "high"}):
        path.write_text(json.dumps(kept | damage))
        done = towernet("predict", run_folder, image)
        assert done.returncode == 3
        assert "is damaged (" in done.stderr
        assert "restore it or delete it" in done.stderr


def test_an_unusable_image_is_named_and_the_others_are_predicted(
    towernet, finished, photos, tmp_path
):
    folder, _ = finished
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"<html>404</html>")
    good = photos / "lying" / "00.png"
    done = towernet("predict", folder, broken, good, tmp_path / "missing.png")
    assert done.returncode == 3
    assert str(good) in " ".join(done.stdout.split())
    errors = done.stderr.splitlines()
    assert len([line for line in errors if line.startswith("error: ")]) == 2
    assert "broken.jpg cannot be used" in done.stderr
    assert "missing.png cannot be read" in done.stderr


@pytest.mark.proof
def test_failed_networks_are_reported(towernet, photos, tmp_path):
    recipe = tmp_path / "explosive.toml"
    recipe.write_text(
        "[train]\nlearning_rate = 1e14\ntrial_factors = [1.0]\nwarmup_fraction = 0.0\n"
        "momentum = 0.0\nnesterov = false\n"
    )
    folder = tmp_path / "comparison"
    done = towernet("compare", photos, *WORDS, "--recipe", recipe, "--out", folder)
    assert done.returncode == 5, done.stderr
    assert "error: no network could be trained" in done.stderr
    results = results_of(folder)
    assert {network["status"] for network in results["networks"]} == {"failed"}
    assert results["winner"] is None
    assert results["sentence"].startswith("No network learned enough to be ranked")
    assert all("the loss became" in n["reason"] or "validation loss" in n["reason"]
               for n in results["networks"])  # fmt: skip
    refused = towernet("predict", folder, photos / "lying" / "00.png")
    assert refused.returncode == 3
    assert "has no winner" in refused.stderr


@pytest.mark.proof
def test_repeated_runs_share_the_test_split_and_draw_the_rest_again(towernet, photos, tmp_path):
    folder = tmp_path / "comparison"
    words = ("--models", TINY_NETWORK, *WORDS[2:], "--runs", 2)
    done = towernet("compare", photos, *words, "--out", folder)
    assert done.returncode == 0, done.stderr
    from towernet.data.table import read_table

    first, second = (
        read_table(folder / "runs" / f"{TINY_NETWORK}-{k}" / "samples.parquet") for k in (0, 1)
    )
    assert set(first.path[first.split == "test"]) == set(second.path[second.split == "test"])
    assert set(first.path[first.split == "train"]) != set(second.path[second.split == "train"])
    assert len(results_of(folder)["networks"][0]["runs"]) == 2


@pytest.mark.proof
def test_without_a_test_split_every_run_is_evaluated_on_the_images_it_left_out(
    towernet, photos, tmp_path
):
    from towernet.data.table import read_frame, read_table

    recipe = tmp_path / "all.toml"
    recipe.write_text("[data]\ntest_fraction = 0.0\nvalidation_fraction = 0.3\n")
    folder = tmp_path / "comparison"
    words = ("--models", f"{TINY_NETWORK},{OTHER_NETWORK}", *WORDS[2:], "--runs", 2)
    done = towernet("compare", photos, *words, "--recipe", recipe, "--out", folder)
    assert done.returncode == 0, done.stderr
    results = results_of(folder)
    assert results["resampled"]
    network = next(n for n in results["networks"] if n["name"] == TINY_NETWORK)
    left_out = []
    for run in network["runs"]:
        table = read_table(folder / run["folder"] / "samples.parquet")
        predictions = read_frame(folder / run["folder"] / "predictions.parquet")
        left_out.append(set(table.path[table.split == "validation"]))
        assert set(predictions.path) == left_out[-1]
        is_right = predictions.predicted == predictions.class_name
        assert run["accuracy"] == pytest.approx(is_right.mean())
        # The saved weights are those of the best epoch on the same images.
        assert run["accuracy"] == pytest.approx(run["validation_accuracy"])
    assert left_out[0] != left_out[1]
    assert sum(row["num_images"] for row in network["per_class"]) == sum(map(len, left_out))
    assert "judged on the images it left out" in (folder / "report.html").read_text()


@pytest.mark.proof
def test_test_images_decide_nothing_before_the_end(towernet, photos, tmp_path):
    """With other images in the test folder, weights and metrics are the same to the bit."""
    from PIL import Image

    folders = [tmp_path / "as-it-is", tmp_path / "other"]
    for data in folders:
        for path in sorted(photos.rglob("*.png")):
            split = "test" if int(path.stem) < 4 else "train"
            target = data / split / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            if split == "test" and data.name == "other":
                Image.open(path).transpose(Image.Transpose.ROTATE_90).save(target)
            else:
                shutil.copy(path, target)
    words = (*WORDS[:3], 3, *WORDS[4:])
    for data in folders:
        done = towernet("compare", data, *words, "--out", tmp_path / f"{data.name}-out")
        assert done.returncode == 0, done.stderr
    one, two = (tmp_path / f"{data.name}-out" for data in folders)
    learnt = ("best.safetensors", "metrics.jsonl")
    before, after = (
        {name: found for name, found in exact_files(folder).items() if name.endswith(learnt)}
        for folder in (one, two)
    )
    assert len(before) == 4
    assert before == after
    results = [results_of(folder) for folder in (one, two)]
    assert results[0]["winner"] == results[1]["winner"]
    predictions = [
        [
            found
            for name, found in exact_files(folder).items()
            if name.endswith("predictions.parquet")
        ]
        for folder in (one, two)
    ]
    assert predictions[0] != predictions[1]


@pytest.mark.proof
def test_train_resumes_to_the_bit_through_the_command(towernet, photos, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    words = ("--model", TINY_NETWORK, "--epochs", 8, "--size", 64, "--batch-size", 8)
    assert towernet("train", photos, *words, "--out", whole).returncode == 0
    # The same run from its start, with the timed choices already made.
    record = json.loads((whole / "run.json").read_text())
    stopped.mkdir()
    (stopped / "run.json").write_text(json.dumps(record | {"status": "running"}))
    shutil.copy(whole / "samples.parquet", stopped)
    process = start("train", "--resume", stopped)
    while not (stopped / "metrics.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert f"towernet train --resume {stopped}" in process.communicate()[1]
    assert process.returncode == 143
    assert list((stopped / "last").glob("*.safetensors"))
    done = towernet("train", "--resume", stopped)
    assert done.returncode == 0, done.stderr
    for name in ("best.safetensors", "metrics.jsonl", "predictions.parquet"):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes(), name
    assert results_of(stopped) == results_of(whole)
    assert (stopped / "report.html").exists()
    assert not (stopped / "last").exists()
    idle = towernet("train", "--resume", whole, "--epochs", 50)
    assert idle.returncode == 2
    assert "is finished with --epochs 8, and its length cannot change" in idle.stderr
    refused = towernet("train", photos, *words, "--out", whole)
    assert refused.returncode == 2
    assert "already contains a run; resume it with --resume" in refused.stderr


@pytest.mark.proof
def test_a_signal_before_training_ends_the_command_at_once(photos, tmp_path):
    process = start("compare", photos, *WORDS, "--out", tmp_path / "out")
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "self-test" in line:  # the dry run comes next
            process.send_signal(signal.SIGTERM)
            break
    lines += process.stderr.read().splitlines()
    process.stderr.close()
    assert process.wait() == 143
    assert lines[-1] == "stopped as requested; what was finished is kept"


def with_accuracies(finished: Path, folder: Path, *, of_trials: float, of_runs: float) -> Path:
    """Return an unfinished copy with other accuracies of its trials and runs.

    The trials of the rates that its runs have get the lowest losses.
    """
    taken = rates_taken(finished)
    shutil.copytree(finished, folder)
    (folder / "results.json").unlink()
    events = [json.loads(line) for line in _lines(folder / "ledger.jsonl")]
    events = [event for event in events if not event["event"].startswith("rate ")]
    for event in events:
        if event["event"] == "trial":
            event["validation_accuracy"] = of_trials
            if event["learning_rate"] == taken[event["network"]]:
                event["validation_loss"] = 0.0
    (folder / "ledger.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in events))
    for path in (folder / "runs").glob("*/run.json"):
        run = json.loads(path.read_text())
        run["summary"]["final_validation_accuracy"] = of_runs
        path.write_text(json.dumps(run))
    return folder


def rates_taken(folder: Path) -> dict[str, float]:
    return {network["name"]: network["learning_rate"] for network in results_of(folder)["networks"]}


@pytest.mark.proof
def test_a_rate_with_which_the_first_run_fails_is_replaced_by_the_next_best(
    towernet, finished, photos, tmp_path
):
    folder = with_accuracies(finished[0], tmp_path / "worse", of_trials=1.0, of_runs=0.0)
    again = towernet("compare", photos, *WORDS, "--out", folder)
    assert again.returncode == 0, again.stderr
    before = rates_taken(finished[0])
    for network in results_of(folder)["networks"]:
        name, first = network["name"], before[network["name"]]
        by_loss = sorted(network["trials"], key=lambda trial: trial["validation_loss"])
        rates = [trial["learning_rate"] for trial in by_loss]
        assert rates[0] == first
        assert f"{name} ended worse than its trial with learning rate {first:.3g}" in again.stderr
        number = sorted(rates).index(first)
        assert (folder / "trials" / f"{name}-{number}-run" / "best.safetensors").exists()
        assert network["fell_apart"] == rates[: len(network["fell_apart"])]
        assert network["learning_rate"] == rates[len(network["fell_apart"])]
        run = json.loads((folder / network["runs"][0]["folder"] / "run.json").read_text())
        assert run["plan"]["learning_rate"] == network["learning_rate"]
    assert any("ended less accurate" in remark for remark in results_of(folder)["remarks"])
    # After a kill before the results are written, it continues with the recorded rate.
    results = results_of(folder)
    (folder / "results.json").unlink()
    again = towernet("compare", photos, *WORDS, "--out", folder)
    assert again.returncode == 0 and "worse than its trial" not in again.stderr
    assert results_of(folder) == results


def test_a_first_run_as_good_as_its_trial_keeps_its_rate(towernet, finished, photos, tmp_path):
    folder = with_accuracies(
        finished[0], tmp_path / "as good", of_trials=1.0, of_runs=4 / 6
    )  # Wilson: 0.61 to 1
    assert towernet("compare", photos, *WORDS, "--out", folder).returncode == 0
    assert rates_taken(folder) == rates_taken(finished[0])
    assert not any(network["fell_apart"] for network in results_of(folder)["networks"])
    assert all(network["rate_by_trials"] for network in results_of(folder)["networks"])


@pytest.mark.proof
def test_trials_no_better_than_guessing_keep_the_recipes_rate(towernet, finished, photos, tmp_path):
    """For any losses of the trials: here the highest rate has the lowest."""
    folder = with_accuracies(finished[0], tmp_path / "guessing", of_trials=1 / 3, of_runs=1.0)
    events = [json.loads(line) for line in _lines(folder / "ledger.jsonl")]
    for event in events:
        if event["event"] == "trial":
            event["validation_loss"] = 0.02 / event["learning_rate"]  # 1.2, 0.4, 0.13
    (folder / "ledger.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in events))
    shutil.rmtree(folder / "runs")
    done = towernet("compare", photos, *WORDS, "--out", folder)
    assert done.returncode == 0, done.stderr
    for network in results_of(folder)["networks"]:
        assert network["rate_by_trials"] is False
        assert [*network["fell_apart"], network["learning_rate"]][0] == 0.05
    printed = " ".join(done.stdout.split())
    assert f"No short trial of {TINY_NETWORK} or {OTHER_NETWORK} beat" in printed or (
        f"No short trial of {OTHER_NETWORK} or {TINY_NETWORK} beat" in printed
    )
    assert "The learning rate is therefore 0.05" in printed


@pytest.mark.proof
def test_a_rate_with_which_the_first_run_diverges_is_replaced_by_the_next_best(
    towernet, photos, tmp_path
):
    recipe = tmp_path / "hot.toml"
    recipe.write_text("[train]\nlearning_rate = 0.05\ntrial_factors = [1.0, 2e15]\n")
    words = ("compare", photos, "--models", OTHER_NETWORK, "--epochs", 4, "--size", 32,
             "--batch-size", 8, "--recipe", recipe, "--out")  # fmt: skip
    cool, folder = tmp_path / "cool", tmp_path / "hot"
    assert towernet(*words, cool).returncode == 0
    # As if the trial of 1e14 had been the best instead of diverging.
    shutil.copytree(cool, folder)
    shutil.rmtree(folder / "runs")
    (folder / "results.json").unlink()
    events = [json.loads(line) for line in _lines(folder / "ledger.jsonl")]
    events = [event for event in events if not event["event"].startswith("rate ")]
    hot = next(event for event in events if event.get("learning_rate") == 1e14)
    assert hot["validation_loss"] is None and "the loss became" in hot["reason"]
    hot |= {"validation_loss": 0.0, "validation_accuracy": 1.0, "reason": None}
    (folder / "ledger.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in events))
    again = towernet(*words, folder)
    assert again.returncode == 0, again.stderr
    assert f"{OTHER_NETWORK} diverged with learning rate 1e+14; retrying with 0.05" in again.stderr
    assert "failed" not in again.stderr
    (network,) = results_of(folder)["networks"]
    assert network["status"] != "failed" and network["fell_apart"] == [1e14]
    weights = Path(network["runs"][0]["folder"]) / "best.safetensors"
    assert (folder / weights).read_bytes() == (cool / weights).read_bytes()
    before = exact_files(folder)
    for instant in ("before it was recorded", "before the run was moved"):
        killed = tmp_path / instant
        shutil.copytree(folder, killed)
        (killed / "results.json").unlink()
        events = [json.loads(line) for line in _lines(killed / "ledger.jsonl")]
        if instant == "before it was recorded":
            events = [event for event in events if event["event"] != "rate fell apart"]
        (killed / "ledger.jsonl").write_text("".join(f"{json.dumps(e)}\n" for e in events))
        shutil.rmtree(killed / network["runs"][0]["folder"])
        (killed / "trials" / f"{OTHER_NETWORK}-1-run").rename(killed / network["runs"][0]["folder"])
        again = towernet(*words, killed)
        assert again.returncode == 0, again.stderr
        assert exact_files(killed) == before, instant

"""Evaluating a trained run on labelled images: the figures, the locked test split, messages."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from conftest import TINY_NETWORK, run_towernet

USAGE, DATA = 2, 3
CLASSES = ("leaning", "lying", "standing")
NETWORK = "towernet_patch"  # learns these images in a second, but makes some mistakes
WORDS = (
    "--models", NETWORK, "--epochs", 3, "--size", 64, "--batch-size", 8, "--workers", 1,
    "--threads", 1,
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(photos, tmp_path_factory):
    """A finished comparison of one network: 27 training, 6 validation and 9 test images."""
    folder = tmp_path_factory.mktemp("finished") / "comparison"
    done = run_towernet("compare", photos, *WORDS, "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def comparison(finished, tmp_path):
    """A copy whose ledger a test can change."""
    return Path(shutil.copytree(finished, tmp_path / "comparison"))


@pytest.fixture
def run(comparison):
    """The folder of the comparison's run."""
    return comparison / "runs" / f"{NETWORK}-0"


@pytest.fixture
def evaluated(towernet):
    """Return a function that runs the command, which must succeed, and returns its JSON."""

    def evaluate(*words):
        done = towernet("evaluate", *words, "--workers", 1, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return evaluate


@pytest.fixture
def refused(towernet):
    """Return a function that runs the command, which must fail with one error line."""

    def evaluate(words, exit_code, message):
        done = towernet("evaluate", *words, "--workers", 1)
        assert done.returncode == exit_code, done.stderr
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, done.stderr
        assert message in errors[0]
        assert (done.stdout, done.stderr.splitlines()[-1]) == ("", errors[0])

    return evaluate


def later_looks(comparison: Path) -> list[dict]:
    events = [json.loads(line) for line in (comparison / "ledger.jsonl").read_text().splitlines()]
    return [event for event in events if event["event"] == "test split looked at again"]


def paths_of(run: Path, split: str) -> list[str]:
    from towernet.data.table import read_table

    table = read_table(run / "samples.parquet")
    return table.path[table.split == split].tolist()


def some_of(photos: Path, paths: list[str], folder: Path) -> Path:
    """Copy some images into another folder."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photos / path, folder / path)
    return folder


def with_one_more_byte(folder: Path) -> Path:
    """Change the bytes of all images, but not how they look."""
    for path in folder.rglob("*.png"):
        path.write_bytes(path.read_bytes() + b"\0")
    return folder


def table_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


# --- the figures


def test_the_test_split_reproduces_the_figures_of_the_comparison(
    evaluated, comparison, run, photos, tmp_path
):
    from towernet.data.table import read_frame

    written = tmp_path / "answers.csv"
    found = evaluated(comparison, photos, "--split", "test", "--predictions", written)
    network = json.loads((comparison / "results.json").read_text())["results"]["networks"][0]
    for key in ("accuracy", "interval", "macro_f1", "per_class"):
        assert found[key] == network[key], key
    for key in ("temperature", "calibration_error", "bands", "threshold", "coverage"):
        assert found[key] == network["calibration"][key], key
    recorded = read_frame(run / "predictions.parquet").to_dict("list")
    answers = table_of(written)
    assert list(answers[0]) == list(recorded)
    for key, values in recorded.items():
        assert [type(values[0])(answer[key]) for answer in answers] == values, key
    assert found["run"] == str(run)
    assert found["predictions"] == str(written)


def test_the_figures_agree_with_scikit_learn(evaluated, comparison, photos, tmp_path):
    from sklearn import metrics

    paths = sorted(photos.rglob("*.png"))
    labels = {str(path): path.parent.name for path in paths}
    for i, path in enumerate(paths[::4]):  # wrong labels, so that there are mistakes
        labels[str(path)] = CLASSES[i % 2]
    lines = [f"{path},{label}" for path, label in labels.items()]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *lines]))
    written = tmp_path / "answers.csv"
    found = evaluated(
        comparison, tmp_path / "labels.csv", "--split", "all", "--predictions", written
    )
    answers = table_of(written)
    true, predicted = ([answer[key] for answer in answers] for key in ("class_name", "predicted"))
    assert {answer["path"]: answer["class_name"] for answer in answers} == labels
    assert 3 < sum(map(str.__ne__, true, predicted)) < 39
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(true, predicted))
    assert found["num_right"] == sum(map(str.__eq__, true, predicted))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(true, predicted, average="macro"))
    wanted = metrics.precision_recall_fscore_support(
        true, predicted, labels=CLASSES, zero_division=0
    )
    for i, key in enumerate(("precision", "recall", "f1", "num_images")):
        assert [row[key] for row in found["per_class"]] == pytest.approx(list(wanted[i])), key
    confusion = metrics.confusion_matrix(true, predicted, labels=CLASSES)
    np.fill_diagonal(confusion, 0)
    mistakes = {(row["class_name"], row["predicted"]): row["num_images"]
                for row in found["confusions"]}  # fmt: skip
    assert mistakes == {
        (CLASSES[i], CLASSES[j]): num for (i, j), num in np.ndenumerate(confusion) if num
    }
    counts = [row["num_images"] for row in found["confusions"]]
    assert counts == sorted(counts, reverse=True)
    confidence = np.array([float(answer["confidence"]) for answer in answers])
    right = np.array(true) == np.array(predicted)
    gaps = [abs((confidence - right)[(confidence * 15).astype(int).clip(0, 14) == i].sum())
            for i in range(15)]  # fmt: skip
    assert found["calibration_error"] == pytest.approx(sum(gaps) / 42)


def test_tied_images_widen_the_interval(evaluated, comparison, photos, tmp_path):
    from towernet.comparison.judging.scores import accuracy_interval, wilson

    paths = sorted(photos.rglob("*.png"))
    lines = [f"{path},{path.parent.name},{i // 7}" for i, path in enumerate(paths)]
    (tmp_path / "grouped.csv").write_text("\n".join(["path,label,group", *lines]))
    written = tmp_path / "answers.csv"
    found = evaluated(
        comparison, tmp_path / "grouped.csv", "--split", "all", "--predictions", written
    )
    answers = {answer["path"]: answer for answer in table_of(written)}
    right = np.array([answers[str(p)]["predicted"] == p.parent.name for p in paths])
    wanted = accuracy_interval(right[None], np.arange(42) // 7)
    assert found["interval"] == pytest.approx(wanted)
    low, high = wilson(float(right.mean()), 42)
    assert found["interval"][1] - found["interval"][0] > high - low


def test_the_output_contains_all_figures(towernet, comparison, photos, tmp_path):
    written = tmp_path / "answers.csv"
    done = towernet("evaluate", comparison, photos, "--predictions", written, "--workers", 1)
    assert done.returncode == 0, done.stderr
    network = json.loads((comparison / "results.json").read_text())["results"]["networks"][0]
    low, high = network["interval"]
    printed = " ".join(done.stdout.split())
    assert f"accuracy {100 * network['accuracy']:.1f} % (" in printed
    assert f"95 % interval {100 * low:.1f} % to {100 * high:.1f} %)" in printed
    assert f"macro F1 {100 * network['macro_f1']:.1f} %" in printed
    assert f"images 9 of {photos.name}, in its test split" in printed
    for row in network["per_class"]:
        assert f"{row['class_name']} 3 " in printed
    left_out = "27 in its training split and 6 in its validation split"
    assert f"33 of 42 images are left out: {left_out}; --split all includes them" in printed
    assert printed.endswith(f"predictions {written}")
    assert "I read this as 3 classes" in done.stderr
    assert "predicting: 9" in done.stderr


# --- which images


@pytest.mark.parametrize(
    ("split", "evaluated_images", "remark"),
    [
        ("unseen", {"test": 9}, ""),
        ("test", {"test": 9}, ""),
        ("validation", {"validation": 6},
         "These images are in its validation split: the figures are too optimistic."),
        ("train", {"train": 27},
         "These images are in its training split: the figures are too optimistic."),
        ("all", {"train": 27, "validation": 6, "test": 9},
         "These 42 images include 27 in its training split and 6 in its validation split: the"
         " figures are too optimistic."),
    ],
)  # fmt: skip
def test_each_split_selects_its_images(
    evaluated, comparison, photos, split, evaluated_images, remark
):
    found = evaluated(comparison, photos, "--split", split)
    assert found["asked"] == evaluated_images
    assert sum(evaluated_images.values()) + sum(found["left_out"].values()) == 42
    assert found["num_images"] == sum(row["num_images"] for row in found["per_class"])
    optimistic = [each for each in found["remarks"] if "too optimistic" in each]
    assert optimistic == ([remark] if remark else [])
    assert (found["later_looks"] is None) == ("test" not in evaluated_images)


def test_images_with_an_extra_byte_are_new(evaluated, comparison, run, photos, tmp_path):
    images = with_one_more_byte(some_of(photos, paths_of(run, "train"), tmp_path / "images"))
    found = evaluated(comparison, images)
    assert (found["asked"], found["left_out"]) == ({"unknown": 27}, {})
    assert later_looks(comparison) == []
    assert found["accuracy"] == evaluated(comparison, photos, "--split", "train")["accuracy"]


def test_duplicates_of_training_images_are_left_out(evaluated, comparison, run, photos, tmp_path):
    images = some_of(photos, paths_of(run, "test"), tmp_path / "images")
    first, second = paths_of(run, "train")[:2]
    some_of(photos, [first], images)
    twin = images / first.replace(".png", "-twin.png")
    twin.write_bytes((photos / first).read_bytes() + b"\0")
    alone = images / second
    alone.write_bytes((photos / second).read_bytes() + b"\0")
    found = evaluated(comparison, images)
    assert found["asked"] == {"test": 9, "unknown": 1}
    assert found["left_out"] == {"train": 1, "tied": 1}
    everything = evaluated(comparison, images, "--split", "all")
    assert everything["asked"] == {"train": 1, "tied": 1, "test": 9, "unknown": 1}
    assert "include 1 in its training split and 1 tied to its training" in everything["remarks"][0]


def test_images_removed_from_a_runs_data_are_not_new_to_it(evaluated, comparison, run, photos):
    from towernet.data.table import read_table, write_table

    table = read_table(run / "samples.parquet").astype(object)
    row = table.index[table.split == "train"][0]
    table.loc[row, ["status", "reason", "split"]] = ["quarantined", "GONE", ""]
    for column in ("num_bytes", "width", "height"):
        table[column] = table[column].astype(int)
    write_table(run / "samples.parquet", table)
    found = evaluated(comparison, photos)
    assert found["left_out"] == {"train": 26, "validation": 6, "taken_away": 1}


def test_one_class_is_enough_and_missing_ones_are_listed(evaluated, comparison, photos, tmp_path):
    shutil.copytree(photos / "lying", tmp_path / "images" / "lying")
    found = evaluated(comparison, tmp_path / "images")
    assert found["asked"] == {"test": 3}
    assert found["classes_without_images"] == ["leaning", "standing"]
    (lacking,) = (remark for remark in found["remarks"] if "have no images" in remark)
    assert lacking.startswith("2 of its 3 classes have no images here: leaning, standing;")
    recall = next(row for row in found["per_class"] if row["class_name"] == "lying")["recall"]
    assert found["accuracy"] == recall


def test_a_class_that_the_run_does_not_know_is_refused(refused, comparison, own_photos):
    (own_photos / "lying").rename(own_photos / "sleeping")
    refused(
        [comparison, own_photos], DATA,
        "contains a class that the run in " + str(comparison / "runs" / f"{NETWORK}-0")
        + " was not trained on (sleeping); its classes are leaning, lying, standing: use images of",
    )  # fmt: skip
    assert later_looks(comparison) == []


def test_unusable_files_are_counted_and_not_changed(evaluated, refused, comparison, own_photos):
    broken = own_photos / "lying" / "03.png"
    broken.write_bytes(broken.read_bytes()[:200])
    shutil.copy(own_photos / "lying" / "05.png", own_photos / "lying" / "copy.png")
    before = {path: path.read_bytes() for path in own_photos.rglob("*.png")}
    found = evaluated(comparison, own_photos, "--split", "all")
    assert found["num_images"] == 41
    assert found["found"] == {
        "files": 43, "used": 41, "quarantined": {"TRUNCATED": 1}, "ignored": {"DUPLICATE": 1},
    }  # fmt: skip
    words = "43 files found, 41 used, 1 quarantined (TRUNCATED 1) and 1 ignored (DUPLICATE 1)"
    assert any(remark.startswith(words) for remark in found["remarks"])
    assert {path: path.read_bytes() for path in own_photos.rglob("*.png")} == before
    for path in own_photos.rglob("*.png"):
        path.write_bytes(b"<html>404</html>")
    refused([comparison, own_photos], DATA, "no file of photos can be used: 43 files found, 0 used")


def test_no_image_left_is_an_error_with_a_remedy(refused, comparison, run, photos, tmp_path):
    images = some_of(photos, paths_of(run, "train"), tmp_path / "images")
    refused(
        [comparison, images], DATA,
        "none of the 27 usable images in images is new to the run (27 in its training split); use"
        " other images, or include all with --split all",
    )  # fmt: skip
    refused(
        [comparison, images, "--split", "test"], DATA,
        "is a test image of the run (27 in its training split); use the run's own images, or",
    )  # fmt: skip


# --- the lock


def test_every_evaluation_on_test_images_is_recorded_and_reported(
    towernet, comparison, run, photos
):
    before = (comparison / "ledger.jsonl").read_bytes()
    results = (comparison / "results.json").read_bytes()
    for words, folder, times in (
        ((), comparison, "once more"),
        (("--split", "test"), run, "2 more times"),
        (("--split", "train"), run, None),
        (("--split", "all"), run, "3 more times"),
    ):
        done = towernet("evaluate", folder, photos, *words, "--workers", 1)
        assert done.returncode == 0, done.stderr
        printed = " ".join(done.stdout.split())
        if times is None:
            assert "have now been evaluated" not in printed
        else:
            assert f"have now been evaluated {times} since training ended; if you" in printed
    assert (comparison / "ledger.jsonl").read_bytes().startswith(before)
    assert [(event["run"], event["num_images"]) for event in later_looks(comparison)] == [
        (f"runs/{NETWORK}-0", 9)
    ] * 3
    assert all(event["date"].endswith("+00:00") for event in later_looks(comparison))
    assert (comparison / "results.json").read_bytes() == results
    assert not (comparison / "lock").exists()


def test_the_report_shows_later_looks(towernet, evaluated, comparison, photos):
    assert "Since then these test" not in (comparison / "report.html").read_text()
    for times in ("once more", "2 more times"):
        evaluated(comparison, photos)
        again = towernet("compare", photos, *WORDS, "--out", comparison)
        assert again.returncode == 0, again.stderr
        report = (comparison / "report.html").read_text()
        assert f"Since then these test images were evaluated {times} with" in report


def test_test_images_of_an_unfinished_comparison_stay_locked(
    refused, evaluated, comparison, run, photos, tmp_path
):
    (comparison / "results.json").unlink()
    refused([comparison, photos], DATA, "is not finished; rerun its command")
    ledger = (comparison / "ledger.jsonl").read_bytes()
    written = tmp_path / "answers.csv"
    for split in ("unseen", "test", "all"):
        refused(
            [run, photos, "--split", split, "--predictions", written], DATA,
            f"some of these images are test images of {run}, whose comparison is not finished;"
            " rerun its command to finish it, or use --split validation",
        )  # fmt: skip
    assert not written.exists()
    assert evaluated(run, photos, "--split", "validation")["asked"] == {"validation": 6}
    images = with_one_more_byte(some_of(photos, paths_of(run, "train"), tmp_path / "images"))
    assert evaluated(run, images)["asked"] == {"unknown": 27}
    assert (comparison / "ledger.jsonl").read_bytes() == ledger


def test_test_images_of_a_run_outside_its_comparison_stay_locked(
    refused, evaluated, run, photos, tmp_path
):
    alone = Path(shutil.copytree(run, tmp_path / "alone"))
    refused(
        [alone, photos], DATA, "which is outside the folder of its comparison; pass it from there"
    )
    assert evaluated(alone, photos, "--split", "validation")["asked"] == {"validation": 6}


def test_a_single_run_has_its_own_ledger(refused, evaluated, finished_run, photos, tmp_path):
    alone = Path(shutil.copytree(finished_run, tmp_path / "alone"))
    results = json.loads((alone / "results.json").read_text())["results"]["networks"][0]
    for times in (1, 2):
        found = evaluated(alone, photos)
        assert (found["accuracy"], found["later_looks"]) == (results["accuracy"], times)
    assert [event["run"] for event in later_looks(alone)] == [".", "."]
    (alone / "results.json").unlink()
    refused(
        [alone, photos], DATA,
        f"test images of {alone}, which is not finished; resume it with: towernet train --resume"
        f" {alone}, or use --split validation",
    )  # fmt: skip


# --- weights from elsewhere, many classes


@pytest.fixture
def imported(tmp_path):
    """A run of 45 classes with random weights, and two images of each class."""
    import torch
    from PIL import Image

    from towernet.cli.import_weights import import_weights
    from towernet.models.catalogue import build

    names = [f"c{i:02d}" for i in range(45)]
    (tmp_path / "classes.txt").write_text("\n".join(names))
    torch.save(build(TINY_NETWORK, 45, 64).state_dict(), tmp_path / "w.pt")
    import_weights(tmp_path / "w.pt", tmp_path / "classes.txt", tmp_path / "run", TINY_NETWORK, 64)
    draw = np.random.default_rng(0)
    for name in names:
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(2):
            pixels = draw.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    return tmp_path / "run", tmp_path / "images"


def test_imported_weights_know_no_images_and_the_worst_classes_are_shown(
    towernet, evaluated, refused, imported
):
    run, images = imported
    found = evaluated(run, images)
    assert (found["asked"], found["left_out"]) == ({"unknown": 90}, {})
    assert (found["threshold"], found["answered_accuracy"], found["later_looks"]) == (None,) * 3
    assert found["remarks"] == [
        "It is not known which images these weights were trained on: if they include some of these,"
        " the figures are too optimistic."
    ]
    done = towernet("evaluate", run, images, "--workers", 1)
    assert "The 40 classes with the lowest F1 of 45:" in done.stdout
    assert "The most frequent confusions, 8 of" in done.stdout
    assert "when sure" not in done.stdout
    shown = re.findall(r"^c\d\d", done.stdout, re.MULTILINE)
    by_f1 = sorted(found["per_class"], key=lambda row: row["f1"])
    assert shown[:40] == [row["class_name"] for row in by_f1[:40]]
    assert not (run / "ledger.jsonl").exists()
    refused([run, images, "--split", "test"], DATA, "is a test image of the run (90 new to it)")


def test_nan_predictions_are_refused(refused, comparison, run, photos):
    from towernet.engine.checkpoint import read_weights, write_weights

    tensors, meta = read_weights(run / "best.safetensors")
    tensors[max(name for name in tensors if name.endswith("bias"))][:] = float("nan")
    record = json.loads((run / "run.json").read_text())
    record["weights_sha256"] = write_weights(run / "best.safetensors", tensors, meta)
    (run / "run.json").write_text(json.dumps(record))
    refused([run, photos], DATA, "predicted NaN or Inf; its weights are probably corrupt")
    assert later_looks(comparison) == []


# --- every error is one line


def test_a_run_that_cannot_be_evaluated(refused, comparison, run, photos, tmp_path):
    refused([tmp_path / "no", photos], DATA, "is not a folder; give the folder of a run")
    refused([photos, photos], DATA, "run.json does not exist")
    refused([comparison, tmp_path / "no"], DATA, "no does not exist; pass a folder")
    refused([comparison, photos, "--split", "tset"], USAGE, "Did you mean 'test'?")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("samples.parquet", "samples.parquet cannot be read"),
        ("best.safetensors", "best.safetensors was changed after the run wrote it"),
        ("run.json", "run.json cannot be read"),
        ("calibration.json", "calibration.json cannot be read"),
        ("../../ledger.jsonl", "ledger.jsonl is damaged"),
    ],
)
def test_a_damaged_file_is_named(refused, run, photos, name, message):
    content = (run / name).read_bytes()
    (run / name).write_bytes(content[: len(content) // 2])
    refused([run, photos], DATA, message)


def test_an_unknown_split_is_refused_from_python_too():
    from towernet.comparison.roles import roles_of_split
    from towernet.errors import UnknownNameError

    assert roles_of_split("unseen") == ("test", "unknown")
    with pytest.raises(
        UnknownNameError, match=r"no split is called 'tset'\. Did you mean 'test'\?"
    ):
        roles_of_split("tset")


def test_a_run_without_its_sample_table_is_refused(refused, run, photos):
    (run / "samples.parquet").unlink()
    refused([run, photos], DATA, "the list of the run's training images, is missing; restore it")


@pytest.mark.parametrize("policy", [{}, {"threads": 0}, {"threads": "x"}, {"speed": 3}, [], None])
def test_a_damaged_plan_is_refused(refused, run, photos, policy):
    record = json.loads((run / "run.json").read_text())
    if isinstance(policy, dict):
        policy = record["plan"]["policy"] | policy if policy else {}
    record["plan"]["policy"] = policy
    (run / "run.json").write_text(json.dumps(record))
    refused([run, photos], DATA, "run.json is damaged")


def test_a_value_of_the_wrong_type_is_named_with_its_path(refused, comparison, run, photos):
    record = json.loads((run / "run.json").read_text())
    for part, damaged in (("config", {"seed": "seven"}), ("contract", {"mean": [0.5]})):
        words = json.dumps(record | {part: record[part] | damaged})
        (run / "run.json").write_text(words)
        (key,) = damaged
        refused([run, photos], DATA, f"run.json is damaged ({part}.{key}")
    (run / "run.json").write_text(json.dumps(record | {"colour": 1}))
    refused([run, photos], DATA, "damaged (colour is unknown to this version); train again")
    (run / "run.json").write_text(json.dumps(record))
    written = json.loads((comparison / "results.json").read_text())
    written["results"]["winner"]["folder"] = 5
    (comparison / "results.json").write_text(json.dumps(written))
    refused([comparison, photos], DATA, "results.json is damaged (results.winner.folder is 5: ")
    assert later_looks(comparison) == []


def test_without_the_run_s_device_the_cpu_is_used(towernet, comparison, run, photos):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    record = json.loads((run / "run.json").read_text())
    record["plan"]["policy"]["device"] = "cuda"
    (run / "run.json").write_text(json.dumps(record))
    done = towernet("evaluate", comparison, photos, "--json", "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert "this machine cannot compute as the run did" in done.stderr
    network = json.loads((comparison / "results.json").read_text())["results"]["networks"][0]
    assert json.loads(done.stdout)["accuracy"] == network["accuracy"]


def test_predictions_do_not_overwrite_other_files(
    refused, evaluated, comparison, photos, own_photos, tmp_path
):
    cases = {
        tmp_path / "no" / "answers.csv": "there is no folder",
        tmp_path: "already exists with other content",
        photos / "answers.csv": "would be among the images",
        photos / "lying" / "00.png": "would be among the images",
    }
    other = tmp_path / "labels.csv"
    other.write_text("path,label\n1.png,lying\n")
    cases[other] = "already exists with other content; give another file"
    for path, message in cases.items():
        refused([comparison, photos, "--predictions", path], USAGE, message)
    assert other.read_text() == "path,label\n1.png,lying\n"
    assert later_looks(comparison) == []
    for _ in range(2):  # its own file can be replaced
        evaluated(comparison, photos, "--predictions", tmp_path / "answers.csv")
    assert len(table_of(tmp_path / "answers.csv")) == 9


def test_an_image_with_a_name_that_is_not_utf8_is_predicted(
    towernet, comparison, run, photos, tmp_path
):
    images = some_of(photos, paths_of(run, "test"), tmp_path / "images")
    first = images / paths_of(run, "test")[0]
    first.rename(os.fsdecode(os.fsencode(first.parent) + b"/caf\xe9.png"))
    written = tmp_path / "answers.csv"
    for words in ((), ("--json",)):
        done = towernet(
            "evaluate", comparison, images, "--predictions", written, "--workers", 1, *words
        )
        assert done.returncode == 0, done.stderr
    assert r"caf\udce9.png" in [answer["path"].split("/")[1] for answer in table_of(written)]

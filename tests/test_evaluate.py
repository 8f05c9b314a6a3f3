"""A trained run asked about labelled images: the figures, the locked test split, the rest."""

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
NETWORK = "towernet_patch"  # learns these images in a second, and not so well that all are right
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
    """A copy whose ledger a test may write into."""
    return Path(shutil.copytree(finished, tmp_path / "comparison"))


@pytest.fixture
def run(comparison):
    """The folder of its run."""
    return comparison / "runs" / f"{NETWORK}-0"


@pytest.fixture
def evaluated(towernet):
    """Run the command, which succeeds; return its JSON."""

    def evaluate(*words):
        done = towernet("evaluate", *words, "--workers", 1, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return evaluate


@pytest.fixture
def refused(towernet):
    """Run the command, which fails by one sentence."""

    def evaluate(words, exit_code, message):
        done = towernet("evaluate", *words, "--workers", 1)
        assert done.returncode == exit_code, done.stderr
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, done.stderr
        assert message in errors[0]
        assert (done.stdout, done.stderr.splitlines()[-1]) == ("", errors[0])

    return evaluate


def looks(comparison: Path) -> list[dict]:
    events = [json.loads(line) for line in (comparison / "ledger.jsonl").read_text().splitlines()]
    return [event for event in events if event["event"] == "test split looked at again"]


def paths_of(run: Path, split: str) -> list[str]:
    from towernet.data.table import read_table

    table = read_table(run / "samples.parquet")
    return table.path[table.split == split].tolist()


def some_of(photos: Path, paths: list[str], folder: Path) -> Path:
    """Copy some images into a folder of their own."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photos / path, folder / path)
    return folder


def with_one_more_byte(folder: Path) -> Path:
    """Make all images others by their bytes, though not to the eye."""
    for path in folder.rglob("*.png"):
        path.write_bytes(path.read_bytes() + b"\0")
    return folder


def table_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


# --- the figures


def test_the_test_split_gives_what_the_comparison_recorded(
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


def test_the_figures_are_those_of_scikit_learn(evaluated, comparison, photos, tmp_path):
    from sklearn import metrics

    paths = sorted(photos.rglob("*.png"))
    labels = {str(path): path.parent.name for path in paths}
    for i, path in enumerate(paths[::4]):  # wrong ones, so that there is something to tell
        labels[str(path)] = CLASSES[i % 2]
    lines = [f"{path},{label}" for path, label in labels.items()]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *lines]))
    written = tmp_path / "answers.csv"
    found = evaluated(
        comparison, tmp_path / "labels.csv", "--split", "all", "--predictions", written
    )
    answers = table_of(written)
    true, said = ([answer[key] for answer in answers] for key in ("class_name", "predicted"))
    assert {answer["path"]: answer["class_name"] for answer in answers} == labels
    assert 3 < sum(map(str.__ne__, true, said)) < 39
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(true, said))
    assert found["num_right"] == sum(map(str.__eq__, true, said))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(true, said, average="macro"))
    wanted = metrics.precision_recall_fscore_support(true, said, labels=CLASSES, zero_division=0)
    for i, key in enumerate(("precision", "recall", "f1", "num_images")):
        assert [row[key] for row in found["per_class"]] == pytest.approx(list(wanted[i])), key
    confusion = metrics.confusion_matrix(true, said, labels=CLASSES)
    np.fill_diagonal(confusion, 0)
    mistakes = {(row["class_name"], row["predicted"]): row["num_images"]
                for row in found["confusions"]}  # fmt: skip
    assert mistakes == {
        (CLASSES[i], CLASSES[j]): num for (i, j), num in np.ndenumerate(confusion) if num
    }
    counts = [row["num_images"] for row in found["confusions"]]
    assert counts == sorted(counts, reverse=True)
    confidence = np.array([float(answer["confidence"]) for answer in answers])
    right = np.array(true) == np.array(said)
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


def test_what_is_printed_says_it_all(towernet, comparison, photos, tmp_path):
    written = tmp_path / "answers.csv"
    done = towernet("evaluate", comparison, photos, "--predictions", written, "--workers", 1)
    assert done.returncode == 0, done.stderr
    network = json.loads((comparison / "results.json").read_text())["results"]["networks"][0]
    low, high = network["interval"]
    said = " ".join(done.stdout.split())
    assert f"accuracy {100 * network['accuracy']:.1f} % (" in said
    assert f"95 % interval {100 * low:.1f} % to {100 * high:.1f} %)" in said
    assert f"macro F1 {100 * network['macro_f1']:.1f} %" in said
    assert f"images 9 of {photos.name}, which tested it" in said
    for row in network["per_class"]:
        assert f"{row['class_name']} 3 " in said
    assert "33 of 42 images are left out: 27 trained it and 6 chose its epoch; --split all" in said
    assert said.endswith(f"predictions {written}")
    assert "I read this as 3 classes" in done.stderr
    assert "answering: 9" in done.stderr


# --- which images


@pytest.mark.parametrize(
    ("split", "asked", "flattered"),
    [
        ("unseen", {"test": 9}, ""),
        ("test", {"test": 9}, ""),
        ("validation", {"validation": 6}, "These images chose its epoch: the figures flatter"),
        ("train", {"train": 27}, "These images trained it: the figures flatter the network."),
        ("all", {"train": 27, "validation": 6, "test": 9},
         "Of these 42 images 27 trained it and 6 chose its epoch: the figures flatter"),
    ],
)  # fmt: skip
def test_each_split_asks_for_its_own(evaluated, comparison, photos, split, asked, flattered):
    found = evaluated(comparison, photos, "--split", split)
    assert found["asked"] == asked
    assert sum(asked.values()) + sum(found["left_out"].values()) == 42
    assert found["num_images"] == sum(row["num_images"] for row in found["per_class"])
    flatters = [remark for remark in found["remarks"] if "flatter" in remark]
    assert len(flatters) == bool(flattered)
    assert all(remark.startswith(flattered) for remark in flatters)
    assert (found["later_looks"] is None) == ("test" not in asked)


def test_images_with_one_byte_more_are_new(evaluated, comparison, run, photos, tmp_path):
    images = with_one_more_byte(some_of(photos, paths_of(run, "train"), tmp_path / "images"))
    found = evaluated(comparison, images)
    assert (found["asked"], found["left_out"]) == ({"unknown": 27}, {})
    assert looks(comparison) == []
    assert found["accuracy"] == evaluated(comparison, photos, "--split", "train")["accuracy"]


def test_what_duplicates_a_training_image_is_left_out(evaluated, comparison, run, photos, tmp_path):
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
    assert "1 trained it and 1 duplicated or shared a group" in everything["remarks"][0]


def test_what_was_taken_away_from_a_run_is_not_new_to_it(evaluated, comparison, run, photos):
    from towernet.data.table import read_table, write_table

    table = read_table(run / "samples.parquet").astype(object)
    row = table.index[table.split == "train"][0]
    table.loc[row, ["status", "reason", "split"]] = ["quarantined", "GONE", ""]
    for column in ("num_bytes", "width", "height"):
        table[column] = table[column].astype(int)
    write_table(run / "samples.parquet", table)
    found = evaluated(comparison, photos)
    assert found["left_out"] == {"train": 26, "validation": 6, "taken_away": 1}


def test_one_class_is_enough_and_those_that_lack_are_said(evaluated, comparison, photos, tmp_path):
    shutil.copytree(photos / "lying", tmp_path / "images" / "lying")
    found = evaluated(comparison, tmp_path / "images")
    assert found["asked"] == {"test": 3}
    assert found["classes_without_images"] == ["leaning", "standing"]
    (lacking,) = (remark for remark in found["remarks"] if "have no images" in remark)
    assert lacking.startswith("2 of the 3 classes it knows have no images here: leaning, standing;")
    recall = next(row for row in found["per_class"] if row["class_name"] == "lying")["recall"]
    assert found["accuracy"] == recall


def test_a_class_that_the_run_does_not_know_is_refused(refused, comparison, own_photos):
    (own_photos / "lying").rename(own_photos / "sleeping")
    refused(
        [comparison, own_photos], DATA,
        "holds a class that " + str(comparison / "runs" / f"{NETWORK}-0")
        + " does not know (sleeping); it knows leaning, lying, standing: give it images of those",
    )  # fmt: skip
    assert looks(comparison) == []


def test_files_that_cannot_be_used_are_counted_and_left_as_they_are(
    evaluated, refused, comparison, own_photos
):
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


def test_nothing_left_is_refused_with_what_to_do(refused, comparison, run, photos, tmp_path):
    images = some_of(photos, paths_of(run, "train"), tmp_path / "images")
    refused(
        [comparison, images], DATA,
        "none of the 27 usable images in images is new to the run (27 trained it); give other"
        " images, or count all in by --split all",
    )  # fmt: skip
    refused(
        [comparison, images, "--split", "test"], DATA,
        "is a test image of the run (27 trained it); give the run's own images, or",
    )  # fmt: skip


# --- the lock


def test_every_look_at_test_images_is_written_down_and_told(towernet, comparison, run, photos):
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
        said = " ".join(done.stdout.split())
        if times is None:
            assert "looked at" not in said
        else:
            assert f"have now been looked at {times} since they were opened; choosing by" in said
    assert (comparison / "ledger.jsonl").read_bytes().startswith(before)
    assert [(event["run"], event["num_images"]) for event in looks(comparison)] == [
        (f"runs/{NETWORK}-0", 9)
    ] * 3
    assert all(event["date"].endswith("+00:00") for event in looks(comparison))
    assert (comparison / "results.json").read_bytes() == results
    assert not (comparison / "lock").exists()


def test_the_report_shows_later_looks(towernet, evaluated, comparison, photos):
    assert "were looked at" not in (comparison / "report.html").read_text()
    for times in ("once more", "2 more times"):
        evaluated(comparison, photos)
        again = towernet("compare", photos, *WORDS, "--out", comparison)
        assert again.returncode == 0, again.stderr
        report = (comparison / "report.html").read_text()
        assert f"Since then these test images were looked at {times}, by" in report


def test_an_unfinished_comparison_keeps_its_lock(
    refused, evaluated, comparison, run, photos, tmp_path
):
    (comparison / "results.json").unlink()
    refused([comparison, photos], DATA, "is not finished; rerun its command")
    ledger = (comparison / "ledger.jsonl").read_bytes()
    written = tmp_path / "answers.csv"
    for split in ("unseen", "test", "all"):
        refused(
            [run, photos, "--split", split, "--predictions", written], DATA,
            f"some of these images are test images of {run} and stay locked until its comparison"
            " has ended; say the command of that again, or ask about others (--split validation)",
        )  # fmt: skip
    assert not written.exists()
    assert evaluated(run, photos, "--split", "validation")["asked"] == {"validation": 6}
    images = with_one_more_byte(some_of(photos, paths_of(run, "train"), tmp_path / "images"))
    assert evaluated(run, images)["asked"] == {"unknown": 27}
    assert (comparison / "ledger.jsonl").read_bytes() == ledger


def test_a_run_taken_out_of_its_comparison_keeps_the_lock(
    refused, evaluated, run, photos, tmp_path
):
    alone = Path(shutil.copytree(run, tmp_path / "alone"))
    refused([alone, photos], DATA, "until its comparison has ended, and it lies outside; give it")
    assert evaluated(alone, photos, "--split", "validation")["asked"] == {"validation": 6}


def test_a_run_trained_alone_has_its_own_ledger(refused, evaluated, finished_run, photos, tmp_path):
    alone = Path(shutil.copytree(finished_run, tmp_path / "alone"))
    results = json.loads((alone / "results.json").read_text())["results"]["networks"][0]
    for times in (1, 2):
        found = evaluated(alone, photos)
        assert (found["accuracy"], found["later_looks"]) == (results["accuracy"], times)
    assert [event["run"] for event in looks(alone)] == [".", "."]
    (alone / "results.json").unlink()
    refused(
        [alone, photos], DATA,
        f"stay locked until it is finished; go on with it by: towernet train --resume {alone}",
    )  # fmt: skip


# --- weights from elsewhere, many classes


@pytest.fixture
def imported(tmp_path):
    """A run of 45 classes with the weights of chance, and two images of each."""
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


def test_of_weights_from_elsewhere_all_images_are_new_and_the_worst_classes_are_shown(
    towernet, evaluated, refused, imported
):
    run, images = imported
    found = evaluated(run, images)
    assert (found["asked"], found["left_out"]) == ({"unknown": 90}, {})
    assert (found["threshold"], found["answered_accuracy"], found["later_looks"]) == (None,) * 3
    assert found["remarks"] == [
        "Which images trained these weights is not known: if some of these did, the figures flatter"
        " the network."
    ]
    done = towernet("evaluate", run, images, "--workers", 1)
    assert "The 40 classes with the lowest F1 of 45:" in done.stdout
    assert "The most frequent confusions, 8 of" in done.stdout
    assert "when sure" not in done.stdout
    shown = re.findall(r"^c\d\d", done.stdout, re.MULTILINE)
    by_f1 = sorted(found["per_class"], key=lambda row: row["f1"])
    assert shown[:40] == [row["class_name"] for row in by_f1[:40]]
    assert not (run / "ledger.jsonl").exists()
    refused([run, images, "--split", "test"], DATA, "is a test image of the run (90 played no")


def test_answers_that_are_no_numbers_are_refused(refused, comparison, run, photos):
    from towernet.engine.checkpoint import read_weights, write_weights

    tensors, meta = read_weights(run / "best.safetensors")
    tensors[max(name for name in tensors if name.endswith("bias"))][:] = float("nan")
    record = json.loads((run / "run.json").read_text())
    record["weights_sha256"] = write_weights(run / "best.safetensors", tensors, meta)
    (run / "run.json").write_text(json.dumps(record))
    refused([run, photos], DATA, "answers with what are no numbers")
    assert looks(comparison) == []


# --- what is wrong is one sentence


def test_a_run_that_cannot_be_asked(refused, comparison, run, photos, tmp_path):
    refused([tmp_path / "no", photos], DATA, "is not a folder; give the folder of a run")
    refused([photos, photos], DATA, "run.json does not exist")
    refused([comparison, tmp_path / "no"], DATA, "no does not exist; give a folder")
    refused([comparison, photos, "--split", "tset"], USAGE, "Did you mean 'test'?")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("samples.parquet", "samples.parquet cannot be read"),
        ("best.safetensors", "best.safetensors is not what the run wrote"),
        ("run.json", "run.json cannot be read"),
        ("calibration.json", "calibration.json cannot be read"),
        ("../../ledger.jsonl", "ledger.jsonl is damaged"),
    ],
)
def test_a_damaged_file_is_named(refused, run, photos, name, message):
    content = (run / name).read_bytes()
    (run / name).write_bytes(content[: len(content) // 2])
    refused([run, photos], DATA, message)


def test_a_split_that_there_is_not_is_refused_from_python_too():
    from towernet.comparison.roles import asked_roles
    from towernet.errors import UnknownNameError

    assert asked_roles("unseen") == ("test", "unknown")
    with pytest.raises(
        UnknownNameError, match=r"no split is called 'tset'\. Did you mean 'test'\?"
    ):
        asked_roles("tset")


def test_a_run_without_its_sample_table_is_refused(refused, run, photos):
    (run / "samples.parquet").unlink()
    refused([run, photos], DATA, "is missing, and it says which images trained the run; restore it")


@pytest.mark.parametrize("policy", [{}, {"threads": 0}, {"threads": "x"}, {"speed": 3}, [], None])
def test_a_damaged_plan_is_refused(refused, run, photos, policy):
    record = json.loads((run / "run.json").read_text())
    if isinstance(policy, dict):
        policy = record["plan"]["policy"] | policy if policy else {}
    record["plan"]["policy"] = policy
    (run / "run.json").write_text(json.dumps(record))
    refused([run, photos], DATA, "run.json is damaged")


def test_a_value_of_the_wrong_kind_is_named_with_its_place(refused, comparison, run, photos):
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
    assert looks(comparison) == []


def test_where_the_run_s_device_is_not_the_cpu_answers(towernet, comparison, run, photos):
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


def test_a_file_that_answers_had_better_not_replace(
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
    assert looks(comparison) == []
    for _ in range(2):  # its own it may
        evaluated(comparison, photos, "--predictions", tmp_path / "answers.csv")
    assert len(table_of(tmp_path / "answers.csv")) == 9


def test_a_file_whose_name_is_not_utf8_is_answered_for(towernet, comparison, run, photos, tmp_path):
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

"""The learning curve: the shares of images, the conclusion, and the command."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from shutil import rmtree

import numpy as np
import pandas as pd
import pytest

from conftest import TINY_NETWORK
from towernet import files
from towernet.data.prepare import Dataset, Part
from towernet.data.table import read_table
from towernet.errors import USAGE
from towernet.records.contract import Contract

NUM_TEST = 300
NETWORK = "towernet_patch"  # learns something in a few steps


@pytest.fixture(scope="module")
def dataset():
    """Three classes, 200, 40 and 3 training images, and 300 test images."""
    labels = np.repeat([0, 1, 2], [200, 40, 3])
    rows = np.arange(len(labels))
    keys = np.random.default_rng(0).integers(0, 2**62, len(labels)).astype(np.uint64)
    train = Part(rows, labels, keys, tuple(map(str, rows)))
    test_rows = len(labels) + np.arange(NUM_TEST)
    test = Part(
        test_rows,
        np.arange(NUM_TEST) % 3,
        test_rows.astype(np.uint64),
        tuple(map(str, test_rows)),
    )
    nothing = Part(rows[:0], labels[:0], keys[:0], ())
    columns = {
        "path": [str(i) for i in range(543)],
        "split": ["train"] * 243 + ["test"] * NUM_TEST,
        "status": "used",
        "cluster": "",
        "group": "",
    }
    table = pd.DataFrame(columns, dtype=object)
    contract = Contract(("a", "b", "c"), 8, "crop", (0.5,) * 3, (0.2,) * 3, (255, 255, 255))
    pixels = np.zeros((543, 8, 8, 3), np.uint8)
    return Dataset(table, contract, train, nothing, test, lambda: pixels, lambda: pixels)


def test_a_share_is_of_each_class_and_included_in_a_larger_share(dataset):
    quarter, half = (
        dataset.with_train_share(share, seed=0, repetition=0).train for share in (0.25, 0.5)
    )
    assert np.bincount(quarter.labels).tolist() == [50, 10, 1]
    assert np.bincount(half.labels).tolist() == [100, 20, 2]
    assert set(quarter.paths) < set(half.paths) < set(dataset.train.paths)
    assert list(half.rows) == sorted(half.rows)
    assert [int(path) for path in half.paths] == half.rows.tolist()
    for seed, repetition in ((1, 0), (0, 1)):
        other = dataset.with_train_share(0.5, seed=seed, repetition=repetition).train
        assert set(other.paths) != set(half.paths)
    whole = dataset.with_train_share(1.0, seed=0, repetition=0)
    assert whole.train.paths == dataset.train.paths
    assert whole.table.split.tolist() == dataset.table.split.tolist()


def test_images_left_out_are_in_no_split(dataset):
    part = dataset.with_train_share(0.5, seed=0, repetition=0)
    assert Counter(part.table.split) == {"train": 122, "": 121, "test": NUM_TEST}
    assert set(part.table.path[part.table.split == "train"]) == set(part.train.paths)
    assert Counter(dataset.table.split) == {"train": 243, "test": NUM_TEST}


def test_groups_stay_whole(dataset):
    """Twenty images of each person: a half has all images of half the people, not half of each."""
    group = [f"person {i // 20}" if i < 240 else "" for i in range(543)]
    grouped = replace(dataset, table=dataset.table.assign(group=group))
    kept = grouped.with_train_share(0.5, seed=0, repetition=0).train
    persons = Counter(i // 20 for i in kept.rows if i < 240)
    assert set(persons.values()) == {20}
    assert len(persons) == 6


def answers(accuracies, *, num_runs=8, seed=0):
    """Which images each run got right, by share: hard images need a high accuracy."""
    chance = np.random.default_rng(seed)
    ease = chance.permutation(np.linspace(0, 1, NUM_TEST))
    return {
        share: [
            ease + chance.normal(0, 0.03, NUM_TEST) < accuracy + chance.normal(0, 0.003)
            for _ in range(num_runs)
        ]
        for share, accuracy in accuracies.items()
    }


@pytest.mark.parametrize(
    ("accuracies", "num_runs", "conclusion"),
    [
        ({0.25: 0.5, 0.5: 0.65, 1.0: 0.8}, 8, "More images would probably help. With 243 training"),
        ({0.25: 0.8, 0.5: 0.8, 1.0: 0.7}, 8, "More images did not help. With 243"),
        ({0.25: 0.7, 0.5: 0.8, 1.0: 0.801}, 8, "It is not shown whether more images would help."),
        ({0.25: 0.5, 0.5: 0.65, 1.0: 0.8}, 3, "3 runs are too few to show"),
    ],
)
def test_the_conclusion(dataset, accuracies, num_runs, conclusion):
    from towernet.comparison.judging.learning_curve import learning_curve

    found = learning_curve("net", answers(accuracies, num_runs=num_runs), dataset, 0, 0.005)
    assert found.sentence.startswith(conclusion)
    assert [point.num_images for point in found.points] == [61, 122, 243]
    for point, accuracy in zip(found.points, accuracies.values(), strict=True):
        assert point.interval[0] < point.accuracy < point.interval[1]
        assert point.accuracy == pytest.approx(accuracy, abs=0.06)


def test_the_sentence_says_hardly_if_the_whole_interval_is_small(dataset):
    from towernet.comparison.judging.learning_curve import learning_curve

    found = learning_curve("net", answers({0.25: 0.5, 0.5: 0.8, 1.0: 0.8}), dataset, 0, 0.1)
    assert found.sentence.startswith("More images would hardly help.")
    assert found.sentence.endswith("which is within ±10 points.")


def test_only_the_class_that_gains_is_named(dataset):
    from towernet.comparison.judging.learning_curve import learning_curve

    right = answers({0.25: 0.8, 0.5: 0.8, 1.0: 0.8}, num_runs=10)
    is_c = dataset.final.labels == 2
    for run in right[0.5]:
        run[is_c] &= np.random.default_rng(1).random(is_c.sum()) < 0.4
    found = learning_curve("net", right, dataset, 0, 0.005)
    assert [row.class_name for row in found.classes if row.is_shown] == ["c"]
    assert found.classes[0].class_name == "c"
    assert found.classes[0].num_train == 3
    assert found.sentence.endswith("Classes that gained most: c.")
    assert found.runs_for_classes is None


def test_too_few_runs_to_judge_classes_are_reported(dataset):
    from towernet.comparison.judging.learning_curve import learning_curve

    right = answers({0.25: 0.5, 0.5: 0.65, 1.0: 0.8}, num_runs=6)
    found = learning_curve("net", right, dataset, 0, 0.005)
    assert found.runs_for_classes == 7
    assert not any(row.is_shown for row in found.classes)


def test_with_one_run_the_sentence_is_about_two_models(dataset):
    from towernet.comparison.judging.learning_curve import learning_curve

    right = answers({0.5: 0.65, 1.0: 0.8}, num_runs=1)
    found = learning_curve("net", right, dataset, 0, 0.005)
    assert "(one trained model each)" in found.sentence
    assert [point.num_images for point in found.points] == [122, 243]


@pytest.mark.proof
def test_the_command_trains_the_best_network_on_fewer_images(towernet, photos, tmp_path):
    folder = tmp_path / "comparison"
    words = ("compare", photos, "--models", NETWORK, "--epochs", 6, "--size", 64,
             "--batch-size", 8, "--workers", 1, "--runs", 2, "--out", folder)  # fmt: skip
    done = towernet(*words, "--learning-curve")
    assert done.returncode == 0, done.stderr
    results = files.read_json(folder / "results.json")["results"]
    curve = results["learning_curve"]
    assert curve["network"] == NETWORK
    num_train = results["num_images"]["train"]
    assert [point["num_images"] for point in curve["points"]][-1] == num_train
    assert curve["points"][-1]["accuracy"] == results["networks"][0]["accuracy"]
    for share in (25, 50):
        for k in (0, 1):
            run = files.read_json(folder / "runs" / f"{NETWORK}-{k}-{share}-percent" / "run.json")
            assert run["config"]["train_share"] == share / 100
            assert run["plan"]["num_steps"] == results["networks"][0]["steps"]
    assert "2 runs are too few to show whether more images would help" in " ".join(
        done.stdout.split()
    )
    page = (folder / "report.html").read_text()
    assert "Would more images help?" in page
    parts = [
        read_table(folder / "runs" / f"{NETWORK}-{k}-50-percent" / "samples.parquet")
        for k in (0, 1)
    ]
    trained = [set(table.path[table.split == "train"]) for table in parts]
    assert len(trained[0]) < num_train
    assert trained[0] != trained[1]
    before = (folder / "results.json").read_bytes()
    assert towernet(*words, "--learning-curve").returncode == 0
    assert (folder / "results.json").read_bytes() == before
    refused = towernet(*words)
    assert refused.returncode == USAGE
    assert "learning_curve: True → False" in refused.stderr
    # After a kill before the last run, it gives the same bytes.
    last = folder / "runs" / f"{NETWORK}-1-25-percent"
    weights = (last / "best.safetensors").read_bytes()
    (folder / "results.json").unlink()
    rmtree(last)
    assert towernet(*words, "--learning-curve").returncode == 0
    assert (last / "best.safetensors").read_bytes() == weights
    again = files.read_json(folder / "results.json")["results"]
    assert again == results


def test_a_learning_curve_without_a_test_split_is_refused(towernet, photos, tmp_path):
    words = ("--models", TINY_NETWORK, "--recipe", "notebook", "--size", 64, "--epochs", 1)
    done = towernet("compare", photos, *words, "--learning-curve", "--out", tmp_path / "out")
    assert done.returncode == USAGE
    assert "--learning-curve needs a test split" in done.stderr

"""Few training images of each class: which are drawn, how long a run is, who would catch up."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import towernet
from conftest import TINY_NETWORK, run_towernet
from made_results import changed
from report_folder import PLAIN_NAMES, Digits, build, with_starts
from test_learning_curve import dataset as dataset
from test_report import check_inert, check_readable
from test_starts_words import BASE, FROZEN, TUNED
from towernet import files, rng
from towernet.comparison.judging.shots import shots_curve
from towernet.comparison.wording.shots import catching_up, images_needed
from towernet.contestants import shots_of
from towernet.data.prepare import Dataset
from towernet.data.table import read_table
from towernet.engine.batches import steps_per_epoch
from towernet.errors import ConfigError
from towernet.names import NetworkName
from towernet.records.base import read_record
from towernet.records.results import Conclusion, Results, Shots, ShotsCurve, ShotsPoint
from towernet.report.page import write_report


def with_clusters(dataset: Dataset) -> Dataset:
    """The same images, where the first hundred of the first class are near duplicates."""
    table = dataset.table.copy()
    table.loc[:99, "cluster"] = "burst"
    return replace(dataset, table=table)


def check_images_are_drawn(draw: Callable[[Dataset, int, int], Dataset], dataset: Dataset) -> None:
    """So many of each class, nested, drawn again for each run, near duplicates counted once."""
    tied = with_clusters(dataset)
    before: set[str] = set()
    for num, sizes in ((1, [1, 1, 1]), (3, [3, 3, 3]), (20, [20, 20, 3]), (101, [101, 40, 3])):
        part = draw(tied, num, 0)
        assert np.bincount(part.train.labels).tolist() == sizes
        assert before < set(part.train.paths)
        before = set(part.train.paths)
        of_burst = sum(int(path) < 100 for path in part.train.paths)
        assert of_burst <= 1, "near duplicates show nothing else"
        assert set(part.table.path[part.table.split == "train"]) == before
        assert list(part.train.rows) == sorted(part.train.rows)
    assert set(draw(tied, 20, 1).train.paths) != set(draw(tied, 20, 0).train.paths)
    # More than there are that are not tied: then also the others.
    assert np.bincount(draw(tied, 150, 0).train.labels).tolist() == [150, 40, 3]


def test_so_many_images_of_each_class_are_drawn(dataset):
    check_images_are_drawn(lambda of, num, k: of.with_shots(num, seed=0, repetition=k), dataset)


def test_the_check_of_drawn_images_rejects_one_that_ignores_near_duplicates(dataset):
    def ignorant(of: Dataset, num: int, repetition: int) -> Dataset:
        alone = replace(of, table=of.table.assign(cluster=""))
        part = alone.with_shots(num, seed=0, repetition=repetition)
        return replace(part, table=of.table.assign(split=part.table.split))

    with pytest.raises(AssertionError, match="near duplicates"):
        check_images_are_drawn(ignorant, dataset)


def test_an_epoch_on_few_images_is_as_long_as_one_on_all(dataset):
    few = dataset.with_shots(3, seed=0, repetition=0)
    again = few.repeated(len(dataset.train))
    assert len(again.train) == 27 * 9 == 243
    assert steps_per_epoch(len(again.train), 32) == steps_per_epoch(len(dataset.train), 32)
    assert set(Counter(again.train.paths).values()) == {27}
    assert again.train.keys[:9].tolist() == few.train.keys.tolist()
    assert len(set(again.train.keys.tolist())) == 243, "each time has its own draws"
    drawn = rng.uniform(0, 0, again.train.keys, "crop")[:, 0]
    assert len(set(drawn.tolist())) == 243
    for row, label, path in zip(
        again.train.rows, again.train.labels, again.train.paths, strict=True
    ):
        assert path == str(row)
        assert label == dataset.train.labels[row]
    assert again.table is few.table
    assert len(few.repeated(5).train) == 9


@pytest.mark.parametrize(
    ("shots", "found"),
    [
        (None, ()),
        ("1,3,20", (1, 3, 20)),
        ("5", (5,)),
        ([10, 2], (2, 10)),
        (" 3 , 1", (1, 3)),
        (5, (5,)),
    ],
)
def test_numbers_of_images_are_read(shots, found):
    assert shots_of(shots) == found


@pytest.mark.parametrize(
    ("shots", "said"),
    [
        ("", "--shots has ''; give numbers of images of each class, such as 1,3,5,10,20"),
        ("1,0", "--shots has '0'; give numbers"),
        ("1,2.5", "--shots has '2.5'; give numbers"),
        ("3,x", "--shots has 'x'; give numbers"),
        (0, "--shots has '0'; give numbers"),
        ("3,1,3", "--shots names 3 twice"),
        ("9" * 5000, "--shots has '99999999999999999999'; give numbers"),
    ],
)
def test_other_numbers_are_refused(shots, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        shots_of(shots)


def test_numbers_that_take_all_images_are_refused_before_training(photos, tmp_path):
    """A class has 9 training images: with 9 of each the whole run would be trained again."""
    options = {"models": TINY_NETWORK, "epochs": 1, "size": 32, "out": tmp_path / "out"}
    with pytest.raises(ConfigError, match=r"^--shots has 9, and no class has more than 9 training"):
        towernet.compare(photos, shots=(3, 9, 50), **options)
    assert not list((tmp_path / "out").rglob("run.json"))


def points(accuracy_of: Callable[[int], float], numbers: tuple[int, ...]) -> list[ShotsPoint]:
    return [
        ShotsPoint(num_images=num, accuracy=accuracy_of(num), interval=(0.0, 1.0), runs=(0.5,))
        for num in numbers
    ]


def doubling(num: float) -> float:
    """Accuracy that rises by 5 points with each doubling."""
    return 0.5 + 0.05 * math.log2(num)


def check_needed(needed: Callable[[list[ShotsPoint], float], int | None]) -> None:
    """The planted curve is read back: between points, beyond them, and not beyond twice of them."""
    curve = points(doubling, (1, 4, 16))
    for num in (1, 2, 4, 8, 11, 16, 25, 32):
        assert needed(curve, doubling(num)) == num
    assert needed(curve, doubling(33)) is None
    assert needed(curve, 0.3) == 1
    flat = points(lambda num: min(doubling(num), doubling(4)), (1, 4, 16))
    assert needed(flat, doubling(5)) is None
    assert needed(points(doubling, (4,)), doubling(5)) is None


def test_images_needed_are_read_off_the_curve():
    check_needed(images_needed)


def test_the_check_of_images_needed_rejects_straight_lines_and_no_limit():
    def straight(curve: list[ShotsPoint], accuracy: float) -> int | None:
        numbers, accuracies = [p.num_images for p in curve], [p.accuracy for p in curve]
        return round(float(np.interp(accuracy, accuracies, numbers)))

    def without_limit(curve: list[ShotsPoint], accuracy: float) -> int | None:
        return round(2 ** ((accuracy - 0.5) / 0.05))

    for wrong in (straight, without_limit):
        with pytest.raises(AssertionError):
            check_needed(wrong)


def a_curve(name: str, accuracy_of: Callable[[int], float], numbers: tuple[int, ...]) -> ShotsCurve:
    return ShotsCurve(network=NetworkName(name), points=tuple(points(accuracy_of, numbers)))


def replace_first(curve: ShotsCurve, **values: int) -> ShotsCurve:
    first, *rest = curve.points
    return curve.model_copy(update={"points": (first.model_copy(update=values), *rest)})


def test_the_sentence_says_how_many_images_scratch_would_need():
    scratch = a_curve(BASE, doubling, (1, 4, 16))
    frozen = a_curve(FROZEN, lambda num: doubling(20 * num), (1, 4, 16))
    other = a_curve("vgg19", doubling, (1, 4, 16))
    assert catching_up([frozen, scratch, other]) == (
        "For the 71.6 % that mobilenet_v2/frozen gets with 1 training image of each class,"
        " mobilenet_v2 from scratch would need about 20; for the 91.6 % with 16, more (not within"
        " 32).",
    )
    slower = a_curve(TUNED, lambda num: 0.4, (1, 4))
    assert catching_up([scratch, slower]) == (
        "For the 40.0 % that mobilenet_v2/finetuned gets with 1 training image of each class,"
        " mobilenet_v2 from scratch would need at most 1; for the 40.0 % with 4, at most 1.",
    )
    assert catching_up([frozen, other]) == ()
    fewer = replace_first(frozen, num_images=3, most=4)
    assert "gets with at most 4 training images of each class" in catching_up([fewer, scratch])[0]
    nothing = ShotsCurve(network=NetworkName(BASE), points=())
    assert catching_up([frozen, nothing]) == ()


def test_a_curve_has_the_accuracies_of_its_runs(dataset):
    draw = np.random.default_rng(0)
    right = {num: [draw.random(300) < accuracy for _ in range(3)]
             for num, accuracy in ((5, 0.7), (None, 0.9), (1, 0.5))}  # fmt: skip
    found = shots_curve(NetworkName(FROZEN), right, {3: "the loss is not finite"}, dataset)
    # One class has only 3 images.
    assert [(point.num_images, point.most, point.is_all) for point in found.points] == [
        (1, None, False), (4, 5, False), (81, None, True),
    ]  # fmt: skip
    for point, num in zip(found.points, (1, 5, None), strict=True):
        assert point.runs == tuple(float(run.mean()) for run in right[num])
        assert point.interval[0] < point.accuracy < point.interval[1]
    assert found.failures == ("3 of each class: the loss is not finite",)
    balanced = shots_curve(NetworkName(FROZEN), right, {}, dataset, "balanced")
    assert balanced.points[0].accuracy == pytest.approx(
        np.mean([[run[k::3].mean() for k in range(3)] for run in right[1]])
    )


def test_the_report_draws_the_curves(tmp_path):
    digits = Digits(PLAIN_NAMES)
    build(tmp_path, digits)
    with_starts(tmp_path)
    conclusion = read_record(tmp_path / "results.json", Conclusion)
    curves = (
        a_curve(FROZEN, lambda num: doubling(20 * num), (1, 4, 16)),
        a_curve(BASE, doubling, (1, 4, 16)),
        ShotsCurve(network=NetworkName(TUNED), points=(), failures=("1 of each class: no",)),
    )
    shots = Shots(curves=curves, sentences=catching_up(curves))
    results = Results(**dict(conclusion.results.model_copy(update={"shots": shots})))
    files.write_json(tmp_path / "results.json", changed(conclusion, results=results).model_dump())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the command would print them
        write_report(tmp_path, picture=digits.pictures.get)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    check_inert(html)
    check_readable(html)
    assert "With few images of each class" in html
    assert "mobilenet_v2 from scratch would need about 20" in html
    assert html.count("Differences between points were not judged") == 1


@pytest.mark.proof
def test_the_command_trains_every_network_on_few_images(photos: Path, tmp_path: Path):
    words = (
        "--models", f"{TINY_NETWORK},towernet_patch", "--shots", "2,1", "--epochs", 2, "--size",
        32, "--batch-size", 8, "--workers", 1, "--threads", 1, "--out", tmp_path / "out",
    )  # fmt: skip
    done = run_towernet("compare", photos, *words)
    assert done.returncode == 0, done.stderr
    assert "towernet_patch on 1 training image of each class, run 1 of 1" in done.stderr
    folder = tmp_path / "out"
    results = json.loads((folder / "results.json").read_text())["results"]
    curves = {curve["network"]: curve for curve in results["shots"]["curves"]}
    assert set(curves) == {TINY_NETWORK, "towernet_patch"}
    whole = {network["name"]: network for network in results["networks"]}
    for name, curve in curves.items():
        assert [point["num_images"] for point in curve["points"]] == [1, 2, 9]
        assert curve["points"][-1]["accuracy"] == whole[name]["accuracy"]
    for num in (1, 2):
        of_run = folder / "runs" / f"towernet_patch-0-{num}-a-class"
        table = read_table(of_run / "samples.parquet")
        used = table[table["split"] == "train"]
        assert Counter(used["class_name"]) == dict.fromkeys(("lying", "standing", "leaning"), num)
        assert (table["split"] == "test").sum() == 9
        record = json.loads((of_run / "run.json").read_text())
        assert record["config"]["shots"] == num
        assert record["summary"]["num_steps"] == whole["towernet_patch"]["steps"]
    refused = run_towernet("compare", photos, *words[:2], *words[4:])
    assert refused.returncode == 2
    assert "shots" in refused.stderr
    notebook = run_towernet(
        "compare", photos, *words[:-1], tmp_path / "other", "--recipe", "notebook"
    )
    assert notebook.returncode in (0, 2)

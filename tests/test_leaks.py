"""Copies across the splits that came with the data: found, named, left out, and said first."""

import io
import json
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from test_check import noise
from towernet.config import DataConfig
from towernet.data import leaks, splits
from towernet.data.changes import reconcile
from towernet.data.check import check
from towernet.data.copies import Copies
from towernet.data.prepare import prepare
from towernet.data.source import open_source
from towernet.data.table import SPLITS, make_table, read_table, write_table

PLACES = ("train", "val", "test")


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TOWERNET_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def data(tmp_path):
    """Three given splits of two classes, eight images each, all different."""
    for place, split in enumerate(PLACES):
        for number, name in enumerate(("cat", "dog")):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for i in range(8):
                noise(1000 * place + 100 * number + i, 60, 80).save(folder / f"{i}.png")
    return tmp_path / "data"


def checked(folder):
    return check(open_source(str(folder)), workers=1).set_index("path", drop=False)


def near(image):
    stream = io.BytesIO()
    image.resize((64, 48), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=60)
    return Image.open(io.BytesIO(stream.getvalue()))


TRANSPOSED = {
    "TURNED_90": Image.Transpose.ROTATE_270,  # clockwise
    "TURNED_180": Image.Transpose.ROTATE_180,
    "TURNED_270": Image.Transpose.ROTATE_90,
    "MIRRORED": Image.Transpose.FLIP_LEFT_RIGHT,
    "MIRRORED_TURNED_90": Image.Transpose.TRANSVERSE,
    "MIRRORED_TURNED_180": Image.Transpose.FLIP_TOP_BOTTOM,
    "MIRRORED_TURNED_270": Image.Transpose.TRANSPOSE,
}
PLANTED = {
    "SAME_BYTES": lambda source, to: shutil.copy(source, to.with_suffix(".png")),
    "SAME_PIXELS": lambda source, to: Image.open(source).save(to.with_suffix(".bmp")),
    "NEAR_DUPLICATE": lambda source, to: near(Image.open(source)).save(to.with_suffix(".png")),
} | {
    kind: lambda source, to, how=how: near(Image.open(source).transpose(how)).save(
        to.with_suffix(".png")
    )
    for kind, how in TRANSPOSED.items()
}


def check_leak(data, kind, earlier, later):
    """The copy in the earlier split is left out, the one in the later split stays."""
    # Both orders of the names: the split decides which one stays.
    for name, number in (("0-first", 0), ("z-last", 1)):
        PLANTED[kind](data / later / "cat" / f"{number}.png", data / earlier / "cat" / name)
    table = checked(data)
    kept, left_out = SPLITS[PLACES.index(later)], SPLITS[PLACES.index(earlier)]
    gone = table[table.status != "used"]
    assert [path.rpartition(".")[0] for path in gone.path] == [
        f"{earlier}/cat/0-first", f"{earlier}/cat/z-last"
    ]  # fmt: skip
    assert set(gone.status) == {"ignored"} and set(gone.reason) == {"DUPLICATE_ACROSS_SPLITS"}
    for path, number in zip(gone.path, (0, 1), strict=True):
        assert f"{kind}_IN_{kept.upper()}" in gone.notes[path].split(",")
        assert f"{later}/cat/{number}.png" in gone.detail[path]
        assert gone.detail[path].endswith(f", which is in the {kept} split that came with the data")
    family = kind.partition("_")[0].lower() if kind in TRANSPOSED else kind.lower()
    assert [leak.model_dump() for leak in leaks.leaks(table)] == [
        {
            "split": kept,
            "other": left_out,
            "kind": family.replace("_", " "),
            "images": 2,
            "of": 16,
            "left_out": 2,
            "done": f"the copies in {left_out} are left out",
        }
    ]
    # What is used here is what training uses.
    assigned = splits.assign(table, DataConfig(), seed=0, repetition=0)
    assert (assigned.status == table.status).all()


@pytest.mark.parametrize("kind", PLANTED)
def test_a_copy_in_an_earlier_split_is_left_out(data, kind):
    check_leak(data, kind, "train", "test")


@pytest.mark.parametrize(("earlier", "later"), [("val", "test"), ("train", "val")])
def test_validation_stays_before_training_and_test_before_both(data, earlier, later):
    check_leak(data, "SAME_BYTES", earlier, later)
    shutil.rmtree(data / earlier / "cat")
    (data / earlier / "cat").mkdir()
    for i in range(3):
        noise(5000 + i).save(data / earlier / "cat" / f"{i}.png")
    check_leak(data, "NEAR_DUPLICATE", earlier, later)


def test_the_check_of_leaks_rejects_the_first_by_name(data, monkeypatch):
    honest = Copies._exclude

    def by_name(self, same):
        stages, self._stages = self._stages, np.zeros_like(self._stages)
        honest(self, same)
        self._stages = stages

    monkeypatch.setattr(Copies, "_exclude", by_name)
    with pytest.raises(AssertionError):
        check_leak(data, "SAME_BYTES", "train", "test")


def test_a_picture_in_all_three_splits_is_tested_on(data):
    for place in ("train", "val"):
        for name in ("a.png", "b.png"):
            shutil.copy(data / "test" / "dog" / "3.png", data / place / "dog" / name)
    shutil.copy(data / "test" / "dog" / "3.png", data / "test" / "dog" / "again.png")
    table = checked(data)
    assert table.status["test/dog/3.png"] == "used"
    assert table.reason["test/dog/again.png"] == "DUPLICATE"
    assert Counter(table.reason) == {
        "": 48, "DUPLICATE": 1, "DUPLICATE_ACROSS_SPLITS": 4,
    }  # fmt: skip
    found = [(leak.split, leak.other, leak.images, leak.left_out) for leak in leaks.leaks(table)]
    assert found == [
        ("test", "train", 1, 2), ("test", "validation", 1, 2), ("validation", "train", 2, 2),
    ]  # fmt: skip


def test_an_image_with_several_copies_counts_as_the_closest(data):
    source = data / "test" / "cat" / "5.png"
    PLANTED["MIRRORED"](source, data / "train" / "cat" / "mirrored")
    PLANTED["SAME_PIXELS"](source, data / "train" / "cat" / "pixels")
    table = checked(data)
    assert [(leak.kind, leak.images, leak.left_out) for leak in leaks.leaks(table)] == [
        ("same pixels", 1, 1)
    ]
    assert "MIRRORED_IN_TEST" in table.notes["train/cat/mirrored.png"]


def test_one_left_of_a_group_is_no_group(data):
    PLANTED["NEAR_DUPLICATE"](data / "test" / "cat" / "5.png", data / "train" / "cat" / "copy")
    table = checked(data)
    assert not len(leaks.tied(table)) and not leaks.alike(table)


def test_turned_copies_of_two_classes_are_used_and_named(data):
    PLANTED["MIRRORED"](data / "test" / "cat" / "3.png", data / "train" / "dog" / "m")
    PLANTED["TURNED_180"](data / "test" / "cat" / "4.png", data / "train" / "dog" / "t")
    table = checked(data)
    assert set(table.status) == {"used"} and not leaks.leaks(table) and not leaks.alike(table)
    assert table.notes["train/dog/m.png"] == "MIRRORED_OTHER_CLASS"
    assert table.notes["train/dog/t.png"] == "TURNED_OTHER_CLASS"
    assert table.detail["train/dog/m.png"] == "a mirrored copy of test/cat/3.png"
    assert [copy.path for copy in leaks.turned_across(table)] == [
        "test/cat/3.png", "test/cat/4.png", "train/dog/m.png", "train/dog/t.png"
    ]  # fmt: skip


def test_evaluation_uses_every_image_that_is_not_the_same_file(data):
    for kind in ("SAME_BYTES", "MIRRORED"):
        PLANTED[kind](data / "test" / "cat" / "5.png", data / "train" / "cat" / kind.lower())
    table = checked(data)
    back = leaks.with_copies(table)
    assert back.status["train/cat/mirrored.png"] == "used"
    assert back.status["train/cat/same_bytes.png"] == "ignored"
    assert back.cluster["train/cat/mirrored.png"] == back.cluster["test/cat/5.png"] != ""
    assert (table.status == "used").sum() + 1 == (back.status == "used").sum()


# --- what was started before


def test_a_started_run_keeps_the_table_it_was_started_with(data, tmp_path):
    """Made by the rule of before: of equal files the first by name was used, in training."""
    for i in range(3):
        shutil.copy(data / "test" / "cat" / f"{i}.png", data / "train" / "cat" / f"copy{i}.png")
    now = check(open_source(str(data)), workers=1)
    before = now.copy().astype(object)
    for i in range(3):
        of_train = before.path == f"train/cat/copy{i}.png"
        of_test = before.path == f"test/cat/{i}.png"
        before.loc[of_train, ["status", "reason", "detail", "notes"]] = ["used", "", "", ""]
        words = f"the same bytes as train/cat/copy{i}.png"
        before.loc[of_test, ["status", "reason", "detail", "notes"]] = [
            "ignored", "DUPLICATE", words, "",
        ]  # fmt: skip
    before = make_table(before.to_dict("list"))

    def prepared(table):
        config = DataConfig(size_px=32)
        return prepare(table, open_source(str(data)), config, seed=0, workers=1).table

    first = prepared(before)
    assert (first.split == "train").sum() == 19 and (first.split == "test").sum() == 13
    write_table(tmp_path / "run" / "samples.parquet", first)
    left, words = reconcile(tmp_path / "run", "data", now, accept=False)
    assert words == ""
    write_table(tmp_path / "again.parquet", prepared(left))
    assert (tmp_path / "again.parquet").read_bytes() == (
        tmp_path / "run" / "samples.parquet"
    ).read_bytes()
    assert leaks.leaks(left) == ()


# --- what the commands say


@pytest.fixture
def command(towernet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *words: towernet(*words, "--workers", 1)


def test_check_says_leaks_first_and_by_name(data, command):
    PLANTED["SAME_BYTES"](data / "test" / "cat" / "1.png", data / "train" / "cat" / "bytes")
    PLANTED["TURNED_90"](data / "test" / "cat" / "2.png", data / "train" / "cat" / "turned")
    PLANTED["MIRRORED"](data / "test" / "dog" / "2.png", data / "test" / "dog" / "mirrored")
    ended = command("check", "data")
    lines = ended.stdout.splitlines()
    assert lines[1:4] == [
        "leaks            2 of the 17 test images are copies of training images (1 same bytes and"
        " 1 turned): these 2 training images are left out",
        "  train/cat/bytes.png: the same bytes as test/cat/1.png, which is in the test split that"
        " came with the data",
        "  train/cat/turned.png: a copy of test/cat/2.png turned by 90°, which is in the test split"
        " that came with the data",
    ]
    assert "49 used" in ended.stdout and "DUPLICATE_ACROSS_SPLITS 2" in ended.stdout
    assert "  test/dog/mirrored.png: a mirrored copy of test/dog/2.png" in lines
    found = json.loads(command("check", "data", "--json").stdout)
    assert [leak["kind"] for leak in found["leaks"]] == ["same bytes", "turned"]
    assert [copy["path"] for copy in found["leaked"]] == [
        "train/cat/bytes.png", "train/cat/turned.png",
    ]  # fmt: skip
    assert [[copy["kind"] for copy in group] for group in found["near_duplicates"]["groups"]] == [
        ["", "MIRRORED"]
    ]
    assert found["near_duplicates"]["files"] == 2


def test_check_says_that_there_are_no_leaks(data, command):
    words = "leaks            none: no image of a given split is a copy of one in another split"
    assert words in command("check", "data").stdout
    shutil.rmtree(data / "val")
    shutil.rmtree(data / "test")
    assert "leaks" not in command("check", "data/train").stdout


def test_check_hints_at_no_flip_for_mirrored_classes(data, command):
    PLANTED["MIRRORED"](data / "train" / "cat" / "1.png", data / "train" / "dog" / "arrow")
    ended = command("check", "data")
    assert "2 images are mirrored copies of an image of another class: if left and" in ended.stdout
    assert "train with --no-flip" in ended.stdout
    assert "turned copies    2 (of images of another class: used" in ended.stdout


def test_an_augmented_folder_is_named(data, command):
    for i in range(8):
        for kind, how in TRANSPOSED.items():
            with Image.open(data / "train" / "cat" / f"{i}.png") as image:
                image.transpose(how).save(data / "train" / "cat" / f"{i}-{kind}.png")
    ended = command("check", "data/train")
    assert "these images look augmented already: 64 of the 64 of cat have turned or mirrored" in (
        ended.stdout
    )
    table = checked(data / "train")
    assert table.cluster[table.class_name == "cat"].nunique() == 8


def test_a_class_whose_training_images_are_all_copies_is_named(data, command):
    shutil.rmtree(data / "train" / "cat")
    shutil.copytree(data / "test" / "cat", data / "train" / "cat")
    ended = command("check", "data")
    assert ended.returncode == 3
    assert ended.stderr.endswith(
        "error: class cat has no training images left: all its 8 training images are copies of"
        " images in test and validation; remove them from test and validation, or add other"
        " training images\n"
    )


@pytest.mark.proof
def test_train_says_leaks_first_and_so_do_its_results_and_its_report(data, command, tmp_path):
    PLANTED["SAME_BYTES"](data / "test" / "cat" / "1.png", data / "train" / "cat" / "bytes")
    PLANTED["MIRRORED"](data / "train" / "dog" / "2.png", data / "train" / "dog" / "mirrored")
    ended = command(
        "train", "data", "--model", "towernet_patch", "--epochs", 1, "--size", 32, "--out", "run"
    )
    words = (
        "1 of the 16 test images is a copy of training images (1 same bytes): this 1 training image"
        " is left out"
    )
    assert ended.returncode == 0, ended.stderr
    assert words in ended.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())["results"]
    assert results["leaks"][0]["kind"] == "same bytes"
    page = (tmp_path / "run" / "report.html").read_text()
    assert words in page and page.index(words) < page.index("<h1")
    assert "a mirrored copy of" in page
    table = read_table(tmp_path / "run" / "samples.parquet").set_index("path")
    assert table.status["train/cat/bytes.png"] == "ignored"

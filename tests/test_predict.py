"""Folders of images predicted: which files, in which order, at what size of batch, and as what."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import TINY_NETWORK
from towernet.api.found import Run
from towernet.cli.import_weights import import_weights
from towernet.data.pictures import find_pictures
from towernet.data.table import path_bytes
from towernet.engine.device import Policy
from towernet.errors import DATA, ConfigError, DataError
from towernet.models.catalogue import build
from towernet.predict import BATCH_SIZE, Predictor, _answers, load_run, predict_files
from towernet.records.contract import Contract

CLASSES = ("ant", "bee", "=cat")


def picture(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def predictor_of(name: str) -> Predictor:
    contract = Contract(CLASSES, 64, "crop", (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    policy = Policy("cpu", "float32", True, 1, "predict")
    return Predictor(Path(), policy.place(build(name, 3, 64).eval()), contract, policy)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return predictor_of(TINY_NETWORK)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Return a folder with 20 images and other files, at several depths."""
    for i in range(20):
        picture(tmp_path / "data" / f"d{i % 3}" / "deep" / f"{i}.png", i)
    data = tmp_path / "data"
    picture(data / "é.png", 20)
    (data / "d0.png").write_bytes((data / "é.png").read_bytes())  # sorts before d0/
    (data / "=broken.jpg").write_bytes(b"<html>404</html>")
    (data / "labels.csv").write_text("path,label\n")
    (data / "d1" / "3.xml").write_text("<x/>")
    (data / ".hidden.png").write_bytes(b"")
    (data / "Thumbs.db").write_bytes(b"")
    (data / "link.png").symlink_to(data / "é.png")
    return data


# Which files.


def test_a_folder_is_all_below_it_by_the_bytes_of_the_paths(folder):
    found = find_pictures([folder])
    names = [str(path.relative_to(folder)) for path in found.paths]
    assert names == sorted(names, key=path_bytes)
    assert len(names) == 23
    assert names[:2] == ["=broken.jpg", "d0.png"]
    assert found.left_out == (
        "ignored: 2 files of other kinds, 2 hidden or system files and 1 symbolic link"
    )


def test_folders_and_files_keep_the_order_given(folder, tmp_path):
    other = picture(tmp_path / "a.png", 1)
    found = find_pictures([folder / "d1", other, folder / "é.png", folder / "d0"])
    names = [path.name for path in found.paths]
    assert names == [
        f"{name}.png"
        for name in [
            "1",
            "10",
            "13",
            "16",
            "19",
            "4",
            "7",
            "a",
            "é",
            "0",
            "12",
            "15",
            "18",
            "3",
            "6",
            "9",
        ]
    ]
    assert not find_pictures([other]).of_folders


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"contains no images \(1 other file\); give a folder"):
        find_pictures([tmp_path])


def test_a_folder_of_links_is_refused_with_their_number(folder, tmp_path):
    (tmp_path / "links").mkdir()
    for name in ("b.png", "a.png"):
        (tmp_path / "links" / name).symlink_to(folder / "d1" / "1.png")
    with pytest.raises(DataError, match=r"links \(2 symbolic links, not followed: a\.png, …\);"):
        find_pictures([tmp_path / "links"])
    assert len(find_pictures([*(tmp_path / "links").iterdir()]).paths) == 2


# The bits of an answer.


@pytest.mark.parametrize("name", [TINY_NETWORK, "towernet_patch", "resnet18", "towernet_patch+se"])
def test_an_answer_does_not_depend_on_the_other_images_of_its_batch(name, tmp_path):
    predictor = predictor_of(name)
    paths = [picture(tmp_path / f"{i}.png", i) for i in range(BATCH_SIZE + 5)]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"x")
    mixed = [broken, *paths[::-1], broken, paths[3], broken]
    whole = dict(zip(paths, answers(predictor, paths), strict=True))
    for path, answer in zip(mixed, answers(predictor, mixed), strict=True):
        if path == broken:
            assert isinstance(answer, DataError)
        else:
            assert (answer == whole[path]).all()
    (alone,) = answers(predictor, paths[:1])
    assert (alone == whole[paths[0]]).all()


def answers(predictor: Predictor, paths: list[Path]) -> list[object]:
    return list(_answers(predictor, paths, batch_size=BATCH_SIZE, workers=2))


def test_files_are_answered_as_before_one_by_one(predictor, tmp_path):
    paths = [picture(tmp_path / f"{i}.png", i) for i in range(20)]
    for path, answer in zip(paths, predict_files(predictor, paths), strict=True):
        pixels = predictor.pixels(path.read_bytes())
        assert (answer == predictor.probabilities(pixels[None])[0]).all()
    for one, of_batch in zip(
        predict_files(predictor, paths), answers(predictor, paths), strict=True
    ):
        np.testing.assert_allclose(one, of_batch, atol=1e-5)


# The command.


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    torch.save(build(TINY_NETWORK, 3, 64).state_dict(), folder / "w.pt")
    (folder / "c.txt").write_text("\n".join(CLASSES))
    import_weights(folder / "w.pt", folder / "c.txt", folder / "run", TINY_NETWORK, 64)
    return folder / "run"


def test_a_folder_becomes_a_csv_file_with_a_row_for_each_file(towernet, run, folder, tmp_path):
    table = tmp_path / "a.csv"
    done = towernet("predict", run, folder, "--csv", table, "--top", 2)
    assert (done.returncode, done.stdout) == (DATA, "")
    assert "a.csv has 23 rows" in done.stderr
    assert "1 of 23 files could not be used" in done.stderr
    assert "ignored: 2 files of other kinds" in done.stderr
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["path", "class_name", "probability", "sure", "error", "class_name_2",
                             "probability_2"]  # fmt: skip
    assert [row["path"] for row in rows] == [str(path) for path in find_pictures([folder]).paths]
    assert "cannot be used" in rows[0]["error"]
    assert rows[0]["class_name"] == rows[0]["probability"] == ""
    assert all(row["class_name"] in ("ant", "bee", "'=cat") for row in rows[1:])
    assert all(float(row["probability"]) >= float(row["probability_2"]) for row in rows[1:])
    again = towernet("predict", run, folder, "--csv", table)  # its own file is replaced
    assert again.returncode == DATA
    missing = towernet("predict", run, tmp_path / "no-such-folder", "--csv", table)
    assert missing.returncode == DATA
    assert "1 of 1 file could not be used; the first: " in missing.stderr
    assert "no-such-folder" in missing.stderr


def test_lines_of_json_and_a_list_of_json_say_the_same(towernet, run, folder):
    lines = towernet("predict", run, folder, "--jsonl", "--workers", 1)
    rows = [json.loads(line) for line in lines.stdout.splitlines()]
    assert rows == json.loads(towernet("predict", run, folder, "--json").stdout)
    assert len(rows) == 23
    assert "error" in rows[0]
    both = towernet("predict", run, folder, "--json", "--jsonl")
    assert both.stderr == "error: --json and --jsonl cannot be combined; give one of them\n"


def test_a_pattern_that_the_shell_did_not_expand_is_named(towernet, run, folder):
    done = towernet("predict", run, f"{folder}/*/*.png")
    assert done.returncode == DATA
    assert done.stderr == (
        f"error: no file is called {folder}/*/*.png, and a pattern in quotes is not expanded; leave"
        f" out the quotes, or give the folder: {folder}\n"
    )


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no/a.csv", "there is no folder"),
        ("data/a.csv", "would be among the images; give a file elsewhere"),
        ("mine.csv", "already exists with other content; give another file"),
    ],
)
def test_a_table_that_should_not_be_written_is_refused_first(
    towernet, run, folder, tmp_path, target, message
):
    (tmp_path / "mine.csv").write_text("a,b\n")
    done = towernet("predict", run, folder, "--csv", tmp_path / target)
    assert done.returncode == 2
    assert message in done.stderr
    assert (tmp_path / "mine.csv").read_text() == "a,b\n"


def test_ctrl_c_leaves_no_half_file(run, tmp_path):
    for i in range(600):
        picture(tmp_path / "data" / f"{i}.png", i)
    words = [sys.executable, "-m", "towernet", "predict", run, tmp_path / "data"]
    process = subprocess.Popen(
        [*map(str, words), "--csv", str(tmp_path / "a.csv"), "--jsonl", "--top", "9"],
        stdout=subprocess.PIPE, env=os.environ | {"PYTHONUNBUFFERED": "1"}, text=True,
    )  # fmt: skip
    # Rows are printed as they come, and all are more than the pipe takes before they are read.
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert json.loads(first)["path"].endswith("/0.png")
    assert len(rest.splitlines()) < 599
    assert process.returncode != 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_python_takes_a_folder_too(run, folder, towernet):
    loaded = Run(run)
    with pytest.raises(DataError, match=r"=broken\.jpg cannot be used"):
        loaded.predict(folder)
    table = loaded.predict(folder, on_error="leave_out")
    assert len(table) == 22
    assert table.equals(loaded.predict([folder / "d0.png", folder / "d0", folder / "d1",
                                        folder / "d2", folder / "é.png"]))  # fmt: skip
    with pytest.raises(ConfigError, match="give a list of files"):
        loaded.predict(str(folder / "é.png"))
    assert load_run(run).contract.class_names == CLASSES

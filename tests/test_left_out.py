"""What is printed before training about files that are not used, and a run's length afterwards."""

from __future__ import annotations

import pytest
from PIL import Image

from conftest import TINY_NETWORK
from towernet.comparison.longer import refuse_another_length
from towernet.config import load_recipe, override
from towernet.data import splits
from towernet.data.check import check
from towernet.data.left_out import before_training, left_out_words
from towernet.data.source import open_source
from towernet.errors import ConfigError
from towernet.records.reading import Reading, options_of

JPEG_XL = b"\0\0\0\x0cJXL " + bytes(60)  # a format that is not read


def sentences(folder, resize="crop", **reading):
    source = open_source(str(folder), Reading(**reading))
    return before_training(check(source, workers=1), source, resize)


def test_nothing_is_printed_where_every_file_is_used(own_photos):
    (own_photos / ".DS_Store").write_bytes(b"x")  # what every folder contains is not mentioned
    assert sentences(own_photos) == []


def test_files_are_counted_by_reason_with_the_command_that_lists_them(own_photos):
    lying = own_photos / "lying"
    for number in range(3):
        (lying / f"{number}.jxl").write_bytes(JPEG_XL + bytes([number]))
    (lying / "copy.png").write_bytes((lying / "00.png").read_bytes())
    (lying / "link.png").symlink_to("00.png")
    (lying / "cut.png").write_bytes((lying / "01.png").read_bytes()[:300])
    (found,) = sentences(own_photos)
    assert found.startswith("6 of 48 files are not used: 3 JPEG XL")
    for words in ("1 copy of another image", "1 symbolic link", "1 truncated"):
        assert words in found
    assert found.endswith(f"`towernet check {own_photos}` lists them")


def test_the_command_repeats_how_the_images_are_read(own_photos):
    (own_photos / "lying" / "0.jxl").write_bytes(JPEG_XL)
    (found,) = sentences(own_photos, layout="classes")
    assert found.endswith(f"`towernet check {own_photos} --layout classes` lists them")


def test_images_left_out_on_request_are_not_mentioned(own_photos):
    source = open_source(str(own_photos))
    table = splits.limit(check(source, workers=1), 5, seed=0)
    assert (table.reason == "NOT_SAMPLED").sum() == 27
    assert left_out_words(table, source) == ""


@pytest.mark.parametrize(("size", "resize", "share"), [
    ((200, 60), "crop", "70 %"), ((200, 60), "pad", ""), ((90, 60), "crop", ""),
])  # fmt: skip
def test_wide_images_are_mentioned_where_much_is_cropped(tmp_path, size, resize, share):
    for number, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        for i in range(4):
            Image.new("RGB", size, (60 * number, 40 * i, 9)).save(tmp_path / name / f"{i}.png")
    found = [words for words in sentences(tmp_path, resize) if "centre square" in words]
    assert [share in words and "--resize pad" in words for words in found] == [True] * bool(share)


def test_options_are_written_as_on_the_command_line():
    reading = Reading(splits="train=Training,test=Testing", white_level=1048575.0, min_images=3)
    assert options_of(reading) == [
        "--splits", "train=Training,test=Testing", "--min-images", "3", "--white-level", "1048575",
    ]  # fmt: skip
    assert options_of(Reading()) == []


def test_a_finished_run_explains_why_it_cannot_be_longer(tmp_path):
    recipe = override(load_recipe("default"), train={"epochs": 3})
    command = f"towernet train photos --epochs 3 --out={tmp_path / 'run'} --size 64"
    refuse_another_length(tmp_path / "run", recipe, recipe, command)
    (tmp_path / "run-2").mkdir()
    with pytest.raises(ConfigError) as caught:
        longer = override(recipe, train={"minutes": 5.0})
        refuse_another_length(tmp_path / "run", recipe, longer, command)
    new = f"towernet train photos --size 64 --minutes 5 --out {tmp_path / 'run-3'}"
    assert str(caught.value).endswith(f"train a new one with: {new}")
    assert "--epochs 3" in str(caught.value)


def test_asked_to_train_longer_a_run_gives_the_command_for_a_new_one(
    towernet, finished_run, photos, tmp_path
):
    done = towernet("train", "--resume", finished_run, "--epochs", 9)
    assert done.returncode == 2
    assert f"{finished_run} is finished with --epochs" in done.stderr
    assert "train a new one with: towernet" in done.stderr
    assert f"--epochs 9 --out {finished_run}-2" in done.stderr


def test_the_line_is_printed_by_train_and_plan(towernet, own_photos, tmp_path):
    (own_photos / "lying" / "0.jxl").write_bytes(JPEG_XL)
    words = (own_photos, "--size", 32, "--epochs", 1, "--threads", 1, "--out", tmp_path / "run")
    line = "1 of 43 files is not used: 1 JPEG XL; `towernet check"
    trained = towernet("train", *words, "--model", TINY_NETWORK)
    planned = towernet(
        "plan", own_photos, "--size", 32, "--threads", 1, "--models", f"{TINY_NETWORK},mnasnet0_5"
    )
    for done in (trained, planned):
        assert line in done.stdout + done.stderr

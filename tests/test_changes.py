"""Continuing with other images, versions or threads: refused with the differences, or accepted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from conftest import TINY_NETWORK
from crashlab.lab import operations
from towernet.data.changes import ADDED_LATER, GONE, changes, reconcile
from towernet.data.prepare import prepare, sample_table
from towernet.data.source import open_source
from towernet.data.table import read_table, write_table
from towernet.errors import DataError

OPTIONS = ["--epochs", "3", "--size", "64", "--batch-size", "8"]


def table_of(folder: Path):
    return sample_table(open_source(str(folder)), seed=0, images_per_class=None, workers=1)


def splits_of(folder: Path, table) -> dict[str, str]:
    """Return the split of each used image, by its content."""
    from towernet.config import DataConfig

    source = open_source(str(folder))
    made = prepare(table, source, DataConfig(size_px=32), seed=0, repetition=1, workers=1).table
    used = made[made.status == "used"]
    return dict(zip(used.content_id, used.split, strict=True))


def test_each_kind_of_change_is_distinguished(own_photos):
    before = table_of(own_photos)
    assert not any(changes(before, before))
    (own_photos / "lying" / "00.png").unlink()
    (own_photos / "lying" / "01.png").rename(own_photos / "standing" / "moved.png")
    (own_photos / "lying" / "02.png").rename(own_photos / "lying" / "renamed.png")
    (own_photos / "lying" / "03.png").write_bytes(b"no picture")
    shutil.copy(own_photos / "leaning" / "00.png", own_photos / "leaning" / "copy.png")
    swapped = (own_photos / "standing" / "00.png").read_bytes()
    (own_photos / "standing" / "00.png").unlink()
    (own_photos / "lying" / "04.png").write_bytes(swapped)
    found = changes(before, table_of(own_photos))
    assert found.removed == ["lying/00.png", "lying/02.png"]
    assert found.moved == ["lying/01.png", "standing/00.png"]
    assert found.broken == ["lying/03.png"]
    assert found.changed == ["lying/04.png"]
    assert found.added == ["lying/renamed.png"]  # a copy of an existing image is not new
    assert found.words().startswith("2 images removed (lying/00.png, …), 1 image added (")


def test_remaining_images_keep_their_split_and_new_ones_stay_out(own_photos, tmp_path):
    started = tmp_path / "run"
    first = table_of(own_photos)
    write_table(started / "samples.parquet", first)
    splits_before = splits_of(own_photos, first)
    for name in ("lying/00.png", "standing/05.png", "leaning/07.png", "leaning/08.png"):
        (own_photos / name).unlink()
    for i in range(6):
        content = (own_photos / "lying" / f"{i + 1:02d}.png").read_bytes()
        (own_photos / "lying" / f"new{i}.png").write_bytes(content + bytes([i]))
    now = table_of(own_photos)
    with pytest.raises(DataError, match=r"4 images removed.*6 images added.*--accept-data-change"):
        reconcile(started, "photos", now, accept=False)
    left, words = reconcile(started, "photos", now, accept=True)
    assert "4 images removed" in words
    splits_now = splits_of(own_photos, left)
    assert len(splits_now) == len(splits_before) - 4
    assert all(splits_before[content] == split for content, split in splits_now.items())
    assert (left.reason == GONE).sum() == 4 and (left.reason == ADDED_LATER).sum() == 6
    # It continues with what was accepted: nothing differs any more.
    write_table(started / "samples.parquet", left)
    again, words = reconcile(started, "photos", now, accept=False)
    assert words == ""
    assert splits_of(own_photos, again) == splits_now


def _swap(folder: Path) -> None:
    first, second = folder / "lying" / "00.png", folder / "standing" / "00.png"
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)


CHANGES = {
    "added": lambda p: (p / "lying/new.png").write_bytes((p / "lying/00.png").read_bytes() + b"!"),
    "removed": lambda p: (p / "lying/00.png").unlink(),
    "renamed": lambda p: (p / "lying/00.png").rename(p / "lying/aa.png"),
    "moved": lambda p: (p / "lying/00.png").rename(p / "standing/aa.png"),
    "swapped": _swap,
    "changed": lambda p: (p / "lying/00.png").write_bytes((p / "lying/00.png").read_bytes() + b"!"),
    "broken": lambda p: (p / "lying/00.png").write_bytes(b"no picture"),
    "fixed": lambda p: shutil.copy(p / "lying/00.png", p / "standing/broken.png"),
    "copied": lambda p: shutil.copy(p / "lying/00.png", p / "standing/copy.png"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_accepted_once_and_moves_no_split(own_photos, tmp_path, change):
    (own_photos / "standing" / "broken.png").write_bytes(b"no picture yet")
    first = table_of(own_photos)
    write_table(tmp_path / "run" / "samples.parquet", first)
    before = splits_of(own_photos, first)
    CHANGES[change](own_photos)
    if change == "fixed":
        content = (own_photos / "standing" / "broken.png").read_bytes()
        (own_photos / "standing" / "broken.png").write_bytes(content + b"!")
    now = table_of(own_photos)
    with pytest.raises(DataError, match="--accept-data-change"):
        reconcile(tmp_path / "run", "photos", now, accept=False)
    accepted, _ = reconcile(tmp_path / "run", "photos", now, accept=True)
    write_table(tmp_path / "run" / "samples.parquet", accepted)
    again, words = reconcile(tmp_path / "run", "photos", table_of(own_photos), accept=False)
    assert words == ""
    for table in (accepted, again):
        splits = splits_of(own_photos, table)
        assert all(before[content] == split for content, split in splits.items())
        assert len(splits) >= len(before) - 2


def test_without_the_original_table_nothing_continues(own_photos, tmp_path):
    table = table_of(own_photos)
    assert reconcile(tmp_path, "photos", table, accept=False)[0] is table  # it only starts
    (tmp_path / "protocol.toml").touch()
    assert reconcile(tmp_path, "photos", table, accept=False)[0] is table  # killed before the first
    for name in ("last", "ledger.jsonl"):
        (tmp_path / name).mkdir()
        with pytest.raises(
            DataError, match=r"samples\.parquet, which stores the split of each image, is"
        ):
            reconcile(tmp_path, "photos", table, accept=True)
        (tmp_path / name).rmdir()


def test_redrawing_from_the_remaining_images_would_test_on_training_images(own_photos):
    """Sabotaged: why the original splits are kept."""
    table = table_of(own_photos)
    before = splits_of(own_photos, table)
    for path, content in zip(table.path, table.content_id, strict=True):
        if before[content] == "test":
            (own_photos / path).unlink()
    redrawn = splits_of(own_photos, table_of(own_photos))
    assert any(split == "test" and before[content] == "train" for content, split in redrawn.items())


def test_a_class_can_neither_disappear_nor_shrink_too_much(own_photos, tmp_path):
    started = tmp_path / "run"
    write_table(started / "samples.parquet", table_of(own_photos))
    for path in sorted((own_photos / "lying").iterdir())[2:]:
        path.write_bytes(path.read_bytes() + b"!")
    with pytest.raises(DataError, match=r"class lying has 2 of its original images left and"):
        reconcile(started, "photos", table_of(own_photos), accept=True)
    shutil.rmtree(own_photos / "lying")
    with pytest.raises(DataError, match="the class lying is missing, and a network's classes"):
        reconcile(started, "photos", table_of(own_photos), accept=True)


@pytest.fixture(scope="module")
def cut_off(lab, photos, tmp_path_factory):
    """A run that was killed in its second epoch, and its photos."""
    folder = tmp_path_factory.mktemp("cut-off")
    out, own = folder / "run", Path(shutil.copytree(photos, folder / "photos"))
    begin = ["train", str(own), "--model", TINY_NETWORK, *OPTIONS, "--out", str(out)]
    assert lab.run(begin, out, log=folder / "log").exit_code == 0
    shutil.rmtree(out)
    nth = next(n for n, _, path in operations(folder / "log") if path.endswith("metrics.jsonl"))
    assert lab.run(begin, out, action="kill", nth=nth + 5).exit_code == -9
    assert list(out.glob("last/*.json"))
    return folder


@pytest.fixture
def started(cut_off, tmp_path):
    """A copy of `cut_off` that a test can change."""
    shutil.copytree(cut_off / "photos", tmp_path / "photos")
    shutil.copytree(cut_off / "run", tmp_path / "run")
    return tmp_path


def edit_record(started: Path, old: str, new: str) -> None:
    path = started / "run" / "run.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_changed_images_are_refused_or_accepted_and_reported(towernet, started):
    (started / "photos" / "lying" / "03.png").unlink()
    words = ["train", started / "photos", "--resume", started / "run"]
    refused = towernet(*words)
    assert refused.returncode == 3
    assert "photos changed since" in refused.stderr
    assert "1 image removed (lying/03.png)" in refused.stderr.splitlines()[-1]
    accepted = towernet(*words, "--accept-data-change")
    assert accepted.returncode == 0, accepted.stderr
    results = json.loads((started / "run" / "results.json").read_text())["results"]
    assert "1 image removed" in results["accepted"][0]
    assert "1 image removed" in accepted.stdout  # and in the report's remarks
    table = read_table(started / "run" / "samples.parquet")
    assert table.loc[table.path == "lying/03.png", "reason"].item() == GONE


@pytest.mark.proof
def test_an_accepted_change_survives_a_kill(lab, started):
    (started / "photos" / "lying" / "03.png").unlink()
    words = ["train", str(started / "photos"), "--resume", str(started / "run")]
    cut = lab.run([*words, "--accept-data-change"], started / "run", action="kill", nth=50)
    assert cut.exit_code == -9
    ended = lab.run(words, started / "run")  # no option is needed for an accepted change
    assert ended.exit_code == 0, ended.stderr
    results = json.loads((started / "run" / "results.json").read_text())["results"]
    assert "1 image removed" in results["accepted"][0]


@pytest.mark.proof
def test_mixing_is_decided_once_even_if_images_are_removed(lab, own_photos, tmp_path):
    """With fewer images an epoch has fewer steps, and the same steps are more epochs."""
    recipe, out = tmp_path / "recipe.toml", tmp_path / "out"
    recipe.write_text("[augment]\nmixup_from_epochs = 3.5\n[train]\ntrial_factors = [1.0]\n")
    words = ["compare", str(own_photos), "--models", TINY_NETWORK, "--recipe", str(recipe)]
    words += [*OPTIONS, "--out", str(out)]
    assert lab.run(words, out, action="kill", nth=50).exit_code == -9
    (record,) = out.glob("runs/*/run.json")
    for name in ("lying", "leaning"):
        for i in range(8):
            (own_photos / name / f"{i:02d}.png").unlink()
    ended = lab.run([*words, "--accept-data-change"], out)
    assert ended.exit_code == 0, ended.stderr
    assert json.loads(record.read_text())["plan"]["mixes"] is False
    (network,) = json.loads((out / "results.json").read_text())["results"]["networks"]
    assert network["mixed"] is False and network["steps"] == 12


def test_other_versions_are_refused_or_accepted_and_reported(towernet, started):
    import torch

    edit_record(started, f'"torch": "{torch.__version__.split("+")[0]}', '"torch": "1.0')
    words = ["train", started / "photos", "--resume", started / "run"]
    refused = towernet(*words)
    assert refused.returncode == 2
    assert "was started with other versions (torch: 1.0" in refused.stderr
    accepted = towernet(*words, "--accept-changes")
    assert accepted.returncode == 0, accepted.stderr
    assert "accepted: torch: 1.0" in accepted.stderr


def test_other_threads_are_refused_or_accepted_and_reported(towernet, started):
    words = ["train", started / "photos", "--resume", started / "run", "--threads", "2"]
    refused = towernet(*words)
    assert refused.returncode == 2
    assert "with another number of threads (threads: 1 → 2)" in refused.stderr
    accepted = towernet(*words, "--accept-changes")
    assert accepted.returncode == 0, accepted.stderr
    record = json.loads((started / "run" / "run.json").read_text())
    assert record["plan"]["policy"]["threads"] == 2 and record["accepted"] == ["threads: 1 → 2"]


def test_another_device_is_refused(towernet, started):
    refused = towernet("train", started / "photos", "--resume", started / "run", "--device", "cuda")
    assert refused.returncode == 2
    assert "was started on another device (device: cpu → cuda)" in refused.stderr


def test_settings_of_the_run_cannot_be_edited(towernet, started):
    edit_record(started, '"learning_rate": 0.05', '"learning_rate": 0.07')
    refused = towernet("train", started / "photos", "--resume", started / "run", "--accept-changes")
    assert refused.returncode == 3
    assert "are from different runs; restore them" in refused.stderr


def test_files_of_a_newer_version_are_not_changed(towernet, started):
    edit_record(started, '"format": 1', '"format": 2')
    (started / "run" / "lock").unlink()  # of the process that was killed
    before = {path: path.read_bytes() for path in (started / "run").rglob("*") if path.is_file()}
    refused = towernet("train", started / "photos", "--resume", started / "run")
    assert refused.returncode == 3
    assert "in format 2 and this version reads format 1" in refused.stderr
    assert before == {
        path: path.read_bytes() for path in (started / "run").rglob("*") if path.is_file()
    }


def test_a_new_run_has_nothing_to_accept(towernet, photos, tmp_path):
    refused = towernet("train", photos, "--accept-changes", "--out", tmp_path / "run")
    assert refused.returncode == 2
    assert "--accept-data-change and --accept-changes only apply with --resume" in refused.stderr


def test_the_new_location_of_moved_images_is_requested(towernet, started, cut_off):
    edit_record(started, f"{cut_off / 'photos'}", "/gone/photos")
    refused = towernet("train", "--resume", started / "run")
    assert refused.returncode == 3
    assert refused.stderr.splitlines()[-1] == (
        "error: /gone/photos does not exist any more; give the folder of the images:"
        f" towernet train IMAGES --resume {started / 'run'}"
    )
    assert towernet("train", started / "photos", "--resume", started / "run").returncode == 0


def test_a_finished_run_no_longer_needs_its_images(towernet, finished_run, tmp_path):
    out = Path(shutil.copytree(finished_run, tmp_path / "run"))
    record = json.loads((out / "run.json").read_text())
    record["origin"]["data"] = "/gone/photos"
    (out / "run.json").write_text(json.dumps(record))
    before = (out / "results.json").read_bytes()
    ended = towernet("train", "--resume", out)
    assert ended.returncode == 0, ended.stderr
    assert "is already finished; its results are unchanged" in ended.stderr
    assert (out / "results.json").read_bytes() == before

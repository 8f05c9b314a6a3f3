"""Weights of a run are refused if it learned from the images that a comparison is judged by."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from conftest import TINY_NETWORK
from towernet.config import load_recipe
from towernet.data import splits
from towernet.data.prepare import sample_table
from towernet.data.source import Source, open_source
from towernet.data.table import write_table
from towernet.errors import ConfigError
from towernet.names import NetworkName
from towernet.starts.overlap import require_no_overlap
from towernet.starts.runs import of_run


def tables_of(folder: Path, repetitions: int = 2) -> tuple[list[pd.DataFrame], Source]:
    source = open_source(str(folder))
    table = sample_table(source, seed=0, images_per_class=None, workers=1)
    config = load_recipe("default").data
    return [
        splits.assign(table, config, seed=0, repetition=number) for number in range(repetitions)
    ], source


def compared(run: Path, folder: Path) -> str:
    tables, source = tables_of(folder)
    return require_no_overlap(run, tables, source, workers=1)


def picture(seed: int) -> Image.Image:
    """A picture like no other: a few smooth waves."""
    draw = np.random.default_rng(seed)
    rows, columns = np.mgrid[:40, :40] / 40
    waves = sum(
        draw.uniform(-1, 1, 3) * np.sin(
            rows * draw.uniform(-9, 9) + columns * draw.uniform(-9, 9) + draw.uniform(0, 6)
        )[:, :, None]
        for _ in range(6)
    )  # fmt: skip
    return Image.fromarray(np.clip(128 + 45 * waves, 0, 255).astype(np.uint8))


@pytest.fixture
def others(tmp_path) -> Path:
    """Images that the run has not seen."""
    for number in range(30):
        folder = tmp_path / "others" / ("low" if number % 2 else "high")
        folder.mkdir(parents=True, exist_ok=True)
        picture(number).save(folder / f"{number}.png")
    return tmp_path / "others"


@pytest.fixture
def seen_file(finished_run, photos) -> Path:
    """An image that the run was trained on."""
    from towernet.data.table import read_table

    table = read_table(finished_run / "samples.parquet")
    return photos / table.path[(table.status == "used") & (table.split == "train")].iloc[0]


def test_other_images_are_accepted(finished_run, others):
    assert compared(finished_run, others) == ""


def test_the_runs_own_images_are_refused(finished_run, photos):
    message = r"learned from the same files of \d+ of the \d+ images that this comparison holds out"
    with pytest.raises(
        ConfigError, match=rf"{message}, such as .*; give weights of a run on other"
    ):
        compared(finished_run, photos)


def test_images_that_are_only_trained_on_here_may_be_known(finished_run, others, seen_file):
    shutil.copy(seen_file, others / "low" / "known.png")
    tables, source = tables_of(others)
    for table in tables:
        table.loc[table.path == "low/known.png", "split"] = "train"
    assert require_no_overlap(finished_run, tables, source, workers=1) == ""
    # The twin: held out in one of the repetitions.
    tables[1].loc[tables[1].path == "low/known.png", "split"] = "test"
    with pytest.raises(
        ConfigError, match=r"the same files of 1 of the \d+ .* such as low/known\.png"
    ):
        require_no_overlap(finished_run, tables, source, workers=1)


CHANGES = {
    "saved again": lambda image, path: image.save(path.with_suffix(".jpg"), quality=92),
    "resized": lambda image, path: image.resize((30, 27)).save(path),
    "turned": lambda image, path: image.transpose(Image.Transpose.ROTATE_90).save(path),
    "mirrored": lambda image, path: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path),
    "other pixels": lambda image, path: picture(99).save(path),
}


@pytest.mark.parametrize("change", sorted(CHANGES))
def test_a_copy_in_other_bytes_is_refused(finished_run, others, seen_file, change):
    with Image.open(seen_file) as image:
        CHANGES[change](image.convert("RGB"), others / "low" / "copy.png")
    tables, source = tables_of(others)
    for table in tables:
        table.loc[table.path.str.startswith("low/copy"), "split"] = "validation"
    if change == "other pixels":
        assert require_no_overlap(finished_run, tables, source, workers=1) == ""
        return
    with pytest.raises(
        ConfigError, match=r"learned from copies, turned or not, of 1 of the .*copy"
    ):
        require_no_overlap(finished_run, tables, source, workers=1)


def test_an_image_of_the_run_that_was_changed_is_not_taken_for_it(
    finished_run, others, photos, seen_file, tmp_path
):
    import json

    from towernet import files

    run, moved = tmp_path / "moved", tmp_path / "photos"
    shutil.copytree(finished_run, run)
    shutil.copytree(photos, moved)
    record = json.loads((run / "run.json").read_text())
    record["origin"]["data"] = str(moved)
    files.write_json(run / "run.json", record)
    assert compared(run, others) == ""
    picture(0).save(moved / seen_file.relative_to(photos))  # one of the others
    assert "1 of the" in compared(run, others)


@pytest.fixture
def later_run(finished_run, others, tmp_path) -> Path:
    """A run on other images that started from the run, as its record says."""
    import json

    from towernet import files
    from towernet.starts.find import resolve

    given = f"{TINY_NETWORK}={finished_run}"
    started_from = resolve([NetworkName(f"{TINY_NETWORK}/frozen")], [given])[TINY_NETWORK].weights
    run = Path(shutil.copytree(finished_run, tmp_path / "later"))
    record = json.loads((run / "run.json").read_text())
    record["origin"] |= {"data": str(others), "weights": [given]}
    record["started_from"] = started_from.model_dump()
    files.write_json(run / "run.json", record)
    write_table(run / "samples.parquet", tables_of(others)[0][0])
    return run


@pytest.fixture
def new_images(tmp_path) -> Path:
    """Images that no run has seen."""
    for number in range(100, 120):
        folder = tmp_path / "new" / ("low" if number % 2 else "high")
        folder.mkdir(parents=True, exist_ok=True)
        picture(number).save(folder / f"{number}.png")
    return tmp_path / "new"


def test_what_the_run_before_has_seen_is_compared_too(later_run, new_images, photos):
    assert compared(later_run, new_images) == ""
    with pytest.raises(
        ConfigError, match=rf"{later_run} started from .*run, which learned from the same files"
    ):
        compared(later_run, photos)


def test_a_run_before_that_is_gone_is_said(later_run, new_images, finished_run, tmp_path):
    import json

    from towernet import files

    record = json.loads((later_run / "run.json").read_text())
    gone = tmp_path / "gone"
    record["origin"]["weights"] = [f"{TINY_NETWORK}={gone}"]
    files.write_json(later_run / "run.json", record)
    words = compared(later_run, new_images)
    assert f"started from weights of another run (run run), which is no longer at {gone}" in words
    # The twin: another run is at its place.
    shutil.copytree(finished_run, gone)
    assert compared(later_run, new_images) == ""
    other = json.loads((gone / "run.json").read_text())
    files.write_json(gone / "run.json", other | {"weights_sha256": "0" * 64})
    assert "which is no longer at" in compared(later_run, new_images)


def test_a_run_that_started_from_a_run_says_how_much_is_known(later_run, finished_run):
    assert of_run(TINY_NETWORK, finished_run)[0].of_runs == "all"
    assert of_run(TINY_NETWORK, later_run)[0].of_runs == "all"
    (finished_run / "samples.parquet").rename(finished_run / "hidden")
    try:
        assert of_run(TINY_NETWORK, finished_run)[0].of_runs is None
    finally:
        (finished_run / "hidden").rename(finished_run / "samples.parquet")


def test_what_could_not_be_compared_is_said(finished_run, others, photos, tmp_path):
    import json

    from towernet import files

    run = tmp_path / "moved"
    shutil.copytree(finished_run, run)
    record = json.loads((run / "run.json").read_text())
    record["origin"]["data"] = str(tmp_path / "nowhere")
    files.write_json(run / "run.json", record)
    words = compared(run, others)
    assert "images that" in words
    assert "so only their bytes could be compared" in words
    with pytest.raises(ConfigError, match="the same files"):
        compared(run, photos)
    (run / "samples.parquet").unlink()
    assert "has no list of the images" in compared(run, others)

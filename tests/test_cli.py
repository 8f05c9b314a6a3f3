"""The command line: each error is one sentence, with the right exit code."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from conftest import TINY_NETWORK, run_towernet

USAGE, DATA, ENVIRONMENT = 2, 3, 4


@pytest.fixture
def refused(towernet):
    """Run the command and check the one error line it ends with."""

    def check(words, exit_code, message):
        done = towernet(*words)
        assert done.returncode == exit_code, done.stderr
        assert "Traceback" not in done.stderr
        lines = done.stderr.strip().splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        assert len(errors) == 1, done.stderr
        assert message in errors[0]
        assert lines[-1] == errors[0]

    return check


@pytest.mark.parametrize("verb", ["check", "compare", "train"])
def test_a_missing_folder(refused, verb, tmp_path):
    refused([verb, tmp_path / "no"], DATA, "no does not exist")


@pytest.mark.parametrize("verb", ["compare", "train"])
@pytest.mark.parametrize(
    ("options", "exit_code", "message"),
    [
        (["--epochs", 0], USAGE, "train.epochs is 0; give at least 1"),
        (["--epochs", 1, "--minutes", 1], USAGE, "give one budget, not both"),
        (["--minutes", -1], USAGE, "train.minutes is -1.0; give more than 0"),
        (["--recipe", "defalt"], USAGE, "no recipe is called 'defalt'. Did you mean 'default'?"),
        (["--size", 64], USAGE, "127"),
        (["--device", "gpu"], USAGE, "no device is called 'gpu'"),
        (["--seed", -3], USAGE, "seed is -3; give at least 0"),
        (["--workers", 0], USAGE, "--workers is 0; give at least 1"),
        (["--images-per-class", 0], USAGE, "images_per_class is 0; give at least 1"),
        (["--colour", "red"], USAGE, "No such option"),
    ],
)
def test_a_wrong_option(refused, verb, options, exit_code, message, photos, tmp_path):
    model = ["--models" if verb == "compare" else "--model", "towernet"]
    refused([verb, photos, *model, *options, "--out", tmp_path / "out"], exit_code, message)


def test_an_unknown_network_is_refused_with_a_suggestion(refused, photos, tmp_path):
    refused(
        ["compare", photos, "--models", "towernet,resnet5O", "--out", tmp_path / "out"],
        USAGE, "'resnet5O'. Did you mean 'resnet50'?",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["train", "."], "; add the block to the network's name: --model resnet18+se (`towernet"),
        (["plan", "."], "; add the block to the network's name: --models resnet18,resnet18+se ("),
        (["predict", "run"], "; see `towernet --help`"),
    ],
)
def test_attention_for_a_verb_without_the_option(refused, words, advice):
    refused([*words, "--attention", "se"], USAGE, f"error: No such option: --attention{advice}")


def test_an_unknown_recipe_key_is_refused_with_a_suggestion(refused, photos, tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text("[train]\nepoch = 3\n")
    refused(["train", photos, "--recipe", recipe], USAGE, "'epoch'. Did you mean 'epochs'?")


def test_one_class(refused, own_photos):
    for name in ("lying", "standing"):
        shutil.rmtree(own_photos / name)
    refused(["check", own_photos], DATA, "leaning")


def test_an_empty_class(refused, towernet, own_photos):
    (own_photos / "empty").mkdir()
    refused(["check", own_photos], DATA, "--skip-empty")
    done = towernet("check", own_photos, "--skip-empty", "--out", own_photos.parent / "out")
    assert done.returncode == 0, done.stderr


def test_too_few_images(refused, own_photos):
    for path in sorted((own_photos / "lying").iterdir())[2:]:
        path.unlink()
    refused(["train", own_photos, "--out", own_photos.parent / "out"], DATA, "lying")


def test_a_class_left_empty_by_quarantine(refused, own_photos):
    for path in (own_photos / "lying").iterdir():
        path.write_bytes(path.read_bytes()[:50])
    refused(["train", own_photos, "--out", own_photos.parent / "out"], DATA, "14 quarantined")


def test_a_corrupt_image_is_quarantined_and_the_rest_is_used(towernet, own_photos, tmp_path):
    bad = own_photos / "lying" / "03.png"
    bad.write_bytes(bad.read_bytes()[:200])
    before = {path: path.read_bytes() for path in own_photos.rglob("*.png")}
    done = towernet(
        "train", own_photos, "--model", TINY_NETWORK, "--epochs", 1, "--size", 64,
        "--batch-size", 8, "--out", tmp_path / "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "lying/03.png" in (tmp_path / "run" / "report.html").read_text()
    assert {path: path.read_bytes() for path in own_photos.rglob("*.png")} == before


def test_an_unwritable_output(refused, photos, tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    refused(["train", photos, "--out", blocker / "run"], ENVIRONMENT, "cannot be written")


def test_an_output_in_use(refused, photos, tmp_path):
    from towernet import files

    out = tmp_path / "out"
    with files.lock(out / "lock", holder="the test"):
        refused(
            ["compare", photos, "--models", TINY_NETWORK, "--epochs", 1, "--size", 64,
             "--out", out],
            USAGE, f"is in use by process {os.getpid()}",
        )  # fmt: skip


def test_an_output_that_contains_something_else(refused, photos, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    refused(["train", photos, "--out", tmp_path], USAGE, "is not empty; choose another --out")


def test_resuming_a_folder_without_a_run(refused, tmp_path):
    refused(["train", "--resume", tmp_path], DATA, "run.json does not exist")
    refused(["train"], USAGE, "no images are given")


def test_predicting_without_a_run(refused, photos, tmp_path):
    image = photos / "lying" / "00.png"
    refused(["predict", tmp_path / "no", image], DATA, "is not a folder")
    refused(["predict", tmp_path, image], DATA, "run.json does not exist")
    refused(["predict", image, image], DATA, "is a file; give the folder of a run first")


def test_an_unexpected_error_is_one_line_and_a_log(photos, tmp_path):
    """A real bug: a module of the package is broken."""
    package = tmp_path / "broken"
    shutil.copytree(Path(__import__("towernet").__file__).parent, package / "towernet")
    (package / "towernet" / "data" / "source.py").write_text("1 / 0\n")
    done = run_towernet("check", photos, env=os.environ | {"PYTHONPATH": str(package)})
    assert done.returncode == 70
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ZeroDivisionError")
    log = Path(line.rsplit(" ", 1)[1])
    assert "Traceback" in log.read_text()
    log.unlink()


def test_help_shows_an_example():
    done = run_towernet("compare", "--help")
    assert done.returncode == 0
    assert "towernet compare photos/" in done.stdout


def test_a_name_with_control_characters_is_shown_escaped(towernet, photos, finished_run, tmp_path):
    image = tmp_path / "evil\x1b[31m\nname.png"
    Image.open(photos / "lying" / "00.png").save(image)
    done = towernet("predict", finished_run, image)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert r"evil\x1b[31m\nname.png" in done.stdout


def test_a_class_whose_name_is_not_utf8_is_used_to_the_end(towernet, own_photos, tmp_path):
    (own_photos / "lying").rename(os.fsdecode(os.fsencode(own_photos) + b"/caf\xe9"))
    run = tmp_path / "run"
    done = towernet(
        "train", own_photos, "--model", TINY_NETWORK, "--epochs", 1, "--size", 64,
        "--batch-size", 8, "--out", run,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert r"caf\xe9" in (run / "report.html").read_text()
    image = own_photos / "standing" / "00.png"
    assert towernet("predict", run, image, "--top", 3).stdout.count(r"caf\xe9") == 1


def test_a_pipe_is_refused_without_reading_it(towernet, finished_run, photos, tmp_path):
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    done = towernet("predict", finished_run, pipe, photos / "lying" / "00.png")
    assert done.returncode == DATA
    assert "pipe.jpg is not a plain file; give an image file" in done.stderr
    assert "00.png" in done.stdout


@pytest.mark.parametrize("name", ["metrics.jsonl", "best.safetensors", "run.json"])
def test_a_damaged_run_is_refused_with_the_file(refused, finished_run, photos, tmp_path, name):
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    content = bytearray((run / name).read_bytes())
    content[-20] ^= 255
    (run / name).write_bytes(content)
    (run / "results.json").unlink()
    refused(["train", "--resume", run], DATA, name)


def test_networks_named_twice_or_not_at_all(refused, photos):
    refused(["compare", photos, "--models", "resnet18,resnet18"], USAGE, "names resnet18 twice")
    refused(
        ["compare", photos, "--equal-within", 0], USAGE, "--equal-within is 0; give more than 0"
    )
    refused(["compare", photos, "--models", ""], USAGE, "--models is ''; give names")
    refused(["check", ""], DATA, "DATA is empty")


def test_a_name_too_long_for_the_disk(refused, photos, tmp_path):
    refused(["train", photos, "--out", tmp_path / ("a" * 300)], ENVIRONMENT, "File name too long")

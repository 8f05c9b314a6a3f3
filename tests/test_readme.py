"""The README's commands and code run, and its tables are those of the results."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import run_towernet

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
# What the README leaves to the defaults is made small here; an option given twice counts last.
SMALL = {
    "compare": [
        "--models",
        "towernet_patch",
        "--epochs",
        "12",
        "--size",
        "64",
        "--batch-size",
        "8",
        "--runs",
        "2",
    ],
    "attention": ["--channels", "64", "--size", "7"],
    "train": ["--epochs", "2", "--size", "64", "--batch-size", "8"],
}
OWN_NETWORK = ["--models", "my_nets:Small", "--runs", "1"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def like_the_readme(photos, tmp_path, monkeypatch):
    """A working folder with photos/, one class of it called cat, and other-photos/."""
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos" / "lying").rename(tmp_path / "photos" / "cat")
    (tmp_path / "photos" / "cat" / "00.png").rename(tmp_path / "photos" / "cat" / "001.jpg")
    shutil.copytree(tmp_path / "photos", tmp_path / "other-photos")
    for path in (tmp_path / "other-photos").rglob("*.*"):
        path.write_bytes(path.read_bytes() + b"\0")
    for code in blocks("python"):
        if named := re.match(r"# (\w+\.py)\n", code):  # a file that the commands speak of
            (tmp_path / named[1]).write_text(code)
    (tmp_path / "answers.csv").write_text(*blocks("csv"))
    monkeypatch.chdir(tmp_path)


def taken_apart(command: str) -> tuple[dict[str, str], list[str]]:
    """Return what a command sets in its environment, and its words."""
    words = shlex.split(command, comments=True)
    num_set = next(i for i, word in enumerate(words) if "=" not in word)
    return dict(word.split("=", 1) for word in words[:num_set]), words[num_set:]


@pytest.mark.proof
@pytest.mark.timeout(900)  # a whole page of commands, on a busy machine
def test_its_commands_and_its_python_run(like_the_readme):
    commands = [
        taken_apart(line) for block in blocks("sh") for line in block.splitlines() if line.strip()
    ]
    assert {words[1] for _, words in commands} >= {
        "check",
        "compare",
        "predict",
        "evaluate",
        "judge",
        "train",
    }
    for variables, (_, verb, *words) in commands:
        small = [] if "--resume" in words else SMALL.get(verb, [])
        if "--attention" in words:
            small = [*small, "--attention", "se", "--epochs", "2"]
        if verb == "compare" and any("my_nets:" in word for word in words):
            small = [*small, *OWN_NETWORK]
        done = run_towernet(verb, *words, *small, env=os.environ | variables)
        assert done.returncode == 0, (verb, words, done.stderr)
    for code in blocks("python"):
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_every_make_target_it_names_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^|`)make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_file_it_names_exists():
    for path in re.findall(r"(?:docs|benchmarks|src)/[\w/.]+\w", README):
        assert (ROOT / path).exists(), path


def check_tables(page: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "tables.py", "--check"]
        + ([] if page is None else ["--page", str(page)]),
        capture_output=True,
        text=True,
        check=False,
    )


def test_its_tables_are_those_of_the_results():
    done = check_tables()
    assert done.returncode == 0, done.stdout


def test_a_table_that_was_edited_by_hand_is_noticed(tmp_path):
    edited = tmp_path / "README.md"
    edited.write_text(re.sub(r"(\| towernet \| )\d+", r"\g<1>99", README), encoding="utf-8")
    assert edited.read_text(encoding="utf-8") != README
    assert check_tables(edited).returncode == 1

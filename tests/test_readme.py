"""The commands and code of README, CONTRIBUTING and docs run; tables and links are right."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFilter
from safetensors.torch import save_file

from conftest import TINY_NETWORK, run_towernet
from towernet.models.catalogue import build

ROOT = Path(__file__).parent.parent
README, CONTRIBUTING = ROOT / "README.md", ROOT / "CONTRIBUTING.md"
# In the order of reading: a page may use what the commands of an earlier one have written.
PAGES = [README, ROOT / "docs" / "guide.md", ROOT / "docs" / "attention.md"]
PAGES += [CONTRIBUTING, *sorted(set((ROOT / "docs").glob("*.md")) - set(PAGES))]
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}

# What the pages leave to the defaults is made small here; an option given twice counts last.
SMALL = {
    "compare": [
        "--models", "towernet_patch", "--epochs", "12", "--size", "64", "--batch-size", "8",
        "--runs", "2",
    ],
    "attention": ["--channels", "64", "--size", "7"],
    "train": ["--epochs", "2", "--size", "64", "--batch-size", "8"],
    "plan": ["--models", "towernet_patch,shufflenet_v2_x0_5", "--size", "64", "--batch-size", "8"],
}  # fmt: skip
OWN_NETWORK = ["--models", "my_nets:Small", "--runs", "1"]
# Other networks, images and figures than the README's, but the same lines.
SMALL_DIGITS = ["--images-per-class", "25", "--epochs", "8", "--models"]
SMALL_DIGITS += ["towernet_patch,squeezenet1_1"]
NETWORKS = r"\b(towernet_patch|mobilenet_v2|squeezenet1_1)\b"


def blocks(page: Path, language: str) -> list[str]:
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```$", TEXTS[page], re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for block in found]


def prose(page: Path) -> str:
    return re.sub(r"^ *```.*?^ *```$", "", TEXTS[page], flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def like_the_pages(photos, tmp_path, monkeypatch):
    """A working folder with the files that the commands and the code name."""
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos" / "lying").rename(tmp_path / "photos" / "cat")
    (tmp_path / "photos" / "cat" / "00.png").rename(tmp_path / "photos" / "cat" / "001.jpg")
    shutil.copytree(tmp_path / "photos", tmp_path / "other-photos")
    for path in (tmp_path / "other-photos").rglob("*.*"):
        path.write_bytes(path.read_bytes() + b"\0")
    shutil.copytree(photos, tmp_path / "new-photos")
    four = Image.new("L", (64, 64))
    draw = ImageDraw.Draw(four)
    draw.line([(34, 6), (12, 38), (52, 38)], fill=255, width=8)
    draw.line([(38, 24), (38, 58)], fill=255, width=8)
    four.filter(ImageFilter.GaussianBlur(3)).save(tmp_path / "four.png")
    for page in PAGES:
        for code in blocks(page, "python"):
            if named := re.match(r"# (\w+\.py)\n", code):  # a file that the commands name
                (tmp_path / named[1]).write_text(code)
    (tmp_path / "answers.csv").write_text(*blocks(ROOT / "docs" / "guide.md", "csv"))
    monkeypatch.chdir(tmp_path)


def taken_apart(command: str) -> tuple[dict[str, str], list[str]]:
    """Return what a command sets in its environment, and its words."""
    words = shlex.split(command, comments=True)
    num_set = next(i for i, word in enumerate(words) if "=" not in word)
    return dict(word.split("=", 1) for word in words[:num_set]), words[num_set:]


def run_small(command: str) -> str:
    """Run a command of a page with less to do; return what it prints."""
    variables, (program, verb, *words) = taken_apart(command)
    assert program == "towernet"
    small = [] if "--resume" in words else SMALL.get(verb, [])
    if "--attention" in words:
        small = [*small, "--attention", "se", "--epochs", "2"]
    if "--starts" in words:
        save_file(build(TINY_NETWORK, 5, 64).state_dict(), "weights.safetensors")
        small = [*small, "--models", TINY_NETWORK, "--against", f"{TINY_NETWORK}/frozen"]
        small += ["--weights", f"{TINY_NETWORK}=weights.safetensors"]
    elif "--against" in words and verb == "compare":
        small = [*small, "--models", "towernet_patch,shufflenet_v2_x0_5"]
        small += ["--against", "towernet_patch"]
    if verb == "compare" and any("my_nets:" in word for word in words):
        small = [*small, *OWN_NETWORK]
    if verb == "compare" and "digits" in words:
        small = SMALL_DIGITS
    done = run_towernet(verb, *words, *small, env=os.environ | variables)
    assert done.returncode == 0, (verb, words, done.stderr)
    return done.stdout


@pytest.mark.proof
@pytest.mark.timeout(900)  # several pages of commands, on a busy machine
def test_the_commands_and_the_python_run(like_the_pages):
    verbs = set()
    for page in PAGES:
        for command, shown in sessions(page):
            verbs.add(command.split()[1])
            as_it_is = command.split()[1] == "check"  # the same everywhere
            assert_shown(shown, run_small(command), words if as_it_is else masked)
        for block in blocks(page, "sh"):
            for line in filter(None, block.replace("\\\n", " ").splitlines()):
                verbs.add(taken_apart(line)[1][1])
                run_small(line)
        for code in blocks(page, "python"):
            if not code.startswith("# src/"):
                done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
                assert done.returncode == 0, (code, done.stderr)
    assert verbs >= {"check", "compare", "predict", "evaluate", "judge", "train", "explain", "plan"}


# What commands print.


def sessions(page: Path) -> list[tuple[str, str]]:
    """Return each command of a page that is shown with its output, and the output."""
    text = "".join(blocks(page, "console")).replace("\\\n", " ")
    parts = (part.partition("\n") for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:])
    return [(command, shown) for command, _, shown in parts]


def words(printed: str) -> str:
    """Return the words, whatever is between them."""
    return f" {' '.join(printed.split())} "


def masked(printed: str) -> str:
    """Return the words without what differs between networks, images and machines."""
    printed = re.sub(NETWORKS, "NETWORK", printed).replace("(not sure)", "")
    printed = re.sub(r"\d[\d,.]*(?: (?:[kMG]|s|minutes)\b)?", "0", printed)
    return words(printed)


def assert_shown(shown: str, printed: str, compared: Callable[[str], str] = masked) -> None:
    """Require that what is shown was printed, in this order, with gaps only where … is."""
    assert shown.strip(), "a command is shown without what it prints"
    left = compared(printed)
    for part in filter(str.strip, map(compared, shown.split("…\n"))):
        assert part in left, f"not printed: {part!r} in {left!r}"
        left = f" {left.partition(part)[2]}"


def test_an_output_that_was_not_printed_is_noticed():
    printed = "1. towernet_patch  95.0 %\n\nbest: squeezenet1_1\nreport  a.html\n"
    assert_shown("1. mobilenet_v2  7 %\n…\nreport a.html\n", printed)
    for wrong in (
        "1. towernet_patch  95.0 %\nreport  a.html\n",
        "report a.html\n…\nbest: NETWORK\n",
        "repo\n",
        "",
    ):
        with pytest.raises(AssertionError):
            assert_shown(wrong, printed)
    with pytest.raises(AssertionError):
        assert_shown("1. towernet_patch  94.0 %\n", printed, words)


# What is named.


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_exists(page):
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^|`)make (\w+)", TEXTS[page], re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    if page.name != "log.md":  # which is about the past
        for path in re.findall(r"(?:docs|benchmarks|src|tests)/[\w/.]+\w", prose(page)):
            assert (ROOT / path).exists() or (page.parent / path).exists(), path
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra in re.findall(r"pip install '\.\[(\w+)\]'", TEXTS[page]):
        assert extra in project["optional-dependencies"], extra


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    assert_links_lead_somewhere(page, prose(page))


def test_a_link_that_leads_nowhere_is_noticed():
    for wrong in ("[a](no.md)", "[a](docs/guide.md#no-such)", "[a](#no-such)"):
        with pytest.raises(AssertionError):
            assert_links_lead_somewhere(README, wrong)


def assert_links_lead_somewhere(page: Path, text: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings]
            assert anchor in slugs, link


# The steps of CONTRIBUTING.

MORE = {
    "attention": "from towernet.testing import check_block; check_block(PeakAttention)",
    "models": "from towernet.testing import check_network; check_network(TwoStage, size_px=64)",
    "cli": "import sys; sys.argv[1:] = [{run!r}]; typer.run(classes)",
}


@pytest.mark.parametrize("part", MORE)
def test_the_examples_for_contributors_keep_the_promises(part, finished_run):
    code = next(
        c for c in blocks(CONTRIBUTING, "python") if c.startswith(f"# src/towernet/{part}/")
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{MORE[part].format(run=str(finished_run))}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    if part == "cli":
        assert done.stdout.split() == ["leaning", "lying", "standing"]


# The tables.


def check_tables(page: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "tables.py", "--check"]
        + ([] if page is None else ["--page", str(page)]),
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_tables_are_those_of_the_results():
    done = check_tables()
    assert done.returncode == 0, done.stdout


def test_a_table_that_was_edited_by_hand_is_noticed(tmp_path):
    edited = tmp_path / "README.md"
    edited.write_text(re.sub(r"(\| towernet \| )\d+", r"\g<1>99", TEXTS[README]), encoding="utf-8")
    assert edited.read_text(encoding="utf-8") != TEXTS[README]
    assert check_tables(edited).returncode == 1

"""Class and file names of every kind: unchanged by the program, and inert wherever shown."""

import csv
import html
import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from browser import open_page
from conftest import TINY_NETWORK, run_towernet
from test_report import check_inert
from towernet import files
from towernet.data.source import open_source
from towernet.data.table import path_bytes, read_frame, read_table
from towernet.errors import DATA, DataError
from towernet.records.contract import Contract
from towernet.report.tables import short

NAMES = [
    # markup, templates, and text that a page might interpret
    "<img src=x onerror=window.injected=1>", '"><svg onload=window.injected=1>', "<!--", "]]>",
    "' onmouseover='window.injected=1", "{{7*7}}{% raw %}", "${7*7}", "&lt;b&gt;", "%s%n{0}",
    "javascript:window.injected=1", "[red]", "a,b;c\"d",
    # formulas
    "=cmd|' !A0'", "+1", "@SUM(A1)", "-1",
    # control characters, bytes that are not UTF-8, and invisible characters
    "line\nbreak", "tab\there", "\rcarriage", "\x1b[31mred\x1b]0;title\x07", "\x7f\x01\x9b2J",
    "caf\udce9", "\udcff\udcfe", "a\u202egnp.exe", "\u2066\u200f", "zero\u200bwidth",
    "\u2028line", " spaced ",
    # names with a meaning in other languages and systems
    "__proto__", "constructor", "None", "NaN", "true", "0", "CON", "a:b", "C:\\x", "\\udce9",
    "train",
    # other scripts, and the longest possible name: 255 bytes
    "😀", "e\u0301", "日本語", "é" * 127 + "x",
]  # fmt: skip
# A label in a CSV can contain characters that a folder's name cannot.
LABELS = [
    "</script><script>window.injected=1</script>", "</title><img src=x onerror=window.injected=1>",
    "../../escaped", "a/b", ".", "..", "/etc/passwd",
]  # fmt: skip
PER_CLASS = 4
# All that a terminal could interpret as a command, and characters that reverse the text.
UNSEEN = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
DATA_NAME = "<b>ph\x1b[31m\udce9"


def file_name(number: int) -> str:
    """One of the names with a suffix, cut to the 255 bytes that a name can have."""
    name = os.fsencode(NAMES[number % len(NAMES)])[:250]
    return os.fsdecode(name) + ".png"


def save_picture(path: Path, number: int) -> None:
    draw = np.random.default_rng(number)
    with path.open("wb") as stream:  # Pillow would encode the name as UTF-8
        Image.fromarray(draw.integers(0, 255, (33, 37, 3), dtype=np.uint8)).save(stream, "PNG")


def expected_paths() -> dict[str, str]:
    """Each file's path in the data, and its class."""
    return {
        f"{name}/{file_name(number + 5 * i)}": name
        for number, name in enumerate(NAMES)
        for i in range(PER_CLASS)
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("names") / DATA_NAME
    for number, (path, name) in enumerate(expected_paths().items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        save_picture(folder / path, number)
    return folder


@pytest.fixture(scope="module")
def labels_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        lines = csv.writer(stream)
        lines.writerow(["path", "label"])
        for number in range(PER_CLASS * len(LABELS)):
            save_picture(folder / f"{number}.png", 1000 + number)
            lines.writerow([f"{number}.png", LABELS[number % len(LABELS)]])
    return folder / "labels.csv"


def trained(data: Path, name: str = "run") -> tuple[Path, str]:
    """Train for an epoch; return the run's folder and all output."""
    out = data.parent / name
    words = ("--model", TINY_NETWORK, "--epochs", 1, "--size", 64, "--workers", 1, "--out", out)
    if data.is_dir():  # one of the names is that of a split
        words = (*words, "--layout", "classes")
    done = run_towernet("train", data, *words, errors="surrogateescape")
    assert done.returncode == 0, done.stderr
    return out, done.stdout + done.stderr


@pytest.fixture(scope="module")
def run(data: Path) -> tuple[Path, str]:
    return trained(data)


@pytest.fixture(scope="module")
def run_of_labels(labels_csv: Path) -> tuple[Path, str]:
    return trained(labels_csv, DATA_NAME)  # a run's folder can have any name


def test_the_names_on_disk_are_the_expected_ones(data):
    found = [
        f"{os.fsdecode(folder)}/{os.fsdecode(name)}".removeprefix(f"{data}/")
        for folder, _, names in os.walk(bytes(data))
        for name in names
    ]
    assert sorted(found) == sorted(expected_paths())
    assert max(len(os.fsencode(name)) for name in NAMES) == 255


def test_the_sample_table_keeps_every_name(run):
    table = read_table(run[0] / "samples.parquet")
    assert dict(zip(table["path"], table["class_name"], strict=True)) == expected_paths()
    assert set(table["status"]) == {"used"}


def test_the_runs_contract_and_results_keep_every_name(run):
    wanted = sorted(NAMES, key=path_bytes)
    record = files.read_json(run[0] / "run.json")
    assert list(Contract.from_json(record["contract"]).class_names) == wanted
    results = files.read_json(run[0] / "results.json")["results"]
    assert results["class_names"] == wanted
    assert [row["class_name"] for row in results["networks"][0]["per_class"]] == wanted


def test_predictions_keep_every_name(run):
    frame = read_frame(run[0] / "predictions.parquet")
    named = dict(zip(frame["path"], frame["class_name"], strict=True))
    assert len(named) >= len(NAMES)  # each class has a test image
    assert named.items() <= expected_paths().items()
    assert set(frame["predicted"]) <= set(NAMES)


def test_files_for_programs_are_plain_ascii(run):
    """So readers need not handle surrogates or unusual line ends."""
    for name in ("run.json", "results.json", "ledger.jsonl", "metrics.jsonl", "results.csv"):
        assert (run[0] / name).read_bytes().isascii(), name


def test_predict_names_files_and_classes_as_they_are(run, data):
    chosen = [path for path, name in expected_paths().items() if name == NAMES[0]]
    chosen += [f"{name}/{file_name(number)}" for number, name in enumerate(NAMES)]
    words = ("predict", run[0], *(data / path for path in chosen), "--top", len(NAMES), "--json")
    done = run_towernet(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    answers = json.loads(done.stdout)
    assert [answer["path"] for answer in answers] == [str(data / path) for path in chosen]
    for answer in answers:
        assert {each["class_name"] for each in answer["predictions"]} == set(NAMES)


@pytest.mark.proof
def test_no_output_is_a_command_to_the_terminal(run, run_of_labels, data, tmp_path):
    checked = run_towernet(
        "check",
        data,
        "--layout",
        "classes",
        "--workers",
        1,
        "--out",
        tmp_path,
        errors="surrogateescape",
    )
    images = [data / name / file_name(number) for number, name in enumerate(NAMES)]
    predicted = run_towernet("predict", run[0], *images, errors="surrogateescape")
    refused = run_towernet("predict", data, *images, errors="surrogateescape")
    again = run_towernet("predict", run_of_labels[0], images[0], errors="surrogateescape")
    assert [done.returncode for done in (checked, predicted, again, refused)] == [0, 0, 0, DATA]
    printed = [run[1], run_of_labels[1]]
    for done in (checked, predicted, again, refused):
        printed += [done.stdout, done.stderr]
    for text in printed:
        assert not UNSEEN.search(text), repr(UNSEEN.search(text))
        assert "\nbreak" not in text
    assert r"\x1b[31mred\x1b]0;title\x07" in checked.stdout
    assert r"caf\xe9" in predicted.stdout


def test_the_terminal_check_detects_raw_names():
    seen = [name for name in NAMES if UNSEEN.search(name)]
    assert len(seen) == 10


def test_no_cell_of_a_csv_is_a_formula(run):
    guarded = 0
    for name in ("results.csv", "classes.csv", "suspects.csv"):
        with (run[0] / name).open(newline="", encoding="utf-8") as stream:
            for cell in (cell for row in csv.reader(stream) for cell in row):
                assert not cell.startswith(("=", "+", "@", "\t", "\r"))
                assert not cell.startswith("-") or math.isfinite(float(cell))
                guarded += cell.startswith("'")
    assert guarded


def test_no_file_is_named_after_a_class(run, run_of_labels):
    for folder, _ in (run, run_of_labels):
        names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        plain = {name for name in names if not name.startswith("tensorboard/")}
        assert plain == {
            "best.safetensors", "calibration.json", "classes.csv", "ledger.jsonl", "metrics.jsonl",
            "predictions.parquet", "report.html", "results.csv", "results.json", "run.json",
            "samples.parquet", "suspects.csv", "timings.jsonl",
        }  # fmt: skip
        assert not list(folder.parent.parent.rglob("escaped*"))


def test_labels_that_no_folder_could_have_are_kept_and_stay_inert(run_of_labels):
    folder, _ = run_of_labels
    assert set(read_table(folder / "samples.parquet")["class_name"]) == set(LABELS)
    record = files.read_json(folder / "run.json")
    assert list(record["contract"]["class_names"]) == sorted(LABELS, key=path_bytes)
    page = (folder / "report.html").read_text(encoding="utf-8")
    check_inert(page)
    for name in LABELS:
        assert html.escape(short(name)) in page


def injected(visit) -> list[str]:
    """Return what a name injected: a script that ran, or an element or attribute that runs."""
    found = ["window.injected"] if visit.page.evaluate("'injected' in window") else []
    elements = "script, iframe, object, embed, base, form, img:not([src^='data:'])"
    found += visit.page.evaluate(
        f"[...document.querySelectorAll({elements!r})].map(e => e.outerHTML)"
    )
    return found + visit.page.evaluate(
        "[...document.querySelectorAll('*')].flatMap(e => [...e.attributes])"
        ".filter(a => a.name.startsWith('on')).map(a => a.name)"
    )


@pytest.mark.proof
@pytest.mark.browser
def test_a_browser_shows_every_name_and_runs_none(run, run_of_labels):
    for (folder, _), names in ((run, NAMES), (run_of_labels, LABELS)):
        report = folder / "report.html"
        check_inert(report.read_text(encoding="utf-8"))
        with open_page(report) as visit:
            assert injected(visit) == []
            assert visit.errors == []
            assert [url for url in visit.requests if not url.startswith("data:")] == [
                report.as_uri()
            ]
            shown = visit.page.locator("bdi").all_text_contents()
            assert {short(name) for name in names} <= set(shown)


@pytest.mark.proof
@pytest.mark.browser
def test_the_browser_check_detects_injected_code(tmp_path):
    for name in (NAMES[0], NAMES[1], LABELS[0], LABELS[1]):
        page = tmp_path / "page.html"
        page.write_text(f"<meta charset=utf-8><title>x</title><p>{name}", encoding="utf-8")
        with open_page(page) as visit:
            visit.page.wait_for_timeout(50)
            assert "window.injected" in injected(visit)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("\u00e9", "e\u0301", ["'\u00e9' (U+00E9)", "'e\u0301' (U+0065 U+0301)"]),
        ("Cat", "cat", ["'Cat'", "'cat'", "upper and lower case"]),
        ("STRASSE", "straße", ["'STRASSE'", "'straße'"]),
        ("\u212b", "\u00c5", ["U+212B", "U+00C5", "the encoding of accents"]),
    ],
)
def test_two_names_that_are_equal_elsewhere_are_refused_with_both(
    tmp_path, first, second, expected
):
    for number, name in enumerate((first, second, "other")):
        (tmp_path / name).mkdir()
        save_picture(tmp_path / name / "1.png", number)
    with pytest.raises(DataError) as refused:
        open_source(str(tmp_path))
    for words in [*expected, "rename one of them or merge them"]:
        assert words in str(refused.value)

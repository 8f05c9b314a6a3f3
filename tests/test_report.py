"""The report, over folders that hold real figures: small classifiers on scikit-learn's digits."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jinja2 import DictLoader

from browser import open_page
from report_folder import HOSTILE_NAMES, PLAIN_NAMES, Digits, build
from towernet import files, words
from towernet.errors import DataError
from towernet.names import NetworkName
from towernet.records.base import read_record
from towernet.records.results import Conclusion, TrainingTimes, Winner
from towernet.report import figures, page, tables, write_report
from towernet.report.contents import contents_of
from towernet.report.images import data_card
from towernet.report.networks import worst_mistakes


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits(PLAIN_NAMES)


@pytest.fixture(scope="module")
def comparison(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = build(tmp_path_factory.mktemp("comparison"), digits)
    write_report(folder, picture=digits.pictures.get)
    return folder


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Digits]:
    digits = Digits(HOSTILE_NAMES)
    return build(tmp_path_factory.mktemp("hostile"), digits), digits


def conclusion_of(folder: Path) -> Conclusion:
    return read_record(folder / "results.json", Conclusion)


def with_results(conclusion: Conclusion, **fields: Any) -> Conclusion:
    """The same conclusion with other results."""
    return conclusion.model_copy(update={"results": conclusion.results.model_copy(update=fields)})


class Elements(HTMLParser):
    """What a browser would make of a page: its elements, its text, its headings."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def check_inert(html: str) -> None:
    """Nothing on the page runs, loads, or restyles anything, whatever the names are."""
    found = Elements(html)
    tags = Counter(tag for tag, _ in found.elements)
    assert not tags.keys() & {"script", "base", "iframe", "object", "embed", "form", "i", "image"}
    assert tags["title"] == tags["style"] == tags["link"] == 1
    for tag, attributes in found.elements:
        assert not [key for key in attributes if key.startswith("on") or key == "style"]
        address = attributes.get("href") or attributes.get("src") or attributes.get("xlink:href")
        assert not address or address.startswith(("#", "data:")), f"{tag} loads {address}"
    assert not re.search(r"url\((?!#)|@import", html)
    assert not re.search(
        "[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", html
    )


def check_readable(html: str) -> None:
    """Headings do not skip a level, pictures and tables say what they are, ids are unique."""
    found = Elements(html)
    levels = [int(tag[1]) for tag, _ in found.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels)), "a level is skipped"
    assert all(attributes.get("alt") for attributes in found.all("img"))
    for attributes in found.all("svg"):
        assert attributes.get("aria-label") or attributes.get("aria-hidden") == "true"
    assert len(found.all("caption")) == len(found.all("table"))
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids)), "an id is given twice"
    targets = {a["href"] for a in found.all("a")} | {
        f"#{label}" for _, a in found.elements for label in (a.get("aria-labelledby") or "").split()
    }
    assert targets <= {f"#{name}" for name in ids}


def test_the_report_answers_first_and_then_says_everything(comparison: Path) -> None:
    html = (comparison / "report.html").read_text(encoding="utf-8")
    check_inert(html)
    check_readable(html)
    text = Elements(html).text
    parts = [
        "Test accuracy", "95 % interval", "Validation accuracy while training",
        "What this is based on", "Measured on 120 test images", "What to do next",
        "towernet predict runs/mlp-64-0 photo.jpg",
        "The answer in full", "mlp-64 is best:", "These runs show no difference", "Ranking",
        "Not ranked",
        "step 3: the loss is not finite", "Which differences are shown", "mlp-8",
        "All 3 differences", "Was it fair?", "What differed between the networks",
        "Mistakes, network by network", "Which classes it confuses", "How sure it is",
        "Precision, recall and F1", "Its worst mistakes", "Doubtful labels",
        "207 labels look wrong; the 24 most suspicious are shown",
        "The images", "One image of each class", "Quarantined files", "broken.jpg",
        "Training curves", "How the learning rate was chosen", "diverged",
        "How to repeat it", "towernet compare digits --models mlp-64,mlp-8,linear --epochs 40",
        "For a paper", "15.6 GiB",
    ]  # fmt: skip
    at = 0
    for part in parts:  # in this order
        assert part in text[at:], f"{part!r} is missing, or stands too early"
        at = text.index(part, at)
    assert "test accuracy" in text
    assert "not a test result" not in text


def test_the_figures_are_those_of_the_folder(comparison: Path) -> None:
    results = conclusion_of(comparison).results
    text = Elements((comparison / "report.html").read_text(encoding="utf-8")).text
    for entry in results.networks[:3]:
        assert tables.percent(entry.accuracy) in text
        assert tables.interval(entry.interval) in text
    card = data_card(Digits(PLAIN_NAMES).table())
    assert (card.num_found, card.num_used) == (604, 600)
    assert (card.num_quarantined, card.num_ignored, card.num_duplicates) == (2, 2, 1)
    assert (card.num_conflicts, card.num_clusters, card.num_clustered) == (1, 1, 2)
    assert sum(row.total for row in card.classes) == 600
    assert card.notes == (("ALPHA", 7),)


def test_worst_mistakes_are_the_surest_wrong_answers_each_picture_once(
    digits: Digits, tmp_path: Path
) -> None:
    build(tmp_path, digits, num_runs=2)
    entry = conclusion_of(tmp_path).results.networks[2]
    wrong = worst_mistakes(tmp_path, entry, limit=1000)
    assert len({row.path for row in wrong}) == len(wrong)
    assert [row.confidence for row in wrong] == sorted(
        (row.confidence for row in wrong), reverse=True
    )
    confusion = np.array(entry.confusion)
    assert sum(row.num_wrong for row in wrong) == confusion.sum() - confusion.trace()
    html = write_report(tmp_path, picture=digits.pictures.get).read_text(encoding="utf-8")
    check_readable(html)
    assert "of 2 runs" in html
    assert "Thin lines are single runs" in html
    assert "too few runs to tell" in html
    assert "runs ahead" in html


def test_a_picture_that_is_not_available_is_named(comparison: Path, tmp_path: Path) -> None:
    shutil.copytree(comparison, tmp_path, dirs_exist_ok=True)
    html = write_report(tmp_path, picture=lambda path: None).read_text(encoding="utf-8")
    assert not Elements(html).all("img")
    assert html.count("picture not available") > 10


def test_a_single_run_on_a_selection_set_is_not_called_a_test(
    digits: Digits, tmp_path: Path
) -> None:
    build(tmp_path, digits, kind="run", split="validation")
    html = write_report(tmp_path, picture=digits.pictures.get).read_text(encoding="utf-8")
    check_readable(html)
    text = Elements(html).text
    assert "Selection set, not a test result" in text
    assert "accuracy on the selection set" in text
    assert "test accuracy" not in text.lower()
    assert "Ranking" not in text


def test_hostile_names_are_inert_short_and_visible(hostile: tuple[Path, Digits]) -> None:
    folder, digits = hostile
    html = write_report(folder, picture=digits.pictures.get).read_text(encoding="utf-8")
    check_inert(html)
    check_readable(html)
    text = Elements(html).text
    for seen in ("<script>alert(1)</script>", "{{7*7}}", r"a\u202egnp.exe", r"caf\xe9"):
        assert seen in text
    assert r"line\nbreak\x1b[31m\x00" in text
    assert "é" * 41 not in text


@pytest.mark.parametrize(
    ("template", "sound", "sabotaged"),
    [
        ("answer.html", "{{ results.sentence|prose }}", "{{ results.sentence|safe }}"),
        ("network.html", "{{ names[true_index]|name(24) }}", "{{ names[true_index]|safe }}"),
        ("data.html", "{{ entry.class_name|short }}", "{{ entry.class_name|safe }}"),
        ("macros.html", "{{ row.path|name(80) }}", "{{ row.path|safe }}"),
        ("answer.html", "{{ remark|prose }}", "{{ remark|safe }}"),
        ("report.html", "{{ row.looks_like|name(28) }}", "{{ row.looks_like|safe }}"),
    ],
)
def test_a_template_that_trusts_a_name_is_caught(
    hostile: tuple[Path, Digits], template: str, sound: str, sabotaged: str
) -> None:
    folder, digits = hostile
    conclusion = with_results(
        conclusion_of(folder), sentence=HOSTILE_NAMES[2], remarks=(HOSTILE_NAMES[0],)
    )
    contents = contents_of(folder, conclusion, digits.pictures.get)
    sources = {path.name: path.read_text() for path in TEMPLATES.iterdir()}
    check_inert(page.render(contents, DictLoader(sources)))
    assert sound in sources[template]
    sources[template] = sources[template].replace(sound, sabotaged)
    with pytest.raises(AssertionError):
        check_inert(page.render(contents, DictLoader(sources)))


TEMPLATES = Path(page.__file__).parent / "templates"


def test_no_template_trusts_anything() -> None:
    for path in TEMPLATES.iterdir():
        text = path.read_text()
        assert not re.search(r"\|\s*safe|autoescape", text), path.name
        # The page's policy lets no element have a style; what a notebook shows is no page.
        assert path.name == "notebook.html" or "style=" not in text, path.name


def test_the_policy_allows_only_the_page_itself(comparison: Path) -> None:
    html = (comparison / "report.html").read_text(encoding="utf-8")
    policy = next(
        meta["content"]
        for meta in Elements(html).all("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[\w+/=]{44}'; img-src data:;"
        r" base-uri 'none'; form-action 'none'",
        policy,
    )


def test_the_same_folder_gives_the_same_bytes(comparison: Path, digits: Digits) -> None:
    before = (comparison / "report.html").read_bytes()
    write_report(comparison, picture=digits.pictures.get)
    assert (comparison / "report.html").read_bytes() == before


def test_twenty_networks_with_ten_runs_stay_below_five_megabytes(
    comparison: Path, tmp_path: Path
) -> None:
    conclusion = conclusion_of(comparison)
    results, measured = conclusion.results, conclusion.measured
    shutil.copy(comparison / "samples.parquet", tmp_path)
    entry = results.networks[2]
    first = entry.runs[0]
    rows = files.read_jsonl(comparison / first.folder / "metrics.jsonl")
    rows = [row | {"epoch": epoch} for epoch in range(1, 301) for row in rows[epoch % 3 :][:1]]
    names = [NetworkName(f"network-{i}") for i in range(20)]
    networks = []
    for i, name in enumerate(names):
        runs = [first.model_copy(update={"folder": f"runs/network-{i}-{k}"}) for k in range(10)]
        networks.append(entry.model_copy(update={"name": name, "rank": i + 1, "runs": tuple(runs)}))
        for run in runs:
            shutil.copytree(comparison / first.folder, tmp_path / run.folder)
            files.write_jsonl(tmp_path / run.folder / "metrics.jsonl", rows)
    pairs = [
        results.comparisons[0].model_copy(update={"first": first, "second": second})
        for first, second in combinations(names, 2)
    ]
    winner = Winner(name=names[0], folder=networks[0].runs[0].folder)
    conclusion = with_results(
        conclusion,
        networks=tuple(networks),
        num_runs=10,
        comparisons=tuple(pairs),
        winner=winner,
    ).model_copy(
        update={
            "measured": measured.model_copy(
                update={"networks": dict.fromkeys(names, measured.networks[entry.name])}
            )
        }
    )
    files.write_json(tmp_path / "results.json", conclusion.model_dump())
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    report = write_report(tmp_path, picture=lambda path: noise)  # nothing compresses worse
    assert report.stat().st_size < 5_000_000
    check_readable(report.read_text(encoding="utf-8"))


@pytest.mark.parametrize("differ", [True, False])
def test_promised_and_measured_times_are_side_by_side(
    comparison: Path, digits: Digits, differ: bool
) -> None:
    conclusion = conclusion_of(comparison)
    first, second, third, _ = (network.name for network in conclusion.results.networks)
    sentence = "The training times were not the same" if differ else "Each network was given 90 s"
    times = TrainingTimes(
        planned_seconds=90.0, shortest=first, shortest_seconds=60.0, longest=second,
        longest_seconds=120.0 if differ else 61.0, differ=differ, shorter_by_design=(third,),
        sentence=f"{sentence}.",
    )  # fmt: skip
    measured = conclusion.measured.model_copy(update={"times": times})
    conclusion = conclusion.model_copy(update={"measured": measured})
    html = page.render(contents_of(comparison, conclusion, digits.pictures.get))
    check_inert(html)
    check_readable(html)
    first_screen, _, rest = html.partition("<nav")
    fair = rest[rest.index('id="fair"') :].partition("</section>")[0]
    assert ("The training times were not the same" in first_screen) is differ
    assert ("give --epochs instead of --minutes" in first_screen) is differ
    assert f"{sentence}." in fair
    assert fair.count("<td>1 min 30 s</td>") == 4
    assert fair.count("<small>shorter by design</small>") == 1
    assert "planned time" not in (comparison / "report.html").read_text(encoding="utf-8")


def test_a_network_with_fewer_than_two_epochs_is_marked(comparison: Path, digits: Digits) -> None:
    conclusion = conclusion_of(comparison)
    first, second, *others = conclusion.results.networks
    hardly = second.model_copy(update={"epochs": 1.9})
    conclusion = with_results(conclusion, networks=(first, hardly, *others))
    html = page.render(contents_of(comparison, conclusion, digits.pictures.get))
    check_inert(html)
    first_screen, _, rest = html.partition("<nav")
    ranking = rest[rest.index('id="ranking"') :].partition("</section>")[0]
    assert first_screen.count("fewer than 2 epochs") == 1
    assert ranking.count("<small>fewer than 2 epochs</small>") == 1
    assert "fewer than 2 epochs" not in (comparison / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("num_classes", [2, 20, 21, 100, 150])
def test_a_confusion_matrix_is_shown_at_any_number_of_classes(
    comparison: Path, digits: Digits, num_classes: int
) -> None:
    conclusion = conclusion_of(comparison)
    counts = np.random.default_rng(0).integers(0, 9, (num_classes, num_classes))
    first, *others = conclusion.results.networks
    conclusion = with_results(
        conclusion,
        class_names=tuple(f"class {i}" for i in range(num_classes)),
        networks=(
            first.model_copy(update={"confusion": tuple(map(tuple, counts.tolist()))}),
            *(entry.model_copy(update={"confusion": None}) for entry in others),
        ),
    )
    html = page.render(contents_of(comparison, conclusion, digits.pictures.get))
    check_inert(html)
    check_readable(html)
    assert len(html) < 1_000_000
    assert (html.count('class="confusion"'), html.count('class="heat"')) == {
        2: (1, 0), 20: (1, 0), 21: (0, 1), 100: (0, 1), 150: (0, 0),
    }[num_classes]  # fmt: skip
    assert ("too large to read" in html) == (num_classes == 150)


def test_the_heat_map_draws_every_count_once_in_its_place() -> None:
    paths = figures.confusion_paths(np.array([[9, 1, 0], [0, 5, 5], [0, 0, 0]]))
    assert paths == [("right h5", "M1 1h1"), ("right h9", "M0 0h1"), ("wrong h1", "M1 0h1"),
                     ("wrong h5", "M2 1h1")]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (tables.percent(0.91234), "91.2\xa0%"), (tables.percent(None), "–"),
        (tables.percent(0), "0.0\xa0%"),
        (tables.whole(1559600), "1,559,600"), (words.compact(999_999), "1 M"),
        (words.compact(1559600), "1.56 M"), (words.compact(5.37e9), "5.37 G"),
        (tables.significant(1234.5, "ms"), "1,234 ms"), (tables.significant(1 / 60), "0.0167"),
        (words.duration(51.54), "51.5 s"), (words.duration(200), "3 min 20 s"),
        (words.duration(3600), "1 h 00 min"), (words.duration(None), "–"),
        (tables.short("x" * 50, 10), "xxxxxx…xxx"), (tables.short("a\nb"), r"a\nb"),
        (page.prose("say `towernet check <i>`"), "say <code>towernet check &lt;i&gt;</code>"),
    ],
)  # fmt: skip
def test_numbers_and_words_are_printed_for_people(said: str, expected: str) -> None:
    assert said == expected


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda values: values.pop("made"), r"is damaged \(made is missing\); restore it"),
        (
            lambda values: values["results"].pop("winner"),
            r"is damaged \(results\.winner is missing\)",
        ),
        (
            lambda values: values["results"]["networks"][1].pop("trials"),
            r"is damaged \(results\.networks\.1\.trials is missing\)",
        ),
        (
            lambda values: values.update(results=[1]),
            r"is damaged \(results is \[1\]: .* restore it",
        ),
        (
            lambda values: values["results"].update(seed="0"),
            r"is damaged \(results\.seed is '0': .*integer",
        ),
    ],
)
def test_incomplete_results_are_named(
    comparison: Path, tmp_path: Path, spoil: Callable[[Any], Any], message: str
) -> None:
    values = files.read_json(comparison / "results.json")
    spoil(values)
    files.write_json(tmp_path / "results.json", values)
    with pytest.raises(DataError, match=message):
        write_report(tmp_path, picture=lambda path: None)


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"results\.json does not exist; is .* the folder of a run"):
        write_report(tmp_path, picture=lambda path: None)


@pytest.mark.proof
@pytest.mark.browser
@pytest.mark.parametrize(
    ("width", "dark"), [(1280, False), (1280, True), (390, False)], ids=["light", "dark", "phone"]
)
def test_a_browser_shows_it_and_has_nothing_to_complain_about(
    comparison: Path, width: int, dark: bool
) -> None:
    report = comparison / "report.html"
    with open_page(report, width=width, dark=dark) as visit:
        page_ = visit.page
        assert visit.errors == []
        assert [url for url in visit.requests if not url.startswith("data:")] == [report.as_uri()]
        assert len(page_.locator("h1").inner_text().split()) <= 15
        # The first screen ends with what to do next, and the two panels stand side by side.
        if width > 1000:
            assert page_.locator("nav").bounding_box()["y"] < 900
            left, right = (panel.bounding_box() for panel in page_.locator(".first figure").all())
            assert left["y"] == right["y"] and left["x"] < right["x"]
        assert page_.evaluate("document.documentElement.scrollWidth") <= width
        background = page_.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 380) == dark
        # The style sheet was let in, and the figures take its colours.
        colours = page_.evaluate(
            "[...document.querySelectorAll('svg.curves path')].map(p => getComputedStyle(p).stroke)"
        )
        assert len(set(colours)) > 3
        assert page_.locator("img").count() > 10
        assert page_.evaluate("[...document.images].every(i => i.naturalWidth > 0)")
        page_.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert visit.barriers() == []


@pytest.mark.proof
@pytest.mark.browser
def test_the_browser_check_hears_a_complaint(tmp_path: Path) -> None:
    sabotaged = tmp_path / "page.html"
    sabotaged.write_text(
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'\">"
        "<style>p{color:red}</style><img src='picture.png' alt=''>"
    )
    with open_page(sabotaged) as visit:
        assert any("style" in error for error in visit.errors)


@pytest.mark.proof
@pytest.mark.browser
def test_the_accessibility_check_finds_what_shuts_people_out(tmp_path: Path) -> None:
    sabotaged = tmp_path / "page.html"
    sabotaged.write_text(
        "<!DOCTYPE html><html><title>x</title><main><h1>x</h1><img src='data:,'>"
        "<p style='color:#aaa;background:#fff'>hardly to be read</p></main></html>"
    )
    with open_page(sabotaged) as visit:
        rules = {finding.partition(":")[0] for finding in visit.barriers()}
        assert {"image-alt", "color-contrast", "html-has-lang"} <= rules

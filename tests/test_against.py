"""Comparing with one network only: fewer pairs, decided by fewer runs, and no word about others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from conftest import TINY_NETWORK
from made_results import (
    a_conclusion,
    a_failed_network,
    a_network,
    a_pair,
    changed,
    some_origin,
    some_results,
    some_times,
)
from towernet import contestants
from towernet.api.answers import Judgement, judge
from towernet.comparison.csv_files import write_csv_files
from towernet.comparison.judging import pairs as judged_pairs
from towernet.comparison.story import _require_contestant, _too_few_words
from towernet.comparison.wording.cheapest import cheapest_words
from towernet.comparison.wording.paper import latex, paragraph
from towernet.comparison.wording.remarks import remarks
from towernet.comparison.wording.verdict import verdict
from towernet.config import load_recipe
from towernet.errors import ConfigError, TrainingError, UnknownNameError
from towernet.names import NetworkName
from towernet.records.judgement import AnswersJudged
from towernet.records.protocol import Request
from towernet.records.results import Conclusion, Results
from towernet.report.headline import MAX_WORDS, facts, headline, steps

SIX = {"new": 0.9, "b": 0.82, "c": 0.81, "d": 0.8, "e": 0.79, "old": 0.7}
NAMES = tuple(map(NetworkName, ("resnet18", "towernet", "vgg19")))


def planted(accuracies: dict[str, float], num_runs: int, num_images: int = 300) -> pd.DataFrame:
    """Answers of networks with known accuracies; a few images more or less in each run."""
    draw = np.random.default_rng(3)
    hardness_N = draw.random(num_images)
    rows = []
    for (name, accuracy), run in product(accuracies.items(), range(num_runs)):
        order_N = np.argsort(np.argsort(hardness_N + 0.05 * draw.standard_normal(num_images)))
        right_N = order_N < accuracy * num_images + draw.integers(-2, 3)
        images = np.arange(num_images)
        rows.append(pd.DataFrame({"network": name, "run": run, "image": images, "right": right_N}))
    return pd.concat(rows, ignore_index=True)


def check_eight_runs_decide_among_six(judged: AnswersJudged) -> None:
    """Every difference from the old network is shown, and no other is judged."""
    pairs = judged.comparisons
    assert [pair.second for pair in pairs] == ["old"] * 5
    assert [pair.first for pair in pairs] == ["new", "b", "c", "d", "e"]
    for pair in pairs:
        assert pair.answer == "better"
        assert pair.interval[0] < SIX[pair.first] - SIX["old"] < pair.interval[1]
        # The smallest of five p values by Holm, each 2 of 2⁸ flips.
        assert pair.p_adjusted == 5 * 2 / 2**8


def test_eight_runs_decide_among_six_networks_against_one():
    found = judge(planted(SIX, 8), against="old")
    check_eight_runs_decide_among_six(found.judged)
    assert found.judged.against == "old"
    all_pairs = judge(planted(SIX, 8)).judged
    assert len(all_pairs.comparisons) == 15
    assert {pair.answer for pair in all_pairs.comparisons} == {"too_few_runs"}
    assert "against" not in all_pairs.model_dump()
    # Fewer intervals at once are narrower, and the ranking is the same.
    widths = {(pair.first, pair.second): np.ptp(pair.interval) for pair in all_pairs.comparisons}
    for pair in found.judged.comparisons:
        assert np.ptp(pair.interval) < widths[pair.first, pair.second]
    assert found.judged.networks == all_pairs.networks


def test_the_check_of_six_networks_rejects_an_adjustment_for_all_pairs():
    judged = judge(planted(SIX, 8)).judged
    only = tuple(pair for pair in judged.comparisons if pair.second == "old")
    with pytest.raises(AssertionError):
        check_eight_runs_decide_among_six(judged.model_copy(update={"comparisons": only}))


def test_the_check_of_six_networks_rejects_other_pairs(monkeypatch):
    monkeypatch.setattr(
        "towernet.comparison.answers.judged.pairs_between",
        lambda names, against: list(combinations(names, 2)),
    )
    with pytest.raises(AssertionError):
        check_eight_runs_decide_among_six(judge(planted(SIX, 8), against="old").judged)


def test_a_worse_network_is_worse_than_the_one_in_the_middle():
    judged = judge(planted({"a": 0.9, "b": 0.8, "c": 0.7}, 8), against="b").judged
    assert [(pair.first, pair.answer) for pair in judged.comparisons] == [
        ("a", "better"),
        ("c", "worse"),
    ]
    assert [network.rank for network in judged.networks] == [1, 2, 3]
    ahead, behind = judged.comparisons
    assert judged.sentence.startswith("a came first (9")
    assert f", {100 * ahead.difference:.1f} points [" in judged.sentence
    assert "] better than b. c (−" in judged.sentence
    assert judged.sentence.endswith("]) is worse than b.")
    assert behind.turned().answer == "better"
    assert behind.turned().turned() == behind


def test_the_network_that_came_first_has_the_words_of_a_ranking():
    table = planted({"a": 0.9, "b": 0.8, "c": 0.7}, 8)
    judged, all_pairs = judge(table, against="a").judged, judge(table).judged
    assert [pair.answer for pair in judged.comparisons] == ["worse", "worse"]
    assert re.sub(r"\[.*?\]", "", judged.sentence) == re.sub(r"\[.*?\]", "", all_pairs.sentence)
    assert judged.sentence.startswith("a is the best network here")
    assert "Only pairs with a were judged" in judged.remarks[0]


def test_no_network_of_another_name_is_compared_with(tmp_path):
    table = planted({"alpha": 0.9, "beta": 0.8}, 2)
    with pytest.raises(UnknownNameError, match=r"no network is called 'alpa'\. Did you mean"):
        judge(table, against="alpa")
    folder = tmp_path / "judged"
    found = judge(table, against="beta", out=folder)
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert "Differences from beta" in html
    assert "--against <bdi>beta</bdi>" in html
    assert len((folder / "differences.csv").read_text().splitlines()) == 2
    assert json.loads((folder / "judgement.json").read_text())["against"] == "beta"
    assert isinstance(found, Judgement)


def test_the_command_judges_against_one_network(towernet, tmp_path):
    planted({"a": 0.9, "b": 0.8, "c": 0.7}, 6).to_csv(tmp_path / "answers.csv", index=False)
    done = towernet("judge", tmp_path / "answers.csv", "--against", "c")
    assert done.returncode == 0, done.stderr
    assert "Only pairs with c were judged" in " ".join(done.stdout.split())
    assert "a  " in done.stdout
    done = towernet("judge", tmp_path / "answers.csv", "--against", "d")
    assert done.returncode == 2
    assert "no network is called 'd'" in done.stderr


@pytest.mark.parametrize(
    ("against", "blocks", "said"),
    [
        ("vgg18", (), "one of the networks compared: resnet18, towernet, vgg19 (did you mean"),
        ("vgg19", ("se",), "--attention compares each network with itself, so --against has no"),
        ("vgg19+", (), "'vgg19+' is not a network with attention"),
    ],
)
def test_what_cannot_be_compared_with_is_refused(against, blocks, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        contestants.compared_with(against, NAMES, blocks)


def test_a_contestant_may_be_named_in_any_form():
    assert contestants.compared_with("vgg19", NAMES) == "vgg19"
    assert contestants.compared_with("towernet+shuffle@paper", NAMES) == "towernet"
    assert contestants.compared_with(None, NAMES) is None
    with pytest.raises(ConfigError, match="the only network; give --models another"):
        contestants.compared_with("vgg19", NAMES[2:])


def a_request(**fields: object) -> Request:
    return Request(models=NAMES, recipe=load_recipe("default"), **fields)


def test_requests_without_it_are_written_as_before():
    request = a_request()
    assert "against" not in request.model_dump()
    assert a_request(against="vgg19").model_dump()["against"] == "vgg19"
    assert Request.model_validate(request.model_dump()) == request
    with pytest.raises(ValidationError, match="against is vgg16"):
        a_request(against="vgg16")
    with pytest.raises(ValidationError, match="no attention"):
        Request(
            models=("resnet18", "resnet18+se"), attention=("se",), against="resnet18",
            recipe=load_recipe("default"),
        )  # fmt: skip


def test_too_few_runs_are_said_for_the_pairs_that_will_be_judged():
    six = tuple(map(NetworkName, ("resnet18", "resnet34", "resnet50", "vgg11", "vgg13", "vgg19")))
    recipe = load_recipe("default")
    all_pairs = Request(models=six, runs=8, recipe=recipe)
    said = _too_few_words(all_pairs, six)
    assert said is not None
    assert said.startswith("8 runs are too few for 15 comparisons")
    assert said.endswith("give --runs 10 or more, or --against NETWORK to compare with one network"
                         " only.")  # fmt: skip
    against = all_pairs.model_copy(update={"against": six[0]})
    assert _too_few_words(against, six) is None
    few = against.model_copy(update={"runs": 7})
    assert "7 runs are too few for 5 comparisons" in str(_too_few_words(few, six))
    assert str(_too_few_words(few, six)).endswith("give --runs 8 or more.")


def test_a_network_that_cannot_be_trained_is_refused_before_anything_is_spent():
    request = a_request(against="vgg19")
    _require_contestant(request, {NAMES[0]: "out of memory"})
    with pytest.raises(TrainingError, match=re.escape("--against is vgg19, which cannot be trained"
                                                      " here (out of memory); give")):  # fmt: skip
        _require_contestant(request, {NAMES[2]: "out of memory"})


def some_against(answers: dict[str, str], against: str = "old", **fields: object) -> Results:
    """Results of networks in this order, compared with one of them."""
    names = [*answers, against] if against not in answers else list(answers)
    gaps = {"better": 0.03, "worse": -0.03}
    return some_results(
        **{
            "against": against,
            "networks": tuple(a_network(name, rank=i + 1) for i, name in enumerate(names)),
            "comparisons": tuple(
                a_pair(
                    name,
                    against,
                    answer=answer,
                    difference=gaps.get(answer, 0.0),
                    interval=(gaps.get(answer, 0.0) - 0.01, gaps.get(answer, 0.0) + 0.01),
                )
                for name, answer in answers.items()
                if name != against
            ),
        }
        | fields
    )


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (
            "better better worse",
            "a came first (90.0 % of 400 test images right), 3.0 points [2.0, 4.0] better than old."
            " b (+3.0 points [2.0, 4.0]) is better than old; c (−3.0 points [−4.0, −2.0]) is worse"
            " than it.",
        ),
        ("better", "a came first ({}), 3.0 points [2.0, 4.0] better than old."),
        (
            "better equal open",
            "a came first ({}), 3.0 points [2.0, 4.0] better than old. b equals old within"
            " ±0.5 points; no difference from it is shown for c (0.0 points [−1.0, 1.0]).",
        ),
        (
            "open better better",
            "a came first ({}). b (+3.0 points [2.0, 4.0]) and c (+3.0 points [2.0, 4.0]) are"
            " better than old; no difference from it is shown for a (0.0 points [−1.0, 1.0]).",
        ),
        ("equal equal", "a came first ({}). a and b equal old within ±0.5 points."),
        (
            "too_few_runs too_few_runs",
            "a came first ({}). 8 runs are too few to show a difference from old:"
            " a (0.0 points [−1.0, 1.0]) and b (0.0 points [−1.0, 1.0]).",
        ),
    ],
)
def test_every_outcome_has_its_sentences(answers, said):
    results = some_against(dict(zip("abc", answers.split(), strict=False)))
    assert verdict(results) == said.format("90.0 % of 400 test images right")


def test_one_run_speaks_of_models():
    results = some_against({"a": "better", "b": "better"}, num_runs=1)
    assert verdict(results).startswith("The trained model of a came first (")
    assert "b (+3.0 points [2.0, 4.0]) gave a better model than old." in verdict(results)


@pytest.mark.parametrize(
    ("status", "reason", "said"),
    [
        ("failed", "out of memory", "old failed (out of memory), so no difference"),
        (
            "did_not_learn",
            "did not learn under this recipe: guessing is right for 30.0 %",
            "old did not learn under this recipe: guessing is right for 30.0 %; so no difference",
        ),
    ],
)
def test_a_network_that_was_not_ranked_leaves_nothing_to_judge(status, reason, said):
    old = a_failed_network("old", status=status, reason=reason)
    networks = (a_network("a"), a_network("b", rank=2), old)
    results = some_results(against="old", networks=networks, comparisons=())
    assert verdict(results) == (
        f"a came first (90.0 % of 400 test images right). {said} from it was judged."
    )
    assert headline(results) == "a came first; no difference from old could be judged."
    assert said in " ".join(facts(results))
    assert "Only pairs with old were judged" in " ".join(remarks(results))
    only = some_results(against="old", networks=(a_network("a"), old), comparisons=())
    assert verdict(only).startswith("a is the only network that could be ranked")
    assert paragraph(results, some_origin())
    write = a_conclusion(results)
    assert write.results.comparisons == ()


def everything() -> Iterator[Results]:
    answers = ("better", "worse", "equal", "open", "too_few_runs")
    long = "timm:vit_base_patch16_clip_quickgelu_{}.laion2b_ft"
    for names in (("a", "b", "c"), tuple(long.format(i) for i in range(3))):
        for first in ("better", "equal", "open", "too_few_runs"):
            for rest in product(answers, repeat=2):
                for num_runs in (1, 8):
                    found = some_against(
                        dict(zip(names, (first, *rest), strict=True)),
                        "timm:old_base_patch16",
                        num_runs=num_runs,
                    )
                    yield found
                    yield changed(found, winner={"name": names[1], "folder": "runs/b"})


def check_nothing_is_claimed_of_other_pairs(said: str, names: list[str]) -> None:
    """No sentence says how two networks differ that were not compared."""
    assert not re.search(r"\bevery other|\bthe best (network|model)|beats", said), said
    for first, second in combinations(names, 2):
        for words in ("better than", "worse than", "equals", "no difference from"):
            for one, other in ((first, second), (second, first)):
                assert f"{one} {words} {other}" not in said, said
                assert f"{words} {other}" not in said, said


def test_no_word_is_said_about_pairs_that_were_not_judged():
    for results in everything():
        names = [n.name for n in results.networks if n.name != results.against]
        texts = [
            headline(results), verdict(results), *remarks(results), *facts(results),
            *(step.words for step in steps(results)), paragraph(results, some_origin()),
        ]  # fmt: skip
        for said in texts:
            check_nothing_is_claimed_of_other_pairs(said, names)
        assert len(headline(results).split()) <= MAX_WORDS, headline(results)
        assert len(headline(results)) < 140


def test_the_check_of_words_rejects_those_of_a_ranking():
    results = some_against({"a": "better", "b": "better"})
    pairs = (*results.comparisons, a_pair("a", "b"))
    as_ranking = results.model_copy(update={"against": None, "comparisons": pairs})
    with pytest.raises(AssertionError):
        check_nothing_is_claimed_of_other_pairs(verdict(as_ranking), ["a", "b"])


def test_only_a_network_that_was_compared_with_the_first_is_called_not_worse():
    results = some_against({"a": "open", "b": "better"})
    times = {
        NetworkName(name): some_times(latency_ms=latency_ms, decode_ms=1.0)
        for name, latency_ms in (("a", 9.0), ("b", 1.0), ("old", 3.0))
    }
    assert cheapest_words(results, times) == (
        "old is not shown to be worse than a, and takes 4 ms for one image, with decoding it,"
        " instead of 10 ms."
    )


def test_results_name_only_the_pairs_that_were_judged(tmp_path):
    results = some_against({"a": "better", "b": "worse"})
    written = a_conclusion(results)
    assert Conclusion.model_validate(written.model_dump()) == written
    assert written.model_dump()["results"]["against"] == "old"
    with pytest.raises(ValidationError, match=r"a pair without results\.against"):
        a_conclusion(some_against({"a": "better"}, comparisons=(a_pair("old", "a"),)))
    write_csv_files(tmp_path, written)
    rows = (tmp_path / "differences.csv").read_text().splitlines()
    assert [row.split(",")[:2] for row in rows[1:]] == [["a", "old"], ["b", "old"]]
    table = latex(results, some_origin())
    assert "Differences are from old, in points" in table
    assert "Only pairs with old were judged." in table
    assert "a (3.0 points [2.0, 4.0]" in paragraph(results, some_origin())
    assert judged_pairs.pairs_between(["a", "b"], "old") == []


@pytest.mark.proof
def test_a_comparison_judges_only_the_pairs_asked_for(towernet, photos: Path, tmp_path: Path):
    words = (
        "--models", f"{TINY_NETWORK},towernet_patch,towernet_patch+se", "--against",
        "towernet_patch+shuffle", "--runs", 2, "--epochs", 4, "--size", 32, "--batch-size", 8,
        "--workers", 1, "--out", tmp_path / "out",
    )  # fmt: skip
    done = towernet("compare", photos, *words)
    assert done.returncode == 0, done.stderr
    assert "2 runs are too few for 2 comparisons" in done.stderr + done.stdout
    folder = tmp_path / "out"
    results = json.loads((folder / "results.json").read_text())["results"]
    assert results["against"] == "towernet_patch"
    assert {pair["second"] for pair in results["comparisons"]} <= {"towernet_patch"}
    assert 'against = "towernet_patch"' in (folder / "protocol.toml").read_text()
    refused = towernet("compare", photos, *words[:2], *words[4:])
    assert refused.returncode == 2
    assert "against: towernet_patch → None" in refused.stderr
    before = (folder / "results.json").read_bytes()
    assert towernet("compare", photos, *words).returncode == 0
    assert (folder / "results.json").read_bytes() == before

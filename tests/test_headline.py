"""The report's headline, short and honest for every kind of outcome, and what stands below it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import combinations, product

import pytest

from made_results import (
    a_failed_network,
    a_network,
    a_pair,
    a_run,
    changed,
    some_results,
    some_variants,
)
from towernet.records.judgement import AnsweringNetwork, AnswersJudged, JudgedRun, Pair
from towernet.records.results import LearningCurve, Network, NoLearningCurve, Results, Winner
from towernet.report.headline import MAX_WORDS, facts, headline, steps

LONG = "timm:vit_base_patch16_clip_quickgelu_{}.laion2b_ft+se@stages@identity"
ANSWERS = ("better", "equal", "open", "too_few_runs", "tie", "tied_by_few")
UNRANKED = ("failed", "not_enough_time", "did_not_learn")


BASE = some_results()


def varied(results: Results, **fields) -> Results:
    """The same results with other values, made quickly: there are thousands of them here."""
    return results.model_copy(update=fields)


@cache
def ranked(name: str, rank: int) -> Network:
    return a_network(name, rank=rank, runs=(a_run(folder=f"runs/{rank}"),))


@cache
def unranked(name: str, status: str) -> Network:
    return a_failed_network(name, status=status, reason=f"{status} at step 3")


@cache
def pair(first: str, second: str, answer: str) -> Pair:
    if answer in ("tie", "tied_by_few"):
        judged = "open" if answer == "tie" else "too_few_runs"
        return a_pair(first, second, answer=judged, difference=0.0, interval=(-0.01, 0.01))
    return a_pair(first, second, answer=answer)


def a_ranking(names: list[str], answers: tuple[str, ...], **fields) -> Results:
    """A comparison whose first network met the others with these answers; more may be unranked."""
    first, *others = names[: len(answers) + 1]
    networks = [ranked(name, rank) for rank, name in enumerate([first, *others], start=1)]
    left = zip(names[len(networks) :], UNRANKED, strict=False)
    pairs = [pair(first, name, answer) for name, answer in zip(others, answers, strict=True)]
    pairs += [pair(*two, "open") for two in combinations(others, 2)]
    known = {"networks": (*networks, *(unranked(*of) for of in left)), "comparisons": tuple(pairs)}
    return varied(BASE, **known, **fields)


def rankings() -> Iterator[Results]:
    names = ["towernet_patch", "vgg19", LONG.format(1), LONG.format(2)]
    for num in range(4):
        for answers in product(ANSWERS if num < 3 else ANSWERS[:3], repeat=num):
            for num_unranked in range(4 - num):
                for num_runs, split in ((1, "test"), (8, "test"), (8, "validation")):
                    yield a_ranking(
                        names[: num + 1 + num_unranked], answers, num_runs=num_runs,
                        final_split=split,
                    )  # fmt: skip


def with_winners(results: Results) -> Iterator[Results]:
    yield results
    for rank, network in enumerate(results.ranked, start=1):
        yield varied(results, winner=Winner(name=network.name, folder=f"runs/{rank}"))


def without_ranks() -> Iterator[Results]:
    for statuses in product(UNRANKED, repeat=2):
        networks = [
            a_failed_network(name, status=status)
            for name, status in zip(("vgg19", "resnet18"), statuses, strict=True)
        ]
        yield some_results(networks=networks, comparisons=[])
        yield some_results(networks=networks[:1], comparisons=[], kind="run")


def ablations() -> Iterator[Results]:
    some = ("better", "worse", "open", "not judged")
    of_one = some_variants(["resnet18"], ["none", "se", "cbam@stages@identity", "eca"])
    of_two = some_variants([LONG.partition("+")[0], "vgg19"], ["none", "se", "eca"])
    for of, answers in (
        (of_one[:1], (*some, "equal", "too_few_runs")),
        (of_one[:2], (*some, "equal", "too_few_runs")),
        (of_one, (*some, "equal")),
        (of_two, some),
    ):
        names = dict.fromkeys([v.without for v in of] + [v.name for v in of])
        networks = tuple(ranked(name, rank) for rank, name in enumerate(names, start=1))
        for chosen in product(answers, repeat=len(of)):
            pairs = tuple(
                pair(variant.name, variant.without, answer)
                for variant, answer in zip(of, chosen, strict=True)
                if answer != "not judged"
            )
            for num_runs in (1, 8):
                yield varied(
                    BASE, networks=networks, comparisons=pairs, ablation=of, num_runs=num_runs,
                    sentence="In resnet18, se helped.",
                )  # fmt: skip


def judgements() -> Iterator[AnswersJudged]:
    names = ["the-old-one", "mine", LONG.format(1)]
    for num in (1, 2):
        for answers in product(ANSWERS, repeat=num):
            results = a_ranking(names[: num + 1], answers)
            networks = [
                AnsweringNetwork(
                    **{key: getattr(network, key) for key in ("name", "status", "reason", "rank")},
                    accuracy=network.accuracy, interval=network.interval,
                    runs=(JudgedRun(run="0", accuracy=0.9),),
                )
                for network in results.networks
            ]  # fmt: skip
            for num_runs, num_groups in product((1, 3), (None, 7)):
                yield AnswersJudged(
                    title="answers.csv", num_images=1234, num_groups=num_groups,
                    num_runs=num_runs, equal_within=0.005, networks=networks,
                    comparisons=results.comparisons, sentence="", remarks=(),
                )  # fmt: skip


def curves() -> Iterator[Results]:
    results = some_results(winner={"name": "resnet18", "folder": "runs/resnet18-0"})
    known = {"network": "resnet18", "points": (), "gain": a_pair("all", "half"), "classes": ()}
    for said in ("More images would probably help. With 1,200.", "More images did not help. With."):
        curve = LearningCurve(**known, runs_for_classes=None, sentence=said)
        yield changed(results, learning_curve=curve)
    yield changed(results, learning_curve=NoLearningCurve(network="resnet18", failure="no"))


def everything() -> Iterator[Results | AnswersJudged]:
    for results in rankings():
        yield from with_winners(results)
    for results in ablations():
        yield results
        yield varied(results, majority_accuracy=0.95)  # guessing is better
    for results in rankings():
        if len(results.networks) == 1:
            yield varied(results, kind="run")
            yield varied(results, kind="run", majority_accuracy=0.95)
    yield from without_ranks()
    yield from judgements()
    yield from curves()


def test_no_headline_of_any_outcome_has_more_than_fifteen_words():
    headlines = {headline(found) for found in everything()}
    assert len(headlines) > 100
    for said in headlines:
        assert len(said.split()) <= MAX_WORDS == 15, said
        assert said[-1] == "."
        assert len(said) < 140, said


def test_no_headline_hides_what_is_not_shown():
    for results in rankings():
        said = headline(results)
        pairs = [pair for pair in results.comparisons if pair.first == results.ranked[0].name]
        is_open = [pair for pair in pairs if pair.answer in ("open", "too_few_runs")]
        assert bool(is_open) == (" is shown" in said or " to show " in said), said
        all_beaten = bool(pairs) and all(pair.answer == "better" for pair in pairs)
        assert all_beaten == (" is the best " in said), said


def test_a_headline_says_when_validation_chose_another_network_than_came_first():
    for results in rankings():
        if len(results.ranked) < 2:
            continue
        other = changed(results, winner={"name": results.ranked[1].name, "folder": "runs/2"})
        said = headline(other)
        is_tied = results.comparisons[0].difference == 0
        if is_tied:
            assert said == headline(results)
            continue
        assert "vgg19 was best on the validation images" in said, said
        assert said.startswith("towernet_patch "), said
        same = changed(results, winner={"name": results.ranked[0].name, "folder": "runs/1"})
        assert headline(same) == headline(results)


def test_guessing_is_named_where_no_network_beats_it():
    for results in [*rankings(), *ablations()]:
        said = headline(varied(results, majority_accuracy=0.95))
        assert said == "No network is shown to beat guessing: do not use any of them yet."
        assert "guessing" not in headline(results)


@pytest.mark.parametrize(
    ("answers", "num_networks", "num_runs", "said"),
    [
        ("better", 2, 8, "a is the best network here: 90.0 % of 400 test images right."),
        ("better better", 3, 1, "a is the best model here: 90.0 % of 400 test images right."),
        ("better", 3, 8, "a is the best of 2 ranked networks: 90.0 % of 400 test images right."),
        ("better open", 3, 8, "a beats b; no difference from c is shown."),
        (
            "better better open open",
            5,
            8,
            "a beats b and c; no difference from d or e is shown.",
        ),
        ("better equal", 3, 8, "a beats b and equals c."),
        ("better equal open", 4, 8, "a beats b and equals c; no difference from d is shown."),
        ("equal", 2, 8, "a and b are equal within ±0.5 points."),
        ("equal equal", 3, 8, "a came first, but equals the other 2 within ±0.5 points."),
        ("open", 2, 8, "a came first, but no difference from b is shown."),
        ("open too_few_runs", 3, 8, "a came first, but no difference from b or c is shown."),
        ("too_few_runs", 2, 3, "a came first, but 3 runs are too few to show a difference."),
        ("tie", 2, 8, "a and b have the same accuracy; no difference is shown."),
        ("tie", 2, 3, "a and b have the same accuracy; no difference is shown."),
        (
            "tie open",
            3,
            8,
            "a and b share first place, but no difference from the others is shown.",
        ),
        (
            "tied_by_few too_few_runs",
            3,
            2,
            "a and b share first place; 2 runs are too few to show differences.",
        ),
        ("equal open", 3, 8, "a came first; it equals b, and no other difference is shown."),
        ("", 1, 8, "a gets 90.0 % of 400 test images right."),
        ("", 2, 8, "a is the only network that could be ranked: 90.0 % right."),
    ],
)
def test_each_kind_of_ranking_has_its_headline(answers, num_networks, num_runs, said):
    found = a_ranking(list("abcde")[:num_networks], tuple(answers.split()), num_runs=num_runs)
    assert headline(found) == said


@pytest.mark.parametrize(
    ("answers", "num_runs", "said"),
    [
        ("better", 8, "se helped resnet18."),
        ("better", 1, "se helped these models of resnet18."),
        ("worse", 8, "se harmed resnet18."),
        ("equal", 8, "se changes resnet18 by less than ±0.5 points."),
        ("open", 8, "No effect of se on resnet18 is shown."),
        ("too_few_runs", 3, "3 runs are too few to show an effect of se."),
        ("too_few_runs too_few_runs", 3, "3 runs are too few to show an effect of any block."),
        ("better better", 8, "Every block helped resnet18."),
        ("open equal", 8, "No effect of any block on resnet18 is shown."),
        ("better worse open", 8,
         "se helped and cbam harmed resnet18; no effect of eca is shown."),
    ],
)  # fmt: skip
def test_each_kind_of_ablation_has_its_headline(answers, num_runs, said):
    of = some_variants(["resnet18"], ["none", "se", "cbam", "eca"][: len(answers.split()) + 1])
    pairs = [
        a_pair(variant.name, variant.without, answer=answer)
        for variant, answer in zip(of, answers.split(), strict=True)
    ]
    results = some_results(ablation=of, comparisons=pairs, num_runs=num_runs)
    assert headline(results) == said


def test_each_headline_has_its_facts_and_its_next_step():
    for found in everything():
        sample, *others = facts(found)
        assert all(fact.endswith(".") for fact in (sample, *others)), others
        if not isinstance(found, Results):
            assert "1,234 images" in sample
        elif found.final_split == "validation":
            assert "probably too high" in sample
        else:
            assert "400 test images" in sample
        next_ = steps(found)
        if headline(found).startswith(("No network", "Every network failed")):
            assert len(next_) == 1 and not next_[0].command
        elif isinstance(found, Results) and found.winner is not None:
            assert next_[0].command == f"towernet predict {found.winner.folder} photo.jpg"


def test_the_differences_come_with_their_intervals():
    results = a_ranking(["a", "b", "c"], ("open", "better"))
    assert facts(results)[1] == (
        "a beats c by 2.0 points [1.0, 3.0]; no difference from b is shown: 2.0 points [1.0, 3.0]."
        " In brackets: 95 % interval."
    )


def test_the_next_step_is_the_command_or_what_would_decide():
    results = a_ranking(["a", "b"], ("better",), winner=Winner(name="a", folder="runs/1"))
    (use,) = steps(results, "TOWERNET_PATH=x ")
    assert use.words.startswith("Use a: it was also the best on the validation images.")
    assert use.command == "TOWERNET_PATH=x towernet predict runs/1 photo.jpg"
    few = changed(results, num_runs=3, comparisons=[a_pair("a", "b", answer="too_few_runs")])
    assert "give --runs 6 or more" in steps(few)[1].words
    open_ = a_pair("a", "b", answer="open", to_show=0.02, runs_needed=30)
    use, decide = steps(changed(results, comparisons=[open_]))
    ways = "about 30 runs in all would probably show a difference of 2 points"
    assert decide.words == f"To decide between a and b: {ways}."
    enough = a_pair("a", "b", answer="open", to_show=0.02)
    (use,) = steps(changed(results, comparisons=[enough]))
    assert use.words.startswith("Use a: ")
    (longer,) = steps(varied(results, majority_accuracy=0.95))
    assert longer.words.startswith("Train longer") and not longer.command
    failed = some_results(networks=[a_failed_network("a")], comparisons=[])
    assert steps(failed)[0].words.startswith("Remove the cause")
    assert facts(failed)[1] == "a: out of memory."

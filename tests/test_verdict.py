"""The answer in words: what it may say, and the references its figures rest on."""

from __future__ import annotations

import numpy as np
import pytest

from made_results import a_failed_network, a_network, a_pair, changed, some_results, some_times
from towernet.comparison.outcome import Outcome
from towernet.names import NetworkName
from towernet.records.judgement import Judged, JudgedNetwork
from towernet.records.ledger import RateFellApart, Trial

NUM_IMAGES = 400


def answers(accuracy, num_runs, *, seed):
    """Which of 400 images the runs of a made-up network get right; some are hard for all."""
    hard = np.random.default_rng(0).random(NUM_IMAGES)
    draws = np.random.default_rng(seed)
    return np.array(
        [
            np.argsort(np.argsort(hard + 0.05 * draws.standard_normal(NUM_IMAGES)))
            < round(accuracy * NUM_IMAGES) + draws.integers(-2, 3)
            for _ in range(num_runs)
        ]
    )


@pytest.fixture
def results():
    """What is found of networks of these accuracies, each with so many runs."""
    from towernet.comparison.judging.pairs import pair_of
    from towernet.comparison.judging.statistics import judge

    def make(accuracies, num_runs, *, equal_within=0.005):
        right = {
            name: answers(accuracy, num_runs, seed=number + 1)
            for number, (name, accuracy) in enumerate(accuracies.items())
        }
        names = sorted(right, key=lambda name: -right[name].mean())
        networks = [
            a_network(
                name,
                accuracy=float(right[name].mean()),
                interval=(right[name].mean() - 0.03, right[name].mean() + 0.03),
                multiply_adds={"towernet": 200, "resnet50": 1300, "vgg19": 6000}.get(name, 170),
                epochs=20.07 if name == "towernet" else 1.88,
            )
            for name in names
        ]
        family = judge(np.array([right[name] for name in names]), np.arange(NUM_IMAGES))
        return some_results(
            majority_accuracy=0.3,
            equal_within=equal_within,
            num_runs=num_runs,
            networks=networks,
            comparisons=[pair_of(family, d, names, equal_within) for d in family.differences],
            winner={"name": names[0], "folder": "runs/x-0"},
        )

    return make


def test_a_clear_lead_is_better_and_says_by_how_much(results):
    from towernet.comparison.wording.verdict import verdict

    found = results({"towernet": 0.9, "resnet50": 0.7}, 8)
    said = verdict(found)
    low, high = found.comparisons[0].interval
    assert said.startswith("towernet is the best network here (90.")
    assert "right). It beats resnet50 by " in said
    assert said.endswith(f"points [{100 * low:.1f}, {100 * high:.1f}].")
    assert 0.14 < low < 0.2 < high < 0.26


def test_one_run_speaks_of_models(results):
    from towernet.comparison.wording.remarks import remarks
    from towernet.comparison.wording.verdict import verdict

    found = results({"towernet": 0.9, "resnet50": 0.7}, 1)
    assert verdict(found).startswith("towernet is the best model here (9")
    assert any("not the networks: another seed" in words for words in remarks(found))
    assert any("at 128 px for 1.9 to 20 epochs" in words for words in remarks(found))
    found = results({"towernet": 0.9, "resnet50": 0.89}, 1)
    assert verdict(found).startswith("The trained model of towernet came first (9")
    assert "No difference is shown: " in verdict(found)
    assert found.comparisons[0].runs_needed is None


def test_what_is_not_shown_says_what_would_show_it(results):
    from towernet.comparison.wording.remarks import remarks
    from towernet.comparison.wording.verdict import settling, verdict

    found = results({"towernet": 0.855, "resnet50": 0.85}, 8)
    said = verdict(found)
    assert said.startswith("towernet came first (8")
    assert "No difference is shown: " in said
    pair = found.comparisons[0]
    assert pair.answer == "open"
    assert pair.images_needed > NUM_IMAGES
    assert pair.to_show == 0.01
    assert said.endswith("].")
    assert settling(pair).startswith("about ")
    assert settling(pair).endswith(" runs in all would probably show a difference of 1 point")
    assert remarks(found)[0][1:] == f"{settling(pair)[1:]}."


def test_the_better_and_the_undecided_are_told_apart(results):
    from towernet.comparison.wording.verdict import verdict

    found = results({"towernet": 0.855, "resnet50": 0.85, "vgg19": 0.6}, 9)
    said = verdict(found)
    assert "It beats vgg19 by " in said
    assert "; no difference from resnet50 is shown: " in said


def test_equal_is_said_when_the_whole_interval_is_small(results):
    from towernet.comparison.wording.verdict import verdict

    found = results({"towernet": 0.86, "resnet50": 0.86}, 12, equal_within=0.2)
    assert " equals " in verdict(found)
    assert "within ±20 points" in verdict(found)
    narrow = results({"towernet": 0.86, "resnet50": 0.86}, 12, equal_within=0.0005)
    assert " equals " not in verdict(narrow)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ("better", "a is the best network here ({right}). It beats b by 2.0 points [1.0, 3.0]."),
        (
            "better better",
            "a is the best network here ({right}). It beats every other network (b, the nearest, by"
            " 2.0 points [1.0, 3.0]).",
        ),
        (
            "better better failed",
            "a is the best ranked network here ({right}). It beats every other ranked network (b,"
            " the nearest, by 2.0 points [1.0, 3.0]).",
        ),
        ("equal", "a came first ({right}). It equals b within ±0.5 points."),
        (
            "open",
            "a came first ({right}). No difference is shown: 2.0 points [1.0, 3.0].",
        ),
        (
            "tie",
            "a and b have the same accuracy ({right}). No difference is shown: 0.0 points"
            " [1.0, 3.0].",
        ),
        (
            "open equal better better",
            "a is the best network here ({right}). It beats d and e (d by 2.0 points [1.0, 3.0]);"
            " it equals c within ±0.5 points; no difference from b is shown: 2.0 points"
            " [1.0, 3.0].",
        ),
        (
            "equal better",
            "a is the best network here ({right}). It beats c by 2.0 points [1.0, 3.0]; it equals b"
            " within ±0.5 points.",
        ),
        (
            "tie equal",
            "a and b have the same accuracy ({right}). a equals c within ±0.5 points; no difference"
            " from b is shown: 0.0 points [1.0, 3.0].",
        ),
    ],
)
def test_every_outcome_has_its_sentences(answers, said):
    from towernet.comparison.wording.verdict import verdict

    kinds = answers.split()
    networks, pairs = [a_network("a")], []
    for name, kind in zip("bcde", kinds, strict=False):
        if kind == "failed":
            networks.append(a_failed_network(name))
            continue
        networks.append(a_network(name))
        is_tie = kind == "tie"
        pairs.append(
            a_pair("a", name, answer="open" if is_tie else kind, difference=0.0 if is_tie else 0.02)
        )
    results = some_results(
        networks=networks,
        comparisons=pairs,
        num_images={"train": 12000, "validation": 4000, "test": 4000},
    )
    assert verdict(results) == said.format(right="90.0 % of 4,000 test images right")


def test_what_would_have_been_shown_asks_for_nothing_more():
    """So many images and runs, and networks so alike, that a point would not have been missed."""
    from towernet.comparison.judging.pairs import pair_of
    from towernet.comparison.judging.statistics import judge
    from towernet.comparison.wording.verdict import answer_words

    draws = np.random.default_rng(0)
    right = draws.random(6000) < 0.9
    runs = np.array([[right ^ (draws.random(6000) < 0.02) for _ in range(9)] for _ in range(2)])
    family = judge(runs, np.arange(6000))
    pair = pair_of(family, family.differences[0], "ab", 0.001)
    assert answer_words(pair, 0.001) == (
        "not shown; a difference of 0.5 points or more is unlikely, as it would probably have been"
        " shown"
    )
    family = judge(runs[:, :, :600], np.arange(600))
    pair = pair_of(family, family.differences[0], "ab", 0.001)
    assert pair.images_needed > 600
    assert "test images" in answer_words(pair, 0.001)


def test_a_loss_of_our_own_network_comes_first(results):
    from towernet.comparison.wording.verdict import verdict

    lost = verdict(results({"resnet50": 0.9, "towernet": 0.7}, 8))
    assert lost.startswith(
        "towernet, the network made with this program, did not come first. resnet50 is the best"
    )
    won = verdict(results({"towernet_patch": 0.9, "towernet": 0.7}, 8))
    assert won.startswith("towernet_patch is the best")


def test_a_network_at_chance_level_is_called_that(results):
    from towernet.comparison.wording.remarks import remarks

    found = results({"towernet": 0.9, "resnet50": 0.32}, 1)
    assert any("resnet50 is not shown to beat guessing" in words for words in remarks(found))
    found = results({"towernet": 0.9, "resnet50": 0.7}, 1)
    assert not any("beat guessing" in words for words in remarks(found))


def test_the_cheapest_that_is_not_shown_to_be_worse_is_named():
    from towernet.comparison.wording.cheapest import cheapest_words

    costs = {"a": 13.0, "b": 60.0, "c": 3.0, "d": 1.0}
    results = some_results(
        # The amount of computation decides nothing: small networks need not be fast.
        networks=[a_network(name, multiply_adds=100 - int(cost)) for name, cost in costs.items()],
        comparisons=[
            a_pair("a", name, answer=answer)
            for name, answer in {"b": "open", "c": "equal", "d": "better"}.items()
        ],
        majority_accuracy=0.3,
    )
    costs = {NetworkName(name): cost for name, cost in costs.items()}
    times = {name: some_times(latency_ms=cost, decode_ms=2.0) for name, cost in costs.items()}
    assert cheapest_words(results, times) == (
        "Of the networks not shown to be worse, c is the cheapest: 5 ms for one image, with"
        " decoding it, instead of 15 ms."
    )
    # Decoding counts: at a larger size it takes longer.
    slow = times | {NetworkName("c"): some_times(latency_ms=3.0, decode_ms=30.0)}
    assert cheapest_words(results, slow) is None
    almost = times | {NetworkName("c"): some_times(latency_ms=12.0, decode_ms=2.0)}
    assert cheapest_words(results, almost) is None, "within what timings vary"
    before = {name: some_times(latency_ms=cost) for name, cost in costs.items()}
    assert cheapest_words(results, before) is None, "decoding was not measured"
    guesses = [*results.networks[:2], a_network("c", interval=(0.25, 0.35)), results.networks[3]]
    assert cheapest_words(changed(results, networks=guesses), times) is None
    few = [a_pair("a", name, answer="too_few_runs") for name in "bcd"]
    assert cheapest_words(changed(results, comparisons=few), times) is None, "all look alike then"


def test_networks_that_only_guess_are_not_recommended(results):
    from towernet.comparison.wording.remarks import remarks

    found = results({"towernet": 0.32, "vgg19": 0.29}, 8)
    assert (
        "Do not use any of them yet. Train longer (give more --epochs or --minutes), or look for"
        " problems in the images with `towernet check`." in remarks(found)
    )
    first, second = found.networks
    found = changed(found, networks=[first, changed(second, interval=(0.31, 0.35))])
    assert not any("none of them" in words for words in remarks(found))


def test_too_few_runs_decide_nothing_however_large_the_lead(results):
    from towernet.comparison.wording.remarks import remarks
    from towernet.comparison.wording.verdict import verdict

    few = results({"towernet": 0.9, "resnet50": 0.5}, 3)
    assert few.comparisons[0].answer == "too_few_runs"
    assert "3 runs are too few to show a difference: " in verdict(few)
    assert any("give --runs 6 or more" in words for words in remarks(few))
    many = results({"towernet": 0.9, "resnet50": 0.5}, 6)
    assert not any("give --runs" in words for words in remarks(many))


def test_too_few_runs_are_said_before_they_are_spent():
    from towernet.comparison.wording.verdict import too_few_runs

    assert too_few_runs(10, 8) == (
        "8 runs are too few for 10 comparisons: no difference, however large, can be distinguished"
        " from chance; give --runs 9 or more."
    )
    assert too_few_runs(10, 9) is None
    assert too_few_runs(10, 1) is None
    assert too_few_runs(0, 3) is None


def network(name, rate, *, by_trials, fell, status="ranked"):
    return a_network(
        name, learning_rate=rate, rate_by_trials=by_trials, fell_apart=fell, status=status
    )


def test_remarks_say_whose_rate_is_not_the_one_its_trials_favoured():
    from towernet.comparison.wording.remarks import about_rates

    chosen = network("a", 0.15, by_trials=True, fell=[])
    single = network("b", 0.01, by_trials=None, fell=[])
    assert about_rates([chosen, single]) == []
    guessing = [network(name, 0.05, by_trials=False, fell=[]) for name in "cd"]
    both = network("e", 0.05 / 3, by_trials=False, fell=[0.05])
    said = about_rates([chosen, *guessing, both])
    assert said == [
        "No short trial of c, d or e beat always predicting the most frequent class by more than"
        " chance. The learning rate is therefore 0.05: the rate closest to the recipe's with which"
        " the loss did not diverge, or grew least.",
        "With the learning rate 0.05, the first run of e diverged or ended less accurate than its"
        " short trial; its runs use 0.0167.",
    ]
    failed = network("f", 0.05 / 3, by_trials=True, fell=[0.15, 0.05], status="failed")
    (said,) = about_rates([failed])
    assert said.startswith("With the learning rate 0.15 or 0.05, the first run of f diverged")
    assert said.endswith("with 0.0167 it failed too.")


def test_no_rate_as_high_as_one_that_diverged_is_left():
    name = NetworkName("a")
    trials = [
        Trial(network=name, learning_rate=rate, num_steps=1, validation_loss=1.0,
              validation_accuracy=0.5, reason=None, seconds=1.0)
        for rate in (0.1, 0.2, 0.4)
    ]  # fmt: skip
    fallen = RateFellApart(network=name, learning_rate=0.2, diverged=False,
                           validation_accuracy=0.2, instead=0.1, seconds=1.0)  # fmt: skip
    outcome = Outcome(name, 0.2, trials, fell_apart=[fallen])
    assert [trial.learning_rate for trial in outcome.trials_left] == [0.1, 0.4]
    outcome = Outcome(name, 0.2, trials, fell_apart=[changed(fallen, diverged=True)])
    assert [trial.learning_rate for trial in outcome.trials_left] == [0.1]


class Answers(Judged):
    """What somebody's answers are worth: of such networks nothing is known but these."""

    num_images: int

    @property
    def num_judged(self):
        return self.num_images

    @property
    def split_words(self):
        return ""


def judged_answers(pairs, num_runs):
    known = {"status": "ranked", "reason": "", "rank": 1, "accuracy": 0.9, "interval": (0.87, 0.93)}
    names = ["the old one", *(pair.second for pair in pairs)]
    return Answers(
        num_runs=num_runs,
        equal_within=0.005,
        networks=[JudgedNetwork(name=name, **known) for name in names],
        comparisons=pairs,
        sentence="",
        remarks=(),
        num_images=1234,
    )


def test_answers_of_anybodys_networks_are_judged_in_the_same_words():
    from towernet.comparison.wording.remarks import remarks_on_answers
    from towernet.comparison.wording.verdict import sentence

    found = judged_answers(
        [
            a_pair("the old one", "resnet 50 (v2)"),
            a_pair("the old one", "towernet", answer="open", to_show=0.02, runs_needed=30),
            a_pair("resnet 50 (v2)", "towernet"),
        ],
        num_runs=8,
    )
    assert sentence(found) == (
        "the old one is the best network here (90.0 % of 1,234 images right). It beats resnet 50"
        " (v2) by 2.0 points [1.0, 3.0]; no difference from towernet is shown: 2.0 points"
        " [1.0, 3.0]."
    )
    assert remarks_on_answers(found) == [
        "About 30 runs in all would probably show a difference of 2 points.",
        "In brackets: the range in which the difference probably is, for other runs and images of"
        " the same kind (95 % interval, for all comparisons at once).",
    ]


@pytest.mark.parametrize(
    ("num_runs", "said"),
    [
        (
            1,
            "With one run each, this compares these trained models, not the networks: another seed"
            " can change the order. To compare the networks, give the answers of 6 or more runs of"
            " each network.",
        ),
        (
            3,
            "3 runs are too few: no difference, however large, can be distinguished from chance;"
            " give the answers of 6 or more runs of each network.",
        ),
    ],
)
def test_too_few_answers_ask_for_answers_and_no_option(num_runs, said):
    from towernet.comparison.wording.remarks import remarks_on_answers
    from towernet.comparison.wording.verdict import sentence

    found = judged_answers([a_pair("the old one", "mine", answer="too_few_runs")], num_runs)
    assert remarks_on_answers(found)[-1] == said
    subject = "The trained model of the old one" if num_runs == 1 else "the old one"
    assert sentence(found).startswith(f"{subject} came first (90.0 % of 1,234 images right). ")

"""The answer in words: what it may say, and the references its figures rest on."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def results():
    """The ranking of two networks on 200 test images, 180 and 160 of them right."""

    def network(name, accuracies):
        accuracy = sum(accuracies) / len(accuracies)
        return {
            "name": name,
            "status": "ranked",
            "accuracy": accuracy,
            "interval": [accuracy - 0.05, accuracy + 0.05],
            "runs": [{"accuracy": value} for value in accuracies],
        }

    def make(first, second, names=("towernet", "resnet50")):
        return {
            "kind": "comparison",
            "final_split": "test",
            "num_images": {"test": 200},
            "majority_accuracy": 0.3,
            "num_runs": len(first),
            "networks": [network(names[0], first), network(names[1], second)],
            "winner": {"name": names[0], "folder": "runs/x-0"},
        }

    return make


def right(num_right, num_images=200):
    return np.arange(num_images) < num_right


def test_one_run_speaks_of_models_and_of_chance(results):
    from towernet.compare.verdict import verdict

    said = verdict(results([0.9], [0.8]), {"towernet": right(180), "resnet50": right(160)})
    assert "10.0 points before resnet50, more than chance would make of these two models" in said
    said = verdict(results([0.9], [0.88]), {"towernet": right(180), "resnet50": right(176)})
    assert "these runs do not show a difference" in said


def test_a_loss_of_our_own_network_comes_first(results):
    from towernet.compare.verdict import verdict

    lost = results([0.9], [0.8], names=("resnet50", "towernet"))
    said = verdict(lost, {"resnet50": right(180), "towernet": right(160)})
    assert said.startswith("Our own network, towernet, did not come first: resnet50")

    won = results([0.9], [0.8], names=("towernet_patch", "towernet"))
    said = verdict(won, {"towernet_patch": right(180), "towernet": right(160)})
    assert said.startswith("towernet_patch is ahead")


def test_equal_accuracies_are_level(results):
    from towernet.compare.verdict import verdict

    said = verdict(results([0.9], [0.9]), {"towernet": right(180), "resnet50": right(180)})
    assert said.startswith("towernet and resnet50 are level")


def test_a_network_at_chance_level_is_called_that(results):
    from towernet.compare.verdict import remarks

    assert any("resnet50 cannot be told from" in r for r in remarks(results([0.9], [0.32])))
    assert not any("cannot be told from" in r for r in remarks(results([0.9], [0.8])))


def test_few_runs_cannot_decide_and_many_can(results):
    from towernet.compare.verdict import remarks, verdict

    few = results([0.9, 0.91, 0.92], [0.5, 0.51, 0.52])
    assert "these runs do not show a difference" in verdict(few, {})
    assert any("give --runs 6 or more" in remark for remark in remarks(few))
    many = results([0.9, 0.91, 0.92, 0.9, 0.91, 0.92, 0.9], [0.8, 0.81, 0.82, 0.83, 0.8, 0.8, 0.8])
    assert "more than chance would make of these two networks" in verdict(many, {})


@pytest.mark.parametrize("num_runs", [2, 6, 8])
def test_the_smallest_sign_flip_p_is_two_in_two_to_the_k(num_runs):
    from towernet.compare.scores import sign_flip_p

    differences = np.linspace(0.01, 0.03, num_runs)
    assert sign_flip_p(differences) == pytest.approx(2 / 2**num_runs)


def test_mcnemar_is_that_of_statsmodels():
    from statsmodels.stats.contingency_tables import mcnemar

    from towernet.compare.scores import mcnemar_p

    draw = np.random.default_rng(3)
    one, two = draw.random(300) < 0.8, draw.random(300) < 0.7
    table = [[(one & two).sum(), (one & ~two).sum()], [(~one & two).sum(), (~one & ~two).sum()]]
    assert mcnemar_p(one, two) == pytest.approx(mcnemar(table, exact=True).pvalue)
    assert mcnemar_p(one, one) == 1.0


def test_f1_and_confusion_are_those_of_scikit_learn():
    from sklearn import metrics

    from towernet.compare.scores import confusion_matrix, macro_f1, per_class

    draw = np.random.default_rng(4)
    labels, predicted = draw.integers(0, 5, 200), draw.integers(0, 5, 200)
    confusion = confusion_matrix(labels, predicted, 5)
    np.testing.assert_array_equal(confusion, metrics.confusion_matrix(labels, predicted))
    assert macro_f1(confusion) == pytest.approx(
        metrics.f1_score(labels, predicted, average="macro")
    )
    rows = per_class(confusion, tuple("abcde"))
    expected = metrics.precision_recall_fscore_support(labels, predicted)
    for i, key in enumerate(("precision", "recall", "f1", "num_images")):
        assert [row[key] for row in rows] == pytest.approx(expected[i].tolist())

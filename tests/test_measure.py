"""`--measure balanced`: what chooses epochs, rates and networks, and what is compared and shown."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from made_results import a_conclusion, a_network, a_pair, a_run, changed, some_results
from test_rates import images
from towernet.api.answers import judge
from towernet.errors import ConfigError, DataError
from towernet.names import NetworkName

NUM_COMMON, NUM_RARE = 90, 10


def answers(runs=8, seed=0) -> pd.DataFrame:
    """Return a table in which `common` is more accurate, and `fair` better at the rare class."""
    chance = np.random.default_rng(seed)
    labels = np.repeat(["common", "rare"], [NUM_COMMON, NUM_RARE])
    rows = []
    for network, skills in {"common": (0.97, 0.2), "fair": (0.9, 0.9)}.items():
        for run in range(runs):
            skill = np.where(labels == "common", *skills)
            right = chance.random(len(labels)) < skill
            other = np.where(labels == "common", "rare", "common")
            rows.append(
                pd.DataFrame(
                    {
                        "network": network,
                        "run": run,
                        "image": np.arange(len(labels)),
                        "label": labels,
                        "answer": np.where(right, labels, other),
                    }
                )
            )
    return pd.concat(rows, ignore_index=True)


def recalls(table: pd.DataFrame, network: str) -> list[float]:
    own = table[table["network"] == network]
    right = own["answer"] == own["label"]
    return [float(right[own["label"] == name].mean()) for name in ("common", "rare")]


def test_a_judgement_by_balanced_accuracy_ranks_by_the_mean_recall():
    table = answers()
    by_accuracy, balanced = judge(table).judged, judge(table, measure="balanced").judged
    assert [network.name for network in balanced.networks] == ["fair", "common"]
    expected = {name: np.mean(recalls(table, name)) for name in ("common", "fair")}
    for network in balanced.networks:
        assert network.balanced_accuracy == pytest.approx(expected[network.name])
        low, high = network.balanced_interval
        assert low < network.balanced_accuracy < high
    (pair,) = balanced.comparisons
    assert pair.difference == pytest.approx(expected["fair"] - expected["common"])
    assert pair.answer == "better"
    # A judgement that ignores the classes finds the same figures, but no such difference.
    assert by_accuracy.networks[0].balanced_accuracy is not None
    assert abs(by_accuracy.comparisons[0].difference) < 0.1
    assert f"balanced accuracy of {100 * expected['fair']:.1f} %" in balanced.sentence
    assert "100 images" in balanced.sentence
    assert "right" not in balanced.sentence
    dumped = balanced.model_dump()
    assert dumped["measure"] == "balanced"
    assert "measure" not in by_accuracy.model_dump()


def test_classes_of_one_size_give_the_same_comparisons():
    table = answers()
    even = table[(table["label"] == "rare") | (table["image"] < NUM_RARE)]
    assert judge(even).judged.comparisons == judge(even, measure="balanced").judged.comparisons


def test_without_labels_there_is_no_balanced_accuracy():
    table = answers(runs=1)
    table = table.assign(right=table["label"] == table["answer"]).drop(columns=["label", "answer"])
    judged = judge(table).judged
    assert judged.networks[0].balanced_accuracy is None
    assert "balanced_accuracy" not in judged.model_dump()["networks"][0]
    with pytest.raises(DataError, match="has no column 'label'"):
        judge(table, measure="balanced")
    with pytest.raises(ConfigError, match="--measure is 'f1'; give accuracy or balanced"):
        judge(table, measure="f1")


def test_the_report_and_the_tables_of_a_judgement_show_both(tmp_path):
    judged = judge(answers(), measure="balanced", out=tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Balanced accuracy on 100 images" in page
    assert "--measure balanced" in page
    fair = judged.judged.networks[0]
    assert f"{100 * fair.balanced_accuracy:.1f}\u00a0%" in page
    assert f"{100 * fair.accuracy:.1f}\u00a0%" in page
    head = (tmp_path / "results.csv").read_text().splitlines()[0]
    assert head.endswith("balanced_accuracy,balanced_interval_low,balanced_interval_high")
    assert list(judged.ranking.columns)[2:] == [
        *("accuracy", "low", "high"),
        *("balanced_accuracy", "balanced_low", "balanced_high"),
    ]


def metrics(accuracy, loss, balanced):
    from towernet.records.run import EpochMetrics

    return EpochMetrics(
        epoch=1.0,
        step=10,
        learning_rate=0.1,
        train_loss=1.0,
        train_accuracy=0.5,
        validation_accuracy=accuracy,
        validation_loss=loss,
        validation_balanced=balanced,
    )


def test_the_best_epoch_is_that_of_the_measure():
    from towernet.engine.state import State
    from towernet.records.scores import Validation

    better = metrics(0.9, 0.4, Validation(accuracy=0.6, loss=0.9))
    worse = metrics(0.95, 0.2, Validation(accuracy=0.5, loss=1.1))
    state = State(run="", best_accuracy=0.55, best_loss=1.0)
    assert state.is_best(better)
    assert not state.is_best(worse)
    assert state.is_best(worse.model_copy(update={"validation_balanced": None}))
    tied = metrics(0.9, 0.4, Validation(accuracy=0.55, loss=0.99))
    assert state.is_best(tied)


def test_validation_is_averaged_over_the_classes():
    from towernet.engine.validation import balanced_figures, loss_and_accuracy

    chance = np.random.default_rng(0)
    labels = np.repeat([0, 2], [30, 3])  # a class without images does not count
    logits = chance.normal(size=(33, 3)).astype(np.float32)
    found = balanced_figures(logits, labels)
    parts = [loss_and_accuracy(logits[labels == each], labels[labels == each]) for each in (0, 2)]
    assert found.loss == pytest.approx(np.mean([loss for loss, _ in parts]))
    assert found.accuracy == pytest.approx(np.mean([accuracy for _, accuracy in parts]))
    assert found.loss != pytest.approx(loss_and_accuracy(logits, labels)[0])


def a_trial(rate, accuracy, loss, balanced):
    from towernet.records.ledger import Trial
    from towernet.records.scores import Validation

    return Trial(
        network="resnet18",
        learning_rate=rate,
        num_steps=5,
        validation_loss=loss,
        validation_accuracy=accuracy,
        reason=None,
        seconds=1.0,
        validation_balanced=balanced and Validation(accuracy=balanced[0], loss=balanced[1]),
    )


UNEVEN = images((200, 30, 20))


def test_the_learning_rate_is_that_of_the_measure():
    from towernet.comparison.rates import beats_guessing, best_rate

    dataset = UNEVEN
    low = a_trial(0.01, 0.95, 0.2, (0.5, 0.9))
    high = a_trial(0.1, 0.9, 0.4, (0.8, 0.5))
    assert best_rate([low, high], 0.01, dataset) == 0.1
    plain = [trial.model_copy(update={"validation_balanced": None}) for trial in (low, high)]
    assert best_rate(plain, 0.01, dataset) == 0.01
    # Naming the commonest class is right for 80 %, and a balanced accuracy of a third.
    guessing = a_trial(0.1, 0.8, 0.6, (1 / 3, 1.2))
    assert not beats_guessing(guessing, dataset)
    assert beats_guessing(a_trial(0.1, 0.75, 0.6, (0.6, 0.9)), dataset)
    assert not beats_guessing(a_trial(0.1, 0.75, 0.6, None), dataset)
    # As certain as some 101 images of equal weight would be, which 42 % of a third is not.
    assert not beats_guessing(a_trial(0.1, 0.8, 0.6, (0.42, 0.9)), dataset)


def test_networks_and_runs_are_chosen_by_the_measure():
    from towernet.comparison.judging.networks import best_run, learnt, selection_key
    from towernet.records.scores import Validation

    common = a_run(validation_accuracy=0.95, validation_balanced=Validation(accuracy=0.5, loss=1.0))
    fair = a_run(validation_accuracy=0.9, validation_balanced=Validation(accuracy=0.8, loss=0.6))
    assert best_run([common, fair]) is fair
    assert selection_key([fair], 9) > selection_key([common], 9)
    plain = [run.model_copy(update={"validation_balanced": None}) for run in (common, fair)]
    assert best_run(plain) is plain[0]
    third = a_run(validation_accuracy=0.8, validation_balanced=Validation(accuracy=1 / 3, loss=1.0))
    status, reason = learnt(NetworkName("resnet18"), [third], 10.0, UNEVEN)
    assert status == "did_not_learn"
    assert "a balanced accuracy of 33.3 % on the validation images" in reason
    assert learnt(NetworkName("resnet18"), [common], 10.0, UNEVEN) == ("ranked", "")


def balanced_results():
    first = a_network("resnet18", accuracy=0.88, balanced_accuracy=0.85)
    second = a_network("resnet50", rank=2, balanced_accuracy=0.8)
    pairs = (a_pair("resnet18", "resnet50", difference=0.05),)
    return some_results(measure="balanced", networks=(first, second), comparisons=pairs)


def test_the_words_are_about_the_measure():
    from towernet.comparison.wording.paper import latex, paragraph
    from towernet.comparison.wording.verdict import verdict
    from towernet.report.headline import headline

    results = balanced_results()
    assert results.guessing == 0.5
    assert "resnet18 is the best network here (balanced accuracy of 85.0 % on 400" in verdict(
        results
    )
    assert headline(results).endswith("balanced accuracy of 85.0 % on 400 test images.")
    made = a_conclusion(results).made
    said = paragraph(results, made)
    assert "ranked and compared by balanced accuracy, the mean over the classes" in said
    assert "Test balanced accuracy (mean of 8 runs) was 85.0 % for resnet18" in said
    assert "Test accuracy (mean of 8 runs) was 88.0 % for resnet18" in said
    assert "the epoch of each was chosen by balanced validation accuracy" in said
    assert "in points of balanced accuracy" in latex(results, made)
    single = changed(results, num_runs=1)
    assert "each weighed by its class" in paragraph(single, made)
    assert "McNemar" not in paragraph(single, made)


def test_the_terminal_shows_both(capsys):
    from towernet.cli.tables import ranking

    ranking(a_conclusion(balanced_results()), Path("out"), Path("out/report.html"))
    shown = capsys.readouterr().out
    head, row, *_ = shown.splitlines()[1:]
    heads = ("balanced, test", "95 % interval", "accuracy", "macro F1", "time per image")
    assert [head.index(words) for words in heads] == sorted(head.index(words) for words in heads)
    assert row.index("85.0 %") < row.index("88.0 %")
    ranking(a_conclusion(), Path("out"), Path("out/report.html"))
    head = next(line for line in capsys.readouterr().out.splitlines() if "network" in line)
    assert head.index("balanced") > head.index("95 % interval")


def test_headers_that_do_not_fit_in_one_line_are_not_cut_off(capsys):
    from towernet.cli.tables import ranking

    results = balanced_results()
    name = NetworkName("shufflenet_v2_x1_0+coordinate")
    long = results.networks[1].model_copy(update={"name": name})
    networks = (results.networks[0], long)
    results = results.model_copy(update={"networks": networks, "comparisons": ()})
    ranking(a_conclusion(results), Path("out"), Path("out/report.html"))
    above, head, *rest = capsys.readouterr().out.splitlines()[1:]
    assert above.split() == ["balanced,", "95", "%", "macro", "multiply-", "time", "per"]
    heads = ["network", "test", "interval", "accuracy", "F1", "parameters", "adds", "training"]
    assert head.split() == [*heads, "image"]
    assert above.index("balanced,") + len("balanced,") == head.index("test") + len("test")
    assert str(name) in rest[1] and "…" not in above + head + rest[0] + rest[1]


def unranked(confusion, best_epoch, **fields):
    """Return the results of a network that did not learn, after twelve epochs."""
    network = a_network(
        "resnet18",
        status="did_not_learn",
        reason="did not learn",
        rank=None,
        confusion=confusion,
        runs=(a_run(best_epoch=best_epoch),),
    )
    return some_results(networks=(network,), comparisons=(), **fields)


ONLY_CATS = ((190, 0), (10, 0))


@pytest.mark.parametrize(
    ("confusion", "best_epoch", "fields", "words"),
    [
        (
            ONLY_CATS,
            12.0,
            {"majority_accuracy": 0.95},
            "resnet18 predicts only the class cat. The classes are uneven: give --measure balanced,"
            " and set train.balanced_drawing = true in a recipe. Train longer (give more --epochs"
            " or --minutes).",
        ),
        (
            ONLY_CATS,
            3.0,
            {"majority_accuracy": 0.95, "measure": "balanced"},
            "resnet18 predicts only the class cat. The classes are uneven: set"
            " train.balanced_drawing = true in a recipe. More time would probably not help, since"
            " the best epochs were early: look for problems in the images with `towernet check`.",
        ),
        (
            ONLY_CATS,
            12.0,
            {"majority_accuracy": 0.95, "measure": "balanced", "balances_classes": True},
            "resnet18 predicts only the class cat. Train longer (give more --epochs or --minutes).",
        ),
        (
            ((0, 190), (0, 10)),  # a rare class, for which the sizes of the classes are no reason
            12.0,
            {"majority_accuracy": 0.95},
            "resnet18 predicts only the class dog. Train longer (give more --epochs or --minutes).",
        ),
        (
            ((100, 0), (100, 0)),
            12.0,
            {},
            "resnet18 predicts only the class cat. Train longer (give more --epochs or --minutes).",
        ),
        (
            ((90, 10), (90, 10)),
            12.0,
            {"majority_accuracy": 0.95},
            "Train longer (give more --epochs or --minutes), or look for problems in the images"
            " with `towernet check`.",
        ),
    ],
)
def test_the_advice_is_about_what_went_wrong(confusion, best_epoch, fields, words):
    from towernet.comparison.wording.verdict import verdict
    from towernet.report.headline import steps

    results = unranked(confusion, best_epoch, **fields)
    assert verdict(results) == (
        f"No network learned enough to be ranked on 400 test images. {words}"
    )
    assert [step.words for step in steps(results)] == [words]


def test_nothing_follows_from_the_best_of_a_few_epochs():
    from towernet.comparison.wording.advice import improves

    early = (a_run(best_epoch=1.0),)
    assert improves(a_network("resnet18", epochs=4.0, runs=early))
    assert not improves(a_network("resnet18", epochs=40.0, runs=early))


def test_what_was_made_before_there_was_a_measure_is_read_and_written_as_it_was():
    from towernet.config import Recipe, RunConfig
    from towernet.records.protocol import Request

    config = RunConfig(model="resnet18", recipe=Recipe())
    assert config.measure == "accuracy"
    assert "measure" not in config.model_dump()
    request = Request(models=("resnet18",), recipe=Recipe())
    assert "measure" not in request.model_dump(mode="json")
    balanced = Request(models=("resnet18",), recipe=Recipe(), measure="balanced")
    assert Request(**balanced.model_dump()).measure == "balanced"
    old = some_results().model_dump()
    for network in old["networks"]:
        del network["balanced_accuracy"], network["balanced_interval"]
        for run in network["runs"]:
            del run["balanced_accuracy"]
    read = type(some_results())(**old)
    assert read.measure == "accuracy"
    assert read.model_dump() == old


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Return a folder with 40, 12 and 6 images of three classes."""
    from PIL import Image

    folder, chance = tmp_path_factory.mktemp("uneven"), np.random.default_rng(0)
    for name, num, colour in (("a", 40, 0), ("b", 12, 1), ("c", 6, 2)):
        (folder / name).mkdir()
        for number in range(num):
            pixels = chance.integers(0, 120, (40, 40, 3), dtype=np.uint8)
            pixels[..., colour] += 100
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.mark.proof
@pytest.mark.timeout(300)
def test_a_comparison_by_balanced_accuracy_from_start_to_end(uneven, tmp_path):
    import towernet
    from towernet.records.base import read_record
    from towernet.records.run import RunRecord

    words = {"epochs": 2, "size": 32, "batch_size": 8, "threads": 1, "workers": 1}
    out = tmp_path / "out"
    found = towernet.compare(uneven, models="towernet_patch", measure="balanced", out=out, **words)
    assert found.results.measure == "balanced"
    assert 'measure = "balanced"' in (out / "protocol.toml").read_text(encoding="utf-8")
    (network,) = found.results.networks
    (run,) = network.runs
    record = read_record(out / run.folder / "run.json", RunRecord)
    assert record.config.measure == "balanced"
    lines = [
        json.loads(line) for line in (out / run.folder / "metrics.jsonl").read_text().splitlines()
    ]
    best = max(
        lines,
        key=lambda line: (
            line["validation_balanced"]["accuracy"],
            -line["validation_balanced"]["loss"],
        ),
    )
    assert record.summary.best_epoch == best["epoch"]
    assert record.summary.validation_balanced.model_dump() == best["validation_balanced"]
    recall = np.mean([row.recall for row in network.per_class])
    assert network.balanced_accuracy == pytest.approx(recall)
    with pytest.raises(ConfigError, match="measure"):
        towernet.compare(uneven, models="towernet_patch", out=out, **words)

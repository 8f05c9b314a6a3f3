"""What is written for a paper and for spreadsheets."""

from __future__ import annotations

import csv

import pytest

from made_results import a_conclusion, changed, some_results
from report_folder import HOSTILE_NAMES, PLAIN_NAMES, Digits, build
from towernet.comparison.csv_files import write_csv_files
from towernet.comparison.wording.paper import escaped, latex, paragraph
from towernet.records.base import read_record
from towernet.records.results import Conclusion
from towernet.words import in_points


@pytest.fixture(scope="module")
def conclusion(tmp_path_factory):
    folder = build(tmp_path_factory.mktemp("comparison"), Digits(PLAIN_NAMES), num_runs=3)
    return read_record(folder / "results.json", Conclusion)


def test_the_paragraph_holds_the_figures(conclusion):
    results, made = conclusion.results, conclusion.made
    said = paragraph(results, made)
    ranked = [network for network in results.networks if network.status == "ranked"]
    for network in ranked:
        assert f"{100 * network.accuracy:.1f} % for {network.name}" in said
    assert f"{results.num_images.test:,} test images) at" in said
    assert "3 runs each" in said
    assert "the sign-flip test over runs adjusted by Holm for 3 pairs (p < 0.05)" in said
    assert "huge could not be ranked (step 3: the loss is not finite)." in said
    assert made.hardware.processor in said
    for pair in results.comparisons:
        if pair.first == ranked[0].name:
            assert pair.answer == "too_few_runs"
            assert f"{pair.second} ({in_points(pair.difference)} points" in said
    assert f"{ranked[0].name} was not shown to differ from" in said
    assert "evaluated once, after the last run." in said
    assert "evaluated once, after the last run (and 2 more since then)." in paragraph(
        results, made, later_looks=2
    )


@pytest.mark.parametrize(
    ("answer", "verb"),
    [("better", "was better than"), ("equal", "was equal to"), ("open", "was not shown to differ")],
)
def test_each_answer_has_its_verb(conclusion, answer, verb):
    results = conclusion.results
    results = changed(
        results, comparisons=[changed(pair, answer=answer) for pair in results.comparisons]
    )
    said = paragraph(results, conclusion.made)
    assert f"{results.networks[0].name} {verb}" in said
    verbs = {"was better than", "was equal to", "was not shown to differ"}
    assert not any(other in said for other in verbs - {verb})


def test_one_run_speaks_of_models(conclusion):
    results = changed(conclusion.results, num_runs=1)
    said = paragraph(results, conclusion.made)
    assert "the exact McNemar test of the trained models" in said
    assert f"The trained model of {results.networks[0].name} was" in said
    assert "1 run each" in said


def test_without_test_images_it_says_that_the_figures_flatter(conclusion):
    results = changed(
        conclusion.results,
        final_split="validation",
        resampled=True,
        num_images=changed(conclusion.results.num_images, test=0),
    )
    said = paragraph(results, conclusion.made)
    assert "no test images" in said
    assert "flatter" in said
    assert "Each run left out other images." in said
    assert "Nadeau and Bengio" in said
    assert "The test images were evaluated" not in said


def test_a_comparison_that_came_to_nothing_has_a_paragraph_and_a_table(conclusion):
    failed = {"status": "failed", "reason": "out of memory", "epochs": 0.0, "trials": ()}
    networks = [changed(network, **failed) for network in conclusion.results.networks]
    results = changed(conclusion.results, networks=networks, comparisons=())
    said = paragraph(results, conclusion.made)
    assert said.count("could not be ranked (out of memory).") == len(networks)
    assert "accuracy was" not in said
    assert latex(results, conclusion.made).count(r"\begin") == 2


def test_the_table_has_a_row_for_each_network(conclusion):
    text = latex(conclusion.results, conclusion.made)
    ranked = [n for n in conclusion.results.networks if n.status == "ranked"]
    rows = [line for line in text.splitlines() if line.endswith(r"\\") and "&" in line]
    assert len(rows) == 1 + len(ranked)
    assert all(row.count(" & ") == 6 for row in rows)
    assert text.count(r"\begin") == text.count(r"\end") == 2


def test_what_latex_would_read_as_commands_is_printed():
    assert escaped("a_b & 5 % of {x}^2 ~ \\cmd #1 $") == (
        r"a\_b \& 5 \% of \{x\}\textasciicircum{}2 \textasciitilde{} \textbackslash{}cmd \#1 \$"
    )


def test_the_csv_files_hold_the_numbers_of_the_results(conclusion, tmp_path):
    results = conclusion.results
    write_csv_files(tmp_path, conclusion)

    def rows(name):
        with (tmp_path / f"{name}.csv").open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))

    networks = {row["name"]: row for row in rows("results")}
    runs, classes, pairs = rows("runs"), rows("classes"), rows("differences")
    for network in results.networks:
        name, row = network.name, networks[network.name]
        assert row["accuracy"] == ("" if network.accuracy is None else str(network.accuracy))
        if network.interval:
            assert [row["interval_low"], row["interval_high"]] == [*map(str, network.interval)]
        of_runs = [float(run["accuracy"]) for run in runs if run["name"] == name]
        assert of_runs == [run.accuracy for run in network.runs]
        recalls = [float(line["recall"]) for line in classes if line["name"] == name]
        assert recalls == [line.recall for line in network.per_class or []]
    assert [float(row["p_adjusted"]) for row in pairs] == [
        pair.p_adjusted for pair in results.comparisons
    ]


def test_the_columns_are_what_spreadsheets_were_made_for(tmp_path):
    write_csv_files(tmp_path, a_conclusion())
    heads = {path.stem: path.read_text().split("\n")[0].strip() for path in tmp_path.iterdir()}
    assert heads == {
        "results": (
            "rank,name,status,accuracy,interval_low,interval_high,macro_f1,validation_accuracy,"
            "parameters,multiply_adds,learning_rate,epochs,steps,training_seconds,trial_seconds,"
            "images_per_second,latency_ms,peak_memory_mib,balanced_accuracy,balanced_interval_low,"
            "balanced_interval_high,run_seconds,decode_ms,preparing_seconds,size_px,weights,"
            "weights_sha256"
        ),
        "classes": (
            "name,class_name,num_images,precision,precision_interval_low,precision_interval_high,"
            "recall,recall_interval_low,recall_interval_high,f1,f1_interval_low,f1_interval_high"
        ),
        "runs": (
            "name,run,accuracy,macro_f1,validation_accuracy,validation_loss,best_epoch,temperature,"
            "calibration_error,folder,balanced_accuracy"
        ),
        "differences": (
            "first,second,difference,interval_low,interval_high,p,p_adjusted,chance_better,"
            "chance_interval_low,chance_interval_high,answer,to_show,runs_needed,images_needed"
        ),
    }


def test_a_single_run_has_no_tables_of_runs_and_pairs(tmp_path):
    write_csv_files(tmp_path, a_conclusion(some_results(kind="run", comparisons=())))
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["classes", "results"]


def test_hostile_class_names_stay_one_cell_each(tmp_path):
    folder = build(tmp_path / "hostile", Digits(HOSTILE_NAMES), num_runs=1)
    write_csv_files(tmp_path, read_record(folder / "results.json", Conclusion))
    with (tmp_path / "classes.csv").open(newline="", encoding="utf-8") as stream:
        lines = list(csv.reader(stream))
    assert {len(line) for line in lines} == {len(lines[0])}
    assert len(lines) == 1 + 10 * 3

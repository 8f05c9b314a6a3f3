"""What is written for a paper and for spreadsheets."""

from __future__ import annotations

import copy
import csv

import pytest

from report_folder import HOSTILE_NAMES, PLAIN_NAMES, Digits, build
from towernet import files
from towernet.comparison.csv_files import write_csv_files
from towernet.comparison.wording.paper import escaped, latex, paragraph
from towernet.comparison.wording.verdict import in_points


@pytest.fixture(scope="module")
def conclusion(tmp_path_factory):
    folder = build(tmp_path_factory.mktemp("comparison"), Digits(PLAIN_NAMES), num_runs=3)
    return files.read_json(folder / "results.json")


def test_the_paragraph_holds_the_figures(conclusion):
    results = conclusion["results"]
    said = paragraph(results, conclusion["made"])
    ranked = [network for network in results["networks"] if network["status"] == "ranked"]
    for network in ranked:
        assert f"{100 * network['accuracy']:.1f} % for {network['name']}" in said
    assert f"{results['num_images']['test']:,} test images) at" in said
    assert "3 runs each" in said
    assert "the sign-flip test over runs adjusted by Holm for 3 pairs (p < 0.05)" in said
    assert "huge could not be ranked (step 3: the loss is not finite)." in said
    assert conclusion["made"]["hardware"]["processor"] in said
    for row in results["comparisons"]:
        if row["first"] == ranked[0]["name"]:
            assert row["answer"] == "too_few_runs"
            assert f"{row['second']} ({in_points(row['difference'])} points" in said
    assert f"{ranked[0]['name']} was not shown to differ from" in said
    assert "evaluated once, after the last run." in said
    assert "evaluated once, after the last run (and 2 more since then)." in paragraph(
        results, conclusion["made"], 2
    )


@pytest.mark.parametrize(
    ("answer", "verb"),
    [("better", "was better than"), ("equal", "was equal to"), ("open", "was not shown to differ")],
)
def test_each_answer_has_its_verb(conclusion, answer, verb):
    results = copy.deepcopy(conclusion["results"])
    for row in results["comparisons"]:
        row["answer"] = answer
    said = paragraph(results, conclusion["made"])
    assert f"{results['networks'][0]['name']} {verb}" in said
    verbs = {"was better than", "was equal to", "was not shown to differ"}
    assert not any(other in said for other in verbs - {verb})


def test_one_run_speaks_of_models(conclusion):
    results = copy.deepcopy(conclusion["results"]) | {"num_runs": 1}
    said = paragraph(results, conclusion["made"])
    assert "the exact McNemar test of the trained models" in said
    assert f"The trained model of {results['networks'][0]['name']} was" in said
    assert "1 run each" in said


def test_without_test_images_it_says_that_the_figures_flatter(conclusion):
    results = copy.deepcopy(conclusion["results"]) | {"final_split": "validation"}
    results |= {"resampled": True, "num_images": results["num_images"] | {"test": 0}}
    said = paragraph(results, conclusion["made"])
    assert "no test images" in said
    assert "flatter" in said
    assert "Each run left out other images." in said
    assert "Nadeau and Bengio" in said
    assert "test images evaluated" not in said


def test_a_comparison_that_came_to_nothing_has_a_paragraph_and_a_table(conclusion):
    results = copy.deepcopy(conclusion["results"]) | {"comparisons": []}
    for network in results["networks"]:
        network |= {"status": "failed", "reason": "out of memory", "epochs": 0.0, "trials": []}
    said = paragraph(results, conclusion["made"])
    assert said.count("could not be ranked (out of memory).") == len(results["networks"])
    assert "accuracy was" not in said
    assert latex(results, conclusion["made"]).count(r"\begin") == 2


def test_the_table_has_a_row_for_each_network(conclusion):
    text = latex(conclusion["results"], conclusion["made"])
    ranked = [n for n in conclusion["results"]["networks"] if n["status"] == "ranked"]
    rows = [line for line in text.splitlines() if line.endswith(r"\\") and "&" in line]
    assert len(rows) == 1 + len(ranked)
    assert all(row.count(" & ") == 5 for row in rows)
    assert text.count(r"\begin") == text.count(r"\end") == 2


def test_what_latex_would_read_as_commands_is_printed():
    assert escaped("a_b & 5 % of {x}^2 ~ \\cmd #1 $") == (
        r"a\_b \& 5 \% of \{x\}\textasciicircum{}2 \textasciitilde{} \textbackslash{}cmd \#1 \$"
    )


def completed(conclusion):
    """The folder's results with what the CSV files say and a report does not."""
    measured = conclusion["measured"]["networks"]
    nothing = dict.fromkeys(
        ("training_seconds", "trial_seconds", "images_per_second", "latency_ms", "peak_memory_mib")
    )
    for network in conclusion["results"]["networks"]:
        measured[network["name"]] = nothing | measured.get(network["name"], {})
        for run in network["runs"]:
            run |= {"validation_loss": 0.5, "temperature": 1.2, "calibration_error": None}
    return conclusion


def test_the_csv_files_hold_the_numbers_of_the_results(conclusion, tmp_path):
    results = conclusion["results"]
    write_csv_files(tmp_path, completed(conclusion))

    def rows(name):
        with (tmp_path / f"{name}.csv").open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))

    networks = {row["name"]: row for row in rows("results")}
    runs, classes, pairs = rows("runs"), rows("classes"), rows("differences")
    for network in results["networks"]:
        name, row = network["name"], networks[network["name"]]
        assert row["accuracy"] == ("" if network["accuracy"] is None else str(network["accuracy"]))
        if network["interval"]:
            assert [row["interval_low"], row["interval_high"]] == [*map(str, network["interval"])]
        of_runs = [float(run["accuracy"]) for run in runs if run["name"] == name]
        assert of_runs == [run["accuracy"] for run in network["runs"]]
        recalls = [float(line["recall"]) for line in classes if line["name"] == name]
        assert recalls == [line["recall"] for line in network["per_class"] or []]
    assert [float(row["p_adjusted"]) for row in pairs] == [
        pair["p_adjusted"] for pair in results["comparisons"]
    ]


def test_hostile_class_names_stay_one_cell_each(tmp_path):
    folder = build(tmp_path / "hostile", Digits(HOSTILE_NAMES), num_runs=1)
    write_csv_files(tmp_path, completed(files.read_json(folder / "results.json")))
    with (tmp_path / "classes.csv").open(newline="", encoding="utf-8") as stream:
        lines = list(csv.reader(stream))
    assert {len(line) for line in lines} == {len(lines[0])}
    assert len(lines) == 1 + 10 * 3

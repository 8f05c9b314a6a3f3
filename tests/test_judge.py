"""Judging a table of answers: reading, errors, and the same figures as a comparison's."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from browser import open_page
from conftest import TINY_NETWORK, run_towernet
from test_report import check_inert, check_readable
from towernet.api.answers import Judgement, judge
from towernet.comparison.answers.export import answers_table
from towernet.comparison.answers.judged import judge_answers
from towernet.comparison.answers.table import AnswerTable, read_answers
from towernet.errors import DATA, USAGE, ConfigError, DataError
from towernet.records.base import read_record
from towernet.records.judgement import AnsweringNetwork, AnswersJudged
from towernet.records.results import Conclusion, Network
from towernet.report.answers import answers_page
from towernet.report.headline import headline
from towernet.report.notebook import judged_html

RIGHT = """network,run,image,right
a,0,x.png,1
a,0,y.png,0
b,0,x.png,1
b,0,y.png,1
"""
NAMED = """network,run,image,label,answer
a,0,x.png,cat,cat
a,0,y.png,dog,cat
b,0,x.png,cat,cat
b,0,y.png,dog,dog
"""
GROUPED = """network,run,image,right,group
a,0,x.png,1,g
a,0,y.png,0,g
a,0,z.png,1,
b,0,x.png,1,g
b,0,y.png,1,g
b,0,z.png,0,
"""
HOSTILE_NETWORKS = [
    "<script>alert(1)</script>",
    "=cmd|' /C calc'!A0",
    "a\u202egnp.exe\x1b[31m[bold]x[/]",
    "caf\udce9",
    "line\nbreak `x`",
]


def made_up(
    skills: dict[str, float],
    *,
    runs: int = 3,
    images: int = 90,
    per_group: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Answers of networks for images that are equally hard for all; also within a group.

    The names of images, runs and groups have a different order as texts than as numbers.
    """
    draw = np.random.default_rng(seed)
    group_N = np.arange(images) // (per_group or 1)
    hardness_N = draw.normal(0, 1, images)[group_N]
    rows = []
    for name, skill in skills.items():
        for run in range(8, 8 + runs):
            right_N = hardness_N + draw.normal(0, 0.5, images) + draw.normal(0, 0.1) < skill
            rows.append(
                pd.DataFrame(
                    {
                        "network": pd.Series([name] * images, dtype=object),
                        "run": run,
                        "image": [f"{number}.png" for number in range(images)],
                        "right": right_N,
                        "group": group_N,
                    }
                )
            )
    table = pd.concat(rows, ignore_index=True)
    return table if per_group else table.drop(columns="group")


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(answers: pd.DataFrame | Path) -> str:
    with pytest.raises(DataError) as error:
        judge(answers)
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", " is empty; pass a table with a row for each answer"),
        ("\n\n", " is empty; pass a table"),
        ("network,run,image,right\n", " contains no answers; add a row for each"),
        ("network,run,image,right\n,,,\n", " contains no answers"),
        (
            RIGHT.replace("network", "Model").replace("image", "imag"),
            " has no column 'network' or 'image'; its columns are 'model', 'run', 'imag' and"
            " 'right': rename 'model' to 'network' and 'imag' to 'image', if that is their meaning",
        ),
        (
            RIGHT.replace("run", "x"),
            "no column 'run'; its columns are 'network', 'x', 'image' and 'right': if each network"
            " has one run, use 0 in every row",
        ),
        (
            NAMED.replace("label", "target").replace("answer", "pred"),
            "no column 'right' (nor 'label' and 'answer'); its columns are 'network', 'run',"
            " 'image', 'target' and 'pred': rename 'target' to 'label' and 'pred' to 'answer'",
        ),
        (NAMED.replace("answer", "said"), " has no column 'answer'; its"),
        (NAMED.replace("label", "y_true"), "no column 'label'; its"),
        (RIGHT.replace("image", "run"), " has the column 'run' twice; keep one of them"),
        (RIGHT.replace("image", " RUN"), " has the column 'run' twice"),
        (GROUPED.replace("group", "groups"), " has a column 'groups' and none called 'group'; "),
        (RIGHT.replace("b,0,y", "b,,y"), ": 'run' is empty in row 5; fill it in"),
        (RIGHT.replace("x.png", " "), ": 'image' is empty in row 2 and 1 more row; fill it"),
        (NAMED.replace("y.png,dog,", "y.png,,"), ": 'label' is empty in row 3 and 1 more row"),
        (
            RIGHT.replace("y.png,1", "y.png,maybe"),
            ": 'right' is 'maybe' in row 5; use 1 or 0, or true or false",
        ),
        (RIGHT.replace("y.png,1", "y.png,0.5"), ": 'right' is '0.5' in row 5;"),
        (
            "network,run,image,right,label,answer\na,0,x,1,cat,cat\nb,0,x,1,cat,dog\n",
            ": row 3 has the label 'cat', the answer 'dog' and '1' under 'right'; make them agree,",
        ),
        (RIGHT.replace("b,", "a2,").replace("a2,", "a,").replace("a,0,y.png,1", "a,1,y.png,1"),
         " contains the answers of only one network, 'a'; add those of another to compare it"),
        (
            RIGHT + "b,0,x.png,0\nb,0,x.png,0\n",
            ": rows 4 and 6 are both for network 'b', run '0', image 'x.png' (one of 2 duplicate"
            " rows); keep one answer for each",
        ),
        (
            NAMED.replace("b,0,y.png,dog,dog", "b,0,y.png,cat,dog"),
            ": image 'y.png' has the label 'dog' in row 3 and 'cat' in row 5; give every image one",
        ),
        (
            GROUPED.replace("b,0,x.png,1,g", "b,0,x.png,1,h"),
            ": image 'x.png' has the group 'g' in row 2 and 'h' in row 5; give every image one",
        ),
        (
            GROUPED.replace("b,0,x.png,1,g", "b,0,x.png,1,"),
            ": image 'x.png' has the group 'g' in row 2 and none in row 5; give every image one",
        ),
        (
            RIGHT + RIGHT.replace(",0,", ",1,").partition("\n")[2].rpartition("b,1,x")[0],
            ": network 'b' has 1 of 2 runs: run '1' is missing, but 'a' has it; runs are compared"
            " in pairs, so use the same run names for every network",
        ),
        (
            RIGHT.replace("b,0,y.png", "b,0,z.png"),
            ": network 'a', run '0' has answers for 2 of 3 images: 'z.png' is missing, but"
            " network 'b', run '0' has it; every run needs answers for the same images",
        ),
        (
            RIGHT + "a,0,p,1\na,0,q,1\n",
            ": network 'b', run '0' has answers for 2 of 4 images: 'p' is missing (and 1 more),",
        ),
        (
            NAMED.replace("dog", "cat"),
            ": every label is 'cat'; with one class there is nothing to judge, use images of two",
        ),
        (
            NAMED.replace(",cat\n", ",0\n").replace(",dog\n", ",1\n"),
            ": no answer is one of the labels (labels such as 'cat' and 'dog', answers such as '0'"
            " and '1'); use the same class names in both columns",
        ),
        (
            re.sub(r"(?m)^(b,.*),(\w+)$", r"\1,class \2", NAMED),
            ": no answer of 'b' is one of the labels (labels such as 'cat' and 'dog', answers such"
            " as 'class ",
        ),
        (RIGHT + "b,0,z.png,1,9\n", " is damaged (Expected 4 fields in line 6, saw 5); fix it"),
        (RIGHT + 'b,0,"z.png,1\n', " is damaged (EOF inside string starting at row 5); fix it"),
        (RIGHT.encode("utf-16"), " is not UTF-8 but UTF-16; save it as UTF-8 (in Excel: CSV UTF-"),
        (RIGHT.replace("b", "é").encode("latin-1"), " is not UTF-8 (byte 0xe9 in line 4); save it"),
        (b"PK\x03\x04\0\0", " is neither CSV nor Parquet (it starts like an Excel file or another"),
        (b"\x89PNG\r\n\x1a\n\0\0", " is neither CSV nor Parquet (it starts like b'\\x89PNG"),
        (b"PAR1 and no more", " is damaged (Parquet magic bytes not found in footer."),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_judged_are_refused_with_one_line(text, message, tmp_path):
    error = refusal(write(tmp_path / "answers.csv", text))
    assert error.startswith(str(tmp_path / "answers.csv"))
    assert message in error
    assert "\n" not in error


def test_paths_that_are_not_tables_are_refused(tmp_path):
    assert "nowhere.csv does not exist; pass a CSV or Parquet" in refusal(tmp_path / "nowhere.csv")
    assert " is a folder; pass a CSV or Parquet file" in refusal(tmp_path)
    assert "cannot be read (embedded null byte)" in refusal(Path("a\0b"))
    assert " is damaged (Parquet magic bytes" in refusal(write(tmp_path / "a.parquet", RIGHT))
    whole = tmp_path / "whole.parquet"
    pd.read_csv(StringIO(RIGHT)).to_parquet(whole)
    content = bytearray(whole.read_bytes())
    content[20:60] = b"?" * 40
    assert " is damaged (" in refusal(write(tmp_path / "cut.parquet", bytes(content)))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"network": ["a", None]}, "the table: 'network' is empty in row 1; fill it in"),
        ({"image": [float("nan"), "x"]}, "the table: 'image' is empty in row 0; fill it in"),
        ({"right": [pd.NA, True]}, "the table: 'right' is empty in row 0; fill it in"),
        (
            {"network": [["a"], "b"]},
            "the column 'network' of the table has values that are neither text nor numbers",
        ),
        ({"RUN": 0}, "the table has the column 'run' twice"),
    ],
)
def test_frames_that_cannot_be_judged_are_refused(columns, message):
    valid = {"network": ["a", "b"], "run": 0, "image": "x", "right": [True, False]}
    judge(pd.DataFrame(valid))
    assert message in refusal(pd.DataFrame(valid | columns))


def test_too_many_networks_and_runs_are_refused():
    many = pd.DataFrame({"network": range(51), "run": 0, "image": "x", "right": True})
    assert "the table contains 51 networks; use at most 50" in refusal(many)
    runs = pd.DataFrame({"network": ["a", "b"] * 1001, "run": np.arange(2002) // 2})
    assert "the table contains 1,001 runs; use at most 1,000" in refusal(
        runs.assign(image="x", right=True)
    )


def test_a_long_or_unprintable_name_is_shortened_and_escaped_in_a_message(tmp_path):
    error = refusal(write(tmp_path / "answers.csv", RIGHT.replace("b,0,y", "b,0," + "y\x1b" * 99)))
    assert "y\\x1by" in error
    assert "…" in error
    assert len(error) < 400


def test_the_command_refuses_with_one_line_and_the_right_exit_code(towernet, tmp_path):
    answers = write(tmp_path / "answers.csv", RIGHT.replace("b,", "a,").replace(",0,", ",1,", 2))
    done = towernet("judge", answers)
    assert (done.returncode, done.stdout) == (DATA, "")
    assert done.stderr.startswith(f"error: {answers} contains the answers of only one network, 'a'")
    valid = write(tmp_path / "valid.csv", RIGHT)
    for margin in (0, 100, "nan"):
        done = towernet("judge", valid, "--equal-within", margin)
        assert done.returncode == USAGE
        assert f"is {margin}; give more than 0 and less than 100 points" in done.stderr
    (tmp_path / "runs").mkdir()
    write(tmp_path / "runs" / "results.json", "{}")
    for out, message in (
        (tmp_path / "runs", "is not empty and contains no judgement; choose a new folder"),
        (valid, "is a file; choose a folder"),
    ):
        done = towernet("judge", valid, "--out", out)
        assert done.returncode == USAGE
        assert message in done.stderr
    assert (tmp_path / "runs" / "results.json").read_text() == "{}"


def same(one: AnswersJudged, other: AnswersJudged) -> bool:
    return one.model_copy(update={"title": ""}) == other.model_copy(update={"title": ""})


def without_classes(judged: AnswersJudged) -> AnswersJudged:
    """Return a judgement without the figures that need labels."""
    none = {"balanced_accuracy": None}
    return judged.model_copy(
        update={
            "networks": tuple(
                network.model_copy(
                    update=none
                    | {
                        "balanced_interval": None,
                        "runs": tuple(run.model_copy(update=none) for run in network.runs),
                    }
                )
                for network in judged.networks
            )
        }
    )


def test_every_way_to_write_a_table_gives_the_same_result(tmp_path):
    table = made_up({"a": 0.6, "b, c": 1.1, "d;": -0.3}, per_group=3)
    truth = table["right"].to_numpy()
    expected = judge(table).judged
    assert len({network.accuracy for network in expected.networks}) == 3
    file = tmp_path / "answers.csv"

    def check(content: Any) -> None:
        if isinstance(content, pd.DataFrame):
            assert same(without_classes(judge(content).judged), expected)
        else:
            assert same(without_classes(judge(write(file, content)).judged), expected)

    comma = table.to_csv(index=False)
    for text in (
        comma,
        table.to_csv(index=False, sep=";"),
        table.to_csv(index=False, sep="\t"),
        "\ufeff" + table.to_csv(index=False, sep=";", lineterminator="\r\n"),
        comma.replace("network,run", "Network , RUN"),
        comma.replace(",run,", ", run, ").replace(",8,", ", 8, "),
        comma.replace("True", "1").replace("False", "0"),
        comma + "\r\n\n,,,,\n",
        table.assign(confidence=0.5)[["confidence", *table.columns[::-1]]].to_csv(index=False),
    ):
        check(text)
    table.to_parquet(tmp_path / "answers.parquet")
    assert same(judge(tmp_path / "answers.parquet").judged, expected)
    assert same(judge(str(write(tmp_path / "named.txt", comma))).judged, expected)
    shuffled = np.random.default_rng(1).permutation(len(table))
    check(table.iloc[shuffled])
    for right in (truth.astype(float), truth.astype(object), np.where(truth, "TRUE", "False")):
        check(table.assign(right=right))
    check(table.astype({"network": "category", "image": "category", "run": "float"}))
    check(table.assign(run=table["run"].astype(str), group=table["group"].astype(float)))
    label = np.where(table["group"] % 2, "007", "NA")
    named = table.assign(label=label, answer=np.where(truth, label, "null"))
    check(named)
    check(named.drop(columns="right"))
    check(named.drop(columns="right").to_csv(index=False))
    with pytest.raises(AssertionError):
        check(table.assign(right=~truth))


def test_images_with_an_empty_group_are_not_one_group():
    some = made_up({"a": 0.5, "b": 0.1}, per_group=3)
    alone = some["group"] > 10
    judged = judge(some.assign(group=some["group"].where(~alone))).judged
    own = some["group"].where(~alone, 1000 + some["image"].str.removesuffix(".png").astype(int))
    assert judged == judge(some.assign(group=own)).judged
    assert judged.num_groups == 11 + int(alone.sum()) / 6
    assert judged != judge(some.assign(group=some["group"].where(~alone, -1))).judged


def reference(table: pd.DataFrame) -> AnswerTable:
    """Return the same table, made with plain loops."""
    images, networks = sorted(set(table["image"])), list(dict.fromkeys(table["network"]))
    runs = sorted(set(table["run"]))
    group = dict(zip(table["image"], table.get("group", table["image"]), strict=True))
    right = {tuple(row[:3]): row[3] for row in table.itertuples(index=False)}
    return AnswerTable(
        networks=tuple(networks),
        runs=tuple(map(str, runs)),
        right_MKN=np.array([[[right[m, k, n] for n in images] for k in runs] for m in networks]),
        cluster_N=np.array([sorted(set(group.values())).index(group[image]) for image in images]),
        num_groups=len(set(group.values())) if "group" in table else None,
    )


# The ranking differs from both the alphabetical order and the order in the table.
SCENE = {"zeta": 0.6, "alpha": 1.0, "mid": 0.3}


@pytest.mark.parametrize("per_group", [None, 3])
@pytest.mark.parametrize("runs", [1, 7])
def test_the_figures_agree_with_the_statistics(runs, per_group):
    from towernet.comparison.judging import scores, statistics

    table = made_up(SCENE, runs=runs, per_group=per_group)
    judged = judge(table, equal_within=2.0).judged
    plain = reference(table)
    names = ["alpha", "zeta", "mid"]
    places = [plain.networks.index(name) for name in names]
    family = statistics.judge(plain.right_MKN[places], plain.cluster_N)
    assert [network.name for network in judged.networks] == names
    assert [network.rank for network in judged.networks] == [1, 2, 3]
    for pair, difference in zip(judged.comparisons, family.differences, strict=True):
        assert (pair.first, pair.second) == (names[difference.first], names[difference.second])
        assert (pair.difference, pair.interval) == (difference.mean, difference.interval)
        assert (pair.p, pair.p_adjusted) == (difference.p, difference.p_adjusted)
        assert (pair.chance_better, pair.chance_interval) == (
            difference.chance_better,
            difference.chance_interval,
        )
    for network, place in zip(judged.networks, places, strict=True):
        right_KN = plain.right_MKN[place]
        assert network.accuracy == pytest.approx(right_KN.mean())
        assert network.interval == scores.accuracy_interval(right_KN, plain.cluster_N)
        assert [run.accuracy for run in network.runs] == right_KN.mean(axis=1).tolist()
        assert [run.run for run in network.runs] == [str(run) for run in range(8, 8 + runs)]
    assert judged.num_groups == (30 if per_group else None)
    assert judged.equal_within == 0.02


def by_name(table: AnswerTable) -> AnswerTable:
    order = sorted(range(len(table.networks)), key=table.networks.__getitem__)
    networks = tuple(table.networks[place] for place in order)
    return replace(table, networks=networks, right_MKN=table.right_MKN[order])


def judged_in_the_order_of_names(table: AnswerTable) -> AnswersJudged:
    from towernet.comparison.judging.pairs import pair_of
    from towernet.comparison.judging.statistics import judge as judge_right

    named, judged = by_name(table), judge_answers(table, title="", equal_within=0.02)
    family = judge_right(named.right_MKN, named.cluster_N)
    pairs = tuple(pair_of(family, each, named.networks, 0.02) for each in family.differences)
    return judged.model_copy(update={"comparisons": pairs})


def without_groups(table: AnswerTable) -> AnswersJudged:
    alone = replace(table, cluster_N=np.arange(len(table.cluster_N)))
    return judge_answers(alone, title="", equal_within=0.02)


def with_unpaired_runs(table: AnswerTable) -> AnswersJudged:
    right_MKN = table.right_MKN.copy()
    right_MKN[0] = right_MKN[0, ::-1]
    return judge_answers(replace(table, right_MKN=right_MKN), title="", equal_within=0.02)


@pytest.mark.parametrize(
    "sabotaged", [judged_in_the_order_of_names, without_groups, with_unpaired_runs]
)
def test_a_wrong_way_to_judge_is_detected(sabotaged):
    table = made_up(SCENE, runs=7, per_group=3)
    correct = judge_answers(reference(table), title="", equal_within=0.02)
    assert same(judge(table, equal_within=2.0).judged, correct)
    assert sabotaged(read_answers(table)).comparisons != correct.comparisons


def test_tied_networks_stay_in_the_order_of_the_table():
    table = made_up({"b": 0.5}, runs=2)
    tied = pd.concat([table, table.assign(network="a")])
    assert [network.name for network in judge(tied).judged.networks] == ["b", "a"]
    assert [network.name for network in judge(tied[::-1]).judged.networks] == ["a", "b"]


def test_equal_answers_and_a_single_group_can_be_judged():
    all_right = made_up({"a": 99, "b": 99}, runs=7, images=2000)
    assert judge(all_right).judged.comparisons[0].answer == "equal"
    one = judge(all_right.assign(group="all")).judged.comparisons[0]
    assert (one.answer, one.interval) == ("open", (-1.0, 1.0))
    single = judge(all_right[all_right["image"] == "0.png"]).judged
    assert single.comparisons[0].interval == (-1.0, 1.0)


def test_sentences_claim_nothing_that_a_table_of_answers_cannot_show():
    skills = {"resnet18": 1.2, "towernet": 0.2, "svc": 0.1}
    for runs, is_said in ((1, "this compares these trained models, not the networks"), (7, "")):
        judged = judge(made_up(skills, runs=runs, images=400)).judged
        said = " ".join([judged.sentence, *judged.remarks])
        assert is_said in said
        assert judged.sentence.startswith(
            f"resnet18 is the best {'model' if runs == 1 else 'network'} here ("
        )
        assert "of 400 images right" in said
        for claim in (
            "made with this program", "scratch", "learning rate", "Use ", "validation", "recipe",
            "cheapest", "px", "--runs",
        ):  # fmt: skip
            assert claim not in said, said
    few = judge(made_up(skills, runs=3)).judged
    assert "give the answers of 7 or more runs of each network" in " ".join(few.remarks)


@pytest.fixture(scope="module")
def comparison(tmp_path_factory) -> Path:
    """A finished comparison over images of which some are near duplicates of each other."""
    images = tmp_path_factory.mktemp("stripes") / "images"
    draw = np.random.default_rng(5)
    rows, columns = np.mgrid[:36, :40]
    for name, wave in {"lying": rows, "standing": columns, "leaning": rows + columns}.items():
        (images / name).mkdir(parents=True)
        for number in range(14):
            stripes = np.sin(wave * draw.uniform(0.5, 0.9) + draw.uniform(0, 6))
            pixels = 128 + 80 * stripes[:, :, None] * draw.uniform(0.6, 1, 3)
            pixels = pixels + draw.normal(0, 25, (36, 40, 3))
            for copy in range(3 if number % 2 else 1):
                brighter = np.clip(pixels + 3 * copy, 0, 255).astype(np.uint8)
                Image.fromarray(brighter).save(images / name / f"{number:02d}-{copy}.png")
    folder = images.parent / "comparison"
    without_trials = images.parent / "plain.toml"
    without_trials.write_text("[train]\ntrial_factors = [1.0]\n")
    networks = ",".join([TINY_NETWORK, f"{TINY_NETWORK}+eca", f"{TINY_NETWORK}+simam"])
    done = run_towernet(
        "compare", images, "--models", networks, "--recipe", without_trials, "--epochs", 6,
        "--size", 64, "--batch-size", 8, "--runs", 3, "--workers", 1, "--out", folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def agrees(judged: AnswersJudged, conclusion: Conclusion) -> bool:
    """Whether a judgement has the figures of a comparison, to the last digit."""
    results = conclusion.results
    ranked = [network for network in results.networks if network.status == "ranked"]
    return judged.comparisons == results.comparisons and figures(judged.networks) == figures(ranked)


def figures(networks: Iterable[AnsweringNetwork | Network]) -> list[tuple[Any, ...]]:
    return [
        (
            *(each.rank, each.name, each.accuracy, each.interval),
            *(each.balanced_accuracy, each.balanced_interval),
            *((run.accuracy, run.balanced_accuracy) for run in each.runs),
        )
        for each in networks
    ]


@pytest.mark.proof
@pytest.mark.timeout(900)
def test_a_comparisons_answers_reproduce_its_figures_to_the_last_digit(comparison, tmp_path):
    conclusion = read_record(comparison / "results.json", Conclusion)
    table = answers_table(comparison, conclusion.results)
    assert list(table.columns) == ["network", "run", "image", "label", "answer", "group"]
    sizes = table.groupby("group")["image"].nunique()
    assert sizes.max() > 1
    assert len(set(table["network"])) > 1
    assert agrees(judge(table).judged, conclusion)
    table.to_csv(tmp_path / "answers.csv", index=False)
    assert agrees(judge(tmp_path / "answers.csv").judged, conclusion)
    table.to_parquet(tmp_path / "answers.parquet")
    assert agrees(judge(tmp_path / "answers.parquet").judged, conclusion)
    assert agrees(judge(table.sample(frac=1, random_state=0).sort_values(
        "network", key=lambda names: names.map(list(dict.fromkeys(table["network"])).index),
        kind="stable",
    )).judged, conclusion)  # fmt: skip
    # A small difference is detected.
    assert not agrees(judge(table.drop(columns="group")).judged, conclusion)
    first_right = (table["answer"] == table["label"]).idxmax()
    wrong = table["answer"].where(table.index != first_right, "nothing")
    assert not agrees(judge(table.assign(answer=wrong)).judged, conclusion)


@pytest.mark.proof
@pytest.mark.timeout(900)
def test_answers_that_do_not_belong_to_the_comparison_are_refused(comparison, tmp_path):
    conclusion = read_record(comparison / "results.json", Conclusion)
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(DataError, match=r"samples\.parquet does not exist"):
        answers_table(other, conclusion.results)


def test_out_contains_the_record_its_tables_and_the_report(towernet, tmp_path):
    answers = tmp_path / "answers.csv"
    made_up(SCENE, runs=7, per_group=3).to_csv(answers, index=False)
    out = tmp_path / "runs" / "judged"
    done = towernet("judge", answers, "--out", out, "--title", "stripes")
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith(f"report   {out / 'report.html'}")
    judged = read_record(out / "judgement.json", AnswersJudged)
    assert judged == judge(answers, title="stripes").judged
    names = {path.name for path in out.iterdir()}
    assert names == {
        "judgement.json", "results.csv", "runs.csv", "differences.csv", "report.html"
    }  # fmt: skip
    results = pd.read_csv(out / "results.csv")
    assert results["interval_low"].tolist() == [
        n.interval[0] for n in judged.networks if n.interval
    ]
    assert len(pd.read_csv(out / "runs.csv")) == 21
    differences = pd.read_csv(out / "differences.csv")
    assert differences["p_adjusted"].tolist() == [pair.p_adjusted for pair in judged.comparisons]
    page = (out / "report.html").read_text()
    assert "stripes" in page
    assert judged.sentence in page
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert towernet("judge", answers, "--out", out, "--title", "stripes").returncode == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    printed = towernet("judge", answers, "--json", "--title", "stripes")
    assert AnswersJudged.model_validate(json.loads(printed.stdout)) == judged


def test_without_out_nothing_is_written_and_the_terminal_shows_everything(
    towernet, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    made_up(SCENE, runs=7, per_group=3).to_csv("answers.csv", index=False)
    done = towernet("judge", "answers.csv")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["answers.csv"]
    judged = judge("answers.csv").judged
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines if re.match(r"\d\.", line)] == [
        ["1.", "alpha"], ["2.", "zeta"], ["3.", "mid"]
    ]  # fmt: skip
    pairs = [line for line in lines if re.search(r"points +\S+ to \S+ +0\.\d{3} ", line)]
    assert [line.split()[:2] for line in pairs] == [
        ["alpha", "zeta"], ["alpha", "mid"], ["zeta", "mid"]
    ]  # fmt: skip
    assert judged.sentence in lines
    assert set(judged.remarks) <= set(lines)
    assert lines[-1] == "answers  3 networks, 7 runs of each, 90 images in 30 groups"


def test_with_many_networks_the_terminal_shows_the_first_pairs(towernet, tmp_path):
    table = made_up({f"net{number}": number / 10 for number in range(6)}, runs=1)
    table.to_csv(tmp_path / "answers.csv", index=False)
    done = towernet("judge", tmp_path / "answers.csv")
    assert "… and 10 more pairs (--out FOLDER or --json has all)" in done.stdout


def test_names_are_escaped_everywhere(towernet, tmp_path):
    table = made_up(dict.fromkeys(HOSTILE_NETWORKS, 0.5) | {HOSTILE_NETWORKS[1]: 2.0}, runs=7)
    judgement = judge(table, title="</title><img src=//evil.example>", out=tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    check_inert(page)
    check_readable(page)
    assert "&lt;script&gt;" in page
    assert read_record(tmp_path / "out" / "judgement.json", AnswersJudged) == judgement.judged
    for name in ("results", "runs", "differences"):
        text = (tmp_path / "out" / f"{name}.csv").read_text()
        assert "'=cmd|" in text
        assert not re.search('(^|,)"?=', text, re.MULTILINE)
    for text in (repr(judgement), judgement._repr_html_()):
        assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", text)
    text = table.to_csv(index=False).encode("utf-8", "backslashreplace")
    done = towernet("judge", write(tmp_path / "answers.csv", text))
    assert done.returncode == 0, done.stderr
    assert "[bold]x[/]" in done.stdout
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", done.stdout)


def test_python_gets_data_frames_and_a_notebook_gets_html():
    judgement = judge(made_up(SCENE, runs=7))
    assert isinstance(judgement, Judgement)
    assert judgement.verdict == judgement.judged.sentence
    assert judgement.remarks == judgement.judged.remarks
    ranking, differences = judgement.ranking, judgement.differences
    assert list(ranking.columns) == ["rank", "network", "accuracy", "low", "high"]
    assert ranking["network"].tolist() == ["alpha", "zeta", "mid"]
    assert list(differences.columns) == [
        "first", "second", "difference", "low", "high", "p_adjusted", "answer"
    ]  # fmt: skip
    assert differences.loc[0, "low"] == judgement.judged.comparisons[0].interval[0]
    assert repr(judgement).startswith(judgement.verdict)
    html = judgement._repr_html_()
    assert not re.search("<(script|link|img|html|body)|\\son[a-z]+=|url\\(", html)
    for text in (judgement.verdict, *judgement.remarks, "alpha", "95 % interval"):
        assert text in html


def test_the_html_includes_networks_that_could_not_be_ranked():
    judged = judge(made_up(SCENE, runs=7)).judged
    good, *_ = judged.networks
    nothing = {"status": "failed", "rank": None, "accuracy": None, "interval": None}
    bad = good.model_copy(update=nothing | {"name": "<b>bad</b>"})
    changed = {"networks": (good, bad), "remarks": ("Use `towernet check`.",)}
    html = judged_html(judged.model_copy(update=changed))
    assert "&lt;b&gt;bad&lt;/b&gt;" in html
    assert html.count("–</td>") == 3
    assert "<code>towernet check</code>" in html


def test_judging_does_not_import_torch(tmp_path):
    write(tmp_path / "answers.csv", RIGHT)
    code = (
        "import sys; from towernet.cli.main import main; assert main(['judge', 'answers.csv']) == 0"
        "; import towernet; repr(towernet.judge('answers.csv')); assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.proof
@pytest.mark.browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (360, True)])
def test_a_browser_shows_the_page_without_errors(tmp_path, width, dark):
    judgement = judge(made_up(SCENE, runs=7, per_group=3))
    page = write(tmp_path / "report.html", answers_page(judgement.judged))
    with open_page(page, width=width, dark=dark) as visit:
        assert visit.errors == []
        assert [url for url in visit.requests if not url.startswith("data:")] == [page.as_uri()]
        assert visit.page.locator("h1").inner_text() == headline(judgement.judged)
        assert visit.page.locator("#full .verdict").inner_text() == judgement.verdict
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        assert visit.barriers() == []


def test_a_million_answers_are_judged(tmp_path):
    """Ten networks, ten runs, ten thousand images: too slow unless vectorised."""
    draw = np.random.default_rng(0)
    right_MKN = draw.random((10, 10, 10_000)) < np.linspace(0.9, 0.95, 10)[:, None, None]
    network, run, image = np.indices(right_MKN.shape).reshape(3, -1)
    table = pd.DataFrame({"network": network, "run": run, "image": image})
    judged = judge(table.assign(right=right_MKN.ravel())).judged
    assert [network.name for network in judged.networks] == [str(i) for i in range(9, -1, -1)]
    assert len(judged.comparisons) == 45
    with pytest.raises(ConfigError):
        judge(table, equal_within=0.0)

"""Ablation: does a block help? The command, its judgement, and the proof that blocks learn."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import TINY_NETWORK, run_towernet
from made_results import (
    a_conclusion,
    a_failed_network,
    a_network,
    changed,
    some_results,
    some_variants,
)
from towernet import files
from towernet.attention import SqueezeExcitation
from towernet.attention.inserted import attention_blocks
from towernet.cli.tables import ranking
from towernet.comparison.forecast import same_for_all_variants
from towernet.comparison.judging.attention import judged_pairs, proof
from towernet.comparison.judging.pairs import pair_of
from towernet.comparison.judging.statistics import judge
from towernet.comparison.wording import ablation
from towernet.comparison.wording.ablation import sentence
from towernet.config import RunConfig, load_recipe, make, override
from towernet.engine import kernels
from towernet.engine.attention_log import gradient_norm
from towernet.engine.block_cost import kernel_of
from towernet.engine.device import Policy
from towernet.engine.learner import initial_model
from towernet.errors import ConfigError
from towernet.models.catalogue import build
from towernet.names import NetworkName
from towernet.records.base import read_record
from towernet.records.protocol import Request, variants
from towernet.records.results import Conclusion, Network, Proof, Results

BLOCKS = "se"
WORDS = (
    "--models", TINY_NETWORK, "--attention", BLOCKS, "--runs", 2, "--epochs", 16, "--size", 64,
    "--batch-size", 8, "--workers", 1,
)  # fmt: skip
VARIANTS = [f"{TINY_NETWORK}+se"]


@pytest.fixture(scope="module")
def finished(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "ablation"
    recipe = folder.with_name("gentle.toml")  # with higher rates some gates stay at 0 or 1
    recipe.write_text("[train]\nlearning_rate = 0.02\n")
    done = run_towernet("compare", photos, *WORDS, "--recipe", recipe, "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def results_of(folder: Path) -> Results:
    return read_record(folder / "results.json", Conclusion).results


@pytest.mark.proof
def test_each_block_is_judged_against_the_network_without(finished):
    folder, done = finished
    results = results_of(folder)
    assert [variant.name for variant in results.ablation] == VARIANTS
    assert [(pair.first, pair.second) for pair in results.comparisons] == [
        (name, TINY_NETWORK) for name in VARIANTS
    ]
    accuracy = {network.name: network.accuracy for network in results.networks}
    for pair in results.comparisons:
        gap = accuracy[pair.first] - accuracy[TINY_NETWORK]
        assert pair.difference == pytest.approx(gap)
    assert results.sentence in " ".join(done.stdout.split())
    assert "the same initial weights outside the block" in done.stdout
    assert (folder / "differences.csv").read_text().count("\n") == 2
    paper = (folder / "paper.tex").read_text(encoding="utf-8")
    assert "Differences are from the same network without attention" in paper
    assert (
        "se was inserted before residual additions" in paper
        and "Squeeze-and-Excitation Net" in paper
    )
    assert "se was inserted before residual additions" in (folder / "report.html").read_text(
        "utf-8"
    )


@pytest.mark.proof
def test_all_variants_take_as_many_steps(finished):
    folder, _ = finished
    assert len({network.steps for network in results_of(folder).networks}) == 1


@pytest.mark.parametrize("initial_weights", ["network", "paddle"])
@pytest.mark.parametrize("block", ["se", "global_context", "shuffle"])
def test_all_variants_start_with_the_same_weights_outside_the_block(block, initial_weights):
    recipe = override(load_recipe("default"), train={"initial_weights": initial_weights})

    def start(name: str) -> dict[str, torch.Tensor]:
        return initial_model(RunConfig(model=name, recipe=recipe), 3, 128).state_dict()

    for network, without in (("resnet18", "resnet18"), ("towernet", "towernet+none")):
        state, plain = start(f"{network}+{block}"), start(without)
        added = [key for key in state if key not in plain]
        assert added and all("attention" in key for key in added)
        assert all(torch.equal(state[key], plain[key]) for key in plain)
        if block == "global_context":  # with any recipe it starts as its authors start it
            assert not any(state[key].any() for key in added if ".excite." in key)


@pytest.mark.proof
def test_the_report_shows_the_differences_and_the_proof(finished):
    folder, _ = finished
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert 'id="ablation"' in page and 'id="differences"' not in page
    assert "Do the blocks learn?" in page
    assert page.count('<td class="text">yes</td>') == 1
    for variant in results_of(folder).ablation:
        found = variant.proof
        assert variant.parameters > 0 and found.learns and found.num_blocks == 16
        assert len(found.epochs) == 16
        assert all(epoch.gradient_norm > 0 for epoch in found.epochs)
        assert f"+{variant.parameters:,}" in page


OWN_BLOCK = """
import torch
from towernet.attention import GatedBlock

class Brightest(GatedBlock):
    def __init__(self, channels):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(channels, 1, 1))

    def attention_map(self, x_BCHW):
        return torch.sigmoid(x_BCHW.float().amax(dim=(2, 3), keepdim=True) * self.weight{more})
"""


@pytest.mark.proof
def test_a_custom_block_in_the_working_directory_is_compared(photos, tmp_path):
    (tmp_path / "mine.py").write_text(OWN_BLOCK.format(more=""))
    (tmp_path / "broken.py").write_text(OWN_BLOCK.format(more=" + x_BCHW.mean()"))
    words = ("--models", TINY_NETWORK, "--epochs", 1, "--size", 64, "--batch-size", 8)
    program = Path(sys.executable).parent / "towernet"  # `python -m` would find the block anyway

    def compare(block: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, "compare", photos, *map(str, words), "--attention", block,
             "--out", block[:4]],
            capture_output=True, text=True, check=False, cwd=tmp_path,
        )  # fmt: skip

    done = compare("broken:Brightest")
    assert done.returncode == 2 and not (tmp_path / "brok").exists()
    assert done.stderr.startswith("error: Brightest does not")
    done = compare("mine:Brightest")
    assert done.returncode == 0, done.stderr
    protocol = (tmp_path / "mine" / "protocol.toml").read_text()
    assert '"attention mine:Brightest" = ' in protocol  # the protocol includes its code
    (variant,) = results_of(tmp_path / "mine").ablation
    assert variant.name == f"{TINY_NETWORK}+mine:Brightest" and variant.proof.learns

    path = f"{program.parent}:{os.environ['PATH']}"

    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, shell=True, capture_output=True, text=True, check=False, cwd=tmp_path,
            env=os.environ | {"PATH": path},
        )  # fmt: skip

    (folder,) = (tmp_path / "mine" / "runs").glob(f"{TINY_NETWORK}+mine_*-0")
    # Not every system allows a colon in a folder's name; a digest keeps names distinct.
    assert re.fullmatch(rf"{TINY_NETWORK}\+mine_Brightest-[0-9a-f]{{8}}-0", folder.name)
    image, run_folder = next(photos.rglob("*.png")), f"mine/runs/{folder.name}"
    for verb in (f"predict {run_folder} {image}", f"evaluate {run_folder} {photos}"):
        refused = run(f"towernet {verb}")
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
        command = refused.stderr.strip().partition("if you trust it, run: ")[2]
        assert command == f"TOWERNET_BLOCKS=mine:Brightest towernet {verb}"
        done = run(command)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("block", "command"),
    [
        ("se", None),
        ("mine:Brightest", "TOWERNET_BLOCKS=mine:Brightest towernet predict {run} IMAGE"),
    ],
)
def test_the_last_lines_show_how_to_predict_with_a_custom_block(block, command, capfd):
    network = a_network(f"resnet18+{block}")
    winner = {"name": network.name, "folder": network.runs[0].folder}
    used = Path("out") / network.runs[0].folder
    results = some_results(networks=(network,), comparisons=(), winner=winner)
    ranking(a_conclusion(results), Path("out"), Path("out/report.html"))
    printed = capfd.readouterr().out
    assert f"to use   {used}\n" in printed
    expected = command and command.format(run=used)
    assert printed.partition("command  ")[2].partition("\n")[0] == (expected or "")
    results = changed(results, majority_accuracy=1.0)  # guessing is better
    ranking(a_conclusion(results), Path("out"), Path("out/report.html"))
    assert "to use" not in capfd.readouterr().out


# The proof rejects blocks that do not learn.


def write_run(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir()
    files.write_jsonl(folder / "metrics.jsonl", rows)
    return folder


def row(epoch: int, **figures: float) -> dict[str, Any]:
    values = {"gradient_norm": 0.1, "gate_mean": 0.5 + epoch / 100, "gate_spread": 0.1} | figures
    return {
        "epoch": epoch, "step": 12 * epoch, "learning_rate": 0.05,
        "train_loss": 1.0, "train_accuracy": 0.5, "validation_loss": 1.0,
        "validation_accuracy": 0.5, "attention": {"layer1": values},
    }  # fmt: skip


def test_the_proof_includes_every_block_and_run(tmp_path):
    runs = [write_run(tmp_path / str(i), [row(1), row(2, gradient_norm=0.3)]) for i in range(2)]
    # With other images a run can have one epoch more.
    runs.append(write_run(tmp_path / "2", [row(1), row(2, gradient_norm=0.3), row(3)]))
    found = proof(runs)
    assert found is not None
    assert found.learns and found.num_blocks == 1
    assert [epoch.gradient_norm for epoch in found.epochs] == pytest.approx([0.1, 0.3])
    assert found.epochs[0].gain is None


@pytest.mark.parametrize(
    "dead",
    [
        [row(1), row(2, gradient_norm=0.0)],  # the graph was cut
        [row(1, gate_mean=0.5), row(2, gate_mean=0.5)],  # its gates never change
    ],
)
def test_the_proof_rejects_a_block_that_does_not_learn(dead, tmp_path):
    found = proof([write_run(tmp_path / "0", [row(1), row(2)]), write_run(tmp_path / "1", dead)])
    assert found is not None and not found.learns


@pytest.mark.proof
def test_a_network_without_attention_has_no_proof(finished):
    folder, _ = finished
    assert proof([folder / "runs" / f"{TINY_NETWORK}-0"]) is None
    assert proof([]) is None


def test_the_gradient_norm_includes_all_parameters():
    module = torch.nn.Linear(2, 1)
    assert gradient_norm(module) == 0.0
    module(torch.tensor([[3.0, 0.0]])).sum().backward()
    assert gradient_norm(module) == pytest.approx(10**0.5)  # (3, 0) and 1


# The judgement.


def answers(*accuracies: float, runs: int = 10, images: int = 200) -> np.ndarray[Any, Any]:
    draw = np.random.default_rng(3)
    hard = draw.uniform(size=images)
    luck = draw.uniform(-0.05, 0.05, (runs, images))
    return np.array([hard + luck < accuracy for accuracy in accuracies])


def results_from(right: np.ndarray[Any, Any], blocks: list[str]) -> Results:
    names = ["resnet18", *(f"resnet18+{block}" for block in blocks)]
    pairs = [(i, 0) for i in range(1, len(names))]
    family = judge(right, np.arange(right.shape[2]), pairs)
    return some_results(
        ablation=some_variants(names, ["none", *blocks]),
        comparisons=[pair_of(family, d, names, 0.005) for d in family.differences],
        networks=[a_network(name, accuracy=0.7, interval=(0.6, 0.8)) for name in names],
        majority_accuracy=0.1,
        num_runs=right.shape[1],
        num_images={"train": 600, "validation": 200, "test": right.shape[2]},
    )


def test_the_sentence_names_blocks_that_helped_harmed_or_show_no_difference():
    found = results_from(answers(0.7, 0.85, 0.5, 0.702), ["shuffle", "se", "eca"])
    assert [pair.answer for pair in found.comparisons] == ["better", "worse", "open"]
    points = r"\([+\u2212][\d.]+ points \[[\u2212\d., ]+\]\)"
    assert re.fullmatch(
        rf"In resnet18, shuffle {points} helped; se {points} harmed; no effect of eca is shown\.",
        sentence(found),
    ), sentence(found)


def test_one_run_shows_nothing_about_the_block():
    found = results_from(answers(0.7, 0.9, runs=1), ["se"])
    assert found.comparisons[0].answer == "better"
    assert re.fullmatch(r"In resnet18, se \(.*\) gave a better model\.", sentence(found))


def test_blocks_that_could_not_be_judged_are_named():
    found = results_from(answers(0.7, 0.85), ["se"])
    (se,) = found.ablation
    cbam = changed(se, block="cbam", name="resnet18+cbam")
    assert sentence(changed(found, ablation=[se, cbam])).endswith(
        "helped; cbam could not be judged."
    )


def test_a_block_that_changes_nothing_is_not_reported_as_helping():
    right = answers(0.7, 0.7)
    found = results_from(right, ["se"])
    assert found.comparisons[0].answer in ("open", "equal")
    assert "helped" not in sentence(found)


def test_too_few_runs_do_not_show_a_difference():
    found = results_from(answers(0.7, 0.9, runs=3), ["se"])
    assert found.comparisons[0].answer == "too_few_runs"
    assert "no effect of se is shown" in sentence(found)


def test_only_the_requested_pairs_are_judged():
    right = answers(0.7, 0.85, 0.5, 0.71)
    of_all = judge(right, np.arange(200))
    of_two = judge(right, np.arange(200), [(1, 0), (3, 0)])
    assert [(d.first, d.second) for d in of_two.differences] == [(1, 0), (3, 0)]
    assert of_two.num_comparisons == 2 < of_all.num_comparisons
    same = next(d for d in of_all.differences if (d.first, d.second) == (0, 1))
    assert of_two.differences[0].mean == -same.mean
    assert of_two.differences[0].p_adjusted <= same.p_adjusted


def test_variants_share_the_steps_of_the_slowest():
    steps = {"a": 100, "a+se": 80, "a+cbam": 0, "b": 30, "b+se": 40}
    steps = {NetworkName(name): num for name, num in steps.items()}
    assert same_for_all_variants(steps) == {"a": 80, "a+se": 80, "a+cbam": 0, "b": 30, "b+se": 30}


def named(*names: str) -> list[NetworkName]:
    return [NetworkName(name) for name in names]


def test_towernets_own_attention_is_the_variant_called_shuffle():
    names = named("towernet+none", "towernet", "towernet+se")
    found = variants(names, ["none", "shuffle", "se"])
    assert [(v.block, v.name, v.without) for v in found] == [
        ("shuffle", "towernet", "towernet+none"),
        ("se", "towernet+se", "towernet+none"),
    ]


def network(name: str, status: str, accuracy: float) -> Network:
    return a_network(name, status=status, accuracy=accuracy)


def test_a_network_that_did_not_learn_is_only_compared_with_one_that_did():
    of = variants(named("a", "a+se", "b", "b+se", "c", "c+se"), ["none", "se"])
    networks = [
        network("a", "did_not_learn", 0.1), network("a+se", "ranked", 0.5),
        network("b", "did_not_learn", 0.1), network("b+se", "did_not_learn", 0.1),
        network("c", "ranked", 0.5), a_failed_network("c+se"),
    ]  # fmt: skip
    assert judged_pairs(of, networks) == [("a+se", "a")]


def test_remarks_warn_of_a_block_that_did_not_learn():
    found = results_from(answers(0.7, 0.85), ["se"])
    (se,) = found.ablation
    dead = changed(se, proof=Proof(learns=False, num_blocks=1, epochs=()))
    remarks = ablation.remarks(changed(found, ablation=[dead]))
    assert "Accuracy without attention on 200 test images: resnet18 70.0 %." in remarks
    assert any("In resnet18+se, some blocks had no gradients" in remark for remark in remarks)
    assert "for all" not in " ".join(remarks)  # there is one difference


def test_remarks_name_networks_with_a_different_learning_rate():
    found = results_from(answers(0.7, 0.85, 0.71), ["se", "eca"])
    assert not any("a different learning" in remark for remark in ablation.remarks(found))
    without, se, eca = found.networks
    found = changed(found, networks=[without, changed(se, learning_rate=0.15), eca])
    assert any(
        r.startswith("resnet18+se had a different learning") for r in ablation.remarks(found)
    )


def test_remarks_name_the_block_for_which_more_runs_would_decide():
    found = results_from(answers(0.7, 0.9, 0.71, runs=3), ["se", "eca"])
    assert any(remark.startswith("For resnet18+se: about ") for remark in ablation.remarks(found))


def test_the_places_and_initialisation_of_blocks_are_described():
    blocks = ["none", "se", "se@stages@identity", "eca@layer3.0.bn2"]
    of = [
        changed(variant, paper=variant.block[:2])
        for variant in some_variants(["resnet18", "towernet+none"], blocks)
    ]
    (elsewhere,) = some_variants(["towernet"], ["none", "se@blocks"])
    assert ablation.about_blocks([elsewhere])[0].startswith("se@blocks was inserted before resid")
    usual = "before residual additions, else where branches join, else at the ends of stages"
    identity = "without any effect (x + gain·(block(x) − x), gain 0)"
    assert ablation.about_blocks(of) == [
        f"In resnet18, se was inserted {usual} and started as in its paper.",
        f"se@stages@identity was inserted at the ends of stages and started {identity}.",
        "eca@layer3.0.bn2 was inserted after layer3.0.bn2 and started as in its paper.",
        "se was inserted in towernet's own places and started as in its paper.",
        "Sources: se: se; eca: ec.",
    ]


def test_a_block_without_a_shown_benefit_is_not_recommended():
    found = results_from(answers(0.7, 0.702, 0.95), ["eca", "se"])
    words = "but is not shown to beat resnet18, which has no such block"

    def remarks_for(winner: str) -> str:
        results = changed(found, winner={"name": winner, "folder": ""})
        return " ".join(ablation.remarks(results))

    remarks = remarks_for("resnet18+eca")
    assert words in remarks and "Use resnet18" not in remarks
    for name in ("resnet18", "resnet18+se"):
        assert f"Use {name}: it was " in remarks_for(name)
        assert "simpler choice" not in remarks_for(name)


def test_a_request_must_be_a_whole_factorial():
    recipe = load_recipe("default")
    Request(models=("resnet18", "resnet18+se"), attention=("none", "se"), recipe=recipe)
    with pytest.raises(ConfigError, match="give every network with every block, and without"):
        make(
            Request,
            {"models": ("resnet18",), "attention": ("none", "se"), "recipe": recipe.model_dump()},
            where="the command line",
        )


def test_names_have_one_canonical_form():
    assert NetworkName("towernet+shuffle@paper").canonical() == "towernet"
    assert NetworkName("resnet18+none").canonical() == "resnet18"
    found = NetworkName("resnet18+se@identity@stages").canonical()
    assert found == "resnet18+se@stages@identity"
    assert NetworkName("towernet+se@blocks").canonical() == "towernet+se@blocks"


def test_a_block_elsewhere_in_towernet_replaces_its_own():
    blocks = attention_blocks(build("towernet+se@stages", 3, 128))
    assert blocks and all(isinstance(block, SqueezeExcitation) for block in blocks.values())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--attention", "see"], "no attention block is called 'see'. Did you mean 'se'?"),
        (["--attention", "se,,eca"], "--attention is 'se,,eca'; give names of blocks"),
        (["--attention", "se,se"], "--attention names se twice"),
        (["--attention", "se,se@paper", "--models", "resnet18"], "resnet18+se in two ways"),
        (["--attention", "none"], "--attention names no block; give at least one"),
        (["--models", "resnet18,resnet18+none"], "--models names resnet18 twice"),
        (
            ["--attention", "se", "--models", "resnet18+eca"],
            "--models includes a block in resnet18+eca, and --attention adds blocks to each",
        ),
        (["--models", "resnet18+"], "'resnet18+' is not a network with attention"),
        (["--models", "resnet18+se@"], "'resnet18+se@' is not a network with attention"),
        (
            ["--models", "resnet18@stages"],
            "'resnet18@stages' has a place but no block; write NETWORK+BLOCK@PLACE, as in"
            " resnet18+se@stages",
        ),
        (["--attention", "SE"], "no attention block is called 'SE'. Did you mean 'se'?"),
        (["--models", "resnet18+none@stages"], "'none' takes no options; write resnet18+none"),
        (["--models", "resnet18+se@layr4"], "no module or place is called 'layr4'"),
        (["--models", "vit_b_16+se", "--size", 64], "its features are tokens"),
        (["--models", f"{TINY_NETWORK},vit_b_16", "--attention", " none, se ", "--size", 64],
         "error: vit_b_16 cannot take se: VisionTransformer has no place before a residual addit"),
        (["--models", "resnet18", "--attention", "SE"],
         "error: no attention block is called 'SE'. Did you mean 'se'? Known: "),
    ],
)  # fmt: skip
def test_blocks_that_cannot_be_attached_are_refused(words, message, towernet, photos, tmp_path):
    done = towernet("compare", photos, *words, "--out", tmp_path / "out")
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.count("error: ") == 1 and "Traceback" not in done.stderr


def test_the_blocks_are_listed_with_their_cost(towernet):
    done = towernet("attention", "se", "shuffle", "--channels", 64, "--size", 7, "--json")
    assert done.returncode == 0, done.stderr
    se, shuffle = json.loads(done.stdout)
    assert (se["parameters"], shuffle["parameters"]) == (64 * 4 + 4 + 4 * 64 + 64, 6)
    assert se["paper"].startswith("Squeeze-and-Excitation Networks.")
    assert shuffle["milliseconds"] > 0 and shuffle["of_convolution"] > 0
    assert (se["kernel"], shuffle["kernel"] in ("native", "torch")) == ("torch", True)
    done = towernet("attention", "--channels", 7, "--size", 7)
    assert done.returncode == 0, done.stderr
    assert "7 channels cannot be cut into" in done.stdout and "eca" in done.stdout


def test_the_table_of_blocks_names_the_kernel(towernet, monkeypatch):
    policy = Policy("cpu", "float32", True, 1, "", "native" if kernels.fault() is None else "torch")
    monkeypatch.setattr("towernet.engine.device.choose_policy", lambda *_: policy)
    done = towernet("attention", "se", "shuffle", "--channels", 64, "--size", 7)
    words = {line.split()[0]: line.split()[2] for line in done.stdout.splitlines()[2:4]}
    assert words == {"se": "torch", "shuffle": policy.kernels}
    assert ("Times of different kernel types" in done.stdout) == (policy.kernels == "native")


def test_a_compiled_block_is_distinguished_from_torchs_operations():
    def weighed(x):
        return x.sigmoid() * x

    x = torch.ones(1, 4, 2, 2, requires_grad=True)
    assert kernel_of(torch.compile(weighed, backend="aot_eager")(x) + x) == "compiled"
    assert kernel_of(weighed(x) + x) == "torch"


@pytest.mark.parametrize(
    ("words", "most"),
    [(("--size", 1_000_000), r"--size \d+ or less, or fewer --channels"),
     (("--channels", 10**9), "fewer --channels")],
)  # fmt: skip
def test_feature_maps_too_large_for_memory_are_refused(words, most, towernet):
    done = towernet("attention", "se", *words)
    assert done.returncode == 4, done.stderr
    assert re.fullmatch(
        r"error: timing blocks on 8×\d+×\d+×\d+ feature maps may need [\d,.]+ GB of memory and"
        rf" [\d,.]+ GB are free; give {most}\n",
        done.stderr,
    ), done.stderr


def test_running_out_of_memory_anyway_is_a_one_line_error(towernet, monkeypatch):
    def block_costs(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")

    monkeypatch.setattr("towernet.engine.block_cost.block_costs", block_costs)
    done = towernet("attention", "se", "--channels", 64, "--size", 7)
    message = "memory ran out on 8×64×7×7 feature maps; give a smaller --size or fewer --channels"
    assert (done.returncode, done.stderr) == (4, f"error: {message}\n")


@pytest.mark.proof
def test_tensorboard_shows_what_attention_does(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, _ = finished
    run = folder / "runs" / f"{VARIANTS[0]}-0"
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    rows = files.read_jsonl(run / "metrics.jsonl")
    for figure in ("gradient_norm", "gate_mean", "gate_spread"):
        drawn = [event.value for event in events.Scalars(f"attention/{figure}")]
        wanted = [
            float(np.mean([block[figure] for block in row["attention"].values()])) for row in rows
        ]
        assert drawn == pytest.approx(wanted, rel=1e-6)

"""Comparisons of starts in words: who knew what before, which start won, and what has no figure."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import pytest

from made_results import (
    a_conclusion,
    a_pair,
    a_started_network,
    changed,
    some_origin,
    some_results,
    some_times,
    some_variants,
    some_weights,
)
from report_folder import PLAIN_NAMES, Digits, build, with_starts
from test_report import Elements, check_inert, check_readable
from towernet.cli.tables import ranking
from towernet.comparison.conclusion import _all_measured, _with_preparing
from towernet.comparison.csv_files import write_csv_files
from towernet.comparison.judging.times import same_for_starts
from towernet.comparison.wording.cheapest import cheapest_words
from towernet.comparison.wording.paper import latex, paragraph
from towernet.comparison.wording.remarks import remarks
from towernet.comparison.wording.starts import (
    about_weights,
    knowledge,
    no_start_words,
    strength_words,
)
from towernet.comparison.wording.verdict import verdict
from towernet.names import NetworkName
from towernet.records.base import read_record
from towernet.records.ledger import FeaturesReady, Ledger
from towernet.records.results import Conclusion, Results
from towernet.records.scores import LastLayer
from towernet.report.headline import MAX_WORDS, facts, headline
from towernet.report.page import write_report

BASE = "mobilenet_v2"
FROZEN, TUNED = f"{BASE}/frozen", f"{BASE}/finetuned"


def of_starts(names: list[str], answers: dict[tuple[str, str], str], **fields: object) -> Results:
    """Networks in this order, 400 test images; a pair that is not given is better."""
    networks = tuple(a_started_network(name, rank=i + 1) for i, name in enumerate(names))
    pairs = []
    for first, second in combinations(names, 2):
        answer = answers.get((first, second), "better")
        gap = {"better": 0.098, "open": 0.004, "equal": 0.001}[answer]
        between = (gap - 0.01, gap + 0.01)
        pairs.append(a_pair(first, second, answer=answer, difference=gap, interval=between))
    return some_results(**{"networks": networks, "comparisons": tuple(pairs)} | fields)


def against(results: Results, other: str) -> Results:
    pairs = [pair for pair in results.comparisons if other in (pair.first, pair.second)]
    turned = tuple(pair if pair.second == other else pair.turned() for pair in pairs)
    return changed(results, comparisons=turned, against=other)


def test_the_first_sentence_says_which_start_won_by_how_much_and_how_sure():
    results = against(of_starts([FROZEN, TUNED, "towernet_patch", BASE], {}), BASE)
    assert verdict(results) == (
        "towernet_patch, the network made with this program, did not come first."
        f" {FROZEN} came first (90.0 % of 400 test images right), 9.8 points [8.8, 10.8] better"
        f" than {BASE} from scratch. {TUNED} (+9.8 points [8.8, 10.8]) and towernet_patch"
        f" (+9.8 points [8.8, 10.8]) are better than {BASE} from scratch."
    )
    assert headline(results) == (
        f"{FROZEN} came first: 90.0 % right, 9.8 points better than {BASE} from scratch."
    )
    assert len(headline(results).split()) <= MAX_WORDS


def test_with_all_pairs_the_starts_of_each_network_are_compared():
    results = of_starts([FROZEN, TUNED, BASE], {(FROZEN, TUNED): "open"})
    assert verdict(results).endswith(
        f"It beats {BASE} by 9.8 points [8.8, 10.8]; no difference from {TUNED} is shown: 0.4"
        " points [−0.6, 1.4]."
    ), "nothing is said twice"
    results = of_starts(["towernet_patch", TUNED, FROZEN, BASE], {(TUNED, FROZEN): "equal"})
    assert verdict(results).endswith(
        "It beats every other network (mobilenet_v2/finetuned, the nearest, by 9.8 points [8.8,"
        " 10.8]). Of the starts of mobilenet_v2, fine-tuned came first: equal to frozen within ±0.5"
        " points and 9.8 points [8.8, 10.8] better than from scratch."
    )
    only_judged = against(results, "towernet_patch")
    assert "Of the starts" not in verdict(only_judged)
    assert "from scratch" not in verdict(only_judged)


def with_last_layers(results: Results, name: str, *runs: dict[str, object]) -> Results:
    """The results where a network has these runs, by what differs from its first one."""
    first = results.network(name).runs[0]
    found = tuple(first.model_copy(update=values) for values in runs)
    networks = tuple(
        changed(network, runs=found) if network.name == name else network
        for network in results.networks
    )
    return changed(results, networks=networks)


def a_layer(chosen_on: str, *without: str) -> dict[str, object]:
    layer = LastLayer(strength=0.1, chosen_on=chosen_on, without_images=without)
    return {"last_layer": layer}


def test_fine_tuning_that_improved_nothing_is_said():
    results = of_starts([FROZEN, TUNED, BASE], {})
    assert "Fine-tuning did not improve" not in " ".join(remarks(results))
    kept = {"best_epoch": 0.0}
    some = with_last_layers(results, TUNED, kept, {"best_epoch": 3.0}, kept)
    assert (
        f"Fine-tuning did not improve 2 of 3 runs of {TUNED} on the validation images, so these are"
        " its frozen network."
    ) in remarks(some)
    frozen = with_last_layers(results, FROZEN, kept, kept)
    assert "Fine-tuning did not improve" not in " ".join(remarks(frozen))


def test_classes_without_training_images_are_said():
    results = of_starts([FROZEN, BASE], {})
    some = with_last_layers(results, FROZEN, a_layer("folds", "lynx"), a_layer("folds"))
    assert (
        "A last layer that is fitted never predicts lynx, which had no training images."
    ) in remarks(some)


@pytest.mark.parametrize(
    ("ways", "said"),
    [
        ((), ""),
        (("validation",), "chosen on the validation images."),
        (("folds",), "chosen by cross-validation within the training images, where these are"
         " fewer."),
        (("folds", "validation"), "chosen on the validation images; or chosen by cross-validation"
         " within the training images, where these are fewer."),
    ],
)  # fmt: skip
def test_what_chose_the_strength_is_said_as_recorded(ways, said):
    results = of_starts([FROZEN, BASE], {})
    some = with_last_layers(results, FROZEN, *map(a_layer, ways))
    assert strength_words(some) == (
        f"How strongly a last layer was regularised was {said}" if said else ""
    )


def texts(results: Results) -> list[str]:
    return [
        verdict(results), headline(results), *facts(results), *remarks(results),
        paragraph(results, some_origin()),
    ]  # fmt: skip


def test_nothing_that_started_from_weights_is_called_trained_from_scratch():
    results = of_starts([FROZEN, TUNED, "vgg19"], {})
    said = " ".join(texts(results))
    assert (
        "Valid for training from scratch at 128 px for 12 epochs (passes through the images),"
        " fine-tuning these weights at 224 px for 12 epochs (passes through the images) and a last"
        " layer on features of these weights at 224 px; longer training, other weights or larger"
        " images can change the order."
    ) in said
    assert "trained vgg19 from scratch at 128 px" in said
    assert f"a new last layer on the features of {FROZEN} at 224 px and fine-tuned {TUNED}" in said
    only = of_starts([FROZEN, TUNED], {})
    assert "scratch" not in " ".join(texts(only))
    of_one = changed(only, networks=only.networks[:1], comparisons=(), kind="run")
    assert facts(of_one)[2].startswith(
        "A last layer, fitted on features of torchvision IMAGENET1K_V1 at 224 px on 1,200 images"
    )


def test_the_remarks_say_what_the_weights_had_seen():
    said = " ".join(remarks(of_starts([FROZEN, TUNED, BASE], {})))
    assert (
        "Pre-trained weights: torchvision IMAGENET1K_V1 (mobilenet_v2), trained on ImageNet-1k"
        " (1,281,167 images). They are one fixed draw, so the verdict is about these. The images"
        " that these weights were trained on were not compared with the test images, and may"
        " include them or their like."
    ) in said
    plain = some_results()
    assert "weights" not in " ".join(remarks(plain))
    assert "Valid for training from scratch at 128 px for 12 epochs" in " ".join(remarks(plain))


def test_weights_of_runs_made_here_are_not_said_to_be_unknown():
    def said(**of_runs: str | None) -> str:
        networks = tuple(
            a_started_network(
                f"{base}/frozen",
                started_from=some_weights(base, sha256=base * 8, name=f"run {base}", of_runs=known),
            )
            for base, known in of_runs.items()
        )
        return " ".join(about_weights(some_results(networks=networks)))

    compared = "learned from were compared with the test images before training"
    assert compared in said(vgg19="all") and "may include" not in said(vgg19="all")
    assert compared in said(vgg19="some") and "Those of earlier weights were not" in said(
        vgg19="some"
    )
    mixed = said(vgg19="all", resnet18=None)
    assert "The images that run vgg19 learned from were compared" in mixed
    assert "The images that run resnet18 were trained on were not compared" in mixed


def test_what_each_network_knew_is_told_apart_by_weights():
    lite = a_started_network(
        "timm:lite0/frozen", started_from=some_weights("timm:lite0", sha256="a" * 64)
    )
    networks = [a_started_network(name) for name in (FROZEN, BASE, TUNED)] + [lite]
    times = {network.name: some_times() for network in networks}
    times[FROZEN] = some_times(preparing_seconds=30.0)
    nothing, mobile, timms = knowledge(networks, times)
    assert (nothing.weights, nothing.networks) == (None, (BASE,))
    assert mobile.networks == (FROZEN, TUNED)
    assert mobile.preparing_seconds == 30.0
    assert (timms.networks, timms.preparing_seconds) == (("timm:lite0/frozen",), None)


def test_one_line_says_what_a_comparison_from_scratch_leaves_out():
    plain = some_results()
    said = no_start_words(plain, lambda: ["vgg19", "resnet50"])
    assert said is not None
    assert said.endswith("to compare with one, add --starts scratch,frozen.")
    said = no_start_words(plain, lambda: ["mobilenet_v2"])
    assert said is not None
    assert said.endswith("add mobilenet_v2/frozen, whose weights are on this machine, to --models.")
    said = no_start_words(plain, list)
    assert said is not None
    assert "`towernet weights get mobilenet_v2`, then add mobilenet_v2/frozen to --models" in said
    for silent in (
        of_starts([FROZEN, BASE], {}),
        of_starts([FROZEN, BASE], {}, kind="run"),
        some_results(kind="run"),
        some_results(ablation=some_variants(["resnet18"], ["none", "se"])),
    ):
        assert no_start_words(silent, lambda: ["resnet18"]) is None


def test_what_computing_features_took_is_counted_once(tmp_path):
    results = of_starts([FROZEN, TUNED, BASE], {})
    times = {n.name: some_times(training_seconds=10.0, trial_seconds=1.0) for n in results.networks}
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.add(FeaturesReady(network=BASE, num_images=9, seconds=30.0))
    prepared = _with_preparing(times, ledger)
    assert [prepared[n.name].preparing_seconds for n in results.networks] == [30.0, 30.0, None]
    assert _all_measured(prepared, None, (), None, results).total_seconds == 3 * 11 + 30


def test_starts_of_one_network_at_one_size_take_the_same_time():
    results = of_starts([FROZEN, TUNED, BASE], {(FROZEN, TUNED): "open"})
    times = {n.name: some_times(latency_ms=10.0, decode_ms=1.0) for n in results.networks}
    lucky = times | {results.networks[1].name: some_times(latency_ms=3.0, decode_ms=1.0)}
    assert cheapest_words(results, same_for_starts(results.networks, lucky)) is None
    results = of_starts([FROZEN, TUNED, BASE], {(FROZEN, BASE): "open"})
    smaller = times | {results.networks[2].name: some_times(latency_ms=3.0, decode_ms=1.0)}
    as_one = same_for_starts(results.networks, smaller)
    assert as_one[NetworkName(FROZEN)] == as_one[NetworkName(TUNED)] == times[NetworkName(FROZEN)]
    assert str(cheapest_words(results, as_one)).startswith(
        f"Of the networks not shown to be worse, {BASE} is the cheapest: 4 ms for one image"
    )


def test_a_frozen_network_has_no_figures_of_training(tmp_path):
    results = of_starts([FROZEN, TUNED, BASE], {})
    written = a_conclusion(results)
    write_csv_files(tmp_path, written)
    head, *rows = (tmp_path / "results.csv").read_text().splitlines()
    columns = head.split(",")
    values = dict(zip(columns, rows[0].split(","), strict=True))
    assert values["name"] == FROZEN
    for column in ("learning_rate", "epochs", "steps"):
        assert values[column] == ""
    assert (values["size_px"], values["weights"]) == ("224", "torchvision IMAGENET1K_V1")
    of_scratch = dict(zip(columns, rows[2].split(","), strict=True))
    assert (of_scratch["epochs"], of_scratch["size_px"], of_scratch["weights"]) == (
        "12.0",
        "128",
        "",
    )
    assert not results.networks[0].barely_trained
    assert results.networks[0].trained(results.networks[0].steps) is None
    assert results.networks[2].trained(120) == 120
    assert "0 epochs" not in " ".join(texts(results))
    assert " 0 " not in latex(results, some_origin())


def test_results_without_starts_are_written_as_before():
    values = a_conclusion().model_dump()
    (network, _) = values["results"]["networks"]
    assert not {"size_px", "started_from"} & network.keys()
    assert (
        not {"decode_ms", "preparing_seconds"} & values["measured"]["networks"]["resnet18"].keys()
    )
    assert "cheapest" not in values["measured"]
    of_starts_too = a_conclusion(of_starts([FROZEN, BASE], {}))
    assert Conclusion.model_validate(of_starts_too.model_dump()) == of_starts_too


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("starts")
    digits = Digits(PLAIN_NAMES)
    build(folder, digits, num_runs=6)
    with_starts(folder, against=BASE)
    write_report(folder, picture=digits.pictures.get)
    return folder


def test_the_report_says_what_each_network_knew_before(folder: Path):
    html = (folder / "report.html").read_text(encoding="utf-8")
    check_inert(html)
    check_readable(html)
    said = " ".join(Elements(html).text.split())
    for words in (
        "What each network knew before the first step",
        "the limit of epochs per run",
        "ImageNet-1k (1,281,167 images)",
        "BSD-3-Clause",
        "non-commercial research and education",
        "the verdict is about these weights, and not about pre-training in general",
        "were not compared with the test images, and may include them or their like",
        "35.2 s",
        "time per image, with decoding",
        "Only pairs with mobilenet_v2 were judged",
        "Different: what a network knew before, the size of its images (128 to 224 px)",
    ):
        assert words in said, words
    assert "The same for all networks: the images and their splits, their order" not in said
    for table in re.findall(r"<table.*?</table>", html, re.DOTALL):
        for row in re.findall(r"<tr.*?</tr>", table, re.DOTALL):
            if '<th scope="row"' in row and FROZEN in row.split("</th>")[0]:
                cells = [re.sub("<[^>]*>", "", cell) for cell in row.split("<td")[1:]]
                assert not any(re.fullmatch(r"[^>]*>0(\.0*)?\s*", cell) for cell in cells), row


def test_the_terminal_shows_the_size_and_the_time_with_decoding(folder: Path, capsys):
    ranking(read_record(folder / "results.json", Conclusion), folder, folder / "report.html")
    said = capsys.readouterr().out
    assert "px" in said
    assert "decoding + network" in " ".join(said.split())
    assert " 224 " in said
    assert " 2.5 ms" in said  # 2.3 of decoding, 0.21 of the network


def test_runs_that_are_all_the_same_are_said_to_be():
    results = of_starts([FROZEN, BASE], {})
    assert "are all the same" not in " ".join(remarks(results))
    first, second = results.networks
    same = changed(results, networks=(changed(first, runs_are_same=True), second))
    assert f"The 8 runs of {FROZEN} are all the same" in " ".join(remarks(same))


def test_frozen_networks_alone_are_valid_for_no_epochs_and_follow_no_recipe():
    results = of_starts([FROZEN, "resnet18/frozen"], {})
    words = " ".join(remarks(results))
    assert "longer training" not in words
    assert "other weights or larger images can change the order" in words
    assert "recipe" not in paragraph(results, some_origin())
    both = paragraph(of_starts([FROZEN, TUNED, BASE], {}), some_origin())
    assert "the recipes default and finetune of" in both


def test_networks_that_learnt_only_from_weights_are_named():
    results = of_starts([FROZEN, TUNED], {})
    failed = changed(
        a_started_network(BASE), status="did_not_learn", reason="did not learn", rank=None
    )
    both = changed(results, networks=(*results.networks, failed))
    assert f"From scratch {BASE} did not learn on these images in this time" in verdict(both)
    assert "From scratch" not in verdict(results)


def test_images_of_one_size_are_among_what_was_the_same():
    networks = of_starts([FROZEN, BASE], {}).networks
    one = of_starts([FROZEN, BASE], {})
    same = changed(one, networks=tuple(changed(n, size_px=64) for n in networks))
    assert "the size of the images (64 px), and the limit" in facts(same)[2]
    assert "Different: what a network knew before, and how it learns" in facts(same)[2]
    assert "the size of its images (128 to 224 px), and how" in facts(one)[2]

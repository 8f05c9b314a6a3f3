"""A paragraph and a table for a paper, from the results: what was done, how, and the outcome."""

from __future__ import annotations

import re
from statistics import stdev

from towernet.comparison.judging.pairs import BETTER, EQUAL, WORSE
from towernet.comparison.wording.ablation import about_blocks
from towernet.comparison.wording.pairs import pairs_of_first
from towernet.comparison.wording.remarks import about_rates
from towernet.comparison.wording.starts import about_weights, sizes_words
from towernet.comparison.wording.times import FEW_EPOCHS_WORDS, unequal
from towernet.config import FINETUNE, Measure
from towernet.records.judgement import Pair
from towernet.records.results import Made, Network, Results, TrainingTimes
from towernet.words import counted, in_points, listed, p_value, percent, shown

_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "−": "$-$", "±": r"$\pm$", "<": r"$<$", ">": r"$>$", "–": "--",
} | {character: f"\\{character}" for character in "&%$#_{}"}  # fmt: skip


_ABLATION_VERBS: dict[str, str] = {
    BETTER: "helped",
    WORSE: "harmed",
    EQUAL: "made no difference beyond the margin",
}


def paragraph(
    results: Results, made: Made, times: TrainingTimes | None = None, *, later_looks: int = 0
) -> str:
    """Return how the comparison was made and what it found.

    Args:
        results: Of the comparison.
        made: The versions and the machine.
        times: The measured training times, where they were to be equal.
        later_looks: How often its test images were evaluated again later.
    """
    sentences = [
        _training(results, made, times),
        shown(unequal(times, several_runs=results.num_runs > 1)) if times and times.differ else "",
        *map(shown, about_weights(results)),
        _sharing(results),
        _held_out(results, later_looks),
        _method(results),
        *_findings(results),
    ]
    versions = ", ".join(
        f"{package} {made.versions[package]}"
        for package in ("torch", "torchvision")
        if package in made.versions
    )
    machine = shown(made.hardware.processor)
    sentences.append(f"Everything ran on {machine}{f' with {versions}' if versions else ''}.")
    return " ".join(filter(None, sentences))


def latex(results: Results, made: Made, times: TrainingTimes | None = None) -> str:
    """Return the paragraph and a table of the ranked networks as LaTeX with booktabs."""
    differences = _differences(results)
    lines = [
        "% Needs \\usepackage{booktabs}.",
        escaped(paragraph(results, made, times)),
        "",
        r"\begin{table}",
        r"\centering",
        r"\caption{" + escaped(_caption(results)) + "}",
        r"\begin{tabular}{lrrrrrr}",
        r"\toprule",
        r"network & parameters & multiply-adds & accuracy (\%) & balanced accuracy (\%) &"
        r" difference [95\,\%] & $p$ \\",
        r"\midrule",
    ]
    lines += [_table_row(network, differences.get(network.name)) for network in results.ranked]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _differences(results: Results) -> dict[str, Pair]:
    """Return how networks differ from the one they are compared with, by name.

    That is the first, the one of `against`, or the same network without attention.
    """
    if results.ablation or results.against:
        return {pair.first: pair for pair in results.comparisons}
    return {pair.second: pair.turned() for pair in pairs_of_first(results)}


def _table_row(network: Network, pair: Pair | None) -> str:
    low, high = map(in_points, pair.interval) if pair else ("", "")
    cells = (
        escaped(shown(network.name)) + ("$^*$" if network.barely_trained else ""),
        f"{network.parameters / 1e6:.3g}\\,M",
        f"{network.multiply_adds / 1e6:.3g}\\,M",
        _with_spread(network.accuracy, [run.accuracy for run in network.runs]),
        _with_spread(network.balanced_accuracy, [run.balanced_accuracy for run in network.runs]),
        escaped(f"{in_points(pair.difference)} [{low}, {high}]") if pair else "--",
        escaped(p_value(pair.p_adjusted)) if pair else "--",
    )
    return " & ".join(cells) + r" \\"


def _with_spread(score: float | None, runs: list[float] | list[float | None]) -> str:
    """Return a score in percent, with the standard deviation over runs if there are several."""
    if score is None:
        return "--"
    values = [100 * run for run in runs if run is not None]
    return f"{100 * score:.1f}" + (rf" $\pm$ {stdev(values):.1f}" if len(values) > 1 else "")


def escaped(text: str) -> str:
    """Return a text that LaTeX prints as it is."""
    return re.sub("|".join(map(re.escape, _LATEX)), lambda found: _LATEX[found[0]], text)


def _caption(results: Results) -> str:
    spread = " ± the standard deviation over runs" if results.num_runs > 1 else ""
    whom = "the same network without attention" if results.ablation else results.against
    of_what = " of balanced accuracy" if results.measure == "balanced" else ""
    return (
        f"Accuracy and balanced accuracy (the mean over the classes){spread} on"
        f" {results.num_judged:,} {results.final_split} images of"
        f" {shown(results.title)};"
        f" {counted(results.num_runs, 'run')} of each network. Differences are from"
        f" {shown(whom or 'the first')}, in"
        f" points{of_what}, with 95 % intervals for all pairs at once and Holm's p."
        + (f" * {FEW_EPOCHS_WORDS}." if any(n.barely_trained for n in results.ranked) else "")
    )


def _training(results: Results, made: Made, times: TrainingTimes | None) -> str:
    networks, num = results.networks, results.num_images
    epochs = [network.epochs for network in networks if network.epochs and not network.is_frozen]
    length = ""
    if epochs:
        least, most = f"{min(epochs):,.4g}", f"{max(epochs):,.4g}"
        length = f", for {least if least == most else f'{least} to {most}'} epochs"
        if results.minutes:
            minutes = f"{results.minutes:g}"
            planned = "planned for each" if times and times.differ else "each"
            # Variants share the steps of the slowest of them.
            at_most = "at most " if results.ablation else ""
            length += f" ({at_most}{minutes} minute{'' if minutes == '1' else 's'} {planned})"
    test = f", {num.test:,} test" if num.test else ""
    version = made.versions.get("towernet")
    size = "" if results.has_starts else f" at {results.size_px} px"
    return (
        f"We {_how(results)} on"
        f" {shown(results.title)} ({len(results.class_names)} classes; {num.train:,}"
        f" training, {num.validation:,} validation{test} images){size},"
        f" {counted(results.num_runs, 'run')} each{length}, with {_recipes(results)}"
        f"towernet{f' {version}' if version else ''} (seed {results.seed})."
    )


def _recipes(results: Results) -> str:
    """Name the recipes of the networks that are trained: "the recipe default of "."""
    scratch, _, tuned = _by_start(results)
    recipes = [shown(results.recipe)] if scratch else []
    recipes += [FINETUNE] if tuned else []
    return f"the recipe{'s' if len(recipes) > 1 else ''} {listed(recipes)} of " if recipes else ""


def _by_start(results: Results) -> tuple[list[Network], list[Network], list[Network]]:
    """Return the networks from scratch, the frozen and the fine-tuned ones."""
    networks = results.networks
    scratch = [network for network in networks if network.started_from is None]
    frozen = [network for network in networks if network.is_frozen]
    return scratch, frozen, [network for network in networks if network not in scratch + frozen]


def _how(results: Results) -> str:
    """Say which networks were trained from scratch and which started from weights."""
    scratch, frozen, tuned = _by_start(results)
    parts = []
    for verb, some, after in (
        ("trained", scratch, " from scratch"),
        ("fitted a new last layer on the features of", frozen, ""),
        ("fine-tuned", tuned, ""),
    ):
        if some:
            size = f" at {sizes_words(some)}" if results.has_starts else ""
            names = listed([shown(network.name) for network in some])
            parts.append(f"{verb} {names}{after}{size}")
    return listed(parts)


def _sharing(results: Results) -> str:
    networks = [network for network in results.networks if network.started_from is None]
    text = "In each run all networks shared the images, their order and the random augmentation"
    if len(networks) < len(results.networks):
        text = "In each run all networks shared the images and their splits"
        networks = [network for network in results.networks if not network.is_frozen]
    apart = [
        what
        for what, values in (
            ("mixes images for some networks", {network.mixed for network in networks}),
            (
                "starts some networks with smaller images",
                {network.first_size_px for network in networks},
            ),
        )
        if len(values) > 1
    ]
    if apart and not results.has_starts:
        text += f" (except that the recipe {listed(apart)})"
    loss, accuracy = "validation loss", "validation accuracy"
    if results.measure == "balanced":
        loss, accuracy = f"{loss} (the mean over the classes)", f"balanced {accuracy}"
    if any(len(n.trials) > 1 and n.rate_by_trials is not False for n in networks):
        text += (
            f"; the learning rate was chosen by the {loss} of short trials of each, and the epoch"
            f" by {accuracy}."
        )
    elif networks:
        text += f"; the epoch of each was chosen by {accuracy}."
    else:
        text += "."
    return " ".join([text, *map(shown, about_rates(networks))])


def _held_out(results: Results, later_looks: int) -> str:
    redrawn = " Each run drew new training and validation images."
    if results.final_split == "test":
        more = f" (and {later_looks:,} more since then)" if later_looks else ""
        text = f"The test images were evaluated once, after the last run{more}."
        return text + (redrawn if results.redrawn else "")
    flatters = (
        "There were no test images: accuracies are those of the chosen epoch on the images that"
        " chose it, and flatter the networks."
    )
    return flatters + (" Each run left out other images." if results.resampled else "")


def _method(results: Results) -> str:
    num_pairs = len(results.comparisons)
    if not num_pairs:
        return ""
    images = "test images" if results.final_split == "test" else "images"
    if results.resampled:
        test, over = "the corrected resampled t test (Nadeau and Bengio, 2003)", ""
    elif results.num_runs > 1:
        test, over = "the sign-flip test over runs", f" over runs and {images} (Gallas, 2006)"
    else:
        test, over = "the exact McNemar test of the trained models", f" over {images}"
        if results.measure == "balanced":
            test = f"a sign-flip test over {images}, each weighed by its class,"
    holm = f" adjusted by Holm for {num_pairs} pairs" if num_pairs > 1 else ""
    at_once = " for all pairs at once" if num_pairs > 1 else ""
    judged = ""
    if results.measure == "balanced":
        judged = (
            "Networks were ranked and compared by balanced accuracy, the mean over the classes of"
            " the share of each that is classified correctly. "
        )
    only = f" Only pairs with {shown(results.against)} were judged." if results.against else ""
    whom = "A network with a block and without it" if results.ablation else "Two networks"
    return (
        f"{judged}{whom} were called different when both {test}{holm} (p < 0.05) and the 95 %"
        f" interval{over}{at_once} excluded zero, and equal when the whole interval lay"
        f" within ±{100 * results.equal_within:g} points.{only}"
    )


def _findings(results: Results) -> list[str]:
    sentences = []
    if results.ranked:
        split = "Test" if results.final_split == "test" else "Validation"
        over = f" (mean of {results.num_runs} runs)" if results.num_runs > 1 else ""
        measures: list[Measure] = ["accuracy", "balanced"]
        for measure in sorted(measures, key=lambda each: each != results.measure):
            of = [
                f"{percent(score)} for {shown(network.name)}"
                for network in results.ranked
                if (score := network.score(measure)) is not None
            ]
            balanced = "balanced " if measure == "balanced" else ""
            if of:
                sentences.append(f"{split} {balanced}accuracy{over} was {listed(of)}.")
    if results.ablation:
        sentences += _about_ablation(results)
    elif results.against:
        sentences += _about_against(results, results.against)
    else:
        sentences += _about_first(results)
    sentences += [
        f"{shown(network.name)} could not be ranked ({shown(network.reason)})."
        for network in results.networks
        if network.status != "ranked"
    ]
    return sentences


def _about_first(results: Results) -> list[str]:
    """Say how the others differ from the network that came first."""
    if not results.ranked:
        return []
    name, sentences = results.ranked[0].name, []
    first = f"{'The trained model of ' if results.num_runs == 1 else ''}{shown(name)}"
    pairs = [pair for pair in results.comparisons if pair.first == name]
    for verb, some in (
        ("was better than", [pair for pair in pairs if pair.answer == BETTER]),
        ("was equal to", [pair for pair in pairs if pair.answer == EQUAL]),
        (
            "was not shown to differ from",
            [pair for pair in pairs if pair.answer not in (BETTER, EQUAL)],
        ),
    ):
        if some:
            gaps = [_gap(pair.second, pair) for pair in some]
            sentences.append(f"{first} {verb} {listed(gaps)}.")
    return sentences


def _about_against(results: Results, against: str) -> list[str]:
    """Say how the others differ from the only network that they were compared with."""
    sentences = []
    for verb, some in (
        ("better than", [pair for pair in results.comparisons if pair.answer == BETTER]),
        ("worse than", [pair for pair in results.comparisons if pair.answer == WORSE]),
        ("equal to", [pair for pair in results.comparisons if pair.answer == EQUAL]),
        (
            "not shown to differ from",
            [pair for pair in results.comparisons if pair.answer not in (BETTER, WORSE, EQUAL)],
        ),
    ):
        if some:
            gaps = listed([_gap(pair.first, pair) for pair in some])
            models = "The trained models of " if results.num_runs == 1 else ""
            be = "was" if len(some) == 1 else "were"
            sentences.append(f"{models}{gaps} {be} {verb} {shown(against)}.")
    return sentences


def _about_ablation(results: Results) -> list[str]:
    """Say where the blocks were inserted, and what each did."""
    sentences = about_blocks(results.ablation or ())
    sentences.append(
        "With a block and without it, a network had the same initial weights outside the block, the"
        " same images in the same order and the same number of steps; each had its own learning"
        " rate."
    )
    by_answer: dict[str, list[str]] = {}
    for pair in results.comparisons:
        verb = _ABLATION_VERBS.get(pair.answer, "was not shown to make a difference")
        if results.num_runs == 1:
            verb = verb.replace("helped", "gave a better model")
            verb = verb.replace("harmed", "gave a worse model")
        by_answer.setdefault(verb, []).append(_gap(pair.first, pair))
    return sentences + [f"{listed(gaps)} {verb}." for verb, gaps in by_answer.items()]


def _gap(name: str, pair: Pair) -> str:
    """Say by how much another network is behind, or one with a block ahead."""
    low, high = map(in_points, pair.interval)
    p = pair.p_adjusted
    return (
        f"{shown(name)} ({in_points(pair.difference)} points [{low}, {high}],"
        f" p {'' if p < 0.001 else '= '}{p_value(p)})"
    )

"""The tables about comparisons, for `tables.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from _stored import Comparison, ComparisonResults, PlantedLabels, SameNetwork
from towernet.comparison.wording.verdict import answer_words, outcome_words
from towernet.words import compact, counted, in_points, percent


def comparison(stored: Comparison) -> str:
    results, made = stored.results, stored.made
    last = "size | time for an image, with decoding" if results.has_starts else "latency"
    lines = [
        "| network | test accuracy | 95 % interval | balanced accuracy | macro-F1 | parameters"
        f" | multiply-adds | epochs | {last} |",
        f"|---|---:|---:|---:|---:|---:|---:|---:|---:|{'---:|' if results.has_starts else ''}",
    ]
    notes = []
    for network in results.networks:
        timed = stored.measured.networks[network.name]
        if network.status != "ranked" or network.interval is None:
            notes.append(f"Not ranked: {network.name} {network.reason}.")
            continue
        low, high = network.interval
        epochs = "–" if network.name.start == "frozen" else f"{network.epochs:.3g}"
        last = f"{timed.latency_ms:.1f} ms"
        if results.has_starts:
            last = f"{network.size_px} px | {timed.image_ms:.1f} ms"
        lines.append(
            f"| {network.name} | {percent(network.accuracy)}"
            f" | {100 * low:.1f}–{100 * high:.1f} % | {percent(network.balanced_accuracy)}"
            f" | {network.macro_f1:.3f}"
            f" | {compact(network.parameters)} | {compact(network.multiply_adds)}"
            f" | {epochs} | {last} |"
        )
    words = [
        *lines,
        "",
        *notes,
        *([""] if notes else []),
        *(pairs(results) if results.num_runs > 1 else []),
        *([times, ""] if (times := stored.times()) else []),
        f"n = {_sample(results)} each; `{made.command}`. {stored.made_on()}",
    ]
    return "\n".join(words)


def _sample(results: ComparisonResults) -> str:
    counts = results.num_images
    return (
        f"{counts.test} test images ({counts.train} training, {counts.validation} validation),"
        f"{'' if results.has_starts else f' {results.size_px} px,'}"
        f" {counted(results.num_runs, 'run')}"
    )


def shots(stored: Comparison) -> str:
    """Return the accuracies with a few images of each class, one row for each network."""
    results, made = stored.results, stored.made
    assert results.shots is not None, "this table is of a comparison with --shots"
    curves = [curve for curve in results.shots.curves if curve.points]
    numbers = sorted(
        {(point.num_images, point.is_all) for curve in curves for point in curve.points}
    )
    heads = [f"{number} (all)" if is_all else str(number) for number, is_all in numbers]
    lines = [
        f"| training images of each class | {' | '.join(heads)} |",
        f"|---|{'---:|' * len(heads)}",
    ]
    for curve in curves:
        found = {(point.num_images, point.is_all): point.accuracy for point in curve.points}
        cells = [percent(found[at]) if at in found else "" for at in numbers]
        lines.append(f"| {curve.network} | {' | '.join(cells)} |")
    words = [
        *lines,
        "",
        *(sentence + "\n" for sentence in results.shots.sentences),
        f"n = {_sample(results)} each; `{made.command}`. {stored.made_on()}",
    ]
    return "\n".join(words)


def pairs(results: ComparisonResults) -> list[str]:
    """Return the table of all differences, between empty lines."""
    lines = [
        "| first | second | difference | 95 % interval, all at once | p | runs the first led | |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for pair in results.comparisons:
        low, high = map(in_points, pair.interval)
        answer = answer_words(pair, results.equal_within)
        lines.append(
            f"| {pair.first} | {pair.second} | {in_points(pair.difference)} points"
            f" | {low} to {high} | {pair.p_adjusted:.3f}"
            f" | {100 * pair.chance_better:.0f} % | {answer} |"
        )
    return [*lines, ""]


def ablation(stored: Comparison) -> str:
    results, made = stored.results, stored.made
    networks = {network.name: network for network in results.networks}
    rows = {pair.first: pair for pair in results.comparisons}
    lines = [
        "| network | block | accuracy | difference from none | 95 % interval, all at once | p"
        " | runs ahead | | rate | parameters | gates: mean, spread | gradient norm |",
        "|---|---|---:|---:|---:|---:|---:|---|---:|---:|---:|---:|",
    ]
    seen: set[str] = set()
    for variant in results.ablation:
        if variant.network not in seen:
            seen.add(variant.network)
            none = networks[variant.without]
            lines.append(
                f"| {variant.network} | none | {percent(none.accuracy)} | | | | |"
                f" | {none.learning_rate:.3g} | | | |"
            )
        pair, with_it = rows[variant.name], networks[variant.name]
        last = variant.proof.epochs[-1]
        low, high = map(in_points, pair.interval)
        answer = answer_words(pair, results.equal_within).replace("the first is", "with it")
        lines.append(
            f"| {variant.network} | {variant.block}"
            f" | {percent(with_it.accuracy)}"
            f" | {in_points(pair.difference)} points | {low} to {high}"
            f" | {pair.p_adjusted:.3f} | {100 * pair.chance_better:.0f} % | {answer}"
            f" | {with_it.learning_rate:.3g} | {variant.parameters:+,}"
            f" | {last.gate_mean:.2f}, {last.gate_spread:.2f}"
            f" | {last.gradient_norm:.2g} |"
        )
    words = [
        *lines,
        "",
        f"n = {_sample(results)} each of {results.networks[0].epochs:g} epochs;"
        f" `{made.command}`. Gates and gradients at"
        " the end of the last epoch, mean of blocks and runs."
        f" {stored.made_on()}",
    ]
    return "\n".join(words)


def front(stored: Mapping[str, tuple[Comparison, Comparison]]) -> str:
    """Return the front page's table: per image set, a comparison of networks and an ablation."""
    sets = list(stored.values())
    verdict, with_blocks = sets[0]
    lines = [
        "| test accuracy [95 % interval] | "
        + " | ".join(
            f"{data}: {results.results.num_images.test} test images"
            for data, (results, _) in stored.items()
        )
        + " |",
        f"|---|{'---:|' * len(sets)}",
    ]
    for network in verdict.results.networks:
        cells = [_accuracy(results.results, network.name) for results, _ in sets]
        lines.append(f"| {network.name} | {' | '.join(cells)} |")
    first, second = (network.name for network in verdict.results.networks[:2])
    cells = [_difference(results.results, first, second) for results, _ in sets]
    lines.append(f"| {first} minus {second} | {' | '.join(cells)} |")
    variant = next(each for each in with_blocks.results.ablation if each.block == "shuffle")
    cells = [_difference(blocks.results, variant.name, variant.without) for _, blocks in sets]
    lines.append(f"| {first} with its own attention minus without | {' | '.join(cells)} |")
    return "\n".join(
        [
            *lines,
            "",
            f"{verdict.results.size_px} px; {verdict.results.num_runs} runs of one planned minute"
            " each (measured times: docs/results.md), the"
            f" last row {with_blocks.results.num_runs} runs of"
            f" {with_blocks.results.networks[0].epochs:g} epochs. {verdict.made_on()}",
        ]
    )


def _accuracy(results: ComparisonResults, name: str) -> str:
    network = next(each for each in results.networks if each.name == name)
    assert network.interval is not None, name
    low, high = (f"{100 * end:.1f}" for end in network.interval)
    return f"{percent(network.accuracy)} [{low}, {high}]"


def _difference(results: ComparisonResults, first: str, second: str) -> str:
    pair = next(
        each for each in results.comparisons if (each.first, each.second) == (first, second)
    )
    low, high = map(in_points, pair.interval)
    outcome = outcome_words(pair, results.equal_within).removeprefix("the first is ")
    return f"{in_points(pair.difference)} points [{low}, {high}]: {outcome}"


def same_network(results: Sequence[SameNetwork]) -> str:
    lines = [
        "| data | runs | accuracies under each name | largest difference, 95 % interval"
        " | least p | pairs called different |",
        "|---|---:|---|---:|---:|---:|",
    ]
    for result in results:
        widest = max(result.pairs, key=lambda pair: abs(pair.difference))
        low, high = map(in_points, widest.interval)
        lines.append(
            f"| {result.data} | {result.num_runs}"
            f" | {', '.join(f'{100 * accuracy:.1f}' for accuracy in result.accuracies)} %"
            f" | {in_points(widest.difference)} points [{low}, {high}]"
            f" | {min(pair.p_adjusted for pair in result.pairs):.2f}"
            f" | {result.called_better} of {len(result.pairs)} |"
        )
    return "\n".join([*lines, "", results[-1].words()])


def uneven_classes(result: dict[str, Any]) -> str:
    lines = [
        "| data | setting | balanced accuracy | minus none [95 % interval] | accuracy |",
        "|---|---|---:|---:|---:|",
    ]
    of_accuracy = {
        (row["data"], row["setting"]): row["mean"]
        for row in result["rows"]
        if row["measure"] == "validation_accuracy"
    }
    for row in result["rows"]:
        if row["measure"] != "validation_balanced":
            continue
        difference = ""
        if "interval" in row:
            low, high = map(in_points, row["interval"])
            difference = f"{in_points(row['difference'])} points [{low}, {high}]"
        lines.append(
            f"| {row['data']} | {row['setting']} | {percent(row['mean'])} | {difference}"
            f" | {percent(of_accuracy[row['data'], row['setting']])} |"
        )
    length = result["length"]
    return "\n".join(
        [
            *lines,
            "",
            f"{result['model']}, {length['size']} px, {length['epochs']} epochs;"
            f" {result['rows'][0]['num_runs']} runs each, judged on their validation images;"
            f" commit {result['commit']}, {result['date'][:10]}.",
        ]
    )


def planted_labels(result: PlantedLabels) -> str:
    lines = [
        "| data | images | labels changed | found in the first twice as many suspects"
        " | of those, wrong labels |",
        "|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row.data} | {row.num_images:,} | {row.num_planted}"
        f" | {row.num_found} ({100 * row.found:.0f} %)"
        f" | {100 * row.right_of_first:.0f} % |"
        for row in result.rows
    ]
    made = f"{result.num_runs} runs each; commit {result.commit}, {result.date[:10]}."
    return "\n".join([*lines, "", made])

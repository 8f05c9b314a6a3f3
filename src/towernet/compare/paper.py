"""A paragraph and a table for a paper, from the results: what was done, how, and what came out."""

from __future__ import annotations

import re
from statistics import stdev
from typing import Any

from towernet.compare.verdict import in_points
from towernet.errors import shown

_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "−": "$-$", "±": r"$\pm$", "<": r"$<$", ">": r"$>$", "–": "--",
} | {character: f"\\{character}" for character in "&%$#_{}"}  # fmt: skip


def paragraph(results: dict[str, Any], made: dict[str, Any], later_looks: int = 0) -> str:
    """Return how the comparison was made and what it says, in plain words.

    Args:
        results: Of the comparison.
        made: By what, and where.
        later_looks: How often its test images were evaluated again since.
    """
    networks, num_runs = results["networks"], results["num_runs"]
    ranked = [network for network in networks if network["status"] == "ranked"]
    num = results["num_images"]
    is_test = results["final_split"] == "test"
    steps = [network["epochs"] for network in networks if network["epochs"]]
    length = f"{min(steps):.3g} to {max(steps):.3g}" if min(steps) < max(steps) else f"{steps[0]:g}"
    said = [
        f"We trained {_listed([shown(network['name']) for network in networks])} from scratch on"
        f" {shown(results['title'])} ({len(results['class_names'])} classes; {num['train']:,}"
        f" training, {num['validation']:,} validation"
        + (f" and {num['test']:,} test images)" if is_test else " images, no test images)")
        + f" at {results['size_px']} px, {_times(num_runs)} each, for {length} epochs with towernet"
        f" {made['versions'].get('towernet', '')}'s recipe {results['recipe']}"
        f" (seed {results['seed']}).".replace("  ", " ")
    ]
    said.append(
        "All networks of a run shared the images, their order and every draw of the augmentation;"
        + (
            " the learning rate of each was chosen by the validation loss of short trials, and the"
            if any(network["trials"] for network in networks)
            else " the"
        )
        + " epoch by validation accuracy."
    )
    if is_test:
        said.append(
            "The test images were drawn once and evaluated once, after the last run"
            + (f" (and {_times(later_looks)} more since)" if later_looks else "")
            + ("; training and validation images were drawn anew for each run" * (num_runs > 1))
            + "."
        )
    said.append(_method(results, len(ranked)))
    if ranked:
        said.append(
            f"{'Test' if is_test else 'Validation'} accuracy was "
            + _listed([f"{100 * n['accuracy']:.1f} % for {shown(n['name'])}" for n in ranked])
            + "."
        )
        said += _findings(results, ranked[0]["name"])
    hardware = made["hardware"]
    versions = ", ".join(
        f"{package} {made['versions'][package]}"
        for package in ("torch", "torchvision")
        if package in made["versions"]
    )
    processor = hardware.get("gpu") or hardware.get("cpu") or "one machine"
    said.append(f"Trained on {shown(str(processor))} with {versions}.")
    return " ".join(filter(None, said))


def latex(results: dict[str, Any], made: dict[str, Any]) -> str:
    """Return the paragraph and a table of the ranked networks as LaTeX with booktabs."""
    ranked = [network for network in results["networks"] if network["status"] == "ranked"]
    first = ranked[0]["name"] if ranked else None
    behind = {row["second"]: row for row in results["comparisons"] if row["first"] == first}
    lines = [
        "% Needs \\usepackage{booktabs}.",
        escaped(paragraph(results, made)),
        "",
        r"\begin{table}",
        r"\centering",
        r"\caption{" + escaped(_caption(results)) + "}",
        r"\begin{tabular}{lrrrrr}",
        r"\toprule",
        r"network & parameters & multiply-adds & accuracy (\%) & difference [95\,\%] & $p$ \\",
        r"\midrule",
    ]
    for network in ranked:
        runs = [100 * run["accuracy"] for run in network["runs"]]
        accuracy = f"{100 * network['accuracy']:.1f}"
        if len(runs) > 1:
            accuracy += rf" $\pm$ {stdev(runs):.1f}"
        row = behind.get(network["name"])
        low, high = (in_points(-bound) for bound in reversed(row["interval"])) if row else ("", "")
        lines.append(
            " & ".join(
                (
                    escaped(shown(network["name"])),
                    f"{network['parameters'] / 1e6:.2f}\\,M",
                    f"{network['multiply_adds'] / 1e6:.0f}\\,M",
                    accuracy,
                    escaped(f"{in_points(-row['difference'])} [{low}, {high}]") if row else "--",
                    _p(row["p_adjusted"]) if row else "--",
                )
            )
            + r" \\"
        )
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def escaped(text: str) -> str:
    """Return a text that LaTeX prints as it is."""
    return re.sub("|".join(map(re.escape, _LATEX)), lambda found: _LATEX[found[0]], text)


def _caption(results: dict[str, Any]) -> str:
    spread = " ± the standard deviation over runs" if results["num_runs"] > 1 else ""
    return (
        f"{results['num_images'][results['final_split']]:,} {results['final_split']} images of"
        f" {shown(results['title'])}, {_times(results['num_runs'])} each: accuracy{spread},"
        " difference from the first in points with its simultaneous 95 % interval, and Holm's p."
    )


def _method(results: dict[str, Any], num_ranked: int) -> str:
    num_pairs = num_ranked * (num_ranked - 1) // 2
    if not num_pairs:
        return ""
    if results.get("resampled"):
        test = "the corrected resampled t test (Nadeau and Bengio, 2003)"
        interval = "its 95 % intervals"
    elif results["num_runs"] > 1:
        test = "sign-flip tests over runs"
        interval = (
            "95 % intervals over runs and test images (several readers and cases: Gallas, 2006)"
        )
    else:
        test = "exact McNemar tests"
        interval = "95 % intervals over test images"
    adjusted = ""
    if num_pairs > 1:
        adjusted = f", adjusted by Holm for {num_pairs} pairs, the intervals simultaneous,"
    return (
        f"Accuracies were compared by {test} and {interval}{adjusted} and called different when"
        " both say so."
    )


def _findings(results: dict[str, Any], first: str) -> list[str]:
    rows = [row for row in results["comparisons"] if row["first"] == first]
    better = [row for row in rows if row["answer"] == "better"]
    rest = [row for row in rows if row["answer"] != "better"]
    said = []
    for rows_of, verb in ((better, "was better than"), (rest, "was not shown to differ from")):
        if rows_of:
            gaps = [
                f"{shown(row['second'])} (by {in_points(row['difference'])} points"
                f" [{in_points(row['interval'][0])}, {in_points(row['interval'][1])}],"
                f" {_p_words(row['p_adjusted'])})"
                for row in rows_of
            ]
            said.append(f"{shown(first)} {verb} {_listed(gaps)}.")
    return said


def _p(p: float) -> str:
    return "$<$0.001" if p < 0.001 else f"{p:.3f}"


def _p_words(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _times(num: int) -> str:
    return {1: "once", 2: "twice"}.get(num, f"{num} times")


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))

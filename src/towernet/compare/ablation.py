"""Does a block help? Each network with it against the same network without, run by run.

Both begin with the same weights outside the block and see the same images in the same order for
the same number of steps. Only these differences are judged, all of them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from towernet import files
from towernet.compare.verdict import (
    BETTER,
    EQUAL,
    OPEN,
    TOO_FEW_RUNS,
    WORSE,
    about_differences,
    about_protocol,
    about_runs,
    about_use,
    in_points,
    percent,
    split_words,
)
from towernet.data.table import listed
from towernet.models.catalogue import OURS
from towernet.models.variants import NONE, named, network_of


def variants(models: Sequence[str], attention: Sequence[str]) -> list[dict[str, str]]:
    """Return the networks that have a block, each with the name of its like without one.

    Example:
        >>> variants(["resnet18", "resnet18+se"], ["none", "se"])
        [{'network': 'resnet18', 'block': 'se', 'name': 'resnet18+se', 'without': 'resnet18'}]
    """
    found = []
    for network in dict.fromkeys(map(network_of, models)):
        has_own = network in OURS
        found += [
            {
                "network": network,
                "block": block,
                "name": named(network, block, has_own=has_own),
                "without": named(network, NONE, has_own=has_own),
            }
            for block in attention
            if block != NONE
        ]
    return found


def proof(folders: Sequence[Path]) -> dict[str, Any] | None:
    """Return what a network's attention did while it trained, None where it has none.

    Args:
        folders: Its runs.

    Returns:
        "num_blocks"; "learns": whether in every run gradients reached every block with parameters
        at each epoch's end and its gates moved; "epochs": for each epoch the mean over blocks and
        runs of the gradients' norm, the gates' mean and spread, and the gain, None without one.
    """
    runs = [files.read_jsonl(folder / "metrics.jsonl") for folder in folders]
    runs = [rows for rows in runs if rows and all("attention" in row for row in rows)]
    if not runs or len(runs) < len(folders):
        return None
    epochs = []
    for rows in zip(*runs, strict=True):
        of_blocks = [figures for row in rows for figures in row["attention"].values()]
        gains = [figures["gain"] for figures in of_blocks if "gain" in figures]
        epochs.append(
            {
                "epoch": rows[0]["epoch"],
                "gain": fmean(gains) if gains else None,
                **{
                    key: fmean(figures[key] for figures in of_blocks)
                    for key in ("gradient_norm", "gate_mean", "gate_spread")
                },
            }
        )
    return {
        "num_blocks": len(runs[0][0]["attention"]),
        "learns": all(map(_learns, runs)),
        "epochs": epochs,
    }


def _learns(rows: list[dict[str, Any]]) -> bool:
    """Whether every block of a run had gradients, and gates that moved."""
    for name in rows[0]["attention"]:
        figures = [row["attention"][name] for row in rows]
        moved = len({(f["gate_mean"], f["gate_spread"]) for f in figures}) == len(figures)
        if not (moved and all(f["gradient_norm"] > 0 for f in figures)):
            return False
    return True


def sentence(results: dict[str, Any]) -> str:
    """Say of each network which blocks helped, harmed, or cannot be told.

    Args:
        results: With `ablation`, the variants, and `comparisons`, their rows.
    """
    rows = {row["first"]: row for row in results["comparisons"]}
    by_answer: dict[str, list[str]] = {}
    for network in dict.fromkeys(variant["network"] for variant in results["ablation"]):
        own = [v for v in results["ablation"] if v["network"] == network]
        judged = [(v["block"], rows[v["name"]]) for v in own if v["name"] in rows]
        answer = _answers(judged, results) if judged else "nothing could be judged"
        by_answer.setdefault(answer, []).append(network)
    said = (f"in {listed(networks)} {answer}" for answer, networks in by_answer.items())
    return ". ".join(f"{words[0].upper()}{words[1:]}" for words in said) + "."


def _answers(judged: list[tuple[str, dict[str, Any]]], results: dict[str, Any]) -> str:
    by_answer: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for block, row in judged:
        answer = OPEN if row["answer"] == TOO_FEW_RUNS else row["answer"]
        by_answer.setdefault(answer, []).append((block, row))
    parts = [
        f"{listed([_with_gap(block, row) for block, row in by_answer[answer]])} {verb}"
        for answer, verb in ((BETTER, "helped"), (WORSE, "harmed"))
        if answer in by_answer
    ]
    if EQUAL in by_answer:
        names = listed([block for block, _ in by_answer[EQUAL]])
        parts.append(f"{names} changed nothing beyond ±{100 * results['equal_within']:g} points")
    if OPEN in by_answer:
        names = listed([block for block, _ in by_answer[OPEN]], "or")
        runs = "these models do" if results["num_runs"] == 1 else "these runs do"
        parts.append(f"{runs} not show that {names} makes a difference")
    return "; ".join(parts)


def _with_gap(block: str, row: dict[str, Any]) -> str:
    low, high = map(in_points, row["interval"])
    sign = "+" if row["difference"] > 0 else ""
    return f"{block} ({sign}{in_points(row['difference'])} points [{low}, {high}])"


def remarks(results: dict[str, Any]) -> list[str]:
    """Return what a careful reader should know beside the answer."""
    rows = results["comparisons"]
    accuracy = {network["name"]: network["accuracy"] for network in results["networks"]}
    without = dict.fromkeys((v["network"], v["without"]) for v in results["ablation"])
    split = f"{results['num_images'][results['final_split']]:,} {split_words(results)} images"
    scored = [
        f"{network} {percent(accuracy[name])}"
        for network, name in without
        if accuracy[name] is not None
    ]
    said = [f"Without attention {listed(scored)} of {split} right."] if scored else []
    said += [
        "A network with a block and without it had the same images in the same order, as many steps"
        " and the same first weights outside the block; what a block costs stands beside it."
    ]
    widest_first = sorted(rows, key=lambda row: -abs(row["difference"]))
    said += about_differences(widest_first, results, len(rows))
    for variant in results["ablation"]:
        found = variant["proof"]
        if variant["parameters"] and found is not None and not found["learns"]:
            said.append(
                f"In {variant['name']} not every block had gradients and gates that moved: its"
                " figures say little of the block."
            )
    return [
        *said,
        *about_protocol(results, "can change what a block does"),
        *about_use(results),
        *about_runs(results, len(rows)),
    ]

"""Does a block help? Each network with it against the same network without, run by run.

Both begin with the same weights outside the block and see the same images in the same order for
the same number of steps; each has the learning rate that did best in its own trials. Only these
differences are judged, all of them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from towernet import files
from towernet.comparison.wording.verdict import (
    BETTER,
    EQUAL,
    OPEN,
    TOO_FEW_RUNS,
    WORSE,
    about_more_images,
    about_protocol,
    about_runs,
    about_winner,
    in_points,
    percent,
    settling,
    split_words,
    worth_using,
)
from towernet.data.table import listed
from towernet.models.catalogue import OURS
from towernet.names import NetworkName
from towernet.records.protocol import variants as _variants

# In the words of `attach`.
_PLACES = {
    "blocks": "before residual additions, else where branches join, else at the ends of stages",
    "stages": "where stages end",
    "last-of-stage": "in the last block of each stage",
}
_STARTS = {
    "paper": "as its authors begin it",
    "identity": "blended in from nothing (x + gain·(block(x) − x), gain 0)",
}


def variants(models: Sequence[str], attention: Sequence[str]) -> list[dict[str, str]]:
    """Return the networks that have a block, each with the name of its like without one.

    Example:
        >>> variants(["resnet18", "resnet18+se"], ["none", "se"])
        [{'network': 'resnet18', 'block': 'se', 'name': 'resnet18+se', 'without': 'resnet18'}]
    """
    return [v.model_dump() for v in _variants([NetworkName(m) for m in models], attention)]


def about_blocks(of: Sequence[dict[str, Any]]) -> list[str]:
    """Say where each block stood, how it began, and who describes it.

    Args:
        of: The variants, as the results have them.
    """
    places: dict[str, list[tuple[str, str]]] = {}
    for variant in of:
        asked = NetworkName(variant["name"])
        if asked.where is None and asked.is_ours:
            where = f"in {variant['network']}'s own places"
        else:
            where = _PLACES.get(asked.where or "blocks", f"behind {asked.where}")
        places.setdefault(f"{where}, and began {_STARTS[asked.block_start]}", []).append(
            (variant["network"], variant["block"])
        )
    all_networks, said = {variant["network"] for variant in of}, []
    for how, stood in places.items():
        networks, blocks = (list(dict.fromkeys(names)) for names in zip(*stood, strict=True))
        # One's own places are named after it.
        is_said = len(networks) == len(all_networks) or "own places" in how
        said.append(f"{'' if is_said else f'In {listed(networks)}, '}{listed(blocks)} stood {how}.")
    papers = {NetworkName(variant["name"]).block: variant.get("paper") for variant in of}
    sources = [f"{block}: {paper}" for block, paper in papers.items() if paper]
    return said + ([f"Sources: {'; '.join(sources)}."] if sources else [])


def judged_pairs(
    of: Sequence[dict[str, Any]], networks: Sequence[dict[str, Any]]
) -> list[tuple[str, str]]:
    """Return the pairs that can be judged: both answered, and one of them at least learnt.

    Args:
        of: The variants.
        networks: Their rows of the results.
    """
    answered = {n["name"] for n in networks if n["accuracy"] is not None}
    learnt = {n["name"] for n in networks if n["status"] == "ranked"}
    pairs = [(variant["name"], variant["without"]) for variant in of]
    return [pair for pair in pairs if answered.issuperset(pair) and learnt.intersection(pair)]


def proof(folders: Sequence[Path]) -> dict[str, Any] | None:
    """Return what a network's attention did while it trained, None where it has none.

    Args:
        folders: Its runs.

    Returns:
        "num_blocks"; "learns": whether in every run gradients reached every block at the end of
        each epoch, and moved its gates from the first to the last; "epochs": for each epoch, as far
        as all runs go, the mean over blocks and runs of the gradients' norm, the gates' mean and
        spread, and the gain, None without one.
    """
    runs = [files.read_jsonl(folder / "metrics.jsonl") for folder in folders]
    if not runs or not all(rows and all("attention" in row for row in rows) for rows in runs):
        return None
    epochs = []
    for rows in zip(*runs, strict=False):
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
        first, last = ((f["gate_mean"], f["gate_spread"]) for f in (figures[0], figures[-1]))
        # One epoch shows no movement, and over a map of one position a softmax is 1 for ever.
        moved = len(rows) == 1 or first != last or last == (1.0, 0.0)
        if not (moved and all(f["gradient_norm"] > 0 for f in figures)):
            return False
    return True


def answer_in_words(answer: str, equal_within: float, num_runs: int) -> str:
    """Say what a block did, by the answer of its pair."""
    return {
        BETTER: "helped" if num_runs > 1 else "gave a better model",
        WORSE: "harmed" if num_runs > 1 else "gave a worse model",
        EQUAL: f"equal within ±{100 * equal_within:g} points",
        OPEN: "not shown",
        TOO_FEW_RUNS: "too few runs",
    }[answer]


def signed_points(fraction: float) -> str:
    """Write a difference in percentage points with its sign."""
    return f"{'+' if fraction > 0 else ''}{in_points(fraction)}"


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
        left_out = [v["block"] for v in own if v["name"] not in rows]
        parts = _answers(judged, results)
        if left_out:
            parts.append(f"{listed(left_out)} could not be judged")
        by_answer.setdefault("; ".join(parts), []).append(network)
    said = (f"in {listed(networks)} {answer}" for answer, networks in by_answer.items())
    return ". ".join(f"{words[0].upper()}{words[1:]}" for words in said) + "."


def _answers(judged: list[tuple[str, dict[str, Any]]], results: dict[str, Any]) -> list[str]:
    by_answer: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for block, row in judged:
        answer = OPEN if row["answer"] == TOO_FEW_RUNS else row["answer"]
        by_answer.setdefault(answer, []).append((block, row))
    parts = [
        f"{listed([_with_gap(block, row) for block, row in by_answer[answer]])}"
        f" {answer_in_words(answer, results['equal_within'], results['num_runs'])}"
        for answer in (BETTER, WORSE)
        if answer in by_answer
    ]
    if EQUAL in by_answer:
        names = listed([block for block, _ in by_answer[EQUAL]])
        parts.append(f"{names} changed nothing beyond ±{100 * results['equal_within']:g} points")
    if OPEN in by_answer:
        names = listed([block for block, _ in by_answer[OPEN]], "or")
        runs = "these models do" if results["num_runs"] == 1 else "these runs do"
        parts.append(f"{runs} not show that {names} makes a difference")
    return parts


def _with_gap(block: str, row: dict[str, Any]) -> str:
    low, high = map(in_points, row["interval"])
    return f"{block} ({signed_points(row['difference'])} points [{low}, {high}])"


def remarks(results: dict[str, Any]) -> list[str]:
    """Return what a careful reader should know beside the answer."""
    rows, networks = results["comparisons"], {n["name"]: n for n in results["networks"]}
    without = dict.fromkeys((v["network"], v["without"]) for v in results["ablation"])
    split = f"{results['num_images'][results['final_split']]:,} {split_words(results)} images"
    scored = [
        f"{network} {percent(networks[name]['accuracy'])}"
        for network, name in without
        if networks[name]["accuracy"] is not None
    ]
    said = [f"Right without attention, of {split}: {listed(scored)}."] if scored else []
    said += [
        f"{network} has shuffle attention of its own: without it, it is called {name}."
        for network, name in without
        if network in OURS
    ]
    said.append(
        "A network with a block and without it had the same images in the same order, as many steps"
        " and the same first weights outside the block."
        + (
            " Where short trials told learning rates apart, each had the one best in its own."
            if any(len(network["trials"]) > 1 for network in results["networks"])
            else ""
        )
    )
    rates = {name: network["learning_rate"] for name, network in networks.items()}
    if other := [row["first"] for row in rows if rates[row["first"]] != rates[row["second"]]]:
        said.append(
            f"{listed(other)} had another learning rate than without the block: a part of such a"
            " difference may be the rate's."
        )
    if rows:
        sample = "images" if results["num_runs"] == 1 else "runs and images"
        at_once = f", for all {len(rows)} differences at once" if len(rows) > 1 else ""
        said.append(f"Intervals are 95 %{at_once}, and allow for other {sample} of the same kind.")
    undecided = [row for row in rows if row["answer"] in (OPEN, TOO_FEW_RUNS)]
    widest = max(undecided, key=lambda row: abs(row["difference"]), default=None)
    if widest is not None and (ways := settling(widest)):
        said.append(f"Of {widest['first']}: {ways}.")
    for variant in results["ablation"]:
        found = variant["proof"]
        if variant["parameters"] and found is not None and not found["learns"]:
            said.append(
                f"In {variant['name']} not every block had gradients and gates that moved: its"
                " figures say little of the block."
            )
    said += about_protocol(results, "can change what a block does")
    winner = results["winner"]["name"] if results["winner"] else None
    pair = next((row for row in rows if row["first"] == winner), None)
    if pair is None or pair["answer"] == BETTER or not worth_using(results):
        said += about_winner(results)
    else:
        said.append(
            f"{winner} was the best on the validation images, but is not shown to be better than"
            f" {pair['second']}, which does without the block and is the simpler choice."
        )
    said += about_more_images(results)
    return said + about_runs(results, len(rows))

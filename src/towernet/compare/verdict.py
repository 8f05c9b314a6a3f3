"""The answer in words: what the final split says, and what it does not say."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from towernet.compare.scores import mcnemar_p, sign_flip_p
from towernet.models.catalogue import OURS

SIGNIFICANT = 0.05
# 2 / 2^K must be below it, or the test could not say yes to anything.
MIN_RUNS_TO_DECIDE = 6


def percent(fraction: float) -> str:
    """Write a fraction for a person."""
    return f"{100 * fraction:.1f} %"


def verdict(results: dict[str, Any], correct: dict[str, npt.NDArray[np.bool_]]) -> str:
    """Answer in one sentence; if our own network is not first, that comes first.

    Args:
        results: The ranking and what it is about.
        correct: By network, (N,) which final images its first run got right.
    """
    ranked = [network for network in results["networks"] if network["status"] == "ranked"]
    split = f"{results['num_images'][results['final_split']]} {_split_words(results)} images"
    if not ranked:
        return (
            f"No network learned enough to be ranked on {split}:"
            " give more time, or look at the data with `towernet check`."
        )
    first = ranked[0]
    low, high = first["interval"]
    scored = (
        f"{percent(first['accuracy'])} of {split} (95 % interval {percent(low)} to {percent(high)})"
    )
    if len(results["networks"]) == 1:
        return f"{first['name']} names {scored} correctly."
    ours = [network["name"] for network in results["networks"] if network["name"] in OURS]
    lead = ""
    if ours and first["name"] not in ours:
        noun = "network" if len(ours) == 1 else "networks"
        lead = f"Our own {noun}, {' and '.join(sorted(ours))}, did not come first: "
    if len(ranked) == 1:
        return f"{lead}{first['name']} is the only network that could be ranked, with {scored}."
    second = ranked[1]
    points = 100 * (first["accuracy"] - second["accuracy"])
    if points == 0:
        return f"{lead}{first['name']} and {second['name']} are level with {scored}."
    told = (
        f"{lead}{first['name']} is ahead with {scored}, {points:.1f} points before {second['name']}"
    )
    if results["num_runs"] == 1:
        p = mcnemar_p(correct[first["name"]], correct[second["name"]])
        what, words = "these two models", "exact McNemar"
    else:
        pairs = zip(first["runs"], second["runs"], strict=True)
        p = sign_flip_p(np.array([one["accuracy"] - two["accuracy"] for one, two in pairs]))
        what, words = "these two networks", f"sign-flip over {results['num_runs']} runs"
    p_words = f"{words} p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}"
    if p < SIGNIFICANT:
        return f"{told}, more than chance would make of {what} ({p_words})."
    return f"{told}; these runs do not show a difference between the two ({p_words})."


def remarks(results: dict[str, Any]) -> list[str]:
    """Return what a careful reader should know beside the verdict."""
    said = []
    if results["final_split"] == "validation":
        said.append(
            "The figures are the best epoch on the selection set, not a test result: this protocol"
            " holds no test images out."
        )
    said += [
        f"Something changed on the way and was accepted: {words}."
        for words in results.get("accepted", [])
    ]
    ranked = [network for network in results["networks"] if network["status"] == "ranked"]
    said += [
        f"{network['name']} cannot be told from always naming the commonest class, which is right"
        f" for {percent(results['majority_accuracy'])}."
        for network in ranked
        if network["interval"][0] <= results["majority_accuracy"]
    ]
    winner = results["winner"]
    if winner and ranked and results["kind"] == "comparison":
        if winner["name"] == ranked[0]["name"]:
            said.append(f"{winner['name']} was also the best on validation: it is the one to use.")
        else:
            said.append(
                f"The one to use is {winner['name']}, chosen on validation as agreed before;"
                f" on the final split {ranked[0]['name']} came first. The two disagree, so take"
                " neither as settled."
            )
    if ranked and results["num_runs"] == 1 and results["kind"] == "comparison":
        said.append(
            "With one run each this speaks of these trained models, not of the networks:"
            " another seed can change the order. Give --runs for more."
        )
    elif ranked and 1 < results["num_runs"] < MIN_RUNS_TO_DECIDE:
        said.append(
            f"With {results['num_runs']} runs no difference, however large, can be told from"
            f" chance; give --runs {MIN_RUNS_TO_DECIDE} or more."
        )
    return said


def _split_words(results: dict[str, Any]) -> str:
    return "test" if results["final_split"] == "test" else "selection-set"

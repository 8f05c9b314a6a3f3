"""Draw the plots of docs/ from benchmarks/results."""

from __future__ import annotations

import json

import matplotlib.pyplot as plt

from _common import RESULTS

DOCS = RESULTS.parent.parent / "docs"
COLOURS = {"towernet": "#b35900", "towernet_patch": "#1f5fa8"}


def time_to_accuracy() -> None:
    result = json.loads((RESULTS / "time_to_accuracy.json").read_text())
    figure, axes = plt.subplots(figsize=(7.2, 4), layout="constrained")
    notebook = result["notebook"]
    seconds, accuracy = zip(*notebook["curve"], strict=True)
    axes.plot(
        seconds, [100 * value for value in accuracy], color="#888888", linewidth=1.2,
        label="notebook recipe, towernet, 256 px, its epochs alone",
    )  # fmt: skip
    axes.axhline(100 * notebook["target"], color="#888888", linewidth=0.8, linestyle=":")
    axes.text(
        1750, 100 * notebook["target"] + 0.4, f"its best, {100 * notebook['target']:.1f} %",
        ha="right", fontsize=8, color="#666666",
    )  # fmt: skip
    for run in result["runs"]:
        style = "-" if run["minutes"] > 1 else "--"
        words = f"default recipe, {run['network']}, {run['minutes']:g} min"
        for i, curve in enumerate(run["curves"]):
            seconds, accuracy = zip(*curve, strict=True)
            axes.plot(
                seconds, [100 * value for value in accuracy], style, linewidth=1,
                color=COLOURS[run["network"]], alpha=0.8,
                label=f"{words}, {len(run['curves'])} seeds" if i == 0 else None,
            )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(left=15)
    axes.set_ylim(45, 95)
    ticks = {20: "20 s", 60: "1 min", 240: "4 min", 600: "10 min", 1800: "30 min"}
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.set_xticks([], minor=True)
    axes.set_xlabel("since the start of the command, decoding included")
    axes.set_ylabel("accuracy on the selection set, %")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(DOCS / "time_to_accuracy.svg", metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    plt.switch_backend("svg")
    plt.rcParams["svg.hashsalt"] = "towernet"  # the same result, the same file
    time_to_accuracy()

"""The training time that networks were given and the times they took, in words."""

from __future__ import annotations

from typing import Final

from towernet.records.results import FEW_EPOCHS, TrainingTimes
from towernet.words import duration

# What to do where the times differ.
EQUAL_PASSES: Final = (
    "For a comparison that does not depend on how busy the machine is, give --epochs instead of"
    " --minutes and a new --out: every network then passes through the images equally often."
)

# Marks a network in a ranking.
BARELY_TRAINED: Final = f"fewer than {FEW_EPOCHS} epochs"
FEW_EPOCHS_WORDS: Final = f"{BARELY_TRAINED}: longer training can change its place"


def about_times(times: TrainingTimes, *, several_runs: bool) -> str:
    """Say whether the measured times agree; if not, what to do.

    Args:
        times: The times; their own sentence is not used.
        several_runs: Whether the measured times are medians over runs.
    """
    if times.differ:
        return f"{unequal(times, several_runs=several_runs)} {EQUAL_PASSES}"
    shortest, longest = duration(times.shortest_seconds), duration(times.longest_seconds)
    return (
        f"Each network was given {duration(times.planned_seconds)} of training a run; measured"
        f"{', as medians over runs' if several_runs else ''}: {shortest} ({times.shortest}) to"
        f" {longest} ({times.longest})."
    )


def unequal(times: TrainingTimes, *, several_runs: bool) -> str:
    """Say by how much the measured times differ."""
    ratio = times.longest_seconds / times.shortest_seconds
    return (
        f"The training times were not the same: {times.longest} trained for"
        f" {duration(times.longest_seconds)} and {times.shortest} for"
        f" {duration(times.shortest_seconds)} ({ratio:.2g} times"
        f"{'; medians over runs' if several_runs else ''}), although"
        f" {duration(times.planned_seconds)} were planned for each."
    )

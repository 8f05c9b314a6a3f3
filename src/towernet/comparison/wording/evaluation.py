"""What is said of labelled images that a run is asked about: what they are to it, what to know."""

from __future__ import annotations

from collections.abc import Mapping

from towernet.comparison.roles import LEARNT_FROM, TAKEN_AWAY, TIED, UNKNOWN, UNSEEN
from towernet.data.table import IGNORED, QUARANTINED, TEST, TRAIN, VALIDATION
from towernet.records.evaluation import Evaluation, Figures, Found, Question
from towernet.words import counted, listed, shown, some_listed

_WORDS = {
    TRAIN: "trained it",
    VALIDATION: "chose its epoch",
    TAKEN_AWAY: "may have trained it before being taken away",
    TIED: "duplicated or shared a group with those",
    TEST: "tested it",
    UNKNOWN: "played no part in it",
}


def found_words(found: Found) -> str:
    """Say what became of the files: "43 files found, 41 used, 1 quarantined (TRUNCATED 1)"."""
    parts = [
        f"{sum(reasons.values()):,} {status} ("
        + ", ".join(f"{reason} {num:,}" for reason, num in reasons.items())
        + ")"
        for status, reasons in ((QUARANTINED, found.quarantined), (IGNORED, found.ignored))
        if reasons
    ]
    return (
        f"{counted(found.files, 'file')} found, {found.used:,} used,"
        f" {' and '.join(parts)}; `towernet check` names each"
    )


def roles_words(num_by_role: Mapping[str, int]) -> str:
    """Say what images were to the run: "27 trained it and 6 chose its epoch"."""
    parts = [f"{num:,} {_WORDS[role]}" for role, num in num_by_role.items()]
    return listed(parts)


def asked_words(evaluation: Evaluation) -> str:
    """Say how many images were asked about, and what they were to the run."""
    of_what = f"{evaluation.num_images:,} of {shown(evaluation.data)}"
    if len(evaluation.asked) > 1:
        return f"{of_what}: {roles_words(evaluation.asked)}"
    return f"{of_what}, which {_WORDS[next(iter(evaluation.asked))]}"


def nothing_left_words(split: str, left_out: Mapping[str, int], data: str) -> str:
    """Say that no image is left to ask about, and what to do."""
    wanted = {
        UNSEEN: "is new to the run",
        TEST: "is a test image of the run",
        VALIDATION: "is a validation image of the run",
        TRAIN: "is a training image of the run",
    }[split]
    todo = "give other images" if split == UNSEEN else "give the run's own images"
    num = sum(left_out.values())
    return (
        f"none of the {counted(num, 'usable image')} in {shown(data)} {wanted}"
        f" ({roles_words(left_out)}); {todo}, or count all in by --split all"
    )


def remarks(
    question: Question, figures: Figures, later_looks: int | None, *, is_known: bool
) -> list[str]:
    """Say what has to be known beside the figures.

    Args:
        question: Which images were asked about, and what became of the others.
        figures: How right the answers are.
        later_looks: How often test images were looked at since the end, None where these are none.
        is_known: Whether it is known which images trained the run.
    """
    said = []
    asked, left_out, found = question.asked, question.left_out, question.found
    num = figures.num_images
    if learnt_from := {role: asked[role] for role in (*LEARNT_FROM, TIED) if role in asked}:
        of_all = f"Of these {counted(num, 'image')} {roles_words(learnt_from)}"
        of_one = f"These images {_WORDS[next(iter(learnt_from))]}"
        said.append(
            f"{of_one if num in learnt_from.values() else of_all}: the figures flatter the network."
        )
    if not is_known:
        said.append(
            "Which images trained these weights is not known: if some of these did, the figures"
            " flatter the network."
        )
    if left_out:
        left = sum(left_out.values())
        said.append(
            f"{left:,} of {counted(num + left, 'image')} {'is' if left == 1 else 'are'} left out:"
            f" {roles_words(left_out)}; --split all counts them in."
        )
    if found.quarantined or found.ignored:
        said.append(f"{found_words(found)}.")
    if absent := figures.classes_without_images:
        num_classes = len(figures.per_class)
        verb = "has no image" if len(absent) == 1 else "have no images"
        said.append(
            f"{len(absent):,} of the {num_classes:,} classes it knows {verb} here:"
            f" {some_listed(absent)}; macro F1 is the mean over the others."
        )
    if later_looks is not None:
        times = "once more" if later_looks == 1 else f"{later_looks:,} more times"
        said.append(
            f"These test images have now been looked at {times} since they were opened; choosing by"
            " them makes them a selection set."
        )
    return said

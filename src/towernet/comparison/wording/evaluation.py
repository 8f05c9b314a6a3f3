"""Sentences about an evaluation: which images were used, and how to read the figures."""

from __future__ import annotations

from collections.abc import Mapping

from towernet.comparison.roles import LEARNT_FROM, REMOVED, TIED, UNKNOWN, UNSEEN
from towernet.data.table import IGNORED, QUARANTINED, TEST, TRAIN, VALIDATION
from towernet.records.evaluation import Evaluation, Figures, Found, Question
from towernet.words import counted, listed, shown, some_listed

# Each completes "these images are …".
_WORDS = {
    TRAIN: "in its training split",
    VALIDATION: "in its validation split",
    REMOVED: "no longer in its data (maybe used in training)",
    TIED: "tied to its training or validation images (near duplicate or same group)",
    TEST: "in its test split",
    UNKNOWN: "new to it",
}


def found_words(found: Found) -> str:
    """Describe the files: "43 files found, 41 used, 1 quarantined (TRUNCATED 1)"."""
    parts = [
        f"{sum(reasons.values()):,} {status} ("
        + ", ".join(f"{reason} {num:,}" for reason, num in reasons.items())
        + ")"
        for status, reasons in ((QUARANTINED, found.quarantined), (IGNORED, found.ignored))
        if reasons
    ]
    return (
        f"{counted(found.files, 'file')} found, {found.used:,} used,"
        f" {' and '.join(parts)}; `towernet check` lists them"
    )


def roles_words(num_by_role: Mapping[str, int]) -> str:
    """Describe images: "27 in its training split and 6 in its validation split"."""
    parts = [f"{num:,} {_WORDS[role]}" for role, num in num_by_role.items()]
    return listed(parts)


def images_words(evaluation: Evaluation) -> str:
    """Describe the images that were evaluated: how many, and what they are to the run."""
    of_what = f"{evaluation.num_images:,} of {shown(evaluation.data)}"
    if len(evaluation.asked) > 1:
        return f"{of_what}: {roles_words(evaluation.asked)}"
    return f"{of_what}, {_WORDS[next(iter(evaluation.asked))]}"


def nothing_left_words(split: str, left_out: Mapping[str, int], data: str) -> str:
    """State that no image is left to evaluate, and what to do."""
    wanted = {
        UNSEEN: "is new to the run",
        TEST: "is a test image of the run",
        VALIDATION: "is a validation image of the run",
        TRAIN: "is a training image of the run",
    }[split]
    todo = "use other images" if split == UNSEEN else "use the run's own images"
    num = sum(left_out.values())
    return (
        f"none of the {counted(num, 'usable image')} in {shown(data)} {wanted}"
        f" ({roles_words(left_out)}); {todo}, or include all with --split all"
    )


def remarks(
    question: Question, figures: Figures, later_looks: int | None, *, is_known: bool
) -> list[str]:
    """Return what a reader of the figures must know.

    Args:
        question: Which images were evaluated, and which were left out.
        figures: The result.
        later_looks: How often test images were evaluated since the end; None if these images
            include no test image.
        is_known: Whether it is known which images the run was trained on.
    """
    remarks = []
    evaluated, left_out, found = question.asked, question.left_out, question.found
    num = figures.num_images
    if learnt_from := {r: evaluated[r] for r in (*LEARNT_FROM, TIED) if r in evaluated}:
        of_all = f"These {counted(num, 'image')} include {roles_words(learnt_from)}"
        of_one = f"These images are {_WORDS[next(iter(learnt_from))]}"
        remarks.append(
            f"{of_one if num in learnt_from.values() else of_all}: the figures are too optimistic."
        )
    if not is_known:
        remarks.append(
            "It is not known which images these weights were trained on: if they include some of"
            " these, the figures are too optimistic."
        )
    if left_out:
        left = sum(left_out.values())
        remarks.append(
            f"{left:,} of {counted(num + left, 'image')} {'is' if left == 1 else 'are'} left out:"
            f" {roles_words(left_out)}; --split all includes them."
        )
    if found.quarantined or found.ignored:
        remarks.append(f"{found_words(found)}.")
    if absent := figures.classes_without_images:
        num_classes = len(figures.per_class)
        verb = "has no image" if len(absent) == 1 else "have no images"
        remarks.append(
            f"{len(absent):,} of its {num_classes:,} classes {verb} here:"
            f" {some_listed(absent)}; balanced accuracy and macro F1 are means over the others."
        )
    if later_looks is not None:
        times = "once more" if later_looks == 1 else f"{later_looks:,} more times"
        remarks.append(
            f"These test images have now been evaluated {times} since training ended; if you choose"
            " a network by them, they no longer serve as a test set."
        )
    return remarks

"""What a careful reader should know besides the verdict."""

from __future__ import annotations

from collections.abc import Sequence

from towernet.comparison.judging.pairs import EQUAL, OPEN, TOO_FEW_RUNS
from towernet.comparison.judging.significance import min_runs
from towernet.comparison.wording.advice import advice
from towernet.comparison.wording.pairs import only_pairs_words, pairs_of_verdict
from towernet.comparison.wording.starts import about_last_layers, about_weights, sizes_words
from towernet.comparison.wording.verdict import (
    BY_ANSWERS,
    BY_OPTION,
    beats_guessing,
    guessing_words,
    settling,
    too_few_runs,
    worth_using,
)
from towernet.records.judgement import Judged, Pair
from towernet.records.results import LearningCurve, Network, Results
from towernet.words import listed


def remarks(results: Results) -> list[str]:
    """Return what a careful reader should know besides the verdict."""
    return [
        *only_pairs_words(results),
        *about_differences(pairs_of_verdict(results), results),
        *about_protocol(results, "can change the order"),
        *about_winner(results),
        *about_more_images(results),
        *about_runs(results, len(results.comparisons)),
    ]


def remarks_on_answers(found: Judged) -> list[str]:
    """Return what a careful reader should know where only a table of answers is known.

    Args:
        found: A judgement with a ranked network.
    """
    return [
        *only_pairs_words(found),
        *about_differences(pairs_of_verdict(found), found),
        *about_few_runs(found, len(found.comparisons), BY_ANSWERS),
    ]


def about_differences(pairs: Sequence[Pair], found: Judged) -> list[str]:
    """Say what would decide the first open difference, and what the brackets mean."""
    sentences = []
    undecided = [pair for pair in pairs if pair.answer in (OPEN, TOO_FEW_RUNS)]
    if undecided and (ways := settling(undecided[0])):
        is_clear = undecided[0].first == found.ranked[0].name
        sentences.append(
            f"{ways[0].upper()}{ways[1:]}."
            if is_clear
            else f"For {undecided[0].first} and {undecided[0].second}: {ways}."
        )
    if any(pair.answer != EQUAL for pair in pairs):
        images = "test images" if found.split_words == "test" else "images"
        sample = f"other {images}" if found.num_runs == 1 else f"other runs and {images}"
        at_once = ", for all comparisons at once" if len(found.comparisons) > 1 else ""
        sentences.append(
            f"In brackets: the range in which the difference probably is, for {sample} of the same"
            f" kind (95 % interval{at_once})."
        )
    return sentences


def about_protocol(results: Results, what_may_change: str) -> list[str]:
    """State for which training the answer is valid, and which accuracies are unreliable."""
    sentences = []
    ranked = results.ranked
    if len(ranked) > 1:
        longer = [] if all(network.is_frozen for network in ranked) else ["longer training"]
        other = ["other weights"] if results.has_starts else []
        sentences.append(
            f"Valid for {_trainings(results)};"
            f" {listed([*longer, *other, 'larger images'], 'or')} {what_may_change}."
        )
    sentences += [*about_weights(results), *about_last_layers(results)]
    if results.final_split == "validation":
        sentences.append(
            "The figures are those of the best epoch on the selection set, not a test result: no"
            " test images were held out."
        )
    sentences += [
        f"The comparison was continued after a change: {words}." for words in results.accepted
    ]
    sentences += [
        f"{network.name} is not shown to beat guessing: always predicting the most frequent class"
        f" {guessing_words(results)}."
        for network in ranked
        if not beats_guessing(network, results)
    ]
    return sentences + about_rates(results.networks)


def about_rates(networks: Sequence[Network]) -> list[str]:
    """Say which networks have another learning rate than the best one of their short trials."""
    sentences = []
    guessing: dict[float, list[str]] = {}
    for network in networks:
        if network.rate_by_trials is False:
            first = [*network.fell_apart, network.learning_rate][0]
            guessing.setdefault(first, []).append(network.name)
    for rate, names in guessing.items():
        sentences.append(
            f"No short trial of {listed(names, 'or')} beat always predicting the most frequent"
            f" class by more than chance. The learning rate is therefore {rate:.3g}: the rate"
            " closest to the recipe's with which the loss did not diverge, or grew least."
        )
    for network in networks:
        if fallen := network.fell_apart:
            ending = f"its runs use {network.learning_rate:.3g}"
            if network.status == "failed":
                ending = f"with {network.learning_rate:.3g} it failed too"
            sentences.append(
                f"With the learning rate {listed([f'{rate:.3g}' for rate in fallen], 'or')}, the"
                f" first run of {network.name} diverged or ended less accurate than its short"
                f" trial; {ending}."
            )
    return sentences


def about_winner(results: Results) -> list[str]:
    """Say which network to use, if there are several."""
    ranked, winner = results.ranked, results.winner
    if winner is None or len(ranked) < 2 or results.kind != "comparison":
        return []
    if not worth_using(results):
        return [f"Do not use any of them yet. {advice(results)}"]
    if results.winner_came_first:
        return [f"Use {winner.name}: it was also the best on the validation images."]
    return [
        f"Use {winner.name}: it was the best on the validation images, the rule that was fixed"
        f" before training. On the {results.split_words} images {ranked[0].name} came first, so the"
        " choice between the two is open."
    ]


def about_more_images(results: Results) -> list[str]:
    """Say whether more images would help, where that was measured."""
    curve = results.learning_curve
    if curve is None:
        return []
    if isinstance(curve, LearningCurve):
        return [curve.sentence]
    return [f"No learning curve: {curve.failure}."]


def about_runs(results: Results, num_comparisons: int) -> list[str]:
    """Say what this number of runs cannot show."""
    if not results.ranked or results.kind != "comparison":
        return []
    if same := [network.name for network in results.ranked if network.runs_are_same]:
        return [
            *about_few_runs(results, num_comparisons, BY_OPTION),
            f"The {results.num_runs} runs of {listed(same)} are all the same: the training images"
            " came with the data, and nothing else is drawn for a last layer. Between these, the"
            " intervals allow for other test images only, and the p values say nothing.",
        ]
    if results.resampled:
        return [
            "Each run was judged on the images it left out, and runs share some of these; the"
            " intervals allow for that."
        ]
    return about_few_runs(results, num_comparisons, BY_OPTION)


def about_few_runs(found: Judged, num_comparisons: int, how: str) -> list[str]:
    """Say what this number of runs cannot show, all judged on the same images.

    Args:
        found: How many runs each network has.
        num_comparisons: Pairs that are judged together.
        how: How to get more of them, as `too_few_runs` takes it.
    """
    if found.num_runs == 1:
        more = how.format(min_runs(num_comparisons))
        return [
            "With one run each, this compares these trained models, not the networks: another seed"
            f" can change the order. To compare the networks, {more}."
        ]
    few = too_few_runs(num_comparisons, found.num_runs, how)
    return [] if few is None else [few]


def _trainings(results: Results) -> str:
    """Say how the ranked networks were trained: from scratch and from weights, at which size."""
    scratch = [network for network in results.ranked if network.started_from is None]
    tuned = [n for n in results.ranked if n.started_from is not None and not n.is_frozen]
    frozen = [network for network in results.ranked if network.is_frozen]
    parts = []
    if scratch:
        size = sizes_words(scratch) or f"{results.size_px} px"
        parts.append(f"training from scratch at {size} for {_epochs_of(scratch)}")
    if tuned:
        parts.append(f"fine-tuning these weights at {sizes_words(tuned)} for {_epochs_of(tuned)}")
    if frozen:
        parts.append(f"a last layer on features of these weights at {sizes_words(frozen)}")
    return listed(parts)


def _epochs_of(networks: Sequence[Network]) -> str:
    epochs = [network.epochs for network in networks]
    least, most = _epochs(min(epochs)), _epochs(max(epochs))
    return (
        f"{least if least == most else f'{least} to {most}'}"
        f" {'epoch (pass' if least == most == '1' else 'epochs (passes'} through the images)"
    )


def _epochs(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"

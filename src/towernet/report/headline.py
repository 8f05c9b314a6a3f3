"""The report's first screen in words: a headline, three facts it rests on, what to do next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from towernet.comparison.judging.pairs import BETTER, EQUAL, OPEN, TOO_FEW_RUNS, WORSE
from towernet.comparison.wording import ablation
from towernet.comparison.wording.advice import advice
from towernet.comparison.wording.pairs import called, pairs_of_first, pairs_of_verdict
from towernet.comparison.wording.remarks import about_few_runs, about_more_images, about_winner
from towernet.comparison.wording.starts import kept_equal
from towernet.comparison.wording.times import EQUAL_PASSES, unequal
from towernet.comparison.wording.verdict import (
    BY_ANSWERS,
    BY_OPTION,
    about_first,
    about_ours,
    gets_words,
    guessing_words,
    judged_images,
    scored_words,
    settling,
    worth_using,
)
from towernet.records.judgement import AnswersJudged, Judged, Pair
from towernet.records.results import LearningCurve, Results, TrainingTimes, Variant
from towernet.report.tables import short
from towernet.words import counted, in_points, listed, percent

MAX_WORDS = 15  # of a headline; a name counts as one
_NAME_LIMIT = 32  # characters, so that two names fit a phone
_MAX_LETTERS = 100
_REASONS_SHOWN = 3


@dataclass(frozen=True)
class Step:
    """Something to do next, and the command for it, '' where there is none."""

    words: str
    command: str = ""


def headline(found: Results | AnswersJudged) -> str:
    """Return the answer in at most 15 words.

    Example:
        "towernet_patch beats vgg19; no difference from towernet is shown."
    """
    if not found.ranked:
        all_failed = all(network.status == "failed" for network in found.networks)
        return "Every network failed." if all_failed else "No network learned enough to be ranked."
    if isinstance(found, Results) and not worth_using(found):
        if found.kind == "run":
            return f"{_named(found.ranked[0].name)} is not shown to beat guessing."
        return "No network is shown to beat guessing: do not use any of them yet."
    if isinstance(found, Results) and found.ablation:
        return _shortened(partial(_of_blocks, found, found.ablation))
    first = _named(found.ranked[0].name)
    if len(found.ranked) == 1:
        if len(found.networks) == 1:
            return f"{first} {gets_words(found)}."
        return f"{first} is the only network that could be ranked: {_score_words(found)}."
    pairs = pairs_of_first(found)
    if found.against is not None and not pairs:
        return f"{first} came first; no difference from {_named(found.against)} could be judged."
    if isinstance(found, Results) and found.winner and not found.winner_came_first:
        return _of_two_choices(first, found.winner.name, pairs)
    if found.against not in (None, found.ranked[0].name):
        return _shortened(partial(_of_against, first, pairs[0], found))
    return _shortened(partial(_of_ranking, first, pairs, found))


def _shortened(say: Callable[[int], str]) -> str:
    """Return what `say` makes with up to two names in each list, else with counts for lists."""
    text = say(2)
    return text if len(text.split()) <= MAX_WORDS and len(text) <= _MAX_LETTERS else say(1)


def _of_ranking(first: str, pairs: Sequence[Pair], found: Judged, num_named: int) -> str:
    """Say whom the network that came first beats, equals, and is not shown to differ from."""
    beaten = [pair.second for pair in pairs if pair.answer == BETTER]
    equal = [pair.second for pair in pairs if pair.answer == EQUAL]
    undecided = [pair.second for pair in pairs if pair.answer in (OPEN, TOO_FEW_RUNS)]
    tied = [pair.second for pair in pairs if pair.difference == 0]
    margin = f"±{100 * found.equal_within:g} points"

    def named(names: Sequence[str], last: str = "and") -> str:
        return _named_or_counted(names, "others", num_named, last)

    if len(beaten) == len(pairs):
        noun = "model" if found.num_runs == 1 else "network"
        is_all = len(found.ranked) == len(found.networks)
        place = (
            f"the best {noun} here" if is_all else f"the best of {len(found.ranked)} ranked {noun}s"
        )
        return f"{first} is {place}: {scored_words(found)}."
    if beaten:
        text = f"{first} beats {named(beaten)}"
        if equal:
            text += f" and equals {named(equal)}"
        if undecided:
            text += f"; no difference from {named(undecided, 'or')} is shown"
        return f"{text}."
    if not undecided:
        if len(pairs) == 1:
            return f"{first} and {_named(equal[0])} are equal within {margin}."
        return f"{first} came first, but equals the other {len(pairs)} within {margin}."
    if len(tied) == len(pairs):
        same = f"the same {found.measure_words}"
        return f"{listed([first, named(tied)])} have {same}; no difference is shown."
    too_few = all(pair.answer == TOO_FEW_RUNS for pair in pairs)
    if tied:
        text = f"{listed([first, named(tied)])} share first place"
        if too_few:
            return f"{text}; {found.num_runs} runs are too few to show differences."
        return f"{text}, but no difference from the others is shown."
    if too_few:
        return f"{first} came first, but {found.num_runs} runs are too few to show a difference."
    if equal:
        return f"{first} came first; it equals {named(equal)}, and no other difference is shown."
    return f"{first} came first, but no difference from {named(undecided, 'or')} is shown."


def _of_against(first: str, pair: Pair, found: Judged, num_named: int) -> str:
    """Say how the first network did against the only one that others were compared with."""
    other = called(_named(pair.second), found)
    if pair.answer == BETTER:
        score = f": {_score_words(found)}" if num_named > 1 else ""
        return (
            f"{first} came first{score}, {in_points(pair.difference)} points better than {other}."
        )
    if pair.answer == EQUAL:
        return (
            f"{first} came first, but equals {other} within ±{100 * found.equal_within:g} points."
        )
    if pair.difference == 0:
        return f"{first} and {other} have the same {found.measure_words}; no difference is shown."
    if pair.answer == TOO_FEW_RUNS:
        return f"{first} came first, but {found.num_runs} runs are too few to show a difference."
    return f"{first} came first, but no difference from {other} is shown."


def _score_words(found: Judged) -> str:
    score = found.ranked[0].score(found.measure)
    return f"{percent(score)} {'right' if found.measure == 'accuracy' else found.measure_words}"


def _of_two_choices(first: str, winner: str, pairs: Sequence[Pair]) -> str:
    """Say that one network came first and another was best on the validation images."""
    other = _named(winner)
    answer = next((pair.answer for pair in pairs if pair.second == winner), None)
    if answer is None:
        text = f"{first} came first, {other} was best on the validation images"
        return f"{text}; the two were not compared."
    if answer == BETTER:
        return f"{first} beats {other} here, but {other} was best on the validation images."
    if answer == EQUAL:
        return f"{first} came first, {other} was best on the validation images; the two are equal."
    return (
        f"{first} came first, {other} was best on the validation images; neither is shown better."
    )


def _of_blocks(results: Results, variants: Sequence[Variant], num_named: int) -> str:
    """Say which blocks help."""
    pairs = {pair.first: pair for pair in results.comparisons}
    judged = [(v, pairs[v.name].answer) for v in variants if v.name in pairs]
    if not judged:
        return "No attention block could be judged."
    helped = [variant.block for variant, answer in judged if answer == BETTER]
    harmed = [variant.block for variant, answer in judged if answer == WORSE]
    others = [variant.block for variant, answer in judged if answer not in (BETTER, WORSE)]
    is_equal = all(answer == EQUAL for _, answer in judged)
    networks = list(dict.fromkeys(variant.network for variant, _ in judged))
    whom = _named(networks[0]) if len(networks) == 1 else f"the {len(networks)} networks"
    margin = f"±{100 * results.equal_within:g} points"
    blocks = _named(others[0]) if len(judged) == 1 and others else "any block"
    if is_equal:
        text = _named(others[0]) if len(judged) == 1 else "Every block"
        return f"{text} changes {whom} by less than {margin}."
    if all(answer == TOO_FEW_RUNS for _, answer in judged):
        return f"{results.num_runs} runs are too few to show an effect of {blocks}."
    if len(others) == len(judged):
        return f"No effect of {blocks} on {whom} is shown."
    if results.num_runs == 1:
        whom = f"these models of {whom}"
    if len(judged) > 1 and len(judged) in (len(helped), len(harmed)):
        return f"Every block {'helped' if helped else 'harmed'} {whom}."
    if len(networks) > 1:
        text = f"Blocks helped in {len(helped)} of {len(judged)} cases, harmed in {len(harmed)}"
        return f"{text}; {len(others)} show no effect." if others else f"{text}."
    parts = [
        f"{_named_or_counted(some, 'blocks', num_named)} {verb}"
        for some, verb in ((helped, "helped"), (harmed, "harmed"))
        if some
    ]
    text = f"{' and '.join(parts)} {whom}"
    if not others:
        return f"{text}."
    rest = _named_or_counted(others, "others", num_named, "or")
    return f"{text}; no effect of {rest} is shown."


def facts(
    found: Results | AnswersJudged, times: TrainingTimes | None = None
) -> tuple[str, str, str]:
    """Return what a headline rests on: the images, the differences, what was equal.

    Args:
        found: What was found.
        times: The measured training times, where they were to be equal.
    """
    if isinstance(found, AnswersJudged):
        return (_sample_of_answers(found), _differences(found), _UNKNOWN_TRAINING)
    return (_sample(found), _differences(found), _kept_equal(found, times))


_UNKNOWN_TRAINING = (
    "The table says which answers were right, not how the networks were trained, nor whether these"
    " images were new to them."
)


def _sample_of_answers(found: AnswersJudged) -> str:
    groups = "" if found.num_groups is None else f" in {counted(found.num_groups, 'group')}"
    return f"Measured on {counted(found.num_images, 'image')}{groups}, with {_runs_words(found)}."


def _sample(results: Results) -> str:
    images = counted(results.num_judged, "image")
    if results.final_split == "test":
        text = f"Measured on {judged_images(results)} that played no part in training"
    elif results.resampled:
        text = f"Each run was measured on {images} that it left out of training"
    else:
        text = (
            f"Measured on {images} on which the epoch was chosen too, so the accuracies are"
            " probably too high"
        )
    if results.kind == "run":
        return f"{text}."
    return f"{text}, with {_runs_words(results)}."


def _runs_words(found: Judged) -> str:
    if found.num_runs == 1:
        return "one run of each network: another seed can change the order"
    return f"{found.num_runs} runs of each network"


def _differences(found: Results | AnswersJudged) -> str:
    if not found.ranked:
        return _reasons(found)
    if isinstance(found, Results):
        if not worth_using(found):
            return (
                f"Always predicting the most frequent class {guessing_words(found)}; no network's"
                " 95 % interval is entirely above that."
            )
        if found.ablation:
            return found.sentence
    if len(found.ranked) == 1:
        interval = found.ranked[0].score_interval(found.measure)
        assert interval is not None and isinstance(found, Results), "one answering network"
        low, high = map(percent, interval)
        return (
            f"95 % interval {low} to {high}; always predicting the most frequent class"
            f" {guessing_words(found)}."
        )
    lead = about_ours(found) if isinstance(found, Results) else ""
    text = f"{about_first(found, short(found.ranked[0].name))} {lead}".rstrip()
    return f"{text} In brackets: 95 % interval." if "[" in text else text


def _reasons(found: Judged) -> str:
    """Say why networks are not ranked, those with the same reason together."""
    by_reason: dict[str, list[str]] = {}
    for network in found.networks:
        reason = network.reason or network.status.replace("_", " ")
        by_reason.setdefault(reason, []).append(short(network.name))
    reasons = [f"{listed(names)}: {reason}." for reason, names in by_reason.items()]
    more = len(reasons) - _REASONS_SHOWN
    return " ".join(
        [*reasons[:_REASONS_SHOWN], f"And {more} more reasons below." if more > 0 else ""]
    ).strip()


def _kept_equal(results: Results, times: TrainingTimes | None) -> str:
    networks = results.networks
    if results.kind == "run":
        return _training_of_run(results)
    if results.has_starts:
        return kept_equal(results)
    if len({network.epochs for network in networks}) == 1:
        length = "number of epochs"
    elif results.ablation:
        length = "number of steps of a network with and without a block"
    else:
        length = "planned training time" if times and times.differ else "training time"
    text = (
        "The same for all networks: images and their order, augmentation, recipe, image size"
        f" ({results.size_px} px) and {length}."
    )
    if times and times.differ:
        text = f"{unequal(times, several_runs=results.num_runs > 1)} {text}"
    if any(len(network.trials) > 1 for network in networks):
        text += " The same learning rates were tried for each."
    return text


def _training_of_run(results: Results) -> str:
    network, num = results.networks[0], results.num_images
    size = f"{network.size_px or results.size_px} px"
    weights = network.started_from
    if weights is None:
        how = f"Trained from scratch at {size} with the recipe {results.recipe}"
    elif network.is_frozen:
        how = f"A last layer, fitted on features of {weights.name} at {size}"
    else:
        how = f"Fine-tuned from {weights.name} at {size}"
    what = "its strength" if network.is_frozen else "the epoch"
    return f"{how} on {num.train:,} images; {what} was chosen on {num.validation:,} others."


def steps(
    found: Results | AnswersJudged, trusting: str = "", times: TrainingTimes | None = None
) -> tuple[Step, ...]:
    """Return what to do next: use a network, decide between two, or get results first.

    Args:
        found: What was found.
        trusting: What to set before a command that runs custom code.
        times: The measured training times, where they were to be equal.
    """
    to_repeat = (Step(EQUAL_PASSES),) if times and times.differ else ()
    return (*_steps(found, trusting), *to_repeat)


def _steps(found: Results | AnswersJudged, trusting: str) -> tuple[Step, ...]:
    if not found.ranked and all(network.status == "failed" for network in found.networks):
        return (Step("Remove the cause named here, then run the command again with a new --out."),)
    if isinstance(found, AnswersJudged):
        more = _to_decide(found, BY_ANSWERS)
        return more or (Step(f"For images of this kind, use {found.ranked[0].name}."),)
    if not worth_using(found):
        return (Step(advice(found)),)
    return (*_to_use(found, trusting), *_to_decide(found, BY_OPTION), *_to_collect(found))


def _to_use(results: Results, trusting: str) -> tuple[Step, ...]:
    if results.kind == "run":
        return (
            Step(
                "To use it, run in the folder of this report:",
                f"{trusting}towernet predict . photo.jpg",
            ),
        )
    if results.winner is None:
        return ()
    advice = ablation.about_choice(results) if results.ablation else about_winner(results)
    why = advice[0] if advice else f"Use {results.winner.name}."
    return (
        Step(
            f"{why} To use {results.winner.name}, run in the folder of this report:",
            f"{trusting}towernet predict {results.winner.folder} photo.jpg",
        ),
    )


def _to_decide(found: Judged, how: str) -> tuple[Step, ...]:
    """Return what would settle the first difference that is not settled."""
    is_ablation = isinstance(found, Results) and found.ablation
    pairs = found.comparisons if is_ablation else pairs_of_verdict(found)
    undecided = [pair for pair in pairs if pair.answer in (OPEN, TOO_FEW_RUNS)]
    if not undecided:
        return ()
    is_resampled = isinstance(found, Results) and found.resampled
    if not is_resampled and (few := about_few_runs(found, len(found.comparisons), how)):
        return (Step(few[0]),)
    nearest = undecided[0]
    if not (nearest.images_needed or nearest.runs_needed):
        return ()  # more of them would not help
    return (Step(f"To decide between {nearest.first} and {nearest.second}: {settling(nearest)}."),)


def _to_collect(results: Results) -> tuple[Step, ...]:
    if not isinstance(results.learning_curve, LearningCurve):
        return ()
    answer, _, _ = about_more_images(results)[0].partition(". ")
    return (Step(f"{answer}."),)


def _named_or_counted(names: Sequence[str], noun: str, num_named: int, last: str = "and") -> str:
    """List names, or say how many there are where they are too many."""
    if len(names) > num_named:
        return f"{len(names)} {noun}"
    return listed([_named(name) for name in names], last)


def _named(name: str) -> str:
    return short(name, _NAME_LIMIT)

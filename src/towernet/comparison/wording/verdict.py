"""The answer in words: what the final split says, what it does not, and what would settle it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from towernet.comparison.judging.statistics import Difference, Family, min_runs
from towernet.data.table import listed
from towernet.names import NetworkName

# What can become of a pair: the first is better, …; of a ranking's pairs it is never worse.
BETTER, WORSE, EQUAL, OPEN, TOO_FEW_RUNS = "better", "worse", "equal", "open", "too_few_runs"


def percent(fraction: float) -> str:
    """Write a fraction for a person."""
    return f"{100 * fraction:.1f} %"


def in_points(fraction: float) -> str:
    """Write a difference in percentage points; what is not 0 does not read as 0.

    Example:
        >>> in_points(0.0312), in_points(-0.0002), in_points(-0.0000001)
        ('3.1', '\u22120.02', '0.0')
    """
    points = 100 * fraction
    text = f"{points:.1f}" if abs(points) >= 0.05 else f"{points:.2f}"
    return "0.0" if float(text) == 0 else text.replace("-", "\u2212")


def pair_row(
    family: Family, difference: Difference, names: Sequence[str], equal_within: float
) -> dict[str, Any]:
    """Return a pair's row of the results: its difference, its answer, and what would settle it.

    Args:
        family: All the pairs that are judged together.
        difference: The pair's.
        names: Of the networks, by position.
        equal_within: The largest difference that matters to nobody, a fraction.
    """
    num_runs, num_images = family.num_runs, family.num_images
    variance = difference.variance
    # Where each run left out other images there are no signs to flip.
    too_few = variance is not None and 1 < num_runs < min_runs(family.num_comparisons)
    to_show = runs = images = None
    if difference.is_within(equal_within) and not too_few:
        answer = EQUAL
    elif difference.is_shown():
        answer = BETTER if difference.mean > 0 else WORSE
    elif variance is None:
        answer = OPEN  # these images are all there are, and more runs would leave out the same
    else:
        answer = TOO_FEW_RUNS if too_few else OPEN
        # A difference of the size seen, in half points, and one that matters.
        seen = math.ceil(200 * abs(difference.mean) - 1e-9) / 200
        to_show = max(seen, 2 * equal_within)
        # Else it would have been shown already, or probably.
        if too_few or family.detectable(variance, num_runs, num_images) > to_show:
            images = family.images_needed(variance, to_show)
            if num_runs > 1:  # one run does not tell how runs differ
                runs = family.runs_needed(variance, to_show)
            to_show = to_show if runs or images else None
    return {
        "first": names[difference.first],
        "second": names[difference.second],
        "difference": difference.mean,
        "interval": list(difference.interval),
        "p": difference.p,
        "p_adjusted": difference.p_adjusted,
        "chance_better": difference.chance_better,
        "chance_interval": list(difference.chance_interval),
        "answer": answer,
        "to_show": to_show,
        "runs_needed": runs,
        "images_needed": images,
    }


def answer_words(row: dict[str, Any], equal_within: float) -> str:
    """Say what became of a pair, and what would settle it."""
    words = {
        BETTER: "the first is better",
        WORSE: "the first is worse",
        EQUAL: f"equal within ±{100 * equal_within:g} points",
        OPEN: "not shown",
        TOO_FEW_RUNS: "too few runs to tell",
    }[row["answer"]]
    return "; ".join(filter(None, (words, settling(row))))


def settling(row: dict[str, Any]) -> str:
    """Say what would settle a pair, '' where nothing here would."""
    if row["to_show"] is None:
        return ""
    points = f"{100 * row['to_show']:g}"
    difference = f"a difference of {points} point{'' if points == '1' else 's'}"
    ways = []
    if row["images_needed"]:
        ways.append(f"{_rounded(row['images_needed'])} test images in all")
    if row["runs_needed"]:
        ways.append(f"{row['runs_needed']} runs in all")
    if not ways:
        return f"{difference} would probably have been shown"
    return f"about {' or '.join(ways)} would probably show {difference}"


def _rounded(number: int) -> str:
    """Write a count to two digits."""
    step = max(1, 10 ** (len(str(number)) - 2))
    return f"{math.ceil(number / step) * step:,}"


def verdict(results: dict[str, Any]) -> str:
    """Answer in one sentence; if our own network is not first, that comes first.

    Args:
        results: The ranking, its pairs, and what it is about.
    """
    ranked = [network for network in results["networks"] if network["status"] == "ranked"]
    split = f"{results['num_images'][results['final_split']]:,} {split_words(results)} images"
    if not ranked:
        return (
            f"No network learned enough to be ranked on {split}:"
            " give more time, or look at the data with `towernet check`."
        )
    first = ranked[0]
    scored = f"{percent(first['accuracy'])} of {split}"
    low, high = first["interval"]
    if len(results["networks"]) == 1:
        return (
            f"{first['name']} names {scored} correctly"
            f" (95 % interval {percent(low)} to {percent(high)})."
        )
    lead = _lead(results, first["name"])
    if len(ranked) == 1:
        return f"{lead}{first['name']} is the only network that could be ranked: {scored} right."
    is_one_run = results["num_runs"] == 1
    subject = f"this model of {first['name']}" if is_one_run else first["name"]
    sentence = f"{lead}{subject} {_said_of_first(results, first['name'], f'{scored} right')}."
    return sentence[0].upper() + sentence[1:] if is_one_run else sentence


def _said_of_first(results: dict[str, Any], first: str, scored: str) -> str:
    """Say what is known of the network that came first, against all others."""
    is_one_run = results["num_runs"] == 1
    rows = [row for row in results["comparisons"] if row["first"] == first]
    beaten = [row for row in rows if row["answer"] == BETTER]
    equal = [row for row in rows if row["answer"] == EQUAL]
    undecided = [row for row in rows if row["answer"] in (OPEN, TOO_FEW_RUNS)]
    if beaten:
        kind = "model" if is_one_run else "network"
        whom, over = _names(beaten, is_one_run), "over "
        if len(beaten) == len(rows) > 1:
            is_all = len(rows) == len(results["networks"]) - 1
            whom = f"every other {'' if is_all else 'ranked '}{kind}"
            over = "ahead of the next, "
        said = f"is better than {whom}, with {scored}: {_gaps(beaten, over)}"
    elif rows[0]["difference"] == 0:
        tied = [row for row in rows if row["difference"] == 0]
        said = f"and {_names(tied, is_one_run)} are level, with {scored}"
    else:
        said = f"came first, with {scored}"
    if equal:
        margin = 100 * results["equal_within"]
        said += f", {'' if undecided else 'and '}is equal to {_names(equal, is_one_run)}"
        said += f" within ±{margin:g} points"
    if undecided:
        runs = "these models" if is_one_run else "these runs"
        from_whom = "" if len(undecided) == len(rows) else f" from {_names(undecided, is_one_run)}"
        said += f", but {runs} do not show a difference{from_whom}: {_gaps(undecided)}"
    return said


def _lead(results: dict[str, Any], first: str) -> str:
    """Return what is said before all else where our own network lost."""
    ours = [
        network["name"] for network in results["networks"] if NetworkName(network["name"]).is_ours
    ]
    if not ours or first in ours:
        return ""
    noun = "network" if len(ours) == 1 else "networks"
    return f"The {noun} made with this program, {' and '.join(sorted(ours))}, did not come first: "


def _names(rows: list[dict[str, Any]], is_one_run: bool) -> str:
    names = [row["second"] for row in rows]
    prefix = "" if not is_one_run else ("that of " if len(names) == 1 else "those of ")
    return f"{prefix}{listed(names)}"


def _gaps(rows: list[dict[str, Any]], over: str = "over ") -> str:
    """Say by how much the first network leads over the nearest of some others."""
    nearest = rows[0]
    low, high = map(in_points, nearest["interval"])
    to = f" {over}{nearest['second']}" if len(rows) > 1 else ""
    return f"{in_points(nearest['difference'])} points{to} [{low}, {high}]"


def num_pairs(num_networks: int) -> int:
    """Return how many pairs some networks make."""
    return num_networks * (num_networks - 1) // 2


def too_few_runs(num_comparisons: int, num_runs: int) -> str | None:
    """Say that so many runs could not show any difference, None where they could.

    All of them judged on the same images.
    """
    fewest = min_runs(num_comparisons)
    if num_comparisons == 0 or num_runs == 1 or num_runs >= fewest:
        return None
    among = "" if num_comparisons == 1 else f" among {num_comparisons} comparisons"
    return (
        f"With {num_runs} runs no difference{among}, however large, can be told from chance;"
        f" give --runs {fewest} or more."
    )


def remarks(results: dict[str, Any]) -> list[str]:
    """Return what a careful reader should know beside the verdict."""
    ranked = [network for network in results["networks"] if network["status"] == "ranked"]
    of_first = [row for row in results["comparisons"] if row["first"] == ranked[0]["name"]]
    said = [
        *about_differences(of_first, results, num_pairs(len(ranked))),
        *about_protocol(results, "can change the order"),
        *about_winner(results),
        *about_more_images(results),
    ]
    if (cheapest := _cheapest(ranked, results["comparisons"])) is not None:
        said.append(cheapest)
    return said + about_runs(results, num_pairs(len(ranked)))


def about_differences(
    rows: Sequence[dict[str, Any]], results: dict[str, Any], num_comparisons: int
) -> list[str]:
    """Say what would settle the first difference that is not settled, and what brackets hold."""
    said = []
    undecided = [row for row in rows if row["answer"] in (OPEN, TOO_FEW_RUNS)]
    if undecided and (ways := settling(undecided[0])):
        said.append(f"{ways[0].upper()}{ways[1:]}.")
    if any(row["answer"] != EQUAL for row in rows):
        images = "test images" if results["final_split"] == "test" else "images"
        sample = f"other {images}" if results["num_runs"] == 1 else f"other runs and {images}"
        at_once = ", for all comparisons at once" if num_comparisons > 1 else ""
        said.append(
            f"In brackets: the range the difference probably lies in, with {sample} of the same"
            f" kind (95 % interval{at_once})."
        )
    return said


def about_protocol(results: dict[str, Any], what_may_change: str) -> list[str]:
    """Say for which training all this holds, and what flatters or is worth nothing."""
    said = []
    ranked = [network for network in results["networks"] if network["status"] == "ranked"]
    if len(ranked) > 1:
        least, most = (_epochs(pick(n["epochs"] for n in ranked)) for pick in (min, max))
        said.append(
            f"This holds for training from scratch at {results['size_px']} px for"
            f" {least if least == most else f'{least} to {most}'}"
            f" {'epoch (pass' if least == most == '1' else 'epochs (passes'} through the"
            f" images); longer training or larger images {what_may_change}."
        )
    if results["final_split"] == "validation":
        said.append(
            "The figures are the best epoch on the selection set, not a test result: this protocol"
            " holds no test images out."
        )
    said += [
        f"The comparison was continued although something had changed: {words}."
        for words in results.get("accepted", [])
    ]
    said += [
        f"{network['name']} cannot be told from always naming the commonest class, which is right"
        f" for {percent(results['majority_accuracy'])}."
        for network in ranked
        if not _beats_guessing(network, results)
    ]
    return said + about_rates(results)


def about_rates(results: dict[str, Any]) -> list[str]:
    """Say whose learning rate is not the one that its short trials favoured."""
    said = []
    guessing: dict[float, list[str]] = {}
    for network in results["networks"]:
        if network.get("rate_by_trials") is False:
            first = [*network["fell_apart"], network["learning_rate"]][0]
            guessing.setdefault(first, []).append(network["name"])
    for rate, names in guessing.items():
        said.append(
            f"No short trial of {listed(names, 'or')} was better than always naming the commonest"
            f" class by more than chance, so the learning rate taken was {rate:.3g}: the nearest to"
            " the recipe's own under which the loss did not explode, or exploded least."
        )
    for network in results["networks"]:
        if fallen := network.get("fell_apart"):
            ending = f"its runs have {network['learning_rate']:.3g}"
            if network["status"] == "failed":
                ending = f"with {network['learning_rate']:.3g} it failed as well"
            said.append(
                f"With the learning rate {listed([f'{rate:.3g}' for rate in fallen], 'or')}, the"
                f" first run of {network['name']} diverged or ended less accurate than its short"
                f" trial; {ending}."
            )
    return said


def _beats_guessing(network: dict[str, Any], results: dict[str, Any]) -> bool:
    return bool(network["interval"][0] > results["majority_accuracy"])


def worth_using(results: dict[str, Any]) -> bool:
    """Whether any of the ranked networks is better than always naming the commonest class."""
    return any(
        _beats_guessing(network, results)
        for network in results["networks"]
        if network["status"] == "ranked"
    )


def about_winner(results: dict[str, Any]) -> list[str]:
    """Say which network to use, if there is a choice."""
    ranked = [network for network in results["networks"] if network["status"] == "ranked"]
    winner = results["winner"]
    if not winner or len(ranked) < 2 or results["kind"] != "comparison":
        return []
    if not worth_using(results):
        return ["Use none of them yet: train longer, or look at the data first."]
    if winner["name"] == ranked[0]["name"]:
        return [f"{winner['name']} was also the best on the validation images: use this one."]
    return [
        f"Use {winner['name']}: it was the best on the validation images, which is the rule set"
        f" beforehand. On the {split_words(results)} images {ranked[0]['name']} came first, so the"
        " choice between the two is not settled."
    ]


def about_more_images(results: dict[str, Any]) -> list[str]:
    """Say whether more images would help, where that was measured."""
    curve = results.get("learning_curve")
    if curve is None:
        return []
    return [curve.get("sentence") or f"No learning curve: {curve['failure']}."]


def about_runs(results: dict[str, Any], num_comparisons: int) -> list[str]:
    """Say what so many runs cannot tell."""
    if not any(network["status"] == "ranked" for network in results["networks"]):
        return []
    if results["num_runs"] == 1 and results["kind"] == "comparison":
        return [
            "With one run each, this compares these trained models, not the networks: another seed"
            " can change the order. To compare the networks, give --runs"
            f" {min_runs(num_comparisons)} or more."
        ]
    if results.get("resampled"):
        return [
            "Each run was judged on the images it left out, and these are partly the same ones;"
            " the intervals allow for that."
        ]
    few = too_few_runs(num_comparisons, results["num_runs"])
    return [] if few is None else [few]


def _cheapest(ranked: list[dict[str, Any]], rows: list[dict[str, Any]]) -> str | None:
    """Say which network costs least of those not shown to be worse than the first, if another."""
    if len(ranked) < 2:
        return None
    first = ranked[0]
    answers = {row["second"]: row["answer"] for row in rows if row["first"] == first["name"]}
    sound = [first, *(n for n in ranked[1:] if answers[n["name"]] != BETTER)]
    cheapest = min(sound, key=lambda n: (n["multiply_adds"], n["parameters"]))
    if cheapest is first:
        return None
    of_first = 100 * cheapest["multiply_adds"] / first["multiply_adds"]
    share = f"{of_first:.0f}" if of_first >= 10 else f"{of_first:.2g}"
    return (
        f"Of the networks not shown to be worse, {cheapest['name']} computes least: {share} % of"
        f" the work of {first['name']} for an image."
    )


def _epochs(number: int | float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def split_words(results: dict[str, Any]) -> str:
    """Return what the final split is called in front of "images"."""
    return "test" if results["final_split"] == "test" else "selection-set"

"""What networks knew before a comparison, and which of their starts did best, in words.

A network that starts from pre-trained weights has seen other images; the words say which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from towernet.comparison.judging.pairs import BETTER, EQUAL, OPEN, TOO_FEW_RUNS
from towernet.comparison.wording.pairs import gap_words, pairs_of_first
from towernet.names import SCRATCH, NetworkName
from towernet.records.judgement import Pair
from towernet.records.results import Measured, Network, Results
from towernet.records.weights import UNKNOWN, StartWeights
from towernet.words import counted, listed, some_listed

START_WORDS: Final = {None: "from scratch", "frozen": "frozen", "finetuned": "fine-tuned"}
HOW_STARTS_LEARN: Final = (
    "A frozen network keeps its weights, and a new last layer is fitted on their features. A"
    " fine-tuned one starts with such a last layer, then all its layers are trained, by a recipe of"
    " their own."
)

_CHOSEN_ON: Final = {
    "validation": "chosen on the validation images",
    "folds": "chosen by cross-validation within the training images, where these are fewer",
    "nothing": "not chosen, where no validation images show it",
}


@dataclass(frozen=True)
class Knowledge:
    """What some networks knew before.

    Args:
        weights: The pre-trained weights; None: nothing.
        networks: Their names.
        preparing_seconds: What computing features with these weights took; None if unknown.
    """

    weights: StartWeights | None
    networks: tuple[NetworkName, ...]
    preparing_seconds: float | None


def knowledge(
    networks: Sequence[Network], measured: Mapping[NetworkName, Measured]
) -> tuple[Knowledge, ...]:
    """Return what the networks knew before, those with the same weights together."""
    by_weights: dict[str, list[Network]] = {}
    for network in networks:
        by_weights.setdefault(network.started_from.sha256 if network.started_from else "", [])
        by_weights[network.started_from.sha256 if network.started_from else ""].append(network)
    found = []
    for sha256 in sorted(by_weights, key=bool):  # nothing first
        of = by_weights[sha256]
        seconds = [measured[network.name].preparing_seconds for network in of]
        known = [each for each in seconds if each is not None]
        names = tuple(network.name for network in of)
        found.append(Knowledge(of[0].started_from, names, max(known, default=None)))
    return tuple(found)


def images_words(weights: StartWeights) -> str:
    """Say on which images weights were trained: "ImageNet-1k (1,281,167 images)"."""
    data = "images that are not known" if weights.data == UNKNOWN else weights.data
    if weights.num_images is None or weights.of_runs is not None:  # runs say it in `data`
        return data
    return f"{data} ({weights.num_images:,} images)"


def sizes_words(networks: Sequence[Network]) -> str:
    """Return the sizes of the networks' images: "128 to 224 px"; '' if they have none of their own.

    Args:
        networks: Those to speak of.
    """
    sizes = sorted({network.size_px for network in networks if network.size_px is not None})
    if not sizes:
        return ""
    return " to ".join(str(size) for size in dict.fromkeys((sizes[0], sizes[-1]))) + " px"


def about_weights(results: Results) -> list[str]:
    """Say from which weights networks started, and what this means for the verdict."""
    started = [network for network in results.networks if network.started_from is not None]
    sets = {n.started_from.sha256: n.started_from for n in started if n.started_from}
    if not sets:
        return []
    origins = [f"{of.name} ({of.network}), trained on {images_words(of)}" for of in sets.values()]
    these = "these weights" if len(sets) > 1 else "these"
    return [
        f"Pre-trained weights: {'; '.join(origins)}. They are one fixed draw, so the verdict is"
        f" about {these}. {' '.join(seen_words(results))}"
    ]


def seen_words(results: Results) -> list[str]:
    """Say which weights may have seen the images that networks are judged on, in sentences.

    Only the images that runs made here learned from are known, and are compared with those.
    """
    images = "test images" if results.final_split == "test" else "images judged on"
    sets = {n.started_from.sha256: n.started_from for n in results.networks if n.started_from}
    compared = [weights.name for weights in sets.values() if weights.of_runs == "all"]
    in_part = [weights.name for weights in sets.values() if weights.of_runs == "some"]
    unknown = [weights.name for weights in sets.values() if weights.of_runs is None]
    how = f"were compared with the {images} before training, as far as they were still there"
    sentences = []
    if compared:
        sentences.append(
            f"The images that {listed(compared)} learned from {how}; none is the same or a copy."
        )
    if in_part:
        sentences.append(
            f"The images that {listed(in_part)} learned from {how}; none is the same or a copy."
            f" Those of earlier weights were not compared, and may include the {images} or their"
            " like."
        )
    if unknown:
        which = listed(unknown) if compared or in_part else "these weights"
        sentences.append(
            f"The images that {which} were trained on were not compared with the {images}, and may"
            " include them or their like."
        )
    return sentences


def about_scratch(results: Results) -> str:
    """Say which networks only learnt where they started from weights; '' if there are none."""
    failed = [n.name for n in results.networks if not n.name.start and n.status == "did_not_learn"]
    learnt = {n.name.with_start(SCRATCH) for n in results.ranked if n.name.start}
    if not (names := [name for name in failed if name in learnt]):
        return ""
    return (
        f"From scratch {listed(names)} did not learn on these images in this time; from pre-trained"
        f" weights {'it' if len(names) == 1 else 'they'} did."
    )


def about_starts(results: Results) -> str:
    """Say which start of a network did best; '' if the verdict says it, or no such pair was judged.

    Args:
        results: With every pair judged; of other pairs, the verdict names each.
    """
    if results.against is not None or len(results.ranked) < 3:
        return ""
    by_network: dict[NetworkName, list[NetworkName]] = {}
    for network in results.ranked:
        by_network.setdefault(network.name.with_start(SCRATCH), []).append(network.name)
    told = _told(results)
    sentences = []
    for plain, (first, *others) in by_network.items():
        pairs = [
            pair
            for pair in results.comparisons
            if pair.first == first
            and pair.second in others
            and pair not in told
            and pair.answer != TOO_FEW_RUNS
        ]
        if pairs:
            parts = listed([_against_start(pair, results.equal_within) for pair in pairs])
            start = START_WORDS[first.start]
            sentences.append(f"Of the starts of {plain}, {start} came first: {parts}.")
    return " ".join(sentences)


def _told(results: Results) -> list[Pair]:
    """Return the pairs whose difference the verdict names: the nearest beaten and undecided one."""
    pairs = pairs_of_first(results)
    beaten = [pair for pair in pairs if pair.answer == BETTER]
    undecided = [pair for pair in pairs if pair.answer in (OPEN, TOO_FEW_RUNS)]
    return [*beaten[:1], *undecided[:1]]


def _against_start(pair: Pair, equal_within: float) -> str:
    other = START_WORDS[NetworkName(pair.second).start]
    if pair.answer == BETTER:
        return f"{gap_words(pair)} better than {other}"
    if pair.answer == EQUAL:
        return f"equal to {other} within ±{100 * equal_within:g} points"
    return f"not shown to differ from {other} ({gap_words(pair)})"


def kept_equal(results: Results) -> str:
    """Say what was the same for networks of different starts, and what was not."""
    limit = "training time" if results.minutes else "epochs"
    sizes = sizes_words(results.networks)
    same, differs = f"the size of the images ({sizes}), ", ""
    if " to " in sizes:
        same, differs = "", f" the size of its images ({sizes}),"
    return (
        f"The same for all networks: the images, how they were split and drawn in each run, {same}"
        f"and the limit of {limit} per run. Different: what a network knew before,{differs} and how"
        " it learns."
    )


def strength_words(results: Results) -> str:
    """Say what chose how strongly last layers were regularised; '' if no run says it."""
    layers = [run.last_layer for n in results.networks for run in n.runs if run.last_layer]
    ways = {layer.chosen_on for layer in layers}
    chosen = [words for way, words in _CHOSEN_ON.items() if way in ways]
    if not chosen:
        return ""
    return f"How strongly a last layer was regularised was {'; or '.join(chosen)}."


def about_last_layers(results: Results) -> list[str]:
    """Say which classes a last layer could not learn, and where fine-tuning improved nothing."""
    sentences = []
    layers = [run.last_layer for n in results.networks for run in n.runs if run.last_layer]
    missing = dict.fromkeys(name for layer in layers for name in layer.without_images)
    if missing:
        sentences.append(
            f"A last layer that is fitted never predicts {some_listed(list(missing))}, which had no"
            " training images."
        )
    for network in results.networks:
        same = sum(run.best_epoch == 0 for run in network.runs)
        if network.started_from is None or network.is_frozen or not same:
            continue
        are = "this is" if same == 1 else "these are"
        sentences.append(
            f"Fine-tuning did not improve {same} of {counted(len(network.runs), 'run')} of"
            f" {network.name} on the validation images, so {are} its frozen network."
        )
    return sentences


def no_start_words(results: Results, here: Callable[[], Sequence[str]]) -> str | None:
    """Say what a comparison from scratch leaves out, and how to add it; None if it has a start.

    Args:
        results: Of the comparison.
        here: Returns the networks, by `NetworkName.base`, whose weights are on this machine.
    """
    if results.kind == "run" or results.ablation or any(n.name.start for n in results.networks):
        return None
    todo = "`towernet weights get mobilenet_v2`, then add mobilenet_v2/frozen to --models"
    networks = here()
    if any(network.name.base in networks for network in results.networks):
        todo = "add --starts scratch,frozen"
    elif networks:
        todo = f"add {networks[0]}/frozen, whose weights are on this machine, to --models"
    return (
        "On natural photographs a network that starts from pre-trained weights is usually far ahead"
        f" of all that are trained from scratch; to compare with one, {todo}."
    )

"""What to do where no network is better than guessing."""

from __future__ import annotations

from towernet.records.results import Network, Results
from towernet.words import listed, shown

LATE = 0.9
"""If the best epoch is after this share of a run, more epochs would probably improve it."""
MIN_EPOCHS = 10
"""Of a shorter run, nothing follows from which epoch was the best."""
_UNEVEN = 1.5
"""Times its even share that guessing must be right for the sizes of the classes to matter."""
_CHECK = "look for problems in the images with `towernet check`"


def advice(results: Results) -> str:
    """Say what probably went wrong and what to do: one to three sentences."""
    evaluated = [network for network in results.networks if network.confusion is not None]
    named = {network.name: name for network in evaluated if (name := only_class(network, results))}
    sentences = [
        f"{listed([n for n in named if named[n] == name])}"
        f" {'predicts' if list(named.values()).count(name) == 1 else 'predict'} only the class"
        f" {shown(name)}."
        for name in dict.fromkeys(named.values())
    ]
    is_uneven = results.majority_accuracy * len(results.class_names) > _UNEVEN
    if is_uneven and any(
        name == _commonest_class(evaluated[0], results) for name in named.values()
    ):
        todo = []
        if results.measure == "accuracy":
            todo.append("give --measure balanced")
        if not results.balances_classes:
            todo.append("set train.balanced_drawing = true in a recipe")
        if todo:
            sentences.append(f"The classes are uneven: {', and '.join(todo)}.")
    trained = [network for network in evaluated if not network.is_frozen]
    if not evaluated or any(improves(network) for network in trained):
        or_check = "" if named else f", or {_CHECK}"
        sentences.append(f"Train longer (give more --epochs or --minutes){or_check}.")
    else:
        sentences.append(
            f"More time would probably not help, since the best epochs were early: {_CHECK}."
        )
    return " ".join(sentences)


def only_class(network: Network, results: Results) -> str:
    """Return the class that a network predicts for every image, '' if it predicts others too."""
    columns = list(zip(*(network.confusion or ()), strict=True))
    predicted = [i for i, column in enumerate(columns) if any(column)]
    return results.class_names[predicted[0]] if len(predicted) == 1 else ""


def _commonest_class(evaluated: Network, results: Results) -> str:
    """Return the class with the most of the images that a network was evaluated on."""
    assert evaluated.confusion is not None, "it was evaluated"
    num_images = [sum(row) for row in evaluated.confusion]
    return results.class_names[num_images.index(max(num_images))]


def improves(network: Network) -> bool:
    """Whether more epochs would probably improve a network: it had few, or the best were late.

    Of epochs with the same accuracy the best has the lowest loss. So while a network only predicts
    one class, this says whether its loss still falls.
    """
    if network.status == "not_enough_time" or network.epochs < MIN_EPOCHS:
        return True
    best = [run.best_epoch for run in network.runs if run.best_epoch is not None]
    return 2 * sum(epoch >= LATE * network.epochs for epoch in best) >= len(best)

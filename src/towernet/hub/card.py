"""The model card of a network: what it is, on what data it was trained, how right it is.

What only a person can say, the licence above all, is left to fill in.
"""

from __future__ import annotations

import json

from huggingface_hub import EvalResult, ModelCardData

from towernet import __version__
from towernet.hub.evidence import Evidence, RunEvidence
from towernet.records.base import Interval
from towernet.records.contract import Contract
from towernet.words import percent, shown

_FILL_IN = "**[fill in before you publish]**"


def model_card(
    name: str,
    contract: Contract,
    known: Evidence | None,
    num_parameters: int,
    digest: str,
) -> str:
    """Return a card in Markdown, with the hub's metadata before it.

    Args:
        name: The network's.
        contract: What it was promised.
        known: From `evidence`; None where nothing is known of its training.
        num_parameters: Its trainable numbers.
        digest: The sha-256 of the file with its weights.
    """
    judged = None if known is None else known.judged
    return "\n".join(
        [
            "---",
            _metadata(name, judged),
            "---",
            "",
            f"# {name} for {len(contract.class_names)} classes",
            "",
            f"An image classifier with {num_parameters:,} parameters, for"
            f" {contract.size_px}-px images; made with towernet {__version__}.",
            "",
            "## How right it is",
            "",
            *_accuracy(judged),
            "",
            "## What it was trained on",
            "",
            *_data(known),
            "",
            "The classes, in the order of its answers:",
            "",
            "```json",
            json.dumps([shown(name) for name in contract.class_names], ensure_ascii=False),
            "```",
            "",
            f"Where the images are from, and who or what is in them: {_FILL_IN}",
            "",
            "## What it is not for",
            "",
            "It names one of its classes for any image, also for one that shows none of them. What"
            " it was not tested on, it was not shown to be right about.",
            "",
            "## How to use it",
            "",
            "```python",
            "from pathlib import Path",
            "",
            "from towernet.hub import HubNetwork  # pip install 'towernet[hub]'",
            "from towernet.predict import predict_files",
            "",
            'network = HubNetwork.from_pretrained("FOLDER")  # or a name on the hub, download=True',
            'answers = predict_files(network.predictor(), [Path("image.jpg")])',
            "print(network.contract.class_names[answers[0].argmax()], answers[0].max())",
            "```",
            "",
            "## Licence",
            "",
            "Of the weights, and what that of the images asks for; `license:` in this file's head"
            f" says it to the hub: {_FILL_IN}",
            "",
            f"Weights: sha-256 {digest}",
            "",
        ]
    )


def _metadata(name: str, judged: RunEvidence | None) -> str:
    results = None
    if judged is not None and judged.split == "test":
        results = [
            EvalResult(
                task_type="image-classification",
                dataset_type="imagefolder",
                dataset_name=judged.data,
                dataset_split="test",
                metric_type="accuracy",
                metric_value=round(judged.accuracy, 4),
            )
        ]
    data = ModelCardData(
        library_name="towernet",
        pipeline_tag="image-classification",
        tags=["towernet", "model_hub_mixin", "pytorch_model_hub_mixin"],
        model_name=str(name) if results else None,  # YAML would tag a string of another type
        eval_results=results,
    )
    return data.to_yaml().strip()


def _accuracy(judged: RunEvidence | None) -> list[str]:
    if judged is None:
        return [f"Nothing is known here of its accuracy: {_FILL_IN}"]
    num = judged.num_images.of(judged.split)
    said = [f"**{percent(judged.accuracy)} of {num:,} {judged.split} images** are right."]
    if judged.split != "test":
        said.append(
            "These images chose its epoch, so this is no test result: expect less of new images."
        )
    interval = judged.network_interval
    if judged.num_runs == 1 and interval is not None:
        said.append(f"95 % interval: {_interval(interval)}.")
    elif interval is not None and judged.network_accuracy is not None:
        said.append(
            f"Over {judged.num_runs} runs of this network with other seeds:"
            f" {percent(judged.network_accuracy)}, 95 % interval {_interval(interval)}."
        )
    said.append(
        f"Naming the commonest class alone is right for {percent(judged.majority_accuracy)};"
        f" macro-F1 is {judged.macro_f1:.3f}."
    )
    if judged.reason:
        said.append(f"The comparison did not rank it: it {judged.reason}.")
    return [" ".join(said)]


def _data(known: Evidence | None) -> list[str]:
    if known is None:
        return [f"Nothing is known here of its training: {_FILL_IN}"]
    versions = ", ".join(f"{name} {version}" for name, version in known.versions.items())
    if known.origin == "imported":
        return [f"Its weights were made elsewhere and read by towernet ({versions}): {_FILL_IN}"]
    how = f"from scratch, by the recipe `{known.recipe}`, seed {known.seed} ({versions})"
    judged = known.judged
    if judged is None:
        return [f"Trained {how}. On what images: {_FILL_IN}"]
    counts = ", ".join(f"{num:,} {split}" for split, num in judged.num_images)
    return [
        f"`{_plain(judged.data)}`: {counts} images. Trained {how}, {judged.epochs:.3g} passes"
        " over the training images."
    ]


def _plain(words: str) -> str:
    return shown(words).replace("`", "'")


def _interval(bounds: Interval) -> str:
    return f"{100 * bounds[0]:.1f} to {percent(bounds[1])}"

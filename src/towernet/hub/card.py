"""The model card of a network: its description, training data and accuracy.

Parts that only its author knows, above all the licence, are left to fill in.
"""

from __future__ import annotations

import json

from huggingface_hub import EvalResult, ModelCardData

from towernet import __version__
from towernet.hub.evidence import Evidence, RunEvidence
from towernet.records.base import Interval
from towernet.records.contract import Contract
from towernet.records.weights import StartWeights
from towernet.words import percent, shown

_FILL_IN = "**[fill in before you publish]**"


def model_card(
    name: str,
    contract: Contract,
    known: Evidence | None,
    num_parameters: int,
    digest: str,
) -> str:
    """Return a card in Markdown, preceded by the hub's metadata.

    Args:
        name: The network's name.
        contract: Its class contract.
        known: From `evidence`; None if nothing is known about its training.
        num_parameters: Number of its parameters.
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
            f" {contract.size_px}-px images, made with towernet {__version__}.",
            "",
            "## Accuracy",
            "",
            *_accuracy(judged),
            "",
            "## Training data",
            "",
            *_data(known),
            "",
            "The classes, in the order of its outputs:",
            "",
            "```json",
            json.dumps([shown(name) for name in contract.class_names], ensure_ascii=False),
            "```",
            "",
            f"Where the images come from, and who or what they show: {_FILL_IN}",
            "",
            "## Limits",
            "",
            "It predicts one of its classes for every image, also for one that shows none of them."
            " Its accuracy on other kinds of images is not known.",
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
            *_licence(None if known is None else known.started_from),
            "The licence of the weights, and what the licence of the images requires; the hub reads"
            f" `license:` in the header of this file: {_FILL_IN}",
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
        return [f"Its accuracy is not known: {_FILL_IN}"]
    num = judged.num_images.of(judged.split)
    sentences = [f"**{percent(judged.accuracy)} of {num:,} {judged.split} images** are right."]
    if judged.split != "test":
        sentences.append(
            "Its epoch was chosen on these images, so this is no test result: expect less on new"
            " images."
        )
    interval = judged.network_interval
    if judged.num_runs == 1 and interval is not None:
        sentences.append(f"95 % interval: {_interval(interval)}.")
    elif interval is not None and judged.network_accuracy is not None:
        sentences.append(
            f"Over {judged.num_runs} runs of this network with other seeds:"
            f" {percent(judged.network_accuracy)}, 95 % interval {_interval(interval)}."
        )
    sentences.append(
        "Always predicting the most frequent class is right for"
        f" {percent(judged.majority_accuracy)}."
    )
    if judged.balanced_accuracy is not None:
        sentences.append(
            f"Balanced accuracy (the mean over the classes) is {percent(judged.balanced_accuracy)}."
        )
    sentences.append(f"Macro-F1 is {judged.macro_f1:.3f}.")
    if judged.reason:
        sentences.append(f"The comparison did not rank it: it {judged.reason}.")
    return [" ".join(sentences)]


def _data(known: Evidence | None) -> list[str]:
    if known is None:
        return [f"Its training is not known: {_FILL_IN}"]
    versions = ", ".join(f"{name} {version}" for name, version in known.versions.items())
    if known.origin == "imported":
        return [f"Trained elsewhere and imported with towernet ({versions}): {_FILL_IN}"]
    how = f"with the recipe `{known.recipe}`, seed {known.seed} ({versions})"
    verb = {
        None: "Trained from scratch",
        "frozen": "A last layer was fitted on the features of pre-trained weights",
        "finetuned": "Fine-tuned from pre-trained weights",
    }[known.start]
    judged, before = known.judged, _before(known.started_from)
    if judged is None:
        return [f"{verb}, {how}. On what images: {_FILL_IN}", *before]
    counts = ", ".join(f"{num:,} {split}" for split, num in judged.num_images)
    passes = f", {judged.epochs:.3g} passes over the training images"
    return [
        f"`{_plain(judged.data)}`: {counts} images. {verb}, {how}"
        f"{'' if known.start == 'frozen' else passes}.",
        *before,
    ]


def _before(weights: StartWeights | None) -> list[str]:
    """Say which images it had learned from before, in a paragraph of its own."""
    if weights is None:
        return []
    num = "" if weights.num_images is None else f", {weights.num_images:,} images"
    return [
        "",
        f"It started from `{_plain(weights.name)}` ({_plain(weights.source)}; sha-256"
        f" {weights.sha256}), trained on: {_plain(weights.data)}{num}. These may include the"
        " images it was tested on, or images like them.",
    ]


def _licence(weights: StartWeights | None) -> list[str]:
    """Say what it inherits from the weights it started from."""
    if weights is None:
        return []
    return [
        "It inherits from the pre-trained weights it started from: their licence"
        f" ({_plain(weights.licence)}), and the terms of the images they were trained on"
        f" ({_plain(weights.terms)}).",
        "",
    ]


def _plain(words: str) -> str:
    return shown(words).replace("`", "'")


def _interval(bounds: Interval) -> str:
    return f"{100 * bounds[0]:.1f} to {percent(bounds[1])}"

"""Results with a default for every field: a test gives only the fields it is about."""

from __future__ import annotations

from typing import Any, TypeVar

from towernet.names import NetworkName
from towernet.records.base import Record
from towernet.records.judgement import Pair
from towernet.records.protocol import variants
from towernet.records.results import (
    AllMeasured,
    Conclusion,
    Made,
    Measured,
    Network,
    NumImages,
    Results,
    Variant,
)
from towernet.records.run import Hardware
from towernet.records.scores import ClassScores, RunScores
from towernet.records.weights import StartWeights

R = TypeVar("R", bound=Record)


def changed(record: R, **fields: Any) -> R:
    """Return a copy of the record with these values, validated like a new record."""
    return type(record)(**(dict(record) | fields))


def a_run(**fields: Any) -> RunScores:
    """Return a run of a network."""
    return RunScores(
        **{
            "folder": "runs/x-0",
            "accuracy": 0.9,
            "macro_f1": 0.89,
            "validation_accuracy": 0.91,
            "validation_loss": 0.5,
            "best_epoch": 11.0,
            "temperature": 1.2,
            "calibration_error": 0.02,
            "balanced_accuracy": 0.85,
        }
        | fields
    )


def a_class(class_name: str, **fields: Any) -> ClassScores:
    """Return the scores of one class."""
    return ClassScores(
        **{
            "class_name": class_name,
            "num_images": 100,
            "precision": 0.9,
            "precision_interval": (0.85, 0.95),
            "recall": 0.88,
            "recall_interval": (0.8, 0.93),
            "f1": 0.89,
            "f1_interval": (0.84, 0.92),
        }
        | fields
    )


def a_network(name: str, **fields: Any) -> Network:
    """Return a network that is ranked."""
    return Network(
        **{
            "name": name,
            "status": "ranked",
            "reason": "",
            "rank": 1,
            "accuracy": 0.9,
            "interval": (0.87, 0.93),
            "balanced_accuracy": 0.85,
            "balanced_interval": (0.79, 0.9),
            "macro_f1": 0.89,
            "validation_accuracy": 0.91,
            "confusion": ((90, 10), (10, 90)),
            "per_class": (a_class("cat"), a_class("dog")),
            "calibration": None,
            "parameters": 1,
            "multiply_adds": 1000,
            "learning_rate": 0.05,
            "trials": (),
            "rate_by_trials": None,
            "fell_apart": (),
            "epochs": 12.0,
            "steps": 120,
            "mixed": False,
            "first_map_px": 64,
            "last_map_px": 4,
            "first_size_px": 128,
            "runs": (a_run(folder=f"runs/{NetworkName(name).folder_name}-0"),),
        }
        | fields
    )


def a_failed_network(name: str, **fields: Any) -> Network:
    """Return a network that failed."""
    unknown = ("rank", "accuracy", "interval", "macro_f1", "validation_accuracy", "confusion")
    unknown += ("balanced_accuracy", "balanced_interval")
    nothing = dict.fromkeys((*unknown, "per_class", "calibration"))
    failure = {"status": "failed", "reason": "out of memory", "runs": ()}
    return a_network(name, **nothing | failure | fields)


def a_pair(first: str, second: str, **fields: Any) -> Pair:
    """Return a pair of networks; the first one is better."""
    return Pair(
        **{
            "first": first,
            "second": second,
            "difference": 0.02,
            "interval": (0.01, 0.03),
            "p": 0.0078125,
            "p_adjusted": 0.0078125,
            "chance_better": 1.0,
            "chance_interval": (0.63, 1.0),
            "answer": "better",
            "to_show": None,
            "runs_needed": None,
            "images_needed": None,
        }
        | fields
    )


def some_weights(network: str = "mobilenet_v2", **fields: Any) -> StartWeights:
    """Return pre-trained weights of a network."""
    return StartWeights(
        **{
            "network": network,
            "sha256": "b0353104" * 8,
            "name": "torchvision IMAGENET1K_V1",
            "source": "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth",
            "licence": "BSD-3-Clause",
            "data": "ImageNet-1k",
            "num_images": 1_281_167,
            "terms": "non-commercial research and education",
            "input": {
                "size_px": 224,
                "resize": "crop",
                "crop_share": 0.875,
                "mean": (0.485, 0.456, 0.406),
                "std": (0.229, 0.224, 0.225),
            },
        }
        | fields
    )


def a_started_network(name: str, **fields: Any) -> Network:
    """Return a network that started from pre-trained weights, or another one next to such a one."""
    own = NetworkName(name)
    known: dict[str, Any] = {"size_px": 224 if own.start else 128}
    if own.start:
        known["started_from"] = some_weights(own.base)
    if own.start == "frozen":
        known |= {"epochs": 0.0, "steps": 0, "learning_rate": 0.0}
    return a_network(name, **known | fields)


def some_variants(names: list[str], attention: list[str], **fields: Any) -> tuple[Variant, ...]:
    """Return the variants of these networks with these blocks."""
    known = {"parameters": 8, "paper": "", "proof": None} | fields
    return tuple(
        Variant(**dict(variant) | known)
        for variant in variants([NetworkName(name) for name in names], attention)
    )


def some_results(**fields: Any) -> Results:
    """Return the results of comparing two networks with eight runs, on 400 test images."""
    return Results(
        **{
            "num_runs": 8,
            "equal_within": 0.005,
            "networks": (a_network("resnet18"), a_network("resnet50", rank=2, accuracy=0.88)),
            "comparisons": (a_pair("resnet18", "resnet50"),),
            "sentence": "",
            "remarks": (),
            "title": "photos",
            "kind": "comparison",
            "final_split": "test",
            "class_names": ("cat", "dog"),
            "num_images": NumImages(train=1200, validation=400, test=400),
            "majority_accuracy": 0.5,
            "size_px": 128,
            "recipe": "default",
            "minutes": None,
            "seed": 0,
            "resampled": False,
            "redrawn": False,
            "protocol": "0123456789abcdef" * 4,
            "winner": None,
            "num_suspects": 0,
            "suspects": (),
            "accepted": (),
        }
        | fields
    )


def some_times(**fields: Any) -> Measured:
    """Return the measured times of a network."""
    return Measured(
        **{
            "training_seconds": 95.2,
            "trial_seconds": 11.9,
            "images_per_second": 1234.5,
            "latency_ms": 0.21,
            "peak_memory_mib": 180.0,
        }
        | fields
    )


def some_origin(**fields: Any) -> Made:
    """Return how, where and when results were made."""
    return Made(
        **{
            "command": "towernet compare photos",
            "source": "a folder of images",
            "versions": {"towernet": "0.1.0", "torch": "2.15.0"},
            "hardware": Hardware(
                processor="a processor",
                cores=2,
                memory_gib=15.62,
                device="cpu",
                dtype="bfloat16",
                channels_last=True,
                threads=2,
                kernels="torch",
            ),
            "date": "2026-01-02T03:04:05+00:00",
        }
        | fields
    )


def a_conclusion(results: Results | None = None) -> Conclusion:
    """Return the content of `results.json` for some results."""
    results = results or some_results()
    times = {network.name: some_times() for network in results.networks}
    return Conclusion(
        results=results,
        measured=AllMeasured(networks=times, total_seconds=321.0),
        made=some_origin(),
    )

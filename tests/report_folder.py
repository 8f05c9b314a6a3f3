"""Folders as a comparison or a run writes them, with real figures of small real classifiers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import confusion_matrix, f1_score, log_loss
from sklearn.neural_network import MLPClassifier

from made_results import some_weights
from towernet import files
from towernet.comparison.judging.calibration import calibrated
from towernet.comparison.judging.pairs import pair_of
from towernet.comparison.judging.scores import accuracy_interval, balanced_interval, per_class
from towernet.comparison.judging.statistics import judge
from towernet.comparison.wording.remarks import remarks
from towernet.comparison.wording.verdict import verdict
from towernet.data.balance import balanced_accuracy
from towernet.data.table import make_table, write_frame, write_table
from towernet.names import NetworkName
from towernet.records.base import read_record
from towernet.records.judgement import Pair
from towernet.records.results import (
    AllMeasured,
    Conclusion,
    Made,
    Measured,
    Network,
    NumImages,
    Results,
    Suspect,
    Winner,
)
from towernet.records.run import EpochMetrics, Hardware
from towernet.records.scores import Calibration, RunScores, TrialScores

PLAIN_NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
HOSTILE_NAMES = [
    "<script>alert(1)</script>",
    '"onerror="alert(1)" x="',
    "</title><img src=//evil.example/x>",
    "{{7*7}}{% raw %}",
    "a\u202egnp.exe",
    "line\nbreak\x1b[31m\x00",
    "caf\udce9",
    "é" * 127,
    "</style><base href=//evil.example>",
    "javascript:alert(1)",
]
Answers = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]  # the true classes, and those named
NETWORKS: dict[str, tuple[int, Callable[[int], Any]]] = {
    "mlp-64": (40, lambda seed: MLPClassifier((64,), batch_size=32, random_state=seed)),
    "mlp-8": (18, lambda seed: MLPClassifier((8,), batch_size=32, random_state=seed)),
    "linear": (3, lambda seed: SGDClassifier(loss="log_loss", alpha=0.1, random_state=seed)),
}


class Digits:
    """600 real digits as a sample table, and as what a decoder would give."""

    def __init__(self, class_names: list[str]) -> None:
        digits = load_digits()
        self.x, self.y = digits.data[:600] / 16, digits.target[:600]
        self.class_names = class_names
        self.names = [class_names[label] for label in self.y]
        self.paths = [f"{name}/{i:04d}.png" for i, name in enumerate(self.names)]
        self.splits = np.array([("test", "validation", "train")[min(i % 5, 2)] for i in range(600)])
        gray = (255 - 255 * self.x.reshape(-1, 8, 8)).astype(np.uint8)
        self.pictures = {
            path: np.repeat(np.kron(image, np.ones((8, 8), np.uint8))[..., None], 3, axis=2)
            for path, image in zip(self.paths, gray, strict=True)
        }

    def table(self) -> pd.DataFrame:
        """The table: the digits, and one file of each kind that is left out."""
        left_out = [
            ("zero/broken.jpg", "quarantined", "TRUNCATED", "the file ends after 4,096 bytes"),
            (
                "<i>&amp;/\u202e.png",
                "quarantined",
                "LABEL_CONFLICT",
                "the same bytes as one/0001.png",
            ),
            ("zero/copy.png", "ignored", "DUPLICATE", "the same bytes as zero/0000.png"),
            ("zero/.DS_Store", "ignored", "HIDDEN", "a hidden file"),
        ]
        used, more = len(self.paths), len(left_out)
        return make_table(
            {
                "path": self.paths + [row[0] for row in left_out],
                "class_name": self.names + [self.class_names[0]] * more,
                "content_id": [f"{i:064x}" for i in range(used + more)],
                "width": [8] * (used + more),
                "height": [8] * (used + more),
                "mode": ["L"] * (used + more),
                "format": ["PNG"] * (used + more),
                "cluster": ["a", "a"] + [""] * (used + more - 2),
                "split": list(self.splits) + [""] * more,
                "status": ["used"] * used + [row[1] for row in left_out],
                "reason": [""] * used + [row[2] for row in left_out],
                "detail": [""] * used + [row[3] for row in left_out],
                "notes": ["ALPHA"] * 7 + [""] * (used + more - 7),
            }
        )


def train(
    digits: Digits, folder: Path, run_folder: str, name: str, repetition: int
) -> tuple[Answers, RunScores, Calibration]:
    """Train one real classifier, write its run's files; return its answers and what they are worth.

    Args:
        digits: The images.
        folder: The comparison's.
        run_folder: The run's, in it.
        name: Of the network.
        repetition: Seeds it.
    """
    num_epochs, make = NETWORKS[name]
    model, rng = make(repetition), np.random.default_rng(repetition)
    part = {split: digits.splits == split for split in ("train", "validation", "test")}
    epochs = []
    for epoch in range(1, num_epochs + 1):
        order = rng.permutation(np.flatnonzero(part["train"]))
        model.partial_fit(digits.x[order], digits.y[order], classes=np.arange(10))
        found = {}
        for split in ("train", "validation"):
            probabilities = model.predict_proba(digits.x[part[split]])
            truth = digits.y[part[split]]
            found[f"{split}_loss"] = float(log_loss(truth, probabilities, labels=np.arange(10)))
            found[f"{split}_accuracy"] = float((probabilities.argmax(1) == truth).mean())
        epochs.append(EpochMetrics(epoch=epoch, step=12 * epoch, learning_rate=0.001, **found))
    files.write_jsonl(
        folder / run_folder / "metrics.jsonl", [epoch.model_dump() for epoch in epochs]
    )
    probabilities = model.predict_proba(digits.x[part["test"]])
    said, truth = probabilities.argmax(1), digits.y[part["test"]]
    frame = {
        "path": np.array(digits.paths, dtype=object)[part["test"]],
        "class_name": np.array([digits.class_names[i] for i in truth], dtype=object),
        "predicted": np.array([digits.class_names[i] for i in said], dtype=object),
        "confidence": probabilities.max(1),
        "probability_of_true": probabilities[np.arange(len(truth)), truth],
    }
    write_frame(
        folder / run_folder / "predictions.parquet",
        pd.DataFrame({key: pd.Series(v, dtype=v.dtype) for key, v in frame.items()}),
    )
    best = max(epochs, key=lambda epoch: epoch.validation_accuracy)
    logits = {split: np.log(model.predict_proba(digits.x[part[split]]) + 1e-9) for split in part}
    calibration = calibrated(
        (logits["validation"], digits.y[part["validation"]]), (logits["test"], truth)
    )
    scores = RunScores(
        folder=run_folder,
        accuracy=float((said == truth).mean()),
        macro_f1=float(f1_score(truth, said, average="macro", zero_division=0)),
        validation_accuracy=best.validation_accuracy,
        validation_loss=best.validation_loss,
        best_epoch=best.epoch,
        temperature=calibration.temperature,
        calibration_error=calibration.calibration_error,
        balanced_accuracy=balanced_accuracy(said == truth, truth),
    )
    return (truth, said), scores, calibration


def network(
    digits: Digits, folder: Path, name: str, num_runs: int, kind: str
) -> tuple[Network, np.ndarray[Any, Any]]:
    """Train a network's runs; return its entry in the results, and what each got right."""
    trained = [
        train(digits, folder, "." if kind == "run" else f"runs/{name}-{k}", name, k)
        for k in range(num_runs)
    ]
    answers, runs = [answer for answer, _, _ in trained], [scores for _, scores, _ in trained]
    right = np.array([said == truth for truth, said in answers])
    truth, said = (np.concatenate(values) for values in zip(*answers, strict=True))
    clusters = np.arange(right.shape[1])
    rows = per_class(answers[0][0], said.reshape(num_runs, -1), clusters, tuple(digits.class_names))
    entry = Network(
        name=name,
        status="ranked",
        reason="",
        rank=0,
        accuracy=float(np.mean([run.accuracy for run in runs])),
        interval=accuracy_interval(right, clusters),
        balanced_accuracy=float(np.mean([run.balanced_accuracy for run in runs])),
        balanced_interval=balanced_interval(right, clusters, answers[0][0]),
        macro_f1=float(np.mean([run.macro_f1 for run in runs])),
        validation_accuracy=float(np.mean([run.validation_accuracy for run in runs])),
        parameters=4810,
        multiply_adds=4736,
        learning_rate=0.001,
        trials=(
            TrialScores(learning_rate=0.0003, validation_loss=0.91, validation_accuracy=0.7),
            TrialScores(learning_rate=0.001, validation_loss=0.52, validation_accuracy=0.81),
            TrialScores(learning_rate=0.003, validation_loss=None, validation_accuracy=0.1),
        ),
        rate_by_trials=True,
        fell_apart=(),
        epochs=NETWORKS[name][0],
        steps=12 * NETWORKS[name][0],
        mixed=False,
        first_map_px=None,
        last_map_px=None,
        first_size_px=8,
        confusion=confusion_matrix(truth, said, labels=np.arange(10)).tolist(),
        per_class=rows,
        runs=runs,
        calibration=None if kind == "run" else trained[-1][2],
    )
    return entry, right


def pairs(found: list[tuple[Network, np.ndarray[Any, Any]]]) -> list[Pair]:
    """Judge all pairs of networks."""
    right = np.array([right for _, right in found])
    family = judge(right, np.arange(right.shape[2]))
    names = [entry.name for entry, _ in found]
    return [pair_of(family, difference, names, 0.005) for difference in family.differences]


def failed(like: Network) -> Network:
    """Return a network that could not be trained."""
    nothing = dict.fromkeys(
        (
            "rank",
            "accuracy",
            "interval",
            "balanced_accuracy",
            "balanced_interval",
            "macro_f1",
            "validation_accuracy",
            "confusion",
            "per_class",
            "calibration",
            "rate_by_trials",
        )
    )
    return like.model_copy(
        update=nothing
        | {"name": NetworkName("huge"), "status": "failed", "trials": (), "runs": ()}
        | {"reason": "step 3: the loss is not finite", "epochs": 0.1, "steps": 3}
    )


STARTS = {
    "mlp-64": "mobilenet_v2/frozen",
    "mlp-8": "mobilenet_v2/finetuned",
    "linear": "mobilenet_v2",
}


def with_starts(folder: Path, against: str | None = None) -> Path:
    """Make a comparison's networks one network from scratch, frozen and fine-tuned; its own words.

    Args:
        folder: From `build`; only its `results.json` is changed.
        against: The network that the others are compared with; None: all pairs are judged.
    """
    conclusion = read_record(folder / "results.json", Conclusion)
    results, measured = conclusion.results, conclusion.measured
    networks = tuple(_started(network) for network in results.networks)
    pairs = [
        pair.model_copy(update={"first": STARTS[pair.first], "second": STARTS[pair.second]})
        for pair in results.comparisons
    ]
    if against is not None:
        pairs = [
            pair if pair.second == against else pair.turned()
            for pair in pairs
            if against in (pair.first, pair.second)
        ]
    winner = Winner(name=networks[0].name, folder=networks[0].runs[0].folder)
    update = {"networks": networks, "comparisons": tuple(pairs), "winner": winner}
    changed = results.model_copy(update=update | {"against": against, "size_px": 128})
    words = {"sentence": verdict(changed), "remarks": tuple(remarks(changed))}
    times = {}
    for network in networks:
        before = next(name for name in measured.networks if STARTS.get(name, name) == network.name)
        prepared = {"preparing_seconds": 35.2} if network.started_from else {}
        timed = {"decode_ms": 2.3 if network.started_from else 1.9, **prepared}
        times[network.name] = measured.networks[before].model_copy(update=timed)
    files.write_json(
        folder / "results.json",
        Conclusion(
            results=Results(**dict(changed.model_copy(update=words))),
            measured=AllMeasured(networks=times, total_seconds=321.0),
            made=conclusion.made,
        ).model_dump(),
    )
    return folder


def _started(network: Network) -> Network:
    name = NetworkName(STARTS.get(network.name, network.name))
    update: dict[str, Any] = {"name": name, "size_px": 224 if name.start else 128}
    update["first_size_px"] = update["size_px"]
    if name.start:
        update["started_from"] = some_weights()
    if name.start == "frozen":
        update |= {"epochs": 0.0, "steps": 0, "learning_rate": 0.0, "trials": ()}
    return network.model_copy(update=update)


def build(
    folder: Path,
    digits: Digits,
    *,
    num_runs: int = 1,
    kind: str = "comparison",
    split: str = "test",
) -> Path:
    """Write a comparison's folder, or a single run's, as the program writes it."""
    write_table(folder / "samples.parquet", digits.table())
    names = list(NETWORKS) if kind == "comparison" else ["mlp-64"]
    found = [network(digits, folder, name, num_runs, kind) for name in names]
    found.sort(key=lambda pair: -pair[0].accuracy)
    networks = [entry.model_copy(update={"rank": i + 1}) for i, (entry, _) in enumerate(found)]
    best = networks[0]
    measured = {
        name: Measured(training_seconds=95.2, trial_seconds=11.9, latency_ms=0.21,
                       images_per_second=1234.5, peak_memory_mib=180)
        for name in names
    }  # fmt: skip
    if kind == "comparison":
        networks.append(failed(like=best))
        measured["huge"] = Measured(training_seconds=0.0, trial_seconds=0.0, latency_ms=None,
                                    images_per_second=None, peak_memory_mib=None)  # fmt: skip
    results = Results(
        title="digits",
        kind=kind,
        final_split=split,
        sentence=f"{best.name} is best: {best.accuracy:.1%} of the images.",
        remarks=("These runs show no difference between the first two.",),
        class_names=digits.class_names,
        num_images=NumImages(train=360, validation=120, test=120 * (split == "test")),
        majority_accuracy=0.108,
        size_px=8,
        recipe="default",
        minutes=None,
        seed=0,
        num_runs=num_runs,
        resampled=False,
        redrawn=num_runs > 1,
        networks=networks,
        equal_within=0.005,
        protocol="0123456789abcdef" * 4,
        comparisons=pairs(found),
        num_suspects=207,
        suspects=[
            Suspect(path=path, class_name=digits.class_names[0],
                    looks_like=digits.class_names[k % 10], confidence_in_label=0.01 * k,
                    confidence=0.9, num_runs=1 + k % 2)
            for k, path in enumerate(digits.paths[:30])
        ],
        accepted=(),
        winner=Winner(name=best.name, folder=best.runs[0].folder),
    )  # fmt: skip
    made = Made(
        command="towernet compare digits --models mlp-64,mlp-8,linear --epochs 40",
        source="600 handwritten digits of ten classes",
        versions={"towernet": "0.1.0", "torch": "2.15.0"},
        hardware=Hardware(processor="a processor", cores=2, memory_gib=15.62, device="cpu",
                          dtype="bfloat16", channels_last=True, threads=2, kernels="torch"),
        date="2026-01-02T03:04:05+00:00",
    )  # fmt: skip
    conclusion = Conclusion(
        results=results,
        measured=AllMeasured(networks=measured, total_seconds=321.0),
        made=made,
    )
    files.write_json(folder / "results.json", conclusion.model_dump())
    return folder

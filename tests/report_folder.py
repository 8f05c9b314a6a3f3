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

from towernet import files
from towernet.comparison.judging.calibration import calibrated
from towernet.comparison.judging.scores import accuracy_interval, per_class
from towernet.comparison.judging.statistics import judge
from towernet.comparison.wording.verdict import pair_row
from towernet.data.table import make_table, write_frame, write_table

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


def train(digits: Digits, folder: Path, name: str, repetition: int) -> tuple[Any, dict[str, Any]]:
    """Train one real classifier, write its run's files; return its answers and its results' row."""
    num_epochs, make = NETWORKS[name]
    model, rng = make(repetition), np.random.default_rng(repetition)
    part = {split: digits.splits == split for split in ("train", "validation", "test")}
    rows = []
    for epoch in range(1, num_epochs + 1):
        order = rng.permutation(np.flatnonzero(part["train"]))
        model.partial_fit(digits.x[order], digits.y[order], classes=np.arange(10))
        row: dict[str, Any] = {"epoch": epoch, "step": 12 * epoch, "learning_rate": 0.001}
        for split in ("train", "validation"):
            probabilities = model.predict_proba(digits.x[part[split]])
            truth = digits.y[part[split]]
            row[f"{split}_loss"] = float(log_loss(truth, probabilities, labels=np.arange(10)))
            row[f"{split}_accuracy"] = float((probabilities.argmax(1) == truth).mean())
        rows.append(row)
    files.write_jsonl(folder / "metrics.jsonl", rows)
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
        folder / "predictions.parquet",
        pd.DataFrame({key: pd.Series(v, dtype=v.dtype) for key, v in frame.items()}),
    )
    best = max(rows, key=lambda row: row["validation_accuracy"])
    logits = {split: np.log(model.predict_proba(digits.x[part[split]]) + 1e-9) for split in part}
    return (truth, said), {
        "calibration": calibrated(
            (logits["validation"], digits.y[part["validation"]]), (logits["test"], truth)
        ).model_dump(),
        "accuracy": float((said == truth).mean()),
        "macro_f1": float(f1_score(truth, said, average="macro", zero_division=0)),
        "validation_accuracy": best["validation_accuracy"],
        "best_epoch": best["epoch"],
    }


def network(
    digits: Digits, folder: Path, name: str, num_runs: int, kind: str
) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
    """Train a network's runs; return its entry in the results, and what each got right."""
    answers, runs = [], []
    for k in range(num_runs):
        run_folder = "." if kind == "run" else f"runs/{name}-{k}"
        answer, row = train(digits, folder / run_folder, name, k)
        answers.append(answer)
        calibration = row.pop("calibration")
        runs.append({"folder": run_folder} | row)
    right = np.array([said == truth for truth, said in answers])
    truth, said = (np.concatenate(values) for values in zip(*answers, strict=True))
    clusters = np.arange(right.shape[1])
    rows = per_class(answers[0][0], said.reshape(num_runs, -1), clusters, tuple(digits.class_names))
    rows = [row.model_dump() for row in rows]
    entry = {
        "name": name, "status": "ranked", "reason": "", "rank": 0,
        "accuracy": float(np.mean([run["accuracy"] for run in runs])),
        "interval": list(accuracy_interval(right, clusters)),
        "macro_f1": float(np.mean([run["macro_f1"] for run in runs])),
        "validation_accuracy": float(np.mean([run["validation_accuracy"] for run in runs])),
        "parameters": 4810, "multiply_adds": 4736, "learning_rate": 0.001,
        "trials": [
            {"learning_rate": 0.0003, "validation_loss": 0.91, "validation_accuracy": 0.7},
            {"learning_rate": 0.001, "validation_loss": 0.52, "validation_accuracy": 0.81},
            {"learning_rate": 0.003, "validation_loss": None, "validation_accuracy": 0.1},
        ],
        "epochs": NETWORKS[name][0], "steps": 12 * NETWORKS[name][0],
        "confusion": confusion_matrix(truth, said, labels=np.arange(10)).tolist(),
        "per_class": rows,
        "runs": runs, "calibration": None if kind == "run" else calibration,
    }  # fmt: skip
    return entry, right


def pairs(found: list[tuple[dict[str, Any], np.ndarray[Any, Any]]]) -> list[dict[str, Any]]:
    """Judge all pairs of networks."""
    right = np.array([right for _, right in found])
    family = judge(right, np.arange(right.shape[2]))
    names = [entry["name"] for entry, _ in found]
    return [pair_row(family, difference, names, 0.005) for difference in family.differences]


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
    found.sort(key=lambda pair: -pair[0]["accuracy"])
    networks = [entry for entry, _ in found]
    for rank, entry in enumerate(networks):
        entry["rank"] = rank + 1
    if kind == "comparison":
        nothing = dict.fromkeys(
            [
                "rank",
                "accuracy",
                "interval",
                "macro_f1",
                "validation_accuracy",
                "confusion",
                "per_class",
                "calibration",
            ]
        )
        networks.append(
            networks[0] | nothing
            | {"name": "huge", "status": "failed", "reason": "step 3: the loss is not finite",
               "trials": [], "runs": [], "epochs": 0.1, "steps": 3}
        )  # fmt: skip
    best = networks[0]
    files.write_json(
        folder / "results.json",
        {
            "results": {
                "title": "digits", "kind": kind, "final_split": split,
                "sentence": f"{best['name']} is best: {best['accuracy']:.1%} of the images.",
                "remarks": ["These runs show no difference between the first two."],
                "class_names": digits.class_names,
                "num_images": {"train": 360, "validation": 120, "test": 120 * (split == "test")},
                "majority_accuracy": 0.108, "size_px": 8, "recipe": "default", "seed": 0,
                "num_runs": num_runs, "networks": networks, "equal_within": 0.005,
                "protocol": "0123456789abcdef" * 4, "comparisons": pairs(found),
                "num_suspects": 207,
                "suspects": [
                    {"path": path, "class_name": digits.class_names[0],
                     "looks_like": digits.class_names[k % 10], "confidence_in_label": 0.01 * k,
                     "confidence": 0.9, "num_runs": 1 + k % 2}
                    for k, path in enumerate(digits.paths[:30])
                ],
                "winner": {"name": best["name"], "folder": best["runs"][0]["folder"]},
            },
            "measured": {
                "networks": {
                    name: {"training_seconds": 95.2, "trial_seconds": 11.9, "latency_ms": 0.21,
                           "images_per_second": 1234.5, "peak_memory_mib": 180}
                    for name in names
                },
                "total_seconds": 321.0,
            },
            "made": {
                "command": "towernet compare digits --models mlp-64,mlp-8,linear --epochs 40",
                "versions": {"towernet": "0.1.0", "torch": "2.15.0"},
                "hardware": {"processor": "a processor", "cores": 2, "memory_gib": 15.62,
                             "device": "cpu", "dtype": "bfloat16", "threads": 2},
                "date": "2026-01-02T03:04:05+00:00",
            },
        },
    )  # fmt: skip
    return folder

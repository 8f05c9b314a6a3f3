"""What a comparison found: the final split opened once, a ranking, and the answer in words.

`results` is exact: the same runs give the same bytes. What was measured with a clock is apart.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.special

from towernet import files
from towernet.attention.base import paper
from towernet.attention.find import attention_block
from towernet.comparison.csv_files import write_csv_files
from towernet.comparison.evaluation import predictions, said_of
from towernet.comparison.judging.calibration import calibrated
from towernet.comparison.judging.labels import OutOfSample, suspect_labels, write_suspects
from towernet.comparison.judging.learning_curve import LAST_DOUBLING, FewerImages, learning_curve
from towernet.comparison.judging.scores import (
    Labels,
    accuracy_interval,
    confusion_matrix,
    macro_f1,
    majority_accuracy,
    per_class,
    resampled_interval,
)
from towernet.comparison.judging.statistics import judge, judge_resampled
from towernet.comparison.protocol import Ledger, Protocol, written_digest
from towernet.comparison.wording import ablation
from towernet.comparison.wording.paper import latex
from towernet.comparison.wording.verdict import pair_row, remarks, verdict
from towernet.data.prepare import Dataset
from towernet.data.table import write_frame
from towernet.engine.batches import steps_per_epoch
from towernet.engine.device import fp32, hardware, versions
from towernet.engine.evaluate import predict_logits
from towernet.engine.runlog import Watcher
from towernet.engine.schedule import small_size_px
from towernet.models.catalogue import outline
from towernet.models.summary import layers, map_sides
from towernet.names import NetworkName
from towernet.predict import CALIBRATION_FILE, Predictor, load_run
from towernet.records.scores import Calibration, KeptCalibration

NUM_LATENCY_RUNS = 15
MAX_SUSPECTS = 200  # in the results; suspects.csv has them all


@dataclass
class Outcome:
    """What became of one network: its chosen learning rate, its runs, or why there are none.

    `rate_by_trials`: whether its trials chose it, None without trials. `fell_apart` holds the rates
    under which its first run did, with how it ended.
    """

    name: str
    learning_rate: float
    trials: list[dict[str, Any]] = field(default_factory=list)
    rate_by_trials: bool | None = None
    fell_apart: list[dict[str, Any]] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    failure: str | None = None

    @property
    def finished_trials(self) -> list[dict[str, Any]]:
        """The trials that came to an end, lowest rate first."""
        return [trial for trial in self.trials if trial["validation_loss"] is not None]

    @property
    def trials_left(self) -> list[dict[str, Any]]:
        """The trials whose rates a whole run may bear: none that one did not, and none as high as
        one under which it diverged.
        """
        fallen = {event["learning_rate"] for event in self.fell_apart}
        below = min(
            (e["learning_rate"] for e in self.fell_apart if e["diverged"]), default=math.inf
        )
        return [
            trial
            for trial in self.finished_trials
            if trial["learning_rate"] not in fallen and trial["learning_rate"] < below
        ]


@dataclass(frozen=True)
class Answers:
    """What one run answered for the final split.

    Args:
        folder: The run.
        dataset: Its images.
        logits_NK: One row an image.
        latency_ms: Milliseconds for one image alone, median.
        validation_logits_NK: What it answered for its own validation images.
        calibration: What its confidence is worth, None where no split is left to tell it on.
    """

    folder: Path
    dataset: Dataset
    logits_NK: npt.NDArray[np.float32]
    latency_ms: float
    validation_logits_NK: npt.NDArray[np.float32]
    calibration: Calibration | None

    @property
    def predicted_N(self) -> npt.NDArray[np.int64]:
        """The class it named for each image."""
        named: npt.NDArray[np.int64] = self.logits_NK.argmax(axis=1)
        return named

    @property
    def right_N(self) -> npt.NDArray[np.bool_]:
        """Which images it named correctly."""
        is_right: npt.NDArray[np.bool_] = self.predicted_N == self.dataset.final.labels
        return is_right


def finish(
    outcomes: list[Outcome],
    folder: Path,
    protocol: Protocol,
    dataset_of: Callable[[int], Dataset],
    *,
    fewer: FewerImages | None = None,
    kind: str,
    title: str,
    origin: dict[str, Any],
    watcher: Watcher,
) -> dict[str, Any]:
    """Open the final split, once, write `results.json` and what is made of it; return the former.

    Args:
        outcomes: The networks, trained.
        folder: The comparison's, or the run's.
        protocol: What was frozen before the first step.
        dataset_of: The images of each repetition.
        fewer: Runs with fewer images, where they were asked for.
        kind: "comparison" or "run".
        title: What the data is called.
        origin: For the record: the command and what the source was read as.
        watcher: Who is told how it goes.
    """
    path = folder / "results.json"
    if path.exists():
        finished = files.read_record(path, "results", "measured")
        watcher.say(f"{folder} is finished; its results are as they were")
        return finished
    dataset = dataset_of(0)
    ledger = Ledger(folder / "ledger.jsonl")
    if ledger.find("final split opened") is None:
        ledger.add("final split opened", split=dataset.final_split, num_images=len(dataset.final))
    conclusion = _conclude(outcomes, fewer, folder, protocol, dataset_of, kind, title, watcher)
    conclusion["made"] = {
        "command": origin["command"],
        "source": origin["source"],
        "versions": versions(),
        "hardware": hardware(protocol.policy),
        "date": files.now(),
    }
    write_csv_files(folder, conclusion)
    if kind == "comparison":
        files.write_text(folder / "paper.tex", latex(conclusion["results"], conclusion["made"]))
    files.write_json(path, conclusion)
    return conclusion


def _conclude(
    outcomes: list[Outcome],
    fewer: FewerImages | None,
    folder: Path,
    protocol: Protocol,
    dataset_of: Callable[[int], Dataset],
    kind: str,
    title: str,
    watcher: Watcher,
) -> dict[str, Any]:
    """Evaluate every run's kept weights on the final split, in full precision, and rank."""
    # The thread count changes bits, so it must be the runs' also when nothing is left to train.
    protocol.policy.apply()
    request, dataset = protocol.request, dataset_of(0)
    networks, measured, right = [], {}, {}
    best: dict[str, Any] | None = None
    asked: OutOfSample | None = None  # of the winner alone: one network's answers can be large
    for outcome in outcomes:
        watcher.say(f"{outcome.name} answers for {len(dataset.final)} images")
        answers = [
            _answer(run_folder, protocol, dataset_of(repetition))
            for repetition, run_folder in enumerate(outcome.folders)
        ]
        if not all(np.isfinite(answer.logits_NK).all() for answer in answers):
            # The largest of them would be the first class: an accuracy of its own, and no answer.
            outcome.failure, answers = "its answers are not numbers", []
        network = _network(outcome, answers, folder, protocol, dataset)
        networks.append(network)
        measured[outcome.name] = _measured(outcome, answers)
        if answers:
            right[outcome.name] = [answer.right_N for answer in answers]
        if network["status"] == "ranked" and (best is None or _worth(network) > _worth(best)):
            best, asked = network, None  # the one before goes before another is built
            asked = _out_of_sample(answers)
        del answers
    # Ranked by accuracy; a tie goes to the smaller network, then to the name: never to a timing.
    networks.sort(
        key=lambda n: (n["status"] != "ranked", -(n["accuracy"] or 0.0), n["parameters"], n["name"])
    )
    ranked = [network for network in networks if network["status"] == "ranked"]
    for i, network in enumerate(ranked):
        network["rank"] = i + 1
    results: dict[str, Any] = {
        "title": title,
        "kind": kind,
        "final_split": dataset.final_split,
        "class_names": list(dataset.contract.class_names),
        "num_images": {
            "train": len(dataset.train),
            "validation": len(dataset.validation),
            "test": len(dataset.test),
        },
        "majority_accuracy": majority_accuracy(dataset.train.labels, dataset.final.labels),
        "size_px": dataset.contract.size_px,
        "recipe": request.recipe_name,
        "minutes": request.recipe.train.minutes,
        "seed": request.seed,
        "num_runs": request.runs,
        "resampled": dataset.leaves_out_anew and request.runs > 1,
        "redrawn": dataset.is_redrawn and request.runs > 1,
        "protocol": written_digest(folder / "protocol.toml") or protocol.digest(),
        "equal_within": request.equal_within,
        "networks": networks,
        "comparisons": [],
        "winner": best and {"name": best["name"], "folder": _best_run(best["runs"])["folder"]},
    }
    if request.attention:
        results["ablation"] = _ablation(outcomes, networks, protocol)
        pairs = ablation.judged_pairs(results["ablation"], networks)
    else:
        pairs = list(combinations([network["name"] for network in ranked], 2))
    results["comparisons"] = _comparisons(pairs, right, dataset, request.equal_within)
    if fewer is not None:
        watcher.say(f"{fewer.name} answers again, trained on fewer images")
        results["learning_curve"] = _learning_curve(fewer, right, protocol, dataset_of)
    suspects = [] if asked is None else suspect_labels(asked, dataset)
    write_suspects(folder / "suspects.csv", suspects)
    results["num_suspects"] = len(suspects)
    results["suspects"] = [suspect.model_dump() for suspect in suspects[:MAX_SUSPECTS]]
    results["sentence"] = ablation.sentence(results) if request.attention else verdict(results)
    results["accepted"] = [
        event["words"]
        for event in Ledger(folder / "ledger.jsonl").events
        if event["event"] == "change accepted"
    ]
    results["remarks"] = ablation.remarks(results) if request.attention else remarks(results)
    total = sum(t["training_seconds"] + t["trial_seconds"] for t in measured.values())
    if fewer is not None:
        total += sum(
            training_seconds(run_folder)
            for folders in fewer.folders.values()
            for run_folder in folders
        )
    return {"results": results, "measured": {"networks": measured, "total_seconds": total}}


def _out_of_sample(answers: list[Answers]) -> OutOfSample:
    """Gather what a network's runs say of images they were not trained on."""
    dataset = answers[0].dataset
    found = OutOfSample(len(dataset.pixels), len(dataset.contract.class_names))
    for answer in answers:
        degree = answer.calibration.temperature if answer.calibration else 1.0
        dataset = answer.dataset
        parts = {dataset.final_split: (dataset.final.rows, answer.logits_NK)}
        parts["validation"] = (dataset.validation.rows, answer.validation_logits_NK)
        for rows, logits_NK in parts.values():
            if np.isfinite(logits_NK).all():
                said = scipy.special.softmax(logits_NK.astype(np.float64) / degree, axis=1)
                found.add(rows, said)
    return found


def _comparisons(
    pairs: Sequence[tuple[str, str]],
    right: dict[str, list[npt.NDArray[np.bool_]]],
    dataset: Dataset,
    equal_within: float,
) -> list[dict[str, Any]]:
    """Judge pairs of networks, all of them together."""
    if not pairs:
        return []
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    positions = [(names.index(first), names.index(second)) for first, second in pairs]
    if dataset.leaves_out_anew and len(right[names[0]]) > 1:
        accuracies = np.array([[run.mean() for run in right[name]] for name in names])
        family = judge_resampled(accuracies, len(dataset.final), len(dataset.train), positions)
    else:
        answers = np.array([right[name] for name in names])
        family = judge(answers, dataset.final_clusters(), positions)
    return [pair_row(family, difference, names, equal_within) for difference in family.differences]


def _ablation(
    outcomes: Sequence[Outcome], networks: Sequence[dict[str, Any]], protocol: Protocol
) -> list[dict[str, Any]]:
    """Return each network's blocks: whose they are, what they added, the proof that they learnt."""
    folders = {outcome.name: outcome.folders for outcome in outcomes}
    parameters = {network["name"]: network["parameters"] for network in networks}
    return [
        variant
        | {
            "parameters": parameters[variant["name"]] - parameters[variant["without"]],
            "paper": paper(attention_block(NetworkName(variant["name"]).block or "")),
            "proof": ablation.proof(folders[variant["name"]]),
        }
        for variant in ablation.variants(protocol.request.models, protocol.request.attention)
    ]


def _learning_curve(
    fewer: FewerImages,
    right: dict[str, list[npt.NDArray[np.bool_]]],
    protocol: Protocol,
    dataset_of: Callable[[int], Dataset],
) -> dict[str, Any]:
    """Judge the runs with fewer images beside those with all of them."""
    failure = fewer.failure
    by_share = {1.0: right.get(fewer.name, [])}
    for share, folders in fewer.folders.items():
        answers = [
            _answer(run_folder, protocol, dataset_of(repetition))
            for repetition, run_folder in enumerate(folders)
        ]
        if all(np.isfinite(answer.logits_NK).all() for answer in answers):
            by_share[share] = [answer.right_N for answer in answers]
    if failure is None and not (by_share[1.0] and LAST_DOUBLING in by_share):
        failure = "its answers are not numbers"
    if failure is not None:
        return {"network": fewer.name, "failure": failure}
    request = protocol.request
    return learning_curve(
        fewer.name, by_share, dataset_of(0), request.seed, request.equal_within
    ).model_dump()


def _answer(run_folder: Path, protocol: Protocol, dataset: Dataset) -> Answers:
    files.remove(run_folder / CALIBRATION_FILE)  # one of an end that was cut short
    predictor = load_run(run_folder, fp32(protocol.policy))
    logits = predict_logits(
        predictor.model,
        dataset.pixels,
        predictor.contract,
        predictor.policy,
        rows=dataset.final.rows,
    )
    # Where there is no test split these are the same images.
    validation_logits = (
        logits
        if dataset.final_split == "validation"
        else predict_logits(
            predictor.model,
            dataset.pixels,
            predictor.contract,
            predictor.policy,
            rows=dataset.validation.rows,
        )
    )
    calibration = _calibrate(run_folder, dataset, validation_logits, logits)
    degree = calibration.temperature if calibration else 1.0
    said = said_of(dataset.final.labels, logits, degree)
    write_frame(
        run_folder / "predictions.parquet",
        predictions(dataset.final.paths, dataset.final.labels, said, dataset.contract.class_names),
    )
    latency_ms = _latency_ms(predictor, dataset)
    return Answers(run_folder, dataset, logits, latency_ms, validation_logits, calibration)


def _calibrate(
    run_folder: Path,
    dataset: Dataset,
    logits_NK: npt.NDArray[np.float32],
    final_logits_NK: npt.NDArray[np.float32],
) -> Calibration | None:
    """Fit a run's confidence on its validation images, and write what `predict` needs of it."""
    if dataset.final_split == "validation":
        return None
    if not (np.isfinite(logits_NK).all() and np.isfinite(final_logits_NK).all()):
        return None
    found = calibrated(
        (logits_NK, dataset.validation.labels), (final_logits_NK, dataset.final.labels)
    )
    kept = KeptCalibration(
        temperature=found.temperature,
        threshold=found.threshold,
        wanted_accuracy=found.wanted_accuracy,
    )
    files.write_json(run_folder / CALIBRATION_FILE, kept.model_dump())
    return found


def _latency_ms(predictor: Predictor, dataset: Dataset) -> float:
    """Return the median time for one image alone, decoding not included."""
    milliseconds = []
    for i in range(NUM_LATENCY_RUNS + 1):
        start = time.perf_counter()
        predictor.probabilities(dataset.pixels[i % len(dataset.pixels)][None])
        milliseconds.append(1000 * (time.perf_counter() - start))
    return median(milliseconds[1:])  # the first one chooses kernels


def _network(
    outcome: Outcome, answers: list[Answers], folder: Path, protocol: Protocol, dataset: Dataset
) -> dict[str, Any]:
    """Return a network's row of the results."""
    class_names = dataset.contract.class_names
    request, num_steps = protocol.request, protocol.num_steps[outcome.name]
    batch_size = request.recipe.train.batch_size
    num_epochs = num_steps / steps_per_epoch(len(dataset.train), batch_size)
    confusions = [
        confusion_matrix(answer.dataset.final.labels, answer.predicted_N, len(class_names))
        for answer in answers
    ]
    runs = []
    for answer, confusion in zip(answers, confusions, strict=True):
        summary = files.read_record(answer.folder / "run.json", "summary")["summary"]
        runs.append(
            {
                "folder": answer.folder.relative_to(folder).as_posix(),
                "accuracy": float(confusion.trace() / confusion.sum()),
                "macro_f1": macro_f1(confusion),
                "validation_accuracy": summary["validation_accuracy"],
                "validation_loss": summary["validation_loss"],
                "best_epoch": summary["best_epoch"],
                "temperature": answer.calibration and answer.calibration.temperature,
                "calibration_error": answer.calibration and answer.calibration.calibration_error,
            }
        )
    size_px = request.recipe.data.size_px
    first_map_px, last_map_px = map_sides(
        layers(outline(outcome.name, len(class_names), size_px), size_px)
    )
    row: dict[str, Any] = {
        "name": outcome.name,
        "status": "failed",
        "reason": outcome.failure or "",
        "rank": None,
        **dict.fromkeys(
            (
                "accuracy",
                "interval",
                "macro_f1",
                "validation_accuracy",
                "confusion",
                "per_class",
                "calibration",
            )
        ),
        "parameters": int(protocol.costs[outcome.name]["parameters"]),
        "multiply_adds": int(protocol.costs[outcome.name]["multiply_adds"]),
        "learning_rate": outcome.learning_rate,
        "trials": [
            {key: trial[key] for key in ("learning_rate", "validation_loss", "validation_accuracy")}
            for trial in outcome.trials
        ],
        "rate_by_trials": outcome.rate_by_trials,
        "fell_apart": [event["learning_rate"] for event in outcome.fell_apart],
        "epochs": round(num_epochs, 4),
        "steps": num_steps,
        "mixed": protocol.mixes[outcome.name],
        "first_map_px": first_map_px,
        "last_map_px": last_map_px,
        "first_size_px": small_size_px(outcome.name, size_px, request.recipe.train),
        "runs": runs,
    }
    if outcome.failure is not None:
        return row
    accuracy = fmean(run["accuracy"] for run in runs)
    labels_N, predicted_RN, cluster_N = _together(answers)
    calibration = answers[runs.index(_best_run(runs))].calibration
    classes = per_class(labels_N, predicted_RN, cluster_N, class_names)
    row |= {
        "status": "ranked",
        "accuracy": accuracy,
        "interval": list(
            resampled_interval([answer.right_N for answer in answers], len(dataset.train))
            if dataset.leaves_out_anew and len(answers) > 1
            else accuracy_interval(predicted_RN == labels_N, cluster_N)
        ),
        "macro_f1": fmean(run["macro_f1"] for run in runs),
        "validation_accuracy": fmean(run["validation_accuracy"] for run in runs),
        "confusion": np.sum(confusions, axis=0).tolist(),
        "per_class": [scores.model_dump() for scores in classes],
        "calibration": calibration and calibration.model_dump(),
    }
    row["status"], row["reason"] = learnt(runs, num_epochs, dataset)
    return row


def learnt(runs: list[dict[str, Any]], num_epochs: float, dataset: Dataset) -> tuple[str, str]:
    """Return whether a network learnt enough to be ranked, and if not, why.

    Judged on validation, as the winner is: the final split decides nothing.
    """
    if num_epochs < 1:
        return "not_enough_time", (
            f"had not enough time: it saw {100 * num_epochs:.0f} % of the training images, once"
        )
    guessed = majority_accuracy(dataset.train.labels, dataset.validation.labels)
    if fmean(run["validation_accuracy"] for run in runs) <= guessed:
        return "did_not_learn", (
            "did not learn under this recipe: always naming the commonest class is right for"
            f" {100 * guessed:.1f} % of the validation images"
        )
    return "ranked", ""


def _together(answers: list[Answers]) -> tuple[Labels, Labels, Labels]:
    """Return (N,) labels, (R, N) answers and (N,) clusters of a network's runs.

    Runs that each left out other images become one run of them all, an image's answers tied.
    """
    labels, said, clusters = (
        [answer.dataset.final.labels for answer in answers],
        [answer.predicted_N for answer in answers],
        [answer.dataset.final_clusters() for answer in answers],
    )
    if answers[0].dataset.leaves_out_anew:
        return np.concatenate(labels), np.concatenate(said)[None], np.concatenate(clusters)
    return labels[0], np.array(said), clusters[0]


def worth(runs: list[dict[str, Any]], parameters: int | float) -> tuple[float, float, float]:
    """Return what the network to use has most of: on validation, never on the final split."""
    return (
        fmean(run["validation_accuracy"] for run in runs),
        -fmean(run["validation_loss"] for run in runs),
        -float(parameters),
    )


def _worth(network: dict[str, Any]) -> tuple[float, float, float]:
    return worth(network["runs"], network["parameters"])


def _best_run(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the run to use of a network's: the best on its validation images."""
    return max(runs, key=lambda r: (r["validation_accuracy"], -r["validation_loss"]))


def training_seconds(run_folder: Path) -> float:
    """Return how long a run took in all, its evaluations too."""
    return float(sum(line["seconds"] for line in files.read_jsonl(run_folder / "timings.jsonl")))


def _measured(outcome: Outcome, answers: list[Answers]) -> dict[str, Any]:
    """Return what was timed for a network."""
    lines = [
        line for folder in outcome.folders for line in files.read_jsonl(folder / "timings.jsonl")
    ]
    return {
        "training_seconds": sum(map(training_seconds, outcome.folders)),
        "trial_seconds": sum(t["seconds"] for t in (*outcome.trials, *outcome.fell_apart)),
        # A median: an epoch in which the command stood still (Ctrl-Z) says nothing of the network.
        "images_per_second": median(line["images_per_second"] for line in lines) if lines else None,
        "latency_ms": median(answer.latency_ms for answer in answers) if answers else None,
        "peak_memory_mib": max((line["peak_memory_mib"] for line in lines), default=None),
    }

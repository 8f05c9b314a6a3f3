"""Predict images with a trained run, decoded and prepared as in training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from towernet.data.decode import decode, fit
from towernet.data.examine import Unchecked, prepared
from towernet.data.rules import of_contract
from towernet.data.workers import Died, in_processes
from towernet.engine.checkpoint import read_weights, require_weights
from towernet.engine.device import Policy
from towernet.engine.record import read_run
from towernet.engine.validation import predict_logits
from towernet.errors import DataError
from towernet.models.catalogue import build
from towernet.models.optimize import optimize
from towernet.models.own import require_same_code
from towernet.names import NetworkName
from towernet.records.base import read_record
from towernet.records.contract import Contract
from towernet.records.prediction import ClassProbability, NoPrediction, Prediction
from towernet.records.results import Conclusion
from towernet.records.run import RunRecord
from towernet.records.scores import KeptCalibration

NUM_DECODERS = 2
TRAIN_AGAIN = "train again"  # the remedy for a damaged run
CALIBRATION_FILE = "calibration.json"
WEIGHT_SUFFIXES = (
    ".pt", ".pth", ".safetensors", ".pdparams", ".onnx", ".pkl", ".joblib", ".npy", ".npz", ".h5",
    ".hdf5", ".keras", ".ckpt", ".tflite", ".pb", ".gguf",
)  # fmt: skip


@dataclass(frozen=True)
class Predictor:
    """A network with its saved weights and its class contract, ready to predict.

    Args:
        folder: The run it came from.
        model: The network, optimized for prediction: see `towernet.models.optimize`.
        contract: How an image becomes its input, and the names of its classes.
        policy: Where and how it computes.
        temperature: Divisor of the logits that calibrates the probabilities.
        threshold: Predictions below this probability are flagged "(not sure)"; None if not
            calibrated.
    """

    folder: Path
    model: nn.Module
    contract: Contract
    policy: Policy
    temperature: float = 1.0
    threshold: float | None = None

    def pixels(self, content: bytes) -> npt.NDArray[np.uint8]:
        """Decode and fit one image, (S, S, 3).

        Raises:
            DataError: the image cannot be used.
        """
        contract = self.contract
        decoded = decode(content, of_contract(contract))
        return fit(decoded.pixels, contract.size_px, contract.resize, contract.background)

    def probabilities(self, pixels_NSS3: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """Return (N, K) probabilities for fitted pixels."""
        logits = predict_logits(self.model, pixels_NSS3, self.contract, self.policy)
        return (torch.from_numpy(logits).double() / self.temperature).softmax(dim=1).numpy()


@dataclass(frozen=True)
class Trained:
    """A network with its saved weights as trained: all modules with their names and order.

    Args:
        folder: The run it came from.
        name: The network's name.
        model: The network, in evaluation mode.
        contract: How an image becomes its input, and the names of its classes.
        policy: Where and how it computes by default.
        temperature: As in `Predictor`.
        threshold: As in `Predictor`.
    """

    folder: Path
    name: NetworkName
    model: nn.Module
    contract: Contract
    policy: Policy
    temperature: float = 1.0
    threshold: float | None = None

    def ready(self, policy: Policy | None = None) -> Predictor:
        """Return it optimized for prediction."""
        policy = policy or self.policy
        model = optimize(
            self.model,
            size_px=self.contract.size_px,
            dtype=policy.torch_dtype,
            absorb=policy.kernels == "torch",
            memory_format=policy.memory_format,
        )
        return Predictor(
            self.folder,
            policy.place(model),
            self.contract,
            policy,
            self.temperature,
            self.threshold,
        )


def find_run(folder: Path) -> Path:
    """Return the folder of a run, or that of a comparison's winner.

    Raises:
        DataError: it is not a folder, or is a comparison without a winner.
    """
    if folder.is_file():
        if folder.suffix.lower() in WEIGHT_SUFFIXES:
            raise DataError(
                f"{folder} is a file; turn it into a run with: towernet import-weights {folder}"
                " --model NAME --classes classes.txt --out FOLDER"
            )
        raise DataError(f"{folder} is a file; give the folder of a run first, then the images")
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give the folder of a run or of a comparison")
    if not (folder / "run.json").exists() and (folder / "results.json").exists():
        winner = read_record(folder / "results.json", Conclusion).results.winner
        if winner is None:
            raise DataError(
                f"the comparison in {folder} has no winner; compare with more --minutes"
            )
        return folder / winner.folder
    if (folder / "protocol.toml").exists():
        raise DataError(f"the comparison in {folder} is not finished; rerun its command")
    return folder


def load_trained(folder: Path) -> Trained:
    """Load the network of a run, or of a comparison's winner, with its saved weights.

    Raises:
        DataError: the folder contains no finished run, or a damaged one.
        ConfigError: the source of its custom network has changed since.
        UntrustedCodeError: it needs a custom network that the user has not allowed.
    """
    folder = find_run(folder)
    record = read_run(folder, todo=TRAIN_AGAIN)
    contract, name = record.contract, record.config.model
    require_weights(folder, record.weights_sha256)
    require_same_code(name, record.versions, folder)
    tensors, _ = read_weights(folder / "best.safetensors")
    model = build(name, len(contract.class_names), contract.size_px)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise DataError(
            f"{folder / 'best.safetensors'} does not fit {name} with"
            f" {len(contract.class_names)} classes ({first}); train again"
        ) from error
    channels_last = isinstance(record, RunRecord) and record.plan.policy.channels_last
    policy = Policy("cpu", "float32", channels_last, torch.get_num_threads(), "predict")
    return Trained(folder, name, model.eval(), contract, policy, *_calibration(folder))


def load_run(folder: Path, policy: Policy | None = None) -> Predictor:
    """Load a run's saved weights, or those of a comparison's winner, ready to predict.

    Raises:
        DataError: the folder contains no finished run, or a damaged one.
    """
    return load_trained(folder).ready(policy)


def _calibration(folder: Path) -> tuple[float, float | None]:
    """Return a run's temperature and threshold; (1, None) if it is not calibrated."""
    path = folder / CALIBRATION_FILE
    if not path.exists():
        return 1.0, None
    kept = read_record(path, KeptCalibration, todo="restore it or delete it")
    return kept.temperature, kept.threshold


def predict_files(
    predictor: Predictor, paths: Sequence[Path]
) -> list[npt.NDArray[np.float64] | DataError]:
    """Return the class probabilities of each image, or why there are none."""
    answers: list[npt.NDArray[np.float64] | DataError] = [
        DataError(f"{path} was not decoded") for path in paths
    ]
    for i, pixels in fitted_pictures(predictor.contract, paths):
        if isinstance(pixels, DataError):
            answers[i] = pixels
        else:
            answers[i] = predictor.probabilities(pixels[None])[0]
    return answers


def predict_classes(
    predictor: Predictor, paths: Sequence[Path], *, top: int = 1
) -> list[Prediction | NoPrediction]:
    """Return the predicted classes of each image with their probabilities, or why there are none.

    Args:
        predictor: From `load_run`.
        paths: The images.
        top: Number of classes per image.
    """
    names, threshold = predictor.contract.class_names, predictor.threshold
    rows: list[Prediction | NoPrediction] = []
    for path, answer in zip(paths, predict_files(predictor, paths), strict=True):
        if isinstance(answer, DataError):
            rows.append(NoPrediction(path=str(path), error=str(answer)))
            continue
        best = answer.argsort(kind="stable")[::-1][:top]
        rows.append(
            Prediction(
                path=str(path),
                predictions=tuple(
                    ClassProbability(class_name=names[i], probability=round(float(answer[i]), 6))
                    for i in best
                ),
                sure=None if threshold is None else bool(answer.max() >= threshold),
            )
        )
    return rows


def fitted_pictures(
    contract: Contract, paths: Sequence[Path]
) -> Iterator[tuple[int, npt.NDArray[np.uint8] | DataError]]:
    """Yield each image's position and its (S, S, 3) pixels, or why there are none.

    Files are decoded in worker processes, so a crash or hang over one affects no other.
    """
    good = []
    for i, path in enumerate(paths):
        if problem := _no_file(path):
            yield i, problem
        else:
            good.append(i)
    rules = of_contract(contract)
    requests = [Unchecked(paths[i], contract.size_px, contract.resize, rules) for i in good]
    for position, answer in in_processes(
        prepared, requests, workers=min(NUM_DECODERS, max(1, len(good)))
    ):
        i = good[position]
        if isinstance(answer, bytes):
            yield i, np.frombuffer(answer, np.uint8).reshape(contract.size_px, -1, 3)
        else:
            detail = answer.detail if isinstance(answer, Died) else answer
            yield i, DataError(f"{paths[i]} cannot be used: {detail}")


def _no_file(path: Path) -> DataError | None:
    if path.is_dir():
        return DataError(f"{path} is a folder; give the images in it: {path}/*")
    if path.exists() and not path.is_file():  # reading a pipe would block forever
        return DataError(f"{path} is not a plain file; give an image file")
    try:
        with path.open("rb"):
            return None
    except OSError as error:
        return DataError(f"{path} cannot be read: {error.strerror}; give an image file")

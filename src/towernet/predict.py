"""A trained run answers for pictures: the same decoder, the same contract as in training."""

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
TRAIN_AGAIN = "train again"  # what helps where a run is damaged
CALIBRATION_FILE = "calibration.json"
WEIGHT_SUFFIXES = (
    ".pt", ".pth", ".safetensors", ".pdparams", ".onnx", ".pkl", ".joblib", ".npy", ".npz", ".h5",
    ".hdf5", ".keras", ".ckpt", ".tflite", ".pb", ".gguf",
)  # fmt: skip


@dataclass(frozen=True)
class Predictor:
    """A network with its kept weights and its class contract.

    Args:
        folder: The run it came from.
        model: The network, made ready to answer: see `towernet.models.optimize`.
        contract: How a picture becomes its input, and what its answers are called.
        policy: Where and how it computes.
        temperature: What logits are divided by, so that it is as sure as it is right.
        threshold: Below this probability it had better not be believed; None where nobody knows.
    """

    folder: Path
    model: nn.Module
    contract: Contract
    policy: Policy
    temperature: float = 1.0
    threshold: float | None = None

    def pixels(self, content: bytes) -> npt.NDArray[np.uint8]:
        """Decode and fit one picture, (S, S, 3).

        Raises:
            DataError: the picture cannot be used.
        """
        background = self.contract.background
        decoded = decode(content, background=background)
        return fit(decoded.pixels, self.contract.size_px, self.contract.resize, background)

    def probabilities(self, pixels_NSS3: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """Return (N, K) probabilities for fitted pixels."""
        logits = predict_logits(self.model, pixels_NSS3, self.contract, self.policy)
        return (torch.from_numpy(logits).double() / self.temperature).softmax(dim=1).numpy()


@dataclass(frozen=True)
class Trained:
    """A network with its kept weights as it was trained: every module has its name and its order.

    Args:
        folder: The run it came from.
        name: What it is called.
        model: The network, as it evaluates.
        contract: How a picture becomes its input, and what its answers are called.
        policy: Where and how it computes where nothing else is asked for.
        temperature: As a `Predictor` has it.
        threshold: As a `Predictor` has it.
    """

    folder: Path
    name: NetworkName
    model: nn.Module
    contract: Contract
    policy: Policy
    temperature: float = 1.0
    threshold: float | None = None

    def ready(self, policy: Policy | None = None) -> Predictor:
        """Return it made ready to answer."""
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
        DataError: it is no folder, or a comparison without a winner.
    """
    if folder.is_file():
        if folder.suffix.lower() in WEIGHT_SUFFIXES:
            raise DataError(
                f"{folder} is a file; make a run of it with: towernet import-weights {folder}"
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
        raise DataError(f"the comparison in {folder} is not finished; say its command again")
    return folder


def load_trained(folder: Path) -> Trained:
    """Load the network of a run, or of a comparison's winner, with its kept weights.

    Raises:
        DataError: the folder holds no finished run, or a damaged one.
        ConfigError: the source of its network, not being ours, has changed since.
        UntrustedCodeError: its network would have to be imported, and no user named it.
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
    """Load a run's kept weights, or those of a comparison's winner, made ready to answer.

    Raises:
        DataError: the folder holds no finished run, or a damaged one.
    """
    return load_trained(folder).ready(policy)


def _calibration(folder: Path) -> tuple[float, float | None]:
    """Return a run's temperature and threshold; one that was not judged has neither."""
    path = folder / CALIBRATION_FILE
    if not path.exists():
        return 1.0, None
    kept = read_record(path, KeptCalibration, todo="restore it or delete it")
    return kept.temperature, kept.threshold


def predict_files(
    predictor: Predictor, paths: Sequence[Path]
) -> list[npt.NDArray[np.float64] | DataError]:
    """Return the class probabilities of each picture, or why there are none."""
    answers: list[npt.NDArray[np.float64] | DataError] = [
        DataError(f"{path} was not looked at") for path in paths
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
    """Return what a run says of each picture, in words and numbers, or why it says nothing.

    Args:
        predictor: From `load_run`.
        paths: The pictures.
        top: How many classes to name for each.
    """
    names, threshold = predictor.contract.class_names, predictor.threshold
    said: list[Prediction | NoPrediction] = []
    for path, answer in zip(paths, predict_files(predictor, paths), strict=True):
        if isinstance(answer, DataError):
            said.append(NoPrediction(path=str(path), error=str(answer)))
            continue
        best = answer.argsort(kind="stable")[::-1][:top]
        said.append(
            Prediction(
                path=str(path),
                predictions=tuple(
                    ClassProbability(class_name=names[i], probability=round(float(answer[i]), 6))
                    for i in best
                ),
                sure=None if threshold is None else bool(answer.max() >= threshold),
            )
        )
    return said


def fitted_pictures(
    contract: Contract, paths: Sequence[Path]
) -> Iterator[tuple[int, npt.NDArray[np.uint8] | DataError]]:
    """Yield each picture's position and its (S, S, 3) pixels, or why there are none.

    Decoding happens in processes that may crash or hang over a file and take no other along.
    """
    good = []
    for i, path in enumerate(paths):
        if problem := _no_file(path):
            yield i, problem
        else:
            good.append(i)
    asked = [
        Unchecked(paths[i], contract.size_px, contract.resize, contract.background) for i in good
    ]
    for position, answer in in_processes(
        prepared, asked, workers=min(NUM_DECODERS, max(1, len(good)))
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
    if path.exists() and not path.is_file():  # reading a pipe would wait for ever
        return DataError(f"{path} is not a plain file; give an image file")
    try:
        with path.open("rb"):
            return None
    except OSError as error:
        return DataError(f"{path} cannot be read: {error.strerror}; give an image file")

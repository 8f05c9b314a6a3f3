"""Predict images with a trained run, decoded and prepared as in training."""

from __future__ import annotations

import glob
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from towernet.data.decode import decode, fit
from towernet.data.examine import Unchecked, prepared
from towernet.data.pictures import Pictures
from towernet.data.rules import of_contract
from towernet.data.workers import Died, in_order
from towernet.engine.batches import prefetch
from towernet.engine.checkpoint import read_weights, require_weights
from towernet.engine.device import Policy, default_threads
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
from towernet.records.run import WEIGHTS_FILE, RunRecord, read_run
from towernet.records.scores import KeptCalibration

NUM_DECODERS = 2
BATCH_SIZE = 16
"""The images of a folder are predicted so many at a time; the last batch is filled up, since the
last bits of an answer depend on the size of its batch, but not on what else is in it."""
_MAX_WAITING, _MAX_WAITING_BYTES = 512, 1 << 27  # decoded images between decoding and network
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

    def with_limit(self, max_megapixels: float | None) -> Predictor:
        """Return one that reads images of up to so many million pixels; None: unchanged."""
        if max_megapixels is None:
            return self
        return replace(self, contract=replace(self.contract, max_megapixels=float(max_megapixels)))

    def pixels(self, content: bytes) -> npt.NDArray[np.uint8]:
        """Decode and fit one image, (S, S, 3).

        Raises:
            DataError: the image cannot be used.
        """
        contract = self.contract
        rules = of_contract(contract)
        decoded = decode(content, rules, max_bytes=rules.max_bytes)
        return fit(
            decoded.pixels,
            contract.size_px,
            contract.resize,
            contract.background,
            crop_share=contract.crop_share,
        )

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
                f"the comparison in {folder} has no winner; its report says why, and what to do"
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
    tensors, _ = read_weights(folder / WEIGHTS_FILE)
    model = build(name, len(contract.class_names), contract.size_px)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise DataError(
            f"{folder / WEIGHTS_FILE} does not fit {name} with"
            f" {len(contract.class_names)} classes ({first}); train again"
        ) from error
    channels_last = isinstance(record, RunRecord) and record.plan.policy.channels_last
    policy = Policy("cpu", "float32", channels_last, default_threads(), "predict")
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
    return list(_answers(predictor, paths, batch_size=1, workers=NUM_DECODERS))


def predict_classes(
    predictor: Predictor,
    pictures: Pictures,
    *,
    top: int = 1,
    workers: int = NUM_DECODERS,
) -> Iterator[Prediction | NoPrediction]:
    """Yield the predicted classes of each image with their probabilities, or why there are none.

    They come in the order of the images, as soon as they are known; the memory does not depend on
    the number of images. Those of folders are predicted `BATCH_SIZE` at a time, files one by one.

    Args:
        predictor: From `load_run`.
        pictures: The images.
        top: Number of classes per image.
        workers: Decoding processes.
    """
    names, threshold = predictor.contract.class_names, predictor.threshold
    batch_size = BATCH_SIZE if pictures.of_folders else 1
    answers = _answers(predictor, pictures.paths, batch_size=batch_size, workers=workers)
    for path, answer in zip(pictures.paths, answers, strict=True):
        if isinstance(answer, DataError):
            yield NoPrediction(path=str(path), error=str(answer))
            continue
        best = answer.argsort(kind="stable")[::-1][:top]
        yield Prediction(
            path=str(path),
            predictions=tuple(
                ClassProbability(class_name=names[i], probability=round(float(answer[i]), 6))
                for i in best
            ),
            sure=None if threshold is None else bool(answer.max() >= threshold),
        )


def _answers(
    predictor: Predictor, paths: Sequence[Path], *, batch_size: int, workers: int
) -> Iterator[npt.NDArray[np.float64] | DataError]:
    """Yield the probabilities of each image, or why there are none, in order."""
    size_px = predictor.contract.size_px
    pixels_BSS3 = np.zeros((batch_size, size_px, size_px, 3), np.uint8)
    batch: list[int | DataError] = []  # for each image its row in the batch, or what is wrong
    num_rows = 0

    def predicted() -> Iterator[npt.NDArray[np.float64] | DataError]:
        answers_BK = predictor.probabilities(pixels_BSS3) if num_rows else None
        for row in batch:
            yield row if isinstance(row, DataError) else answers_BK[row]  # type: ignore[index]

    for _, pixels in fitted_pictures(predictor.contract, paths, workers=workers):
        if isinstance(pixels, DataError):
            batch.append(pixels)
        else:
            pixels_BSS3[num_rows] = pixels
            batch.append(num_rows)
            num_rows += 1
        if num_rows == batch_size or len(batch) >= _MAX_WAITING or not num_rows:
            yield from predicted()
            batch, num_rows = [], 0
    pixels_BSS3[num_rows:] = 0
    yield from predicted()


def fitted_pictures(
    contract: Contract, paths: Sequence[Path], *, workers: int = NUM_DECODERS
) -> Iterator[tuple[int, npt.NDArray[np.uint8] | DataError]]:
    """Yield each image's position and its (S, S, 3) pixels, or why there are none, in order.

    Files are decoded in worker processes, so a crash or hang over one affects no other.
    """
    problems = {i: problem for i, path in enumerate(paths) if (problem := _no_file(path))}
    good = [i for i in range(len(paths)) if i not in problems]
    requests = _Requests(contract, paths, good)
    num_bytes = 3 * contract.size_px**2
    depth = max(1, min(_MAX_WAITING, _MAX_WAITING_BYTES // num_bytes) // 2)

    def decoded() -> Iterator[bytes | str | Died]:
        return in_order(
            prepared,
            requests,
            workers=min(workers, max(1, len(good))),
            ahead=depth,
            alone_bytes=of_contract(contract).max_bytes,
        )

    answers = prefetch(decoded, depth if len(good) > 1 else 0)
    for i in range(len(paths)):
        if i in problems:
            yield i, problems[i]
            continue
        answer = next(answers)
        if isinstance(answer, bytes):
            yield i, np.frombuffer(answer, np.uint8).reshape(contract.size_px, -1, 3)
        else:
            detail = answer.detail if isinstance(answer, Died) else answer
            yield i, DataError(f"{paths[i]} cannot be used: {detail}")


class _Requests(Sequence[Unchecked]):
    """What the decoding processes are asked for; made when it is sent."""

    def __init__(self, contract: Contract, paths: Sequence[Path], positions: Sequence[int]) -> None:
        self._contract, self._paths, self._positions = contract, paths, positions
        self._rules = of_contract(contract)

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: Any) -> Any:
        contract = self._contract
        return Unchecked(
            self._paths[self._positions[index]],
            contract.size_px,
            contract.resize,
            contract.crop_share,
            self._rules,
        )


def _no_file(path: Path) -> DataError | None:
    try:
        status = path.stat()
    except OSError as error:
        if glob.has_magic(str(path)):
            folder = next(str(p) for p in path.parents if not glob.has_magic(str(p)))
            return DataError(
                f"no file is called {path}, and a pattern in quotes is not expanded; leave out the"
                f" quotes, or give the folder: {folder}"
            )
        return DataError(f"{path} cannot be read: {error.strerror}; give an image file")
    if stat.S_ISDIR(status.st_mode):
        return DataError(f"{path} is a folder; give an image file")
    if not stat.S_ISREG(status.st_mode):  # reading a pipe would block forever
        return DataError(f"{path} is not a plain file; give an image file")
    return None

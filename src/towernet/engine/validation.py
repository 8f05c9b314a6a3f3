"""A network's predictions on fitted pixels, their loss and accuracy, and the means over classes.

Shapes: N images, S their side, K classes.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from towernet.attention import fused
from towernet.config import Measure
from towernet.data.balance import balanced_accuracy, balanced_mean
from towernet.data.prepare import Part
from towernet.engine.augment import to_input
from towernet.engine.device import Policy
from towernet.native import ops
from towernet.records.contract import Contract
from towernet.records.scores import Validation

BATCH_SIZE = 64


@torch.inference_mode()
def predict_logits(
    model: nn.Module,
    pixels_NSS3: npt.NDArray[np.uint8],
    contract: Contract,
    policy: Policy,
    *,
    rows: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.float32]:
    """Return (N, K) logits for fitted uint8 pixels, or for the given rows of them."""
    model.eval()
    rows = np.arange(len(pixels_NSS3)) if rows is None else rows
    logits = []
    for start in range(0, len(rows), BATCH_SIZE):
        images = torch.from_numpy(pixels_NSS3[rows[start : start + BATCH_SIZE]]).to(policy.device)
        images_BCHW = to_input(images, contract.mean, contract.std)
        images_BCHW = images_BCHW.contiguous(memory_format=policy.memory_format)
        native = policy.kernels == "native"
        with policy.autocast(), ops.enabled(native), fused.formula_only():
            logits.append(model(images_BCHW).float().cpu().numpy())
    return (
        np.concatenate(logits) if logits else np.zeros((0, len(contract.class_names)), np.float32)
    )


def loss_and_accuracy(
    logits_NK: npt.NDArray[np.float32], labels_N: npt.NDArray[np.int64]
) -> tuple[float, float]:
    """Return the mean cross-entropy in nats, and the accuracy."""
    loss = F.cross_entropy(torch.from_numpy(logits_NK).double(), torch.from_numpy(labels_N))
    return loss.item(), float((logits_NK.argmax(axis=1) == labels_N).mean())


def balanced_figures(
    logits_NK: npt.NDArray[np.float32], labels_N: npt.NDArray[np.int64]
) -> Validation:
    """Return the means over the classes of the cross-entropy in nats, and of the accuracy."""
    loss_N = F.cross_entropy(
        torch.from_numpy(logits_NK).double(), torch.from_numpy(labels_N), reduction="none"
    )
    return Validation(
        accuracy=balanced_accuracy(logits_NK.argmax(axis=1) == labels_N, labels_N),
        loss=balanced_mean(loss_N.numpy(), labels_N),
    )


def validate(
    model: nn.Module,
    pixels_NSS3: npt.NDArray[np.uint8],
    part: Part,
    contract: Contract,
    policy: Policy,
    measure: Measure,
) -> tuple[float, float, Validation | None]:
    """Return loss and accuracy of a network on one part of the data, and those that choose.

    The last are the means over the classes, None if the measure is accuracy.
    """
    logits = predict_logits(model, pixels_NSS3, contract, policy, rows=part.rows)
    loss, accuracy = loss_and_accuracy(logits, part.labels)
    if measure == "accuracy" or not math.isfinite(loss):  # the caller stops the run then
        return loss, accuracy, None
    return loss, accuracy, balanced_figures(logits, part.labels)

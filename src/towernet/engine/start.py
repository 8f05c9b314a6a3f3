"""The network that a run with pre-trained weights starts from: their backbone, and a fitted head.

A frozen run ends with it; a fine-tuned run goes on from it. So a head that knows nothing never
spoils the layers below it.

Source: Kumar et al. Fine-tuning can distort pretrained features and underperform
out-of-distribution. ICLR 2022, arXiv:2202.10054 (linear probing, then fine-tuning).

Shapes: N images, D features, K classes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from towernet.config import RunConfig
from towernet.data.prepare import Dataset, Part
from towernet.data.splits import tied
from towernet.engine.checkpoint import read_weights, write_weights
from towernet.engine.device import Policy
from towernet.engine.features import Backbone, Extractor, features_of, key_of
from towernet.engine.head import Head, fit_head
from towernet.engine.memory import peak_memory_mib
from towernet.engine.runlog import RunLog
from towernet.engine.session import Session
from towernet.engine.validation import balanced_figures, loss_and_accuracy
from towernet.models.catalogue import build
from towernet.names import NetworkName
from towernet.records.run import WEIGHTS_FILE, EpochMetrics, EpochTiming, Plan, RunSummary
from towernet.records.scores import LastLayer
from towernet.starts.load import backbone, head_of
from towernet.words import percent

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Started:
    """A network with pre-trained weights and a fitted head, and how good it is.

    Args:
        tensors: All tensors of the network, by its names.
        last_layer: How its last layer was fitted.
        metrics: Its figures on the training and the validation images.
        timing: How long the head took.
    """

    tensors: dict[str, Tensor]
    last_layer: LastLayer
    metrics: EpochMetrics
    timing: EpochTiming


def start(config: RunConfig, dataset: Dataset, session: Session, plan: Plan) -> Started:
    """Fit a head on the features of a run's training images.

    Raises:
        DataError: the weights do not fit the network, or were changed.
        Interrupted: the user stopped it; finished features are kept.
    """
    began = time.perf_counter()
    name, contract = config.model, dataset.contract
    policy = Policy.of(plan.policy)
    train = part_features(name, dataset, dataset.train, session, policy)
    validation = part_features(name, dataset, dataset.validation, session, policy)
    fitting = time.perf_counter()
    head = fit_head(
        train,
        dataset.train.labels,
        validation,
        dataset.validation.labels,
        num_classes=len(contract.class_names),
        units_N=tied(dataset.table[dataset.table.status == "used"])[dataset.train.rows],
        measure=config.measure,
        balanced=config.recipe.train.balances_classes,
    )
    tensors = _tensors(name, dataset, session, head)
    metrics = _metrics(head, (train, dataset.train.labels), dataset, validation, config)
    ended = time.perf_counter()
    timing = EpochTiming(
        step=0,
        train_seconds=ended - fitting,
        images_per_second=len(dataset.train) / (ended - fitting),
        seconds=ended - began,
        peak_memory_mib=peak_memory_mib(policy.device),
    )
    last_layer = LastLayer(
        strength=head.strength,
        chosen_on=head.chosen_on,
        without_images=tuple(contract.class_names[i] for i in head.without_images),
    )
    return Started(tensors, last_layer, metrics, timing)


def part_features(
    name: NetworkName, dataset: Dataset, part: Part, session: Session, policy: Policy
) -> npt.NDArray[np.float32]:
    """Return (N, D) features of the images of a part, computed unless they are kept."""
    used = dataset.table[dataset.table.status == "used"]
    contract, rules = dataset.contract, dataset.rules

    @cache
    def extractor() -> Extractor:
        tensors = _backbone(name, dataset, session)
        model = build(name.base, len(contract.class_names), contract.size_px)
        model.load_state_dict(tensors, strict=False)
        network = Backbone(
            model,
            head_of(name.base, contract.size_px),
            NetworkName(name.base),
            session.weights[name.base].weights.sha256,
        )
        return Extractor(network, contract, policy)

    depends_on = name.base, replace(contract, class_names=()), rules, policy
    key = session.kept.keys.get(depends_on)
    if key is None:
        key = session.kept.keys[depends_on] = key_of(extractor(), rules)
    return features_of(
        used.iloc[part.rows],
        session.source,
        key,
        extractor,
        rules=rules,
        workers=session.workers,
        progress=session.progress.count,
    )


def _backbone(name: NetworkName, dataset: Dataset, session: Session) -> Mapping[str, Tensor]:
    """Return the tensors of a network besides its last layer's; their file is read once."""
    size = len(dataset.contract.class_names), dataset.contract.size_px
    kept = session.kept.tensors
    if (name.base, *size) not in kept:
        kept[name.base, *size] = backbone(session.weights[name.base], *size)
    return kept[name.base, *size]


def frozen_logits(
    name: NetworkName, dataset: Dataset, part: Part, session: Session, policy: Policy
) -> Logits:
    """Return (N, K) logits of a finished frozen run for a part of its images."""
    tensors, _ = read_weights(session.folder / WEIGHTS_FILE)
    head = head_of(name.base, dataset.contract.size_px)
    features = part_features(name, dataset, part, session, policy)
    return _logits(features, tensors[f"{head}.weight"], tensors[f"{head}.bias"])


def keep_frozen(name: NetworkName, started: Started, session: Session) -> tuple[RunSummary, str]:
    """Write the weights and the figures of a frozen run; return its summary and their hash."""
    metrics = started.metrics
    RunLog(session.folder, [metrics], [started.timing])  # writes these lines
    session.progress.say(
        f"{name}: last layer fitted, {percent(metrics.validation_accuracy)} of the validation"
        " images right"
    )
    meta = metrics.model_dump(include={"epoch", "validation_accuracy"})
    sha256 = write_weights(session.folder / WEIGHTS_FILE, started.tensors, meta)
    summary = RunSummary(
        num_steps=0,
        num_epochs=0.0,
        best_epoch=metrics.epoch,
        validation_accuracy=metrics.validation_accuracy,
        validation_loss=metrics.validation_loss,
        final_validation_loss=metrics.validation_loss,
        final_validation_accuracy=metrics.validation_accuracy,
        validation_balanced=metrics.validation_balanced,
        final_validation_balanced=metrics.validation_balanced,
        last_layer=started.last_layer,
    )
    return summary, sha256


def _tensors(
    name: NetworkName, dataset: Dataset, session: Session, head: Head
) -> dict[str, Tensor]:
    layer = head_of(name.base, dataset.contract.size_px)
    return {
        **_backbone(name, dataset, session),
        f"{layer}.weight": torch.from_numpy(head.weight_KD),
        f"{layer}.bias": torch.from_numpy(head.bias_K),
    }


def _logits(features_ND: npt.NDArray[np.float32], weight_KD: Tensor, bias_K: Tensor) -> Logits:
    features = torch.from_numpy(features_ND)
    logits: Logits = torch.nn.functional.linear(features, weight_KD, bias_K).numpy()
    return logits


def _metrics(
    head: Head,
    train: tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]],
    dataset: Dataset,
    validation_ND: npt.NDArray[np.float32],
    config: RunConfig,
) -> EpochMetrics:
    weight_KD, bias_K = torch.from_numpy(head.weight_KD), torch.from_numpy(head.bias_K)
    train_loss, train_accuracy = loss_and_accuracy(_logits(train[0], weight_KD, bias_K), train[1])
    labels, logits_NK = dataset.validation.labels, _logits(validation_ND, weight_KD, bias_K)
    loss, accuracy = loss_and_accuracy(logits_NK, labels)
    return EpochMetrics(
        epoch=0.0,
        step=0,
        learning_rate=0.0,
        train_loss=train_loss,
        train_accuracy=train_accuracy,
        validation_loss=loss,
        validation_accuracy=accuracy,
        validation_balanced=None
        if config.measure == "accuracy"
        else balanced_figures(logits_NK, labels),
    )

"""The prediction of a trained run for one image, and the map of each of its attention blocks.

Shapes: S side of the image, C channels, H × W positions of a map.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from towernet.attention.base import ATTENTION, AttentionBlock
from towernet.attention.blend import FromIdentity
from towernet.attention.inserted import CHILD, attention_blocks
from towernet.attention.maps import map_of, observing
from towernet.engine.validation import predict_logits
from towernet.errors import ConfigError, DataError
from towernet.names import SCRATCH, NetworkName
from towernet.predict import fitted_pictures, load_trained


@dataclass(frozen=True)
class BlockMap:
    """The attention map of one block for one image.

    Args:
        place: The name of the block's module, or of the module it is attached to.
        block: The block's name.
        weights_CHW: Its weights; C, or H and W, are 1 if all channels, or positions, share one.
        gain: How much of the block is blended in; None if it is not blended.
    """

    place: str
    block: str
    weights_CHW: Float[npt.NDArray[np.float32], "C H W"]
    gain: float | None

    @property
    def mean(self) -> float:
        """The mean of its weights."""
        return float(self.weights_CHW.mean(dtype=np.float64))

    @property
    def spread(self) -> float:
        """The standard deviation of its weights over channels and positions."""
        return float(self.weights_CHW.std(dtype=np.float64))

    @property
    def is_spatial(self) -> bool:
        """Whether its weights differ between positions, not only between channels."""
        return bool(self._differs_C.any())

    def positions(self) -> Float[npt.NDArray[np.float64], "H W"]:
        """Return a weight for each position: the mean of the channels in which they differ."""
        kept = self._differs_C if self.is_spatial else slice(None)
        weights_HW: npt.NDArray[np.float64] = self.weights_CHW[kept].mean(axis=0, dtype=np.float64)
        return weights_HW

    @property
    def _differs_C(self) -> npt.NDArray[np.bool_]:
        flat = self.weights_CHW.reshape(len(self.weights_CHW), -1)
        differs_C: npt.NDArray[np.bool_] = (flat != flat[:, :1]).any(axis=1)
        return differs_C


@dataclass(frozen=True)
class Explanation:
    """The prediction of a run for an image, with its attention maps.

    Args:
        image: The image file.
        network: The network's name.
        pixels_SS3: The image as the network sees it.
        class_name: The predicted class.
        probability: Its probability, in [0, 1].
        sure: Whether the probability reaches the threshold; None if not calibrated.
        maps: One for each block, in the order they run.
    """

    image: Path
    network: str
    pixels_SS3: UInt8[npt.NDArray[np.uint8], "S S 3"]
    class_name: str
    probability: float
    sure: bool | None
    maps: tuple[BlockMap, ...]


def explain(folder: Path, image: Path, *, max_megapixels: float | None = None) -> Explanation:
    """Predict an image with a trained run, or a comparison's winner, and keep its attention maps.

    Args:
        folder: The folder of the run or comparison.
        image: The image file.
        max_megapixels: The most pixels it can have, in millions; None: the run's limit.

    Raises:
        DataError: there is no finished run, or the image cannot be used.
        ConfigError: the network has no attention blocks.
    """
    trained = load_trained(folder)
    blocks = attention_blocks(trained.model)
    if not blocks:
        start = SCRATCH if trained.name.start is None else "finetuned"  # a frozen one takes none
        example = NetworkName(f"{trained.name.base}+se").with_start(start)
        raise ConfigError(
            f"{trained.name} in {trained.folder} has no attention to draw; train one that has, with"
            f" --model {example} or towernet (`towernet attention` lists the blocks)"
        )
    contract = trained.contract
    if max_megapixels is not None:
        contract = replace(contract, max_megapixels=float(max_megapixels))
    ((_, pixels),) = fitted_pictures(contract, [image])
    if isinstance(pixels, DataError):
        raise pixels
    seen: dict[str, Tensor] = {}
    policy = trained.policy

    def observe(name: str, block: AttentionBlock, x_BCHW: Tensor) -> None:
        seen[name] = map_of(block, x_BCHW)

    with observing(policy.place(trained.model), observe):
        logits_1K = predict_logits(trained.model, pixels[None], trained.contract, policy)
    probabilities_K = (torch.from_numpy(logits_1K[0]).double() / trained.temperature).softmax(dim=0)
    best = int(probabilities_K.argmax())
    probability, threshold = float(probabilities_K[best]), trained.threshold
    return Explanation(
        image,
        trained.name,
        pixels,
        trained.contract.class_names[best],
        probability,
        None if threshold is None else probability >= threshold,
        tuple(
            BlockMap(_place(name), _kind(blocks[name]), weights[0].float().numpy(), _gain(block))
            for name, weights in seen.items()
            for block in [blocks[name]]
        ),
    )


def _place(name: str) -> str:
    """Return the place of a block: the module it is attached to, or its own name."""
    return name.partition(f".{CHILD}")[0]


def _kind(block: AttentionBlock) -> str:
    """Return a block's registered name, or its class's."""
    inner = block.block if isinstance(block, FromIdentity) else block
    found = (name for name, known in ATTENTION.items() if known is type(inner))
    return next(found, type(inner).__name__)


def _gain(block: AttentionBlock) -> float | None:
    return block.gain.item() if isinstance(block, FromIdentity) else None

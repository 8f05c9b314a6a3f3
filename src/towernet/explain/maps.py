"""What a trained run says of one image, and what each of its attention blocks made of it.

Shapes: S the side of the image, C channels, H × W positions of a map.
"""

from __future__ import annotations

from dataclasses import dataclass
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
from towernet.predict import fitted_pictures, load_trained


@dataclass(frozen=True)
class BlockMap:
    """The attention map of one block for one image.

    Args:
        place: The module it is, or stands behind, as in the network's state.
        block: What it is called.
        weights_CHW: Its weights; C, or H and W, are 1 where all channels, or positions, share one.
        gain: By how much it is blended in, None where it is there in full.
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
        """Whether it tells positions apart, and not channels alone."""
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
    """What a run says of an image, and the maps that were at work.

    Args:
        image: The image's file.
        network: The network's name.
        pixels_SS3: The image as the network sees it.
        class_name: What it says, and how sure it is in [0, 1].
        probability: How sure it is.
        sure: Whether it is to be believed; None where nobody knows.
        maps: One for each block, in the order they run.
    """

    image: Path
    network: str
    pixels_SS3: UInt8[npt.NDArray[np.uint8], "S S 3"]
    class_name: str
    probability: float
    sure: bool | None
    maps: tuple[BlockMap, ...]


def explain(folder: Path, image: Path) -> Explanation:
    """Ask a trained run, or a comparison's winner, what an image is and where its attention went.

    Args:
        folder: The run's or the comparison's.
        image: The image's file.

    Raises:
        DataError: there is no finished run, or the image cannot be used.
        ConfigError: the network has no attention blocks.
    """
    trained = load_trained(folder)
    blocks = attention_blocks(trained.model)
    if not blocks:
        raise ConfigError(
            f"{trained.name} in {trained.folder} has no attention to draw; train a network that"
            f" has, by --model {trained.name.base}+se or towernet (`towernet attention` lists the"
            " blocks)"
        )
    ((_, pixels),) = fitted_pictures(trained.contract, [image])
    if isinstance(pixels, DataError):
        raise pixels
    seen: dict[str, Tensor] = {}
    policy = trained.policy

    def look(name: str, block: AttentionBlock, x_BCHW: Tensor) -> None:
        seen[name] = map_of(block, x_BCHW)

    with observing(policy.place(trained.model), look):
        logits_1K = predict_logits(trained.model, pixels[None], trained.contract, policy)
    said_K = (torch.from_numpy(logits_1K[0]).double() / trained.temperature).softmax(dim=0)
    best = int(said_K.argmax())
    probability, threshold = float(said_K[best]), trained.threshold
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
    """Return where a block is: the module behind which it was attached, or its own name."""
    return name.partition(f".{CHILD}")[0]


def _kind(block: AttentionBlock) -> str:
    """Return a block's registered name, or its class's."""
    inner = block.block if isinstance(block, FromIdentity) else block
    found = (name for name, known in ATTENTION.items() if known is type(inner))
    return next(found, type(inner).__name__)


def _gain(block: AttentionBlock) -> float | None:
    return block.gain.item() if isinstance(block, FromIdentity) else None

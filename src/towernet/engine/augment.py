"""Augmentation of a whole batch from given draws: one warp, then one map of the colours.

Crop, mirror and rotation are one affine map from output to input positions, so a pixel is
interpolated once. Nothing is drawn here: the numbers come from `towernet.rng`, keyed by the
image's content. On a CPU the kernels of `towernet.native` do the same in a seventh of the time.

Shapes: B images, S their stored side, O the output side, C = 3 channels, D = 8 draws.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import scipy.special
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from towernet import rng
from towernet.config import AugmentConfig
from towernet.native import ops

NUM_DRAWS = 8


def draws(seed: int, epoch: int, item_keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """Return (B, D) numbers in [0, 1): all the randomness that `augment` uses."""
    return rng.uniform(seed, epoch, item_keys, "augment", NUM_DRAWS)


def affine_maps(
    draws_BD: npt.NDArray[np.float64], config: AugmentConfig, size_px: int
) -> Float[Tensor, "B 2 3"]:
    """Return the maps from output to input positions, both in [-1, 1] across the image."""
    area, shape, left, top, mirror, turn = draws_BD.T[:6]
    area = config.crop_scale_min + (1 - config.crop_scale_min) * area
    ratio = np.exp((2 * shape - 1) * math.log(config.crop_ratio_max))
    width, height = np.minimum(np.sqrt(area * ratio), 1), np.minimum(np.sqrt(area / ratio), 1)
    centre_x, centre_y = (1 - width) * (2 * left - 1), (1 - height) * (2 * top - 1)
    sign = np.where(config.flip & (mirror < 0.5), -1.0, 1.0)
    angle = np.radians(config.rotation_degrees) * (2 * turn - 1)
    cos, sin = np.cos(angle), np.sin(angle)
    # OpenCV rotates about pixel (w/2, h/2), half a pixel off the centre; the notebook used it.
    pivot = 1 / size_px if config.interpolation == "nearest" else 0.0
    rows = [
        [cos * width * sign, -sin * height, centre_x + pivot * (1 - cos + sin)],
        [sin * width * sign, cos * height, centre_y + pivot * (1 - cos - sin)],
    ]
    return torch.from_numpy(np.array(rows).transpose(2, 0, 1)).float()


def colour_maps(
    draws_BD: npt.NDArray[np.float64], config: AugmentConfig
) -> tuple[Float[Tensor, "B 3 3"], Float[Tensor, " B"]]:
    """Return a linear map of the colours for each image, and a contrast factor to apply next."""
    brightness, contrast = 2 * draws_BD[:, 6:8].T - 1
    colours = np.eye(3) * (1 + config.brightness * brightness)[:, None, None]
    contrasts = 1 + config.contrast * contrast
    return torch.from_numpy(colours).float(), torch.from_numpy(contrasts).float()


def training_input(
    stored_NSSC: npt.NDArray[np.uint8] | UInt8[Tensor, "N S S 3"],
    rows_B: npt.NDArray[np.int64],
    draws_BD: npt.NDArray[np.float64],
    config: AugmentConfig,
    *,
    size_px: int,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    device: str = "cpu",
    kernels: bool = False,
) -> Float[Tensor, "B 3 O O"]:
    """Return augmented, normalised images.

    Args:
        stored_NSSC: All the cached pixels, memory-mapped or on the device.
        rows_B: Which of them.
        draws_BD: From `draws`.
        config: Which augmentations, and how strong.
        size_px: O, the side of the output.
        mean: Of each channel, as a fraction of white.
        std: Of each channel.
        device: Where the images should be.
        kernels: Use the C kernels, on a CPU, instead of torch's operations.
    """
    if kernels:
        assert isinstance(stored_NSSC, np.ndarray) and device == "cpu"
        colours_B33, contrasts_B = colour_maps(draws_BD, config)
        return ops.augment(
            stored_NSSC,
            rows_B,
            affine_maps(draws_BD, config, size_px),
            colours_B33,
            contrasts_B,
            size_px=size_px,
            mean=mean,
            std=std,
            nearest=config.interpolation == "nearest",
            clip=changes_colours(config),
        )
    images_BSSC = (
        torch.from_numpy(stored_NSSC[rows_B]).to(device)
        if isinstance(stored_NSSC, np.ndarray)
        else stored_NSSC[torch.from_numpy(rows_B).to(stored_NSSC.device)]
    )
    return normalise(augment(images_BSSC, draws_BD, config, size_px=size_px), mean, std)


def changes_colours(config: AugmentConfig) -> bool:
    """Whether the colours are changed at all."""
    return bool(config.brightness or config.contrast)


def augment(
    images_BSSC: UInt8[Tensor, "B S S 3"],
    draws_BD: npt.NDArray[np.float64],
    config: AugmentConfig,
    *,
    size_px: int,
) -> Float[Tensor, "B 3 O O"]:
    """Return the augmented batch as values in [0, 1], determined by the given draws.

    Args:
        images_BSSC: The cached pixels.
        draws_BD: From `draws`.
        config: Which augmentations, and how strong.
        size_px: O, the side of the output.
    """
    x_BCSS = images_BSSC.permute(0, 3, 1, 2).float().contiguous().div_(255)
    theta_B23 = affine_maps(draws_BD, config, size_px).to(x_BCSS.device)
    grid_BOO2 = F.affine_grid(theta_B23, [len(x_BCSS), 3, size_px, size_px], align_corners=False)
    nearest = config.interpolation == "nearest"
    x_BCOO = F.grid_sample(
        x_BCSS,
        grid_BOO2,
        mode=config.interpolation,
        # The notebook has black corners; a reflection adds no edge.
        padding_mode="zeros" if nearest else "reflection",
        align_corners=False,
    )
    if changes_colours(config):
        colours_B33, contrasts_B = (
            maps.to(x_BCOO.device) for maps in colour_maps(draws_BD, config)
        )
        x_BCOO = torch.einsum("bij,bjhw->bihw", colours_B33, x_BCOO)
        mean_B111 = x_BCOO.mean(dim=(1, 2, 3), keepdim=True)
        contrasts_B111 = contrasts_B[:, None, None, None]
        x_BCOO = x_BCOO.sub_(mean_B111).mul_(contrasts_B111).add_(mean_B111).clamp_(0, 1)
    return x_BCOO


def normalise(
    x_BCHW: Float[Tensor, "B 3 H W"],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Float[Tensor, "B 3 H W"]:
    """Subtract the mean and divide by the standard deviation of each channel."""
    mean_C, std_C = (
        torch.tensor(mean, device=x_BCHW.device),
        torch.tensor(std, device=x_BCHW.device),
    )
    return (x_BCHW - mean_C[:, None, None]) / std_C[:, None, None]


def mixing_shares(
    seed: int, epoch: int, item_keys: npt.NDArray[np.uint64], alpha: float
) -> npt.NDArray[np.float64]:
    """Return (B,) the share of each image in its mix: the larger part of a Beta draw."""
    uniform_B = rng.uniform(seed, epoch, item_keys, "mixup")[:, 0]
    share_B = scipy.special.betaincinv(alpha, alpha, uniform_B)
    return np.asarray(np.maximum(share_B, 1 - share_B))


def mix(x: Tensor, shares_B: Float[Tensor, " B"]) -> Tensor:
    """Mix each row, an image or a target, with the next one; the last with the first.

    On a CPU this overwrites `x`.
    """
    if x.device.type != "cpu":
        shares = shares_B.reshape(-1, *[1] * (x.dim() - 1))
        mixed: Tensor = torch.lerp(torch.cat([x[1:], x[:1]]), x, shares)
        return mixed
    # Row by row, within the processor's cache: the same numbers in less than half the time.
    following = [*x[1:], x[0].clone()]
    for row, other, share in zip(x, following, shares_B.tolist(), strict=True):
        torch.lerp(other, row, share, out=row)
    return x


def to_input(
    images_BSSC: UInt8[Tensor, "B S S 3"],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Float[Tensor, "B 3 S S"]:
    """Turn fitted pixels into a network's input; evaluation, prediction and parity use this."""
    return normalise(images_BSSC.permute(0, 3, 1, 2).float() / 255, mean, std)

"""Embedded colour profiles (ICC): colours are converted to sRGB where the profile differs from it.

By lcms2, relative colorimetric with black point compensation. A profile that means sRGB changes
nothing: it is recognised by what it does to a grid of colours, not by its name.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

MAX_PROFILE_BYTES = 4_000_000
"""Larger profiles are ignored."""
_SAME_LEVELS = 2  # of 255: a profile that changes no colour by more means sRGB
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION
_SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_DEVICES = ("scnr", "mntr", "prtr", "spac")
_NUM_KEPT = 16

Convert = Callable[[Image.Image], Image.Image]


class UnusableProfile(Exception):
    """A profile is damaged, too large, or of another kind of colours."""


def conversion(profile: object, mode: str) -> Convert | None:
    """Return the conversion of an image's colours to sRGB; None if the profile means sRGB.

    Args:
        profile: The bytes of the profile.
        mode: L, RGB or CMYK: what the image's pixels are. What is returned takes such images, and
            returns RGB.

    Raises:
        UnusableProfile: it is to be ignored.
    """
    if not isinstance(profile, bytes) or not 128 <= len(profile) <= MAX_PROFILE_BYTES:
        raise UnusableProfile
    return _conversion(_Hashed(profile), mode)


class _Hashed:
    """A profile that is kept by its hash: the cache holds no copies of large ones."""

    def __init__(self, profile: bytes) -> None:
        self.profile: bytes | None = profile
        self.digest = hashlib.sha256(profile).digest()

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashed) and other.digest == self.digest


@lru_cache(maxsize=_NUM_KEPT)
def _conversion(hashed: _Hashed, mode: str) -> Convert | None:
    assert hashed.profile is not None
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(hashed.profile))
        space = _SPACES[opened.profile.xcolor_space]
        if opened.profile.device_class not in _DEVICES:
            raise UnusableProfile
        if space != mode and (mode, space) != ("L", "RGB"):
            raise UnusableProfile
        transform = ImageCms.buildTransform(
            opened,
            ImageCms.createProfile("sRGB"),
            space,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            _FLAGS | (ImageCms.Flags.NOOPTIMIZE if space == "L" else 0),
        )
        converted = ImageCms.applyTransform(_probe(space), transform)
    except UnusableProfile:
        raise
    except Exception as error:  # PyCMSError, OSError, KeyError, ValueError …
        raise UnusableProfile from error
    hashed.profile = None
    assert converted is not None
    if space != "CMYK":
        levels = np.asarray(_probe(space).convert("RGB")).astype(int)
        if np.abs(np.asarray(converted) - levels).max() <= _SAME_LEVELS:
            return None

    def convert(image: Image.Image) -> Image.Image:
        result = ImageCms.applyTransform(image.convert(space), transform)
        assert result is not None
        return result

    return convert


def _probe(space: str) -> Image.Image:
    """Return an image of colours all over the space."""
    if space == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    steps = np.linspace(0, 255, 17 if space == "RGB" else 5).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(*[steps] * len(space), indexing="ij"), -1)
    return Image.fromarray(grid.reshape(len(steps), -1, len(space)), space)

"""What a run decides about pixels, in one place. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from towernet.records.contract import Contract

RGB = tuple[int, int, int]

MAX_PIXELS = 89_478_485
"""The most pixels an image can have; more counts as a decompression bomb. [Pillow's own limit]"""
MAX_BYTES = 320_000_000
"""The most memory that decoding can take: 70 million pixels of PNG, 19 of WebP. (Together with its
process and the command that started it this stays below 600 MB.)"""
MIN_SIDE_PX, MAX_ASPECT = 8, 20.0
BYTES_PER_PIXEL = 20
"""The memory that is granted for each pixel where the user raises the limit of pixels."""


@dataclass(frozen=True)
class Rules:
    """How a file becomes pixels. The defaults are the rules before there was a choice.

    Args:
        background: RGB that transparent pixels are blended onto.
        colour_profile: srgb: colours are converted from the embedded profile to sRGB. ignored.
        value_range: Values of more than 8 bits that become black and white; None: each file has its
            own range.
        whole_depth: All bits of 16-bit colours count, as those of grey, and a few extreme pixels
            do not decide a file's own range. Without it 16-bit colours keep their upper 8 bits.
        more_files: PNM and HEIC are read, and JPEGs are judged by the size they are decoded at.
        max_pixels: More are refused, from the header alone.
        min_side_px: The shorter side must have at least this many pixels.
        max_aspect: The longer side can be at most this many times the shorter.
    """

    background: RGB = (255, 255, 255)
    colour_profile: str = "ignored"
    value_range: tuple[float, float] | None = None
    whole_depth: bool = False
    more_files: bool = False
    max_pixels: int = MAX_PIXELS
    min_side_px: int = MIN_SIDE_PX
    max_aspect: float = MAX_ASPECT

    @property
    def max_bytes(self) -> int:
        """The memory limit of decoding: raised where the limit of pixels is set."""
        usual = self.max_pixels == MAX_PIXELS
        return MAX_BYTES if usual else max(MAX_BYTES, BYTES_PER_PIXEL * self.max_pixels)


def of_contract(contract: Contract, limits: Rules | None = None) -> Rules:
    """Return the rules of a trained run; it reads all formats that are read today.

    Args:
        contract: Of the run.
        limits: Rules with the limits that were asked for; None: the usual ones.
    """
    return Rules(
        background=contract.background,
        colour_profile=contract.colour_profile,
        value_range=contract.value_range,
        whole_depth=contract.colour_profile != "ignored",
        more_files=True,
        max_pixels=limits.max_pixels if limits else MAX_PIXELS,
    )


BEFORE = Rules()
NOW = Rules(colour_profile="srgb", whole_depth=True, more_files=True)
"""The rules of new runs; the range of values is chosen from their images."""

"""The embedded default: scikit-learn's 1,797 real handwritten digits, enlarged, as PNG files.

Source: E. Alpaydin, C. Kaynak. Optical Recognition of Handwritten Digits. UCI Machine Learning
Repository, 1998; its test part, 8 × 8 pixels of 17 grey levels, as scikit-learn distributes it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from towernet import files
from towernet.data.archive import make_folder

NUM_IMAGES = 1797
SIZE_PX = 64  # the 8 × 8 pixels are enlarged smoothly, without blocks
VERSION = 1  # of the files; part of their folder's name


def digits_folder() -> Path:
    """Write the digits into the cache once, a sub-folder per digit; safe with concurrent processes.

    Raises:
        EnvironmentFault: the cache cannot be written.
    """
    folder = files.cache_folder() / f"digits-{VERSION}"
    with files.lock(folder.with_suffix(".lock"), holder=str(folder), wait=True):
        if not _is_complete(folder):
            make_folder(folder, _write_digits)
    return folder


def _is_complete(folder: Path) -> bool:
    """Whether all files are there: a power loss can leave some empty, a user can remove some."""
    sizes = [file.stat().st_size for file in folder.glob("[0-9]/*.png")]
    return len(sizes) == NUM_IMAGES and all(sizes)


def _write_digits(folder: Path) -> None:
    # scikit-learn takes a second to import, and only the first use needs it.
    from sklearn.datasets import load_digits

    digits = load_digits()
    for digit in range(10):
        (folder / str(digit)).mkdir()
    for index, (levels_HW, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        pixels_HW = np.round(levels_HW * (255 / 16)).astype(np.uint8)
        image = Image.fromarray(pixels_HW).resize((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC)
        image.save(folder / str(digit) / f"{index:04d}.png")

"""HEIC files (made with pillow-heif 1.8), decoded where pi-heif is installed.

Shapes: 40 × 48 pixels in blocks of 8 × 8, of one colour each.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hostile_images import DAMAGE
from picture_cases import blocks, on_white, pale, upright
from profiles import to_srgb
from towernet.data import formats
from towernet.data.check import check
from towernet.data.decode import VERSION, decode
from towernet.data.formats import BadImage
from towernet.data.rules import BEFORE, NOW
from towernet.data.source import open_source

FILES = Path(__file__).parent / "heic"
PLAIN = (FILES / "plain.heic").read_bytes()

needs_heif = pytest.mark.skipif(not formats.has_heif(), reason="needs pi-heif")


EXPECTED = {
    "plain": (pale(), ()),
    "grey": (np.repeat(pale()[..., :1], 3, -1), ()),
    "ten-bits": (pale(), ()),
    "frames": (pale(), ("FIRST_FRAME",)),
    "alpha": (on_white(pale(), blocks(4)[..., 3]), ("ALPHA",)),
    "profile": (to_srgb(pale()), ("ICC_CONVERTED",)),
    "turned3": (upright(pale(), 3), ()),
    "turned6": (upright(pale(), 6), ()),
    "turned7": (upright(pale(), 7), ()),
}


@needs_heif
@pytest.mark.parametrize("name", EXPECTED)
def test_every_kind_is_read_and_turned_once(name):
    expected, notes = EXPECTED[name]
    decoded = decode((FILES / f"{name}.heic").read_bytes(), NOW)
    assert np.abs(decoded.pixels - expected.astype(float)).max() <= 3
    assert (decoded.height, decoded.width) == expected.shape[:2]
    assert (decoded.format, decoded.notes) == ("HEIF", notes)


@needs_heif
def test_the_version_is_part_of_every_key():
    from importlib.metadata import version

    assert VERSION.endswith(version("pi-heif"))


@needs_heif
def test_limits_are_those_of_other_formats():
    from dataclasses import replace

    for rules, max_bytes, reason in (
        (replace(NOW, max_pixels=1000), 10**9, "PIXELS"),
        (replace(NOW, min_side_px=45), 10**9, "SHAPE"),
        (NOW, 5000, "RESOURCE"),
        (BEFORE, 10**9, "FORMAT"),
    ):
        with pytest.raises(BadImage) as caught:
            decode(PLAIN, rules, max_bytes=max_bytes)
        assert caught.value.reason == reason


@needs_heif
def test_damaged_ones_are_used_or_have_a_reason(tmp_path):
    """libheif can crash on them, which ends one worker process and no other file."""
    rng = np.random.default_rng(2)
    contents = [path.read_bytes() for path in sorted(FILES.iterdir())]
    for name in "ab":
        (tmp_path / name).mkdir()
    for i in range(60):
        damaged = DAMAGE[rng.integers(len(DAMAGE))](contents[i % len(contents)], rng) or b"\0"
        (tmp_path / "ab"[i % 2] / f"{i}.heic").write_bytes(damaged)
    for i in range(6):
        (tmp_path / "ab"[i % 2] / f"good{i}.heic").write_bytes(PLAIN + bytes([i]))
    table = check(open_source(str(tmp_path)), workers=2)
    assert len(table) == 66
    assert ((table.reason == "") == (table.status == "used")).all()
    good = table[table.path.str.contains("good")]
    assert (good.status == "used").all()


WITHOUT = """
import importlib.abc, sys

class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "pi_heif":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hidden())
from towernet.data.decode import decode
from towernet.data.rules import NOW
try:
    decode(open(sys.argv[1], "rb").read(), NOW)
except Exception as error:
    print(error.reason, error.detail)
"""


def test_without_it_the_message_says_what_to_install():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, FILES / "plain.heic"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "FORMAT HEIC: install pi-heif, or convert it to JPEG or PNG\n"

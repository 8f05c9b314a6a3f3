"""PBM, PGM and PPM files: every kind, as numpy reads them, and damaged ones."""

import io

import numpy as np
import pytest
from PIL import Image

from hostile_images import DAMAGE
from picture_cases import HEIGHT, WIDTH, noise, packed
from towernet.data.check import check
from towernet.data.decode import decode
from towernet.data.formats import BadImage
from towernet.data.rules import BEFORE, NOW
from towernet.data.source import open_source

SIZE = b"%d %d\n" % (WIDTH, HEIGHT)


def plain(values):
    return b" ".join(b"%d" % value for value in values.ravel())


def wide(channels, top):
    return noise(channels, top + 1, np.uint16)


BITS = noise(1, 2)
KINDS = {
    "P1": (b"P1\n" + SIZE + plain(BITS), 255 - BITS * 255),
    "P1 without blanks": (b"P1\n" + SIZE + plain(BITS).replace(b" ", b""), 255 - BITS * 255),
    "P2": (b"P2\n" + SIZE + b"255\n" + plain(noise(1)), noise(1)),
    "P2 of 12 bits": (b"P2 " + SIZE + b"4095\n" + plain(wide(1, 4095)), wide(1, 4095) / 4095 * 255),
    "P3": (b"P3\n" + SIZE + b"255\n" + plain(noise(3)), noise(3)),
    "P3 of 4 bits": (b"P3\n" + SIZE + b"15\n" + plain(noise(3, 16)), noise(3, 16) * 17.0),
    "P4": (b"P4\n" + SIZE + b"".join(packed(BITS, 1)), 255 - BITS * 255),
    "P5": (b"P5\n" + SIZE + b"255\n" + noise(1).tobytes(), noise(1)),
    "P5 of 6 bits": (b"P5\n" + SIZE + b"63\n" + noise(1, 64).tobytes(), noise(1, 64) / 63 * 255),
    "P5 of 12 bits": (
        b"P5\n" + SIZE + b"4095\n" + wide(1, 4095).astype(">u2").tobytes(),
        wide(1, 4095) / 4095 * 255,
    ),
    "P5 of 16 bits": (
        b"P5\n" + SIZE + b"65535\n" + wide(1, 65535).astype(">u2").tobytes(),
        wide(1, 65535) / 257,
    ),
    "P6": (b"P6\n" + SIZE + b"255\n" + noise(3).tobytes(), noise(3)),
    "P6 of 12 bits": (
        b"P6\n" + SIZE + b"4095\n" + wide(3, 4095).astype(">u2").tobytes(),
        wide(3, 4095) / 4095 * 255,
    ),
    "P6 with comments": (
        b"P6\n# by a camera\n" + SIZE + b"# white\n255\n" + noise(3).tobytes(), noise(3),
    ),
    "P6 with a comment at once": (b"P6#x\n" + SIZE + b"255\n" + noise(3).tobytes(), noise(3)),
    "P3 with comments": (
        b"P3\n" + SIZE + b"255\n# row\n" + plain(noise(3)) + b"\n# the end", noise(3),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_read(name):
    content, expected = KINDS[name]
    expected = np.repeat(expected[..., None], 3, -1) if expected.ndim == 2 else expected
    decoded = decode(content, NOW)
    assert decoded.format == "PPM"
    assert np.abs(decoded.pixels - expected.astype(float)).max() <= 1
    assert ("SIXTEEN_BIT" in decoded.notes) == ("of 12" in name or "of 16" in name)


def test_a_bright_one_is_no_text():
    content = b"P6 40 20 255\n" + b"\xc8" * 2400
    assert (decode(content, NOW).pixels == 200).all()
    with pytest.raises(BadImage, match=r"^PPM: convert it to JPEG or PNG"):
        decode(content, BEFORE)


def test_what_is_no_pnm_is_named():
    for content, words in (
        (b"PF\n4 4\n-1.0\n" + bytes(192), "PFM: convert"),
        (b"P7\nWIDTH 4\n", "PAM: convert"),
        (b"P6 is a word\n", "text, not an image"),
        (b"Photos of cats\n", "text, not an image"),
        (b"P5 9999999 9999999 255\n", "look like an attack"),
    ):
        with pytest.raises(BadImage, match=words):
            decode(content, NOW)


@pytest.mark.parametrize("name", KINDS)
def test_damage_raises_only_bad_image(name):
    rng = np.random.default_rng(7)
    content, whole = KINDS[name][0], decode(KINDS[name][0], NOW).pixels
    for length in np.linspace(1, len(content) - 60, 20).astype(int):
        try:
            pixels = decode(content[:length], NOW).pixels
        except BadImage as error:
            assert error.reason in ("TRUNCATED", "CORRUPT", "FORMAT")
        else:
            assert (pixels == whole).all(), length
    for _ in range(60):
        damaged = DAMAGE[rng.integers(len(DAMAGE))](content, rng) or b"\0"
        try:
            assert decode(damaged, NOW).pixels.shape[2] == 3
        except BadImage as error:
            assert "\n" not in error.detail


def test_they_are_used_by_their_usual_names(tmp_path):
    for i, suffix in enumerate(("ppm", "pgm", "pbm", "pnm")):
        for name in "ab":
            (tmp_path / name).mkdir(exist_ok=True)
            stream = io.BytesIO()
            image = Image.fromarray(np.full((20, 30), 50 * i + ord(name), np.uint8))
            image.convert("1" if suffix == "pbm" else "L").save(stream, "PPM")
            (tmp_path / name / f"{i}.{suffix}").write_bytes(stream.getvalue())
    table = check(open_source(str(tmp_path)), workers=1)
    assert set(table.status) <= {"used", "ignored", "quarantined"}
    assert (table.status == "used").sum() >= 6  # the two of one bit can be equal
    assert not table.notes.str.contains("WRONG_EXTENSION").any()

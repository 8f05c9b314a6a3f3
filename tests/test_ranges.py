"""Pictures of more than 8 bits come out on one scale, grey and colour alike."""

import io
import struct
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from picture_cases import CASES, png, tiff
from towernet.cli.check import summarise
from towernet.config import DataConfig
from towernet.data.check import check
from towernet.data.decode import decode
from towernet.data.deep import usual_extremes, usual_range
from towernet.data.prepare import prepare, sample_table
from towernet.data.ranges import chosen_range, ranges_of_classes, rules_for
from towernet.data.rules import BEFORE, NOW, of_contract
from towernet.data.source import open_source
from towernet.records.reading import Reading

EXPOSURES = (0.25, 0.5, 0.75, 1.0)
HEIGHT, WIDTH = 40, 48  # of the files that are written byte by byte


def scene(exposure, channels=1, hot=True):
    """A 12-bit scene of values up to 3,900, with one hot pixel."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    light = 1800 + 2000 * np.sin(x / 9 + 1) * np.cos(y / 7) ** 2 + 30 * np.cos(y)
    values = np.stack([light * (1 - 0.2 * c) for c in range(channels)], -1).clip(400, 3900)
    values = (values * exposure).round().astype(np.uint16)
    if hot:
        values[3, 5] = 60_000
    return values[..., 0] if channels == 1 else values


def grey_png(values):
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "PNG")
    return stream.getvalue()


def rows(values):
    return [row.astype(">u2").tobytes() for row in values]


def lzw_tiff(values):
    """A TIFF of 16-bit colours compressed by libtiff: Pillow compresses them as pairs of bytes."""
    as_bytes = values.astype("<u2").view(np.uint8).reshape(HEIGHT, WIDTH * 2, 3)
    stream = io.BytesIO()
    Image.fromarray(as_bytes).save(stream, "TIFF", compression="tiff_lzw")
    content = bytearray(stream.getvalue())
    at = struct.unpack_from("<I", content, 4)[0]
    for entry in range(at + 2, at + 2 + 12 * struct.unpack_from("<H", content, at)[0], 12):
        tag, _, _, field = struct.unpack_from("<HHII", content, entry)
        if tag == 256:  # half as many pixels
            content[entry + 2 : entry + 12] = struct.pack("<HII", 4, 1, WIDTH)
        if tag == 258:  # of 16 bits
            content[field : field + 6] = struct.pack("<3H", 16, 16, 16)
    return bytes(content)


KINDS = {
    "grey PNG": (1, grey_png),
    "grey PGM": (1, lambda values: b"P5 48 40 65535\n" + values.astype(">u2").tobytes()),
    "RGB PNG": (3, lambda values: png(16, 2, rows(values))),
    "RGBA PNG": (4, lambda values: png(16, 6, rows(opaque(values)))),
    "LA PNG": (2, lambda values: png(16, 4, rows(opaque(values)))),
    "RGB TIFF": (3, lambda values: tiff("<", [16] * 3, 2, [values.astype("<u2").tobytes()])),
    "RGB TIFF MM": (3, lambda values: tiff(">", [16] * 3, 2, [values.astype(">u2").tobytes()])),
    "RGB TIFF lzw": (3, lzw_tiff),
    "RGB TIFF planes": (
        3,
        lambda values: tiff(
            "<",
            [16] * 3,
            2,
            [np.ascontiguousarray(values[..., i]).astype("<u2").tobytes() for i in range(3)],
            planar=2,
        ),
    ),
    "RGB PPM": (3, lambda values: b"P6 48 40 65535\n" + values.astype(">u2").tobytes()),
}


def opaque(values):
    values = values.copy()
    values[..., -1] = 65535
    return values


def check_brightness_is_kept(folder, kind, decode_pixels):
    """The ratios of the brightness of one scene at four exposures, within 1 %."""
    channels, written = KINDS[kind]
    (folder / "a").mkdir(parents=True)
    (folder / "b").mkdir()
    contents = [written(scene(exposure, channels)) for exposure in EXPOSURES]
    for i, content in enumerate(contents):
        (folder / "ab"[i % 2] / f"{i}.img").write_bytes(content)
    table = check(open_source(str(folder)), workers=1)
    assert (table.status == "used").all(), list(table.detail)
    rules = rules_for(table, Reading())
    assert rules.value_range == (0.0, 4095.0)
    seen = [decode_pixels(content, rules)[8:, 8:].mean() for content in contents]
    true = [scene(exposure)[8:, 8:].mean() for exposure in EXPOSURES]
    assert np.array(seen) / seen[-1] == pytest.approx(np.array(true) / true[-1], rel=0.01)
    assert (decode_pixels(contents[0], rules)[3, 5] == 255).all()  # clipped above


@pytest.mark.parametrize("kind", KINDS)
def test_one_scene_at_four_exposures_keeps_its_brightness(tmp_path, kind):
    check_brightness_is_kept(
        tmp_path / "scenes", kind, lambda content, rules: decode(content, rules).pixels
    )


@pytest.mark.parametrize(
    ("kind", "sabotaged"),
    [
        ("grey PNG", BEFORE),
        ("grey PNG", NOW),
        ("RGB TIFF", BEFORE),
        ("RGB TIFF", NOW),
        ("RGB TIFF", replace(NOW, value_range=(0.0, 4095.0), whole_depth=False)),
    ],
)
def test_the_check_of_brightness_rejects_a_range_for_each_file(tmp_path, kind, sabotaged):
    with pytest.raises(AssertionError):
        check_brightness_is_kept(
            tmp_path / "scenes", kind, lambda content, rules: decode(content, sabotaged).pixels
        )


@pytest.mark.parametrize(
    ("low", "high", "is_float", "expected"),
    [
        (0, 0.9, True, (0, 1)),
        (0, 1, False, (0, 255)),
        (3, 256, False, (0, 1023)),
        (0, 4095, False, (0, 4095)),
        (0, 4096, False, (0, 16383)),
        (0, 65535, False, (0, 65535)),
        (-3, 5, True, (-3, 5)),
        (0, 70_000, False, (0, 70_000)),
    ],
)
def test_the_range_is_the_smallest_usual_one(low, high, is_float, expected):
    assert usual_range(float(low), float(high), is_float=is_float) == expected


def test_a_few_extreme_pixels_do_not_count_and_many_do():
    values = np.full((50, 50), 100, np.float32)
    values[0, :2] = 60_000, 0
    assert usual_extremes([values], 2500) == (100, 100)
    values[:5] = 60_000
    assert usual_extremes([values], 2500)[1] == 60_000
    small = np.full((8, 8), 7, np.float32)
    small[2, 2] = 900
    assert usual_extremes([small], 64) == (7, 7)


@pytest.fixture
def two_cameras(tmp_path):
    """Three splits; the test images, and only they, reach 16 bits; floats of another class."""
    rng = np.random.default_rng(0)
    for split, top in (("train", 1000), ("val", 4000), ("test", 60_000)):
        for name in ("a", "b"):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for i in range(3):
                values = rng.integers(0, top if name == "b" else min(top, 900), (30, 30))
                Image.fromarray(values.astype(np.uint16)).save(folder / f"{i}.png")
    return open_source(str(tmp_path / "data"))


def test_the_test_split_does_not_decide_and_the_classes_have_their_own(two_cameras):
    table = check(two_cameras, workers=1)
    assert chosen_range(table) == (0, 4095)
    assert ranges_of_classes(table) == {"a": (0, 1023), "b": (0, 4095)}
    assert chosen_range(table.assign(given_split="", split="")) == (0, 65535)


def warned_of_ranges(folder, ranges):
    """Whether `check` warns of float images with these ranges, one class each."""
    rng = np.random.default_rng(0)
    for name, (low, high) in zip("abc", ranges, strict=False):
        (folder / name).mkdir(parents=True)
        for i in range(3):
            values = rng.uniform(low, high, (30, 30)).astype(np.float32)
            Image.fromarray(values).save(folder / name / f"{i}.tif")
    source = open_source(str(folder))
    found = summarise(check(source, workers=1), source, (), None, resize="crop")
    return any("differ in the range" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("ranges", "warned"),
    [
        ([(-20, 37), (-20, 37), (-20, 37)], False),  # of chance, they differ a little
        ([(-20, 37), (-21, 39)], False),
        ([(0, 1), (0, 1)], False),
        ([(-20, 37), (-20, 15)], True),
        ([(-20, 37), (3, 37)], True),
        ([(0, 1), (0, 255)], True),
    ],
)
def test_only_ranges_that_differ_much_are_warned_of(tmp_path, ranges, warned):
    assert warned_of_ranges(tmp_path / "heat", ranges) == warned


@pytest.mark.parametrize(
    "sabotaged", [lambda ranges: len(set(ranges)) > 1, lambda ranges: False], ids=["exact", "never"]
)
def test_the_check_of_range_warnings_rejects_other_rules(tmp_path, monkeypatch, sabotaged):
    monkeypatch.setattr("towernet.data.ranges.differ", sabotaged)
    noise = warned_of_ranges(tmp_path / "noise", [(-20, 37), (-20, 37)])
    assert (noise, warned_of_ranges(tmp_path / "two", [(-20, 37), (3, 37)])) != (False, True)


@pytest.mark.parametrize(
    ("reading", "expected", "profile"),
    [
        (Reading(), (0, 4095), "srgb"),
        (Reading(white_level=2000), (0, 2000), "srgb"),
        (None, None, "ignored"),
    ],
)
def test_the_contract_has_the_range_and_a_single_file_is_scaled_by_it(
    two_cameras, reading, expected, profile
):
    table = sample_table(two_cameras, seed=0, images_per_class=None, reading=reading, workers=1)
    config = DataConfig(size_px=32)
    dataset = prepare(table, two_cameras, config, seed=0, reading=reading, workers=1)
    contract = dataset.contract
    assert (contract.value_range, contract.colour_profile) == (expected, profile)
    if expected:
        values = np.full((HEIGHT, WIDTH), 1000, np.uint16)
        decoded = decode(grey_png(values), of_contract(contract))
        assert decoded.pixels[0, 0, 0] == round(1000 / expected[1] * 255)


def test_values_of_8_bits_have_no_range():
    for name in ("RGB PNG", "L TIFF", "P GIF", "RGBA WEBP"):
        assert decode(CASES[name].content, NOW).values is None


def test_the_upper_bits_are_kept_and_noted_where_alpha_has_been_multiplied():
    values = np.full((HEIGHT, WIDTH, 4), 0x3000, "<u2")
    values[..., 3] = 65535
    decoded = decode(tiff("<", [16] * 4, 2, [values.tobytes()], extra=[1]), NOW)
    assert decoded.notes == ("SIXTEEN_BIT", "UPPER_BITS", "ALPHA")
    assert decoded.values == (0x3030, 0x3030)


def test_a_deep_tiff_in_which_0_is_white_looks_as_one_in_which_0_is_black():
    values = scene(EXPOSURES[-1])
    black, white = (
        tiff("<", [16], photometric, [pixels.astype("<u2").tobytes()])
        for photometric, pixels in ((1, values), (0, 4095 - values.clip(0, 4095)))
    )
    rules = replace(NOW, value_range=(0.0, 4095.0))
    pixels = [decode(content, rules).pixels.astype(int) for content in (white, black)]
    np.testing.assert_allclose(*pixels, atol=1)
    as_before = decode(white, BEFORE).pixels.astype(int)  # a run made before keeps its pixels
    assert abs(as_before - decode(black, BEFORE).pixels).max() > 100


@pytest.mark.parametrize(
    ("bits", "photometric", "extra", "noted"),
    [
        ([8] * 3, 2, [], False),
        ([8] * 4, 2, [2], False),  # alpha
        ([8] * 4, 2, [0], True),
        ([8] * 6, 2, [0] * 3, True),
        ([16] * 3, 2, [], False),
        ([16] * 4, 2, [0], True),
        ([8] * 4, 5, [], False),  # CMYK
    ],
)
def test_channels_that_are_left_out_are_noted(bits, photometric, extra, noted):
    values = np.full((HEIGHT, WIDTH, len(bits)), 100, f"<u{bits[0] // 8}")
    content = tiff("<", bits, photometric, [values.tobytes()], extra=extra)
    assert ("MORE_CHANNELS" in decode(content, NOW).notes) == noted
    assert "MORE_CHANNELS" not in decode(content, BEFORE).notes

"""The only decoder, against references in numpy, wherever it is used; and how images are fitted."""

import hashlib
import io
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops

from picture_cases import CASES, TOLERANCE
from towernet.data.decode import decode, fit
from towernet.data.examine import examine
from towernet.data.formats import BadImage
from towernet.data.rules import Rules
from towernet.data.workers import in_processes

HEIGHT, WIDTH = 13, 19
BACKGROUND = (250, 40, 90)


def pattern(channels=3, seed=1, height=HEIGHT, width=WIDTH):
    """Smooth enough for lossy formats, and different after every rotation or mirroring."""
    y, x = np.mgrid[:height, :width]
    planes = [(x * (9 + c) + y * (3 + 2 * c) + 17 * c * seed) % 256 for c in range(channels)]
    return np.stack(planes, axis=-1).astype(np.uint8)


def saved(image, file_format="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def close(pixels, expected, tolerance=1.0):
    assert pixels.dtype == np.uint8
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(float) - expected).max() <= tolerance


# --- every mode, format and orientation


def check_sees_what_numpy_sees(decode_pixels, case):
    """Every pixel is at most 2 of 255 away from the reference."""
    pixels = decode_pixels(case.content)
    assert pixels.dtype == np.uint8
    close(pixels, case.expected, TOLERANCE)


@pytest.mark.parametrize("name", CASES)
def test_every_picture_matches_the_numpy_reference(name):
    check_sees_what_numpy_sees(lambda content: decode(content).pixels, CASES[name])


def test_there_are_pictures_of_all_formats_and_orientations():
    assert len(CASES) >= 120
    decoded = [decode(case.content) for case in CASES.values()]
    assert {one.format for one in decoded} >= {"JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF"}
    modes = {"1", "L", "P", "PA", "LA", "RGB", "RGBA", "CMYK", "LAB", "YCbCr", "I;16", "I", "F"}
    assert {one.mode for one in decoded} >= modes
    assert sum("EXIF_ORIENTED" in one.notes for one in decoded) >= 7 * 6


@pytest.mark.parametrize(
    ("name", "sabotaged"),
    [
        ("turned 6 JPEG", lambda image: image.convert("RGB")),  # ignores the EXIF
        ("I;16 PNG", lambda image: image.convert("RGB")),  # clips 16 bits
        ("RGBA PNG", lambda image: image.convert("RGB")),  # drops the transparency
        ("P one clear GIF", lambda image: image.convert("RGB")),
        ("F signed TIFF", lambda image: image.convert("L").convert("RGB")),
        ("YCCK Adobe JPEG", lambda image: ImageChops.invert(image.convert("RGB"))),
    ],
)
def test_the_check_of_pictures_rejects_a_careless_decoder(name, sabotaged):
    with pytest.raises(AssertionError):
        check_sees_what_numpy_sees(
            lambda content: np.asarray(sabotaged(Image.open(io.BytesIO(content)))), CASES[name]
        )


def check_all_entries_agree(folder, decode_again, resize="pad", crop_share=1.0):
    """Checking, training, predicting and the report see the same bytes."""
    from torch import nn

    from towernet.data.cache import open_pixels
    from towernet.data.check import check
    from towernet.data.ranges import rules_for
    from towernet.data.source import open_source
    from towernet.engine.device import Policy
    from towernet.predict import Predictor, fitted_pictures
    from towernet.records.contract import Contract
    from towernet.report.pictures import pictures

    for i, case in enumerate(CASES.values()):
        (folder / ("even", "odd")[i % 2]).mkdir(parents=True, exist_ok=True)
        (folder / ("even", "odd")[i % 2] / f"{i:03d}.img").write_bytes(case.content)
    source = open_source(str(folder))
    table = check(source, workers=2)
    assert (table.status == "used").sum() > 100
    used = table[table.status == "used"]
    rules = rules_for(table, source.options)
    assert rules.value_range is not None
    trained_on = open_pixels(table, source, size_px=53, resize=resize, crop_share=crop_share,
                             rules=rules, workers=2)  # fmt: skip
    contract = Contract(
        ("even", "odd"), 53, resize, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2),
        value_range=rules.value_range, colour_profile="srgb", crop_share=crop_share,
    )  # fmt: skip
    predictor = Predictor(
        folder, nn.Identity(), contract, Policy("cpu", "float32", False, 1, "a test")
    )
    shown = pictures(source, rules)
    files = [folder / path for path in used.path]
    examined = dict(in_processes(partial(examine, rules=rules), files, workers=2))
    predicted = dict(fitted_pictures(contract, files))
    for i, (path, file) in enumerate(zip(used.path, files, strict=True)):
        pixels = decode_again(file.read_bytes(), rules)
        assert (shown(path) == pixels).all()
        assert (used.width.iloc[i], used.height.iloc[i]) == pixels.shape[1::-1]
        assert examined[i].pixel_id == sha256_of(pixels)
        expected = fit(pixels, 53, resize, crop_share=crop_share)
        assert (predictor.pixels(file.read_bytes()) == expected).all()
        assert (predicted[i] == expected).all()
        assert (trained_on[i] == expected).all()


def sha256_of(pixels):
    shape = "×".join(map(str, pixels.shape)).encode()
    return hashlib.sha256(shape + pixels.tobytes()).hexdigest()


@pytest.mark.parametrize(("resize", "crop_share"), [("pad", 1.0), ("crop", 0.8)])
def test_checking_training_predicting_and_the_report_see_the_same(tmp_path, resize, crop_share):
    check_all_entries_agree(
        tmp_path / "photos",
        lambda content, rules: decode(content, rules).pixels,
        resize,
        crop_share,
    )


def test_the_check_of_entries_rejects_a_different_decoder(tmp_path):
    def nearly(content, rules):
        pixels = decode(content, rules).pixels.copy()
        pixels[0, 0, 0] ^= 1
        return pixels

    with pytest.raises(AssertionError):
        check_all_entries_agree(tmp_path / "photos", nearly)


@pytest.mark.parametrize(
    ("name", "notes"),
    [
        ("RGB PNG", ()),
        ("RGBA PNG", ("ALPHA",)),
        ("P PNG", ("PALETTE",)),
        ("P alphas PNG", ("PALETTE", "ALPHA")),
        ("I;16 PNG", ("SIXTEEN_BIT",)),
        ("I;16 one clear PNG", ("SIXTEEN_BIT", "ALPHA")),
        ("I TIFF", ("THIRTY_TWO_BIT",)),
        ("F unit TIFF", ("FLOAT",)),
        ("YCCK Adobe JPEG", ("CMYK",)),
        ("turned 6 TIFF", ("EXIF_ORIENTED",)),
        ("frames WEBP", ("FIRST_FRAME",)),
        ("frames MPO", ("FIRST_FRAME",)),
    ],
)
def test_what_was_done_is_noted(name, notes):
    assert decode(CASES[name].content).notes == notes


@pytest.mark.parametrize("name", ["RGBA PNG", "P one clear GIF", "I;16 one clear PNG"])
def test_transparency_is_blended_onto_the_requested_background(name):
    on_white = decode(CASES[name].content).pixels.astype(float)
    on_black = decode(CASES[name].content, Rules(background=(0, 0, 0))).pixels
    clear = (on_white - on_black) / 255
    expected = on_black + clear * BACKGROUND
    close(decode(CASES[name].content, Rules(background=BACKGROUND)).pixels, expected, 1.5)
    assert clear.max() == 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.linspace(0, 1, 247), np.linspace(0, 255, 247)),
        (np.linspace(0, 250, 247), np.linspace(0, 250, 247)),
        (np.linspace(-3, 5, 247), np.linspace(0, 255, 247)),
        (np.linspace(0, 65535, 247), np.linspace(0, 255, 247)),
    ],
)
def test_floats_are_rescaled_by_the_range_they_fit(values, expected):
    image = Image.fromarray(values.reshape(HEIGHT, WIDTH).astype(np.float32))
    decoded = decode(saved(image, "TIFF"))
    close(decoded.pixels[..., 2], expected.reshape(HEIGHT, WIDTH), 0.51)
    assert decoded.notes == ("FLOAT",)


def test_nan_is_the_least_value_and_only_nan_is_refused():
    values = np.linspace(0, 1, 247).reshape(HEIGHT, WIDTH).astype(np.float32)
    values[5, 5] = np.nan
    assert (decode(saved(Image.fromarray(values), "TIFF")).pixels[5, 5] == 0).all()
    values[:] = np.nan
    with pytest.raises(BadImage, match="no pixel is a finite number"):
        decode(saved(Image.fromarray(values), "TIFF"))


# --- orientation, frames, size


def test_an_oriented_picture_has_a_note_and_its_displayed_size():
    exif = Image.Exif()
    exif[0x0112] = 6
    for file_format in ("JPEG", "PNG", "TIFF", "WEBP"):
        decoded = decode(saved(Image.fromarray(pattern()), file_format, exif=exif))
        assert (decoded.width, decoded.height) == (HEIGHT, WIDTH)
        assert decoded.pixels.shape == (WIDTH, HEIGHT, 3)
        assert decoded.notes == ("EXIF_ORIENTED",)


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0garbage that is no TIFF",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x05\0\x01\0\0\0\x1a\0\0\0\x01\0\0\0\0\0\0\0",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
    ],
)
def test_a_picture_with_damaged_exif_is_used_without_it(exif):
    plain = saved(Image.fromarray(pattern()), "JPEG")
    decoded = decode(saved(Image.fromarray(pattern()), "JPEG", exif=exif))
    assert (decoded.pixels == decode(plain).pixels).all()


def test_a_huge_jpeg_is_read_reduced_and_reports_its_full_size():
    content = saved(Image.new("L", (4400, 4200), 90), "JPEG")
    decoded = decode(content)
    assert decoded.pixels.shape == (2100, 2200, 3)
    assert (decoded.width, decoded.height, decoded.notes) == (4400, 4200, ("REDUCED",))
    close(decoded.pixels, np.full(decoded.pixels.shape, 90))


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16"])
def test_a_huge_picture_becomes_the_means_of_its_pixels(mode):
    height, width = 4001, 4003  # the last ones have fewer neighbours
    y, x = np.ogrid[:height, :width]
    values = ((x * 3 + y * 5 + x * y // 900) % 251).astype(np.float32)
    alpha = 255 - values // 4
    stored, expected = {
        "L": (values.astype(np.uint8), values),
        "I;16": ((values * 261).astype(np.uint16), values * 261 / 257),
        "RGBA": (
            np.stack([values] * 3 + [alpha], -1).astype(np.uint8),
            255 + (values - 255) * alpha / 255,
        ),
    }[mode]
    decoded = decode(saved(Image.fromarray(stored), "TIFF"))
    assert (decoded.width, decoded.height) == (width, height)
    assert "REDUCED" in decoded.notes
    padded = np.pad(expected, ((0, 1), (0, 1)), "edge")
    means = padded.reshape(2001, 2, 2002, 2).mean((1, 3))
    close(decoded.pixels, np.repeat(means[..., None], 3, -1), TOLERANCE)


# --- fit


def test_crop_keeps_the_centre_like_resizing_and_cutting():
    pixels = pattern(height=40, width=80)
    reference = Image.fromarray(pixels).resize((40, 20), Image.Resampling.BICUBIC)
    close(fit(pixels, 20, "crop"), np.asarray(reference)[:, 10:30].astype(float), 1)


def resized_then_cut(pixels, size_px, crop_share):
    """What most networks were trained with: the shorter side to 256, then the centre 224."""
    height, width = pixels.shape[:2]
    whole = round(size_px / crop_share)
    scale = whole / min(height, width)
    image = Image.fromarray(pixels).resize(
        (round(width * scale), round(height * scale)), Image.Resampling.BICUBIC
    )
    left, top = (image.width - size_px) // 2, (image.height - size_px) // 2
    return np.asarray(image.crop((left, top, left + size_px, top + size_px))).astype(float)


@pytest.mark.parametrize(("height", "width"), [(64, 128), (100, 64)])
def test_a_crop_share_keeps_the_middle_of_the_square(height, width):
    pixels = pattern(height=height, width=width)
    reference = resized_then_cut(pixels, 28, 224 / 256)
    close(fit(pixels, 28, "crop", crop_share=224 / 256), reference, 1)
    with pytest.raises(AssertionError):
        close(fit(pixels, 28, "crop"), reference, 1)


def test_a_crop_share_of_1_is_the_whole_square():
    pixels = pattern(height=41, width=80)
    assert (fit(pixels, 20, "crop", crop_share=1.0) == fit(pixels, 20, "crop")).all()


def test_crop_of_a_very_long_picture_is_its_centre():
    pixels = np.zeros((8, 20_000, 3), np.uint8)
    pixels[:, 9_996:10_004] = 200
    assert (fit(pixels, 256, "crop")[:, 100:150] == 200).all()


@pytest.mark.parametrize(("height", "width"), [(20, 60), (60, 20), (3, 301)])
def test_pad_shows_the_whole_picture_on_the_background(height, width):
    padded = fit(np.full((height, width, 3), 9, np.uint8), 30, "pad", BACKGROUND)
    inside = (padded == 9).all(-1)
    assert inside.sum() == 30 * max(1, round(30 * min(height, width) / max(height, width)))
    assert (padded[~inside] == BACKGROUND).all()
    assert inside[14:16, 14:16].any()


def test_squash_ignores_the_aspect_ratio():
    pixels = pattern(height=30, width=50)
    reference = Image.fromarray(pixels).resize((16, 16), Image.Resampling.BICUBIC)
    assert (fit(pixels, 16, "squash") == np.asarray(reference)).all()


def bilinear_in_loops(pixels, size_px):
    """OpenCV's INTER_LINEAR as documented: half-pixel centres, edges repeated."""
    height, width = pixels.shape[:2]
    out = np.zeros((size_px, size_px, 3))
    for row in range(size_px):
        for column in range(size_px):
            y = min(max((row + 0.5) * height / size_px - 0.5, 0), height - 1)
            x = min(max((column + 0.5) * width / size_px - 0.5, 0), width - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            down, along = y - top, x - left
            upper = pixels[top, left] * (1 - along) + pixels[top, right] * along
            lower = pixels[bottom, left] * (1 - along) + pixels[bottom, right] * along
            out[row, column] = upper * (1 - down) + lower * down
    return out


@pytest.mark.parametrize(("height", "width", "size_px"), [(13, 19, 31), (41, 67, 23), (9, 9, 9)])
def test_squash_linear_is_bilinear_without_antialiasing(height, width, size_px):
    pixels = np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = bilinear_in_loops(pixels, size_px)
    close(fit(pixels, size_px, "squash_linear"), expected, 0.501)
    if size_px < height:
        with pytest.raises(AssertionError):  # sabotaged: antialiasing is detected
            close(fit(pixels, size_px, "squash"), expected, 0.501)


# --- runs made before the rules could be chosen

GOLDEN = json.loads((Path(__file__).parent / "golden_pixels.json").read_text())


def golden_of(decoded):
    """The hash that the decoder of before made of a picture and what it said about it."""
    said = (decoded.pixels.shape, decoded.width, decoded.height, decoded.mode, decoded.format)
    words = repr((*said, decoded.notes)).encode()
    return hashlib.sha256(words + decoded.pixels.tobytes()).hexdigest()[:32]


def check_pixels_of_before(decode_pixels):
    """The same pixels, bit by bit, of every picture that this Pillow writes as that one did."""
    num = 0
    for name, (content_id, expected) in GOLDEN.items():
        case = CASES[name.removesuffix(" on colour")]
        background = BACKGROUND if name.endswith(" on colour") else (255, 255, 255)
        if hashlib.sha256(case.content).hexdigest()[:32] == content_id:
            num += 1
            assert golden_of(decode_pixels(case.content, Rules(background))) == expected, name
    assert num > 90


def test_a_run_made_before_gets_the_same_pixels():
    check_pixels_of_before(decode)


@pytest.mark.parametrize("change", [{"whole_depth": True}, {"value_range": (0.0, 65535.0)}])
def test_the_check_of_old_pixels_rejects_other_rules(change):
    with pytest.raises(AssertionError):
        check_pixels_of_before(lambda content, rules: decode(content, replace(rules, **change)))

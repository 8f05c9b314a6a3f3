"""The one decoder, against references in numpy and pictures made on the spot."""

import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from towernet.data.decode import BadImage, decode, fit

HEIGHT, WIDTH = 13, 19
BACKGROUND = (250, 40, 90)


def pattern(channels=3, seed=1, height=HEIGHT, width=WIDTH):
    """Smooth enough for lossy formats, and alike under no turn or mirror."""
    y, x = np.mgrid[:height, :width]
    planes = [(x * (9 + c) + y * (3 + 2 * c) + 17 * c * seed) % 256 for c in range(channels)]
    return np.stack(planes, axis=-1).astype(np.uint8)


def saved(image, file_format="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def composited(rgb, alpha, background=BACKGROUND):
    share = alpha.astype(float)[..., None] / 255
    return rgb * share + np.array(background) * (1 - share)


def close(pixels, expected, tolerance=1.0):
    assert pixels.dtype == np.uint8
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(float) - expected).max() <= tolerance


# --- modes


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "WEBP"])
def test_rgb_comes_back_as_it_is(file_format):
    options = {"lossless": True} if file_format == "WEBP" else {}
    decoded = decode(saved(Image.fromarray(pattern()), file_format, **options))
    assert (decoded.pixels == pattern()).all()
    assert (decoded.width, decoded.height) == (WIDTH, HEIGHT)
    assert (decoded.format, decoded.mode, decoded.notes) == (file_format, "RGB", ())


@pytest.mark.parametrize("file_format", ["JPEG", "AVIF"])
def test_lossy_formats_come_back_nearly(file_format):
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    smooth = np.stack([x * 5, y * 7, 200 - x * 3 - y], axis=-1).astype(np.uint8)
    options = {"subsampling": "4:4:4" if file_format == "AVIF" else 0}
    decoded = decode(saved(Image.fromarray(smooth), file_format, quality=95, **options))
    close(decoded.pixels, smooth, 12)
    assert decoded.format == file_format


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "GIF", "BMP", "JPEG"])
def test_grey_is_repeated(file_format):
    grey = pattern(1)[..., 0] // 4 * 2 + 60
    decoded = decode(saved(Image.fromarray(grey), file_format, quality=100))
    tolerance = 3 if file_format == "JPEG" else 0
    close(decoded.pixels, np.repeat(grey[..., None], 3, axis=-1), tolerance)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_laid_on_the_background(file_format):
    options = {"lossless": True, "exact": True} if file_format == "WEBP" else {}
    rgba = pattern(4)
    decoded = decode(saved(Image.fromarray(rgba), file_format, **options), background=BACKGROUND)
    close(decoded.pixels, composited(rgba[..., :3], rgba[..., 3]))
    assert decoded.notes == ("ALPHA",)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_grey_with_alpha_is_laid_on_the_background(file_format):
    grey, alpha = pattern(2)[..., 0], pattern(2)[..., 1]
    content = saved(Image.fromarray(np.stack([grey, alpha], -1), "LA"), file_format)
    decoded = decode(content, background=BACKGROUND)
    close(decoded.pixels, composited(np.repeat(grey[..., None], 3, -1), alpha))


def palette_image():
    index = (pattern(1)[..., 0] % 7).astype(np.uint8)
    colours = np.random.default_rng(0).integers(0, 256, (7, 3), dtype=np.uint8)
    image = Image.fromarray(index)
    image.putpalette(colours.tobytes())
    return image, index, colours


@pytest.mark.parametrize(
    ("file_format", "options"),
    [("PNG", {}), ("PNG", {"bits": 4}), ("GIF", {}), ("TIFF", {}), ("BMP", {})],
)
def test_palette_colours_are_looked_up(file_format, options):
    image, index, colours = palette_image()
    decoded = decode(saved(image, file_format, **options))
    assert (decoded.pixels == colours[index]).all()
    # A GIF may be decoded straight to RGB by Pillow's own strategy, the others keep their mode.
    assert "PALETTE" in decoded.notes


def test_a_palette_with_alpha_for_each_colour_is_composited():
    image, index, colours = palette_image()
    alphas = bytes([0, 40, 80, 120, 160, 200, 255])
    decoded = decode(saved(image, transparency=alphas), background=BACKGROUND)
    alpha = np.frombuffer(alphas, np.uint8)[index]
    close(decoded.pixels, composited(colours[index], alpha))
    assert decoded.notes == ("PALETTE", "ALPHA")


def test_one_transparent_palette_entry_is_composited():
    image, index, colours = palette_image()
    for file_format in ("PNG", "GIF"):
        decoded = decode(saved(image, file_format, transparency=3), background=BACKGROUND)
        expected = np.where((index == 3)[..., None], np.array(BACKGROUND), colours[index])
        close(decoded.pixels, expected, 0)


def test_a_transparent_colour_of_grey_and_rgb_is_composited():
    grey = pattern(1)[..., 0] % 5
    decoded = decode(saved(Image.fromarray(grey), transparency=2), background=BACKGROUND)
    expected = np.where((grey == 2)[..., None], np.array(BACKGROUND), grey[..., None])
    close(decoded.pixels, expected, 0)
    rgb = np.repeat(grey[..., None], 3, -1)
    decoded = decode(saved(Image.fromarray(rgb), transparency=(4, 4, 4)), background=BACKGROUND)
    close(decoded.pixels, np.where(rgb == 4, np.array(BACKGROUND), rgb), 0)


def test_one_bit_is_black_and_white():
    bits = pattern(1)[..., 0] > 90
    for file_format in ("PNG", "TIFF", "BMP"):
        decoded = decode(saved(Image.fromarray(bits), file_format))
        assert (decoded.pixels == bits[..., None] * np.uint8(255)).all()


def png_chunk(kind, content):
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def raw_png(width, height, depth, colour, rows, *extra):
    """A PNG written byte by byte: what Pillow reads but does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [png_chunk(b"IHDR", header), *extra, png_chunk(b"IDAT", body), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_two_bit_grey_is_spread_over_the_range():
    content = raw_png(8, 8, 2, 0, [bytes([0b00011011, 0b11100100])] * 8)
    row = np.array([0, 85, 170, 255, 255, 170, 85, 0])
    assert (decode(content).pixels == np.tile(row[None, :, None], (8, 1, 3))).all()


def gradient_16():
    return np.linspace(0, 65535, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint16)


def check_rescales_16_bits(decode_pixels):
    """16-bit values keep their order and their range."""
    values = gradient_16()
    expected = np.repeat(values[..., None] / 257, 3, -1)
    big = saved(Image.frombytes("I;16B", (WIDTH, HEIGHT), values.astype(">u2").tobytes()), "TIFF")
    for content in (
        saved(Image.fromarray(values), "PNG"),
        saved(Image.fromarray(values), "TIFF"),
        big,
    ):
        close(decode_pixels(content), expected, 0.5 + 1e-3)


def test_sixteen_bits_are_rescaled():
    check_rescales_16_bits(lambda content: decode(content).pixels)
    assert decode(saved(Image.fromarray(gradient_16()))).notes == ("SIXTEEN_BIT",)


def test_the_check_of_sixteen_bits_rejects_convert():
    def clipped(content):
        return np.asarray(Image.open(io.BytesIO(content)).convert("L").convert("RGB"))

    with pytest.raises(AssertionError):
        check_rescales_16_bits(clipped)


def test_sixteen_bit_colour_keeps_its_upper_bits_and_its_transparent_colour():
    values = np.stack([gradient_16(), gradient_16()[::-1], gradient_16()[:, ::-1]], -1)
    values[2, 3] = values[4, 5] = (1000, 2000, 3000)
    key = png_chunk(b"tRNS", struct.pack(">HHH", 1000, 2000, 3000))
    rows = [row.astype(">u2").tobytes() for row in values]
    expected = np.where((values == (1000, 2000, 3000)).all(-1, keepdims=True), 255, values / 257)
    close(decode(raw_png(WIDTH, HEIGHT, 16, 2, rows, key)).pixels, expected, 1)


def test_twelve_bits_in_sixteen_use_the_whole_range():
    values = gradient_16() >> 4
    close(decode(saved(Image.fromarray(values))).pixels[..., 0], values / 4095 * 255, 0.51)


def test_sixteen_bit_grey_with_a_transparent_level_is_composited():
    values = gradient_16()
    values[3] = 777
    key = png_chunk(b"tRNS", struct.pack(">H", 777))
    rows = [row.astype(">u2").tobytes() for row in values]
    decoded = decode(raw_png(WIDTH, HEIGHT, 16, 0, rows, key), background=BACKGROUND)
    assert (decoded.pixels[3] == BACKGROUND).all()
    close(np.delete(decoded.pixels, 3, 0)[..., 1], np.delete(values, 3, 0) / 257, 0.51)


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


def test_not_a_number_is_the_least_value_and_nothing_but_it_is_refused():
    values = np.linspace(0, 1, 247).reshape(HEIGHT, WIDTH).astype(np.float32)
    values[5, 5] = np.nan
    assert (decode(saved(Image.fromarray(values), "TIFF")).pixels[5, 5] == 0).all()
    values[:] = np.nan
    with pytest.raises(BadImage, match="no pixel holds a number"):
        decode(saved(Image.fromarray(values), "TIFF"))


def test_thirty_two_bit_integers_are_rescaled():
    values = np.linspace(-70_000, 90_000, 247).reshape(HEIGHT, WIDTH).astype(np.int32)
    decoded = decode(saved(Image.fromarray(values), "TIFF"))
    close(decoded.pixels[..., 0], np.linspace(0, 255, 247).reshape(HEIGHT, WIDTH), 0.52)
    assert decoded.notes == ("THIRTY_TWO_BIT",)


@pytest.mark.parametrize(("file_format", "tolerance"), [("TIFF", 2), ("JPEG", 14)])
def test_cmyk_is_converted(file_format, tolerance):
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    ink = np.stack([x * 6, y * 9, x * 3 + y * 4, y * 2], -1).astype(np.uint8)
    decoded = decode(saved(Image.fromarray(ink, "CMYK"), file_format, quality=98))
    paper = 255.0 - ink
    close(decoded.pixels, paper[..., :3] * paper[..., 3:] / 255, tolerance)
    assert decoded.notes == ("CMYK",)


def test_lab_and_ycbcr_are_converted():
    lab = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    lab[:, 9:, 0] = 255
    pixels = decode(saved(Image.fromarray(lab, "LAB"), "TIFF")).pixels
    assert pixels[:, :9].max() <= 2
    assert pixels[:, 9:].min() >= 253
    ycc = np.zeros((HEIGHT, WIDTH, 3), np.uint8) + np.array([76, 85, 255], np.uint8)
    pixels = decode(saved(Image.fromarray(ycc, "YCbCr"), "TIFF")).pixels
    close(pixels, np.zeros_like(pixels) + np.array([254.0, 0, 0]), 2)


# --- orientation, frames, size

UPRIGHT = {  # what a viewer does for each EXIF orientation, in numpy
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


def check_orientation(decode_pixels, file_format, orientation):
    """A picture is turned as its EXIF says."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if file_format == "WEBP" else {}
    image = Image.fromarray(pattern())
    plain = decode(saved(image, file_format, **options)).pixels
    content = saved(image, file_format, exif=exif, **options)
    expected = UPRIGHT[orientation](plain)
    pixels = decode_pixels(content)
    assert pixels.shape == expected.shape
    # AVIF stores the turn beside the picture and may code the picture itself a little differently.
    assert np.abs(pixels.astype(int) - expected).max() <= (8 if file_format == "AVIF" else 0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_exif_orientation_is_applied(file_format, orientation):
    check_orientation(lambda content: decode(content).pixels, file_format, orientation)


def test_an_oriented_picture_says_so_and_gives_its_size_as_seen():
    exif = Image.Exif()
    exif[0x0112] = 6
    for file_format in ("JPEG", "PNG", "TIFF", "WEBP"):
        decoded = decode(saved(Image.fromarray(pattern()), file_format, exif=exif))
        assert (decoded.width, decoded.height) == (HEIGHT, WIDTH)
        assert decoded.pixels.shape == (WIDTH, HEIGHT, 3)
        assert decoded.notes == ("EXIF_ORIENTED",)


def test_the_check_of_orientation_rejects_a_decoder_that_ignores_it():
    def ignores(content):
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))

    with pytest.raises(AssertionError):
        check_orientation(ignores, "JPEG", 6)


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


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_the_first_frame_counts(file_format):
    frames = [Image.fromarray(pattern(seed=seed)) for seed in (1, 2, 3)]
    options = {"lossless": True} if file_format == "WEBP" else {}
    if file_format == "GIF":
        frames = [frame.quantize(8) for frame in frames]
    content = saved(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
    decoded = decode(content)
    assert "FIRST_FRAME" in decoded.notes
    alone = "JPEG" if file_format == "MPO" else file_format
    assert (decoded.pixels == decode(saved(frames[0], alone, **options)).pixels).all()
    assert decoded.format == file_format


def test_a_huge_jpeg_is_read_reduced_and_keeps_its_size_in_words():
    content = saved(Image.new("L", (4400, 4200), 90), "JPEG")
    decoded = decode(content)
    assert decoded.pixels.shape == (2100, 2200, 3)
    assert (decoded.width, decoded.height, decoded.notes) == (4400, 4200, ("REDUCED",))
    close(decoded.pixels, np.full(decoded.pixels.shape, 90))


# --- bad files


def bad(content, **limits):
    with pytest.raises(BadImage) as caught:
        decode(content, **limits)
    return caught.value


@pytest.mark.parametrize(
    ("content", "reason", "words"),
    [
        (b"", "EMPTY", "holds no bytes"),
        (b"\0" * 5000, "CORRUPT", "holds only zero bytes"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "FORMAT",
            "git-LFS pointer",
        ),
        (b"\n<!DOCTYPE html><html>404</html>", "FORMAT", "HTML page"),
        (b"<?xml version='1.0'?><Error/>", "FORMAT", "XML text"),
        (b"<?xml version='1.0'?><svg xmlns='x'/>", "FORMAT", "SVG drawing: convert it to PNG"),
        (b"just some words\n", "FORMAT", "text, not a picture"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "FORMAT", "HEIC: convert it"),
        (b"\0\0\0\x18ftypisom\0\0\0\0mp42avc1", "FORMAT", "film: convert it"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "FORMAT", "JPEG XL: convert it"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "FORMAT", "JPEG 2000: convert it"),
        (b"8BPS\0\x01", "FORMAT", "Photoshop"),
        (b"%PDF-1.7", "FORMAT", "PDF: convert it"),
        (b"%!PS-Adobe-3.0 EPSF", "FORMAT", "PostScript"),
        (b"PK\x03\x04", "FORMAT", "zip archive"),
        (b"\0" * 128 + b"DICM", "FORMAT", "DICOM"),
        (b"\x01\x02\x03\x04", "FORMAT", "unknown format (it begins with 01 02 03 04)"),
        (b"\x89PNG\r\n\x1a\n", "TRUNCATED", "copy it again"),
        (b"\xff\xd8\xff", "TRUNCATED", "copy it again"),
        (b"BM", "CORRUPT", "damaged BMP file (the header cannot be read)"),
    ],
)
def test_a_file_that_is_no_picture_says_what_it_is(content, reason, words):
    error = bad(content)
    assert error.reason == reason
    assert words in error.detail


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF"])
def test_a_truncated_file_is_refused_or_lacks_nothing(file_format):
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    content = saved(Image.fromarray(noise), file_format)
    whole = decode(content).pixels
    # Where an AVIF ends stands at its own end, so one that stops early is damaged to its reader.
    reason = "CORRUPT" if file_format == "AVIF" else "TRUNCATED"
    assert bad(content[: len(content) // 2]).reason == reason
    for length in np.linspace(1, len(content) - 1, 60).astype(int):
        try:
            pixels = decode(content[:length]).pixels
        except BadImage as error:
            assert error.reason in ("TRUNCATED", "CORRUPT", "FORMAT"), error
        else:
            assert (pixels == whole).all(), length


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF"])
def test_whatever_is_damaged_only_bad_image_is_raised(file_format):
    rng = np.random.default_rng(7)
    content = np.frombuffer(saved(Image.fromarray(pattern()), file_format), np.uint8)
    for _ in range(120):
        damaged = content.copy()
        # Headers hold the most ways to go wrong, so most damage is done there.
        at = (rng.random(rng.integers(1, 6)) ** 3 * len(content)).astype(int)
        damaged[at] = rng.integers(0, 256, len(at))
        try:
            decoded = decode(damaged.tobytes(), max_pixels=100_000)
        except BadImage as error:
            assert error.reason in ("TRUNCATED", "CORRUPT", "FORMAT", "SHAPE", "PIXELS")
            assert error.detail == str(error)
            assert "\n" not in error.detail
        else:
            assert decoded.pixels.dtype == np.uint8
            assert decoded.pixels.shape[2] == 3


def test_too_many_pixels_are_refused_from_the_header():
    for side in (9_500, 20_000, 60_000):  # below, at and above Pillow's own warning and error
        content = raw_png(side, side, 8, 0, [b""])
        assert bad(content).reason == "PIXELS"
    error = bad(saved(Image.fromarray(pattern())), max_pixels=200)
    assert error.detail == "19 × 13 pixels; more than 200 pixels are taken for an attack; shrink it"
    assert decode(saved(Image.fromarray(pattern())), max_pixels=247).width == 19


def test_shapes_out_of_bounds_are_refused():
    assert "each side needs 8 or more" in bad(saved(Image.new("L", (40, 7)))).detail
    assert "over 20 times the other" in bad(saved(Image.new("L", (8, 161)))).detail
    assert decode(saved(Image.new("L", (8, 160)))).height == 160
    assert decode(saved(Image.new("L", (3, 90))), min_side_px=2, max_aspect=30.0).width == 3
    assert bad(saved(Image.new("L", (3, 90))), min_side_px=2).reason == "SHAPE"


@pytest.mark.parametrize("size", [(0, 12), (12, 0)])
def test_a_picture_without_pixels_is_refused(size):
    assert bad(raw_png(*size, 8, 0, [])).reason in ("CORRUPT", "SHAPE", "TRUNCATED")


def test_a_png_whose_text_explodes_is_refused():
    bomb = png_chunk(
        b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * (PngImagePlugin.MAX_TEXT_CHUNK + 9))
    )
    error = bad(raw_png(12, 12, 8, 0, [bytes(12)] * 12, bomb))
    assert error.reason == "CORRUPT"
    assert "too large" in error.detail


def test_a_warning_of_the_decoder_is_noted():
    content = saved(Image.fromarray(pattern()), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x02\0")
    assert "DECODER_WARNED" in decode(content).notes


# --- fit


def test_crop_keeps_the_centre_like_resizing_and_cutting():
    pixels = pattern(height=40, width=80)
    reference = Image.fromarray(pixels).resize((40, 20), Image.Resampling.BICUBIC)
    close(fit(pixels, 20, "crop"), np.asarray(reference)[:, 10:30].astype(float), 1)


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
    """OpenCV's INTER_LINEAR as its documentation has it: half-pixel centres, edges repeated."""
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
        with pytest.raises(AssertionError):  # the twin: antialiasing is seen
            close(fit(pixels, size_px, "squash"), expected, 0.501)


STARVED = """
import io, resource
from PIL import Image
from towernet.data.decode import BadImage, decode

stream = io.BytesIO()
Image.new("L", (9000, 9000)).save(stream, "PNG", compress_level=1)
resource.setrlimit(resource.RLIMIT_AS, (600 << 20, 600 << 20))
try:
    decode(stream.getvalue())
except BadImage as error:
    print(error.reason, error.detail)
"""


def test_a_picture_that_wants_too_much_memory_is_refused():
    told = subprocess.run(
        [sys.executable, "-c", STARVED],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )
    assert told.stdout == "RESOURCE decoding it needs more memory than allowed; shrink it\n"

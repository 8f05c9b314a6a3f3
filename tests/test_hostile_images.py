"""Hostile files: each is used or refused with a reason, whatever happens in its decoder."""

import io
import os
import re
import struct
import subprocess
import sys
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from hostile_images import CLASSES, hostile, jpeg_of_many_scans, make, png, png_chunk, saved
from picture_cases import HEIGHT, WIDTH, tiff
from towernet.data.check import check
from towernet.data.decode import decode
from towernet.data.examine import examine
from towernet.data.formats import BadImage
from towernet.data.rules import MAX_BYTES, NOW, Rules
from towernet.data.source import open_source
from towernet.data.workers import in_processes

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "PPM")


def picture():
    """19 × 13 pixels."""
    y, x = np.mgrid[:13, :19]
    return Image.fromarray(np.stack([x * 9 + y * 3, x * 5 + y * 7, x + y], -1).astype(np.uint8))


def bad(content, *, max_bytes=MAX_BYTES, **limits):
    with pytest.raises(BadImage) as caught:
        decode(content, replace(NOW, **limits), max_bytes=max_bytes)
    return caught.value


def raw_tiff(order, *entries):
    """A TIFF of these entries: what cameras write before their own format starts."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    table = b"".join(struct.pack(order + "HHII", *entry) for entry in entries)
    return head + struct.pack(order + "IH", 8, len(entries)) + table + bytes(4)


@pytest.mark.parametrize(
    ("content", "reason", "words"),
    [
        (b"", "EMPTY", "is empty"),
        (b"\0" * 5000, "CORRUPT", "contains only zero bytes"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "FORMAT",
            "git-LFS pointer",
        ),
        (b"\n<!DOCTYPE html><html>404</html>", "FORMAT", "HTML page"),
        (b"<?xml version='1.0'?><Error/>", "FORMAT", "XML text"),
        (
            b"<?xml version='1.0'?><svg xmlns='x'/>",
            "FORMAT",
            "SVG drawing: convert it to JPEG or PNG",
        ),
        (b"just some words\n", "FORMAT", "text, not an image"),
        (b"\0\0\0\x18ftypisom\0\0\0\0mp42avc1", "FORMAT", "video: save its frames"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "FORMAT", "JPEG XL: convert it"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "FORMAT", "JPEG 2000: convert it"),
        (b"8BPS\0\x01", "FORMAT", "Photoshop"),
        (b"%PDF-1.7", "FORMAT", "PDF: convert it"),
        (b"%!PS-Adobe-3.0 EPSF", "FORMAT", "PostScript"),
        (b"PK\x03\x04", "FORMAT", "zip archive"),
        (b"\0" * 128 + b"DICM", "FORMAT", "DICOM"),
        (b"\x01\x02\x03\x04", "FORMAT", "unknown format (it starts with 01 02 03 04)"),
        (b"\x89PNG\r\n\x1a\n", "TRUNCATED", "copy it again"),
        (b"\xff\xd8\xff", "TRUNCATED", "copy it again"),
        (b"BM", "CORRUPT", "BMP file that cannot be decoded (the header cannot be read)"),
        (b"\x1f\x8b\x08", "FORMAT", "gzip archive"),
        (b"\xd7\xcd\xc6\x9a", "FORMAT", "WMF"),
        (b"\0\0\1\0\1\0", "FORMAT", "icon (ICO): convert it"),
        (b"v/1\1\2\0\0\0", "FORMAT", "OpenEXR: convert it"),
        (b"#?RADIANCE\n", "FORMAT", "Radiance HDR"),
        (b"SIMPLE  =                    T", "FORMAT", "FITS"),
        (bytes(344) + b"n+1\0", "FORMAT", "NIfTI"),
        (b"DDS \x7c\0\0\0", "FORMAT", "DDS"),
        (b"qoif\0\0\0\5", "FORMAT", "QOI"),
        (b"\0\0\2\0" + bytes(40) + b"TRUEVISION-XFILE.\0", "FORMAT", "convert it"),
        (b"\0\0\3\0" + bytes(40) + b"TRUEVISION-XFILE.\0", "FORMAT", "Targa (TGA)"),
        (b"RIFF\x10\0\0\0AVI LIST", "FORMAT", "video (AVI): save its frames"),
        (b"\x1a\x45\xdf\xa3\1", "FORMAT", "video (Matroska or WebM)"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0", "FORMAT", "video (QuickTime)"),
        (b"7z\xbc\xaf\x27\x1c", "FORMAT", "7z archive: unpack it"),
        ("größe;breite\n".encode("cp1252") * 40, "FORMAT", "text, not an image"),
        ("größe;breite\n".encode("utf-16"), "FORMAT", "text, not an image"),
        (b'{"shapes": []}', "FORMAT", "JSON text"),
        (b"II*\0\x10\0\0\0CR\x02\0", "FORMAT", "camera raw (CR2): convert it"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1", "FORMAT", "camera raw (CR3)"),
        (b"IIU\0\x18\0\0\0", "FORMAT", "camera raw (RW2)"),
        (b"IIRO\x08\0\0\0", "FORMAT", "camera raw (ORF)"),
        (b"FUJIFILMCCD-RAW 0201", "FORMAT", "camera raw (RAF)"),
        (raw_tiff("<", (254, 4, 1, 1), (330, 4, 1, 900)), "FORMAT", "camera raw: convert it"),
        (raw_tiff(">", (254, 4, 1, 1), (330, 4, 2, 900)), "FORMAT", "camera raw: convert it"),
        (raw_tiff("<", (50706, 1, 4, 0x0401)), "FORMAT", "camera raw (DNG): convert it"),
    ],
)
def test_a_file_that_is_not_an_image_is_described(content, reason, words):
    error = bad(content)
    assert error.reason == reason
    assert words in error.detail


def jpeg_of_kind(marker, bits):
    content = bytearray(saved(picture(), "JPEG"))
    at = content.index(b"\xff\xc0")
    content[at + 1], content[at + 4] = marker, bits
    return bytes(content)


def tiff_of_compression(number):
    content = tiff("<", [8], 1, [bytes(HEIGHT * WIDTH)])
    entry = struct.pack("<HHI", 259, 4, 1)
    return content.replace(entry + struct.pack("<I", 1), entry + struct.pack("<I", number))


def bands(num, bits, photometric=2, **options):
    values = bytes(HEIGHT * WIDTH * num * bits // 8)
    return tiff("<", [bits] * num, photometric, [values], **options)


def planes(num, bits, photometric=2, **options):
    parts = [bytes(HEIGHT * WIDTH * bits // 8)] * num
    return tiff("<", [bits] * num, photometric, parts, planar=2, **options)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (bands(13, 16, extra=[0] * 10), "TIFF of 13 channels of 16-bit values (multispectral)"),
        (bands(3, 32, sample_format=3), "TIFF of 3 channels of 32-bit float values"),
        (bands(3, 32), "TIFF of 3 channels of 32-bit values"),
        (bands(1, 64, sample_format=3), "TIFF of 1 channel of 64-bit float values"),
        # Pillow opens these and has no decoder for their planes.
        (planes(4, 16, extra=[0]), "TIFF of 4 channels of 16-bit values in separate planes"),
        (planes(4, 8, extra=[1]), "TIFF of 4 channels of 8-bit values in separate planes"),
        (planes(2, 8, 1, extra=[0]), "TIFF of 2 channels of 8-bit values in separate planes"),
        (planes(1, 16, 1), "TIFF of 1 channel of 16-bit values in separate planes"),
        (tiff_of_compression(34712), "TIFF with JPEG 2000 compression"),
        (tiff_of_compression(34887), "TIFF with LERC compression"),
        (tiff_of_compression(9999), "TIFF with compression 9999"),
        (jpeg_of_kind(0xC1, 12), "12-bit JPEG"),
        (jpeg_of_kind(0xC3, 8), "lossless JPEG"),
        (jpeg_of_kind(0xF7, 8), "JPEG-LS"),
    ],
)
def test_a_kind_that_is_not_read_is_named(content, words):
    error = bad(content)
    assert (error.reason, error.detail) == ("FORMAT", f"{words}: convert it to JPEG or PNG")


def test_nobody_is_advised_to_delete_a_file():
    rng = np.random.default_rng(3)
    for i in range(300):
        try:
            decode(make(rng, i, 0), replace(NOW, max_pixels=300_000))
        except BadImage as error:
            assert "delete" not in error.detail


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_truncated_file_is_refused_or_lacks_nothing(file_format):
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    content = saved(Image.fromarray(noise), file_format)
    whole = decode(content, NOW).pixels
    for share in (0.1, 0.3, 0.5, 0.8):
        assert bad(content[: int(len(content) * share)]).reason == "TRUNCATED", share
    for length in np.linspace(1, len(content) - 1, 60).astype(int):
        try:
            pixels = decode(content[:length], NOW).pixels
        except BadImage as error:
            assert error.reason in ("TRUNCATED", "CORRUPT", "FORMAT"), error
        else:
            assert (pixels == whole).all(), length


@pytest.mark.parametrize("file_format", FORMATS)
def test_damage_raises_only_bad_image(file_format):
    rng = np.random.default_rng(7)
    content = np.frombuffer(saved(picture(), file_format), np.uint8)
    for _ in range(120):
        damaged = content.copy()
        # Headers can fail in the most ways, so most damage is done there.
        at = (rng.random(rng.integers(1, 6)) ** 3 * len(content)).astype(int)
        damaged[at] = rng.integers(0, 256, len(at))
        try:
            decoded = decode(damaged.tobytes(), replace(NOW, max_pixels=100_000))
        except BadImage as error:
            assert error.reason in ("TRUNCATED", "CORRUPT", "FORMAT", "SHAPE", "PIXELS")
            assert error.detail == str(error)
            assert "\n" not in error.detail
        else:
            assert decoded.pixels.dtype == np.uint8
            assert decoded.pixels.shape[2] == 3


def test_a_png_damaged_in_its_pixels_is_never_used():
    """Reading a PNG's EXIF loads it; when that failed, a second load returned black."""
    content = saved(picture(), "PNG")
    whole, first = decode(content).pixels, content.index(b"IDAT") + 4
    for at in range(first, content.index(b"IEND") - 8):
        damaged = content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :]
        try:
            assert (decode(damaged).pixels == whole).all(), at
        except BadImage as error:
            assert error.reason in ("TRUNCATED", "CORRUPT")


def test_too_many_pixels_are_refused_from_the_header():
    for side in (9_500, 20_000, 60_000):  # below, at and above Pillow's own warning and error
        content = png(side, side)
        assert bad(content).reason == "PIXELS"
    error = bad(saved(picture(), "PNG"), max_pixels=200)
    assert error.detail == (
        "19 × 13 pixels; more than 200 pixels look like an attack; shrink it, or raise the limit"
        " with --max-megapixels 1"
    )
    assert decode(saved(picture(), "PNG"), Rules(max_pixels=247)).width == 19


def test_a_large_jpeg_is_judged_by_the_size_it_is_decoded_at():
    """108 megapixels, as phones take them, in 1/4 of the side; other formats are refused."""
    content = saved(Image.new("L", (12_000, 9_000), 90), "JPEG")
    decoded = decode(content, NOW)
    assert (decoded.width, decoded.height, decoded.notes) == (12_000, 9_000, ("REDUCED",))
    assert decoded.pixels.shape == (2250, 3000, 3)
    assert bad(png(12_000, 9_000)).detail == (
        "12000 × 9000 pixels; more than 89,478,485 pixels look like an attack; shrink it, or raise"
        " the limit with --max-megapixels 108"
    )
    with pytest.raises(BadImage, match="look like an attack"):
        decode(content, Rules())  # as before
    raised = replace(NOW, max_pixels=108_000_000)
    wide = png(12_000, 9_000, body=zlib.compress(bytes((12_000 + 1) * 9_000), 1))
    assert decode(wide, raised, max_bytes=raised.max_bytes).width == 12_000


def test_shapes_out_of_bounds_are_refused():
    assert "each side needs 8 or more" in bad(saved(Image.new("L", (40, 7)), "PNG")).detail
    assert "over 20 times the other" in bad(saved(Image.new("L", (8, 161)), "PNG")).detail
    assert decode(saved(Image.new("L", (8, 160)), "PNG")).height == 160
    loose = Rules(min_side_px=2, max_aspect=30.0)
    assert decode(saved(Image.new("L", (3, 90)), "PNG"), loose).width == 3
    assert bad(saved(Image.new("L", (3, 90)), "PNG"), min_side_px=2).reason == "SHAPE"


@pytest.mark.parametrize("size", [(0, 12), (12, 0)])
def test_a_picture_without_pixels_is_refused(size):
    assert bad(png(*size)).reason in ("CORRUPT", "SHAPE", "TRUNCATED")


def test_a_png_whose_text_explodes_is_refused():
    bomb = png_chunk(
        b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * (PngImagePlugin.MAX_TEXT_CHUNK + 9))
    )
    error = bad(png(12, 12, bomb, body=zlib.compress(bytes(12 * 13))))
    assert error.reason == "CORRUPT"
    assert "too large" in error.detail


def test_a_warning_of_the_decoder_is_noted():
    content = saved(picture(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x02\0")
    assert "DECODER_WARNED" in decode(content).notes


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "BMP"])
def test_an_image_that_is_also_something_else_is_an_image(file_format):
    content = saved(picture(), file_format)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("evil.sh", "echo evil")
    for other in (archive.getvalue(), b"<html><script>alert(1)</script></html>", b"%PDF-1.7"):
        assert (decode(content + other).pixels == decode(content).pixels).all()
        assert bad(other + content).reason == "FORMAT"


# --- memory and time


def test_a_jpeg_of_very_many_scans_is_refused_and_of_the_usual_ones_not():
    error = bad(jpeg_of_many_scans(np.random.default_rng(1)))
    assert error.reason == "RESOURCE"
    words = r"JPEG of \d+ scans, which looks like an attack; save it again"
    assert re.fullmatch(words, error.detail)
    assert decode(saved(picture(), "JPEG", progressive=True)).width == 19


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


LARGE = {  # 6 million pixels each, of one colour: small on the disk
    "PNG": ("RGB", {}),
    "PNG of 16 bits": ("I;16", {}),
    "PNG of 16-bit colours": ("RGB", {}),
    "PNG with alpha": ("LA", {}),
    "GIF": ("P", {}),
    "WEBP": ("RGB", {}),
    "WEBP without loss": ("RGBA", {"lossless": True}),
    "AVIF": ("RGBA", {"speed": 10}),
    "BMP": ("RGB", {}),
    "BMP in runs": ("P", {}),
    "JPEG": ("RGB", {}),
    "JPEG progressive": ("RGB", {"progressive": True, "subsampling": 0}),
    "JPEG CMYK": ("CMYK", {"progressive": True}),
    "TIFF in strips": ("RGB", {"compression": "tiff_lzw"}),
    "TIFF in one strip": ("RGB", {"compression": "tiff_lzw", "strip_size": 1 << 30}),
    "TIFF of decimals": ("F", {}),
    "TIFF turned": ("RGB", {"exif": turned()}),
    "TIFF of 1 bit": ("1", {"compression": "group4"}),
    "PPM": ("RGB", {}),
    "PPM of 16 bits": ("I;16", {}),
}
PEAKS = """
import pathlib, re, sys
from towernet.data.decode import decode
from towernet.data.rules import NOW

def resident(which):
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(which + r":\\s+(\\d+) kB", status)[1])

decode(pathlib.Path(sys.argv[1]).read_bytes(), NOW)  # what is loaded once
for file in sys.argv[2:]:
    before = resident("VmRSS")
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    decode(pathlib.Path(file).read_bytes(), NOW)
    print((resident("VmHWM") - before) * 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_decoding_takes_no_more_memory_than_estimated(tmp_path):
    estimated = []
    for name, (mode, options) in LARGE.items():
        colour = 90 if mode in ("1", "P", "F", "I;16") else (10, 20, 200, 40)[: len(mode)]
        content = saved(Image.new(mode, (3000, 2000), colour), name.split()[0], **options)
        if name == "BMP in runs":
            runs = b"\1\0\0\0" * 2000 + b"\0\1"
            content = content[:30] + b"\1" + content[31 : 54 + 1024] + runs
        if name == "PNG of 16-bit colours":
            content = png(3000, 2000, depth=16, colour=2, body=zlib.compress(bytes(18_001 * 2000)))
        (tmp_path / name).write_bytes(content)
        estimated.append(
            int(re.search(r"take (\d+) MB", bad(content, max_bytes=1).detail)[1]) * 1e6
        )
    small = tmp_path / "small"
    small.write_bytes(saved(picture(), "PNG"))
    took = run_python(PEAKS, small, *(tmp_path / name for name in LARGE))
    check_estimate_covers_peak(
        dict(zip(LARGE, zip(estimated, map(int, took.split()), strict=True), strict=True))
    )


def check_estimate_covers_peak(memory):
    """The estimate is at most 12 MB too low: one strip, and what every decoder needs."""
    short = {
        name: took - estimated
        for name, (estimated, took) in memory.items()
        if took > estimated + 12e6
    }
    assert not short, short


def test_the_check_of_memory_rejects_four_bytes_a_pixel_for_webp():
    with pytest.raises(AssertionError):
        check_estimate_covers_peak({"WEBP": (42e6, 96e6)})


def run_python(code, *words):
    """Run code in a fresh process; return what it printed."""
    process = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )
    return process.stdout


STARVED = """
import io, resource
from PIL import Image
from towernet.data.decode import decode
from towernet.data.formats import BadImage
from towernet.data.rules import MAX_BYTES, NOW, Rules

stream = io.BytesIO()
Image.new("L", (9000, 9000)).save(stream, "PNG", compress_level=1)
resource.setrlimit(resource.RLIMIT_AS, (200 << 20, 200 << 20))
try:
    decode(stream.getvalue())
except BadImage as error:
    print(error.reason, error.detail)
"""


def test_a_machine_without_memory_gets_that_message():
    output = run_python(STARVED)
    assert output == "RESOURCE decoding it needs more memory than allowed; shrink it\n"


def test_an_image_that_needs_too_much_memory_is_refused_from_the_header():
    error = bad(saved(picture(), "WEBP"), max_bytes=1000)
    assert error.reason == "RESOURCE"
    assert error.detail.startswith(
        "19 × 13 pixels of WEBP take 0 MB to decode and the limit is 0 MB"
    )
    assert bad(png(9000, 9000, colour=2)).reason == "RESOURCE"


def test_large_files_are_decoded_last_and_too_large_ones_refused(tmp_path):
    large, too_large = Image.new("RGB", (4000, 3000), 7), Image.new("RGB", (5000, 5000), 7)
    (tmp_path / "0").write_bytes(saved(large, "WEBP"))
    (tmp_path / "1").write_bytes(saved(too_large, "WEBP"))
    (tmp_path / "2").touch()
    os.truncate(tmp_path / "2", 400_000_000)
    for i in range(3, 9):
        (tmp_path / str(i)).write_bytes(saved(picture(), "PNG"))
    results = list(in_processes(examine, [tmp_path / str(i) for i in range(9)], workers=2))
    assert [position for position, _ in results[6:]] == [0, 1, 2]
    answers = dict(results)
    assert (answers[0].reason, answers[0].width, answers[5].width) == ("", 4000, 19)
    assert answers[1].detail.startswith("5000 × 5000 pixels of WEBP take 4")
    assert answers[2].detail == "the file has 400 MB and the limit is 320 MB; shrink it"
    assert {answers[i].reason for i in (1, 2)} == {"RESOURCE"}


# --- thousands of them (benchmarks/faults_images.py checks 10,000)

NUM_HOSTILE = 162  # each kind three times


def check_nothing_is_lost(table, folder):
    """Each file has one row, one status, and a reason if it is not used."""
    on_disk = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert sorted(table.path) == sorted(on_disk)
    assert set(table.status) <= {"used", "quarantined", "ignored"}
    assert ((table.reason == "") == (table.status == "used")).all()
    assert not set(table.reason) & {"CRASH"}


@pytest.fixture(scope="module")
def hostile_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "photos"
    hostile(folder, NUM_HOSTILE, seed=11, giant_share=0)
    return folder


def test_every_hostile_file_is_used_or_has_its_reason(hostile_files):
    before = {path: path.read_bytes() for path in hostile_files.rglob("*") if path.is_file()}
    table = check(open_source(str(hostile_files)), workers=2)
    check_nothing_is_lost(table, hostile_files)
    assert {path: path.read_bytes() for path in before} == before
    counts = table.status.value_counts()
    assert counts["used"] > NUM_HOSTILE / 5
    assert counts["quarantined"] > NUM_HOSTILE / 5
    reasons = set(table.reason)
    assert reasons >= {"TRUNCATED", "CORRUPT", "FORMAT", "SHAPE", "PIXELS", "RESOURCE"}


@pytest.mark.parametrize(
    "sabotage",
    [
        lambda table: table.iloc[1:],
        lambda table: table.iloc[[0, *range(len(table))]],
        lambda table: table.assign(status="used"),
        lambda table: table.assign(reason="CRASH", status="quarantined"),
        lambda table: table.assign(status="skipped"),
    ],
)
def test_the_check_of_losses_rejects_a_table_that_hides_some(hostile_files, sabotage):
    table = check(open_source(str(hostile_files)), workers=2)
    with pytest.raises(AssertionError):
        check_nothing_is_lost(sabotage(table), hostile_files)


def test_the_same_seed_makes_the_same_files(hostile_files, tmp_path):
    hostile(tmp_path / "again", NUM_HOSTILE, seed=11, giant_share=0)
    for path in (tmp_path / "again").rglob("*.*"):
        twin = hostile_files / path.relative_to(tmp_path / "again")
        assert path.read_bytes() == twin.read_bytes()
    assert {path.name for path in hostile_files.iterdir()} == set(CLASSES)

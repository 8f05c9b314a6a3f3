"""Files that can harm their decoder: damaged, with false numbers, exploding, or something else.

`hostile(folder, num, seed)` writes the same files each time. A third are of the kinds listed in
KINDS, made on purpose; the others are real pictures of six formats with random damage.
"""

import io
import os
import struct
import zipfile
import zlib
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from profiles import cmyk_profile, grey_profile, rgb_profile

CLASSES = ("cat", "dog", "owl")
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM")
SUFFIXES = (".jpg", ".png", ".gif", ".webp", ".bmp", ".tif", ".ppm")


def saved(image, file_format, **options):
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def photo(rng, channels=3, height=None, width=None):
    """Waves and noise, of 16 to 130 pixels a side."""
    height, width = height or rng.integers(16, 130), width or rng.integers(16, 130)
    y, x = np.mgrid[:height, :width, :1][:2]
    waves = np.sin(x * rng.uniform(0.02, 0.5, channels) + y * rng.uniform(0.02, 0.5, channels))
    pixels = 128 + 90 * waves + rng.normal(0, 9, (height, width, channels))
    return pixels.clip(0, 255).astype(np.uint8)


def real_pictures(rng):
    """Small pictures in every format and in the modes each one has."""
    image, options = Image.fromarray(photo(rng)), {}
    file_format = FORMATS[rng.integers(len(FORMATS))]
    modes = {
        "JPEG": ("RGB", "L", "CMYK"),
        "PNG": ("RGB", "L", "P", "RGBA", "LA", "1", "I;16"),
        "GIF": ("P", "L", "1"),
        "WEBP": ("RGB", "RGBA"),
        "BMP": ("RGB", "L", "P", "1"),
        "TIFF": ("RGB", "L", "P", "RGBA", "1", "I;16", "F", "CMYK", "LAB"),
        "PPM": ("RGB", "L", "1", "I;16"),
    }[file_format]
    mode = str(rng.choice(modes))
    image = image.convert("L").convert(mode) if mode in ("I;16", "F") else image
    image = image if mode == "LAB" else image.convert(mode)
    if mode == "LAB":
        image = Image.frombytes("LAB", image.size, image.tobytes())
    if file_format == "JPEG":
        options = {"quality": int(rng.integers(20, 98)), "progressive": bool(rng.integers(2))}
    if file_format == "TIFF" and mode in ("RGB", "L", "RGBA"):
        compressions = (None, "tiff_lzw", "tiff_adobe_deflate", "packbits")
        options = {"compression": compressions[rng.integers(len(compressions))]}
    if file_format == "WEBP":
        options = {"lossless": bool(rng.integers(2))}
    if rng.random() < 0.3 and file_format in ("JPEG", "PNG", "WEBP", "TIFF"):
        options["exif"] = exif(rng)
    if rng.random() < 0.2 and file_format in ("JPEG", "PNG", "WEBP", "TIFF"):
        options["icc_profile"] = (rgb_profile, grey_profile, cmyk_profile)[rng.integers(3)]()
    return saved(image, file_format, **options)


def exif(rng):
    block = Image.Exif()
    block[0x0112] = int(rng.integers(1, 9))
    block[0x010F] = "maker" * 9
    return block


@cache
def camera_photos():
    """Some photographs of an available image set; none if there is none."""
    archive = Path(os.environ.get("TOWERNET_DATA", "nowhere")) / "caltech16.zip"
    if not archive.exists():
        return ()
    with zipfile.ZipFile(archive) as photos:
        names = [name for name in photos.namelist() if name.endswith(".jpg")][::60]
        return tuple(photos.read(name) for name in names)


# --- damage to any picture


def flip_bits(content, rng):
    damaged = np.frombuffer(content, np.uint8).copy()
    # Headers can fail in the most ways, so most damage is done there.
    at = (rng.random(rng.integers(1, 9)) ** 3 * len(content)).astype(int)
    damaged[at] ^= (1 << rng.integers(0, 8, len(at))).astype(np.uint8)
    return damaged.tobytes()


def set_bytes(content, rng):
    damaged = bytearray(content)
    for at in (rng.random(rng.integers(1, 5)) ** 3 * len(content)).astype(int):
        damaged[at] = int(rng.choice([0, 1, 127, 128, 255]))
    return bytes(damaged)


def cut_off(content, rng):
    return content[: rng.integers(0, len(content))]


def cut_out(content, rng):
    start, end = np.sort(rng.integers(0, len(content), 2))
    return content[:start] + content[end:]


def repeat_a_block(content, rng):
    start, end = np.sort(rng.integers(0, len(content), 2))
    return content[:end] + content[start:end] * int(rng.integers(1, 5)) + content[end:]


def fill_a_block(content, rng):
    start = rng.integers(0, len(content))
    size = rng.integers(1, 600)
    return content[:start] + bytes([rng.choice([0, 255])]) * size + content[start + size :]


def splice(content, rng):
    other = real_pictures(rng)
    return content[: rng.integers(0, len(content))] + other[rng.integers(0, len(other)) :]


def add_junk(content, rng):
    return content + rng.bytes(int(rng.integers(1, 5000)))


def write_a_false_number(content, rng):
    """Write an extreme number over two or four bytes near the start."""
    number = rng.choice([0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF])
    kind = rng.choice(["<H", ">H"] if number < 0x10000 else ["<I", ">I"])
    at = rng.integers(0, min(len(content), 300))
    return content[:at] + struct.pack(kind, number) + content[at + struct.calcsize(kind) :]


DAMAGE = (
    flip_bits, flip_bits, set_bytes, cut_off, cut_out, repeat_a_block, fill_a_block, splice,
    add_junk, write_a_false_number,
)  # fmt: skip


# --- made on purpose


def png_chunk(kind, content):
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png(width, height, *extra, depth=8, colour=0, body=b"", interlace=0):
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    chunks = [png_chunk(b"IHDR", header), *extra, png_chunk(b"IDAT", body), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def png_of_wrong_size(rng):
    sides = (0, 1, 7, 2**31 - 1, 2**32 - 1, 65535, 20_000, 100)
    width, height = (int(rng.choice(sides)) for _ in range(2))
    return png(width, height, body=zlib.compress(bytes(100_000)))


def png_bomb(rng):
    depth = int(rng.choice([1, 8, 16]))
    return png(20_000, 20_000, depth=depth, body=zlib.compress(bytes(2_000_000)))


def png_with_valid_sums(rng):
    """Damage inside the chunks, with correct checksums, so that it gets past the first checks."""
    content, chunks = saved(Image.fromarray(photo(rng)).convert("P"), "PNG"), []
    at = 8
    while at < len(content):
        size = struct.unpack_from(">I", content, at)[0]
        kind, body = content[at + 4 : at + 8], bytearray(content[at + 8 : at + 8 + size])
        if body and rng.random() < 0.4:
            body[rng.integers(len(body))] = rng.integers(256)
        chunks.append(png_chunk(kind, bytes(body)))
        at += size + 12
    if rng.random() < 0.5:
        chunks.insert(int(rng.integers(len(chunks))), chunks[int(rng.integers(len(chunks)))])
    return content[:8] + b"".join(chunks)


def png_text_bomb(rng):
    text = zlib.compress(bytes(int(rng.integers(1, 40)) << 20))
    name, body = [
        (b"zTXt", b"a\0\0" + text),
        (b"iTXt", b"a\0\1\0\0\0" + text),
        (b"iCCP", b"a\0\0" + text),
        (b"tEXt", b"a\0" + bytes(100_000)),
    ][rng.integers(4)]
    rows = zlib.compress(bytes(12 * 13))
    return png(12, 12, *[png_chunk(name, body)] * int(rng.integers(1, 4)), body=rows)


def png_odd_parts(rng):
    kind = rng.choice([b"tRNS", b"PLTE", b"gAMA", b"eXIf", b"pHYs", b"acTL", b"fcTL", b"fdAT"])
    part = png_chunk(bytes(kind), rng.bytes(int(rng.integers(0, 40))))
    colour, depth = int(rng.integers(0, 8)), int(rng.choice([1, 2, 4, 8, 16, 3]))
    rows = zlib.compress(rng.bytes(30 * 121))
    interlace = int(rng.integers(3))
    return png(20, 30, part, part, depth=depth, colour=colour, body=rows, interlace=interlace)


def jpeg_of_wrong_size(rng):
    content = saved(Image.fromarray(photo(rng)), "JPEG")
    at = content.index(b"\xff\xc0") + 5
    size = rng.choice([0, 1, 8, 300, 5000, 9000, 65535], 2)
    return content[:at] + struct.pack(">HH", *size) + content[at + 4 :]


def jpeg_of_many_scans(rng):
    content = saved(Image.fromarray(photo(rng, height=900, width=900)), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * int(rng.integers(50, 700)) + b"\xff\xd9"


def jpeg_odd_segments(rng):
    content = saved(Image.fromarray(photo(rng)), "JPEG")
    marker = int(rng.choice([0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xDB, 0xC4, 0xDD, 0xFE, 0xC0]))
    body = rng.choice([b"", b"Exif\0\0", b"ICC_PROFILE\0\1\1", b"MPF\0", b"Photoshop 3.0\0"])
    body = bytes(body) + rng.bytes(int(rng.integers(0, 200)))
    length = len(body) + 2 if rng.random() < 0.8 else int(rng.choice([0, 1, 65535]))
    segment = struct.pack(">BBH", 0xFF, marker, length) + body
    return content[:2] + segment * int(rng.integers(1, 4)) + content[2:]


def bad_exif(rng):
    block = bytearray(exif(rng).tobytes())
    for at in rng.integers(6, len(block), rng.integers(1, 6)):
        block[at] = int(rng.choice([0, 1, 5, 10, 255]))
    file_format = str(rng.choice(["JPEG", "PNG", "WEBP"]))
    return saved(Image.fromarray(photo(rng)), file_format, exif=bytes(block))


def bad_profile(rng):
    file_format = str(rng.choice(["JPEG", "PNG", "WEBP", "TIFF"]))
    profile = rng.bytes(int(rng.integers(1, 70_000)))
    if rng.random() < 0.5:
        profile = flip_bits(rgb_profile(), rng)
    return saved(Image.fromarray(photo(rng)), file_format, icc_profile=profile)


def gif_of_wrong_size(rng):
    content = bytearray(saved(Image.fromarray(photo(rng)).convert("P"), "GIF"))
    behind_the_palette = 13 + 3 * (2 << (content[10] & 7))
    at = 6 if rng.random() < 0.5 else content.index(b",", behind_the_palette) + 1
    sizes = rng.choice([0, 1, 400, 5000, 65535], 4 if at > 6 else 2)
    content[at : at + 2 * len(sizes)] = struct.pack(f"<{len(sizes)}H", *sizes)
    return bytes(content)


def bmp_with_false_numbers(rng):
    image = Image.fromarray(photo(rng)).convert(str(rng.choice(["RGB", "P", "1"])))
    content = bytearray(saved(image, "BMP"))
    at, kind = [(10, "<I"), (14, "<I"), (18, "<i"), (22, "<i"), (28, "<H"), (30, "<I"), (46, "<I")][
        rng.integers(7)
    ]
    number = int(rng.choice([0, 1, 2, 3, 12, 40, 9000, -50, -(2**31), 2**31 - 1]))
    struct.pack_into(kind, content, at, number if "i" in kind else abs(number) % 65536)
    return bytes(content)


def tiff(entries, *extra, next_ifd=0):
    """A little-endian TIFF of (tag, kind, count, value) entries and the bytes after them."""
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries))
    return head + table + struct.pack("<I", next_ifd) + b"".join(extra)


def tiff_with_false_numbers(rng):
    good = {256: (4, 1, 40), 257: (4, 1, 30), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1),
            273: (4, 1, 8), 277: (3, 1, 1), 278: (4, 1, 30), 279: (4, 1, 1200)}  # fmt: skip
    for _ in range(rng.integers(1, 4)):
        tag = int(rng.choice([*good, 254, 274, 284, 317, 320, 322, 324, 330, 338, 339, 34665]))
        number = int(rng.choice([0, 1, 2, 5, 8, 100, 65535, 100_000, 2**31, 2**32 - 1]))
        count = int(
            rng.choice([0, 1, 2, 1000, 2**28, 2**32 - 1], p=[0.1, 0.6, 0.1, 0.1, 0.05, 0.05])
        )
        good[tag] = (int(rng.integers(1, 14)), count, number)
    if rng.random() < 0.2:  # tiles instead of strips
        good |= {322: (4, 1, 16), 323: (4, 1, 16), 324: (4, 6, 200), 325: (4, 6, 220)}
    next_ifd = int(rng.choice([0, 8, 9, 2**32 - 1]))
    entries = [(tag, *good[tag]) for tag in sorted(good)]
    return tiff(entries, rng.bytes(1300), next_ifd=next_ifd)


def webp_with_false_numbers(rng):
    frames = [Image.fromarray(photo(rng, 4, 40, 50)) for _ in range(rng.integers(1, 4))]
    content = bytearray(saved(frames[0], "WEBP", save_all=True, append_images=frames[1:]))
    at = int(rng.choice([4, 16, 20, 24, 27, 30, 42, 46, 50]))
    content[at : at + 3] = rng.choice([b"\0\0\0", b"\xff\xff\xff", b"\xff\x3f\0", b"\1\0\0"])
    return bytes(content)


def animation(rng):
    file_format = str(rng.choice(["GIF", "WEBP", "PNG", "TIFF", "MPO"]))
    frames = [Image.fromarray(photo(rng, 3, 24, 32)) for _ in range(rng.integers(2, 60))]
    frames = [frame.quantize(8) if file_format == "GIF" else frame for frame in frames]
    content = saved(frames[0], file_format, save_all=True, append_images=frames[1:])
    return content if rng.random() < 0.5 else flip_bits(content, rng)


def polyglot(rng):
    """An image that is also something else."""
    content = real_pictures(rng)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr(zipfile.ZipInfo("evil.sh"), "echo evil")
    script = b"<html><script>alert(1)</script></html>"
    return [
        content + archive.getvalue(),
        archive.getvalue() + content,
        b"GIF89a/*" + script + b"*/=1;",
        content + script,
        b"<!--" + content + b"-->" + script,
        b"%PDF-1.4\n" + content,
        content[:20] + b"<?php system('id'); ?>" + content[42:],
    ][rng.integers(7)]


def not_an_image(rng):
    mark = str(rng.integers(10**9)).encode()
    return [
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + mark,
        b"<!DOCTYPE html><html><title>404 Not Found</title>" + mark,
        b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>" + mark,
        b"<svg xmlns='http://www.w3.org/2000/svg'>" + mark + b"</svg>",
        b'{"error": "quota"}' + mark,
        b"",
        bytes(int(rng.integers(1, 9000))),
        rng.bytes(int(rng.integers(1, 9000))),
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + rng.bytes(200),
        b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + rng.bytes(200),
        b"8BPS\0\1" + mark,
        b"%!PS-Adobe-3.0 EPSF-3.0\n(" + mark + b") run",
        b"\xd7\xcd\xc6\x9a" + mark,
        bytes(128) + b"DICM" + mark,
        b"#!/bin/sh\nrm -rf " + mark,
        b"\x7fELF" + rng.bytes(300),
    ][rng.integers(16)]


def odd_shape(rng):
    width, height = [(1, 1), (7, 90), (90, 7), (8, 161), (3000, 9), (8, 160), (6, 6)][
        rng.integers(7)
    ]
    return saved(Image.fromarray(photo(rng, 3, height, width)), str(rng.choice(FORMATS[1:4])))


KINDS = (
    png_of_wrong_size, png_bomb, png_with_valid_sums, png_text_bomb, png_odd_parts,
    jpeg_of_wrong_size, jpeg_of_many_scans, jpeg_odd_segments, bad_exif, bad_profile,
    gif_of_wrong_size, bmp_with_false_numbers, tiff_with_false_numbers, webp_with_false_numbers,
    animation, polyglot, not_an_image, odd_shape,
)  # fmt: skip


# --- as large as allowed, and small on the disk


@cache
def giants():
    """Images just below the limits: each takes a second and hundreds of megabytes to decode."""
    body = zlib.compress(bytes((8500 * 3 + 1) * 8500), 1)
    grey = Image.new("L", (9400, 9400), 90)
    runs = bytearray(saved(Image.new("P", (8900, 8900)), "BMP")[: 54 + 1024])
    runs[30] = 1  # its rows are runs, and each ends after one pixel: the slowest of all
    return (
        png(8500, 8500, colour=2, body=body),
        bytes(runs) + b"\1\0\0\0" * 8900 + b"\0\1",
        saved(grey, "GIF"),
        saved(grey, "PNG"),
        saved(Image.new("RGB", (4700, 4000), (9, 90, 200)), "WEBP"),  # just below the limit
        saved(Image.new("RGB", (4900, 4000), (9, 90, 200)), "WEBP"),  # just above
        saved(
            Image.new("RGB", (7600, 4700), 7), "TIFF", compression="tiff_lzw", strip_size=1 << 30
        ),
        saved(Image.new("RGB", (7000, 4100), 7), "JPEG", progressive=True, subsampling=0),
        saved(Image.new("RGB", (4000, 4000), 7), "PNG"),  # read whole, several at once
        saved(Image.new("F", (4000, 4000), 0.5), "TIFF", compression="tiff_lzw"),
        saved(Image.new("RGBA", (3900, 4000), (1, 2, 3, 4)), "PNG"),
    )


def giant(rng):
    chosen = giants()[rng.integers(len(giants()))]
    return chosen + rng.bytes(9)  # unlike its copies


def hostile(folder: Path, num: int, seed: int, giant_share: float = 0.003) -> None:
    """Write `num` files into three class folders."""
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    for i in range(num):
        rng = np.random.default_rng([seed, i])
        content = make(rng, i, giant_share)
        # Most are named like images; some are hidden, or have names that no image has.
        stem = str(rng.choice(["", ".", "copy of "], p=[0.88, 0.02, 0.1]))
        suffix = str(rng.choice([*SUFFIXES, *SUFFIXES, *SUFFIXES, ".JPG", ".txt", ""]))
        (folder / CLASSES[i % len(CLASSES)] / f"{stem}{i:05d}{suffix}").write_bytes(content)


def make(rng, i, giant_share):
    """Return the i-th file: each kind in turn, the others with random damage."""
    if rng.random() < giant_share:
        return giant(rng)
    if i % 3 == 0:
        return KINDS[i // 3 % len(KINDS)](rng)
    photos = camera_photos()
    if photos and rng.random() < 0.2:
        content = photos[rng.integers(len(photos))]
    else:
        content = real_pictures(rng)
    for _ in range(rng.integers(0, 3) if rng.random() < 0.9 else 0):
        content = DAMAGE[rng.integers(len(DAMAGE))](content, rng) or b"\0"
    return content

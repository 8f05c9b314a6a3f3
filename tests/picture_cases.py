"""Images of every mode, format and orientation, each with what a viewer shows, in numpy.

The references come from the arrays that the files were made of: transparency blended onto white,
values rescaled, orientations undone by index, colours converted by their formulas; nothing of
towernet and no Pillow conversion takes part. No format that is read holds HSV.
Shapes: H × W × 3, uint8 or float.
"""

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, features

HEIGHT, WIDTH = 40, 48
TOLERANCE = 2  # of 255


@dataclass(frozen=True)
class Case:
    """A file's bytes, and the image in it."""

    content: bytes
    expected: np.ndarray


CASES: dict[str, Case] = {}


def saved(image, file_format, **options):
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def add(name, content, expected):
    if expected.ndim == 2:
        expected = np.repeat(expected[..., None], 3, -1)
    assert expected.shape[2] == 3, name
    assert name not in CASES, name
    CASES[name] = Case(content, expected)


def on_white(rgb, alpha):
    rgb = np.repeat(rgb[..., None], 3, -1) if rgb.ndim == 2 else rgb
    share = alpha[..., None].astype(float) / 255
    return rgb * share + 255 * (1 - share)


def noise(channels, top=256, dtype=np.uint8):
    values = np.random.default_rng(channels).integers(0, top, (HEIGHT, WIDTH, channels), dtype)
    return values[..., 0] if channels == 1 else values


def blocks(channels):
    """8 × 8 pixels of one colour each, which JPEG and AVIF keep; changed by any turn or mirror."""
    colours = np.random.default_rng(7).integers(0, 256, (HEIGHT // 8, WIDTH // 8, channels))
    return colours.repeat(8, 0).repeat(8, 1).astype(np.uint8)


def pale():
    """AVIF's colour transform is off by 3 in strong colours."""
    return 100 + blocks(3) // 4


def palette(num):
    """An image of indices, and their colours."""
    index = np.random.default_rng(num).integers(0, num, (HEIGHT, WIDTH), dtype=np.uint8)
    colours = np.random.default_rng(num + 1).integers(0, 256, (num, 3), dtype=np.uint8)
    image = Image.fromarray(index)
    image.putpalette(colours.tobytes())
    return image, index, colours


def packed(values, bits):
    """Rows of values of 1, 2, 4 or 8 bits, packed from the left."""
    spread = np.unpackbits(values[..., None].astype(np.uint8), axis=-1)[..., 8 - bits :]
    return [np.packbits(row.reshape(-1)).tobytes() for row in spread]


def png_chunk(kind, content):
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png(depth, colour, rows, *extra):
    """A PNG written byte by byte: what Pillow reads but does not write."""
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [png_chunk(b"IHDR", header), *extra, png_chunk(b"IDAT", body), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def bmp(bits, rows, colours=b"", compression=0):
    """A BMP written byte by byte, its rows from the bottom, each padded to four bytes."""
    body = rows if compression else b"".join(row + bytes(-len(row) % 4) for row in rows[::-1])
    header = struct.pack(
        "<IiiHHIIiiII",
        40,
        WIDTH,
        HEIGHT,
        1,
        bits,
        compression,
        len(body),
        1,
        1,
        len(colours) // 4,
        0,
    )
    start = 14 + len(header) + len(colours)
    return struct.pack("<2sIHHI", b"BM", start + len(body), 0, 0, start) + header + colours + body


def tiff(order, bits, photometric, parts, *, sample_format=1, tile=0, planar=1, extra=()):
    """An uncompressed TIFF written byte by byte, `bits` of each sample, in strips or tiles."""
    rows = -(-HEIGHT // (len(parts) // (len(bits) if planar == 2 else 1)))
    where = {273: "offsets", 278: [rows], 279: "sizes"}
    if tile:
        where = {322: [tile], 323: [tile], 324: "offsets", 325: "sizes"}
    tags = {256: [WIDTH], 257: [HEIGHT], 258: bits, 259: [1], 262: [photometric], 277: [len(bits)],
            284: [planar], 339: [sample_format] * len(bits), **where}  # fmt: skip
    if extra:
        tags[338] = list(extra)
    start = 8 + 2 + 12 * len(tags) + 4
    sizes = [len(part) for part in parts]
    data_at = start + sum(
        4 * len(v) if v not in ("offsets", "sizes") else 4 * len(parts) for v in tags.values()
    )
    offsets = [data_at + sum(sizes[:i]) for i in range(len(parts))]
    entries, overflow = b"", b""
    for tag in sorted(tags):
        values = (
            {"offsets": offsets, "sizes": sizes}.get(tags[tag])
            if isinstance(tags[tag], str)
            else tags[tag]
        )
        field = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            field, overflow = struct.pack(order + "I", start + len(overflow)), overflow + field
        entries += struct.pack(order + "HHI", tag, 4, len(values)) + field
    overflow += bytes(data_at - start - len(overflow))
    magic = b"II*\0" if order == "<" else b"MM\0*"
    head = magic + struct.pack(order + "IH", 8, len(tags))
    return head + entries + bytes(4) + overflow + b"".join(parts)


# --- one, two, four and eight bits; palettes


def add_few_bits():
    bits = noise(1, 2)
    for file_format in ("PNG", "TIFF", "BMP", "GIF"):
        add(f"1 {file_format}", saved(Image.fromarray(bits > 0), file_format), bits * 255)
    for depth in (2, 4):
        values = noise(1, 2**depth)
        spread = values * (255 // (2**depth - 1))
        add(f"L{depth} PNG", png(depth, 0, packed(values, depth)), spread)
        add(f"L{depth} TIFF", tiff("<", [depth], 1, [b"".join(packed(values, depth))]), spread)
    for file_format in ("PNG", "TIFF", "BMP", "GIF"):
        add(f"L {file_format}", saved(Image.fromarray(noise(1)), file_format), noise(1))
        image, index, colours = palette(200)
        add(f"P {file_format}", saved(image, file_format), colours[index])
    add("L white is zero TIFF", tiff("<", [8], 0, [noise(1).tobytes()]), 255 - noise(1))
    for depth in (1, 2, 4):
        image, index, colours = palette(2**depth)
        add(f"P{depth} PNG", saved(image, "PNG", bits=depth), colours[index])
        blue_first = np.pad(colours[:, ::-1], ((0, 0), (0, 1))).tobytes()
        if depth != 2:
            add(f"P{depth} BMP", bmp(depth, packed(index, depth), blue_first), colours[index])
    image, index, colours = palette(9)
    runs = b"".join(b"".join(bytes([1, value]) for value in row) + b"\0\0" for row in index[::-1])
    blue_first = np.pad(colours[:, ::-1], ((0, 0), (0, 1))).tobytes()
    add("P run lengths BMP", bmp(8, runs + b"\0\1", blue_first, 1), colours[index])


def add_transparency():
    image, index, colours = palette(7)
    alphas = bytes([0, 40, 80, 120, 160, 200, 255])
    shown = on_white(colours[index], np.frombuffer(alphas, np.uint8)[index])
    add("P alphas PNG", saved(image, "PNG", transparency=alphas), shown)
    shown = np.where((index == 3)[..., None], 255, colours[index])
    for file_format in ("PNG", "GIF"):
        add(f"P one clear {file_format}", saved(image, file_format, transparency=3), shown)
    grey = noise(1, 5)
    add("L one clear PNG", saved(Image.fromarray(grey), "PNG", transparency=2),
        np.where(grey == 2, 255, grey))  # fmt: skip
    rgb = np.repeat(grey[..., None], 3, -1)
    add("RGB one clear PNG", saved(Image.fromarray(rgb), "PNG", transparency=(4, 4, 4)),
        np.where(rgb == 4, 255, rgb))  # fmt: skip
    two, four = noise(2), noise(4)
    for file_format in ("PNG", "TIFF"):
        content = saved(Image.fromarray(two, "LA"), file_format)
        add(f"LA {file_format}", content, on_white(two[..., 0], two[..., 1]))
    shown = on_white(four[..., :3], four[..., 3])
    for file_format, options in (
        ("PNG", {}),
        ("TIFF", {}),
        ("WEBP", {"lossless": True, "exact": True}),
    ):
        add(f"RGBA {file_format}", saved(Image.fromarray(four), file_format, **options), shown)
    clear = (four[..., :3] * (four[..., 3:] / 255)).round().astype(np.uint8)
    content = tiff("<", [8] * 4, 2, [np.dstack([clear, four[..., 3]]).tobytes()], extra=[1])
    add("RGBa premultiplied TIFF", content, clear + 255.0 - four[..., 3:])
    index_and_alpha = np.dstack([index, noise(1)])
    image = Image.frombytes("PA", (WIDTH, HEIGHT), index_and_alpha.tobytes())
    image.putpalette(colours.tobytes())
    add("PA TIFF", saved(image, "TIFF"), on_white(colours[index], noise(1)))


# --- colour


def add_colour():
    rgb = noise(3)
    for file_format, options in (
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("WEBP", {"lossless": True}),
    ):
        add(f"RGB {file_format}", saved(Image.fromarray(rgb), file_format, **options), rgb)
    for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd"):
        content = saved(Image.fromarray(rgb), "TIFF", compression=name, strip_size=WIDTH * 3 * 7)
        add(f"RGB {name} strips TIFF", content, rgb)
    add("RGB big-endian TIFF", tiff(">", [8] * 3, 2, [rgb[:20].tobytes(), rgb[20:].tobytes()]), rgb)
    padded = np.pad(rgb, ((0, 8), (0, 0), (0, 0)))
    tiles = [padded[r : r + 16, c : c + 16].tobytes() for r in (0, 16, 32) for c in (0, 16, 32)]
    add("RGB tiles TIFF", tiff("<", [8] * 3, 2, tiles, tile=16), rgb)
    planes = [np.ascontiguousarray(rgb[..., band]).tobytes() for band in range(3)]
    add("RGB planes TIFF", tiff("<", [8] * 3, 2, planes, planar=2), rgb)
    blue_first = [np.column_stack([row[:, ::-1], row[:, 0]]).tobytes() for row in rgb]
    add("RGB 32 bits BMP", bmp(32, blue_first), rgb)
    five = (rgb >> 3).astype(np.uint16)
    words = (five[..., 0] << 10 | five[..., 1] << 5 | five[..., 2]).astype("<u2")
    add("RGB 15 bits BMP", bmp(16, [row.tobytes() for row in words]), five * 255.0 / 31)
    for name, options in (("", {}), (" progressive", {"progressive": True})):
        content = saved(Image.fromarray(blocks(3)), "JPEG", quality=100, subsampling=0, **options)
        add(f"RGB{name} JPEG", content, blocks(3))
    grey = blocks(1)[..., 0]
    add("L JPEG", saved(Image.fromarray(grey), "JPEG", quality=100), grey)
    if features.check("avif"):
        options = {"quality": 100, "subsampling": "4:4:4"}
        add("RGB AVIF", saved(Image.fromarray(pale()), "AVIF", **options), pale())
        four = blocks(4)
        add("RGBA AVIF", saved(Image.fromarray(four), "AVIF", **options),
            on_white(four[..., :3], four[..., 3]))  # fmt: skip
    frames = [Image.fromarray(rgb), Image.fromarray(rgb[::-1])]
    for file_format in ("PNG", "TIFF", "WEBP"):
        options = {"lossless": True} if file_format == "WEBP" else {}
        content = saved(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
        add(f"frames {file_format}", content, rgb)
    image, index, colours = palette(200)
    add("frames GIF", saved(image, "GIF", save_all=True, append_images=frames), colours[index])
    frames = [Image.fromarray(blocks(3)), Image.fromarray(blocks(3)[::-1])]
    options = {"quality": 100, "subsampling": 0}
    add("frames MPO", saved(frames[0], "MPO", save_all=True, append_images=frames[1:], **options),
        blocks(3))  # fmt: skip


def add_ink_and_other_colours():
    ink = blocks(4)
    paper = (255.0 - ink[..., :3]) * (255.0 - ink[..., 3:]) / 255
    add("CMYK TIFF", saved(Image.fromarray(ink, "CMYK"), "TIFF"), paper)
    # Adobe stores 255 − ink, and so does Pillow.
    content = saved(Image.fromarray(ink, "CMYK"), "JPEG", quality=100, subsampling=0)
    add("CMYK Adobe JPEG", content, paper)
    # YCCK: the inks, seen as RGB, as luma and chroma; the transform's number is in the Adobe mark.
    red, green, blue = np.moveaxis(ink[..., :3].astype(float), -1, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma = [128 + (blue - luma) / 1.772, 128 + (red - luma) / 1.402]
    stored = np.stack([luma, *chroma, 255.0 - ink[..., 3]], -1).round().clip(0, 255)
    image = Image.fromarray((255 - stored).astype(np.uint8), "CMYK")
    content = bytearray(saved(image, "JPEG", quality=100, subsampling=0))
    content[content.index(b"Adobe") + 11] = 2
    add("YCCK Adobe JPEG", bytes(content), paper)
    ycc = np.full((HEIGHT, WIDTH, 3), [76, 85, 255], np.uint8)
    add("YCbCr TIFF", saved(Image.fromarray(ycc, "YCbCr"), "TIFF"),
        np.full((HEIGHT, WIDTH, 3), [254.0, 0, 0]))  # fmt: skip
    lab = (np.random.default_rng(5).integers(0, 256, (5, 6, 3)) - [0, 128, 128]) * [0.5, 0.1, 0.1]
    lab = (lab.repeat(8, 0).repeat(8, 1) + np.array([60, 0, 0])).round()
    stored = lab.astype(np.int16).astype(np.uint8)  # a and b are signed
    add("LAB TIFF", saved(Image.fromarray(stored, "LAB"), "TIFF"), lab_to_srgb(lab))


def lab_to_srgb(lab):
    """CIE 1976 L*a*b* under D50, L in 0 … 255, to sRGB (Bradford-adapted, IEC 61966-2-1)."""
    height = (lab[..., 0] * 100 / 255 + 16) / 116
    three = np.stack([height + lab[..., 1] / 500, height, height - lab[..., 2] / 200], -1)
    xyz = np.where(three > 6 / 29, three**3, 3 * (6 / 29) ** 2 * (three - 4 / 29))
    xyz *= [0.9642, 1.0, 0.8249]
    linear = xyz @ np.array(
        [[3.1338561, -1.6168667, -0.4906146],
         [-0.9787684, 1.9161415, 0.0334540],
         [0.0719453, -0.2289914, 1.4052427]]).T  # fmt: skip
    linear = linear.clip(0, 1)
    return 255 * np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)


# --- more than eight bits


def add_deep():
    deep = noise(1, 65536, np.uint16)
    deep[0, :2] = 0, 65535
    add("I;16 PNG", saved(Image.fromarray(deep), "PNG"), deep / 257)
    add("I;16 TIFF", saved(Image.fromarray(deep), "TIFF"), deep / 257)
    add("I;16 12 bits TIFF", saved(Image.fromarray(deep >> 4), "TIFF"), (deep >> 4) / 4095 * 255)
    big = Image.frombytes("I;16B", (WIDTH, HEIGHT), deep.astype(">u2").tobytes())
    add("I;16B TIFF", saved(big, "TIFF"), deep / 257)
    rows = [row.astype(">u2").tobytes() for row in deep]
    clear = png_chunk(b"tRNS", struct.pack(">H", deep[3, 3]))
    add(
        "I;16 one clear PNG", png(16, 0, rows, clear), np.where(deep == deep[3, 3], 255, deep / 257)
    )
    for channels, colour, name in ((3, 2, "RGB"), (2, 4, "LA"), (4, 6, "RGBA")):
        values = noise(channels, 65536, np.uint16)
        rows = [row.astype(">u2").tobytes() for row in values]
        shown = values / 257
        if channels != 3:
            levels = shown[..., 0] if channels == 2 else shown[..., :3]
            shown = on_white(levels, shown[..., -1])
        add(f"{name} 16 bits PNG", png(16, colour, rows), shown)
    values = noise(3, 65536, np.uint16)
    rows = [row.astype(">u2").tobytes() for row in values]
    clear = png_chunk(b"tRNS", values[5, 6].astype(">u2").tobytes())
    shown = np.where((values == values[5, 6]).all(-1, keepdims=True), 255, values / 257)
    add("RGB 16 bits one clear PNG", png(16, 2, rows, clear), shown)
    add("RGB 16 bits TIFF", tiff("<", [16] * 3, 2, [values.astype("<u2").tobytes()]), values / 257)
    add("RGB 16 bits big-endian TIFF", tiff(">", [16] * 3, 2, [values.astype(">u2").tobytes()]),
        values / 257)  # fmt: skip
    ramp = np.linspace(0, 1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    for name, low, high in (("unit", 0, 1), ("signed", -3, 5), ("16 bits", 0, 65535)):
        image = Image.fromarray((low + ramp * (high - low)).astype(np.float32))
        add(f"F {name} TIFF", saved(image, "TIFF"), ramp * 255)
    content = tiff(">", [32], 1, [ramp.astype(">f4").tobytes()], sample_format=3)
    add("F big-endian TIFF", content, ramp * 255)
    integers = (ramp * 160_000 - 70_000).astype(np.int32)
    add("I TIFF", saved(Image.fromarray(integers), "TIFF"), ramp * 255)


# --- orientation


def upright(stored, orientation):
    """Undo EXIF's orientation: find the stored pixel of each displayed pixel."""
    height, width = stored.shape[:2]
    rows, columns = (width, height) if orientation > 4 else (height, width)
    seen = np.empty((rows, columns, *stored.shape[2:]), stored.dtype)
    for row in range(rows):
        for column in range(columns):
            seen[row, column] = stored[
                {
                    1: (row, column),
                    2: (row, width - 1 - column),
                    3: (height - 1 - row, width - 1 - column),
                    4: (height - 1 - row, column),
                    5: (column, row),
                    6: (height - 1 - column, row),
                    7: (height - 1 - column, width - 1 - row),
                    8: (column, width - 1 - row),
                }[orientation]
            ]
    return seen


def add_orientations():
    kinds = {
        "JPEG": {"quality": 100, "subsampling": 0},
        "PNG": {},
        "WEBP": {"lossless": True},
        "TIFF": {},
        "TIFF lzw": {"compression": "tiff_lzw"},
    }
    if features.check("avif"):
        kinds["AVIF"] = {"quality": 100, "subsampling": "4:4:4"}
    deep = noise(1, 65536, np.uint16)
    for orientation in range(1, 9):
        for name, options in kinds.items():
            image = pale() if name == "AVIF" else blocks(3)
            exif = Image.Exif()
            exif[0x0112] = orientation
            content = saved(Image.fromarray(image), name.split()[0], exif=exif, **options)
            add(f"turned {orientation} {name}", content, upright(image, orientation))
        exif = Image.Exif()
        exif[0x0112] = orientation
        content = saved(Image.fromarray(deep), "PNG", exif=exif)
        add(f"turned {orientation} I;16 PNG", content, upright(deep, orientation) / 257)


add_few_bits()
add_transparency()
add_colour()
add_ink_and_other_colours()
add_deep()
add_orientations()

"""Colour profiles (ICC) written byte by byte, and what they mean, in numpy.

From the specification (ICC.1:2004): a header, a table of tags, and the tags.
"""

import struct

import numpy as np

ADOBE = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322],
                  [0.01947, 0.06087, 0.74457]])  # fmt: skip
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061],
                 [0.01392, 0.09708, 0.71410]])  # fmt: skip
"""Of linear colours to XYZ under D50."""


def fixed(value):
    return struct.pack(">i", round(value * 65536))


def profile(space, tags, *, device=b"mntr", connection=b"XYZ "):
    """A profile of these tags."""
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content
    size = start + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"none", 0x02400000, device, space, connection)
    head += bytes(12) + b"acsp" + bytes(28) + fixed(0.9642) + fixed(1.0) + fixed(0.8249)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def text(words):
    return b"desc" + bytes(4) + struct.pack(">I", len(words) + 1) + words.ljust(90, b"\0")


def gamma_curve(gamma):
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)


def srgb_curve():
    x = np.linspace(0, 1, 1024)
    linear = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    values = (linear * 65535).round().astype(">u2").tobytes()
    return b"curv" + bytes(4) + struct.pack(">I", 1024) + values


def place(xyz):
    return b"XYZ " + bytes(4) + b"".join(fixed(value) for value in xyz)


def rgb_profile(matrix=ADOBE, curve=None, words=b"made in a test"):
    curve = curve or gamma_curve(2.19921875)
    tags = {b"desc": text(words), b"cprt": b"text" + bytes(4) + b"none\0",
            b"wtpt": place([0.9642, 1.0, 0.8249])}  # fmt: skip
    tags |= {name + b"XYZ": place(matrix[:, i]) for i, name in enumerate((b"r", b"g", b"b"))}
    tags |= {name + b"TRC": curve for name in (b"r", b"g", b"b")}
    return profile(b"RGB ", tags)


def grey_profile(gamma=1.0):
    return profile(
        b"GRAY",
        {
            b"desc": text(b"grey"),
            b"cprt": b"text" + bytes(4) + b"none\0",
            b"wtpt": place([0.9642, 1.0, 0.8249]),
            b"kTRC": gamma_curve(gamma),
        },
    )


def cmyk_profile():
    """Inks whose lightness falls evenly with each: a table of 2⁴ colours in L*a*b*."""
    one = bytes(range(256))
    corners = np.array(np.meshgrid(*[[0, 1]] * 4, indexing="ij")).reshape(4, -1).T
    light = 100 * (1 - corners[:, :3].mean(1)) * (1 - corners[:, 3])
    table = np.column_stack([light * 2.55, np.full((16, 2), 128)]).round().astype(np.uint8)
    matrix = b"".join(fixed(value) for value in np.eye(3).ravel())
    lut = b"mft1" + bytes(4) + struct.pack(">BBBB", 4, 3, 2, 0) + matrix
    lut += one * 4 + table.tobytes() + one * 3
    return profile(b"CMYK", {b"desc": text(b"ink"), b"cprt": b"text" + bytes(4) + b"none\0",
                             b"wtpt": place([0.9642, 1.0, 0.8249]), b"A2B0": lut, b"A2B1": lut},
                   device=b"prtr", connection=b"Lab ")  # fmt: skip


def to_srgb(rgb, matrix=ADOBE, gamma=2.19921875):
    """(…, 3) bytes in a profile's colours, as bytes in sRGB, not rounded."""
    linear = (rgb / 255.0) ** gamma
    return encoded(linear @ matrix.T @ np.linalg.inv(SRGB).T)


def encoded(linear):
    linear = linear.clip(0, 1)
    return 255 * np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)

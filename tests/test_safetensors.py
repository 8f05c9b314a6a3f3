"""Hostile safetensors files: each is refused in one sentence that names the tensor."""

import json
import struct

import pytest

from towernet.errors import DataError
from towernet.models.foreign import read_foreign


def safe(header: object, numbers: bytes = bytes(16), *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + numbers


def entry(start: int, stop: int, shape: object = (2,), dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


TWICE = b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},'
CRAFTED = [
    (b"\x05", "its header should have .* truncated"),
    (b"\x05\0\0", "truncated"),
    (safe({}, b"", length=2**62), "its header should have 4,611,686,018,427,387,904 bytes"),
    (safe({}, bytes(100_000_000), length=100_000_000), "its header is too large: 100,000,000 b"),
    (safe(b"{nonsense}"), "Expecting property name"),
    (safe(b"\xff\xfe"), "codec can't decode"),
    (safe(b"[" * 100_000), "recursion"),
    (safe([1]), "its header is not a JSON object"),
    (safe({"a": 5}), "'a' lacks its dtype, shape or offsets"),
    (safe({"a": {"dtype": "F32"}}), "'a' lacks its dtype, shape or offsets"),
    (safe({"a": entry(0, 16, [4], "F128")}), "'a' has the dtype 'F128'"),
    (safe({"a": entry(0, 16, [5])}), r"'a' has 16 bytes for the shape \[5\] of F32"),
    (safe({"a": entry(0, 16, [4], "F64")}), r"'a' has 16 bytes for the shape \[4\] of F64"),
    (safe({"a": entry(0, 16, [-4])}), r"'a' has the shape \[-4\]"),
    (safe({"a": entry(0, 16, [10**30])}), r"'a' has the shape \[1000000"),
    (safe({"a": entry(0, 16, [1] * 9)}), r"'a' has the shape"),
    (safe({"a": entry(16, 0, [4])}), "'a' has -16 bytes"),
    (safe({"a": entry(0, 8), "b": entry(4, 12)}), "'b' starts at byte 4 and not at 8"),
    (safe({"a": entry(0, 8), "b": entry(0, 8)}), "'b' starts at byte 0 and not at 8"),
    (safe({"a": entry(0, 8)}), "'a' ends at byte 8, but the data ends at 16"),
    (safe({"a": entry(4, 12)}), "'a' starts at byte 4 and not at 0"),
    (safe({"a": entry(0, 16, [4]), "b": entry(16, 24)}), "'b' ends at byte 24, but the data"),
    (safe(TWICE + TWICE[1:-1] + b"}"), "'a' is in its header twice"),
    (safe({"\x1b[31mred": 5}), r"'\\x1b\[31mred' lacks its"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "message"), CRAFTED)
def test_a_crafted_safetensors_file_is_named(tmp_path, content, message):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"w\.safetensors is damaged \(.*{message}"):
        read_foreign(path)


def test_a_sound_safetensors_file_made_the_same_way_is_read(tmp_path):
    """The sabotaged twin of the crafted ones."""
    path = tmp_path / "w.safetensors"
    path.write_bytes(safe({"b": entry(8, 16), "__metadata__": {"x": "y"}, "a": entry(0, 8)}))
    assert read_foreign(path)[""].keys() == {"a", "b"}

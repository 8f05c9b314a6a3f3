"""Hostile weight files given with --weights: refused in a sentence, nothing run, no memory used."""

import json
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch

from conftest import TINY_NETWORK
from test_foreign import Calls
from towernet.models.catalogue import build

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc"
)

MOST_MB = 50
# Reads each file as compare does; prints the message, and the peak of memory above that of a
# sound file in MB.
READ_EACH = f"""
import json, sys
from pathlib import Path
from towernet.errors import DataError
from towernet.names import NetworkName
from towernet.starts.find import resolve
from towernet.starts.load import backbone

def peak_mb():
    # Of this program; ru_maxrss includes the process that started it.
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024

def read(path):
    name = {TINY_NETWORK!r}
    try:
        backbone(resolve([NetworkName(name + "/frozen")], [name + "=" + path])[name], 3, 64)
    except DataError as error:
        return str(error)
    return "read"

sound, *others = sys.argv[1:]
assert read(sound) == "read"
idle_mb = peak_mb()
print(json.dumps([[read(path), peak_mb() - idle_mb] for path in others]))
"""


def header(num_bytes: int, content: bytes = b"") -> bytes:
    return struct.pack("<Q", num_bytes) + content


def sparse(path: Path, start: bytes, num_bytes: int) -> None:
    """Write a file that is mostly a hole: it takes no disk."""
    with path.open("wb") as stream:
        stream.write(start)
        stream.truncate(num_bytes)


def old(value: object, path: Path) -> bytes:
    torch.save(value, path, _use_new_zipfile_serialization=False)
    return path.read_bytes()


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return build(TINY_NETWORK, 5, 64).state_dict()


def hostile(folder: Path, state: dict[str, torch.Tensor], mark: Path) -> dict[str, str]:
    """Write the files; return what is said about each."""

    def path(name: str) -> Path:
        return folder / name

    gadget = {"state_dict": state, "gadget": Calls(os.system, f"touch {mark}")}
    torch.save(gadget, path("code.pth"))
    old(gadget, path("old_code.pth"))
    large = b"J" + struct.pack("<i", 500_000_000)
    claims = old({"conv1.0.weight": torch.ones(1000)}, path("old_claims.pth"))
    path("old_claims.pth").write_bytes(claims.replace(b"M\xe8\x03", large))
    head, rest = claims[:200], claims[200:]
    path("old_cut.pth").write_bytes(head + rest[: len(rest) // 2])
    sparse(path("header.safetensors"), header(10 * 10**9), 10 * 10**9 + 100)
    sparse(path("header_100mb.safetensors"), header(10**8, b"{"), 10**8 + 100)
    path("claims.safetensors").write_bytes(header(10 * 10**9, b"{}"))
    safetensors.torch.save_file(state, path("cut.safetensors"))
    content = path("cut.safetensors").read_bytes()
    path("cut.safetensors").write_bytes(content[: len(content) // 2])
    wrong = state | {"conv1.0.weight": torch.ones(1, 1).expand(1 << 12, 1 << 12)}
    torch.save(wrong, path("expanded.pth"))
    torch.save(state | {"fc.weight": torch.ones(1, 1).expand(1 << 22, 1024)}, path("head.pth"))
    torch.save(state | {"conv1.0.weight": torch.full((24, 3, 3, 3), torch.nan)}, path("nan.pth"))
    with zipfile.ZipFile(path("bomb.pth"), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}.")
        archive.writestr("a/data/0", bytes(300_000_000))
    return {
        "code.pth": "contains code that loading weights does not need",
        "old_code.pth": "contains code that loading weights does not need",
        "old_claims.pth": "is damaged",
        "old_cut.pth": "is damaged",
        "header.safetensors": "has 10.0 GB, and the limit is 4.3 GB",
        "header_100mb.safetensors": "its header is too large",
        "claims.safetensors": "is truncated",
        "cut.safetensors": "is damaged",
        "expanded.pth": "'conv1.0.weight' is not a plain tensor",
        "head.pth": "'fc.weight' is not a plain tensor",
        "nan.pth": "contains NaN or Inf",
        "bomb.pth": "are larger than the file",
    }


def test_hostile_files_are_refused_in_little_memory(tmp_path, state):
    sound, large, mark = (tmp_path / name for name in ("sound.safetensors", "large.pth", "mark"))
    safetensors.torch.save_file(state, sound)
    # The twin, last: it does take memory, so the measurement would have noticed the others.
    old(state | {"more": torch.ones(30_000_000)}, large)
    messages = hostile(tmp_path, state, mark)
    done = subprocess.run(
        [sys.executable, "-c", READ_EACH, sound, *(tmp_path / name for name in messages), large],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    *found, (said, mb) = json.loads(done.stdout)
    assert "contains 'more', which is not in" in said
    assert mb > MOST_MB
    for (name, message), (said, mb) in zip(messages.items(), found, strict=True):
        assert message in said, (name, said)
        assert name in said
        assert "\n" not in said
        assert mb < MOST_MB, (name, mb)
    assert not mark.exists()

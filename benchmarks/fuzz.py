"""Fuzz towernet's parsers: anything but a result or a TowernetError is a finding.

With atheris (`pip install atheris`, for the Python versions with a wheel) the mutations are guided
by code coverage; without it they are drawn with a seed. Each target runs in its own process, so a
crash or a hang is a finding and does not stop the script.

    python benchmarks/fuzz.py --seconds 120
    python benchmarks/fuzz.py --seconds 60 --target archives
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

try:
    import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]
except ImportError:
    atheris = None

SLOW_SECONDS = 5.0
HANG_SECONDS = 60
MAX_BYTES = 8192
OUR_SOURCE = "towernet"
GUIDED_BY = [OUR_SOURCE, "csv", "json", "pickletools", "tarfile", "tomllib", "zipfile"]

Parse = Callable[[Path], object]  # parses a file of mutated bytes, in an empty folder


def layout(path: Path) -> object:
    """Read lines as paths found by a scan; the first line's length selects the layout."""
    from towernet.data.layout import LAYOUTS, read_layout
    from towernet.data.tree import hidden_part

    lines = os.fsdecode(path.read_bytes().replace(b"\0", b"")).split("\n")
    paths = ["/".join(part for part in line.split("/") if part) for line in lines]
    paths = [line for line in paths if line and not hidden_part(line)]
    chosen = LAYOUTS[len(lines[0]) % len(LAYOUTS)]
    folders = [line.rpartition("/")[0] for line in paths[::2]]
    found = read_layout(paths, folders, name="data", layout=chosen, skip_empty=bool(len(lines) % 2))
    return [found.class_and_split(line) for line in paths]


def csv_source(path: Path) -> object:
    from towernet.data.source import open_source

    path = path.rename(path.with_name("data.csv"))
    for name in ("1", "2.jpg"):
        path.with_name(name).touch()
    return open_source(str(path))


def archives(path: Path) -> object:
    from towernet.data.source import open_source

    try:
        return open_source(str(path))
    finally:
        shutil.rmtree(os.environ["TOWERNET_CACHE"], ignore_errors=True)


def pdparams(path: Path) -> object:
    from towernet.models.paddle import read_pdparams

    return read_pdparams(path)


def safetensors(path: Path) -> object:
    from towernet.models.foreign import read_foreign

    return read_foreign(path.rename(path.with_name("w.safetensors")))


def torch_archive(path: Path) -> object:
    from towernet.models.foreign import read_foreign

    return read_foreign(path.rename(path.with_name("w.pt")))


def protocol(path: Path) -> object:
    from towernet.comparison.protocol import read_protocol

    return read_protocol(path)


def json_file(path: Path) -> object:
    from towernet.errors import DataError
    from towernet.files import read_json, read_jsonl

    try:
        return read_jsonl(path)
    except DataError:
        return read_json(path)


def table(path: Path) -> object:
    from towernet.data.table import read_table

    return read_table(path)


def image(path: Path) -> object:
    from towernet.data.decode import decode

    return decode(path.read_bytes())


def recipe(path: Path) -> object:
    from towernet.config import load_recipe

    return load_recipe(str(path.rename(path.with_name("mine.toml"))))


def class_names(path: Path) -> object:
    from towernet.data.class_list import read_class_names

    return read_class_names(path)


# Valid files to start with.


def _zip(method: int) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for name in ("cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "README.txt"):
            archive.writestr(name, name * 3)
    return content.getvalue()


def _tar(mode: Any) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as archive:
        for name in ("cat/1.jpg", "dog/" + "long" * 40 + ".jpg"):
            info = tarfile.TarInfo(name)
            info.size = 5
            archive.addfile(info, io.BytesIO(b"12345"))
    return content.getvalue()


def _archives() -> list[bytes]:
    return [_zip(zipfile.ZIP_STORED), _zip(zipfile.ZIP_DEFLATED), _zip(zipfile.ZIP_LZMA),
            _tar("w"), _tar("w:gz"), _tar("w:xz")]  # fmt: skip


def _pdparams() -> list[bytes]:
    import pickle

    import numpy as np

    arrays = {"a.weight": np.ones((2, 3), np.float32), "b": np.zeros(2, np.float16)}
    split = arrays | {"UnpackBigParamInfor@@": {"w": {"OriginShape": (8,), "slices": ["a", "b"]}}}
    return [pickle.dumps(value, number) for value in (arrays, split) for number in (2, 3, 4)]


def _safetensors() -> list[bytes]:
    import torch
    from safetensors.torch import save

    return [save({"a": torch.ones(2, 3), "b": torch.zeros(2, dtype=torch.float16)})]


def _torch() -> list[bytes]:
    import torch

    state = {"module.a": torch.nn.Parameter(torch.ones(2))}
    found = []
    for value in ({"a": torch.ones(2, 3)}, {"epoch": 1, "state_dict": state}):
        stream = io.BytesIO()
        torch.save(value, stream)
        found.append(stream.getvalue())
    return found


def _table() -> list[bytes]:
    from towernet.data.table import make_table, write_table

    columns = {"path": ["cat/1.jpg", "dog/\udce9"], "content_id": ["ab" * 32, ""]}
    with tempfile.TemporaryDirectory() as folder:
        write_table(Path(folder) / "t.parquet", make_table(columns))
        return [(Path(folder) / "t.parquet").read_bytes()]


def _images() -> list[bytes]:
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    kinds = ("RGB JPEG", "CMYK JPEG", "RGBA PNG", "P PNG", "1 PNG", "P GIF", "RGB BMP", "RGB WEBP",
             "RGB TIFF", "F TIFF")  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = 6
    found = []
    for mode, kind in map(str.split, kinds):
        stream = io.BytesIO()
        options = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}
        Image.fromarray(pixels).convert(mode).save(stream, kind, **options)
        found.append(stream.getvalue())
    return found


def _recipes() -> list[bytes]:
    folder = Path(__file__).parent.parent / "src" / "towernet" / "recipes"
    return [path.read_bytes() for path in sorted(folder.glob("*.toml"))]


def _protocols() -> list[bytes]:
    from towernet.comparison.protocol import make_protocol, write_protocol
    from towernet.config import load_recipe
    from towernet.names import NetworkName
    from towernet.records.protocol import Decided, Request
    from towernet.records.run import CostFigures, PolicyChoices

    one, other = NetworkName("towernet"), NetworkName("resnet18")
    decided = Decided(
        policy=PolicyChoices("cpu", "float32", True, 1, "told"),
        num_steps={one: 3},
        mixes={one: True},
        failures={},
        costs={one: CostFigures(0.1, 0.01, 3, 5)},
    )
    request = Request(models=(one, other), recipe=load_recipe("quick"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "protocol.toml"
        write_protocol(path, make_protocol(request, "ab" * 32, decided, {"torch": "2.13"}))
        return [path.read_bytes()]


_LAYOUTS = [b"cat/1.jpg\ndog/2.jpg\nREADME.txt", b"p\ntrain/cat/1.jpg\ntest/cat/3.jpg\ntest/dog/1"]
_CSVS = [
    b"path,label,split,group\n1,cat,train,1\n2.jpg,dog,,\n",
    b'\xef\xbb\xbfpath,label\n"a,b",c\n',
]
_JSONS = [b'{"a": [1, 2.5e3, "\\udce9", null]}', b'{"a": 1}\n{"b": true}\n']

TARGETS: dict[str, tuple[Parse, Callable[[], list[bytes]]]] = {
    "layout": (layout, lambda: _LAYOUTS),
    "csv_source": (csv_source, lambda: _CSVS),
    "archives": (archives, _archives),
    "pdparams": (pdparams, _pdparams),
    "safetensors": (safetensors, _safetensors),
    "torch_archive": (torch_archive, _torch),
    "protocol": (protocol, _protocols),
    "json_file": (json_file, lambda: _JSONS),
    "table": (table, _table),
    "image": (image, _images),
    "recipe": (recipe, _recipes),
    "class_names": (class_names, lambda: [b"cat\nbig dog\n\xc3\xbcnicode\n"]),
}


class Session:
    """The runs of one target: counts, times, and one finding of each kind."""

    def __init__(self, name: str, seconds: float, folder: Path) -> None:
        self.parse = TARGETS[name][0]
        self.end = time.monotonic() + seconds
        self.folder = folder
        self.num_runs = 0
        self.num_refused = 0
        self.slowest_seconds = 0.0
        self.findings: dict[str, dict[str, str]] = {}

    def run(self, content: bytes) -> None:
        """Parse one input; end the process when the time is up."""
        from towernet.errors import TowernetError

        work = self.folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        (work / "input").write_bytes(content)
        start = time.monotonic()
        try:
            self.parse(work / "input")
        except TowernetError as error:
            self.num_refused += 1
            if str(error).count("\n"):
                self.found("a message of several lines", content, str(error))
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            ours = [frame for frame in frames if OUR_SOURCE in Path(frame.filename).parts]
            where = f"{Path(ours[-1].filename).name}:{ours[-1].name}" if ours else "?"
            self.found(f"{type(error).__name__} in {where}", content, str(error))
        seconds = time.monotonic() - start
        self.slowest_seconds = max(self.slowest_seconds, seconds)
        if seconds > SLOW_SECONDS:
            self.found("slow", content, f"{seconds:.1f} s")
        self.num_runs += 1
        if time.monotonic() > self.end:
            self.write()
            os._exit(0)  # libFuzzer would continue

    def found(self, kind: str, content: bytes, words: str) -> None:
        """Keep the shortest input of each kind."""
        known = self.findings.get(kind)
        if known is None or len(content) < len(bytes.fromhex(known["input"])):
            self.findings[kind] = {"kind": kind, "error": words[:300], "input": content.hex()}

    def write(self) -> None:
        """Write the figures for the parent process."""
        figures = {
            "runs": self.num_runs,
            "refused": self.num_refused,
            "slowest_seconds": round(self.slowest_seconds, 3),
            "findings": list(self.findings.values()),
        }
        (self.folder / "figures.json").write_text(json.dumps(figures))


def mutated(seeds: list[bytes], draw: random.Random) -> bytes:
    """Return one of the seeds after one to six changes."""
    content = bytearray(draw.choice(seeds))
    for _ in range(draw.randint(1, 6)):
        at = draw.randrange(len(content) + 1)
        end = min(len(content), at + draw.randint(1, 16))
        match draw.randrange(6):
            case 0 if at < len(content):
                content[at] ^= 1 << draw.randrange(8)
            case 1:
                content[at:end] = draw.randbytes(end - at)
            case 2:
                del content[at:end]
            case 3:
                content[at:at] = content[at:end] * draw.randint(1, 20)
            case 4:
                content[at:end] = draw.choice(
                    [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f", b"-1", b"["]
                )
            case 5:
                other = draw.choice(seeds)
                content[at:] = other[draw.randrange(len(other) + 1) :]
    return bytes(content[:MAX_BYTES])


def fuzz(name: str, seconds: float, folder: Path) -> None:
    """Run one target until the time is up; does not return."""
    parse, sound = TARGETS[name]
    if atheris is None:
        session, draw, seeds = Session(name, seconds, folder), random.Random(0), sound()
        for seed in seeds:
            session.run(seed)
        while True:
            session.run(mutated(seeds, draw))
    corpus = folder / "corpus"
    corpus.mkdir()
    with atheris.instrument_imports(include=GUIDED_BY):
        from towernet.errors import TowernetError

        for number, seed in enumerate(sound()):
            (corpus / str(number)).write_bytes(seed)
            (folder / "input").write_bytes(seed)
            with contextlib.suppress(TowernetError):
                parse(folder / "input")
    session = Session(name, seconds, folder)
    words = ["-seed=1", f"-max_len={MAX_BYTES}", f"-timeout={HANG_SECONDS}", "-rss_limit_mb=6000",
             "-verbosity=0", "-print_final_stats=0", f"-artifact_prefix={folder}/"]  # fmt: skip
    atheris.Setup([sys.argv[0], *words, str(corpus)], session.run)
    atheris.Fuzz()


def measure(seconds_per_target: float, names: list[str] | None = None) -> dict[str, Any]:
    """Fuzz each target for some seconds; return its runs and its findings."""
    results: dict[str, Any] = {"engine": "atheris" if atheris else "seeded mutations"}
    for name in names or list(TARGETS):
        with tempfile.TemporaryDirectory() as scratch:
            command = [sys.executable, __file__, "--in-process", scratch]
            command += ["--target", name, "--seconds", str(seconds_per_target)]
            environment = os.environ | {"TOWERNET_CACHE": f"{scratch}/cache"}
            try:
                done = subprocess.run(
                    command, env=environment, capture_output=True, check=False, cwd=scratch,
                    timeout=seconds_per_target + 2 * HANG_SECONDS,
                )  # fmt: skip
                ended, words = f"ended with {done.returncode}", done.stderr.decode(errors="replace")
            except subprocess.TimeoutExpired:
                ended, words = "hung", ""
            figures = Path(scratch) / "figures.json"
            if figures.exists():
                results[name] = json.loads(figures.read_text())
            else:
                left = [path for path in (Path(scratch) / "work").rglob("*") if path.is_file()]
                content = left[0].read_bytes().hex() if left else ""
                crash = {"kind": f"the process {ended}", "error": words[-600:], "input": content}
                results[name] = {"findings": [crash]}
        found = results[name]
        print(f"{name}: {found.get('runs', 0):,} runs, {len(found['findings'])} findings")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--target", choices=sorted(TARGETS))
    parser.add_argument(
        "--in-process", type=Path, help="The folder of a target's process; used by this script."
    )
    given = parser.parse_args()
    if given.in_process:
        fuzz(given.target, given.seconds, given.in_process)
    from _common import write_result

    write_result("fuzz", measure(given.seconds, [given.target] if given.target else None))


if __name__ == "__main__":
    main()

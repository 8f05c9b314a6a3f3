"""Hostile archives, each opened in its own process: time, memory, disk, files written outside."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from hostile_archives import HOSTILE

CAP_GB = 0.02
NUM_GOOD, GOOD_BYTES = 12, 4_000_000
TARGETS = [Path(name) for name in ("/tmp/x", "/tmp/tmp/x", "/x", "/evil", "/tmp/evil", "/etc/x")]
_processes = multiprocessing.get_context("forkserver")


def measure() -> dict[str, Any]:
    """Open every hostile archive, then more good ones than fit in the cache; print a table."""
    _processes.set_forkserver_preload(["towernet.data.source", "hostile_archives"])
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        # Four folders deep: files written outside are still inside the temporary folder.
        inner = Path(folder, "a/b/c")
        inner.mkdir(parents=True)
        for name in HOSTILE:
            rows.append(_row(name, Path(folder), inner))
        cap_bytes = int(CAP_GB * 1e9)
        disk_bytes = max(_fill_cache(inner), *(row["disk_bytes"] for row in rows))
    print(f"{'archive':<46} {'outcome':<10} {'seconds':>8} {'MB more':>8} {'outside':>8}")
    for row in sorted(rows, key=lambda row: -row["seconds"]):
        print(
            f"{row['name']:<46} {row['outcome']:<10} {row['seconds']:8.2f}"
            f" {row['mb_above_idle']:8.1f} {row['written_outside']:8}"
        )
    return {
        "num": len(rows),
        "refused_or_quarantined": sum(row["outcome"] in ("refused", "opened") for row in rows),
        "otherwise": [row["name"] for row in rows if row["outcome"] not in ("refused", "opened")],
        "max_seconds": max(row["seconds"] for row in rows),
        "max_mb_above_idle": max(row["mb_above_idle"] for row in rows),
        "written_outside": sum(row["written_outside"] for row in rows),
        "max_disk_bytes": disk_bytes,
        "max_disk_bytes_allowed": cap_bytes + GOOD_BYTES,
    }


def _row(name: str, folder: Path, inner: Path) -> dict[str, Any]:
    path = Path(_in_child(inner, _make, name, inner))
    before = _outside(folder, inner)
    disk_bytes = [0]
    outcome, seconds, mb_above_idle = _in_child(
        inner,
        _open,
        name,
        path,
        while_it_runs=lambda: disk_bytes.append(_disk_bytes(inner / "cache")),
    )
    written = len(_outside(folder, inner) ^ before)
    path.unlink()
    return {
        "name": name,
        "outcome": outcome,
        "seconds": seconds,
        "mb_above_idle": mb_above_idle,
        "written_outside": written,
        "disk_bytes": max(disk_bytes),
    }


def _outside(folder: Path, inner: Path) -> set[tuple[str, int]]:
    """Return the files around the cache, and those at the archives' target paths."""
    found = [file for file in folder.rglob("*") if inner / "cache" not in (file, *file.parents)]
    found += [file for file in TARGETS if os.path.lexists(file)]
    return {(str(file), file.lstat().st_size) for file in found if not file.is_dir()}


def _disk_bytes(cache: Path) -> int:
    num_bytes = 0
    for folder, _, names in os.walk(cache):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                num_bytes += Path(folder, name).stat().st_blocks * 512
    return num_bytes


def _in_child(
    inner: Path,
    work: Callable[..., Any],
    *words: Any,
    while_it_runs: Callable[[], None] = lambda: None,
) -> Any:
    receiver, sender = _processes.Pipe(duplex=False)
    child = _processes.Process(target=_send, args=(sender, inner / "cache", work, words))
    child.start()
    sender.close()
    while not receiver.poll(0.005):
        while_it_runs()
    try:
        answer = receiver.recv()
    except EOFError:
        answer = ("died", 0.0, 0.0)
    child.join()
    while_it_runs()
    return answer


def _send(sender: Any, cache: Path, work: Callable[..., Any], words: tuple[Any, ...]) -> None:
    os.environ |= {"TOWERNET_CACHE": str(cache), "TOWERNET_CACHE_GB": str(CAP_GB)}
    sender.send(work(*words))


def _make(name: str, folder: Path) -> str:
    return str(HOSTILE[name].make(folder))


def _open(name: str, path: Path) -> tuple[str, float, float]:
    from towernet.data.source import open_source
    from towernet.errors import DataError

    case = HOSTILE[name]
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    idle_kib = _status_kib("VmRSS")
    start = time.perf_counter()
    try:
        source = open_source(str(path))
        bad = tuple((row.path, row.reason) for row in source.unreadable)
        outcome = "opened" if not case.refused and bad == case.bad else f"opened with {bad}"
    except DataError as error:
        expected = case.refused and re.search(case.refused, str(error))
        outcome = "refused" if expected else f"refused: {error}"
    seconds = time.perf_counter() - start
    return outcome, seconds, (_status_kib("VmHWM") - idle_kib) * 1024 / 1e6


def _status_kib(field: str) -> int:
    (line,) = re.findall(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(line)


def _fill_cache(folder: Path) -> int:
    """Open good archives one after the other; return the cache's largest size in bytes."""
    disk_bytes = [0]
    for number in range(NUM_GOOD):
        path = folder / f"good-{number}.zip"
        with zipfile.ZipFile(path, "w") as target:
            for name in ("cat", "dog"):
                target.writestr(f"{name}/{number}.jpg", os.urandom(GOOD_BYTES // 2))
        _in_child(
            folder,
            _open_good,
            path,
            while_it_runs=lambda: disk_bytes.append(_disk_bytes(folder / "cache")),
        )
    return max(disk_bytes)


def _open_good(path: Path) -> int:
    from towernet.data.source import open_source

    return len(open_source(str(path)).files)


if __name__ == "__main__":
    print(measure())

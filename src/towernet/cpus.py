"""How many processors this process may use: its affinity, and the quota of its container."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

PROC = Path("/proc/self")


def allowed(proc: Path = PROC) -> int:
    """Return how many processors this process may use, at least 1.

    A quota of 1.5 processors counts as 1: of two threads that wait for each other, the whole group
    is stopped until the next period once both together have used the quota.

    Args:
        proc: Linux's folder about this process, with `cgroup` and `mountinfo`.
    """
    return max(1, int(min(quota(proc), affinity())))


def affinity() -> int:
    """Return how many processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def quota(proc: Path = PROC) -> float:
    """Return the processors that the control groups of a process allow it; infinite if no limit.

    A group's limit also holds for the groups inside it, so the lowest counts. Groups of version 2
    and, as on older systems, of version 1 are read.
    """
    return min((limit for group in _groups(proc) for limit in _limits(group)), default=float("inf"))


def _groups(proc: Path) -> Iterator[Path]:
    """Yield the folders of the groups of a process that can limit processors, and those above."""
    try:
        member_of = (proc / "cgroup").read_text().splitlines()
        mounts = (proc / "mountinfo").read_text().splitlines()
    except OSError:
        return  # not Linux, or it is hidden
    for line in mounts:
        # ... root mount-point options [fields] - type source super-options; see proc(5)
        before, _, after = line.partition(" - ")
        kind, *_, super_options = after.split(" ")
        root, mount_point = before.split(" ")[3:5]
        for entry in member_of:
            number, controllers, path = entry.split(":", 2)
            of_version_2 = kind == "cgroup2" and number == "0" and not controllers
            of_version_1 = kind == "cgroup" and "cpu" in controllers.split(",")
            if of_version_1 and "cpu" not in super_options.split(","):
                continue
            if of_version_2 or of_version_1:
                yield from _upwards(Path(mount_point), root, path)


def _upwards(mount_point: Path, root: str, path: str) -> Iterator[Path]:
    """Yield a group's folder and those above it, as far as they can be seen.

    In a container the mount point is often the container's own group, while the path is given from
    the root of the whole system. The path is then not below what is mounted.
    """
    below = PurePosixPath(path)
    inside = below.relative_to(root) if below.is_relative_to(root) else PurePosixPath()
    folder = mount_point / str(inside).lstrip("/")
    yield folder
    for parent in folder.parents:
        if not parent.is_relative_to(mount_point):
            return
        yield parent


def _limits(group: Path) -> Iterator[float]:
    """Yield the limit that a group's own files state, if any."""
    for read in (_of_version_2, _of_version_1):
        try:
            used_us, period_us = read(group)
        except (OSError, ValueError):  # there is no such file, or it says "max"
            continue
        if used_us > 0 and period_us > 0:  # -1: no limit
            yield used_us / period_us


def _of_version_2(group: Path) -> tuple[int, int]:
    used, period = (group / "cpu.max").read_text().split()
    return int(used), int(period)


def _of_version_1(group: Path) -> tuple[int, int]:
    return (
        int((group / "cpu.cfs_quota_us").read_text()),
        int((group / "cpu.cfs_period_us").read_text()),
    )

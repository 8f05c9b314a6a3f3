"""How many processors may be used: affinity, and quotas of control groups of both versions."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from towernet import cpus

GROUPS_1 = Path("/sys/fs/cgroup/cpu")


@pytest.fixture
def machine(tmp_path):
    """Write what Linux shows of a process: groups, mounts, and the limits in the groups' files."""

    def made(cgroup: str, mounts: str, limits: dict[str, str]) -> Path:
        (tmp_path / "cgroup").write_text(cgroup)
        (tmp_path / "mountinfo").write_text(mounts.replace("ROOT", str(tmp_path / "fs")))
        for name, content in limits.items():
            path = tmp_path / "fs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return tmp_path

    return made


V2 = "30 24 0:26 / ROOT rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "31 24 0:27 / ROOT/memory rw - cgroup cgroup rw,memory\n"
    "32 24 0:28 / ROOT/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
)
V1_NAMES = "7:memory:/\n4:cpu,cpuacct:{}\n0::/\n"


def test_version_2_limits_by_the_lowest_of_the_groups_above(machine):
    limits = {"a/cpu.max": "150000 100000\n", "a/b/cpu.max": "max 100000\n", "cpu.max": "9 1\n"}
    assert cpus.quota(machine("0::/a/b\n", V2, limits)) == 1.5


def test_version_1_limits_too(machine):
    limits = {
        "cpu,cpuacct/a/cpu.cfs_quota_us": "50000",
        "cpu,cpuacct/a/cpu.cfs_period_us": "100000",
    }
    assert cpus.quota(machine(V1_NAMES.format("/a"), V1, limits)) == 0.5
    assert cpus.allowed(machine(V1_NAMES.format("/a"), V1, limits)) == 1
    no_limit = {"cpu,cpuacct/a/cpu.cfs_quota_us": "-1"}
    assert cpus.quota(machine(V1_NAMES.format("/a"), V1, no_limit)) == float("inf")


def test_a_container_that_is_told_its_path_from_the_system_s_root(machine):
    mounts = "32 24 0:28 /docker/1f ROOT rw - cgroup cgroup rw,cpu,cpuacct\n"
    limits = {"cpu.cfs_quota_us": "300000", "cpu.cfs_period_us": "100000"}
    assert cpus.quota(machine(V1_NAMES.format("/docker/1f"), mounts, limits)) == 3
    assert cpus.quota(machine(V1_NAMES.format("/system.slice/x"), mounts, limits)) == 3


@pytest.mark.parametrize(
    ("limit", "threads"), [("50000 100000", 1), ("100000 100000", 1), ("190000 100000", 1)]
)
def test_parts_of_a_processor_count_downwards(machine, limit, threads):
    assert cpus.allowed(machine("0::/\n", V2, {"cpu.max": limit})) == threads


def test_without_groups_the_affinity_counts(machine, tmp_path):
    everything = len(os.sched_getaffinity(0))
    assert cpus.allowed(machine("0::/\n", V2, {"cpu.max": "max 100000"})) == everything
    assert cpus.allowed(machine("0::/\n", V2, {"cpu.max": "6400000 100000"})) == everything
    assert cpus.allowed(tmp_path / "nowhere") == everything
    one = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, [{one}])\nfrom towernet import cpus"
    code += "\nassert cpus.allowed() == 1"
    subprocess.run([sys.executable, "-c", code], check=True)


@contextlib.contextmanager
def group_of_one_processor():
    group = GROUPS_1 / f"towernet-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        pytest.skip("control groups of version 1 cannot be made here")
    try:
        (group / "cpu.cfs_quota_us").write_text("100000")
        yield group
    finally:
        group.rmdir()


def test_a_real_quota_decides_the_number_of_threads():
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("a single processor has nothing to limit")
    code = (
        "import os, sys\n"
        "open(sys.argv[1] + '/cgroup.procs', 'w').write(str(os.getpid()))\n"
        "from towernet import choices\n"
        "from towernet.engine.device import default_threads\n"
        "print(choices.num_workers(None), default_threads())"
    )
    without = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    with group_of_one_processor() as group:
        limited = subprocess.run(
            [sys.executable, "-c", code, group], env=without, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        set_by_hand = subprocess.run(
            [sys.executable, "-c", code, group], env=without | {"OMP_NUM_THREADS": "2"},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    assert limited.stdout.split() == ["1", "1"]
    assert set_by_hand.stdout.split() == ["1", "2"]

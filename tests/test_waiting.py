"""Computing threads sleep while they wait, as long as other processes use their processors."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from towernet.engine import waiting
from towernet.engine.device import Policy

TICKS = os.sysconf("SC_CLK_TCK")
IS_LINUX = Path("/proc/stat").exists()
OURS = sorted(os.sched_getaffinity(0)) if IS_LINUX else []

# GNU's OpenMP comes with torch, which is imported above.
pytestmark = pytest.mark.skipif(not IS_LINUX, reason="needs /proc/stat")


def write_stat(path: Path, busy_seconds: float, *, foreign_seconds: float = 0.0) -> None:
    """Write what Linux says: seconds in use of our first processor, and of one that is not ours."""
    lines = ["cpu  1 2 3 4 5 6 7 0 0 0"]
    for processor in [*OURS, max(OURS) + 1]:
        busy = {OURS[0]: busy_seconds, max(OURS) + 1: foreign_seconds}.get(processor, 0.0)
        part = round(busy * TICKS / 3)
        lines.append(f"cpu{processor} {part} {part} {part} {10**6 * time.time():.0f} 7 0 0 0 0 0")
    path.write_text("\n".join([*lines, "intr 1 2 3", "ctxt 1"]))


def test_the_use_by_others_is_of_our_processors_and_without_our_own(tmp_path):
    stat = tmp_path / "stat"
    write_stat(stat, 0)
    use = waiting.Use(stat)
    start, own = time.monotonic(), time.process_time()
    while time.process_time() - own < 0.3:  # this process works
        pass
    write_stat(stat, 0.3 + 0.9, foreign_seconds=50.0)
    found = use.of_others()
    assert found == pytest.approx(0.9 / (time.monotonic() - start), rel=0.15)
    write_stat(stat, 1.2, foreign_seconds=99.0)
    assert use.of_others() == 0


def test_a_real_busy_process_is_seen():
    use = waiting.Use()
    time.sleep(1)
    before = use.of_others()
    busy = [
        subprocess.Popen(["taskset", "-c", str(one), sys.executable, "-c", "while True: pass"])
        for one in OURS
    ]
    use.of_others()
    time.sleep(1)
    found = use.of_others()
    for process in busy:
        process.kill()
        process.wait()
    # They take what was free, if others have not taken all of it already.
    assert found > 0.8 * len(OURS)
    assert found > before or before > 0.9 * len(OURS)


def count_threads() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def there_are(number: int) -> bool:
    """Whether this is the number of threads, soon: the system lists an ended one for a moment."""
    return wait_for(lambda: count_threads() == number, seconds=2.0)


def wait_for(condition, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.ones(10**6).add_(1)  # the team that computes exists
    yield
    torch.set_num_threads(before)


def test_more_threads_than_processors_exist_while_others_are_there(tmp_path, two_threads):
    stat = tmp_path / "stat"
    write_stat(stat, 0)
    alone = count_threads()
    others_seconds = 0.0
    with waiting.watched(len(OURS) if len(OURS) > 1 else 2, stat):
        assert not wait_for(lambda: count_threads() > alone + 1, seconds=1.0)  # only the watcher

        def they_work() -> bool:
            nonlocal others_seconds
            others_seconds += 1.0
            write_stat(stat, others_seconds)
            # The leader, and at least one that it leads: more than there are processors.
            return count_threads() >= alone + 3

        assert wait_for(they_work)
        assert wait_for(lambda: count_threads() == alone + 1)  # they have gone, and so has the team
        assert wait_for(they_work)
    assert wait_for(lambda: count_threads() == alone)


def test_nothing_is_watched_for_one_thread_or_within_another(tmp_path):
    alone = count_threads()
    with waiting.watched(1):
        assert count_threads() == alone
    with waiting.watched(2):
        assert count_threads() == alone + 1
        with waiting.watched(2):
            assert count_threads() == alone + 1
    assert there_are(alone)
    with waiting.watched(2):  # it can be watched again
        assert count_threads() == alone + 1
    assert there_are(alone)
    with waiting.watched(2, tmp_path / "nowhere"):
        assert count_threads() == alone


def test_a_policy_with_threads_watches():
    alone = count_threads()
    with Policy("cpu", "float32", False, 2, "").active():
        assert count_threads() == alone + 1
    assert there_are(alone)

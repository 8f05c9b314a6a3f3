"""The only way to write a file, and the lock."""

import errno
import multiprocessing
import os
import threading
import time

import pytest

from towernet import files
from towernet.errors import ConfigError, DataError, EnvironmentFault
from towernet.files import locks


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "kept.txt"
    files.write_text(path, "old")
    with pytest.raises(RuntimeError, match="half way"), files.atomic(path) as stream:
        stream.write(b"new")
        raise RuntimeError("half way")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept.txt"]


def test_a_write_in_place_would_be_detected(tmp_path):
    """Sabotaged: writing directly into the file loses the old one."""
    path = tmp_path / "lost.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), path.open("wb") as stream:
        stream.write(b"new")
        raise RuntimeError
    assert path.read_text() != "old"


def test_an_unwritable_place_is_named(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(EnvironmentFault, match=r"file/out\.json cannot be written: .*--out"):
        files.write_json(blocker / "out.json", {})


def test_json_round_trips_and_contains_no_nan(tmp_path):
    path = tmp_path / "value.json"
    value = {"loss": 0.1 + 0.2, "names": ["caf\udce9", "</script>"]}
    files.write_json(path, value)
    assert files.read_json(path) == value
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"loss": float("nan")})
    assert files.read_json(path) == value


@pytest.mark.parametrize("content", [None, "{", "\xff"])
def test_a_missing_or_damaged_json_is_named(tmp_path, content):
    path = tmp_path / "run.json"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=r"run\.json (does not exist|cannot be read)"):
        files.read_json(path)


def _hold(path, held, release):
    with files.lock(path, holder="runs/1"):
        held.set()
        release.wait(20)


def test_a_second_process_is_refused_and_a_dead_one_holds_no_lock(tmp_path):
    path = tmp_path / "lock"
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(path, held, release))
    process.start()
    assert held.wait(20)
    with (
        pytest.raises(ConfigError, match=rf"runs/1 is in use by process {process.pid} on .* since"),
        files.lock(path, holder="runs/1"),
    ):
        pass
    process.kill()
    process.join()
    with files.lock(path, holder="runs/1"):
        assert str(os.getpid()) in path.read_text()


def test_a_lock_of_another_machine_counts_while_it_is_updated(tmp_path, monkeypatch):
    """Two machines share a disk but not its locks."""
    monkeypatch.setattr(locks, "HEARTBEAT_S", 0.5)
    path = tmp_path / "lock"
    path.write_text("process 7 on elsewhere since 2026-01-01T00:00:00+00:00")
    with files.lock(path, holder="runs/1"):  # no process updates it: it is taken over
        assert str(os.getpid()) in path.read_text()

    path.write_text("process 7 on elsewhere since 2026-01-01T00:00:00+00:00")
    ended = threading.Event()

    def live() -> None:
        while not ended.wait(0.1):
            os.utime(path)

    thread = threading.Thread(target=live)
    thread.start()
    try:
        with (
            pytest.raises(ConfigError, match="runs/1 is in use by process 7 on elsewhere since"),
            files.lock(path, holder="runs/1"),
        ):
            pass
    finally:
        ended.set()
        thread.join()


def test_the_holder_of_a_lock_updates_and_removes_it(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "HEARTBEAT_S", 0.05)
    path = tmp_path / "lock"
    with files.lock(path, holder="runs/1"):
        before = path.stat().st_mtime_ns
        deadline = time.monotonic() + 10
        while path.stat().st_mtime_ns == before:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert not path.exists()


def _count(path, counter, times):
    for _ in range(times):
        with files.lock(path, holder="the counter", wait=True):
            counter.write_text(str(int(counter.read_text()) + 1))


def test_a_removed_lock_file_does_not_admit_two_processes(tmp_path):
    """A process that waited for a removed lock file must not hold it in addition to a new one."""
    counter = tmp_path / "counter"
    counter.write_text("0")
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_count, args=(tmp_path / "lock", counter, 200)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert counter.read_text() == "600"


def test_only_leftovers_of_killed_writers_are_removed(tmp_path):
    (tmp_path / "last").mkdir()
    for name in (".towernet-abc123.tmp", "last/.towernet-x_9.tmp", ".hidden.tmp", "kept.json"):
        (tmp_path / name).write_text("half")
    files.sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [".hidden.tmp", "kept.json", "last"]


def test_a_folder_with_only_leftovers_counts_as_empty(tmp_path):
    assert files.is_empty(tmp_path / "absent") and files.is_empty(tmp_path)
    (tmp_path / "lock").write_text("")
    (tmp_path / ".towernet-abc123.tmp").write_text("half")
    assert files.is_empty(tmp_path)
    (tmp_path / "thesis.tex").write_text("")
    assert not files.is_empty(tmp_path)


@pytest.mark.parametrize("disk_has_links", [True, False])
def test_a_second_name_is_of_the_same_content_or_refused(tmp_path, monkeypatch, disk_has_links):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")  # as on exFAT

    if not disk_has_links:
        monkeypatch.setattr("os.link", refuse)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"weights" * 1000)
    target.write_bytes(b"earlier")
    wanted = files.sha256(source)
    for _ in range(2):  # again after a kill, when it may be the same file
        files.link(source, target, wanted)
        assert target.read_bytes() == source.read_bytes()
        assert target.samefile(source) == disk_has_links
    source.write_bytes(b"Weights" + source.read_bytes()[7:])
    for name in ("source", "missing"):
        with pytest.raises(DataError, match=f"{name} was damaged after it was written"):
            files.link(tmp_path / name, tmp_path / "other", wanted)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]


def test_the_least_recently_used_is_dropped_first_unless_in_use():
    gone = []

    def kept(name, last_used_ns, is_in_use=False):
        def drop():
            if not is_in_use:
                gone.append(name)
            return not is_in_use

        return files.Kept(last_used_ns, 10, drop)

    some = [kept("new", 4), kept("old", 2), kept("in use", 1, True), kept("newer", 5)]
    files.evict(some, lambda num, num_bytes: (num, num_bytes) == (2, 20))
    assert gone == ["old", "new"]
    files.evict(some, lambda num, _: num <= 4)
    assert gone == ["old", "new"]


def test_files_in_a_cache_are_dropped_by_their_time_except_one(tmp_path):
    for time_ns, name in enumerate(["kept", "old", "new", "other.txt"], start=1):
        (tmp_path / name).write_text("ten bytes.")
        os.utime(tmp_path / name, ns=(time_ns, time_ns))
    kept = files.kept_files(tmp_path, "[!.]*[!t]", but=tmp_path / "kept")
    files.evict(kept, lambda _, num_bytes: num_bytes <= 10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "new", "other.txt"]

"""The one way to write a file, and the lock."""

import multiprocessing
import os

import pytest

from towernet import files
from towernet.errors import ConfigError, DataError, EnvironmentFault


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "kept.txt"
    files.write_text(path, "old")
    with pytest.raises(RuntimeError, match="half way"), files.atomic(path) as stream:
        stream.write(b"new")
        raise RuntimeError("half way")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept.txt"]


def test_a_write_in_place_would_be_noticed(tmp_path):
    """The sabotaged twin: writing straight into the file loses the old one."""
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


def test_json_round_trips_and_holds_no_nan(tmp_path):
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


def test_a_second_process_is_refused_and_a_dead_one_holds_nothing(tmp_path):
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

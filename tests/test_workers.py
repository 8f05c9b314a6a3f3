"""The pool of decoding processes: order, crashes, hangs, and what it imports."""

import importlib
import os
import sys
import time

import pytest

from towernet.data import decode, workers
from towernet.data.workers import Died, in_order, in_processes
from towernet.errors import EnvironmentFault

FUNCTIONS = """
import os, resource, signal, sys, time
from towernet.data.examine import examine

def square(number, max_bytes):
    return number * number

def pid_of(number, max_bytes):
    time.sleep(0.01)
    return os.getpid()

def crash_on_seven(number, max_bytes):
    if number == 7:
        os.kill(os.getpid(), signal.SIGSEGV)
    return number

def killed_on_seven(number, max_bytes):
    if number == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return number

def crash_once(mark, max_bytes):
    if not os.path.exists(mark):
        open(mark, "w").close()
        os._exit(9)
    return "fine"

def hang_on_three(number, max_bytes):
    if number == 3:
        time.sleep(60)
    return number

def bytes_given(wanted, max_bytes):
    if wanted > max_bytes:
        raise MemoryError("wants more; shrink it" if wanted < 1e12 else "")
    time.sleep(0.01)
    return max_bytes, os.getpid()

def address_space(number, max_bytes):
    return resource.getrlimit(resource.RLIMIT_AS)[0]

def fail(path, max_bytes):
    raise ZeroDivisionError("a bug")

def all_modules(file, max_bytes):
    examine(file)
    print("a decoder that prints does not spoil what the parent prints")
    return sorted(sys.modules)
"""


@pytest.fixture
def functions(tmp_path, monkeypatch):
    """A module that the processes import by name, like those of towernet."""
    (tmp_path / "in_workers.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("in_workers")
    del sys.modules["in_workers"]


def answers(function, items, **options):
    return dict(in_processes(function, items, **options))


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_every_item_is_answered_once_however_many_processes(functions, processes):
    results = list(in_processes(functions.square, range(53), workers=processes))
    assert sorted(results) == [(number, number * number) for number in range(53)]


def test_several_processes_work_and_none_is_this_one(functions):
    pids = set(answers(functions.pid_of, range(60), workers=2).values())
    assert len(pids) == 2
    assert os.getpid() not in pids


def test_nothing_to_do_needs_no_process(functions):
    assert list(in_processes(functions.square, [], workers=4)) == []


@pytest.mark.parametrize("processes", [1, 3])
def test_a_crash_affects_one_item(functions, processes):
    results = answers(functions.crash_on_seven, range(40), workers=processes)
    assert results.pop(7) == Died("CRASH", "the decoder crashed on it (SIGSEGV); save it again")
    assert results == {number: number for number in range(40) if number != 7}


def test_a_process_killed_by_the_system_is_reported_as_out_of_memory(functions):
    results = answers(functions.killed_on_seven, range(9), workers=1)
    assert "SIGKILL, probably out of memory" in results[7].detail


def test_an_item_whose_process_dies_once_gets_a_second_chance(functions, tmp_path):
    mark = str(tmp_path / "mark")
    assert answers(functions.crash_once, [mark], workers=1) == {0: "fine"}


def test_an_item_that_hangs_is_stopped_and_affects_one_item(functions):
    began = time.monotonic()
    results = answers(functions.hang_on_three, range(20), workers=2, time_limit_s=0.5)
    assert time.monotonic() - began < 10
    assert results.pop(3) == Died("RESOURCE", "decoding it takes over 0.5 s; shrink it")
    assert results == {number: number for number in range(20) if number != 3}


def test_an_item_that_needs_much_memory_runs_alone_at_the_end(functions):
    items = [1, workers.SHARED_BYTES + 1, 2, 3, workers.ALONE_BYTES, 5]
    results = list(in_processes(functions.bytes_given, items, workers=2))
    assert {position for position, _ in results[:4]} == {0, 2, 3, 5}
    assert {given for _, (given, _) in results[:4]} == {workers.SHARED_BYTES}
    assert [(position, given) for position, (given, _) in results[4:]] == [
        (1, workers.ALONE_BYTES),
        (4, workers.ALONE_BYTES),
    ]
    assert len({pid for _, (_, pid) in results[4:]}) == 1


def test_an_item_that_needs_too_much_memory_is_refused_with_its_own_message(functions):
    results = answers(functions.bytes_given, [workers.ALONE_BYTES + 1, 1e12, 7], workers=2)
    assert results[0] == Died("RESOURCE", "wants more; shrink it")
    assert results[1] == Died("RESOURCE", "decoding it needs more memory than allowed; shrink it")
    assert results[2][0] == workers.SHARED_BYTES


def test_a_process_has_a_limit_far_above_those_of_items(functions):
    (limit,) = answers(functions.address_space, [1], workers=1).values()
    assert limit == workers.MEMORY_LIMIT > 2 * workers.ALONE_BYTES
    assert workers.ALONE_BYTES == decode.MAX_BYTES  # predicting takes what checking takes


def test_a_bug_in_the_function_names_the_item(functions):
    with pytest.raises(RuntimeError, match=r"fail of 'cat/1.jpg':(.|\n)*ZeroDivisionError: a bug"):
        list(in_processes(functions.fail, ["cat/1.jpg"], workers=1))


def test_a_process_that_cannot_start_is_an_error_of_the_environment(functions, tmp_path, capfd):
    from towernet.errors import EnvironmentFault

    (tmp_path / "in_workers.py").write_text("raise ImportError('gone')")
    with pytest.raises(EnvironmentFault, match="a decoding process could not start"):
        list(in_processes(functions.square, [1], workers=1))
    assert "gone" in capfd.readouterr().err


def test_the_processes_end_with_the_caller(functions):
    import psutil

    others = set(psutil.Process().children())
    iterator = in_processes(functions.pid_of, range(100), workers=2)
    next(iterator)
    children = set(psutil.Process().children()) - others
    assert children
    iterator.close()
    assert not [child for child in children if child.is_running()]


def test_a_decoding_process_imports_no_torch_and_no_pandas(functions, tmp_path, capfd):
    from PIL import Image

    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg")
    (modules,) = answers(functions.all_modules, [tmp_path / "a.jpg"], workers=1).values()
    roots = {name.partition(".")[0] for name in modules}
    assert {"numpy", "PIL", "towernet"} <= roots
    assert not roots & {"torch", "torchvision", "pandas", "scipy", "pyarrow", "pytest", "pydantic"}
    assert capfd.readouterr().out == ""


def test_a_process_that_hangs_while_it_starts_is_an_error(functions, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("towernet.data.workers.START_LIMIT_S", 1.0)
    with pytest.raises(EnvironmentFault, match="a decoding process could not start"):
        list(in_processes(functions.square, [1, 2], workers=1))


# In order, with bounded memory.


def test_results_come_in_order_and_no_more_than_some_ahead(functions):
    """The items are asked for as they are sent, so the list sees how far ahead that is."""
    taken = 0

    class Counted(list[int]):
        def __getitem__(self, position):
            nonlocal taken
            taken = max(taken, position)
            return position

    items = Counted(range(500))
    for num, answer in enumerate(in_order(functions.square, items, workers=3, ahead=40)):
        assert answer == num * num
        assert taken < num + 40 + 1
    assert num == 499


@pytest.mark.parametrize("ahead", [1, 4, 1000])
def test_an_item_that_kills_its_process_waits_for_no_end(functions, ahead):
    numbers = list(range(60))
    found = list(in_order(functions.crash_on_seven, numbers, workers=2, ahead=ahead))
    assert isinstance(found[7], Died)
    assert found[:7] + found[8:] == numbers[:7] + numbers[8:]


def test_an_item_that_needs_more_memory_runs_alone_and_in_order(functions):
    wanted = [1, workers.SHARED_BYTES + 1, 2, 3, workers.ALONE_BYTES + 1, 4]
    found = list(in_order(functions.bytes_given, wanted, workers=2, ahead=3))
    shared, alone = workers.SHARED_BYTES, workers.ALONE_BYTES
    assert [each if isinstance(each, Died) else each[0] for each in found] == [
        shared, alone, shared, shared, Died("RESOURCE", "wants more; shrink it"), shared,
    ]  # fmt: skip

"""Stopping when asked, where towernet is a guest: in somebody's kernel, thread or program."""

from __future__ import annotations

import os
import signal
import threading

import pytest

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in SIGNALS]


def test_the_first_signal_is_noted_and_the_second_ends_at_once():
    from towernet.engine.stop import StopSwitch
    from towernet.errors import Interrupted

    before, reached = handlers(), []
    told = pytest.raises(Interrupted, match="what was finished is kept")
    with told as caught, StopSwitch() as stop, stop.patiently():
        assert handlers() != before
        os.kill(os.getpid(), signal.SIGINT)
        reached.append(stop.exit_code)
        os.kill(os.getpid(), signal.SIGINT)
        reached.append("after the second")
    assert reached == [130]
    assert caught.value.exit_code == 130
    assert caught.value.__suppress_context__  # told once, without the KeyboardInterrupt
    assert handlers() == before


def test_in_another_thread_nothing_is_heard_and_nothing_breaks():
    from towernet.engine.stop import StopSwitch

    before, seen = handlers(), []

    def work() -> None:
        with StopSwitch() as stop, stop.patiently():
            seen.append(handlers())
            stop.raise_if_asked("nobody asked")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
    assert handlers() == before

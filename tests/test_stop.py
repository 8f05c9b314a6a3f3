"""Stopping on a signal while towernet runs inside a kernel, a thread or another program."""

from __future__ import annotations

import os
import signal
import threading

import pytest

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in SIGNALS]


def test_the_first_signal_is_recorded_and_the_second_ends_at_once():
    from towernet.engine.stop import StopSwitch
    from towernet.errors import Interrupted

    before, reached = handlers(), []
    interrupted = pytest.raises(Interrupted, match="what was finished is kept")
    with interrupted as caught, StopSwitch() as stop, stop.patiently():
        assert handlers() != before
        os.kill(os.getpid(), signal.SIGINT)
        reached.append(stop.exit_code)
        os.kill(os.getpid(), signal.SIGINT)
        reached.append("after the second")
    assert reached == [130]
    assert caught.value.exit_code == 130
    assert caught.value.__suppress_context__  # reported once, without the KeyboardInterrupt
    assert handlers() == before


def test_in_another_thread_signals_are_not_handled_and_nothing_breaks():
    from towernet.engine.stop import StopSwitch

    before, seen = handlers(), []

    def work() -> None:
        with StopSwitch() as stop, stop.patiently():
            seen.append(handlers())
            stop.raise_if_stopped("no signal came")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
    assert handlers() == before

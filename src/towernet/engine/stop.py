"""Stopping on a signal: at once, except that a training step and its files are finished first.

Closing the terminal does not stop the command.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType

from towernet.errors import INTERRUPTED, TERMINATED, Interrupted


class StopSwitch:
    """Handles SIGINT, SIGTERM and SIGUSR1 (a cluster's warning) while its block runs.

    Inside `patiently` the first signal is only recorded, and the loop ends its step; a second one,
    or any signal outside of it, ends the command at once. Files are written completely or not at
    all, so what is on disk stays valid either way.
    """

    def __init__(self) -> None:
        self.exit_code = 0
        self.patient = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        first, self.exit_code = not self.exit_code, self.exit_code or _EXIT_CODES[number]
        if not (first and self.patient):
            # Not an Exception, so that no handler mistakes it for a failure.
            raise KeyboardInterrupt

    def _leave_terminal(self, number: int, frame: FrameType | None) -> None:
        """Redirect the closed terminal to /dev/null, since writing to it is an error."""
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in self._terminal:
            os.dup2(nowhere, descriptor)
        os.close(nowhere)

    @contextlib.contextmanager
    def patiently(self) -> Iterator[None]:
        """Let the block finish by itself: it checks `exit_code`."""
        self.patient = True
        try:
            yield
        finally:
            self.patient = False

    def __enter__(self) -> StopSwitch:
        self._before = {}
        self._terminal = [descriptor for descriptor in (0, 1, 2) if os.isatty(descriptor)]
        if threading.current_thread() is threading.main_thread():
            handlers = dict.fromkeys(_EXIT_CODES, self._on_signal) | {
                signal.SIGHUP: self._leave_terminal
            }
            for number, handler in handlers.items():
                # A handler that Python did not set (None) could not be restored: leave it.
                if signal.getsignal(number) is not None:
                    self._before[number] = signal.signal(number, handler)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is KeyboardInterrupt:
            self.raise_if_stopped("what was finished is kept")

    def raise_if_stopped(self, resumable: str) -> None:
        """Raise Interrupted if a signal came.

        Args:
            resumable: How to continue, for example the command that resumes.
        """
        if self.exit_code:
            raise Interrupted(f"stopped as requested; {resumable}", self.exit_code) from None


_EXIT_CODES: dict[int, int] = {
    signal.SIGINT: INTERRUPTED,
    signal.SIGTERM: TERMINATED,
    signal.SIGUSR1: TERMINATED,
}

"""Stopping when asked: the first signal asks, the second one insists."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

from towernet.errors import INTERRUPTED, TERMINATED, Interrupted


class StopSwitch:
    """Notes SIGINT and SIGTERM while its block runs, so that a step and its files end whole."""

    def __init__(self) -> None:
        self.exit_code = 0

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.exit_code:
            raise KeyboardInterrupt
        self.exit_code = INTERRUPTED if number == signal.SIGINT else TERMINATED

    def __enter__(self) -> StopSwitch:
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def raise_if_asked(self, resumable: str) -> None:
        """Raise Interrupted when a signal came.

        Args:
            resumable: What to say about going on, for example which command resumes.
        """
        if self.exit_code:
            raise Interrupted(f"stopped as asked; {resumable}", self.exit_code)

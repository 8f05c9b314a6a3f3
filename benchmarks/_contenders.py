"""Programs measured in turn, each in its own process, so that settings do not affect each other.

A measuring script calls `serve` if it was started as a contender, and `Contenders` otherwise.
One contender works at a time; the others sleep until they get a line on their standard input. Each
is first warmed and then measured, for the same number of seconds: after a pause the first steps of
a program are slow, since the processor's caches and the freed memory are no longer its own.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

Measure = Callable[[], dict[str, Any]]
SECONDS_TO_FALL_ASLEEP = 0.3  # idle threads of OpenMP spin for a while
WARM_SECONDS, MEASURED_SECONDS = 2.0, 6.0


def serve(make: Callable[[str], Measure]) -> None:
    """Act as a contender: prepare, then measure once for each line of input."""
    name = sys.argv[sys.argv.index("--contender") + 1]
    try:
        measure = make(name)
        print(json.dumps({"ready": name}), flush=True)
        for _ in sys.stdin:
            print(json.dumps(measure()), flush=True)
    except Exception as error:  # the result is its message: this contender cannot run here
        print(json.dumps({"failed": f"{type(error).__name__}: {str(error)[:300]}"}), flush=True)


def timed(action: Callable[[], Any], seconds: float = MEASURED_SECONDS) -> float:
    """Return the mean seconds per call of a warm program; at least one call is measured."""
    calls_for(WARM_SECONDS, action)
    return calls_for(seconds, action)


def calls_for(seconds: float, action: Callable[[], Any]) -> float:
    """Call again and again until the seconds have passed; return the mean seconds per call."""
    start, calls = time.perf_counter(), 0
    while True:
        action()
        calls += 1
        passed = time.perf_counter() - start
        if passed >= seconds:
            return passed / calls


class Contenders:
    """The processes, started one after another, each measured once in every round."""

    def __init__(self, names: list[str]) -> None:
        self.found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        self.failed: dict[str, str] = {}
        self._processes: dict[str, subprocess.Popen[str]] = {}
        for name in names:
            print(f"preparing: {name}", flush=True)
            self._processes[name] = subprocess.Popen(
                [sys.executable, str(Path(sys.argv[0])), *sys.argv[1:], "--contender", name],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                text=True,
            )  # fmt: skip
            self._read(name)

    def _read(self, name: str) -> dict[str, Any] | None:
        stream = self._processes[name].stdout
        assert stream is not None
        for line in stream:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                if "failed" in answer:
                    self.failed[name] = answer["failed"]
                    return None
                return answer
        # A negative code is a signal: -9 if the system killed it for its use of memory.
        self.failed[name] = f"its process ended with code {self._processes[name].wait()}"
        return None

    def round(self) -> None:
        """Measure every contender once."""
        for name, process in self._processes.items():
            if name in self.failed:
                continue
            time.sleep(SECONDS_TO_FALL_ASLEEP)
            assert process.stdin is not None
            try:
                process.stdin.write("go\n")
                process.stdin.flush()
            except BrokenPipeError:  # it ended; the others continue
                self.failed[name] = f"its process ended with code {process.wait()}"
                continue
            if (answer := self._read(name)) is not None:
                self.found[name].append(answer)
                print(name, {k: round(v, 4) for k, v in answer.items()}, flush=True)

    def end(self) -> None:
        """End all of them."""
        for process in self._processes.values():
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        for process in self._processes.values():
            process.wait()

    def summary(self) -> dict[str, Any]:
        """Return median, minimum and maximum of each figure, by contender."""
        result: dict[str, Any] = {}
        for name, rounds in self.found.items():
            if not rounds:
                continue
            result[name] = {
                key: {
                    "median": median(values),
                    "min": min(values),
                    "max": max(values),
                }
                for key in rounds[0]
                if (values := [answer[key] for answer in rounds])
            }
        return result

    def ratio(self, key: str, above: str, below: str) -> dict[str, float]:
        """Return the median and the spread of a figure's ratio, round by round."""
        pairs = zip(self.found[above], self.found[below], strict=False)
        ratios = [a[key] / b[key] for a, b in pairs]
        return {"median": median(ratios), "min": min(ratios), "max": max(ratios)}

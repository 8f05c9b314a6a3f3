"""A process that has imported everything and forks for every trial of the command.

It is started with `interpose.c` preloaded and reads one JSON object per line from standard input:
`words` (of the command), `out` (the folder that is watched), `action`, `nth`, `after_s`, `log`,
`memory_mb` (how much more than the server the command can take), `seconds_between_saves`.
It prints `exit_code` (negative: the signal), `seconds`, `stdout` and `stderr`.
The server runs nothing of torch itself, so a fork loses no threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ACTIONS = {"count": 0, "kill": 1, "fail once": 2, "fail ever": 3}


def serve() -> None:
    """Run trials until standard input ends."""
    import matplotlib.pyplot  # noqa: F401 - imported once, for all trials
    import torch  # noqa: F401

    import towernet.api.training
    import towernet.cli.tables
    import towernet.comparison.story
    import towernet.engine.trainer
    import towernet.report.page
    import towernet.report.pictures  # noqa: F401

    for line in sys.stdin:
        print(json.dumps(_run_trial(json.loads(line))), flush=True)


def _run_trial(trial: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryFile("w+b") as out, tempfile.TemporaryFile("w+b") as err:
        started = time.monotonic()
        pid = os.fork()
        if pid == 0:
            _command(trial, out.fileno(), err.fileno())
        timer = threading.Timer(trial.get("after_s") or 600, _kill, [pid])
        timer.start()
        _, status = os.waitpid(pid, 0)
        timer.cancel()
        seconds = time.monotonic() - started
        printed = []
        for stream in (out, err):
            stream.seek(0)
            printed.append(stream.read().decode("utf-8", "replace"))
    return {
        "exit_code": os.waitstatus_to_exitcode(status),
        "seconds": seconds,
        "stdout": printed[0],
        "stderr": printed[1],
    }


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _command(trial: dict[str, Any], out: int, err: int) -> None:
    """Run the command, in the child process."""
    exit_code = 99
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        log = (
            os.open(trial["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            if trial.get("log")
            else -1
        )
        interpose = ctypes.CDLL(None)
        interpose.faults_arm(
            os.fsencode(trial["out"]),
            ctypes.c_long(trial.get("nth", 0)),
            ACTIONS[trial.get("action", "count")],
            log,
        )
        if trial.get("memory_mb"):
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + trial["memory_mb"] * 2**20
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        from towernet.cli.main import main
        from towernet.engine import trainer

        if trial.get("seconds_between_saves") is not None:
            trainer.SECONDS_BETWEEN_SAVES = trial["seconds_between_saves"]
        exit_code = main(trial["words"])
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException as error:
        os.write(2, f"the command raised {error!r}\n".encode())
    finally:
        os._exit(exit_code)


if __name__ == "__main__":
    serve()

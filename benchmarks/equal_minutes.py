"""A comparison by minutes beside another program that comes and goes: are the times the same?

The other program counts, in a session of its own; it is there for random spans of a few seconds up
to a minute. Measured training times are those of results.json (`measured.times`): the comparison
itself says whether they differ by more than 15 %.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from _common import write_result
from towernet import files
from towernet.records.base import read_record
from towernet.records.results import Conclusion

MODELS = "towernet_patch,resnet18,mobilenet_v2"
SPAN_SECONDS = (4.0, 60.0)


def come_and_go(chance: random.Random, ended: threading.Event) -> list[float]:
    """Start and stop the other program until the end; return the seconds of each span."""
    spans = []
    while not ended.is_set():
        spans.append(round(chance.uniform(*SPAN_SECONDS), 1))
        if len(spans) % 2:
            ended.wait(spans[-1])
            continue
        with subprocess.Popen(
            [sys.executable, "-c", "while True: pass"], start_new_session=True
        ) as process:
            ended.wait(spans[-1])
            process.kill()
    return spans


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="Of when the other program is there.")
    parser.add_argument("--minutes", type=float, default=0.5)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    ended, spans = threading.Event(), list[float]()
    other = threading.Thread(
        target=lambda: spans.extend(come_and_go(random.Random(args.seed), ended))
    )
    with tempfile.TemporaryDirectory() as folder:
        other.start()
        try:
            subprocess.run(
                [sys.executable, "-m", "towernet", "compare", "digits", "--size", "64",
                 "--models", MODELS, "--minutes", str(args.minutes), "--runs", str(args.runs),
                 "--out", f"{folder}/out"],
                check=True, env=os.environ | {"TOWERNET_CACHE": f"{folder}/cache"},
            )  # fmt: skip
        finally:
            ended.set()
            other.join()
        path = Path(folder) / "out" / "results.json"
        found = read_record(path, Conclusion, todo="run this again")
        events = [
            event
            for event in files.read_jsonl(Path(folder) / "out" / "ledger.jsonl")
            if event["event"] == "steps fixed"
        ]
    times = found.measured.times
    assert times is not None, "a comparison by minutes"
    write_result(
        "equal_minutes",
        {
            "minutes": args.minutes,
            "runs": args.runs,
            "seconds_absent_then_present": spans,
            "seconds_of_a_run": {n: m.run_seconds for n, m in found.measured.networks.items()},
            "longest_over_shortest": times.longest_seconds / times.shortest_seconds,
            "differ": times.differ,
            "sentence": times.sentence,
            "steps_fixed": events,
        },
    )
    print(times.sentence)


if __name__ == "__main__":
    main()

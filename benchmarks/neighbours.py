"""Training speed beside busy processes and under a quota, for several settings of the thread pool.

Each setting is a contender in a process of its own, since libgomp reads its variables when it is
loaded. In every round each contender trains alone, then beside each kind of neighbour, for the same
number of seconds; contenders that do not work sleep. A neighbour is a process that only counts.
Linux shares the processor between sessions first and then between the processes of each
(autogroups), so a neighbour of another session is another case than one of the same session.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from _common import write_result

SIZE_PX, BATCH_SIZE = 128, 32
WARM_SECONDS = 1.0
OURS = "ours"  # towernet.engine.waiting: threads spin unless other programs are running
# What libgomp reads. "default" is torch as it comes.
SETTINGS: dict[str, dict[str, str]] = {
    OURS: {},
    "default": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    **{f"spin {count}": {"GOMP_SPINCOUNT": str(count)} for count in (3000, 10_000, 30_000)},
    "bound": {"OMP_PROC_BIND": "true"},
}
QUOTA = Path("/sys/fs/cgroup/cpu")
SCENARIOS = (
    "alone", "one, other session", "two, other session", "one, same session", "two, same session",
    "one niced, other session", "one niced, same session", "quota of one",
)  # fmt: skip


def contend(setting: str, choices: str) -> None:
    """Train steps of towernet_patch for as many seconds as each line of input says.

    Args:
        setting: One of SETTINGS; its variables are set.
        choices: The policy, as JSON; "" for the first contender, which chooses it for all.
    """
    import torch

    from towernet.config import load_recipe
    from towernet.engine import waiting
    from towernet.engine.device import Policy, choose_policy
    from towernet.engine.optimizer import make_optimizer
    from towernet.engine.step import train_step
    from towernet.models.catalogue import build

    policy = Policy(**json.loads(choices)) if choices else choose_policy()
    if setting != OURS:
        vars(waiting)["watched"] = contextlib.nullcontext
    torch.manual_seed(0)
    recipe = load_recipe("default")
    model = policy.place(build("towernet_patch", 16, SIZE_PX))
    optimizer = make_optimizer(model, recipe.train, "towernet_patch", policy.torch_dtype)
    images = torch.randn(BATCH_SIZE, 3, SIZE_PX, SIZE_PX)
    images = images.contiguous(memory_format=policy.memory_format)
    labels = torch.randint(0, 16, (BATCH_SIZE,))

    @policy.active()
    def steps_for(seconds: float) -> float:
        start, steps = time.perf_counter(), 0
        while (passed := time.perf_counter() - start) < seconds:
            train_step(model, optimizer, images, labels, label_smoothing=0.1, policy=policy)
            steps += 1
        return steps * BATCH_SIZE / passed

    steps_for(WARM_SECONDS)
    print(json.dumps(asdict(policy)), flush=True)
    for line in sys.stdin:
        steps_for(WARM_SECONDS)
        print(json.dumps(steps_for(float(line))), flush=True)


@contextlib.contextmanager
def neighbours(scenario: str, contender: int) -> Iterator[None]:
    """Start the busy processes of a scenario, or limit the contender; end that afterwards."""
    if scenario == "quota of one":
        with quota_of_one(contender):
            yield
        return
    count = {"alone": 0, "one": 1, "two": 2}[scenario.split(",")[0].split()[0]]
    words = ["nice", "-n", "10"] if "niced" in scenario else []
    started = [
        subprocess.Popen(
            [*words, sys.executable, "-c", "while True: pass"],
            start_new_session="other" in scenario,
        )
        for _ in range(count)
    ]
    time.sleep(0.3)
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


@contextlib.contextmanager
def quota_of_one(contender: int) -> Iterator[None]:
    """Let a process use one CPU, in slices of 100 ms as container programs do (cgroup v1)."""
    group = QUOTA / f"towernet-{os.getpid()}"
    before = next(
        line.split(":", 2)[2]
        for line in Path(f"/proc/{contender}/cgroup").read_text().splitlines()
        if "cpu" in line.split(":")[1].split(",")
    )
    group.mkdir()
    try:
        (group / "cpu.cfs_period_us").write_text("100000")
        (group / "cpu.cfs_quota_us").write_text("100000")
        (group / "cgroup.procs").write_text(str(contender))
        yield
    finally:
        (QUOTA / before.lstrip("/") / "cgroup.procs").write_text(str(contender))
        group.rmdir()


class Contender:
    """A process that trains with one setting whenever it is asked to."""

    def __init__(self, setting: str, policy: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--contender", setting, policy],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | SETTINGS[setting],
        )  # fmt: skip

    def ask(self, seconds: float) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--settings", default=",".join(SETTINGS), help='Some; with "default".')
    parser.add_argument("--contender", nargs=2, help="A setting and a policy, by this script.")
    args = parser.parse_args()
    if args.contender is not None:
        contend(*args.contender)
        return
    settings = args.settings.split(",")
    contenders, policy = dict[str, Contender](), ""
    for name in settings:
        contenders[name] = Contender(name, policy)
        policy = json.dumps(contenders[name].answer())
        print(name, policy, flush=True)
    scenarios: tuple[str, ...] = SCENARIOS
    if not (QUOTA / "cpu.cfs_quota_us").exists():
        scenarios = tuple(name for name in SCENARIOS if "quota" not in name)
        print(f"no quota is measured: {QUOTA} is no cgroup (version 1) of this machine")
    speeds: dict[str, dict[str, list[float]]] = {
        scenario: {name: [] for name in settings} for scenario in scenarios
    }
    for number in range(args.rounds):
        for scenario in scenarios:
            order = list(contenders.items())
            for name, contender in order if number % 2 else reversed(order):
                with neighbours(scenario, contender.process.pid):
                    contender.ask(args.seconds)
                    speeds[scenario][name].append(contender.answer())
        for scenario in scenarios:
            print(
                scenario,
                {name: round(found[-1], 1) for name, found in speeds[scenario].items()},
                flush=True,
            )
    for contender in contenders.values():
        contender.process.communicate()
    alone = median(speeds["alone"]["default"])
    write_result(
        "neighbours",
        {
            "images_per_second": speeds,
            "of_the_speed_alone": {
                scenario: {name: round(median(found) / alone, 3) for name, found in by_name.items()}
                for scenario, by_name in speeds.items()
            },
            "policy": json.loads(policy),
            "hardware": {"processor": processor(), "cores": os.cpu_count()},
        },
    )


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))


if __name__ == "__main__":
    main()

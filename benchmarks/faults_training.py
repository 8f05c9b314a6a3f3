"""Real commands that are killed, whose disk fails, with damaged states and changed inputs.

Each function returns plain figures for `faults.py`. Trials run two at a time, one thread each.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from crashlab.lab import (
    Ended,
    Lab,
    epochs_done,
    exact,
    files_in,
    operations,
    policy,
    went_on_from,
)
from towernet import files
from towernet.engine.checkpoint import read_state
from towernet.errors import DataError

NUM_LABS = 2
OPTIONS = ["--epochs", "3", "--size", "64", "--batch-size", "8"]
NETWORK, OTHER_NETWORK = "shufflenet_v2_x0_5", "squeezenet1_1"
VERBS = ("train", "compare")


def make_photos(folder: Path, num: int = 14, seed: int = 5) -> Path:
    """Write three classes of stripes: horizontal, vertical and diagonal."""
    draw = np.random.default_rng(seed)
    rows, columns = np.mgrid[:36, :40]
    for name, wave in {"lying": rows, "standing": columns, "leaning": rows + columns}.items():
        (folder / name).mkdir(parents=True)
        for i in range(num):
            stripes = np.sin(wave * draw.uniform(0.5, 0.9) + draw.uniform(0, 6))
            pixels = 128 + 80 * stripes[:, :, None] * draw.uniform(0.6, 1, 3)
            pixels = np.clip(pixels + draw.normal(0, 12, (36, 40, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:02d}.png")
    return folder


def words(verb: str, photos: Path, out: Path) -> list[str]:
    """Return the command of a tiny training."""
    if verb == "train":
        return ["train", str(photos), "--model", NETWORK, *OPTIONS, "--out", str(out)]
    networks = f"{NETWORK},{OTHER_NETWORK}"
    return ["compare", str(photos), "--models", networks, *OPTIONS, "--out", str(out)]


def words_again(verb: str, photos: Path, out: Path) -> list[str]:
    """Return the command with which a user continues after the command was killed."""
    if verb == "train" and (out / "run.json").exists():
        return ["train", "--resume", str(out)]
    return words(verb, photos, out)


class Bench:
    """Some labs, photos, and an undisturbed run of each verb."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.photos = make_photos(root / "photos")
        self.labs: queue.Queue[Lab] = queue.Queue()
        for i in range(NUM_LABS):
            (root / f"lab{i}").mkdir()
            self.labs.put(Lab(root / f"lab{i}"))
        self.operations: dict[str, list[tuple[int, str, str]]] = {}
        self.expected: dict[str, tuple[dict[str, Any], set[str], str]] = {}
        self.seconds: dict[str, float] = {}

    def run(self, *arguments: Any, **options: Any) -> Ended:
        """Run a command in a free lab."""
        lab = self.labs.get()
        try:
            return lab.run(*arguments, **options)
        finally:
            self.labs.put(lab)

    def all(self, tasks: Sequence[Callable[[], Any]], what: str) -> Iterator[Any]:
        """Do all tasks, one at a time per lab; print the progress."""
        with concurrent.futures.ThreadPoolExecutor(NUM_LABS) as pool:
            done = [pool.submit(task) for task in tasks]
            for i, future in enumerate(concurrent.futures.as_completed(done)):
                if i % 10 == 9:
                    print(f"  {what}: {i + 1} of {len(tasks)}", file=sys.stderr, flush=True)
                yield future.result()

    def undisturbed(self, verb: str) -> None:
        """Run a verb to its end, in each lab so that the caches are warm; keep its results."""
        out = self.root / "undisturbed" / verb
        for _ in range(NUM_LABS + 1):
            shutil.rmtree(out, ignore_errors=True)
            ended = self.run(words(verb, self.photos, out), out, log=self.root / f"{verb}.log")
            assert ended.exit_code == 0, ended.stderr
        self.operations[verb] = operations(self.root / f"{verb}.log")
        self.expected[verb] = (exact(out), files_in(out), policy(out))
        self.seconds[verb] = ended.seconds

    def cut_off(self, verb: str, out: Path) -> None:
        """Leave a run that was killed in its second epoch or later."""
        path = out / "metrics.jsonl" if verb == "train" else out / "runs"
        at = [
            number
            for number, kind, file in self.operations[verb]
            if kind == "rename" and file.endswith("metrics.jsonl") and "trials" not in file
        ][1]
        ended = self.run(words(verb, self.photos, out), out, action="kill", nth=at + 2)
        assert ended.exit_code == -9 and path.exists(), ended.stderr


@contextmanager
def bench() -> Iterator[Bench]:
    """Create labs in a temporary folder, and remove them afterwards."""
    with tempfile.TemporaryDirectory(prefix="towernet-faults-") as folder:
        made = Bench(Path(folder))
        try:
            for verb in VERBS:
                made.undisturbed(verb)
            yield made
        finally:
            while not made.labs.empty():
                made.labs.get().__exit__()


def instants(found: list[tuple[int, str, str]], num: int) -> list[int]:
    """Return numbers of operations: one of each kind on each file, then others evenly spaced."""
    firsts = {(kind, path): number for number, kind, path in reversed(found)}
    chosen = sorted(firsts.values())
    if len(chosen) > num:
        return [chosen[i * len(chosen) // num] for i in range(num)]
    others = sorted({number for number, _, _ in found} - set(chosen))
    more = min(num - len(chosen), len(others))
    return sorted(chosen + [others[i * len(others) // more] for i in range(more)])


def measure_kills(made: Bench, num_random: int = 100, num_operations: int = 100) -> dict[str, Any]:
    """Kill at random instants and at file operations, resume, compare with the undisturbed run."""
    draw = np.random.default_rng(0)
    tasks = []
    for verb in VERBS:
        tasks += [
            partial(_killed, made, verb, f"{verb}-{nth}", {"nth": nth})
            for nth in instants(made.operations[verb], num_operations // 2)
        ]
        tasks += [
            partial(
                _killed, made, verb, f"{verb}-random-{i}",
                # As users have it: these short runs write no state, and start over.
                {"after_s": float(after_s), "seconds_between_saves": None},
            )
            for i, after_s in enumerate(draw.uniform(0.05, made.seconds[verb], num_random // 2))
        ]  # fmt: skip
    trials = list(made.all(tasks, "killed and resumed"))
    return {
        "num": len(trials),
        "num_killed": sum(trial["killed"] for trial in trials),
        "num_went_on": sum(trial["went_on"] for trial in trials),
        "num_exact": sum(trial["exact"] for trial in trials),
        "epochs_lost": sum(trial["steps_lost"] > 0 for trial in trials),
        "stale_files": sum(len(trial["stale"]) for trial in trials),
        "self_test_chose_otherwise": sum(trial["chose_otherwise"] for trial in trials),
        "bad": [trial for trial in trials if not trial["exact"] or trial["stale"]][:5],
    }


def _killed(made: Bench, verb: str, name: str, when: dict[str, Any]) -> dict[str, Any]:
    expected, expected_files, expected_policy = made.expected[verb]
    out = made.root / "trials" / name
    chose_otherwise = -1
    while chose_otherwise < 5:
        chose_otherwise += 1
        shutil.rmtree(out, ignore_errors=True)
        killed = made.run(words(verb, made.photos, out), out, action="kill", **when)
        done, finished = epochs_done(out), _finished(out)
        ended = made.run(words_again(verb, made.photos, out), out)
        if policy(out) == expected_policy or ended.exit_code:
            break  # else the self-test, which is timed, chose another number format: try again
    went_on = went_on_from(ended)
    if "nth" not in when:  # without states, all is repeated
        done = {}
    lost = [step - went_on.get(run, 0) for run, step in done.items() if run not in finished]
    result = {
        "name": name,
        "killed": killed.exit_code == -9,
        "went_on": ended.exit_code == 0,
        "exact": ended.exit_code == 0 and exact(out) == expected,
        "steps_lost": max(lost, default=0),
        "stale": sorted(files_in(out) ^ expected_files),
        "chose_otherwise": chose_otherwise,
        "said": ended.stderr[-300:] if ended.exit_code else "",
    }
    shutil.rmtree(out, ignore_errors=True)
    return result


def _finished(out: Path) -> set[str]:
    records = (*out.glob("run.json"), *out.glob("runs/*/run.json"))
    return {
        path.parent.name for path in records if json.loads(path.read_text())["status"] == "finished"
    }


def measure_failures(made: Bench, num_compare: int = 60, num_full: int = 20) -> dict[str, Any]:
    """Let the n-th file operation fail, for each n in a run; or all operations from the n-th."""
    tasks = []
    for verb in VERBS:
        numbers = [number for number, _, _ in made.operations[verb]]
        every = numbers if verb == "train" else instants(made.operations[verb], num_compare)
        tasks += [partial(_failed, made, verb, "fail once", nth, nth % 4 == 0) for nth in every]
        full = [numbers[i * len(numbers) // num_full] for i in range(num_full)]
        tasks += [partial(_failed, made, verb, "fail ever", nth, nth % 2 == 0) for nth in full]
    trials = list(made.all(tasks, "operations that fail"))
    return {
        "num": len(trials),
        "exit_code_4": sum(trial["exit_code"] == 4 for trial in trials),
        "finished_all_the_same": sum(trial["exit_code"] == 0 for trial in trials),
        "state_valid": sum(trial["valid"] for trial in trials),
        "path_named": sum(trial["named"] for trial in trials),
        "tracebacks": sum(trial["traceback"] for trial in trials),
        "gone_on_exactly": [
            sum(trial["exact"] is True for trial in trials),
            sum(trial["exact"] is not None for trial in trials),
        ],
        "bad": [
            trial
            for trial in trials
            if not (trial["valid"] and trial["named"] and trial["exact"] is not False)
            or trial["traceback"]
            or trial["exit_code"] not in (0, 4)
        ][:5],
    }


def _failed(made: Bench, verb: str, action: str, nth: int, resume: bool) -> dict[str, Any]:
    expected, expected_files, expected_policy = made.expected[verb]
    out = made.root / "trials" / f"{verb}-{action}-{nth}".replace(" ", "-")
    ended = made.run(words(verb, made.photos, out), out, action=action, nth=nth)
    last = ended.stderr.splitlines()[-1]
    same: bool | None = None
    valid = _valid(out)
    if resume:
        again = made.run(words_again(verb, made.photos, out), out)
        if policy(out) == expected_policy:
            same = again.exit_code == 0 and exact(out) == expected
            same &= files_in(out) == expected_files
    shutil.rmtree(out, ignore_errors=True)
    return {
        "name": f"{verb} {action} {nth}: {made.operations[verb][nth - 1][1:]}",
        "exit_code": ended.exit_code,
        "valid": valid,
        "named": ended.exit_code == 0 or (last.startswith("error: ") and str(out) in last),
        "traceback": "Traceback" in ended.stderr,
        "exact": same,
        "said": last,
    }


def _valid(out: Path) -> bool:
    """Whether every JSON file is complete and every state is valid."""
    try:
        for path in (*out.rglob("*.json"), *out.rglob("*.jsonl")):
            (files.read_json if path.suffix == ".json" else files.read_jsonl)(path)
    except DataError:
        return False
    return all(not read_state(folder)[1] for folder in out.rglob("last"))


def measure_damage(made: Bench, num_flips: int = 1000, num_cuts: int = 200) -> dict[str, Any]:
    """Flip bits of the newest state and truncate its files; the state before must be used."""
    draw = np.random.default_rng(1)
    out = made.root / "damaged"
    made.cut_off("train", out)
    folder = out / "last"
    manifests = sorted(folder.glob("*.json"))
    before, newest = (json.loads(path.read_text())["manifest"] for path in manifests[-2:])
    best_of_both = set(before["files"])
    targets = [manifests[-1], *(folder / n for n in newest["files"] if n not in best_of_both)]
    detected = {"flips": 0, "cuts": 0}
    for i in range(num_flips + num_cuts):
        path = targets[i % len(targets)]
        whole = path.read_bytes()
        at = int(draw.integers(len(whole)))
        if i < num_flips:
            damaged = bytearray(whole)
            damaged[at] ^= 1 << int(draw.integers(8))
            path.write_bytes(damaged)
        else:
            path.write_bytes(whole[:at] + (bytes(len(whole) - at) if i % 2 else b""))
        found, sentences = read_state(folder)
        older = found is not None and found[1] == before["state"]
        detected["flips" if i < num_flips else "cuts"] += older and len(sentences) == 1
        path.write_bytes(whole)
    # Once through the command: it reports the damage, and ends with the same bytes.
    content = bytearray(targets[1].read_bytes())
    content[len(content) // 2] ^= 4
    targets[1].write_bytes(content)
    ended = made.run(words_again("train", made.photos, out), out)
    return {
        "num_flips": num_flips,
        "flips_noticed": detected["flips"],
        "num_cuts": num_cuts,
        "cuts_noticed": detected["cuts"],
        "said": "is damaged and skipped" in ended.stderr,
        "exact": ended.exit_code == 0 and exact(out) == made.expected["train"][0],
    }


def measure_changes(made: Bench) -> dict[str, Any]:
    """Resume with a changed input: each kind of change is refused with its own message."""
    base = made.root / "begun"
    for verb in VERBS:
        made.cut_off(verb, base / verb)

    def edited(file: str, old: str, new: str) -> Callable[[Path, Path], None]:
        def edit(photos: Path, out: Path) -> None:
            text = (out / file).read_text()
            assert old in text, f"{file} does not contain {old}"
            (out / file).write_text(text.replace(old, new))

        return edit

    def photo(action: Callable[[Path], Any]) -> Callable[[Path, Path], None]:
        return lambda photos, out: action(photos)

    def nothing(photos: Path, out: Path) -> None:
        """Change no file: the command's options differ."""

    def added(photos: Path) -> None:
        make_photos(photos / "more", 1, seed=9)
        (photos / "more" / "lying" / "00.png").rename(photos / "lying" / "new.png")
        shutil.rmtree(photos / "more")

    def new_class(photos: Path) -> None:
        make_photos(photos / "more", 4, seed=9)
        (photos / "more" / "lying").rename(photos / "waving")
        shutil.rmtree(photos / "more")

    def changed(photos: Path) -> None:
        make_photos(photos / "more", 1, seed=9)
        (photos / "more" / "lying" / "00.png").rename(photos / "lying" / "03.png")
        shutil.rmtree(photos / "more")

    def damaged(photos: Path) -> None:
        path = photos / "lying" / "03.png"
        path.write_bytes(path.read_bytes()[:200])

    torch_version = json.loads((base / "train" / "run.json").read_text())["versions"]["torch"]
    kinds: dict[str, tuple[Callable[[Path, Path], None], str, list[str], str]] = {
        "an image added": (photo(added), "train", [], "data"),
        "an image removed": (photo(lambda p: (p / "lying/03.png").unlink()), "train", [], "data"),
        "an image changed": (photo(changed), "compare", [], "data"),
        "an image damaged": (photo(damaged), "compare", [], "data"),
        "an image in another class": (
            photo(lambda p: (p / "lying/03.png").rename(p / "standing/moved.png")),
            "train", [], "data",
        ),
        "a new class": (photo(new_class), "train", [], "data"),
        "a class renamed": (
            photo(lambda p: (p / "lying").rename(p / "flat")), "train", [], "",
        ),
        "a class removed": (photo(lambda p: shutil.rmtree(p / "leaning")), "compare", [], ""),
        "the recipe": (nothing, "compare", ["--epochs", "4"], ""),
        "the seed": (nothing, "compare", ["--seed", "1"], ""),
        "the networks": (nothing, "compare", ["--models", NETWORK], ""),
        "the number of runs": (nothing, "compare", ["--runs", "2"], ""),
        "the threads": (nothing, "compare", ["--threads", "2"], "changes"),
        "the device": (nothing, "train", ["--device", "cuda"], ""),
        "the version of torch": (
            edited("run.json", f'"torch": "{torch_version}"', '"torch": "2.0.1"'),
            "train", [], "changes",
        ),
        "a newer format": (edited("run.json", '"format": 1', '"format": 9'), "train", [], ""),
        "an edited run.json": (
            edited("run.json", '"learning_rate": 0.05', '"learning_rate": 0.07'), "train", [], "",
        ),
    }  # fmt: skip
    outcomes = list(
        made.all(
            [partial(_changed, made, base, name, *kind) for name, kind in kinds.items()],
            "changed inputs",
        )
    )
    sentences = {outcome["said"] for outcome in outcomes}
    accepted = [outcome for outcome in outcomes if outcome["accepted"] is not None]
    return {
        "num": len(outcomes),
        "refused": sum(outcome["exit_code"] in (2, 3, 4) for outcome in outcomes),
        "different_sentences": len(sentences),
        "left_as_it_was": sum(outcome["untouched"] for outcome in outcomes),
        "accepted_when_said": [sum(bool(o["accepted"]) for o in accepted), len(accepted)],
        "sentences": {outcome["name"]: outcome["said"] for outcome in outcomes},
    }


def _changed(
    made: Bench,
    base: Path,
    name: str,
    change: Callable[[Path, Path], None],
    verb: str,
    options: list[str],
    accept: str,
) -> dict[str, Any]:
    trial = made.root / "changed" / name.replace(" ", "-")
    photos = Path(shutil.copytree(made.photos, trial / "photos"))
    out = Path(shutil.copytree(base / verb, trial / verb))
    change(photos, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    command = words(verb, photos, out) if verb == "compare" else ["train", str(photos)]
    command += options if verb == "compare" else [*options, "--resume", str(out)]
    ended = made.run(command, out)
    now = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    before, now = ({p: b for p, b in of.items() if p.name != "lock"} for of in (before, now))
    accepted: bool | None = None
    if accept:
        flag = "--accept-data-change" if accept == "data" else "--accept-changes"
        # Killed while it accepts, then run again: the change stays accepted.
        made.run([*command, flag], out, action="kill", nth=60)
        again = made.run([*command, flag], out)
        accepted = again.exit_code == 0 and bool(
            json.loads((out / "results.json").read_text())["results"]["accepted"]
        )
    return {
        "name": name,
        "exit_code": ended.exit_code,
        "said": ended.stderr.splitlines()[-1].replace(str(trial) + "/", ""),
        "untouched": before == now,
        "accepted": accepted,
        "said_then": again.stderr.splitlines()[-1] if accepted is False else "",
    }


def measure_machine(made: Bench) -> dict[str, Any]:
    """Run with a small disk, and with a tiny shared memory; None if the system allows neither."""
    small = made.root / "small-disk"
    small.mkdir()
    full: dict[str, Any] = {"seconds": None, "said": None}
    if _mount("8m", small):
        try:
            ended = made.run(words("train", made.photos, small / "run"), small)
            full = {"seconds": ended.seconds, "said": ended.stderr.splitlines()[-1]}
            full["exit_code"] = ended.exit_code
        finally:
            subprocess.run(["umount", str(small)], check=True)
    shared = None
    script = 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"'
    out = made.root / "shared"
    command = [sys.executable, "-m", "towernet", *words("train", made.photos, out)]
    if shutil.which("unshare"):
        environment = os.environ | {"TOWERNET_CACHE": str(made.root / "cache")}
        ended_process = subprocess.run(
            ["unshare", "-m", "sh", "-c", script, "sh", *command],
            capture_output=True, check=False, env=environment,
        )  # fmt: skip
        shared = ended_process.returncode
    return {"small_disk": full, "exit_code_with_64_kB_of_shared_memory": shared}


def _mount(size: str, folder: Path) -> bool:
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    return bool(shutil.which("mount")) and not subprocess.run(mount, check=False).returncode

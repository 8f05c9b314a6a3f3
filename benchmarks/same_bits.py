"""Do two commits give the same bits? Run the same commands with both, on this machine.

python benchmarks/same_bits.py fb0484d
python benchmarks/same_bits.py fb0484d --new main --keep bits
python benchmarks/same_bits.py fb0484d --keep bits --only train --only notebook

Each commit has its own git worktree and cache, in a temporary folder that is removed at the end.
With --keep, a later call reuses the old commit's outputs. The exit code is 1 if anything differs;
`_same_files.py` documents what is compared. With --only, no result is written.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from _commits import OUT, Case, CaseFault, Commit, Ran, checked_out, git, run, this_machine
from _common import write_result
from _same_files import Comparison, compare_folders, policy
from towernet.errors import INTERRUPTED, TERMINATED

SIGNS = "sign-digits.zip"
MAX_RERUNS = 2  # of each commit, if the two chose different number formats
MAX_WRITTEN = 20  # differences of a case in the result

# Small, but long enough for towernet_patch to learn: otherwise it is not ranked.
ONE_THREAD = "--threads 1 --workers 1"
ALL = f"--epochs 1 --batch-size 8 {ONE_THREAD} --out {OUT}"
SMALL = f"--images-per-class 40 --size 32 {ALL}"
LONGER = f"--images-per-class 80 --size 64 {ALL}"
_INTERRUPTED = f"compare digits --models shufflenet_v2_x0_5,towernet_patch {LONGER}"
CASES = (
    Case("train", f"train digits {SMALL}"),
    Case(
        "compare",
        f"compare digits --models towernet_patch,shufflenet_v2_x0_5,squeezenet1_1 --runs 2 {SMALL}",
    ),
    Case(
        "attention",
        "compare digits --models towernet_patch,mobilenet_v3_small --attention none,shuffle"
        f" --runs 2 {SMALL}",
    ),
    Case(
        "attention-signs",
        f"compare {SIGNS} --models towernet_patch --attention none,shuffle --runs 2"
        f" --images-per-class 20 --size 64 {ALL}",
    ),
    Case("compare-interrupted", _INTERRUPTED, again=_INTERRUPTED),
    Case(
        "train-interrupted",
        f"train digits --model mobilenet_v3_small+se@stages@identity {LONGER}",
        again=f"train --resume {OUT} {ONE_THREAD}",
    ),
    Case(
        "notebook",
        "compare digits --models towernet_patch,shufflenet_v2_x0_5 --recipe notebook --runs 2"
        f" {SMALL}",
    ),
    Case(
        "learning-curve",
        f"compare digits --models towernet_patch --runs 2 --learning-curve {SMALL}",
    ),
)


@dataclass(frozen=True)
class Row:
    """A case's outcome; `old` and `new` are None if that commit could not run it."""

    case: Case
    old: Ran | None
    new: Ran | None
    found: Comparison

    def as_json(self) -> dict[str, object]:
        """Return its entry in the result."""
        return {
            "case": self.case.name,
            "commands": [f"towernet {command}" for command in self.case.commands],
            "num_files": self.found.num_files,
            "digest": self.found.digest,
            "equal": not self.found.differences,
            "num_differences": len(self.found.differences),
            "differences": self.found.differences[:MAX_WRITTEN],
            "renamed": self.found.renamed,
            "seconds": [ran and ran.seconds for ran in (self.old, self.new)],
            "cpu_seconds": [ran and ran.cpu_seconds for ran in (self.old, self.new)],
        }

    def line(self) -> str:
        """Return its line of the table."""
        differences = self.found.differences
        outcome = differences[0] if differences else "equal"
        if len(differences) > 1:
            outcome += f" (the first of {len(differences)} differences)"
        if self.found.renamed:
            outcome += f"; {len(self.found.renamed)} run folders were renamed"
        old, new = (f"{ran.cpu_seconds:.0f}" if ran else "-" for ran in (self.old, self.new))
        return table_line(self.case.name, str(self.found.num_files), old, new, outcome)


def table_line(name: str, num_files: str, old: str, new: str, outcome: str) -> str:
    return f"{name:<20}{num_files:>7}{old:>7}{new:>7}  {outcome}"


def compared(case: Case, old: Commit, new: Commit, machine: dict[str, str]) -> Row:
    """Run a case with both commits, and compare the results.

    Each command times several number formats and takes the fastest. If the two commits took
    different ones, as can happen on a busy machine, their bits differ, so they run again in turn.
    """
    folders = {commit.role: commit.outputs / case.name / OUT for commit in (old, new)}
    ran: dict[str, Ran] = {}
    try:
        ran["old"] = run(case, old, machine, reuse=True)
        ran["new"] = run(case, new, machine, reuse=False)
        for commit in (new, old) * MAX_RERUNS:
            chosen = {role: policy(folder) for role, folder in folders.items()}
            if chosen["old"] == chosen["new"]:
                break
            print(f"{case.name}: the number formats differ: {chosen}", file=sys.stderr)
            ran[commit.role] = run(case, commit, machine, reuse=False)
    except CaseFault as fault:
        found = Comparison(0, "", (str(fault),), {})
    else:
        found = compare_folders(folders["old"], folders["new"])
    return Row(case, ran.get("old"), ran.get("new"), found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("old", help="The commit from before.")
    parser.add_argument("--new", default="HEAD", help="The commit from after; default: HEAD.")
    parser.add_argument("--keep", type=Path, help="A folder that keeps the outputs.")
    parser.add_argument(
        "--only", action="append", choices=[case.name for case in CASES], help="May be repeated."
    )
    args = parser.parse_args()
    shas = {
        role: git("rev-parse", "--verify", f"{name}^{{commit}}")
        for role, name in (("old", args.old), ("new", args.new))
    }
    if args.new == "HEAD" and git("status", "--porcelain", "--untracked-files=no", "--", "src"):
        print("uncommitted changes are not compared", file=sys.stderr)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    machine, rows, skipped = this_machine(), [], []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="same-bits-")))
        keep = args.keep.resolve() if args.keep else folder / "outputs"
        old, new = (
            stack.enter_context(checked_out(role, sha, folder, keep)) for role, sha in shas.items()
        )
        for case in CASES:
            if args.only and case.name not in args.only:
                continue
            if SIGNS in case.command and not os.environ.get("TOWERNET_DATA"):
                skipped.append(case.name)
                continue
            rows.append(compared(case, old, new, machine))
    equal = all(not row.found.differences for row in rows)
    if not args.only:
        write_result(
            "same_bits",
            {
                "old": shas["old"],
                "new": shas["new"],
                "equal": equal,
                "cases": [row.as_json() for row in rows],
                "skipped": skipped,
                "machine": machine | {"cores": os.cpu_count(), "threads": 1},
            },
        )
    print(f"\nold {shas['old'][:12]}, new {shas['new'][:12]}; times are CPU seconds")
    print(table_line("case", "files", "old", "new", "outcome"))
    for row in rows:
        print(row.line())
    for name in skipped:
        print(f"{name:<20} skipped, since TOWERNET_DATA is not set")
    sys.exit(0 if equal else 1)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)

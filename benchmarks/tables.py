"""Write the README's tables from the results beside this file; `--check` only compares.

A table stands between `<!-- table NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from _common import RESULTS
from towernet import files
from towernet.cli.tables import count_words

README = Path(__file__).parent.parent / "README.md"
MARKED = re.compile(r"(<!-- table (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def machine(result: dict[str, Any], hardware: dict[str, Any], versions: dict[str, str]) -> str:
    return (
        f"{hardware['processor']}, {hardware['threads']} threads, {hardware['dtype']};"
        f" torch {versions['torch']}, Python {versions['python']};"
        f" commit {result['commit']}, {result['date'][:10]}."
    )


def comparison(result: dict[str, Any]) -> str:
    results, measured, made = result["results"], result["measured"]["networks"], result["made"]
    lines = [
        "| network | test accuracy | 95 % interval | macro-F1 | parameters | multiply-adds"
        " | epochs | training | images/s | latency |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    notes = []
    for network in results["networks"]:
        timed = measured[network["name"]]
        if network["status"] != "ranked":
            notes.append(f"Not ranked: {network['name']} {network['reason']}.")
            continue
        low, high = network["interval"]
        lines.append(
            f"| {network['name']} | {100 * network['accuracy']:.1f} %"
            f" | {100 * low:.1f}–{100 * high:.1f} % | {network['macro_f1']:.3f}"
            f" | {count_words(network['parameters'])} | {count_words(network['multiply_adds'])}"
            f" | {network['epochs']:.3g} | {timed['training_seconds']:.0f} s"
            f" | {timed['images_per_second']:.0f} | {timed['latency_ms']:.1f} ms |"
        )
    counts = results["num_images"]
    words = [
        f"> {results['sentence']}",
        "",
        *lines,
        "",
        *notes,
        *([""] if notes else []),
        f"n = {counts['test']} test images ({counts['train']} training, {counts['validation']}"
        f" validation), {results['size_px']} px, {results['num_runs']} run each;"
        f" `{made['command']}`. {machine(result, made['hardware'], made['versions'])}",
    ]
    return "\n".join(words)


def throughput(result: dict[str, Any]) -> str:
    speeds, spread = result["images_per_second"], result["ratio_spread"]
    num_rounds = len(result["rounds"]["plain"])
    return "\n".join(
        [
            "| `--recipe notebook`, caltech16, 256 px, batch 32 | images/s, training |",
            "|---|---:|",
            f"| plain fp32 program with a decoding loader | {speeds['plain']:.1f} |",
            f"| towernet, data path included | {speeds['towernet']:.1f} |",
            "",
            f"{result['ratio']:.1f}×, the median of {num_rounds} interleaved rounds ("
            f"{spread[0]:.1f} to {spread[1]:.1f}); the whole run's peak memory is"
            f" {result['peak_memory_mib'] / 1024:.1f} GiB, all processes."
            f" {machine(result, result['hardware'], result['versions'])}",
        ]
    )


def checks(results: list[dict[str, Any]]) -> str:
    lines = [
        "| data | found | used | quarantined | ignored | classes | near duplicates | `check` |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {r['data']} | {r['found']} | {r['used']} | {r['quarantined']} | {r['ignored']}"
        f" | {len(r['classes'])} | {r['near_duplicates']['files']} | {r['seconds']:.1f} s |"
        for r in results
    ]
    return "\n".join(lines)


def table(name: str) -> str:
    def read(result_name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((RESULTS / f"{result_name}.json").read_text())
        return found

    if name == "throughput":
        return throughput(read(name))
    if name == "checks":
        return checks([read(path.stem) for path in sorted(RESULTS.glob("check-*.json"))])
    return comparison(read(name))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="Change nothing; exit 1 if it would.")
    parser.add_argument("--readme", type=Path, default=README)
    args = parser.parse_args()
    before = args.readme.read_text(encoding="utf-8")
    after = MARKED.sub(lambda found: f"{found[1]}{table(found[2])}\n{found[3]}", before)
    if after != before and args.check:
        print("error: README.md's tables are not those of benchmarks/results; run this script")
        return 1
    if not args.check:
        files.write_text(args.readme, after)
    return 0


if __name__ == "__main__":
    sys.exit(main())

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
from towernet.data.table import counted

README = Path(__file__).parent.parent / "README.md"
MARKED = re.compile(r"(<!-- table (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def machine(result: dict[str, Any], hardware: dict[str, Any], versions: dict[str, str]) -> str:
    return (
        f"{hardware['processor']}, {counted(hardware['threads'], 'thread')}, {hardware['dtype']};"
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


def faults(result: dict[str, Any]) -> str:
    """Return what `faults.py` found; a part that was not measured has no rows."""
    rows: list[tuple[str, str]] = []
    if training := result.get("training"):
        kills, failures = training["kills"], training["failures"]
        damage, changes = training["damage"], training["changes"]
        rows += [
            (
                f"SIGKILL at {kills['num']} instants of `train` and `compare`, then gone on",
                f"{kills['num_exact']} byte-identical, {kills['epochs_lost']} lost an epoch,"
                f" {kills['stale_files']} stale files",
            ),
            (
                f"{failures['num']} file operations that fail, or a disk that is full from then on",
                f"{failures['state_valid']} left a valid state; {failures['exit_code_4']} ended"
                f" with exit code 4, {failures['finished_all_the_same']} could do without it;"
                f" {failures['tracebacks']} tracebacks; gone on exactly"
                f" {failures['gone_on_exactly'][0]} of {failures['gone_on_exactly'][1]}",
            ),
            (
                f"{damage['num_flips']:,} bit flips and {damage['num_cuts']} cuts of a checkpoint",
                f"{damage['flips_noticed']:,} and {damage['cuts_noticed']} noticed, the older one"
                " taken",
            ),
            (
                f"{changes['num']} kinds of changed input on resume",
                f"{changes['refused']} refused, in {changes['different_sentences']} different"
                f" sentences; {changes['num'] - changes['left_as_it_was']} changed a file",
            ),
        ]
    if mixed := result.get("mixed"):
        same = "the same" if mixed["same_weights"] and mixed["same_metrics"] else "other"
        rows.append(
            (
                f"{mixed['good']:,} good and {mixed['bad']} bad images mixed",
                f"{same} weights and metrics, to the byte, as the good ones alone",
            )
        )
    if images := result.get("images"):
        rows.append(
            (
                f"{images['num']:,} hostile image files",
                f"{images['crashes']} crashes, {images['hangs']} hangs; {images['used']:,} used,"
                f" {images['quarantined']:,} quarantined, {images['ignored']:,} ignored; all"
                f" processes {images['max_tree_mb']} MB, {images['files_per_s']:.0f} files/s",
            )
        )
    if archives := result.get("archives"):
        rows.append(
            (
                f"{archives['num']} hostile archives",
                f"{archives['refused_or_quarantined']} refused or read without what is bad, in at"
                f" most {archives['max_seconds']:.2f} s and {archives['max_mb_above_idle']:.0f} MB;"
                f" {archives['written_outside']} wrote outside the cache",
            )
        )
    if scale := result.get("scale"):
        rows += [
            (
                f"a folder of {scale['million']['num_files']:,} images",
                f"first sentence after {scale['million']['first_sentence_seconds']:.1f} s; checking"
                f" them takes {scale['million']['check_peak_bytes_per_image']:.0f} bytes of memory"
                " an image at most",
            ),
            (
                f"near duplicates among {scale['num_thumbnails']:,} images",
                f"{scale['near_duplicates_seconds']:.0f} s",
            ),
        ]
    lines = [f"| {what} | {found} |" for what, found in rows]
    made_on = machine(result, result["hardware"], result["versions"])
    return "\n".join(["| what | what came out |", "|---|---|", *lines, "", made_on])


def table(name: str) -> str:
    def read(result_name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((RESULTS / f"{result_name}.json").read_text())
        return found

    if name == "throughput":
        return throughput(read(name))
    if name == "faults":
        return faults(read(name))
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

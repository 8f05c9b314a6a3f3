"""Write the tables of README.md and docs/*.md from benchmarks/results.

`--check` only compares.

A table is between `<!-- table NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from _common import RESULTS
from _comparison_tables import (
    ablation,
    comparison,
    front,
    planted_labels,
    same_network,
    shots,
    uneven_classes,
)
from _stored import Comparison, MadeOn, PlantedLabels, SameNetwork
from towernet import files

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
MARKED = re.compile(r"(<!-- table (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def made_on(result: dict[str, Any]) -> str:
    return MadeOn.model_validate(result).words()


def blocks(result: dict[str, Any]) -> str:
    lines = [
        "| block | what it does | parameters | time, % of a convolution | paper |",
        "|---|---|---:|---:|---|",
    ]
    lines += [
        f"| `{name}` | {block['what']} | {block['parameters']:,}"
        f" | {100 * block['of_convolution']:.0f} | {block['paper']} |"
        for name, block in result["blocks"].items()
    ]
    return "\n".join(
        [
            *lines,
            "",
            "Parameters for 256 channels; forward and backward on 8×256×28×28, as a share of a 3×3"
            " convolution with batch norm of as many channels; shuffle attention by its kernel"
            " in C, the others by torch's operations."
            f" {made_on(result)}",
        ]
    )


def attention_cost(result: dict[str, Any]) -> str:
    lines = ["| shuffle attention, 8×256×56×56, forward and backward | textbook module | the block"
             " | times as fast | without its kernel |", "|---|---:|---:|---:|---:|"]  # fmt: skip
    for name, figures in result["layer"].items():
        textbook, kernel = figures["textbook"], figures["kernel"]
        without = f"{figures['without']['ms']['median']:.1f} ms" if "without" in figures else ""
        lines.append(
            f"| {name.replace(' ', ', ')} | {textbook['ms']['median']:.1f} ms"
            f" | {kernel['ms']['median']:.1f} ms | {spread(textbook['ratio'])} | {without} |"
        )
    names = [name for name in next(iter(result["network"].values())) if name != "plain"]
    head = " | ".join(f"with {name}" for name in names)
    lines += [
        "",
        f"| ResNet-50, 16 images of 224 px | without | {head} |",
        f"|---|---:|{'---:|' * len(names)}",
    ]
    for name, figures in result["network"].items():
        slower = " | ".join(
            f"{100 * (figures[block]['ratio']['median'] - 1):+.1f} %"
            f" ({100 * (figures[block]['ratio']['min'] - 1):+.1f} to"
            f" {100 * (figures[block]['ratio']['max'] - 1):+.1f})"
            for block in names
        )
        plain = figures["plain"]["ms"]["median"]
        lines.append(f"| {name.replace(' ', ', ')} | {plain:.0f} ms | {slower} |")
    return "\n".join(
        [
            *lines,
            "",
            "A block before each of the 16 additions, blended in. Medians and ranges of rounds in"
            f" turn. {made_on(result)}",
        ]
    )


KERNEL_MODES = {"native": "this processor", "avx2": "AVX2 alone"}


def kernels(result: dict[str, Any]) -> str:
    names = {
        "augment": "without augmentation's kernel",
        "norm_pool_relu": "without norm, pooling, ReLU's",
        "shuffle_attention": "without shuffle attention's",
        "torch": "torch alone",
    }
    lines = [
        f"| a training step at 128 px, batch 32 | all kernels | {' | '.join(names.values())} |",
        f"|---|---:|{'---:|' * len(names)}",
    ]
    for mode in KERNEL_MODES:
        found = result["modes"][mode]
        dtype = found["hardware"]["dtype"]
        for network, figures in found["networks"].items():
            cells = " | ".join(
                slower(figures[name]["ratio"]) if name in figures else "not used" for name in names
            )
            lines.append(
                f"| {network}, {KERNEL_MODES[mode]}, {dtype}"
                f" | {figures['all']['seconds']:.2f} s | {cells} |"
            )
    rounds = [
        figures["all"]["rounds"]
        for found in result["modes"].values()
        for figures in found["networks"].values()
    ]
    return "\n".join(
        [
            *lines,
            "",
            "How much longer a step takes: median of"
            f" {min(rounds)} to {max(rounds)} rounds in turn, with its 95 % interval. Seconds are"
            " the process's CPU seconds. Torch alone takes planes in float32."
            f" {made_on(result)}",
        ]
    )


def slower(ratio: dict[str, float]) -> str:
    median, low, high = (100 * (ratio[key] - 1) for key in ("median", "low", "high"))
    return f"{median:+.1f} % ({low:+.1f} to {high:+.1f})"


def neighbours(result: dict[str, Any]) -> str:
    names = {"ours": "towernet", "default": "torch as it comes", "passive": "always sleeping"}
    lines = [
        f"| images/s, of torch's alone | {' | '.join(names.values())} |",
        f"|---|{'---:|' * len(names)}",
    ]
    alone = median(result["images_per_second"]["alone"]["default"])
    for scenario, found in result["images_per_second"].items():
        cells = " | ".join(
            f"{100 * median(found[name]) / alone:.0f} %"
            f" ({100 * min(found[name]) / alone:.0f}–{100 * max(found[name]) / alone:.0f})"
            for name in names
        )
        lines.append(f"| {scenario} | {cells} |")
    num_rounds = len(result["images_per_second"]["alone"]["default"])
    policy = result["policy"]
    return "\n".join(
        [
            *lines,
            "",
            f"Medians and ranges of {num_rounds} rounds in turn; torch alone trains {alone:.0f}"
            f" images/s. {result['hardware']['processor']}, {policy['threads']} threads,"
            f" {policy['dtype']}; commit {result['commit']}, {result['date'][:10]}.",
        ]
    )


def attach(result: dict[str, Any]) -> str:
    groups: dict[str, Callable[[dict[str, Any]], bool]] = {
        "torchvision × shuffle": lambda c: c["block"] == "shuffle" and ":" not in c["network"],
        "timm × shuffle": lambda c: c["block"] == "shuffle" and ":" in c["network"],
        "other blocks": lambda c: c["block"] != "shuffle",
    }
    lines = ["| networks | tried | attached, identical, trained, saved, loaded | too large: places"
             " alone | refused |", "|---|---:|---:|---:|---:|"]  # fmt: skip
    outcomes = {"attached": ("attached",), "large": ("shapes only", "left out"), "no": ("refused",)}
    for group, is_in in groups.items():
        found = [case["outcome"] for case in result["cases"] if is_in(case)]
        counts = (sum(map(found.count, some)) for some in outcomes.values())
        lines.append(f"| {group} | {len(found)} | {' | '.join(map(str, counts))} |")
    exported = [case for case in result["cases"] if case.get("exported")]
    lines += ["", f"Exported with equal answers: {len(exported)} networks.", ""]
    reasons: dict[str, list[str]] = {}
    for case in result["cases"]:
        if case["outcome"] not in (*outcomes["attached"], *outcomes["large"]):
            why = case.get("reason", case["outcome"]).rpartition(": ")[2].partition(";")[0]
            name = case["network"] + ("" if case["block"] == "shuffle" else f"+{case['block']}")
            reasons.setdefault(why, []).append(f"{name}")
    if reasons:
        lines += ["| refused because | networks |", "|---|---|"]
        lines += [f"| {why} | {', '.join(names)} |" for why, names in reasons.items()]
    return "\n".join([*lines, "", made_on(result)])


def simulate_balanced(result: dict[str, Any]) -> str:
    sizes = ", ".join(map(str, result["class_sizes"]))
    lines = [
        "| made-up comparison | runs | differences' intervals hold the truth, all at once"
        " | equal networks called different | a balanced accuracy's interval holds it |",
        "|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['scene']} | {row['num_runs']} | {100 * row['coverage']:.1f} %"
        f" | {100 * row['false']:.1f} % | {100 * row['coverage_of_scores']:.1f} % |"
        for row in result["rows"]
    ]
    num = min(row["num_comparisons"] for row in result["rows"])
    about = (
        f"Classes of {sizes} test images; {num:,} comparisons in each cell,"
        f" {result['seconds']:.0f} s in all; commit {result['commit']}, {result['date'][:10]}."
    )
    return "\n".join([*lines, "", about])


def simulate_verdicts(result: dict[str, Any]) -> str:
    lines = [
        "| made-up comparison | runs | differences' intervals hold the truth, all at once"
        " | equal networks called different | an accuracy's interval holds it"
        " | the truth of a fresh pool |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['scene']} | {row['num_runs']} | {100 * row['coverage']:.1f} %"
        f" | {100 * row['false']:.1f} % | {100 * row['coverage_of_accuracies']:.1f} %"
        f" | {100 * row['coverage_fresh_pool']:.1f} % |"
        for row in result["rows"]
    ]
    return "\n".join(
        [
            *lines,
            "",
            f"{result['num_comparisons']:,} comparisons in each cell, {result['seconds']:.0f} s in"
            f" all; commit {result['commit']}, {result['date'][:10]}.",
        ]
    )


def spread(figure: dict[str, float], digits: int = 1) -> str:
    return f"{figure['median']:.{digits}f} ({figure['min']:.{digits}f}–{figure['max']:.{digits}f})"


MODE_WORDS = {
    "plain": "plain fp32 program, textbook layers",
    "default": "torch with default settings: fp32, contiguous",
    "engine": "this engine",
    "torch": "this engine without the C kernels",
    "compiled": "this engine under torch.compile",
    "with data": "this engine, default recipe, batches included",
    "optimized": "`optimize`: norms folded, bf16, channels_last",
}


def throughput(result: dict[str, Any]) -> str:
    lines = [
        "| training at 256 px, batch 32 | how | images/s | of GEMM's peak |",
        "|---|---|---:|---:|",
    ]
    for name, figures in result["contenders"].items():
        if "images_per_second" in figures:
            network, _, mode = name.partition(" ")
            lines.append(
                f"| {network} | {MODE_WORDS[mode]} | {spread(figures['images_per_second'])}"
                f" | {100 * result['share_of_gemm'][name]:.0f} % |"
            )
    gemm = result["contenders"]["gemm"]
    peers = ", ".join(f"{spread(ratio)}× {peer}" for peer, ratio in result["times_peer"].items())
    share = result["contenders"]["towernet with data"]["share_of_data_path"]["median"]
    return "\n".join(
        [
            *lines,
            "",
            f"towernet trains {spread(result['times_plain'])}× as fast as the plain program;"
            f" compared with the best mode of each peer: {peers}. Alone on the machine the plain"
            f" program reaches {spread(result['alone']['towernet plain'])} images/s. GEMM reaches"
            f" {gemm['gflops_bfloat16']['median']:.0f} GFLOP/s in bf16 and"
            f" {gemm['gflops_float32']['median']:.0f} in fp32 in the same window. Making batches"
            f" takes {100 * share:.1f} % of a step; one epoch of `--recipe notebook` peaks at"
            f" {result['peak_memory_mib'] / 1024:.1f} GiB in all processes, without mapped files."
            f" Median and range over the rounds."
            f" {made_on(result)}",
        ]
    )


def time_to_accuracy(result: dict[str, Any]) -> str:
    notebook = result["notebook"]
    hundred = notebook["hundred_epochs_seconds"]
    lines = [
        "| recipe | network | epochs | whole command up to the last epoch | best accuracy, seed by"
        f" seed | to {100 * notebook['target']:.1f} % (median)"
        f" | to {100 * notebook['target'] + 5:.1f} % (median) |",
        "|---|---|---:|---:|---|---:|---:|",
        f"| notebook, 256 px | towernet | {notebook['epochs_run']} of 100"
        f" | {hundred / 60:.0f} min for the hundred | {100 * notebook['best_accuracy']:.1f} %"
        f" (epoch {notebook['best_epoch']:.0f}) | | |",
    ]
    known = (
        "" if notebook["target"] == notebook["best_accuracy"]
        else "; its best of 60 epochs, 83.4 %, is from an earlier measurement"
    )  # fmt: skip
    for run in result["runs"]:

        def reached(key: str, run: dict[str, Any] = run) -> str:
            fraction = run[f"fraction_{key}"]
            if fraction is None:
                return "not reached"
            return f"{fraction * hundred:.0f} s, 1/{1 / fraction:.0f}"

        accuracies = ", ".join(f"{100 * value:.1f}" for value in run["best_accuracy"])
        lines.append(
            f"| default, 128 px, --minutes {run['minutes']:g} | {run['network']}"
            f" | {run['epochs']:.1f} | {run['seconds']:.0f} s | {accuracies} %"
            f" | {reached('to_target')} | {reached('to_five_points_above')} |"
        )
    return "\n".join(
        [
            *lines,
            "",
            "caltech16 on the notebook's own split, so each figure is the best epoch on the"
            " selection set and not a test result. Seconds count from the start of the command with"
            " an empty cache, decoding included; 1/n is the share of the notebook's hundred epochs"
            f" on this same engine, by the median of the {notebook['epochs_run']} that were run"
            f" between the others{known}."
            f" {made_on(result)}",
        ]
    )


def inference(result: dict[str, Any]) -> str:
    lines = ["| inference at 256 px | how | batch 1 | batch 32 |", "|---|---|---:|---:|"]
    for name, figures in result["contenders"].items():
        if "batch_1_ms" in figures:
            network, _, mode = name.partition(" ")
            lines.append(
                f"| {network} | {MODE_WORDS[mode].replace('this engine', '`optimize`')}"
                f" | {spread(figures['batch_1_ms'])} ms | {spread(figures['batch_32_ms'])} ms |"
            )
    times = "; ".join(f"{name}: {ratio['median']:.2f}" for name, ratio in
                      result["times_peer"].items())  # fmt: skip
    decoding = result["contenders"]["decoding"]["decode_ms"]["median"]
    return "\n".join(
        [
            *lines,
            "",
            f"Speed relative to the peer's best mode ({times}). Decoding and fitting one JPEG of"
            f" caltech16 takes another {decoding:.1f} ms."
            f" {made_on(result)}",
        ]
    )


def starts(result: dict[str, Any]) -> str:
    features, compared = result["features"], result["comparisons"]
    rounds = [round_["ours"] for round_ in features["rounds"]]
    plain = [round_["plain"]["seconds"] for round_ in features["rounds"]]
    uses = features["plain_uses"]
    ratios = features["times_plain_by_round"]
    again = median(one["seconds_again"] for one in rounds)
    lines = [
        "| features under mobilenet_v2's weights at 224 px | |",
        "|---|---|",
        f"| {features['images']:,} images, from files, nothing kept before"
        f" | {median(one['seconds'] for one in rounds):.1f} s |",
        f"| the plain program ({uses['processes']} processes that decode, batches of"
        f" {uses['batch_size']}) | {median(plain):.1f} s |",
        f"| times as fast, median and range of {len(ratios)} rounds"
        f" | {median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}) |",
        f"| the same images again, all kept | {again:.2f} s |",
    ]
    lines += [
        f"| memory with {int(num):,} images, all processes, without mapped files"
        f" | {found['own_bytes_peak'] / 2**20:,.0f} MiB |"
        for num, found in result["memory"].items()
    ]
    lines += [
        f"| `compare`, {compared['runs']} runs of {words}, features kept | {seconds:.0f} s |"
        for words, seconds in (
            ("one frozen network", compared["one_network_seconds"]),
            ("two frozen networks", compared["two_networks_seconds"]),
        )
    ]
    return "\n".join([*lines, "", made_on(result)])


def scaling(result: dict[str, Any]) -> str:
    lines = ["| what grows | |", "|---|---|"]
    for point in result["images"]:
        lines.append(
            f"| {point['num_images']:,} images, checked and prepared | {point['seconds']:.1f} s;"
            f" {point['held_bytes_per_image'] * point['num_images'] / 1e6:.1f} MB of memory |"
        )
    lines += [
        f"| {point['num_rows']:,} rows | ordering an epoch takes"
        f" {1000 * point['order_seconds']:.1f} ms; a batch takes {point['batch_ms']:.1f} ms |"
        for point in result["rows"]
    ]
    lines += [
        f"| {point['network']}, {point['size_px']} px | a step of 32 takes"
        f" {point['step_ms']:.0f} ms; peak {point['peak_mib'] / 1024:.2f} GiB |"
        for point in result["pixels"]
    ]
    lines += [
        f"| {point['network']}, {point['num_classes']:,} classes | a step of 32 takes"
        f" {point['step_ms']:.0f} ms |"
        for point in result["classes"]
    ]
    return "\n".join(
        [
            *lines,
            "",
            f"From 10,000 to 100,000 images memory grows by"
            f" {result['growth_bytes_per_image']:,.0f} bytes per image, without mapped pixels."
            f" {made_on(result)}",
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
    """Return the results of `faults.py`; a part that was not measured has no rows."""
    rows: list[tuple[str, str]] = []
    if training := result.get("training"):
        kills, failures = training["kills"], training["failures"]
        damage, changes = training["damage"], training["changes"]
        rows += [
            (
                f"SIGKILL at {kills['num']} instants of `train` and `compare`, then resumed",
                f"{kills['num_exact']} byte-identical, {kills['epochs_lost']} lost an epoch,"
                f" {kills['stale_files']} stale files",
            ),
            (
                f"{failures['num']} failing file operations, or a disk that is full from then on",
                f"{failures['state_valid']} left a valid state; {failures['exit_code_4']} ended"
                f" with exit code 4, {failures['finished_all_the_same']} finished without the"
                f" operation; {failures['tracebacks']} tracebacks; resumed to the same bytes:"
                f" {failures['gone_on_exactly'][0]} of {failures['gone_on_exactly'][1]}",
            ),
            (
                f"{damage['num_flips']:,} bit flips and {damage['num_cuts']} truncations of a"
                " checkpoint",
                f"{damage['flips_noticed']:,} and {damage['cuts_noticed']} detected, the older"
                " checkpoint used",
            ),
            (
                f"{changes['num']} kinds of changed input on resume",
                f"{changes['refused']} refused, in {changes['different_sentences']} different"
                f" sentences; {changes['num'] - changes['left_as_it_was']} changed a file",
            ),
        ]
    if mixed := result.get("mixed"):
        same = "the same" if mixed["same_weights"] and mixed["same_metrics"] else "different"
        rows.append(
            (
                f"{mixed['good']:,} good and {mixed['bad']} bad images mixed",
                f"{same} bytes in weights and metrics, compared with the good images alone",
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
                f"{archives['refused_or_quarantined']} refused or read without the bad entries, in"
                f" at most {archives['max_seconds']:.2f} s and"
                f" {archives['max_mb_above_idle']:.0f} MB; {archives['written_outside']} wrote"
                " outside the cache",
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
    made = made_on(result)
    return "\n".join(["| trial | result |", "|---|---|", *lines, "", made])


def table(name: str) -> str:
    def read(result_name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((RESULTS / f"{result_name}.json").read_text())
        return found

    made: dict[str, Callable[[dict[str, Any]], str]] = {
        "throughput": throughput,
        "time_to_accuracy": time_to_accuracy,
        "inference": inference,
        "scaling": scaling,
        "starts": starts,
        "simulate_balanced": simulate_balanced,
        "simulate_verdicts": simulate_verdicts,
        "faults": faults,
        "attention_cost": attention_cost,
        "attach": attach,
        "kernels": kernels,
        "neighbours": neighbours,
        "uneven_classes": uneven_classes,
    }
    if name == "blocks":
        return blocks(read("attention_cost"))
    if name in made:
        return made[name](read(name))
    if name == "checks":
        return checks([read(path.stem) for path in sorted(RESULTS.glob("check-*.json"))])
    if name == "planted_labels":
        return planted_labels(PlantedLabels.named(name))
    if name == "same_network":
        return same_network([SameNetwork.read(p) for p in sorted(RESULTS.glob(f"{name}-*.json"))])
    if name == "front":
        return front(
            {
                data: (
                    Comparison.named(f"verdict-{data}"),
                    Comparison.named(f"ablation-towernet-{data}"),
                )
                for data in ("caltech16", "sign-digits")
            }
        )
    made_of = {"ablation": ablation, "shots": shots}
    return made_of.get(name.partition("-")[0], comparison)(Comparison.named(name))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="Change nothing; exit 1 if it would.")
    parser.add_argument("--page", type=Path, action="append", help="Instead of all.")
    args = parser.parse_args()
    for page in args.page or PAGES:
        before = page.read_text(encoding="utf-8")
        after = MARKED.sub(lambda found: f"{found[1]}{table(found[2])}\n{found[3]}", before)
        if after != before and args.check:
            print(
                f"error: the tables in {page.name} are not up to date with benchmarks/results; run"
                " this script"
            )
            return 1
        if not args.check:
            files.write_text(page, after)
    return 0


if __name__ == "__main__":
    sys.exit(main())

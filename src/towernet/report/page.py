"""The report: a comparison's or a run's folder read, and written as one self-contained page.

The page holds no script and asks for nothing: its policy allows its own style sheet, by hash, and
pictures that are part of it. Every text that comes from outside passes `shown` and autoescaping.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import UInt8
from jinja2 import BaseLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from towernet.comparison.judging.scores import MAX_CONFUSIONS, confusions
from towernet.comparison.protocol import LATER_LOOK, Ledger
from towernet.comparison.wording.ablation import about_blocks, answer_in_words, signed_points
from towernet.comparison.wording.paper import paragraph
from towernet.comparison.wording.verdict import answer_words, in_points, settling, worth_using
from towernet.data.table import read_table, shown
from towernet.errors import DataError
from towernet.files import read_json, read_jsonl, write_text
from towernet.names import NetworkName
from towernet.report import figures, tables

Picture = Callable[[str], UInt8[npt.NDArray[np.uint8], "H W 3"] | None]

MAX_TABLE_CLASSES = 20  # a larger confusion matrix is drawn, not written
MAX_DRAWN_CLASSES = 120  # a larger one cannot be read; its most frequent mistakes are listed
_MISTAKES_IN_ALL = 120  # pictures of mistakes, shared among the networks: about half a megabyte
_SUSPECTS_SHOWN = 24
_RESULTS_KEYS = {
    "title", "kind", "sentence", "remarks", "final_split", "class_names", "num_images",
    "majority_accuracy", "size_px", "recipe", "seed", "num_runs", "networks", "winner",
}  # fmt: skip
_NETWORK_KEYS = {
    "name", "status", "reason", "rank", "accuracy", "interval", "macro_f1", "validation_accuracy",
    "parameters", "multiply_adds", "learning_rate", "trials", "epochs", "steps", "confusion",
    "per_class", "runs",
}  # fmt: skip


def write_report(folder: Path, *, picture: Picture) -> Path:
    """Write `report.html` into a comparison's or a single run's folder.

    Args:
        folder: Holds `results.json`, `samples.parquet` and the runs.
        picture: Gives the decoded image of a path of the sample table, or None when it is not at
            hand; the report then says so in its place.

    Returns:
        Where the report is.

    Raises:
        DataError: a file of the folder is missing, damaged or incomplete.
        EnvironmentFault: the report cannot be written.
    """
    values = read_json(folder / "results.json")
    _require_complete(values, folder / "results.json")
    page = render(_contents(folder, values, picture))
    write_text(folder / "report.html", page)
    return folder / "report.html"


def render(contents: dict[str, Any], loader: BaseLoader | None = None) -> str:
    """Fill the templates; the style sheet's hash goes into the page's policy."""
    environment = Environment(
        autoescape=True,
        loader=loader or PackageLoader("towernet.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters |= {
        function.__name__: function
        for function in (
            tables.short, tables.percent, tables.interval, tables.span, tables.whole,
            tables.compact, tables.significant, tables.decimals, tables.duration, figures.shade,
            name, prose, in_points, signed_points, answer_words,
        )
    }  # fmt: skip
    style = environment.get_template("report.css").render()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    return environment.get_template("report.html").render(
        contents, style=Markup(style), style_hash=digest
    )


def name(text: str, limit: int = 40) -> Markup:
    """Return the name of a class, a file or a network: short, visible, its direction its own."""
    return Markup("<bdi>{}</bdi>").format(tables.short(text, limit))


def prose(text: str) -> Markup:
    """Return a sentence of ours; what stands between backticks in it is a command."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(_finalize(text)))))


def _finalize(value: object) -> object:
    """Make every printed text visible, whichever template prints it."""
    if type(value) is not str:  # a number, or Markup that is made here
        return value
    return "\u00a0".join(map(shown, value.split("\u00a0")))  # unseen but harmless: it binds a unit


def _require_complete(values: Any, path: Path) -> None:
    try:
        missing = {"results", "measured", "made"} - values.keys()
        missing |= _RESULTS_KEYS - values.get("results", {}).keys()
        for network in values.get("results", {}).get("networks", []):
            missing |= {f"networks.{key}" for key in _NETWORK_KEYS - network.keys()}
    except AttributeError as error:
        raise DataError(
            f"{path} does not hold results ({error}); restore it or start again"
        ) from error
    if missing:
        raise DataError(
            f"{path} lacks {', '.join(sorted(missing))}; say the same command again to finish it"
        )


def _contents(folder: Path, values: dict[str, Any], picture: Picture) -> dict[str, Any]:
    results = values["results"]
    table = read_table(folder / "samples.parquet")
    networks = results["networks"]
    ranked = [network for network in networks if network["status"] == "ranked"]
    metrics = [[read_jsonl(folder / run["folder"] / "metrics.jsonl") for run in network["runs"]]
               for network in networks]  # fmt: skip
    later_looks = Ledger(folder / "ledger.jsonl").count(LATER_LOOK)
    winner = NetworkName(results["winner"]["name"] if results["winner"] else "")
    num_mistakes = max(4, min(12, _MISTAKES_IN_ALL // max(1, len(networks))))
    return {
        "results": results,
        "measured": values["measured"],
        "made": values["made"],
        "ranked": ranked,
        "unranked": [network for network in networks if network["status"] != "ranked"],
        "scale": tables.accuracy_scale(ranked, results["majority_accuracy"]),
        "pair_scale": tables.difference_scale(results.get("comparisons", [])),
        "ablation": _ablation(results, values["measured"]["networks"]),
        "cost": _cost(ranked, values["measured"]["networks"]),
        "curves": _curves(networks, metrics),
        "growth": _growth(results.get("learning_curve", {}).get("points", [])),
        "class_gains": results.get("learning_curve", {}).get("classes", [])[
            : tables.MAX_CLASS_ROWS
        ],
        "paper": paragraph(results, values["made"], later_looks)
        if results["kind"] == "comparison" and "comparisons" in results
        else None,
        "rates": sorted({t["learning_rate"] for n in networks for t in n["trials"]}),
        "data": tables.data_card(table),
        "gallery": [
            entry | {"uri": _thumbnail(picture, entry["path"])}
            for entry in tables.gallery(table, seed=results["seed"])
        ],
        "suspects": [
            suspect | {"uri": _thumbnail(picture, suspect["path"])}
            for suspect in results.get("suspects", [])[:_SUSPECTS_SHOWN]
        ],
        "details": [
            _network(folder, network, results["class_names"], picture, num_mistakes)
            for network in networks
        ],
        "later_looks": later_looks,
        "worth_using": worth_using(results),
        "trusting": "".join(f"{variable}={path} " for variable, path in winner.own_code.items()),
        "has_files": (folder / "paper.tex").exists(),
        "limits": {
            "class_rows": tables.MAX_CLASS_ROWS,
            "file_rows": tables.MAX_FILE_ROWS,
            "table_classes": MAX_TABLE_CLASSES,
            "drawn_classes": MAX_DRAWN_CLASSES,
        },
    }


def _ablation(
    results: dict[str, Any], measured: dict[str, dict[str, Any]]
) -> dict[str, Any] | None:
    """Return what each block did and that it was there, None where that was not the question."""
    variants = results.get("ablation")
    if not variants:
        return None
    networks = {network["name"]: network for network in results["networks"]}
    pairs = {pair["first"]: pair for pair in results["comparisons"]}
    groups: dict[str, dict[str, Any]] = {}
    proof = []
    for index, variant in enumerate(variants):
        network, without = networks[variant["name"]], networks[variant["without"]]
        pair = pairs.get(variant["name"])
        group = groups.setdefault(
            variant["network"],
            {"network": variant["network"], "accuracy": without["accuracy"], "rows": []},
        )
        said = pair and "; ".join(
            filter(
                None,
                (
                    answer_in_words(pair["answer"], results["equal_within"], results["num_runs"]),
                    settling(pair),
                ),
            )
        )
        group["rows"].append(
            variant
            | {
                "accuracy": network["accuracy"],
                "reason": network["reason"] or f"{without['name']} {without['reason']}",
                "pair": pair,
                "answer": said,
                "speed": _ratio(measured, variant, "images_per_second"),
                "time": _ratio(measured, variant, "latency_ms"),
            }
        )
        if variant["proof"] is not None:
            curve = figures.curve(
                variant["name"], index, [variant["proof"]["epochs"]], "gradient_norm"
            )
            words = "yes" if variant["proof"]["learns"] else "no"
            if not variant["parameters"]:
                words = "has no parameters"
            proof.append(
                variant["proof"]
                | {"name": variant["name"], "colour": curve.colour, "dash": curve.dash}
                | {"learns_words": words}
            )
    return {
        "groups": list(groups.values()),
        "blocks": about_blocks(variants),
        "proof": proof,
        "has_gain": any(row["epochs"][0]["gain"] is not None for row in proof),
        "gradients": _proof_curves(variants, "gradient_norm", "norm of the gradients"),
        "gates": _proof_curves(variants, "gate_spread", "spread of the gates"),
    }


def _ratio(measured: dict[str, dict[str, Any]], variant: dict[str, Any], key: str) -> float | None:
    with_block = measured[variant["name"]][key]
    without = measured[variant["without"]][key]
    return with_block / without if with_block and without else None


def _proof_curves(variants: Sequence[dict[str, Any]], value: str, label: str) -> Markup:
    curves = [
        figures.curve(variant["name"], index, [variant["proof"]["epochs"]], value)
        for index, variant in enumerate(variants)
        if variant["proof"] is not None
    ]
    return figures.learning_curves(
        curves,
        key=value,
        label=label,
        is_fraction=False,
        title=f"The {label} of every network with attention against the epoch; the table below"
        " says the first and the last.",
    )


def _cost(
    ranked: Sequence[dict[str, Any]], measured: dict[str, dict[str, Any]]
) -> dict[str, Any] | None:
    """Return the ranked networks' front of accuracy against time, None where there is no choice."""
    timed = [
        network | {"latency_ms": measured[network["name"]]["latency_ms"]}
        for network in ranked
        if measured.get(network["name"], {}).get("latency_ms")
    ]
    if len(timed) < 2:
        return None
    front = tables.front(timed)
    return {
        "front": front,
        "figure": figures.accuracies(
            [
                figures.Accuracy(n["latency_ms"], n["accuracy"], n["interval"], str(n["rank"]))
                for n in timed
            ],
            line=[(n["latency_ms"], n["accuracy"]) for n in front],
            key="cost",
            label="milliseconds per image",
            ticks=None,
            title="Accuracy of every network against its time per image; the ranking says the"
            " same in numbers.",
        ),
    }


def _growth(points: Sequence[dict[str, Any]]) -> Markup | None:
    if not points:
        return None
    return figures.accuracies(
        [
            figures.Accuracy(float(p["num_images"]), p["accuracy"], p["interval"], "")
            for p in points
        ],
        line=[(float(p["num_images"]), p["accuracy"]) for p in points],
        ticks=[p["num_images"] for p in points],
        key="growth",
        label="training images",
        title="Accuracy against the number of training images; the table below says the same.",
    )


def _curves(
    networks: Sequence[dict[str, Any]], metrics: Sequence[Sequence[list[dict[str, Any]]]]
) -> dict[str, Any] | None:
    """Return the two panels and, as their text alternative, the numbers behind them."""
    accuracy, loss = (
        [
            figures.curve(network["name"], index, rows, value)
            for index, (network, rows) in enumerate(zip(networks, metrics, strict=True))
        ]
        for value in ("validation_accuracy", "train_loss")
    )
    drawn = [pair for pair in zip(accuracy, loss, strict=True) if pair[0].mean() or pair[1].mean()]
    if not drawn:
        return None
    return {
        "accuracy": figures.learning_curves(
            accuracy,
            key="accuracy",
            label="validation accuracy",
            is_fraction=True,
            title="Validation accuracy of every network against the epoch; the table"
            " “The curves in numbers” says the same.",
        ),
        "loss": figures.learning_curves(
            loss,
            key="loss",
            label="training loss",
            is_fraction=False,
            title="Training loss of every network against the epoch; the table"
            " “The curves in numbers” says the same.",
        ),
        "rows": [_curve_row(*pair) for pair in drawn],
    }


def _curve_row(accuracy: figures.Curve, loss: figures.Curve) -> dict[str, Any]:
    best_epoch, best = max(accuracy.mean(), key=lambda point: point[1], default=(None, None))
    last_epoch, last_loss = loss.mean()[-1] if loss.mean() else (None, None)
    return {
        "name": accuracy.name,
        "colour": accuracy.colour,
        "dash": accuracy.dash,
        "best": best,
        "best_epoch": best_epoch,
        "last_epoch": last_epoch,
        "last_loss": last_loss,
    }


def _network(
    folder: Path,
    network: dict[str, Any],
    class_names: Sequence[str],
    picture: Picture,
    num_mistakes: int,
) -> dict[str, Any]:
    """Return what the network's own section shows besides its entry in the results."""
    mistakes = tables.worst_mistakes(folder, network, limit=num_mistakes)
    detail: dict[str, Any] = network | {
        "mistakes": [row | {"uri": _thumbnail(picture, row["path"])} for row in mistakes],
        "matrix": None,
    }
    if network["confusion"]:
        confusion_KK = np.array(network["confusion"])
        num_classes = len(class_names)
        detail["matrix"] = {
            "rows": [
                [(count, count / max(1, sum(counts))) for count in counts]
                for counts in network["confusion"]
            ]
            if num_classes <= MAX_TABLE_CLASSES
            else [],
            "paths": figures.confusion_paths(confusion_KK)
            if MAX_TABLE_CLASSES < num_classes <= MAX_DRAWN_CLASSES
            else [],
            "cell_px": 16 if num_classes <= 40 else 11 if num_classes <= 80 else 9,
            "margin_px": 12 + 6 * max(len(tables.short(name, 17)) for name in class_names),
            "has_short_names": max(map(len, class_names)) <= 3,
            "num_right": int(np.trace(confusion_KK)),
            "num_all": int(confusion_KK.sum()),
            "confusions": [
                (class_names[true], class_names[said], count)
                for true, said, count in confusions(confusion_KK)[:MAX_CONFUSIONS]
            ],
        }
    if network["per_class"] and len(network["per_class"]) > tables.MAX_CLASS_ROWS:
        worst_first = sorted(network["per_class"], key=lambda row: row["f1"])
        detail["per_class"] = worst_first[: tables.MAX_CLASS_ROWS]
    return detail


def _thumbnail(picture: Picture, path: str) -> str | None:
    pixels = picture(path)
    return None if pixels is None else figures.thumbnail(pixels)

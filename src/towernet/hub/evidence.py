"""What is known of a run's training and accuracy; no path of its machine is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from towernet import files
from towernet.errors import DataError
from towernet.predict import read_run


def evidence(folder: Path) -> dict[str, Any]:
    """Return what a model card can tell of a run.

    Args:
        folder: The run; where it is part of a comparison, what that found is told.

    Raises:
        DataError: a record is damaged.
    """
    record = read_run(folder)
    config = record["config"]
    known: dict[str, Any] = {
        "origin": "imported" if record.get("origin") == "imported" else "trained",
        "recipe": config["recipe_name"],
        "seed": config["seed"],
        "versions": {
            name: version
            for name, version in record.get("versions", {}).items()
            if name in ("towernet", "torch", "torchvision")
        },
        "judged": None,
    }
    for place in (folder, *folder.absolute().parents[:2]):
        path = place / "results.json"
        if path.exists():
            try:
                known["judged"] = _judged(folder, place, files.read_record(path, "results"))
            except (KeyError, TypeError, IndexError) as error:
                raise DataError(f"{path} is damaged ({error}); restore it or delete it") from error
            break
    return known


def _judged(folder: Path, place: Path, record: dict[str, Any]) -> dict[str, Any] | None:
    """Return what a `results.json` says of a run; None where it does not say anything."""
    results = record["results"]
    for network in results["networks"]:
        for run in network["runs"]:
            if (place / run["folder"]).resolve() != folder.resolve():
                continue
            split = results["final_split"]
            return {
                "data": results["title"],
                "num_images": results["num_images"],
                "split": split,
                "num_judged": results["num_images"][split],
                "accuracy": run["accuracy"],
                "macro_f1": run["macro_f1"],
                "majority_accuracy": results["majority_accuracy"],
                "epochs": network["epochs"],
                "network_accuracy": network["accuracy"],
                "network_interval": network["interval"],
                "num_runs": len(network["runs"]),
                "reason": network["reason"],
            }
    return None

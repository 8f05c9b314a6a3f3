"""A run's record, `run.json`: what the run is, and whether it is the one that is wanted."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from towernet import files
from towernet.config import Accept, Decisive, RunConfig, refuse_changes
from towernet.data.prepare import Dataset, fingerprint
from towernet.engine.device import Policy, bits_depend_on, hardware
from towernet.errors import DataError, in_one_line


@dataclass(frozen=True)
class Plan:
    """What was decided before the first step, by measurement or by the recipe.

    Args:
        num_steps: Optimiser steps of the whole run.
        learning_rate: The peak, from the recipe or a comparison's trial.
        policy: Device, dtype, layout, threads, kernels.
        mixes: Whether images are mixed: by the length of the run that is planned, so that its
            learning-rate trials do as it does.
    """

    num_steps: int
    learning_rate: float
    policy: Policy
    mixes: bool = False

    @staticmethod
    def from_json(values: dict[str, Any]) -> Plan:
        """Rebuild what `dataclasses.asdict` gave."""
        return Plan(**values | {"policy": Policy(**values["policy"])})


def open_run(
    config: RunConfig,
    dataset: Dataset,
    folder: Path,
    plan: Plan,
    origin: dict[str, Any],
    accept: Accept,
) -> dict[str, Any]:
    """Write `run.json` for a new run, or read it and refuse whatever differs.

    Raises:
        ConfigError: the folder holds another run, or one with other choices or versions.
        DataError: its run was trained on other images, or made by a newer towernet.
    """
    path = folder / "run.json"
    wanted: dict[str, Any] = {
        "config": config.model_dump(mode="json"),
        "plan": asdict(plan),
        "contract": asdict(dataset.contract),
        "data": fingerprint(dataset.table),
        "versions": bits_depend_on(plan.policy, [config.model]),
    }
    record: dict[str, Any]
    if not path.exists():
        record = wanted | {
            "format": files.FORMAT,
            "status": "running",
            "origin": origin,
            "hardware": hardware(plan.policy).model_dump(),
        }
        files.write_json(path, record)
        return record
    record = files.read_record(path)
    files.require_format(path, record)
    if record.get("status") == "finished":
        # Nothing is computed any more: what it was made from and by plays no part.
        wanted |= {key: record.get(key) for key in ("data", "versions")}
        wanted["plan"] |= {"policy": record.get("plan", {}).get("policy")}
    accepted = _other_images(folder, record, wanted, accept)
    try:
        # What a picture becomes for the network stays as it was begun, also when fewer images
        # would give another mean; the classes must be the same.
        classes = {"class_names": wanted["contract"]["class_names"]}
        wanted["contract"] = record["contract"] | classes
        accepted += refuse_changes(folder, _decisive(record), _decisive(wanted), accept)
    except (KeyError, TypeError, ValidationError) as error:
        raise DataError(
            f"{path} is damaged ({in_one_line(error)}); restore it, or choose another --out"
        ) from error
    if accepted:
        record |= wanted | {
            "accepted": [*record.get("accepted", []), *accepted],
            "hardware": hardware(plan.policy).model_dump(),
        }
        files.write_json(path, record)
    return record


def _other_images(
    folder: Path, record: dict[str, Any], wanted: dict[str, Any], accept: Accept
) -> list[str]:
    """Refuse other images than a run was begun with, or say that they are accepted."""
    if record.get("data") == wanted["data"]:
        return []
    if not accept.data:
        raise DataError(
            f"the images are not those {folder} was trained on; put them back, choose another"
            " --out, or go on with those that are left by --accept-data-change"
        )
    return ["images"]


def _decisive(record: dict[str, Any]) -> Decisive:
    """Return what decides a run's bits, as `refuse_changes` compares it."""
    policy = Policy(**record["plan"]["policy"])
    plan = {key: record["plan"].get(key) for key in ("num_steps", "learning_rate", "mixes")}
    return Decisive(
        (
            # Validated: what an older version did not write down yet is as it was then.
            ("", RunConfig.model_validate(record["config"]).model_dump(mode="json")),
            ("plan", plan),
            ("contract", record["contract"]),
        ),
        record["versions"],
        policy.threads,
        policy.kind(),
    )


def identity(config: RunConfig, plan: Plan) -> str:
    """Return a hash of what a run is: the states beside its record count for that run alone."""
    # A share of 1 is what all runs had before there was one: their states go on.
    without = {"train_share"} if config.train_share == 1 else set()
    choices = config.model_dump(mode="json", exclude=without)
    return files.digest([choices, plan.num_steps, plan.learning_rate, plan.mixes])

"""What a comparison was asked and what was decided before its first step, frozen in a file."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, Field, PositiveInt

from towernet import files
from towernet.config import Recipe, refuse_changes
from towernet.engine.device import Policy, versions
from towernet.errors import DataError


class Request(BaseModel, frozen=True, extra="forbid"):
    """What the user asked for; all of it decides the result."""

    models: tuple[str, ...] = Field(min_length=1, description="Networks, by name.")
    runs: PositiveInt = Field(1, description="Runs of each network, K.")
    recipe_name: str = Field("default", description="Which recipe the choices began from.")
    recipe: Recipe = Field(description="How every network is trained.")
    seed: int = Field(0, ge=0, lt=2**31, description="All draws are functions of it.")
    images_per_class: PositiveInt | None = Field(None, description="Only so many images a class.")


@dataclass(frozen=True)
class Protocol:
    """A request, the images it is about, and what was measured once and then only read.

    Args:
        request: What was asked.
        fingerprint: Of the images used.
        policy: Device, dtype, layout and threads of all networks.
        num_steps: Optimiser steps of one run, by network.
        costs: What the dry run measured, by network: seconds of a step and of an image,
            parameters, multiply-adds.
    """

    request: Request
    fingerprint: str
    policy: Policy
    num_steps: dict[str, int]
    costs: dict[str, dict[str, float]]

    def write(self, path: Path) -> None:
        """Write `protocol.toml`. TOML has no null: what is not given is left out."""
        values = {
            "request": self.request.model_dump(mode="json", exclude_none=True),
            "images": {"fingerprint": self.fingerprint},
            "versions": versions(),
            "decided": {
                "policy": asdict(self.policy),
                "num_steps": self.num_steps,
                "costs": self.costs,
            },
        }
        files.write_text(path, tomli_w.dumps(values))


def read_protocol(path: Path, request: Request, fingerprint: str, device: str) -> Protocol | None:
    """Read a protocol written earlier, None when there is none; refuse another request.

    Raises:
        ConfigError: it was made for other choices or by other versions; the message is the diff.
        DataError: it was made for other images, or is damaged.
    """
    if not path.exists():
        return None
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        decided = values["decided"]
        protocol = Protocol(
            Request.model_validate(values["request"]),
            values["images"]["fingerprint"],
            Policy(**decided["policy"]),
            decided["num_steps"],
            decided["costs"],
        )
        before_versions = values["versions"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}); choose another --out") from error
    refuse_changes(
        path.parent,
        protocol.request.model_dump(mode="json")
        | {"device": protocol.policy.device, "versions": before_versions},
        request.model_dump(mode="json")
        | {
            "device": protocol.policy.device if device == "auto" else device,
            "versions": versions(),
        },
    )
    if protocol.fingerprint != fingerprint:
        raise DataError(
            f"the images are not those {path.parent} was begun with; put them back,"
            " or choose another --out"
        )
    return protocol


class Ledger:
    """What happened, one line an event: trials, runs, the opening of the test split."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events = files.read_jsonl(path)

    def find(self, event: str, **fields: Any) -> dict[str, Any] | None:
        """Return the event with these fields, None when it did not happen yet."""
        wanted = {"event": event, **fields}
        return next((e for e in self.events if all(e.get(k) == v for k, v in wanted.items())), None)

    def add(self, event: str, **fields: Any) -> dict[str, Any]:
        """Write an event down."""
        line = {"event": event, **fields}
        self.events.append(line)
        files.write_jsonl(self.path, self.events)
        return line

"""What a comparison was asked and what was decided before its first step, frozen in a file."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import tomli_w

from towernet import files
from towernet.comparison.judging.statistics import SIGNIFICANT
from towernet.config import Accept, Decisive, refuse_changes
from towernet.data.prepare import Dataset
from towernet.data.table import write_table
from towernet.engine.device import Policy, bits_depend_on, choose_policy, kernels_here
from towernet.engine.runlog import Watcher
from towernet.errors import DataError, in_one_line
from towernet.records.protocol import Request

# What decides; `equal_within` is the request's.
RULE = {
    "measure": "accuracy on the final split",
    "test": "sign flips over runs; exact McNemar with one; the corrected resampled t where each run"
    " left out other images; Holm over all pairs that are judged",
    "interval": "over runs and images, simultaneous over all pairs",
    "level": SIGNIFICANT,
    "order": "an interval within the margin is called equal before it is called better",
}
LATER_LOOK = "test split looked at again"  # an event of the ledger


@dataclass(frozen=True)
class Protocol:
    """A request, the images it is about, and what was measured once and then only read.

    Args:
        request: What was asked.
        fingerprint: Of the images used.
        policy: Device, dtype, layout and threads of all networks.
        num_steps: Optimiser steps of one run, by network.
        mixes: Whether a run is long enough to mix images, by network; its trials do as it does.
        costs: What the dry run measured, by network: seconds of a step and of an image,
            parameters, multiply-adds.
        failures: Why a network could not take its first step, by network.
        versions: What the bits depend on besides.
    """

    request: Request
    fingerprint: str
    policy: Policy
    num_steps: dict[str, int]
    mixes: dict[str, bool]
    costs: dict[str, dict[str, float]]
    failures: dict[str, str]
    versions: dict[str, str]

    def write(self, path: Path) -> None:
        """Write `protocol.toml`."""
        values = self._values()
        values["decided"]["costs"] = self.costs
        values["digest"] = self.digest()
        files.write_text(path, tomli_w.dumps(values))

    def digest(self) -> str:
        """Return the SHA-256 of all that decides the result, so of nothing measured."""
        return _digest(self._values())

    def _values(self) -> dict[str, Any]:
        """Return it as tables of TOML, which has no null: what is not given is left out."""
        return {
            "request": self.request.model_dump(
                # Protocols of before there was attention to compare have none of it.
                mode="json",
                exclude_none=True,
                exclude=set() if self.request.attention else {"attention"},
            ),
            "images": {"fingerprint": self.fingerprint},
            "format": files.FORMAT,
            "rule": RULE,
            "versions": self.versions,
            "decided": {
                "policy": asdict(self.policy),
                "num_steps": self.num_steps,
                "mixes": self.mixes,
                "failures": self.failures,
            },
        }


def _digest(values: dict[str, Any]) -> str:
    """Return the SHA-256 of a protocol's tables without what was measured."""
    decided = {key: value for key, value in values["decided"].items() if key != "costs"}
    decided["policy"] = {k: v for k, v in decided["policy"].items() if k != "reason"}
    kept = {key: value for key, value in values.items() if key != "digest"}
    return files.digest(kept | {"decided": decided})


def written_digest(path: Path) -> str | None:
    """Return the digest that a protocol was written with, None where there is none."""
    if not path.exists():
        return None
    digest: str | None = tomllib.loads(path.read_text(encoding="utf-8")).get("digest")
    return digest


def read_protocol(path: Path) -> Protocol | None:
    """Read a protocol written earlier, None when there is none.

    Raises:
        DataError: it is damaged or was changed, or a newer towernet wrote it.
    """
    if not path.exists():
        return None
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        files.require_format(path, values)
        # One of before it was written down has none.
        if values.get("digest", _digest(values)) != _digest(values):
            raise DataError(
                f"{path} was changed after the comparison began (its digest is that of other"
                " choices); restore it, or choose another --out"
            )
        decided = values["decided"]
        return Protocol(
            Request.model_validate(values["request"]),
            values["images"]["fingerprint"],
            Policy(**decided["policy"]),
            decided["num_steps"],
            # Before there was mixing, none of them did.
            decided.get("mixes", dict.fromkeys(decided["num_steps"], False)),
            decided["costs"],
            decided["failures"],
            values["versions"],
        )
    except DataError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is damaged ({in_one_line(error)}); choose another --out"
        ) from error


def go_on(
    protocol: Protocol,
    folder: Path,
    request: Request,
    *,
    device: str,
    threads: int | None,
    accept: Accept,
) -> tuple[Protocol, list[str]]:
    """Return the protocol to go on by, and what was accepted to differ from the one written.

    Raises:
        ConfigError: another request, or other circumstances than were accepted; with the diff.
        EnvironmentFault: the device asked for is not there.
    """
    policy = protocol.policy
    threads = threads or policy.threads
    device = policy.device if device == "auto" else device
    if accept.changes:
        # The number format stays as it was chosen, as long as the device is the same.
        policy = replace(policy, threads=threads, kernels=kernels_here(policy))
        if device != policy.device:
            policy = choose_policy(device, threads)
    policy.apply()  # a device that is gone is said first
    now = replace(protocol, policy=policy, versions=bits_depend_on(policy, request.models))
    accepted = refuse_changes(
        folder,
        Decisive(
            (("", protocol.request.model_dump(mode="json")),),
            protocol.versions,
            protocol.policy.threads,
            protocol.policy.device,
        ),
        Decisive((("", request.model_dump(mode="json")),), now.versions, threads, device),
        accept,
    )
    return now, accepted


class Ledger:
    """What happened, one line an event: trials, runs, the opening of the test split."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events = files.read_jsonl(path)
        if not all("event" in event for event in self.events):
            raise DataError(f"{path} is damaged; restore it, or begin anew with another --out")

    def find(self, event: str, **fields: Any) -> dict[str, Any] | None:
        """Return the event with these fields, None when it did not happen yet."""
        return next(iter(self.find_all(event, **fields)), None)

    def find_all(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """Return the events with these fields, in the order in which they happened."""
        wanted = {"event": event, **fields}
        return [e for e in self.events if all(e.get(k) == v for k, v in wanted.items())]

    def count(self, event: str) -> int:
        """Return how often it happened."""
        return sum(line["event"] == event for line in self.events)

    def add(self, event: str, **fields: Any) -> dict[str, Any]:
        """Write an event down."""
        line = {"event": event, **fields}
        self.events.append(line)
        files.write_jsonl(self.path, self.events)
        return line


def note_accepted(folder: Path, what: list[str], dataset: Dataset, watcher: Watcher) -> None:
    """Write down what was accepted to differ, for the report, and the images as they are now."""
    ledger = Ledger(folder / "ledger.jsonl")
    for words in filter(None, what):
        watcher.say(f"accepted: {words}")
        ledger.add("change accepted", words=words)
    write_table(folder / "samples.parquet", dataset.table)

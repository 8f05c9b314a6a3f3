"""What differs between the choices that work was started with and those it is resumed with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from towernet.errors import ConfigError


def differences(before: object, now: object, name: str = "") -> list[str]:
    """Return the differences between two sets of choices, each as `key: before → now`."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            line
            for key in sorted({*before, *now})
            for line in differences(before.get(key), now.get(key), f"{name}.{key}".lstrip("."))
        ]
    if isinstance(before, list | tuple) and isinstance(now, list | tuple):
        before, now = list(before), list(now)  # JSON and TOML have no tuples
    return [] if before == now else [f"{name}: {before} → {now}"]


def choices_of(model: BaseModel) -> dict[str, Any]:
    """Return all fields as JSON values, also those that are not written while they are default."""
    written = model.model_dump(mode="json")
    for name, value in model:
        if isinstance(value, BaseModel):
            written[name] = choices_of(value)
        else:
            written.setdefault(name, value)
    return written


@dataclass(frozen=True)
class Accept:
    """Which differences the user accepts when work is resumed; choices must never differ.

    Args:
        data: Images were removed, changed or added (--accept-data-change).
        changes: Versions, threads or the device (--accept-changes): results differ slightly.
    """

    data: bool = False
    changes: bool = False


NOTHING_ACCEPTED = Accept()

# Prefixes of those entries in `versions` that are hashes of custom source code.
OWN_CODE = ("network ", "attention ")
# Properties of the machine, which are not part of the experiment's choices.
_CIRCUMSTANCES = {
    "versions": "with other versions",
    "threads": "with another number of threads",
    "device": "on another device",
}


@dataclass(frozen=True)
class Decisive:
    """All that determines the bits of a result.

    Args:
        choices: Values by the name they have in messages; '' for a mapping with its own names.
        versions: Versions the bits depend on, and hashes of custom source code.
        threads: Computing threads.
        device: The computing device.
    """

    choices: tuple[tuple[str, object], ...]
    versions: dict[str, str]
    threads: int
    device: str


def refuse_changes(folder: Path, before: Decisive, now: Decisive, accept: Accept) -> list[str]:
    """Refuse to resume work that was started differently; return the accepted differences.

    Raises:
        ConfigError: with each key that differs. Differences in versions, threads and device have
            their own message, since they can be accepted. A change in the source of a custom
            network or block cannot: it would be a different network.
    """
    chosen_now = dict(now.choices)
    choices = [
        line
        for key, value in sorted(before.choices, key=lambda choice: choice[0])
        for line in differences(value, chosen_now[key], key)
    ]
    if choices:
        raise ConfigError(
            f"{folder} was started with other choices ({'; '.join(choices)});"
            " rerun with the same choices to resume, or choose another --out"
        )
    for key, sha256 in sorted(before.versions.items()):
        found = now.versions.get(key)
        if key.startswith(OWN_CODE) and found != sha256:
            raise ConfigError(
                f"the source of {key} has changed since {folder} was started (its SHA-256 was"
                f" {sha256[:8] or 'unknown'} and is {(found or 'unknown')[:8]}); restore the file,"
                " or choose another --out"
            )
    accepted = []
    for key, words in _CIRCUMSTANCES.items():
        name = "" if key == "versions" else key
        changed = differences(getattr(before, key), getattr(now, key), name)
        if changed and not accept.changes:
            raise ConfigError(
                f"{folder} was started {words} ({'; '.join(changed)}), so results would"
                " differ slightly; resume it as it was started, or accept this with"
                " --accept-changes"
            )
        accepted += changed
    return accepted

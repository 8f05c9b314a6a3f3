"""The protocol of a comparison: written before its first step, and followed when it is resumed."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import tomli_w

from towernet import files
from towernet.comparison.judging.significance import SIGNIFICANT
from towernet.comparison.longer import refuse_another_length
from towernet.engine.device import Policy, bits_depend_on, choose_policy, kernels_here
from towernet.engine.session import Session
from towernet.errors import ConfigError, DataError, first_line_of
from towernet.records.base import checked
from towernet.records.protocol import Decided, Images, Protocol, Request, Rule
from towernet.resume import Decisive, choices_of, refuse_changes

# Shares of the training images, for the learning curve.
LAST_DOUBLING = 0.5  # compared with all images, it shows what the last doubling gave
SHARES = (LAST_DOUBLING, 0.25)

RULE = Rule(
    measure="accuracy on the final split",
    test="sign flips over runs; exact McNemar with one; the corrected resampled t where each run"
    " left out other images; Holm over all pairs that are judged",
    interval="over runs and images, simultaneous over all pairs",
    level=SIGNIFICANT,
    order="an interval within the margin is called equal before it is called better",
)
BALANCED_RULE = RULE.model_copy(
    update={
        "measure": "balanced accuracy on the final split: the mean over the classes",
        "test": RULE.test.replace(
            "exact McNemar", "sign flips over images that weigh as their class"
        ),
    }
)


def make_protocol(
    request: Request, fingerprint: str, decided: Decided, versions: dict[str, str]
) -> Protocol:
    """Return the protocol of a request, for these images and decisions."""
    return Protocol(
        request=request,
        images=Images(fingerprint=fingerprint),
        format=files.FORMAT,
        rule=RULE if request.measure == "accuracy" else BALANCED_RULE,
        versions=versions,
        decided=decided,
    )


def write_protocol(path: Path, protocol: Protocol) -> None:
    """Write `protocol.toml`."""
    values = _tables(protocol)
    values["decided"]["costs"] = {
        name: asdict(cost) for name, cost in protocol.decided.costs.items()
    }
    files.write_text(path, tomli_w.dumps(values | {"digest": digest_of(protocol)}))


def digest_of(protocol: Protocol) -> str:
    """Return the SHA-256 of everything that determines the result, so without measured costs."""
    return _digest(_tables(protocol))


def written_digest(path: Path) -> str | None:
    """Return the digest in a written protocol, None if there is none."""
    if not path.exists():
        return None
    digest: str | None = tomllib.loads(path.read_text(encoding="utf-8")).get("digest")
    return digest


def read_protocol(path: Path) -> Protocol | None:
    """Read a protocol that was written earlier, None if there is none.

    Raises:
        DataError: it is damaged or was edited, or was written by a newer version of towernet.
    """
    if not path.exists():
        return None
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        files.require_format(path, values)
        digest = values.pop("digest")
        if digest != _digest(values):
            raise DataError(
                f"{path} was changed after the comparison started (its digest does not match);"
                " restore it, or choose another --out"
            )
    except DataError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{path} is damaged ({first_line_of(error)}); choose another --out"
        ) from error
    return checked(Protocol, values, path)


def resumed(protocol: Protocol, request: Request, session: Session) -> tuple[Protocol, list[str]]:
    """Return the protocol to continue with, and the accepted differences from the written one.

    Raises:
        ConfigError: the request, or something that was not accepted, differs; it names the changes.
        EnvironmentFault: the requested device does not exist.
    """
    policy = Policy.of(protocol.decided.policy)
    threads = session.threads or policy.threads
    device = policy.device if session.device == "auto" else session.device
    if session.accept.changes:
        # On the same device the number format is kept.
        policy = replace(policy, threads=threads, kernels=kernels_here(policy))
        if device != policy.device:
            policy = choose_policy(device, threads)
    with policy.active():  # first, to report a missing device
        versions = bits_depend_on(policy, request.models)
    before = protocol.decided.policy
    refuse_another_length(
        session.folder, protocol.request.recipe, request.recipe, session.origin.command
    )
    accepted = refuse_changes(
        session.folder,
        _decisive(protocol.request, protocol.versions, before.threads, before.device),
        _decisive(request, versions, threads, device),
        session.accept,
    )
    decided = protocol.decided.model_copy(update={"policy": policy})
    return protocol.model_copy(update={"decided": decided, "versions": versions}), accepted


def same_weights(before: Request, now: Request, folder: Path) -> Request:
    """Return the request with the descriptions of its weights as they were recorded.

    Raises:
        ConfigError: a network had other weights.
    """
    of_network = {weights.network: weights for weights in before.weights}
    for weights in now.weights:
        recorded = of_network.get(weights.network)
        if recorded is not None and recorded.sha256 != weights.sha256:
            raise ConfigError(
                f"{folder} was started with other weights of {weights.network} (the SHA-256 was"
                f" {recorded.sha256[:8]} and is {weights.sha256[:8]}); give those of the start, or"
                " choose another --out"
            )
    if of_network.keys() != {weights.network for weights in now.weights}:
        return now  # other networks: compared as every choice
    return now.model_copy(update={"weights": before.weights})


def _decisive(request: Request, versions: dict[str, str], threads: int, device: str) -> Decisive:
    return Decisive((("", choices_of(request)),), versions, threads, device)


def _tables(protocol: Protocol) -> dict[str, Any]:
    """Return the protocol as TOML tables, without missing values, since TOML has no null.

    The costs are left out: they are measured and determine nothing.
    """
    request = protocol.request
    requested = request.model_dump(
        mode="json", exclude_none=True, exclude=set() if request.attention else {"attention"}
    )
    rest = protocol.model_dump(exclude={"request": True, "decided": {"costs"}})
    return {"request": requested} | rest


def _digest(values: dict[str, Any]) -> str:
    """Return the SHA-256 of a protocol's tables without measured values."""
    decided = {key: value for key, value in values["decided"].items() if key != "costs"}
    decided["policy"] = {k: v for k, v in decided["policy"].items() if k != "reason"}
    return files.digest(values | {"decided": decided})

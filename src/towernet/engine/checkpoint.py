"""Weights and training state on disk: safetensors, JSON, a hash. No pickle.

A weights file holds tensors and one metadata key with sorted JSON (several keys would be
written in random order, and the same run would give different bytes).

A run's `last/` folder holds pairs `<step>.safetensors` and `<step>.json`. The JSON is written
after the tensors and names their hash, so a pair is whole or it is not there; the newest whole
pair counts, and the one before it is kept until the next is written.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from towernet import files
from towernet.errors import DataError

METADATA_KEY = "towernet"


def write_weights(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Write tensors and their JSON metadata as one safetensors file, atomically."""
    # Strided views and channels_last memory have no place in the format: rows are written in order.
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(meta, sort_keys=True, allow_nan=False)
    files.write_bytes(path, safetensors.torch.save(plain, {METADATA_KEY: text}))


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_weights` wrote.

    Raises:
        DataError: the file is missing, damaged, or was not written by us.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as stream:
            meta = json.loads((stream.metadata() or {})[METADATA_KEY])
            return {name: stream.get_tensor(name) for name in stream.keys()}, meta  # noqa: SIM118
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise DataError(
            f"{path} holds no weights of ours ({error or 'no metadata'}); restore it or train again"
        ) from error


def require_weights(folder: Path, record: dict[str, Any]) -> None:
    """Refuse a run whose kept weights are gone or are not those it wrote.

    Args:
        folder: The run.
        record: Its `run.json`; one that was imported or is still running names no hash.

    Raises:
        DataError: the weights are missing or were changed.
    """
    path = folder / "best.safetensors"
    if not path.exists():
        raise DataError(f"{path} does not exist; give a run that kept its weights, not a trial")
    if (wanted := record.get("weights_sha256")) is not None and files.sha256(path) != wanted:
        raise DataError(
            f"{path} is not what the run wrote; restore it, or train again in another folder"
        )


def write_state(folder: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write all that resuming needs after `step`, and drop all but the pair before it."""
    weights = folder / f"{step:09d}.safetensors"
    write_weights(weights, tensors, {})
    manifest = {"sha256": files.sha256(weights), "state": state}
    files.write_json(weights.with_suffix(".json"), manifest)
    for old in sorted(folder.glob("*.json"))[:-2]:
        # The manifest goes first: without it the tensors count for nothing.
        old.unlink()
        old.with_suffix(".safetensors").unlink(missing_ok=True)


def read_state(
    folder: Path,
) -> tuple[tuple[dict[str, Tensor], dict[str, Any]] | None, list[str]]:
    """Read the newest whole state.

    Returns:
        Tensors and state, or None when there is none; and a sentence for each damaged pair.
    """
    damaged: list[str] = []
    for manifest_path in sorted(folder.glob("*.json"), reverse=True):
        weights = manifest_path.with_suffix(".safetensors")
        try:
            manifest = files.read_json(manifest_path)
            if files.sha256(weights) == manifest["sha256"]:
                return (read_weights(weights)[0], manifest["state"]), damaged
        except (DataError, OSError, KeyError, TypeError):
            pass
        damaged.append(f"{weights} is damaged and passed over")
    return None, damaged


def drop_state(folder: Path) -> None:
    """Remove the resuming state of a run that is finished."""
    if folder.exists():
        shutil.rmtree(folder)

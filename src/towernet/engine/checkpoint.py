"""Weights and training state on disk: safetensors, JSON, a hash. No pickle.

A weights file holds tensors and one metadata key with sorted JSON (several keys would be
written in random order, and the same run would give different bytes).

A run's `last/` folder contains states: `<step>.safetensors`, the best weights so far in
`best-<step>.safetensors`, and `<step>.json`, which is written after both and contains their
hashes and its own. So a state is complete or does not exist. The newest complete one is used; the
one before it is kept until the next is written. Best weights that did not change are not written
again: later states refer to the same file, and at the end it becomes `best.safetensors`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from towernet import files
from towernet.errors import DataError
from towernet.records.run import METADATA_KEY, WEIGHTS_FILE

_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


@dataclass(frozen=True)
class _Manifest:
    """A state: its files with their hashes, and the part that is stored as JSON."""

    files: dict[str, str]
    state: object


def write_weights(path: Path, tensors: dict[str, Tensor], meta: object) -> str:
    """Write tensors and their JSON metadata as one safetensors file, atomically.

    One tensor at a time, so no second copy is held in memory (the library's own writers need one,
    or write without fsync).

    Returns:
        The file's hex sha-256.
    """
    digest = hashlib.sha256()
    with files.atomic(path) as stream:
        for chunk in _safetensors(tensors, meta):
            digest.update(chunk)
            stream.write(chunk)
    return digest.hexdigest()


def weights_digest(tensors: dict[str, Tensor], meta: object) -> str:
    """Return the hex sha-256 of the file that `write_weights` would write."""
    digest = hashlib.sha256()
    for chunk in _safetensors(tensors, meta):
        digest.update(chunk)
    return digest.hexdigest()


def _safetensors(tensors: dict[str, Tensor], meta: object) -> Iterator[bytes | memoryview]:
    """Yield the file: the header's length, the header, the tensors' bytes in row-major order.

    Source: https://huggingface.co/docs/safetensors/index#format
    """
    header: dict[str, Any] = {
        "__metadata__": {METADATA_KEY: json.dumps(meta, sort_keys=True, allow_nan=False)}
    }
    end = 0
    # Largest number format first, so that every tensor starts at a multiple of its number's size.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    for name in names:
        tensor = tensors[name]
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for name in names:
        # The format knows no strides and no channels_last.
        plain = tensors[name].detach().cpu().contiguous()
        yield plain.flatten().view(torch.uint8).numpy().data


def read_weights(path: Path) -> tuple[dict[str, Tensor], object]:
    """Read what `write_weights` wrote.

    Raises:
        DataError: the file is missing, damaged, or was not written by towernet.
    """
    try:
        # By its descriptor, since the library rejects paths that are not UTF-8.
        with (
            path.open("rb") as stream,
            safetensors.safe_open(f"/dev/fd/{stream.fileno()}", framework="pt") as found,
        ):
            meta = json.loads((found.metadata() or {})[METADATA_KEY])
            return {name: found.get_tensor(name) for name in found.keys()}, meta  # noqa: SIM118
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise DataError(
            f"{path} contains no towernet weights ({error or 'no metadata'}); restore it or train"
            " again"
        ) from error


def require_weights(folder: Path, weights_sha256: str | None) -> None:
    """Refuse a run whose weights are missing or are not those it wrote.

    Args:
        folder: The run.
        weights_sha256: Their hash, from its `run.json`.

    Raises:
        DataError: the weights are missing or were changed.
    """
    path = folder / WEIGHTS_FILE
    if not path.exists():
        raise DataError(f"{path} does not exist; give a finished run that kept its weights")
    if files.sha256(path) != weights_sha256:
        raise DataError(
            f"{path} was changed after the run wrote it; restore it, or train again in another"
            " folder"
        )


def write_state(
    folder: Path,
    step: int,
    tensors: dict[str, Tensor],
    state: object,
    best: dict[str, str],
) -> None:
    """Write all that resuming needs after `step`; keep only this state and the one before it.

    Args:
        folder: The run's `last/`.
        step: Steps taken.
        tensors: The learner's.
        state: What JSON can hold.
        best: The file of the best weights so far, in the same folder, and its hash; or nothing.
    """
    path = folder / f"{step:09d}.safetensors"
    manifest = _Manifest({path.name: write_weights(path, tensors, {})} | best, state)
    written = {"manifest": asdict(manifest), "sha256": files.digest(asdict(manifest))}
    files.write_json(path.with_suffix(".json"), written)
    manifests = sorted(folder.glob("*.json"))
    earlier = [file for file in manifests if file.stem < path.stem]
    # A later one must be damaged, or the run would have resumed from it.
    for old in [*earlier[:-1], *(file for file in manifests if file.stem > path.stem)]:
        # The manifest first: without it the tensors are ignored.
        files.remove(old)
    kept = set(manifest.files)
    for before in earlier[-1:]:
        with contextlib.suppress(DataError):  # a damaged one needs no files
            kept |= set(_manifest(before).files)
    for file in folder.glob("*.safetensors"):
        if file.name not in kept:
            files.remove(file)


def _manifest(path: Path) -> _Manifest:
    """Read a state's manifest.

    Raises:
        DataError: it is damaged.
    """
    written = files.read_record(path, "manifest", "sha256")
    if files.digest(written["manifest"]) == written["sha256"]:
        return _Manifest(**written["manifest"])
    raise DataError(f"{path} is damaged; restore it or start again")


def read_state(
    folder: Path,
) -> tuple[tuple[dict[str, Tensor], object] | None, list[str]]:
    """Read the newest complete state.

    Returns:
        Tensors and state, or None if there is none; and a sentence for each damaged one.
    """
    damaged: list[str] = []
    for path in sorted(folder.glob("*.json"), reverse=True):
        bad = path
        try:
            manifest = _manifest(path)
            for name, sha256 in manifest.files.items():
                bad = folder / name
                if files.sha256(bad) != sha256:
                    break
            else:
                weights = path.with_suffix(".safetensors")
                return (read_weights(weights)[0], manifest.state), damaged
        except (DataError, OSError, ValueError):  # ValueError: a number that is not in JSON
            pass
        damaged.append(f"{bad} is damaged and skipped")
    return None, damaged


def drop_state(folder: Path) -> None:
    """Remove the states of a finished run: manifests first, as always."""
    for manifest in folder.glob("*.json"):
        files.remove(manifest)
    files.remove(folder)

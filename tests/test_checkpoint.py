"""Weights and states on disk: readable by others, complete or skipped, only what is needed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from towernet.engine import checkpoint
from towernet.errors import DataError, EnvironmentFault
from towernet.records.run import METADATA_KEY

TENSORS = {
    "conv.weight": torch.arange(24.0).reshape(2, 3, 2, 2).to(memory_format=torch.channels_last),
    "transposed": torch.arange(6).reshape(2, 3).T,
    "half": torch.tensor([1.5, -2.5], dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "mask": torch.tensor([True, False, True]),
    "none": torch.empty(0, 4),
}


def state_files(folder: Path, *steps: int) -> None:
    """Write states as the training loop does, each with its own best weights."""
    for step in steps:
        name = f"best-{step:09d}.safetensors"
        best = {name: checkpoint.write_weights(folder / name, TENSORS, {"step": step})}
        checkpoint.write_state(folder, step, TENSORS, {"step": step}, best)


def test_the_library_and_towernet_read_the_weights_alike(tmp_path):
    path = tmp_path / "w.safetensors"
    meta = {"epoch": 3, "names": ["é", "</script>", "\udce9"]}
    checkpoint.write_weights(path, TENSORS, meta)
    by_library = safetensors.torch.load_file(path)
    by_towernet, meta_read = checkpoint.read_weights(path)
    assert meta_read == meta
    for name, tensor in TENSORS.items():
        for read in (by_library[name], by_towernet[name]):
            assert read.dtype == tensor.dtype and torch.equal(read, tensor), name
    # The library's writer gives as many bytes for the same header.
    text = {METADATA_KEY: json.dumps(meta, sort_keys=True)}
    plain = {name: tensor.contiguous() for name, tensor in TENSORS.items()}
    library = safetensors.torch.save(plain, text)
    assert len(library) == path.stat().st_size


def test_the_hash_returned_is_the_file_s(tmp_path):
    import hashlib

    path = tmp_path / "w.safetensors"
    returned = checkpoint.write_weights(path, TENSORS, {})
    assert returned == hashlib.sha256(path.read_bytes()).hexdigest()
    assert checkpoint.write_weights(path, TENSORS, {}) == returned  # the same bytes each time


def test_only_two_states_and_what_they_need_are_kept(tmp_path):
    state_files(tmp_path, 4, 8, 12)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "000000008.json", "000000008.safetensors", "000000012.json", "000000012.safetensors",
        "best-000000008.safetensors", "best-000000012.safetensors",
    ]  # fmt: skip
    # Best weights that are older than both states stay as long as one of them refers to them.
    old = {"best-000000012.safetensors": _sha(tmp_path / "best-000000012.safetensors")}
    for step in (16, 20):
        checkpoint.write_state(tmp_path, step, TENSORS, {"step": step}, old)
    assert (tmp_path / "best-000000012.safetensors").exists()
    assert not (tmp_path / "best-000000008.safetensors").exists()
    found, damaged = checkpoint.read_state(tmp_path)
    assert found is not None and found[1] == {"step": 20} and not damaged


def _sha(path: Path) -> str:
    from towernet import files

    return files.sha256(path)


def test_any_damage_to_the_newest_state_is_detected_and_the_one_before_is_used(tmp_path):
    state_files(tmp_path, 4, 8)
    draw = np.random.default_rng(3)
    names = ("000000008.json", "000000008.safetensors", "best-000000008.safetensors")
    for i in range(150):
        path = tmp_path / names[i % 3]
        whole = path.read_bytes()
        at = int(draw.integers(len(whole)))
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(draw.integers(8))
        path.write_bytes(damaged if i < 120 else whole[:at])
        found, sentences = checkpoint.read_state(tmp_path)
        assert found is not None and found[1] == {"step": 4}, (path.name, at)
        assert sentences == [f"{path} is damaged and skipped"]
        path.write_bytes(whole)
    for name in names[1:]:
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).unlink()
        assert checkpoint.read_state(tmp_path)[0][1] == {"step": 4}
        (tmp_path / name).write_bytes(content)


def test_a_reader_that_trusts_the_file_would_miss_the_damage(tmp_path):
    """The sabotaged twin: safetensors by itself accepts flipped bits."""
    state_files(tmp_path, 4)
    path = tmp_path / "000000004.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    checkpoint.read_weights(path)  # does not raise
    assert checkpoint.read_state(tmp_path)[0] is None


def test_a_state_after_damaged_ones_replaces_them(tmp_path):
    state_files(tmp_path, 4, 8)
    (tmp_path / "000000008.json").write_text("{}")
    state_files(tmp_path, 6)
    found, damaged = checkpoint.read_state(tmp_path)
    assert found is not None and found[1] == {"step": 6} and not damaged
    assert not (tmp_path / "000000008.json").exists()


def test_two_damaged_states_are_two_sentences_and_no_state(tmp_path):
    state_files(tmp_path, 4, 8)
    for path in tmp_path.glob("0*.safetensors"):
        path.write_bytes(b"")
    found, damaged = checkpoint.read_state(tmp_path)
    assert found is None and len(damaged) == 2


def test_weights_of_other_programs_are_refused(tmp_path):
    safetensors.torch.save_file({"a": torch.ones(2)}, tmp_path / "w.safetensors")
    with pytest.raises(DataError, match="contains no towernet weights"):
        checkpoint.read_weights(tmp_path / "w.safetensors")


def test_a_file_that_cannot_be_removed_is_named(tmp_path, monkeypatch):
    state_files(tmp_path, 4, 8)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.unlink", refuse)
    with pytest.raises(EnvironmentFault, match=r"00000004\.json cannot be removed: Operation"):
        state_files(tmp_path, 12)

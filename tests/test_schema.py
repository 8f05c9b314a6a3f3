"""The JSON schemas in docs/: made from the models, and valid for all that real commands write."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from conftest import TINY_NETWORK
from towernet import files
from towernet.errors import TRAINING, DataError
from towernet.records import schema
from towernet.records.base import checked, read_record
from towernet.records.ledger import Ledger
from towernet.records.results import Conclusion
from towernet.records.run import EpochMetrics, EpochTiming, RunRecord
from towernet.records.scores import KeptCalibration

SCHEMAS = Path(__file__).parent.parent / "docs" / "schema"
LEARNS = "towernet_patch"  # in four epochs of 32-px images
WORDS = ("--epochs", 4, "--size", 32, "--batch-size", 8, "--workers", 1, "--threads", 1)
RECIPES = {
    "one-rate.toml": "[train]\nlearning_rate = 0.0167\ntrial_factors = [1.0]\n",  # no trials
    "hot.toml": "[train]\nlearning_rate = 1e14\ntrial_factors = [1.0]\n",
}
KINDS: dict[str, tuple[object, ...]] = {
    "comparison": ("compare", "--models", f"{LEARNS},{LEARNS}+none", "--runs", 2),
    "run": ("train", "--model", LEARNS),
    "ablation": (
        "compare", "--models", LEARNS, "--attention", "shuffle", "--recipe", "one-rate.toml",
    ),
    "learning curve": (
        "compare", "--models", LEARNS, "--learning-curve", "--recipe", "one-rate.toml",
    ),
    "no test split": ("compare", "--models", LEARNS, "--recipe", "notebook"),
    "failure": ("compare", "--models", f"{TINY_NETWORK},{LEARNS}", "--recipe", "hot.toml"),
}  # fmt: skip

OFTEN = {"run", "ablation"}


class Folders(dict[str, Path]):
    """A real folder of each kind, made at its first use."""

    def __init__(self, photos: Path, home: Path) -> None:
        super().__init__()
        self.photos, self.home = photos, home
        for name, recipe in RECIPES.items():
            (home / name).write_text(recipe)

    def __missing__(self, kind: str) -> Path:
        verb, *words = KINDS[kind]
        code = self.towernet(verb, self.photos, *words, *WORDS, "--out", kind)
        assert code in ((0, TRAINING) if kind == "failure" else (0,))
        if kind == "run":
            assert self.towernet("evaluate", kind, self.photos) == 0  # an event of the ledger
        self[kind] = self.home / kind
        return self[kind]

    def towernet(self, *words: object) -> int:
        """Run the command in this process, which has torch already."""
        from towernet.cli.main import main

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TOWERNET_CACHE", str(self.home / "cache"))
            patch.chdir(self.home)
            return main([str(word) for word in words])


@pytest.fixture(scope="session")
def written(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(photos, tmp_path_factory.mktemp("written"))


@functools.cache
def validator(name: str) -> Draft202012Validator:
    found = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(found)
    return Draft202012Validator(found)


def documents(folder: Path) -> Iterator[tuple[str, Path, Any]]:
    """Every record below a folder: the name of its schema, the file, and its content."""
    for path in sorted(folder.rglob("*")):
        if path.name in ("results.json", "run.json", "calibration.json"):
            yield path.stem, path, files.read_json(path)
        elif path.name == "protocol.toml":
            yield "protocol", path, tomllib.loads(path.read_text(encoding="utf-8"))
        elif path.name in ("ledger.jsonl", "metrics.jsonl", "timings.jsonl"):
            yield from ((path.stem, path, line) for line in files.read_jsonl(path))


@pytest.mark.parametrize(
    "kind",
    [kind if kind in OFTEN else pytest.param(kind, marks=pytest.mark.proof) for kind in KINDS],
)
def test_all_written_files_match_the_schemas(written: Folders, kind: str) -> None:
    seen = set()
    for name, path, values in documents(written[kind]):
        validator(name).validate(values)
        checked_by_model(name, values, path)
        seen.add(name)
    # A single run has no protocol; where all diverge at once, no epoch is finished.
    # Without a test split no images are left to calibrate on.
    absent = {
        "run": {"protocol"},
        "failure": {"metrics", "timings", "calibration"},
        "no test split": {"calibration"},
    }.get(kind, set())
    assert seen | absent == {
        "results", "run", "ledger", "metrics", "timings", "calibration", "protocol",
    }  # fmt: skip


@pytest.mark.proof
def test_the_folders_are_of_every_kind(written: Folders) -> None:
    found = {
        kind: read_record(written[kind] / "results.json", Conclusion).results for kind in KINDS
    }
    assert found["comparison"].num_runs == 2
    assert found["comparison"].comparisons and found["ablation"].comparisons
    assert found["run"].kind == "run"
    assert all(variant.proof.epochs for variant in found["ablation"].ablation)
    assert found["learning curve"].learning_curve.points
    assert found["no test split"].final_split == "validation"
    assert "failed" in {network.status for network in found["failure"].networks}
    ledger = Ledger(written["run"] / "ledger.jsonl")
    assert [event.event for event in ledger.events] == [
        "final split opened", "test split looked at again",
    ]  # fmt: skip


def checked_by_model(name: str, values: Any, path: Path) -> None:
    """Check what is written against its model, as a reader does.

    Raises:
        DataError: naming the field.
    """
    if name == "ledger":
        Ledger(path)
    else:
        model = {
            "results": Conclusion, "run": RunRecord, "metrics": EpochMetrics,
            "timings": EpochTiming, "calibration": KeptCalibration,
        }  # fmt: skip
        checked(model.get(name, schema.ProtocolFile), values, path)


@pytest.mark.parametrize(
    ("name", "field", "spoil"),
    [
        ("results", "results.networks.0.parameters", lambda v: v.update(parameters="many")),
        ("results", "results.networks.0.trials", lambda v: v.pop("trials")),
        ("results", "results.networks.0.colour", lambda v: v.update(colour="red")),
        ("results", "results.comparisons.0.answer", lambda v: v.update(answer="perhaps")),
        ("results", "results.majority_accuracy", lambda v: v.update(majority_accuracy=33.3)),
        ("results", "measured.total_seconds", lambda v: v.update(total_seconds=None)),
        ("results", "made.hardware.threads", lambda v: v.update(threads=1.5)),
        ("run", "plan.num_steps", lambda v: v.update(num_steps="few")),
        ("run", "plan.num_steps", lambda v: v.update(num_steps="5")),
        ("run", "plan.policy.channels_last", lambda v: v.update(channels_last="yes")),
        ("run", "contract.size_px", lambda v: v.update(size_px="64")),
        ("timings", "seconds", lambda v: v.update(seconds="long")),
        ("calibration", "temperature", lambda v: v.pop("temperature")),
        ("run", "summary.best_epoch", lambda v: v.pop("best_epoch")),
        ("run", "origin.colour", lambda v: v.update(colour="red")),
        ("protocol", "request.runs", lambda v: v.update(runs=0)),
        ("protocol", "decided.num_steps", lambda v: v.pop("num_steps")),
        ("protocol", "images.colour", lambda v: v.update(colour="red")),
        ("metrics", "train_loss", lambda v: v.update(train_loss="low")),
        ("metrics", "step", lambda v: v.pop("step")),
        ("metrics", "colour", lambda v: v.update(colour="red")),
    ],
)
def test_a_planted_mistake_is_refused_by_the_schema_and_by_the_model_which_names_the_field(
    written: Folders, name: str, field: str, spoil: Callable[[dict[str, Any]], object]
) -> None:
    path, values = next(
        (path, values) for of, path, values in documents(written["ablation"]) if of == name
    )
    inner = values
    for part in field.split(".")[:-1]:
        inner = inner[int(part)] if isinstance(inner, list) else inner[part]
    spoil(inner)
    assert not validator(name).is_valid(values)
    with pytest.raises(DataError, match="is damaged") as refusal:
        checked_by_model(name, values, path)
    assert f"({field} is " in str(refusal.value)
    if name == "results":  # through the function that every reader uses
        changed = path.with_name("changed.json")
        files.write_json(changed, values)
        with pytest.raises(DataError) as refusal:
            read_record(changed, Conclusion)
        assert f"({field} is " in str(refusal.value)


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ({"event": "change accepted", "words": 1}, "change accepted.words is 1"),
        ({"event": "change accepted"}, "change accepted.words is missing"),
        (
            {"event": "change accepted", "words": "more threads", "colour": "red"},
            "change accepted.colour is unknown",
        ),
        ({"event": "something else", "words": "more threads"}, "something else"),
        ({"words": "more threads"}, "'words'"),
    ],
)
def test_an_unknown_event_is_refused(line: dict[str, Any], field: str, tmp_path: Path) -> None:
    files.write_jsonl(tmp_path / "ledger.jsonl", [line])
    assert not validator("ledger").is_valid(line)
    with pytest.raises(DataError, match="is damaged") as refusal:
        Ledger(tmp_path / "ledger.jsonl")
    assert field in str(refusal.value)


def test_the_schemas_are_made_from_the_models() -> None:
    done = refresh("--check")
    assert done.returncode == 0, done.stdout


def test_a_stale_schema_is_detected(tmp_path: Path) -> None:
    assert refresh(tmp_path).returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in SCHEMAS.iterdir()}
    path = tmp_path / "metrics.schema.json"
    path.write_text(path.read_text().replace('"integer"', '"number"'))
    stale = refresh(tmp_path, "--check")
    assert stale.returncode == 1
    assert "metrics.schema.json differs from its model" in stale.stdout


def test_a_model_that_changes_changes_its_schema() -> None:
    class Wider(Conclusion):
        more: int

    title = schema.WRITTEN["results"][0]
    before = (SCHEMAS / "results.schema.json").read_text(encoding="utf-8")
    assert schema.schema(title, Conclusion) == before
    assert schema.schema(title, Wider) != before


def test_every_schema_names_its_file() -> None:
    for path in SCHEMAS.iterdir():
        found = json.loads(path.read_text(encoding="utf-8"))
        assert found["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert found["title"].endswith((".json", ".toml", ".jsonl"))
        kinds = [*found.get("$defs", {}).values(), *([found] if "properties" in found else [])]
        assert kinds
        for kind in kinds:
            assert kind["description"], kind
            assert "Args:" not in kind["description"]


def refresh(*words: object) -> subprocess.CompletedProcess[str]:
    """Run the command that writes the schemas."""
    return subprocess.run(
        [sys.executable, "-m", "towernet.records.schema", *map(str, words)],
        cwd=SCHEMAS.parent.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip

"""Networks that start from pre-trained weights, in a comparison: frozen and fine-tuned."""

import json
from dataclasses import replace
from pathlib import Path
from statistics import median

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import mobilenet_v2

import towernet
from conftest import run_towernet
from towernet import files
from towernet.api.found import Run
from towernet.config import load_finetune, load_recipe, override
from towernet.data import decode
from towernet.data.prepare import prepare, sample_table
from towernet.data.rules import NOW
from towernet.data.source import open_source
from towernet.engine.checkpoint import read_weights
from towernet.engine.device import Policy
from towernet.engine.session import Session
from towernet.engine.start import part_features
from towernet.errors import ConfigError, DataError
from towernet.names import NetworkName
from towernet.records.contract import Contract
from towernet.records.protocol import Request
from towernet.records.run import Origin
from towernet.records.weights import StartWeights, WeightsInput
from towernet.starts.find import resolve

NETWORK = "mobilenet_v2"
FROZEN, TUNED = f"{NETWORK}/frozen", f"{NETWORK}/finetuned"


@pytest.fixture(scope="module")
def weights_file(weight_files: Path) -> Path:
    return weight_files / "mobilenet_v2-b0353104.pth"


def weights_of(network: str, size_px: int = 224) -> StartWeights:
    given = WeightsInput(
        size_px=size_px, resize="crop", crop_share=0.875, mean=(0.5,) * 3, std=(0.25,) * 3
    )
    return StartWeights(network=network, sha256="a" * 64, name="set", source="file", input=given)


def request_for(*models: str, **changes: object) -> Request:
    names = tuple(map(NetworkName, models))
    networks = dict.fromkeys(name.base for name in names if name.start)
    recipe = override(load_recipe("default"), train={"epochs": 2})
    return Request(
        models=names,
        recipe=recipe,
        weights=tuple(map(weights_of, networks)),
        finetune=load_finetune("default"),
        **changes,
    )


def test_a_network_with_weights_gets_images_as_these_were_trained_on():
    request = request_for("resnet18", "resnet18/frozen", "resnet18/finetuned")
    scratch, frozen, tuned = (request.recipe_of(name).data for name in request.models)
    assert (scratch.size_px, scratch.crop_share, scratch.normalise) == (128, 1.0, "measured")
    assert frozen == tuned
    assert (frozen.size_px, frozen.crop_share, frozen.mean) == (224, 0.875, (0.5,) * 3)
    # Splits are those of all networks.
    assert frozen.test_fraction == scratch.test_fraction


def test_a_size_or_rule_that_the_user_gives_is_that_of_all_networks():
    request = request_for("resnet18/frozen", fixed_input=("size_px",))
    assert request.recipe_of(request.models[0]).data.size_px == request.recipe.data.size_px
    data = request.recipe.data.model_copy(update={"resize": "pad"})
    recipe = request.recipe.model_copy(update={"data": data})
    request = request_for("resnet18/frozen", fixed_input=("resize",))
    request = request.model_copy(update={"recipe": recipe})
    padded = request.recipe_of(request.models[0]).data
    assert (padded.resize, padded.crop_share, padded.size_px) == ("pad", 1.0, 224)


def test_a_request_without_the_weights_of_a_start_is_refused():
    with pytest.raises(ValueError, match="weights has none for resnet18"):
        Request(models=(NetworkName("resnet18/frozen"),), recipe=load_recipe("default"))


def test_attention_in_a_frozen_network_is_refused_and_in_a_fine_tuned_one_starts_as_identity():
    with pytest.raises(ConfigError, match="resnet18/finetuned\\+se"):
        NetworkName("resnet18/frozen+se")
    assert NetworkName("resnet18/finetuned+se").block_start == "identity"
    assert NetworkName("resnet18+se").block_start == "paper"
    assert NetworkName("resnet18/finetuned+se@identity").canonical() == "resnet18/finetuned+se"


@pytest.fixture(scope="module")
def compared(
    photos: Path, weights_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> towernet.Comparison:
    """A comparison of the three starts of one network."""
    return towernet.compare(
        photos,
        models=[NETWORK, FROZEN, TUNED],
        weights=f"{NETWORK}={weights_file}",
        runs=1,
        epochs=2,
        size=64,
        out=tmp_path_factory.mktemp("compared") / "out",
    )


def test_three_starts_are_compared(compared, weights_file):
    results = compared.results
    assert {network.name for network in results.networks} == {NETWORK, FROZEN, TUNED}
    frozen = results.network(FROZEN)
    assert (frozen.steps, frozen.epochs, frozen.status) == (0, 0.0, "ranked")
    assert results.network(NETWORK).steps > 0
    # A frozen network keeps the weights it was given, but for its last layer.
    tensors, _ = read_weights(compared.folder / frozen.runs[0].folder / "best.safetensors")
    given = torch.load(weights_file, weights_only=True)
    same = [name for name in tensors if not name.startswith("classifier.")]
    assert same and all(torch.equal(tensors[name], given[name]) for name in same)
    tuned, _ = read_weights(
        compared.folder / results.network(TUNED).runs[0].folder / "best.safetensors"
    )
    assert set(tuned) == set(tensors)
    tuned_run = compared.folder / results.network(TUNED).runs[0].folder
    epochs = [line["epoch"] for line in files.read_jsonl(tuned_run / "metrics.jsonl")]
    assert epochs == [0.0, 1.0, 2.0]  # its fitted head counts as epoch 0


def test_a_run_records_how_its_last_layer_was_fitted(compared):
    results, measured = compared.results, compared.measured
    for name in (NETWORK, FROZEN, TUNED):
        (scores,) = results.network(name).runs
        folder = compared.folder / scores.folder
        recorded = files.read_json(folder / "run.json")["summary"].get("last_layer")
        assert (scores.last_layer is None) == (recorded is None) == (name == NETWORK)
        if recorded is not None:
            assert recorded["chosen_on"] == scores.last_layer.chosen_on == "validation"
            assert recorded["strength"] == scores.last_layer.strength > 0
        lines = [line for line in files.read_jsonl(folder / "timings.jsonl") if line["step"]]
        speeds = [line["images_per_second"] for line in lines]
        assert measured.networks[name].images_per_second == (median(speeds) if speeds else None)
        assert (not speeds) == (name == FROZEN)


def test_runs_of_one_command_read_the_weights_once(photos, weights_file, tmp_path, monkeypatch):
    monkeypatch.setenv("TOWERNET_CACHE", str(tmp_path / "cache"))
    name, copy = NetworkName(FROZEN), tmp_path / "weights.pth"
    copy.write_bytes(weights_file.read_bytes())
    source = open_source(str(photos))
    origin = Origin(command="test", source="test")
    weights = resolve((name,), (f"{NETWORK}={copy}",))
    session = Session(source, tmp_path, origin, weights=weights)
    recipe = override(load_recipe("default"), data={"size_px": 64}).data
    table = sample_table(source, seed=0, images_per_class=None, workers=1)
    dataset = prepare(table, source, recipe, seed=0, workers=1)
    policy = Policy("cpu", "float32", False, 1, "a test")
    part_features(name, dataset, dataset.train, session, policy)
    copy.unlink()
    other_run = replace(session, folder=tmp_path / "other")
    features = part_features(name, dataset, dataset.validation, other_run, policy)
    assert features.shape == (len(dataset.validation), 1280)
    other_command = Session(source, tmp_path, origin, weights=weights)
    with pytest.raises(DataError, match=r"weights\.pth"):
        part_features(name, dataset, dataset.validation, other_command, policy)


def test_a_frozen_run_predicts_as_a_plain_network_with_its_tensors(compared, photos):
    run = compared.folder / compared.results.network(FROZEN).runs[0].folder
    stored = files.read_json(run / "run.json")
    assert stored["config"]["model"] == FROZEN
    assert stored["started_from"]["network"] == NETWORK
    pictures = sorted(photos.rglob("*.png"))[:5]
    answers = Run(run).predict(pictures)
    contract = Contract(**stored["contract"])
    plain = mobilenet_v2(num_classes=len(contract.class_names)).eval()
    plain.load_state_dict(read_weights(run / "best.safetensors")[0])
    mean, std = (torch.tensor(each)[:, None, None] for each in (contract.mean, contract.std))
    temperature = files.read_json(run / "calibration.json")["temperature"]
    for path, found in zip(pictures, answers.itertuples(), strict=True):
        pixels = decode.decode(path.read_bytes(), NOW).pixels
        square = decode.fit(
            pixels, contract.size_px, contract.resize, crop_share=contract.crop_share
        )
        x_CHW = torch.from_numpy(square.copy()).permute(2, 0, 1) / 255
        with torch.inference_mode():
            (logits_K,) = plain(((x_CHW - mean) / std)[None])
        assert Path(found.file) == path
        assert found.class_name == contract.class_names[logits_K.argmax()]
        wanted = float((logits_K / temperature).softmax(0).max())
        assert found.probability == pytest.approx(wanted, abs=1e-4)


def test_judged_answers_of_a_frozen_run_are_those_of_its_network(compared, photos):
    run = compared.folder / compared.results.network(FROZEN).runs[0].folder
    judged = pd.read_parquet(run / "predictions.parquet").set_index("path")
    answers = Run(run).predict([photos / path for path in judged.index])
    assert list(answers.class_name) == list(judged.predicted)


def test_the_same_command_gives_the_same_bytes_and_other_weights_are_refused(
    photos, weights_file, tmp_path
):
    command = [
        "compare", photos, "--models", f"{FROZEN},{TUNED}", "--epochs", 1, "--size", 64,
        "--out", tmp_path / "out",
    ]  # fmt: skip
    given = ["--weights", f"{NETWORK}={weights_file}"]
    first = run_towernet(*command, *given)
    assert first.returncode == 0, first.stderr
    results = json.loads((tmp_path / "out/results.json").read_text())["results"]
    again = run_towernet(*command[:-1], tmp_path / "again", *given)
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / "again/results.json").read_text())["results"] == results
    for file in sorted((tmp_path / "out/runs").rglob("best.safetensors")):
        other = tmp_path / "again" / file.relative_to(tmp_path / "out")
        assert file.read_bytes() == other.read_bytes()
    changed = torch.load(weights_file, weights_only=True)
    changed["features.0.0.weight"][0, 0, 0, 0] += 1
    save_file(changed, altered := tmp_path / "changed.safetensors")
    refused = run_towernet(*command, "--weights", f"{NETWORK}={altered}")
    assert refused.returncode == 2
    assert "other weights" in refused.stderr and "Traceback" not in refused.stderr

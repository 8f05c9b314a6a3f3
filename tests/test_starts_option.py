"""`--starts`: each network that has pre-trained weights, from scratch and from these."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from safetensors.torch import save_file

from conftest import TINY_NETWORK
from towernet import compare
from towernet.api.options import Options
from towernet.api.training import _require_networks
from towernet.contestants import model_names, weights_given, with_starts
from towernet.data.source import open_source
from towernet.engine.runlog import Progress
from towernet.errors import ConfigError, DataError, UnknownNameError
from towernet.models.catalogue import build, require_size
from towernet.names import NetworkName
from towernet.starts.find import resolve
from towernet.starts.load import networks_here
from towernet.starts.published import weight_sets


def has_weights(base: str) -> bool:
    """Weights that are on a machine: those of two networks."""
    return base in ("mobilenet_v2", "timm:tf_efficientnet_lite0")


def test_each_network_with_weights_gets_each_start():
    names = model_names("mobilenet_v2,towernet_patch,timm:tf_efficientnet_lite0")
    found, said = with_starts(names, "scratch,frozen,finetuned", has_weights)
    assert found == (
        "mobilenet_v2", "mobilenet_v2/frozen", "mobilenet_v2/finetuned", "towernet_patch",
        "timm:tf_efficientnet_lite0", "timm:tf_efficientnet_lite0/frozen",
        "timm:tf_efficientnet_lite0/finetuned",
    )  # fmt: skip
    assert all(isinstance(name, NetworkName) for name in found)
    assert said == (
        "--starts: towernet_patch has no pre-trained weights here and is compared from scratch only"
    )


def test_only_the_starts_given_and_in_their_order():
    names = model_names("mobilenet_v2")
    assert with_starts(names, ["finetuned", "frozen"], has_weights) == (
        ("mobilenet_v2/finetuned", "mobilenet_v2/frozen"),
        None,
    )
    assert with_starts(names, None, has_weights) == (names, None)
    several = model_names("towernet,mobilenet_v2+se,vgg19")
    found, said = with_starts(several, "finetuned", has_weights)
    assert found == ("towernet", "mobilenet_v2/finetuned+se", "vgg19")
    assert said is not None
    assert "towernet and vgg19 have no pre-trained weights here and are compared" in said


@pytest.mark.parametrize(
    ("models", "starts", "said"),
    [
        ("mobilenet_v2", "scratch", "--starts is 'scratch'; add frozen or finetuned, or leave"),
        ("mobilenet_v2", "frozen,scratch,frozen", "--starts names frozen twice; name each start"),
        ("mobilenet_v2/frozen", "scratch,frozen", "--models includes a start in mobilenet_v2/fro"),
        ("towernet,vgg19", "frozen", "there are none for towernet or vgg19; give --weights"),
        ("mobilenet_v2+se", "frozen", "write mobilenet_v2/finetuned+se"),
    ],
)
def test_what_makes_no_sense_is_refused(models, starts, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        with_starts(model_names(models), starts, has_weights)


@pytest.mark.parametrize(
    ("starts", "said"),
    [
        ("scratch,fine-tuned", "no start is called 'fine-tuned'. Did you mean 'finetuned'?"),
        ("Frozen", "Did you mean 'frozen'?"),
        ("frozen,", "no start is called ''. Known: finetuned, frozen, scratch"),
    ],
)
def test_an_unknown_start_is_refused_with_a_suggestion(starts, said):
    with pytest.raises(UnknownNameError, match=re.escape(said)):
        with_starts(model_names("mobilenet_v2"), starts, has_weights)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/frozen", "'/frozen' names no network; give one, as in resnet18/frozen"),
        ("", "'' names no network; give one, as in resnet18"),
        (
            "mobilenet_v2/frozen/finetuned",
            "two starts; write mobilenet_v2/frozen or ",
        ),
    ],
)
def test_a_name_without_a_network_or_with_two_starts_is_refused(name, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        NetworkName(name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mobilenet_v2/fine-tuned", "no start is called 'fine-tuned'. Did you mean 'finetuned'?"),
        ("towernet/Frozen+none", "no start is called 'Frozen'. Did you mean 'frozen'?"),
        ("mobilenet_v2/scratch", "ends with no start; leave /scratch out"),
        ("timm:resnet18/Frozen", "no start is called 'Frozen'. Did you mean 'frozen'?"),
        ("mobilenet_v3/Frozen", "no network is called 'mobilenet_v3/Frozen'"),
    ],
)
def test_a_misspelt_start_in_a_name_is_named(name, said):
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    with pytest.raises(UnknownNameError, match=re.escape(said)):
        require_size(name, 64)
    with pytest.raises(UnknownNameError, match=re.escape(said)):
        weight_sets(NetworkName(name).base)


class Kept(Progress):
    """Progress that keeps what is counted."""

    def __init__(self) -> None:
        self.counted: set[str] = set()

    def count(self, what: str, done: int, total: int) -> None:
        self.counted.add(what)


def weights_of(path: Path, network: str) -> Path:
    save_file(build(network, 4, 64).state_dict(), path)
    return path


def test_weights_that_do_not_fit_are_refused_before_the_images_are_read(photos, tmp_path):
    file = weights_of(tmp_path / "other.safetensors", "shufflenet_v2_x1_0")
    progress = Kept()
    message = "give weights of shufflenet_v2_x0_5 with --weights shufflenet_v2_x0_5=FILE"
    with pytest.raises(DataError, match=message):
        compare(
            photos, models=f"{TINY_NETWORK},{TINY_NETWORK}/frozen", size=64, progress=progress,
            weights=f"{TINY_NETWORK}={file}", out=tmp_path / "out",
        )  # fmt: skip
    assert progress.counted <= {"finding images"}
    assert not (tmp_path / "out").exists()


def required(photos: Path, tmp_path: Path, **options: object) -> list[str]:
    """Return what is said about a comparison of a network from scratch and from weights."""
    file = weights_of(tmp_path / "w.safetensors", TINY_NETWORK)
    names = (NetworkName(TINY_NETWORK), NetworkName(f"{TINY_NETWORK}/frozen"))
    found = resolve(names, [f"{TINY_NETWORK}={file}"])
    source = open_source(str(photos))
    request = Options(**options).request(source, names, weights=found)  # type: ignore[arg-type]
    said: list[str] = []
    _require_networks(request, found, source, strict=False, say=said.append)
    return said[1:]  # after the note on the file


def test_another_size_and_rule_than_the_weights_are_announced(photos, tmp_path):
    assert required(photos, tmp_path) == []
    assert required(photos, tmp_path, size=64, resize="pad") == [
        f"{TINY_NETWORK} gets images of 64 px, as --size says; its weights were trained on 224 px",
        f"{TINY_NETWORK} gets images made square by pad, as --resize says; its weights were trained"
        " with crop of 87.5 % of the side",
    ]
    assert required(photos, tmp_path, resize="crop") == []


def test_a_recipe_without_effect_on_a_network_with_weights_is_named(photos, tmp_path):
    (tmp_path / "mine.toml").write_text("[train]\nminutes = 5.0\n")
    assert required(photos, tmp_path, recipe=str(tmp_path / "mine.toml")) == []
    own = '[data]\nsize_px = 96\nnormalise = "measured"\n[train]\nminutes = 5.0\n'
    (tmp_path / "mine.toml").write_text(own)
    (said,) = required(photos, tmp_path, recipe=str(tmp_path / "mine.toml"))
    assert said.startswith("data.size_px and data.normalise in ")
    assert "mine.toml have no effect on shufflenet_v2_x0_5/frozen, whose weights bring" in said
    *_, said = required(photos, tmp_path, recipe=str(tmp_path / "mine.toml"), size=64)
    assert said.startswith("data.normalise in ")


def test_a_damaged_record_in_the_store_spoils_no_hint(tmp_path, monkeypatch):
    monkeypatch.setenv("TOWERNET_STORE", str(tmp_path))
    (tmp_path / "vgg11").mkdir()
    (tmp_path / "vgg11" / "w.pth").touch()
    (tmp_path / "vgg11" / "w.pth.json").write_text("{")
    assert networks_here() == []


def test_weights_are_given_as_items_or_as_a_mapping(tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(b"")
    wanted = (f"mobilenet_v2={path}",)
    assert weights_given({"mobilenet_v2": path}) == wanted
    assert weights_given(wanted[0]) == weights_given(list(wanted)) == wanted
    assert weights_given("mobilenet_v2=" + "x" * 400) == ("mobilenet_v2=" + "x" * 400,)

"""Custom networks: by import path, or from an installed package."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import types
from pathlib import Path

import pytest
import torch

from conftest import TINY_NETWORK
from test_compare import exact_files, results_of
from towernet import files
from towernet.cli.options import predict_command
from towernet.errors import ConfigError, DataError, UnknownNameError, UntrustedCodeError
from towernet.hub.network import HubNetwork
from towernet.models import own
from towernet.models.catalogue import also_takes, build, names, outline, require_size
from towernet.models.own import NETWORKS, code_of, require_same_code, trust
from towernet.names import NetworkName
from towernet.records.contract import Contract
from towernet.testing import check_network

NETS = """
    import functools
    from pathlib import Path

    import torch
    import torch.nn.functional as F
    from torch import nn

    with (Path(__file__).parent / "imported.txt").open("a") as stream:
        stream.write("once\\n")


    class Small(nn.Module):
        def __init__(self, num_classes, width=8):
            super().__init__()
            self.stem = nn.Sequential(
                nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
            )
            self.stage = nn.Sequential(
                nn.Conv2d(width, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()
            )
            self.scale = nn.Parameter(torch.rand(32) + 0.5)
            self.head = nn.Linear(32, num_classes)

        def forward(self, x):
            x = self.stage(self.stem(x))
            return self.head(x.mean(dim=(2, 3)) * self.scale)


    class Drops(Small):
        def forward(self, x):
            return F.dropout(super().forward(x))


    class NeedsMore(Small):
        def __init__(self, num_classes, width):
            super().__init__(num_classes, width)


    class AsksForMore(Small):
        def forward(self, x):
            return super().forward(x) + self.mroe


    class ForOneSize(Small):
        def __init__(self, num_classes):
            super().__init__(num_classes)
            self.head = nn.Linear(32 * 16 * 16, num_classes)

        def forward(self, x):
            return self.head(self.stage(self.stem(x)).flatten(1)) * self.scale[0]


    def make(num_classes):
        return Small(num_classes, width=4)


    def nothing(num_classes):
        return None


    wider = functools.partial(Small, width=16)
    built = Small(2)
    answer = 42
"""
ENTRIES = """
    [towernet.models]
    offered = my_nets:Small
    resnet18 = my_nets:Small
    gone = my_nets:Gone
    nowhere = a_module_that_is_not_there:Small
    can't+be@said = my_nets:Small
"""


def write_nets(folder: Path) -> Path:
    path = folder / "my_nets.py"
    path.write_text(textwrap.dedent(NETS))
    return path


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """A folder with my_nets.py on the path, and a package that offers what is in it."""
    path = write_nets(tmp_path)
    info = tmp_path / "visitor-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: visitor\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(textwrap.dedent(ENTRIES))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(NETWORKS, "_trusted", set())
    yield path
    sys.modules.pop("my_nets", None)


def named(name: str) -> NetworkName:
    """Return a network's name, as the user gives it."""
    trust([NetworkName(name)])
    return NetworkName(name)


# By name, like any other network.


@pytest.mark.parametrize("name", ["my_nets:Small", "offered", "my_nets:make", "my_nets:wider"])
def test_a_custom_network_is_built_by_its_name(nets, name):
    torch.manual_seed(0)
    network = build(named(name), 3, 64)
    assert network.eval()(torch.rand(2, 3, 64, 64)).shape == (2, 3)
    torch.manual_seed(0)
    again = build(name, 3, 64)  # its size is known now: nothing else is drawn
    assert all(map(torch.equal, network.state_dict().values(), again.state_dict().values()))
    assert outline(name, 3, 64).head.weight.is_meta and also_takes(name, 64, 48)
    check_network(NETWORKS.find(name), size_px=64)


def test_attention_is_inserted(nets):
    network = build(named("my_nets:Small+se@stages"), 3, 64)
    added = {key for key in network.state_dict() if "attention" in key}
    assert added and network(torch.rand(2, 3, 64, 64)).shape == (2, 3)
    plain = build("my_nets:Small", 3, 64).state_dict()
    assert network.state_dict().keys() - added == plain.keys()


def test_built_in_and_torchvisions_networks_take_precedence(nets):
    assert type(build("resnet18", 3, 64)).__name__ == "ResNet"
    assert names()[:2] == ["towernet", "towernet_patch"] and names().count("resnet18") == 1
    assert names()[-3:] == ["gone", "nowhere", "offered"]
    assert code_of([NetworkName("resnet18")]) == {}


def test_a_network_that_cannot_be_built_only_loses_its_own_line(nets, towernet):
    done = towernet("models", "resnet18", "gone", "offered")
    assert done.returncode == 2 and "no network of my_nets is called 'Gone'" in done.stderr
    rows = {
        name: towernet("models", name, "--json", "--size", 64)
        for name in ("offered", "my_nets:Small", "nowhere")
    }
    for name in ("offered", "my_nets:Small"):
        (row,) = json.loads(rows[name].stdout)
        assert row["name"] == name and row["parameters"] > 2000 and row["problem"] is None
    (row,) = json.loads(rows["nowhere"].stdout)
    assert "there is no module a_module_that_is_not_there; install" in row["problem"]


def test_its_layers_are_listed(nets, towernet):
    done = towernet("summary", "my_nets:Small+se@stages", "--size", 64)
    assert done.returncode == 0 and "stage.0" in done.stdout and "SqueezeExcitation" in done.stdout


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        (
            "my_netts:Small", ConfigError,
            "network 'my_netts:Small': there is no module my_netts. Did you mean 'my_nets'? Else"
            " install its package, or add its folder to PYTHONPATH",
        ),
        (
            "my_nets:Smal", UnknownNameError,
            "no network of my_nets is called 'Smal'. Did you mean 'Small'? Known: AsksForMore,"
            " Drops, ForOneSize, NeedsMore, Small, make, nothing",
        ),
        (
            "my_nets:answer", ConfigError,
            "network 'my_nets:answer': my_nets:answer is an int; give a class derived from"
            " torch.nn.Module, or a function of the number of classes that returns one",
        ),
        (
            "my_nets:Path", ConfigError,
            "network 'my_nets:Path': my_nets:Path is a class of another kind; derive it from"
            " torch.nn.Module",
        ),
        (
            "my_nets:built", ConfigError,
            "network 'my_nets:built': my_nets:built is already built; give the class Small, so that"
            " each run has its own weights",
        ),
        (
            "my_nets:nothing", ConfigError,
            "my_nets:nothing builds None; it must return an instance of torch.nn.Module",
        ),
        (
            "my_nets:NeedsMore", ConfigError,
            "my_nets:NeedsMore cannot be built for 2 classes (TypeError: NeedsMore.__init__()"
            " missing 1 required positional argument: 'width'); it must take the number of classes,"
            " and everything else by keyword with a default",
        ),
        (
            "my_nets:AsksForMore", ConfigError,
            "my_nets:AsksForMore cannot take 32-px images or larger ones (AttributeError:"
            " 'AsksForMore' object has no attribute 'mroe'); fix its forward(), which is traced on"
            " meta tensors",
        ),
        (
            "my_nets.py:Small", ConfigError,
            "network 'my_nets.py:Small': 'my_nets.py:Small' is not an import path; write it as"
            " my_nets:Small",
        ),
        (
            "gone", UnknownNameError,
            "no network of my_nets is called 'Gone'. Known: AsksForMore, Drops, ForOneSize,"
            " NeedsMore, Small, make, nothing",
        ),
        (
            "nowhere", ConfigError,
            "network 'nowhere' of the package visitor: there is no module"
            " a_module_that_is_not_there; install its package, or add its folder to"
            " PYTHONPATH",
        ),
        (
            "ofered", UnknownNameError,
            "no network is called 'ofered'. Did you mean 'offered'? Known: alexnet, ",
        ),
    ],
)  # fmt: skip
def test_an_invalid_network_is_refused_in_a_sentence(nets, name, error, message):
    with pytest.raises(error) as caught:
        require_size(named(name), 32)
    assert str(caught.value).startswith(message)
    assert str(caught.value) == message or name == "ofered"


def test_a_network_for_one_size_is_refused_with_that_size(nets):
    with pytest.raises(ConfigError, match=r"^my_nets:ForOneSize cannot take 32-px images; give"):
        require_size(named("my_nets:ForOneSize"), 32)
    assert not also_takes("my_nets:ForOneSize", 64, 48)
    check_network(NETWORKS.find("my_nets:ForOneSize"), size_px=64)


# Only a user can allow code.


def test_no_record_imports_a_network(nets, monkeypatch):
    imported = nets.with_name("imported.txt")
    message = "the record refers to the custom network 'my_nets:Small', which towernet does not"
    with pytest.raises(UntrustedCodeError) as caught:
        build("my_nets:Small", 3, 64)
    assert str(caught.value) == (
        f"{message} import by itself; if you trust it, import my_nets first, or set"
        " TOWERNET_MODELS=my_nets:Small"
    )
    again = copy.copy(caught.value)  # as when it is sent to another process
    assert (again.path, str(again)) == (caught.value.path, str(caught.value))
    monkeypatch.setenv("TOWERNET_BLOCKS", "my_nets:Small")  # the variable for blocks does not apply
    with pytest.raises(UntrustedCodeError):
        build("my_nets:Small", 3, 64)
    assert not imported.exists()
    monkeypatch.setenv("TOWERNET_MODELS", "another:One, my_nets:Small")
    assert build("my_nets:Small", 3, 64)
    assert imported.read_text() == "once\n"


def test_a_record_can_name_only_classes_of_an_imported_module(nets):
    """A function would be called, and every module that is imported has some."""
    import my_nets

    assert NETWORKS.find("my_nets:Small") is my_nets.Small
    for path in ("my_nets:make", "os:_exit", "torch:manual_seed", "my_nets:wider"):
        with pytest.raises(UntrustedCodeError, match=r"if you trust it, set TOWERNET_MODELS="):
            NETWORKS.find(path)
    with pytest.raises(ConfigError, match=r"is a class of another kind; derive it from torch"):
        NETWORKS.find("subprocess:Popen")


def test_code_that_a_hub_folder_names_is_not_imported(nets, tmp_path, monkeypatch):
    contract = Contract(("cat", "dog"), 64, "crop", (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    saved = tmp_path / "saved"
    HubNetwork(named("my_nets:Small+se@stages"), contract).save_pretrained(saved)
    config = json.loads((saved / "config.json").read_text())
    assert list(config["code"]) == ["network my_nets:Small"]
    own.NETWORKS._trusted.clear()
    del sys.modules["my_nets"]
    message = r"config\.json needs the module my_nets for its network, which may run any code; impo"
    with pytest.raises(DataError, match=message):
        HubNetwork.from_pretrained(saved)
    monkeypatch.setenv("TOWERNET_MODELS", "my_nets:Small")
    assert HubNetwork.from_pretrained(saved)(torch.rand(1, 3, 64, 64)).shape == (1, 2)
    del sys.modules["my_nets"]
    nets.write_text(nets.read_text() + "\n# changed\n")
    with pytest.raises(
        ConfigError, match=r"^the source of network my_nets:Small has changed since"
    ):
        HubNetwork.from_pretrained(saved)
    files.write_json(saved / "config.json", config | {"code": {"network my_nets:Small": 3}})
    with pytest.raises(DataError, match=r"damaged or not from towernet \(code is "):
        HubNetwork.from_pretrained(saved)


# Its source.


def test_the_hash_covers_the_imported_source_and_the_named_module(nets, tmp_path):
    name = named("my_nets:Small")
    key = "network my_nets:Small"
    before = code_of([name])[key]
    assert before == files.sha256(nets)
    nets.write_text(nets.read_text() + "\n# a thought\n")
    assert code_of([name])[key] == before  # this process keeps the imported source
    del sys.modules["my_nets"]
    assert code_of([name])[key] == files.sha256(nets) != before
    (tmp_path / "mine_too.py").write_text("from my_nets import Small\n")
    try:
        hashes = {path: code_of([named(path)])[f"network {path}"] for path in ("mine_too:Small",)}
    finally:
        sys.modules.pop("mine_too", None)
    assert hashes["mine_too:Small"] not in (before, files.sha256(nets))
    assert code_of([named("my_nets:wider")])["network my_nets:wider"] == files.sha256(nets)


def test_code_typed_into_an_interpreter_has_no_source_to_hash(nets, monkeypatch):
    typed = types.ModuleType("typed")
    monkeypatch.setitem(sys.modules, "typed", typed)
    typed.Net = type("Net", (torch.nn.Linear,), {"__module__": "typed"})
    assert code_of([NetworkName("typed:Net")]) == {"network typed:Net": ""}


def test_a_changed_block_is_refused_unless_its_source_was_not_recorded(nets):
    (nets.parent / "my_block.py").write_text(
        "from towernet.attention import SqueezeExcitation as Mine\n"
    )
    name = named("my_nets:Small+my_block:Mine")
    as_now = code_of([name])
    try:
        require_same_code(name, as_now, "runs/mine")
        require_same_code(name, {"torch": "2"}, "runs/mine")  # weights from before it was recorded
        for key in ("network my_nets:Small", "attention my_block:Mine"):
            with pytest.raises(ConfigError, match=f"^the source of {key} has changed since r"):
                require_same_code(name, as_now | {key: "0" * 64}, "runs/mine")
    finally:
        sys.modules.pop("my_block", None)


# All verbs of the command, from a folder outside the project.

WORDS = (
    "--recipe", "short.toml", "--epochs", 2, "--size", 64, "--batch-size", 8, "--workers", 1,
)  # fmt: skip
MODELS = f"my_nets:Small+se@stages,{TINY_NETWORK}"


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outside")
    write_nets(folder)
    (folder / "short.toml").write_text("[train]\ntrial_factors = [1.0]\n")
    return folder


def command(*words: object) -> list[str]:
    program = Path(sys.executable).parent / "towernet"  # `python -m` would look in `folder`
    return [str(program), *map(str, words)]


def run_in(folder: Path, words: list[str] | str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        words, shell=isinstance(words, str), capture_output=True, text=True, check=False,
        cwd=folder, env=os.environ | {"PATH": path},
    )  # fmt: skip


def proposed(refused: subprocess.CompletedProcess[str]) -> str:
    """Return the command that a refusal proposes."""
    last = refused.stderr.splitlines()[-1]
    assert refused.returncode == 2 and last.startswith("error: "), refused.stderr
    return last.partition("if you trust it, run: ")[2]


def compare(photos: Path, out: str, models: str = MODELS) -> list[str]:
    return command("compare", photos, "--models", models, *WORDS, "--out", out)


@pytest.fixture(scope="module")
def finished(photos, outside):
    done = run_in(outside, compare(photos, "whole"))
    assert done.returncode == 0, done.stderr
    return outside / "whole", done


@pytest.mark.proof
def test_it_is_compared_and_its_source_is_recorded(finished, outside):
    folder, done = finished
    assert "my_nets:Small" in done.stdout
    key = "network my_nets:Small"
    protocol = (folder / "protocol.toml").read_text()
    assert f'"{key}" = "{files.sha256(outside / "my_nets.py")}"' in protocol
    networks = {network["name"]: network["status"] for network in results_of(folder)["networks"]}
    assert networks.keys() == set(MODELS.split(",")) and "failed" not in networks.values()


@pytest.mark.proof
def test_killed_and_rerun_it_ends_with_the_same_bytes(finished, photos, outside):
    whole, _ = finished
    killed = outside / "killed"
    killed.mkdir()
    for name in ("protocol.toml", "samples.parquet"):  # so the timed choices are the same
        shutil.copy(whole / name, killed)
    words = compare(photos, "killed")
    running = subprocess.Popen(words, cwd=outside, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while not list(killed.glob("runs/my_nets*/metrics.jsonl")) and time.monotonic() < until:
        assert running.poll() is None, running.stderr.read()
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    assert running.returncode == -signal.SIGKILL and not (killed / "results.json").exists()

    source = outside / "my_nets.py"
    as_it_was = source.read_text()
    source.write_text(as_it_was.replace("width=8", "width=9"))
    refused = run_in(outside, words)
    assert refused.returncode == 2
    assert "the source of network my_nets:Small has changed since" in refused.stderr
    assert refused.stderr.endswith("; restore the file, or choose another --out\n")
    source.write_text(as_it_was)

    done = run_in(outside, words)
    assert done.returncode == 0, done.stderr
    assert exact_files(killed) == exact_files(whole)
    assert results_of(killed) == results_of(whole)


@pytest.mark.proof
@pytest.mark.parametrize("verb", ["predict {run} {picture}", "evaluate {run} {photos}",
                                  "explain {run} {picture} --out maps.png"])  # fmt: skip
def test_it_predicts_with_the_command_that_the_refusal_proposes(verb, finished, photos, outside):
    folder, done = finished
    (run,) = folder.glob("runs/my_nets*-0")
    where = {"run": run.relative_to(outside), "picture": next(photos.rglob("*.png"))}
    words = verb.format(**where, photos=photos)
    before = (outside / "imported.txt").read_text()
    refused = run_in(outside, f"towernet {words}")
    assert proposed(refused) == f"TOWERNET_MODELS=my_nets:Small towernet {words}"
    assert (outside / "imported.txt").read_text() == before
    done = run_in(outside, proposed(refused))
    assert done.returncode == 0, done.stderr


@pytest.mark.proof
def test_changed_source_does_not_predict_with_the_trained_weights(finished, photos, outside):
    """The changed network accepts the same weights, and would be silently wrong."""
    folder, _ = finished
    source, picture = outside / "my_nets.py", next(photos.rglob("*.png"))
    as_it_was = source.read_text()
    (run,) = folder.glob("runs/my_nets*-0")
    source.write_text(as_it_was.replace("* self.scale)", "* -self.scale)"))
    try:
        refused = run_in(outside, f"TOWERNET_MODELS=my_nets:Small towernet predict {run} {picture}")
        again = run_in(outside, compare(photos, "whole"))
    finally:
        source.write_text(as_it_was)
    assert refused.returncode == 2 and refused.stdout == ""
    key = "network my_nets:Small"
    assert re.fullmatch(
        rf"error: the source of {key} has changed since {re.escape(str(run))} was trained"
        r" \(its SHA-256 was \w{8} and is \w{8}\); restore the file, or train again\n",
        refused.stderr,
    )
    assert again.returncode == 2 and f"the source of {key} has changed since" in again.stderr


@pytest.mark.proof
def test_changed_source_is_never_accepted(finished, photos, outside):
    folder, _ = finished
    source, stopped = outside / "my_nets.py", shutil.copytree(folder, outside / "stopped")
    (stopped / "results.json").unlink()  # as if it had been killed there
    before = {path: path.read_bytes() for path in stopped.rglob("run.json")}
    as_it_was = source.read_text()
    source.write_text(f"{as_it_was}# a thought\n")
    try:
        refused = run_in(outside, compare(photos, "stopped"))
        still = run_in(outside, [*compare(photos, "stopped"), "--accept-changes"])
    finally:
        source.write_text(as_it_was)
    for done in (refused, still):
        assert done.returncode == 2, done.stderr
        assert "the source of network my_nets:Small has changed since stopped was started" in (
            done.stderr
        )
    assert {path: path.read_bytes() for path in stopped.rglob("run.json")} == before


@pytest.mark.proof
def test_a_network_that_breaks_the_contract_is_not_trained(photos, outside):
    refused = run_in(outside, compare(photos, "broken", "my_nets:Drops"))
    assert refused.returncode == 2 and not (outside / "broken").exists()
    assert refused.stderr.splitlines()[-1].startswith(
        "error: Drops does not repeat its outputs in evaluation mode (check_network_repetition, 5"
        " classes, 64-px images): for the same images, its outputs differ by up to"
    )


@pytest.mark.proof
def test_a_run_is_resumed_by_the_command_that_the_refusal_proposes(photos, outside):
    words = ("train", photos, "--model", "my_nets:make+my_nets_block:Mine@stages", "--out", "run")
    block = "from towernet.attention import SqueezeExcitation as Mine\n"
    (outside / "my_nets_block.py").write_text(block)
    done = run_in(outside, command(*words, *WORDS))
    assert done.returncode == 0, done.stderr
    (outside / "run" / "results.json").unlink()  # as if it had been killed there
    refused = run_in(outside, "towernet train --resume run")
    once = proposed(refused)
    assert once == "TOWERNET_MODELS=my_nets:make towernet train --resume run"
    twice = proposed(run_in(outside, once))  # it names its block, too
    assert twice == (
        "TOWERNET_MODELS=my_nets:make TOWERNET_BLOCKS=my_nets_block:Mine towernet train --resume"
        " run"
    )
    assert run_in(outside, twice).returncode == 0
    assert (outside / "run" / "results.json").exists()


def test_the_command_to_predict_names_all_custom_code():
    name = NetworkName("my_nets:make+my_block:Mine@stages")
    assert predict_command(name, Path("my run")) == (
        "TOWERNET_MODELS=my_nets:make TOWERNET_BLOCKS=my_block:Mine towernet predict 'my run' IMAGE"
    )
    assert predict_command(NetworkName("resnet18+se"), Path("run")) == "towernet predict run IMAGE"


def test_imported_weights_become_a_run_of_a_custom_network(nets, tmp_path, towernet):
    torch.save(build(named("my_nets:Small"), 2, 64).state_dict(), tmp_path / "weights.pt")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    words = ("--model", "my_nets:Small", "--classes", tmp_path / "classes.txt", "--size", 64)
    done = towernet("import-weights", tmp_path / "weights.pt", *words, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    asked = f"TOWERNET_MODELS=my_nets:Small towernet predict {tmp_path / 'run'} IMAGE"
    assert done.stdout.splitlines()[-1].strip() == asked
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["versions"]["network my_nets:Small"] == files.sha256(nets)

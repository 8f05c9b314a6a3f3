"""Weights as training programs leave them: wrapped, renamed, beside other things; class lists."""

from __future__ import annotations

import argparse
import collections
import datetime
import json
import pathlib
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from conftest import TINY_NETWORK
from test_foreign import archive, imported
from towernet.data.class_list import read_class_names
from towernet.errors import DataError
from towernet.models.catalogue import build, outline
from towernet.models.foreign import read_foreign

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(3)
    return build(TINY_NETWORK, 3, 64).state_dict()


def under(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def renamed(state: State, **names: str) -> State:
    """Return the state with the last layer `fc` under another name."""
    return {
        f"{names['fc']}.{name.removeprefix('fc.')}" if name.startswith("fc.") else name: value
        for name, value in state.items()
    }


def optimizer_state(state: State) -> dict[str, object]:
    network = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


def of_data_parallel(state: State) -> State:
    return {name.replace("stage", "module.stage", 1): value for name, value in state.items()}


# What a file holds, and what is said of it.
WRAPPED = {
    "nothing": (lambda s: dict(s), ()),
    "module.": (lambda s: under("module.", s), ("'module' in their names was removed",)),
    "model.": (lambda s: under("model.", s), ("prefix 'model.' of their names",)),
    "backbone.": (lambda s: under("backbone.", s), ("prefix 'backbone.'",)),
    "two prefixes": (lambda s: under("net.encoder.", s), ("prefix 'net.encoder.'",)),
    "lightning around ddp": (lambda s: {"state_dict": under("model.module.", s)},
                             ("those under 'state_dict'", "'module'", "prefix 'model.'")),
    "compiled": (lambda s: under("_orig_mod.module.", s), ("'_orig_mod' and 'module'",)),
    "parallel features only": (of_data_parallel, ("'module' in their names",)),
    "net": (lambda s: {"epoch": 3, "net": s, "acc": 91.1}, ("those under 'net'",)),
    "nested": (lambda s: {"model": {"state_dict": s, "step": 4}}, ("under 'model.state_dict'",)),
    "ordered": (lambda s: {"net": collections.OrderedDict(s)}, ("under 'net'",)),
    "timm": (lambda s: {"epoch": 3, "arch": "x", "state_dict": s, "optimizer": optimizer_state(s),
                        "args": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("x"))},
             ("under 'state_dict'",)),
    "numbers of numpy": (lambda s: {"state_dict": s, "best": np.float64(0.5), "lr": np.ones(3)},
                         ("under 'state_dict'",)),
    "settings": (lambda s: {"model": s, "conf": collections.defaultdict(list, a=[1]),
                            "when": datetime.datetime(2026, 1, 1), "at": {3: {4: 5}},
                            "steps": collections.Counter([3, 5])}, ("under 'model'",)),
    "parameters": (lambda s: {"net": {name: nn.Parameter(v) if v.is_floating_point() else v
                                      for name, v in s.items()}}, ("under 'net'",)),
    "averaged": (lambda s: {**under("module.", s), "n_averaged": torch.tensor(4)},
                 ("'module'", "left out, since no prediction needs it: n_averaged (1 tensor)")),
    "loss": (lambda s: {**under("model.", s), "criterion.weight": torch.ones(3),
                        "val_acc.total": torch.ones(())},
             ("'model.'", "needs it: criterion.weight, val_acc.total (2 tensors)")),
    "auxiliary": (lambda s: {**s, "AuxLogits.fc.weight": torch.ones(3, 4),
                             "AuxLogits.fc.bias": torch.ones(3)},
                  ("needs it: AuxLogits.fc.bias, AuxLogits.fc.weight (2 tensors)",)),
    "auxiliary with prefix": (lambda s: {**under("net.", s), "net.aux1.conv.weight": torch.ones(3)},
                              ("'net.'", "needs it: net.aux1.conv.weight (1 tensor)")),
    "distilled": (lambda s: {**s, "head_dist.weight": torch.ones(3, 4),
                             "head_dist.bias": torch.ones(3)}, ("head_dist.bias",)),
    "thop": (lambda s: {**s, "total_ops": torch.ones(1), "conv1.total_params": torch.ones(1)},
             ("conv1.total_params, total_ops",)),
    "head": (lambda s: renamed(s, fc="head"), ("last layer 'head' is the network's 'fc'",)),
    "head after dropout": (lambda s: renamed(s, fc="fc.1"), ("last layer 'fc.1' is the",)),
    "backbone and head": (
        lambda s: {**under("backbone.", {n: v for n, v in s.items() if n[:3] != "fc."}),
                   "head.fc.weight": s["fc.weight"], "head.fc.bias": s["fc.bias"]},
        ("'backbone.'", "last layer 'head.fc' is the network's 'fc'")),
    "the same twice": (lambda s: {"state_dict": s, "model": dict(s)}, ("under 'state_dict'",)),
}  # fmt: skip


@pytest.mark.parametrize("name", WRAPPED)
def test_wrapped_weights_are_found_and_what_was_done_is_said(tmp_path, state, name):
    wrap, notes = WRAPPED[name]
    path = tmp_path / "w.pth.tar"
    torch.save(wrap(state), path)
    found, said = imported(path)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], value) for key, value in state.items())
    assert len(said) == len(notes)
    assert all(note in sentence for note, sentence in zip(notes, said, strict=True))


def test_a_prefix_in_a_safetensors_file_is_removed(tmp_path, state):
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(under("model.", state), path)
    found, (note,) = imported(path)
    assert torch.equal(found["fc.bias"], state["fc.bias"])
    assert note == "the prefix 'model.' of their names was removed"


def test_a_lightning_checkpoint_is_read_whatever_its_name(tmp_path, state):
    for name in ("last.ckpt", "learner.pkl", "pytorch_model.bin"):
        torch.save({"state_dict": under("model.", state), "loops": {"x": 1}}, tmp_path / name)
        found, _ = imported(tmp_path / name)
        assert torch.equal(found["fc.bias"], state["fc.bias"])


def other(state: State) -> State:
    return {name: value + 1 for name, value in state.items()}


TWO_SETS = {
    "state_dict_ema": lambda s: {"state_dict": s, "state_dict_ema": other(s)},
    "ema_model": lambda s: {**under("model.", s), **under("ema_model.", other(s))},
    "state_dict.teacher": lambda s: {
        "state_dict": {**under("student.", s), **under("teacher.", other(s))}
    },
}


@pytest.mark.parametrize("key", TWO_SETS)
def test_of_two_sets_of_weights_none_is_guessed(tmp_path, state, key):
    path = tmp_path / "w.pt"
    torch.save(TWO_SETS[key](state), path)
    with pytest.raises(DataError, match=rf"contains 2 sets .* that fit .*; choose .* --key {key}$"):
        imported(path)
    found, _ = imported(path, key=key)
    assert torch.equal(found["fc.bias"], state["fc.bias"] + 1)
    with pytest.raises(DataError, match=r"has no weights under 'mean_teacher'; it has .*"):
        imported(path, key="mean_teacher")


REFUSED = {
    "another prefix for a part": (
        lambda s: {("a." if i % 2 else "b.") + name: v for i, (name, v) in enumerate(s.items())},
        r"lacks \S+ of shufflenet\w+ \(\d+ missing\)"),
    "a normalisation of its own": (
        lambda s: {**under("1.", s), "0.mean": torch.ones(3), "0.std": torch.ones(3)},
        r"contains '0\.mean', which is not in"),
    "one layer more": (
        lambda s: {**under("net.", s), "net.fc2.weight": torch.ones(3, 3),
                   "net.fc2.bias": torch.ones(3)}, r"contains 'net\.fc2\.bias', which is not in"),
    "a head of two layers": (
        lambda s: {**renamed(s, fc="fc.3"), "fc.0.weight": torch.ones(1024, 1024),
                   "fc.0.bias": torch.ones(1024)},
        r"lacks fc\.weight of \w+ \(2 missing\) and contains 'fc\.0\.bias' \(4 unknown\)"),
    "a head of other features": (
        lambda s: {**{n: v for n, v in s.items() if n[:3] != "fc."},
                   "head.weight": torch.ones(3, 512), "head.bias": torch.ones(3)},
        r"lacks fc\.weight .* and contains 'head\.bias' \(2 unknown\)"),
    "no head": (lambda s: {n: v for n, v in s.items() if n[:3] != "fc."},
                r"it has no last layer, so it cannot predict classes; give weights of the whole"),
    "another network": (lambda s: {"a.weight": torch.ones(3)},
                        r"lacks conv1\.0\.weight of \w+ \(\d+ missing\) and contains 'a\.weight'"),
    "other classes": (lambda s: {"net": s | {"fc.weight": torch.ones(5, 1024)}},
                      r"w\.pt was trained for 5 classes \(fc\.weight has the shape \(5, 1024\)\),"
                      r" but classes\.txt has 3; give one class name for each output"),
    "other classes, another name": (
        lambda s: renamed(s | {"fc.weight": torch.ones(5, 1024), "fc.bias": torch.ones(5)},
                          fc="head"), r"w\.pt was trained for 5 classes"),
    "only an optimizer": (lambda s: {"optimizer": optimizer_state(s)},
                          r"contains no network weights \('optimizer' is not a plain tensor\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_may_change_the_answers_is_refused(tmp_path, state, name):
    wrap, message = REFUSED[name]
    torch.save(wrap(state), tmp_path / "w.pt")
    with pytest.raises(DataError, match=message):
        imported(tmp_path / "w.pt")


def test_auxiliary_classifiers_of_torchvision_are_left_out(tmp_path):
    from torchvision.models import googlenet

    torch.manual_seed(0)
    full = googlenet(num_classes=3, aux_logits=True, init_weights=False).state_dict()
    torch.save(full, tmp_path / "w.pt")
    found, (note,) = imported(tmp_path / "w.pt", "googlenet")
    assert found.keys() == outline("googlenet", 3, 64).state_dict().keys()
    assert "left out, since no prediction needs it: aux1.conv.bn.bias" in note


# Files that name classes.


class Trainer:
    """A class of the user's program."""


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        (lambda s: {"state_dict": s, "trainer": Trainer()},
         r"torch\.save\(torch\.load\('w\.pt', weights_only=False\)\['state_dict'\], 'weights"),
        (lambda s: nn.Linear(2, 3),
         r"whole network: .*torch\.save\(torch\.load\('w\.pt', weights_only=False\)\.state_dict"),
        (lambda s: {"epoch": 1, "model": nn.Linear(2, 3)},
         r"weights_only=False\)\['model'\]\.state_dict\(\), 'weights\.pt'\)"),
    ],
)  # fmt: skip
def test_a_file_with_other_classes_is_refused_with_the_line_that_takes_the_weights_out(
    tmp_path, state, content, advice
):
    torch.save(content(state), tmp_path / "w.pt")
    with pytest.raises(DataError, match=rf"so it was not opened; .*{advice}"):
        read_foreign(tmp_path / "w.pt")


def test_no_object_of_a_file_is_made(tmp_path, state, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a class that a file names was used")

    torch.save({"net": state, "args": argparse.Namespace(lr=1), "x": np.float64(2)}, tmp_path / "w")
    for owner, name in ((argparse.Namespace, "__init__"), (argparse.Namespace, "__setattr__")):
        monkeypatch.setattr(owner, name, refuse)
    before = set(torch.serialization.get_safe_globals())
    path = (tmp_path / "w").rename(tmp_path / "w.pt")
    assert read_foreign(path).keys() == {"net"}
    assert set(torch.serialization.get_safe_globals()) == before


def test_bytes_in_a_slow_coding_are_refused(tmp_path):
    pickled = (
        b"\x80\x02}X\x01\0\0\0ac_codecs\nencode\nX\x04\0\0\0\xc3\xbc\xc3\xbcX\x08\0\0\0punycode"
        b"\x86Rs."
    )
    with pytest.raises(DataError, match=r"damaged \(bytes in it are encoded as punycode\)"):
        read_foreign(archive(tmp_path / "w.pt", pickled))


def test_a_bit_flip_anywhere_in_a_checkpoint_is_read_or_named(tmp_path):
    path = tmp_path / "w.pt"
    saved = {"net": {"a": torch.ones(2)}, "args": argparse.Namespace(a=1), "x": np.float64(2),
             "d": collections.defaultdict(list, b=[1])}  # fmt: skip
    torch.save(saved, path)
    with zipfile.ZipFile(path) as sound:
        pickled = next(sound.read(name) for name in sound.namelist() if "data.pkl" in name)
    for place in range(len(pickled)):
        for bit in (place % 8, 6):
            flipped = bytearray(pickled)
            flipped[place] ^= 1 << bit
            try:
                read_foreign(archive(path, bytes(flipped)))
            except DataError as error:
                assert "w.pt" in str(error)


def test_dictionaries_that_contain_themselves_end(tmp_path):
    pickled = b"\x80\x02}q\0X\x01\0\0\0ah\0s."  # d = {}; d['a'] = d
    with pytest.raises(DataError, match="contains no network weights"):
        read_foreign(archive(tmp_path / "w.pt", pickled))


def test_a_name_of_a_million_dots_costs_nothing(tmp_path, state):
    torch.save({**state, "." * 1_000_000: torch.ones(1)}, tmp_path / "w.pt")
    with pytest.raises(DataError, match="which is not in"):
        imported(tmp_path / "w.pt")


# The class names.

ANT_BEE_CAT = ("ant", "bee", "cat")
LISTS = {
    "lines.txt": "ant\nbee\ncat\n",
    "blank_at_end.txt": "ant\nbee\ncat\n\n  \n\n",
    "windows.txt": "ant\r\nbee\r\ncat\r\n",
    "numbered.txt": "0 ant\n1 bee\n2 cat\n",
    "numbered_otherwise.txt": "2: cat\n0: ant\n1: bee",
    "list.json": ["ant", "bee", "cat"],
    "numbers.json": {"0": "ant", "1": "bee", "2": "cat"},
    "order.json": {"2": "cat", "0": "ant", "1": "bee"},
    "indices.json": {"cat": 2, "ant": 0, "bee": 1},
    "text_indices.json": {"cat": "2", "ant": "0", "bee": "1"},
    "imagenet.json": {"0": ["n1", "ant"], "1": ["n2", "bee"], "2": ["n3", "cat"]},
    "config.json": {"architectures": ["X"], "id2label": {"0": "ant", "1": "bee", "2": "cat"},
                    "label2id": {"ant": 0, "bee": 1, "cat": 2}},
    "coco.json": {"categories": [{"id": 1, "name": "bee"}, {"id": 0, "name": "ant"},
                                 {"id": 2, "name": "cat"}]},
    "classes.txt": ["ant", "bee", "cat"],
    "column.csv": "class\nant\nbee\ncat\n",
    "no_head.csv": "ant\nbee\ncat\n\n",
    "two.csv": "id,name\n1,bee\n0,ant\n2,cat\n",
    "turned.csv": "name;index\r\ncat;2\r\nant;0\r\nbee;1\r\n",
    "bare.csv": "0,ant\n1,bee\n2,cat\n",
    "three.tsv": "index\tname\tnote\n0\tant\tx\n1\tbee\t\n2\tcat\ty\n",
}  # fmt: skip


@pytest.mark.parametrize("name", LISTS)
def test_class_lists_are_read_as_people_have_them(tmp_path, name):
    content = LISTS[name]
    text = content if isinstance(content, str) else json.dumps(content, indent=1)
    for coding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / name).write_bytes(text.encode(coding))
        assert read_class_names(tmp_path / name) == ANT_BEE_CAT


def test_names_that_look_like_something_else_stay(tmp_path):
    for names in (["1 euro", "2 euro", "5 euro"], ["0", "1", "2"], ["0 x", "1 x"], ["[a]", "{b}"]):
        (tmp_path / "c.txt").write_text("\n".join(names))
        assert read_class_names(tmp_path / "c.txt") == tuple(names)
    (tmp_path / "c.json").write_text('{"7": 0, "3": 1}')
    assert read_class_names(tmp_path / "c.json") == ("7", "3")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.json", '{"1": "ant", "2": "bee"}', r"numbers its 2 classes 1 to 2; number them 0 to 1"),
        ("c.json", '{"ant": 0, "bee": 0}', r"numbers its 2 classes 0 to 0; number them 0 to 1"),
        ("c.json", '{"ant": 0, "ant": 1}', r"is not sound JSON \('ant' is in it twice\); write"),
        ("c.json", '["ant", "bee"', r"is not sound JSON \(.*\); write it as"),
        ("c.json", "[" * 100_000, r"is not sound JSON"),
        ("c.json", '{"ant": {"x": 1}}', r"is JSON, but no list of class names; write it as"),
        ("c.json", "3", r"is JSON, but no list of class names"),
        ("c.json", '["ant", 3]', r"is JSON, but no list of class names"),
        ("c.json", '["ant", "ant"]', r"names the class 'ant' twice"),
        ("c.json", '["ant"]', r"contains 1 class \(ant\), and at least two are needed; give one"),
        ("c.json", '{"0": "ant", "1": true}', r"is JSON, but no list of class names"),
        ("c.yaml", "names: [ant, bee]", r"is YAML; give the class names one per line"),
        ("c.csv", "a,b\nc,d\n", r"has 2 columns, and it is not clear which one names the classes"),
        ("c.csv", "a,b\nc\n", r"has rows of 1 and of 2 cells"),
        ("c.csv", "id,name\n0,ant\n1,\n", r"class 2 has no name"),
        ("c.csv", "", r"has 0 columns"),
        ("c.txt", "ant\n\nbee", r"line 2 is empty"),
        ("c.txt", "a\0b\nc", r"is not a text file"),
    ],
)  # fmt: skip
def test_lists_that_are_not_clear_are_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=rf"{name} .*{message}|{name}: {message}"):
        read_class_names(tmp_path / name)


# The command.


@pytest.mark.parametrize(
    ("resize", "words"),
    [
        (None, "cropped to the centre square"),
        ("crop", "cropped to the centre square"),
        ("pad", "padded to a square"),
        ("squash", "squashed to a square"),
    ],
)
def test_the_resize_rule_is_asked_for_stored_and_said(tmp_path, state, towernet, resize, words):
    torch.save({"net": state}, tmp_path / "w.pt")
    (tmp_path / "c.json").write_text('{"ant": 0, "bee": 1, "cat": 2}')
    asked = ("import-weights", tmp_path / "w.pt", "--model", TINY_NETWORK, "--size", 64,
             "--classes", tmp_path / "c.json", "--out", tmp_path / "run")  # fmt: skip
    done = towernet(*asked, *(() if resize is None else ("--resize", resize)))
    assert f"for 3 classes and 64-px images, {words}, with the mean 0.485" in done.stdout
    assert "w.pt: the weights are those under 'net'\n" in done.stdout
    contract = json.loads((tmp_path / "run" / "run.json").read_text())["contract"]
    assert (contract["resize"], contract["class_names"]) == (
        resize or "crop",
        ["ant", "bee", "cat"],
    )
    refused = towernet(*asked[:-1], tmp_path / "other", "--resize", "stretch")
    assert (refused.returncode, refused.stderr) == (
        2, "error: --resize is stretch; give crop, pad or squash\n",
    )  # fmt: skip

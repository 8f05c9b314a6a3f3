"""Imported weights: three kinds are read, all others and all hostile ones are refused."""

import contextlib
import io
import itertools
import os
import pickle
import pickletools
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from conftest import TINY_NETWORK
from towernet import files
from towernet.cli.import_weights import import_weights
from towernet.errors import ConfigError, DataError, UnknownNameError
from towernet.models.catalogue import build
from towernet.models.foreign import read_foreign
from towernet.models.foreign_fit import find_weights, fit
from towernet.predict import load_run, predict_files


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(3)
    return build(TINY_NETWORK, 3, 64).eval()


@pytest.fixture
def classes(tmp_path) -> Path:
    path = tmp_path / "classes.txt"
    path.write_text("cat\nbig dog\nünï\u2028code\n", encoding="utf-8")
    return path


def under_module(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"module.{name}": value for name, value in state.items()}


def half(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.half() if value.is_floating_point() else value
            for name, value in state.items()}  # fmt: skip


def save_with_stream(state: dict[str, torch.Tensor], path: Path) -> None:
    """Save as torch does if the name is not UTF-8."""
    with path.open("wb") as stream:
        torch.save(state, stream)


def save_bytes(state: dict[str, torch.Tensor], path: Path) -> None:
    path.write_bytes(safetensors.torch.save(state))


def imported(
    path: Path, name: str = TINY_NETWORK, *, size_px: int = 64, key: str | None = None
) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Return the state of a network for three classes, and the notes on how it was found."""
    asked = (name, 3, size_px)
    tensors, notes = find_weights(read_foreign(path), *asked, path=path, key=key)
    return fit(tensors, *asked, path=path, classes="classes.txt"), notes


# Each way of saving, with the tolerance of the numbers that are read back.
WAYS = {
    "r.safetensors": (save_bytes, 0),
    "caf\udce9.safetensors": (save_bytes, 0),
    "caf\udce9.pt": (save_with_stream, 0),
    "r.bin": (save_bytes, 0),
    "half.safetensors": (lambda state, path: save_bytes(half(state), path), 1e-2),
    "r.pt": (torch.save, 0),
    "training.pth": (lambda state, path: torch.save({"epoch": 3, "best": 0.5, "lr": [1, 2],
                                                     "state_dict": under_module(state)}, path), 0),
    "model.pth": (lambda state, path: torch.save({"model": dict(state)}, path), 0),
    "compiled.pt": (lambda state, path: torch.save(
        {f"_orig_mod.{name}": value for name, value in state.items()}, path), 0),
    "old.pt": (lambda state, path: torch.save(
        {name: value for name, value in state.items() if "num_batches" not in name}, path), 0),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(WAYS))
def test_weights_are_read_back_from_each_way_of_saving(tmp_path, network, name):
    save, tolerance = WAYS[name]
    path = tmp_path / name
    save(network.state_dict(), path)
    state, _ = imported(path)
    assert state.keys() == network.state_dict().keys()
    for key, value in network.state_dict().items():
        torch.testing.assert_close(state[key], value, rtol=tolerance, atol=tolerance)


def test_parameters_and_strided_tensors_are_read(tmp_path):
    path = tmp_path / "x.pt"
    rows = torch.arange(6.0).reshape(2, 3)
    torch.save({"a": torch.nn.Parameter(rows), "b": rows.T, "c": rows[0]}, path)
    found = read_foreign(path)[""]
    torch.testing.assert_close(found["a"].detach(), rows)
    torch.testing.assert_close(found["b"], rows.T)
    torch.testing.assert_close(found["c"], rows[0])


def test_an_imported_run_predicts_as_the_network_did(tmp_path, network, classes, capsys):
    torch.save(network.state_dict(), tmp_path / "w.pt")
    import_weights(tmp_path / "w.pt", classes, tmp_path / "run", TINY_NETWORK, 64)
    said = (
        "run contains shufflenet_v2_x0_5 for 3 classes and 64-px images, cropped to the centre"
        " square, with the mean 0.485 0.456"
    )
    assert said in capsys.readouterr().out
    Image.new("RGB", (64, 64), (200, 30, 90)).save(tmp_path / "x.png")
    predictor = load_run(tmp_path / "run")
    assert predictor.contract.class_names == ("cat", "big dog", "ünï\u2028code")
    (probabilities,) = predict_files(predictor, [tmp_path / "x.png"])
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = ((torch.tensor([200, 30, 90]) / 255 - mean) / std)[None, :, None, None]
    with torch.no_grad():
        wanted = network(x.expand(1, 3, 64, 64)).softmax(dim=1)[0].numpy()
    np.testing.assert_allclose(probabilities, wanted, atol=1e-5)


def test_changed_weights_of_an_imported_run_are_detected(tmp_path, network, classes):
    torch.save(network.state_dict(), tmp_path / "w.pt")
    import_weights(tmp_path / "w.pt", classes, tmp_path / "run", TINY_NETWORK, 64)
    weights = tmp_path / "run" / "best.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(DataError, match=r"best\.safetensors was changed after the run wrote it"):
        load_run(tmp_path / "run")


def test_the_given_mean_std_and_size_are_used(tmp_path, network, classes, towernet):
    torch.save(network.state_dict(), tmp_path / "w.pt")
    words = ("import-weights", tmp_path / "w.pt", "--model", TINY_NETWORK, "--classes", classes)
    scale = ("--size", 32, "--mean", 0.5, 0.4, 0.3, "--std", 0.2, 0.2, 0.1)
    assert towernet(*words, "--out", tmp_path / "run", *scale).returncode == 0
    contract = files.read_json(tmp_path / "run" / "run.json")["contract"]
    assert (contract["size_px"], contract["mean"], contract["std"]) == (
        32, [0.5, 0.4, 0.3], [0.2, 0.2, 0.1],
    )  # fmt: skip
    for wrong, message in (
        (("--mean", 123, 117, 104), "--mean is 123 117 104; give three numbers in [0, 1]"),
        (("--std", 0, 1, 1), "--std is 0 1 1; give three numbers of at least 0.001"),
        (("--std", "nan", 1, 1), "--std is nan 1 1; give three numbers of at least 0.001"),
    ):
        run = towernet(*words, "--out", tmp_path / "wrong", *wrong)
        assert (run.returncode, run.stderr) == (2, f"error: {message}\n")


# Weights that do not fit the network.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("fc.weight"), r"w\.pt lacks fc\.weight of shufflenet\w+ \(1 missing\)"),
        (lambda s: s.update(extra=torch.ones(1)), r"contains 'extra', which is not in .* \(1 unk"),
        (lambda s: s.update({"a\x1b[2J": torch.ones(1)}), r"contains 'a\\x1b\[2J', which"),
        (lambda s: s.update({"fc.bias": torch.ones(5)}),
         r"w\.pt was trained for 5 classes \(fc\.bias has .* \(5,\)\), but classes\.txt has 3"),
        (lambda s: s.update({"conv1.0.weight": torch.ones(5, 3, 3, 3)}),
         r"^conv1\.0\.weight in .*w\.pt has the shape \(5, 3, 3, 3\), but in shuf\w+ for 3"),
        (lambda s: s.update({"fc.bias": torch.ones(3, dtype=torch.int64)}),
         r"^fc\.bias in .* has torch\.int64, but .* needs torch\.float32"),
        (lambda s: s.update({"fc.bias": torch.ones(3, dtype=torch.complex64)}), "complex64"),
        (lambda s: s.update({"fc.bias": torch.tensor([1, torch.nan, 2])}),
         r"^fc\.bias in .*w\.pt contains NaN or Inf; give weights saved before training failed"),
        (lambda s: s.update({"fc.bias": torch.tensor([1, 1e300, 2], dtype=torch.float64)}),
         r"^fc\.bias in .* contains NaN or Inf"),
    ],
)  # fmt: skip
def test_a_tensor_that_does_not_fit_is_named(tmp_path, network, change, message):
    state = dict(network.state_dict())
    change(state)
    path = tmp_path / "w.pt"
    torch.save(state, path)
    with pytest.raises(DataError, match=message):
        imported(path)


def test_a_network_or_size_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UnknownNameError, match="no network is called 'resnet_18'"):
        fit({}, "resnet_18", 3, 64, path=tmp_path)
    with pytest.raises(ConfigError, match="cannot take 20-px images"):
        fit({}, "towernet", 3, 20, path=tmp_path)


# Other kinds of file.


class Calls:
    """Unpickled by calling `function(*arguments)`."""

    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


def zipped(*names: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return content.getvalue()


def numpy_file() -> bytes:
    content = io.BytesIO()
    np.save(content, np.ones(3))
    return content.getvalue()


KINDS = [
    ("w.pkl", pickle.dumps({"a": 1}), r"a pickle, which can run code; open it where"),
    ("w.pt", pickle.dumps({"a": 1}), "a pickle, which can run code"),
    ("w.joblib", b"\x80\x04...", "a pickle, which can run code"),
    ("w.ckpt", b"model_checkpoint_path", r"a Lightning checkpoint; save its weights with"),
    ("w.pt", zipped("a/data.pkl", "a/code/x.py"), r"a TorchScript archive, which can run code"),
    ("w.pt", zipped("a/data.pkl", "a/constants.pkl"), r"a TorchScript archive"),
    ("w.pt", zipped("a/.data/extern_modules"), r"a torch\.package, which can run code"),
    ("w.npy", numpy_file(), r"a numpy file, whose arrays may be pickles; name them"),
    ("w.pth", numpy_file(), r"a numpy file"),
    ("w.npz", zipped("a.npy"), r"a numpy file"),
    ("w.pt", zipped("a.npy"), r"a numpy file"),
    ("w.h5", b"\x89HDF\r\n\x1a\n", r"a Keras file; build the network in torch"),
    ("w.pth", b"\x89HDF\r\n\x1a\n", r"a Keras file"),
    ("w.keras", zipped("config.json", "model.weights.h5"), r"a Keras file"),
    ("w.pt", zipped("config.json", "model.weights.h5"), r"a Keras file"),
    ("w.pb", b"\x08\x01", r"a TensorFlow file"),
    ("w.bin", b"\x1c\0\0\0TFL3", r"a TensorFlow file"),
    ("w.onnx", b"\x08\x07", r"an ONNX file, which lacks the names of the weights"),
    ("w.pt", b"GGUF\3\0\0\0", r"a GGUF file, which contains a language model"),
    ("w.pt", b"", r"empty; copy or download it again"),
    ("w", b"anything", r"of an unknown kind; save the weights with torch\.save\(network\.state"),
    ("w.pt", zipped("photos/cat.jpg"), r"of an unknown kind"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message"), KINDS)
def test_other_kinds_are_refused_with_how_to_convert_them(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name} is .*{message}"):
        read_foreign(tmp_path / name)


def test_a_path_that_is_not_a_file_is_refused_without_blocking(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    for path in (tmp_path, tmp_path / "pipe.pt"):
        with pytest.raises(DataError, match="is not a file; give the file that contains the wei"):
            read_foreign(path)
    with pytest.raises(DataError, match=r"x\.pt cannot be read: No such file or directory"):
        read_foreign(tmp_path / "x.pt")
    with (tmp_path / "large.pt").open("wb") as stream:
        stream.truncate(2**33)  # a hole: it takes no disk
    with pytest.raises(DataError, match=r"has 8\.6 GB, and the limit is 4\.3 GB of weights; give"):
        read_foreign(tmp_path / "large.pt")


# Hostile archives of torch's.


def archive(path: Path, pickled: bytes, *, extra: tuple[str, ...] = (), **options: int) -> Path:
    """Return a file of torch.save with another pickle in it."""
    torch.save({"a": torch.arange(4.0)}, path)
    with zipfile.ZipFile(path) as sound:
        members = {name: sound.read(name) for name in sound.namelist()}
    with zipfile.ZipFile(path, "w", **options) as changed:
        for name, content in members.items():
            changed.writestr(name, pickled or content if name.endswith("data.pkl") else content)
        for name in extra:
            changed.writestr(name, "x")
    return path


def rewritten(change) -> bytes:
    """Return the sound pickle, changed."""
    stream = io.BytesIO()
    torch.save({"a": torch.arange(4.0)}, stream)
    with zipfile.ZipFile(stream) as sound:
        return change(sound.read(next(name for name in sound.namelist() if "data.pkl" in name)))


# The format from before torch 1.6, in which torchvision still publishes weights.


def old_file(path: Path, value: object) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=False)
    return path


def test_the_format_before_torch_1_6_is_read(tmp_path, network):
    path = old_file(tmp_path / "w.pth", network.state_dict())
    state, _ = imported(path)
    assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())


def test_an_old_file_that_contains_code_is_not_opened(tmp_path):
    mark = tmp_path / "mark"
    for gadget in (Calls(os.system, f"touch {mark}"), Calls(print, "seen"), torch.nn.Linear(2, 3)):
        path = old_file(tmp_path / "w.pth", {"a": torch.ones(2), "gadget": gadget})
        with pytest.raises(DataError, match=r"contains code that loading weights does not need"):
            read_foreign(path)
    assert not mark.exists()


def test_code_in_any_of_an_old_files_pickles_is_found(tmp_path):
    """There are five: the gadget replaces one after the other."""
    mark = tmp_path / "mark"
    content = old_file(tmp_path / "w.pth", {"a": torch.arange(4.0)}).read_bytes()
    stream, ends = io.BytesIO(content), [0]
    for _ in range(5):
        list(pickletools.genops(stream))
        ends.append(stream.tell())
    gadget = pickle.dumps(Calls(os.system, f"touch {mark}"), protocol=2)
    for start, end in itertools.pairwise(ends):
        (tmp_path / "w.pth").write_bytes(content[:start] + gadget + content[end:])
        with pytest.raises(DataError, match=r"contains code|is a pickle, which can run code"):
            read_foreign(tmp_path / "w.pth")
    assert not mark.exists()


@pytest.mark.parametrize("at", range(0, 1200, 37))
def test_an_old_file_that_is_cut_or_changed_anywhere_is_read_or_named(tmp_path, at):
    content = old_file(tmp_path / "w.pth", {"a": torch.arange(64.0)}).read_bytes()
    assert len(content) < 1200
    at = min(at, len(content) - 1)
    cut, flipped = content[:at], bytearray(content)
    flipped[at] ^= 0x40
    for damaged in (cut, bytes(flipped)):
        (tmp_path / "w.pth").write_bytes(damaged)
        with contextlib.suppress(DataError):
            read_foreign(tmp_path / "w.pth")
        if damaged is cut:
            with pytest.raises(DataError):
                read_foreign(tmp_path / "w.pth")


@pytest.mark.parametrize(
    "kind", ["os.system", "eval", "print", "torch.load", "numpy.load", "whole"]
)
def test_an_archive_that_contains_code_is_not_opened(tmp_path, kind):
    mark = tmp_path / "mark"
    gadget = {
        "os.system": Calls(os.system, f"touch {mark}"),
        "eval": Calls(eval, f"open({str(mark)!r}, 'w')"),
        "print": Calls(print, "seen"),
        "torch.load": Calls(torch.load, str(mark)),
        "numpy.load": Calls(np.load, str(mark)),
        "whole": torch.nn.Linear(2, 3),
    }[kind]
    torch.save({"state_dict": {"a": torch.ones(2)}, "gadget": gadget}, tmp_path / "w.pt")
    with pytest.raises(
        DataError,
        match=r"contains code that loading weights does not need \(.+\), so it was not opened;",
    ):
        read_foreign(tmp_path / "w.pt")
    assert not mark.exists()


def bomb() -> bytes:
    twice = b"".join(b"h%c\x86q%c" % (index, index + 1) for index in range(40))
    return b"\x80\x02}K\x01\x85q\0" + twice + b"K\x01s."


# The numbers of the storage and of the tensor in the sound pickle, and a hundred million.
STORAGE, SHAPE, MANY = b"K\x04tq\x07Q", b"K\x04\x85", b"J" + struct.pack("<i", 10**8)


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (b"", None),  # the sabotaged twin: unchanged, it is read
        # A tensor that claims more numbers than its storage has; then the storage claims them too.
        (rewritten(lambda old: old.replace(SHAPE, MANY + SHAPE[2:])), "is damaged"),
        (rewritten(lambda old: old.replace(SHAPE, MANY + SHAPE[2:])
                              .replace(STORAGE, MANY + STORAGE[2:])), "is damaged"),
        (rewritten(lambda old: old[:-20]), "is damaged"),
        (bomb(), r"is damaged \(its repeated values are too large\)"),
        (b"\x80\x02" + b")" + b"\x85" * 1000 + b".", "nested more than 100 deep"),
        (b"\x80\x02].", "contains no network weights \\(it contains a list\\)"),
        (b"\x80\x02}K\x01K\x02s.", "a name in it is a int"),
        (b"\x80\x02}X\x01\0\0\0aK\x02s.", "'a' is not a plain tensor"),
        (b"\x80\x02cos\nsystem\n.", r"does not need \(os\.system\)"),
        (b"\x80\x02cos\nsy\x1b[2J\n.", r"does not need \(os\.sy\\x1b\[2J\)"),
    ],
)  # fmt: skip
def test_a_crafted_archive_is_named(tmp_path, pickled, message):
    path = archive(tmp_path / "w.pt", pickled)
    if message is None:
        assert read_foreign(path)[""].keys() == {"a"}
        return
    with pytest.raises(DataError, match=message):
        read_foreign(path)


def test_an_archive_that_torch_would_not_write_is_refused(tmp_path):
    zeros = b"\x80\x02}" + b"N0" * 100_000 + b"."
    path = archive(tmp_path / "w.pt", zeros, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match="its members are larger than the file"):
        read_foreign(path)
    path = archive(tmp_path / "v.pt", b"", compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match="has compressed members"):
        read_foreign(path)
    path = archive(tmp_path / "u.pt", b"")
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<f", 3), struct.pack("<f", 4)))
    with pytest.raises(DataError, match=r"the checksum of \w+/data/0 is wrong"):
        read_foreign(path)
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = archive(tmp_path / "x.pt", b"", extra=("x/data.pkl",))
    with pytest.raises(DataError, match="two of its members have the same name"):
        read_foreign(path)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(3).to_sparse(),
        torch.ones(3, device="meta"),
        torch.ones(1).expand(3),
    ],
    ids=["sparse", "meta", "repeated"],
)
def test_a_tensor_that_is_not_plain_is_refused(tmp_path, tensor):
    torch.save({"a": tensor}, tmp_path / "w.pt")
    with pytest.raises(DataError, match=r"(contains code that loading|'a' is not a plain tensor)"):
        read_foreign(tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_a_bit_flip_or_cut_anywhere_is_read_or_named(tmp_path, name):
    path = tmp_path / name
    state = {"a": torch.arange(4.0), "b": torch.ones(2, 3)}
    (safetensors.torch.save_file if "safe" in name else torch.save)(state, path)
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        flipped = content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :]
        for changed in (flipped, content[:place]):
            path.write_bytes(changed)
            try:
                read_foreign(path)
            except DataError as error:
                assert name in str(error)


# The class names.


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("cat\ndog\n", DataError, r"w\.pt was trained for 3 classes .*, but .*classes\.txt has 2"),
        ("cat\n\ndog\n", DataError, r"classes\.txt: line 2 is empty; give one name per line"),
        ("cat\n  \ndog", DataError, r"classes\.txt: line 2 is empty"),
        ("", DataError, r"classes\.txt: line 1 is empty"),
        ("cat\ndog\ncat\n", DataError, r"names the class 'cat' twice; give each class its own"),
        ("cat\nCat\ndog\n", DataError, r"has the classes 'Cat' and 'cat': they differ only"),
        ("e\u0301\né\ndog\n", DataError, r"has the classes .*U\+0065.* and .*U\+00E9.* accents"),
        ("cat\n", DataError, r"contains 1 class.* and at least two are needed"),
    ],
)  # fmt: skip
def test_class_names_that_do_not_fit_are_refused(tmp_path, network, classes, text, error, message):
    torch.save(network.state_dict(), tmp_path / "w.pt")
    classes.write_text(text, encoding="utf-8")
    with pytest.raises(error, match=message):
        import_weights(tmp_path / "w.pt", classes, tmp_path / "run", TINY_NETWORK, 64)
    assert not (tmp_path / "run").exists()

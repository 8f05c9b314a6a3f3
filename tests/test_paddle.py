"""Paddle's parameter files: read without running code, and turned into a run that predicts."""

import builtins
import collections
import io
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from towernet import files
from towernet.cli.import_weights import import_weights
from towernet.data.class_list import read_class_names
from towernet.engine.checkpoint import read_weights
from towernet.errors import ConfigError, DataError
from towernet.models import paddle
from towernet.models.catalogue import build
from towernet.models.paddle import paddle_initial_weights, read_pdparams, towernet_state_dict
from towernet.models.towernet import TowerNet
from towernet.records.contract import Contract

SPLIT = "UnpackBigParamInfor@@"


def notebook_arrays(num_classes: int = 3) -> dict[str, np.ndarray]:
    """Return arrays as the notebook would save them: its names and shapes, other numbers."""
    state = TowerNet(num_classes).state_dict()
    arrays = {}
    for in_notebook, name in paddle._names():
        array = state[name].numpy()
        stored = array.T if in_notebook == "b6.weight" else array
        arrays[in_notebook] = stored.reshape(paddle._paddle_shape(in_notebook, array.shape))
    return arrays


def save(path: Path, value: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_arrays_are_read_back_to_the_bit(tmp_path, protocol):
    arrays = {
        "a.weight": np.random.default_rng(1).normal(size=(3, 5, 2)).astype(np.float32),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        "half": np.arange(5, dtype=np.float16),
        "double": np.array([0.5]),
        "big_endian": np.arange(3, dtype=">f4"),
        "scalar": np.array(2.5, dtype=np.float32),
        "empty": np.zeros((0, 4), dtype=np.float32),
    }
    saved = arrays | {"StructuredToParameterName@@": {"a.weight": "linear_0.w_0"}}
    found = read_pdparams(save(tmp_path / "x.pdparams", saved, protocol))
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], array.astype(np.float32), strict=True)


def test_large_arrays_that_were_split_are_joined(tmp_path):
    whole = np.arange(24, dtype=np.float32)
    saved = {f"w@@.{part}": whole[7 * part : 7 * part + 7] for part in range(4)}
    saved["b"] = np.ones(2, dtype=np.float32)
    saved[SPLIT] = {"w": {"OriginShape": (2, 3, 4), "slices": [f"w@@.{part}" for part in range(4)]}}
    found = read_pdparams(save(tmp_path / "x.pdparams", saved, protocol=2))
    assert found.keys() == {"w", "b"}
    np.testing.assert_array_equal(found["w"], whole.reshape(2, 3, 4))


class Calls:
    """Unpickled by calling `function(*arguments)`, as in a hostile file."""

    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


HOSTILE = {
    "os.system": lambda mark: Calls(os.system, f"touch {mark}"),
    "eval": lambda mark: Calls(eval, f"open({str(mark)!r}, 'w')"),
    "exec": lambda mark: Calls(exec, f"open({str(mark)!r}, 'w')"),
    "open": lambda mark: Calls(open, str(mark), "w"),
    "getattr": lambda mark: Calls(getattr, "text", "upper"),
    "numpy.load": lambda mark: Calls(np.load, str(mark)),
    "numpy.save": lambda mark: Calls(np.save, str(mark), np.zeros(1)),
    "numpy.fromfile": lambda mark: Calls(np.fromfile, "/etc/hostname"),
    "numpy.ctypeslib": lambda mark: Calls(np.ctypeslib.load_library, "libc", "/"),
    "numpy.testing": lambda mark: Calls(np.testing.measure, f"open({str(mark)!r}, 'w')"),
    "torch.load": lambda mark: Calls(torch.load, str(mark)),
    "pathlib": lambda mark: Calls(Path.touch, mark),
    "import": lambda mark: Calls(builtins.__import__, "this"),
    "an object": lambda mark: collections.Counter("abc"),
    "bytearray": lambda mark: Calls(bytearray, 10**9),
}


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
@pytest.mark.parametrize("kind", sorted(HOSTILE))
def test_a_file_that_contains_code_is_not_opened(tmp_path, kind, protocol):
    mark = tmp_path / "mark"
    saved = {"b6.bias": np.zeros(3, dtype=np.float32), "gadget": HOSTILE[kind](mark)}
    path = save(tmp_path / "x.pdparams", saved, protocol)
    with pytest.raises(
        DataError, match=r"contains code that loading weights does not need \(.+\), so it was not"
    ):
        read_pdparams(path)
    assert not mark.exists()


def test_the_hostile_files_do_run_code_in_pythons_reader(tmp_path):
    """The sabotaged twin: Python's own reader runs what towernet's refuses."""
    mark = tmp_path / "mark"
    path = save(tmp_path / "x.pickle", HOSTILE["os.system"](mark))
    subprocess.run([sys.executable, "-m", "pickle", path], check=True, capture_output=True)
    assert mark.exists()


def _assemble(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."


NDARRAY = b"cnumpy\nndarray\n"
ENCODE = b"c_codecs\nencode\n"
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "contains no network parameters"),
        (b"not a pickle", "contains no network parameters"),
        (b"PK\x03\x04 a zip of torch's", "(contains no network|contains code other than)"),
        (_assemble(b"]"), r"contains no network parameters \(it contains a list\)"),
        (_assemble(b"}", b"X\x01\0\0\0a", b"K\x01", b"s"), r"'a' is a int"),
        (_assemble(b"}", b"K\x01", b"K\x01", b"s"), "a name in it is a int"),
        (_assemble(b"}", b"r\xff\xff\xff\xff"), "LONG_BINPUT 4294967295 at instruction"),
        (_assemble(b"\x8e" + struct.pack("<Q", 2**62)), "contains no network parameters"),
        (_assemble(ENCODE, b"X\x01\0\0\0aX\x03\0\0\0zip", b"\x86R"), "encoded as 'zip'"),
        (_assemble(NDARRAY, b")R"), "numpy.ndarray is called"),
        (_assemble(RECONSTRUCT, b"}", b"X\x05\0\0\0_make", b"K\x01sb"), "a name is given a state"),
        (_assemble(NDARRAY, b")\x81"), "the pickle instruction NEWOBJ"),
        (_assemble(b"\x82\x01"), "the pickle instruction EXT1"),
        (_assemble(b"Pname\n"), "the pickle instruction PERSID"),
        (_assemble(b"(ios\nsystem\n"), "the pickle instruction INST"),
        (_assemble(b"cos\nsystem\n"), "os.system"),
        (_assemble(b"cnumpy.core.multiarray\n_reconstruct.__globals__\n"), "__globals__"),
    ],
)
def test_a_damaged_or_crafted_file_is_named(tmp_path, content, message):
    path = tmp_path / "x.pdparams"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_pdparams(path)


def doubled(times: int) -> bytes:
    """Return a dictionary with one key: nested tuples, each containing the previous one twice."""
    twice = b"".join(b"h%c\x86q%c" % (number, number + 1) for number in range(times))
    return _assemble(b"}K\x01\x85q\0", twice, b"K\x01s")


def repeated(text: bytes, times: int) -> bytes:
    """Return a list of the same text, encoded again each time."""
    content = b"X" + struct.pack("<I", len(text)) + text
    return _assemble(
        b"]", content, b"q\0", ENCODE, b"q\x01(", b"h\x01h\0X\6\0\0\0latin1\x86R" * times, b"e"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (doubled(40), "its repeated values are too large"),
        (_assemble(b"}K\x01", b"\x85" * 1_000_000, b"K\x01s"), "tuples nested more than 100 deep"),
        (repeated(b"x" * 1_000_000, 1_000), "its repeated values are too large"),
        (_assemble(b"}", b"N0" * 10), "the pickle instruction POP"),
    ],
)
def test_a_small_file_cannot_cause_much_work(tmp_path, content, message):
    path = tmp_path / "x.pdparams"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_pdparams(path)


def test_without_counting_each_further_tuple_doubles_the_work():
    """The sabotaged twin: why forty of them would take hours."""
    num_hashed = 0

    class Counted(int):
        def __hash__(self):
            nonlocal num_hashed
            num_hashed += 1
            return 1

    key = (Counted(),)
    for _ in range(10):
        key = (key, key)
    hash(key)
    assert num_hashed == 2**10


def test_a_shared_array_is_read(tmp_path):
    tied = np.ones((100, 7), dtype=np.float32)
    found = read_pdparams(save(tmp_path / "x.pdparams", {"a": tied, "b": tied}))
    np.testing.assert_array_equal(found["a"], found["b"])


def test_an_array_that_is_filled_after_it_got_many_names_is_counted_for_each(tmp_path):
    names = b"".join(b"X\1\0\0\0%ch\0" % name for name in b"abcdefghijk")
    numbers = struct.pack("<I", 100_000_000) + bytes(100_000_000)
    kind = b"cnumpy\ndtype\nX\2\0\0\0f2\x85R"
    state = b"(K\1J" + struct.pack("<i", 50_000_000) + b"\x85" + kind + b"\x89B" + numbers + b"t"
    path = tmp_path / "x.pdparams"
    path.write_bytes(_assemble(b"}(X\1\0\0\0z", RECONSTRUCT, b")Rq\0", names, state, b"bu"))
    with pytest.raises(DataError, match=r"its arrays are too large: 1.2 GB"):
        read_pdparams(path)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_named(tmp_path, keep):
    path = save(tmp_path / "x.pdparams", {"a": np.ones(1000, dtype=np.float32)})
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(DataError, match=r"x.pdparams contains no network parameters"):
        read_pdparams(path)


def test_a_bit_flip_anywhere_is_read_or_named(tmp_path):
    path = save(tmp_path / "x.pdparams", {"a.weight": np.ones((2, 3), dtype=np.float32)})
    content = path.read_bytes()
    for place in range(len(content)):
        for bit in (0x01, 0x20, 0x80):
            path.write_bytes(content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
            try:
                read_pdparams(path)
            except DataError as error:
                assert "x.pdparams" in str(error)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.arange(3), "x.pdparams: a has numbers of type '<i8'; save the network as float32"),
        (np.array([1 + 2j]), "a has numbers of type '<c16'"),
        (np.array(["text"]), "a has numbers of type '<U4'"),
        (0.5, "'a' is a float"),
        (np.array([None]), "contains no network parameters"),
        (np.zeros(2, dtype=[("x", "f4")]), "(a has numbers of type|contains no network)"),
    ],
)
def test_arrays_of_other_than_floating_point_numbers_are_refused(tmp_path, array, message):
    path = save(tmp_path / "x.pdparams", {"a": array})
    with pytest.raises(DataError, match=message):
        read_pdparams(path)


class _ShapeLie:
    """An array whose shape claims more numbers than there are bytes."""

    def __reduce__(self):
        make, arguments, state = np.zeros(4, dtype=np.float32).__reduce__()
        return make, arguments, (state[0], (10**12,), *state[2:])


def test_a_false_shape_allocates_nothing(tmp_path):
    path = save(tmp_path / "x.pdparams", {"a": _ShapeLie()})
    with pytest.raises(DataError, match=r"a has 16 bytes for the shape \(1000000000000,\)"):
        read_pdparams(path)


@pytest.mark.parametrize(
    "table",
    [
        {"w": {"OriginShape": (2,), "slices": ["missing"]}},
        {"w": {"OriginShape": (2,), "slices": []}},
        {"w": {"OriginShape": 5, "slices": ["b"]}},
        {"w": {"OriginShape": (-2,), "slices": ["b"]}},
        {"w": {"slices": ["b"]}},
        ["w"],
    ],
)
def test_a_damaged_table_of_parts_is_named(tmp_path, table):
    saved = {"b": np.ones(2, dtype=np.float32), SPLIT: table}
    with pytest.raises(DataError, match="its table of parts is damaged"):
        read_pdparams(save(tmp_path / "x.pdparams", saved))


def test_a_file_too_large_is_refused_unread(tmp_path):
    path = tmp_path / "x.pdparams"
    with path.open("wb") as stream:
        stream.truncate(2**31)  # a hole: it takes no disk
    with pytest.raises(DataError, match=r"has 2.1 GB, and the limit is 1.1 GB of parameters; give"):
        read_pdparams(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"x.pdparams cannot be read: No such file or directory;"):
        read_pdparams(tmp_path / "x.pdparams")


# From arrays to TowerNet.


def test_the_notebooks_arrays_become_towernets_state():
    arrays = notebook_arrays()
    state = towernet_state_dict(arrays)
    TowerNet(3).load_state_dict(state)
    np.testing.assert_array_equal(state["head.weight"].numpy(), arrays["b6.weight"].T)
    np.testing.assert_array_equal(
        state["attention_5.channel_bias"].numpy(), arrays["b5.2.cbias"].ravel()
    )
    np.testing.assert_array_equal(state["stage_2.norm.running_var"], arrays["b2.0.1._variance"])


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("b5.3.b5.0.route5x5_3.bias", None, "^the parameters lack b5.3.b5.0.route5x5_3.bias; give"),
        ("b6.bias", None, "^these are not TowerNet's parameters: b6.bias, .* is missing; give"),
        (
            "b7.weight",
            np.zeros(1),
            r"^the parameters contain 'b7.weight', which is not in .* \(1 unknown\); give",
        ),
        (
            "b4.0.0.weight",
            np.zeros((256, 7, 3, 3)),
            r"^b4.0.0.weight has the shape \(256, 7, 3, 3\) and TowerNet's is \(256, 256, 3, 3\);",
        ),
        (  # as torch has it
            "b6.weight",
            np.zeros((3, 256)),
            r"^b6.weight has the shape \(3, 256\) and TowerNet's is \(256, 3\); give",
        ),
        ("b1.0.1._mean", np.full(64, np.nan), "^b1.0.1._mean contains NaN or Inf; give a file"),
    ],
)
def test_parameters_that_are_not_towernets_are_named(name, array, message):
    arrays = notebook_arrays()
    arrays.pop(name, None)
    with pytest.raises(DataError, match=message):
        towernet_state_dict(arrays if array is None else arrays | {name: array})


def test_paddles_initial_weights_are_a_function_of_the_seed():
    first, again, other = (build("resnet18", 3, 64) for _ in range(3))
    for network, seed in ((first, 1), (again, 1), (other, 2)):
        paddle_initial_weights(network, seed)
    assert torch.equal(first.conv1.weight, again.conv1.weight)
    assert not torch.equal(first.conv1.weight, other.conv1.weight)
    std = (2 / (9 * 512)) ** 0.5
    assert first.layer4[1].conv2.weight.std().item() == pytest.approx(std, rel=0.01)
    assert not first.fc.bias.any()
    assert (first.bn1.weight == 1).all()


# The command.


@pytest.fixture
def saved(tmp_path) -> Path:
    return save(tmp_path / "best_model.pdparams", notebook_arrays())


@pytest.fixture
def classes(tmp_path) -> Path:
    path = tmp_path / "classes.txt"
    path.write_text("cat\nbig dog\nünïcode\n", encoding="utf-8")
    return path


def test_an_imported_run_has_the_contract_and_the_weights(tmp_path, saved, classes):
    import_weights(saved, classes, tmp_path / "run")
    record = files.read_json(tmp_path / "run" / "run.json")
    contract = Contract.from_json(record["contract"])
    assert contract.class_names == ("cat", "big dog", "ünïcode")
    assert (contract.size_px, contract.resize) == (256, "squash_linear")
    assert contract.mean == (0.50950350, 0.54632660, 0.57409690)
    assert contract.std == (0.26059777, 0.26041326, 0.29220656)
    assert record["config"]["model"] == "towernet"
    assert record["config"]["recipe_name"] == "notebook"
    assert (record["origin"], record["status"]) == ("imported", "finished")
    tensors, _ = read_weights(tmp_path / "run" / "best.safetensors")
    wanted = towernet_state_dict(read_pdparams(saved))
    assert tensors.keys() == wanted.keys()
    assert all(torch.equal(tensors[name], value) for name, value in wanted.items())


def test_an_imported_run_predicts(tmp_path, saved, classes):
    from PIL import Image

    from towernet.predict import load_run, predict_files

    import_weights(saved, classes, tmp_path / "run")
    content = io.BytesIO()
    Image.new("RGB", (300, 200), (200, 30, 90)).save(content, "PNG")
    (tmp_path / "x.png").write_bytes(content.getvalue())
    (probabilities,) = predict_files(load_run(tmp_path / "run"), [tmp_path / "x.png"])

    network = TowerNet(3).eval()
    network.load_state_dict(towernet_state_dict(read_pdparams(saved)))
    pixels = torch.tensor([200, 30, 90]) / 255
    mean, std = (
        torch.tensor([0.50950350, 0.54632660, 0.57409690]),
        torch.tensor([0.26059777, 0.26041326, 0.29220656]),
    )
    x = ((pixels - mean) / std)[None, :, None, None].expand(1, 3, 256, 256)
    with torch.no_grad():
        wanted = network(x).softmax(dim=1)[0].numpy()
    np.testing.assert_allclose(probabilities, wanted, atol=1e-5)


def test_class_names_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(DataError, match=r"classes.txt cannot be read: No such file or directory;"):
        read_class_names(tmp_path / "classes.txt")
    (tmp_path / "classes.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(DataError, match=r"classes.txt is not UTF-8 text \(.*\); save it as UTF-8"):
        read_class_names(tmp_path / "classes.txt")


def test_an_out_that_is_not_empty_is_left_alone(tmp_path, classes):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("keep me")
    for out, name in ((tmp_path / "run", "run"), (tmp_path / "run" / "mine.txt", "mine.txt")):
        with pytest.raises(
            ConfigError, match=rf"{name} is not an empty folder; choose another --out$"
        ):
            import_weights(tmp_path / "w.pdparams", classes, out)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["mine.txt"]

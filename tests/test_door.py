"""The public functions of `import towernet`, used from outside the project."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pandas as pd
import pytest

import towernet
from conftest import TINY_NETWORK
from towernet import choices
from towernet.api import found as api
from towernet.errors import ConfigError, DataError, UnknownNameError
from towernet.records.reading import Reading

FUNCTIONS = (
    "attach",
    "compare",
    "detach",
    "judge",
    "load",
    "optimize",
    "register_with_timm",
    "train",
)

READING = [each.name for each in fields(Reading)]

EXAMPLE = """
import sys
import towernet

assert "torch" not in sys.modules, "importing towernet must not load torch"
photos, network = sys.argv[1:]
comparison = towernet.compare(
    photos, models=["towernet_patch", network], runs=2, epochs=12, size=64, batch_size=8,
    out="found",
)
print(comparison.verdict)
ranking = comparison.ranking
assert set(ranking.network) == {"towernet_patch", network}, ranking
assert ranking.accuracy.notna().all()
assert comparison.verdict in comparison._repr_html_() and "<table" in comparison._repr_html_()
again = towernet.load("found")
assert again.results == comparison.results
run = comparison.winner
answers = run.predict([f"{photos}/lying/00.png", f"{photos}/leaning/00.png"])
assert list(answers.columns) == ["file", "class_name", "probability", "sure"]
assert set(answers.class_name) <= {"lying", "standing", "leaning"}
assert answers.probability.between(0, 1).all()
judgement = towernet.judge(comparison.answers())
assert judgement.judged.comparisons == comparison.results.comparisons
assert len(judgement.judged.comparisons) == 1
print("found", comparison.report.name, len(run.predict([f"{photos}/no.png"], on_error="leave_out")))
"""


@pytest.fixture(scope="module")
def example(photos, tmp_path_factory):
    """The example of the README, run from an empty folder."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "example.py").write_text(EXAMPLE, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "example.py", str(photos), TINY_NETWORK],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return folder, done


@pytest.mark.proof
def test_the_example_runs_from_an_empty_folder(example):
    folder, done = example
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("found report.html 0\n")
    assert (folder / "found" / "report.html").exists()
    made = towernet.load(folder / "found").made.command
    assert made.startswith("towernet.compare('")
    assert f"models=['towernet_patch', '{TINY_NETWORK}'], runs=2, epochs=12" in made


@pytest.mark.proof
def test_the_same_call_reads_finished_results(example, photos):
    folder, _ = example
    before = (folder / "found" / "results.json").read_bytes()
    found = towernet.compare(
        photos, models=f"towernet_patch,{TINY_NETWORK}", runs=2, epochs=12, size=64, batch_size=8,
        out=folder / "found", progress=quiet(),
    )  # fmt: skip
    assert (folder / "found" / "results.json").read_bytes() == before
    assert found.results == towernet.load(folder / "found").results


@pytest.mark.proof
def test_a_network_is_trained_and_resumed(photos, tmp_path):
    words = {"model": TINY_NETWORK, "epochs": 1, "size": 64, "batch_size": 8}
    found = towernet.train(photos, out=tmp_path / "run", progress=quiet(), **words)
    assert [network.name for network in found.results.networks] == [TINY_NETWORK]
    assert found.results.kind == "run"
    again = towernet.train(resume=tmp_path / "run", progress=quiet())
    assert again.results == found.results
    with pytest.raises(ConfigError, match="its length cannot change"):
        towernet.train(resume=tmp_path / "run", epochs=3)


def test_every_public_function_is_listed_and_documented():
    assert set(FUNCTIONS) <= set(dir(towernet))
    for name in FUNCTIONS:
        function = getattr(towernet, name)
        assert inspect.isfunction(function), name
        assert inspect.getdoc(function), name
        assert function.__annotations__["return"], name
    for function, data in (
        (towernet.compare, ["x"]),
        (towernet.train, ["x"]),
        (api.Run.evaluate, ["self", "x"]),
    ):
        with pytest.raises(TypeError, match="unexpected keyword argument 'epochz'"):
            function(*data, epochz=3)
    with pytest.raises(AttributeError, match="no attribute 'compair'"):
        towernet.compair  # noqa: B018


@pytest.mark.parametrize("verb", ["compare", "train", "judge"])
def test_every_option_of_a_verb_is_a_keyword_of_the_same_name(verb):
    from towernet.cli.compare import compare
    from towernet.cli.judge import judge
    from towernet.cli.train import train

    command = inspect.signature(
        {"compare": compare, "train": train, "judge": judge}[verb]
    ).parameters
    function = inspect.signature(getattr(towernet, verb)).parameters
    assert set(command) - {"json"} <= set(function)  # which only changes the output
    for name, parameter in command.items():
        if name in function and parameter.default is not inspect.Parameter.empty:
            assert function[name].default == parameter.default, name
    if verb != "judge":
        assert {each.name for each in fields(Reading)} < set(command)
        assert Reading() == Reading(**{name: function[name].default for name in READING})


def test_no_module_replaces_a_function():
    code = f"""
import pkgutil, towernet
names = {FUNCTIONS!r}
before = {{name: getattr(towernet, name) for name in names}}
for module in pkgutil.walk_packages(towernet.__path__, "towernet."):
    if not module.name.endswith("__main__"):
        __import__(module.name)
for name in names:
    assert getattr(towernet, name) is before[name], name
    assert callable(getattr(towernet, name)), name
towernet.registered = [towernet.register_with_timm(), towernet.register_with_timm()]
assert towernet.registered[0] == towernet.registered[1]
for name in ("compare", "train", "load", "judge"):
    for _ in range(2):
        try:
            getattr(towernet, name)("no/such.csv")
        except towernet.errors.DataError as error:
            assert "no/such.csv" in str(error)
        else:
            raise AssertionError(name)
import torchvision
for _ in range(2):
    network = torchvision.models.resnet18()
    assert len(towernet.attach(network, "se")) == 8
    towernet.detach(network)
    built = towernet.models.catalogue.build("towernet_patch", 3, 64).eval()
    assert towernet.optimize(built, size_px=64) is not built
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_towernet_loads_nothing_heavy():
    code = (
        "import sys, towernet; dir(towernet); heavy = {'torch', 'pandas', 'numpy', 'pydantic'}"
        " & set(sys.modules); assert not heavy, heavy; towernet.judge; assert 'torch' not in"
        " sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_each_error_is_one_sentence(photos, finished_run, tmp_path):
    with pytest.raises(UnknownNameError, match="Did you mean 'resnet18'"):
        towernet.compare(photos, models=["resnet81"], epochs=1, out=tmp_path / "a")
    with pytest.raises(DataError, match="contains no finished comparison or run"):
        towernet.load(tmp_path)
    run = towernet.load(finished_run).runs[0]
    with pytest.raises(ConfigError, match="give a list of files"):
        run.predict(str(photos / "lying" / "00.png"))
    with pytest.raises(DataError, match=r"no\.png cannot be read"):
        run.predict([photos / "no.png"])
    assert isinstance(run.predict([]), pd.DataFrame)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"no_flip": "no"}, "no_flip is 'no'; give True or False"),
        ({"epochs": "2"}, "epochs is '2'; give a whole number"),
        ({"epochs": True}, "epochs is True; give a whole number"),
        ({"threads": 0}, "--threads is 0; give at least 1"),
        ({"workers": 0}, "--workers is 0; give at least 1"),
        ({"max_archive_gb": -1.0}, "--max-archive-gb is -1; give at least 0"),
        ({"max_archive_entries": 0}, "--max-archive-entries is 0; give at least 1"),
        ({"layout": 3}, "layout is 3; give text"),
        ({"masks": "no"}, "--masks is 'no'; give ignore or keep"),
        ({"white_level": 0.0}, "--white-level is 0; give more than 0"),
        ({"resize": "stretch"}, "data.resize is 'stretch'; give 'crop', 'pad'"),
        ({"recipe": 3}, "recipe is 3; give text"),
        ({"models": 3}, "3 is not a list of names"),
        ({"models": [dict]}, "is not a name; give custom code by its import path"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_not_converted(photos, tmp_path, words, message):
    code = (
        "import sys, towernet\ntry:\n    towernet.compare(sys.argv[1], out=sys.argv[2],"
        f" **{{'models': ['{TINY_NETWORK}']}} | {words!r})\n"
        "except towernet.TowernetError as error:\n    print(error)\n"
    ).replace(repr(dict), "dict")
    done = subprocess.run(
        [sys.executable, "-c", code, photos, tmp_path / "a"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert message in done.stdout, done.stderr
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("name", ["white_level", "max_megapixels", "max_archive_gb"])
def test_a_number_that_is_not_finite_is_refused(name):
    for value in (float("inf"), float("nan")):
        with pytest.raises(ConfigError, match="give a finite number"):
            choices.reading({name: value})


def test_errors_in_python_name_the_option_of_the_command(photos, tmp_path):
    """Python and the command line use the same names for options."""
    with pytest.raises(ConfigError, match="--equal-within is 0; give more than 0"):
        towernet.compare(photos, models=[TINY_NETWORK], equal_within=0.0, out=tmp_path / "a")
    assert not Path(tmp_path / "a").exists()


def quiet():
    from towernet.engine.runlog import Progress

    return Progress()

"""The lint and the types see an undefined name, although jaxtyping's axes look like names."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYPROJECT = ROOT / "pyproject.toml"
SOUND = '''\
"""Nothing is wrong here."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def weighed(x_BK: Float[Tensor, "B K"], weights_B: Float[Tensor, "B"]) -> Tensor:
    """Return the product."""
    return x_BK.mul(weights_B[:, None])
'''
PLANTED = [  # in place of what, what, and the name that is undefined
    ("return x_BK", "return y_BK", "y_BK"),
    ("-> Tensor", "-> npt.NDArray[int]", "npt"),
    ('weights_B: Float[Tensor, "B"]', "weights_B: Missing", "Missing"),
]


def check(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("ruff", "check", "--config", PYPROJECT, "--output-format", "concise"),
         "F821 Undefined name `{}`"),
        pytest.param(
            ("mypy", "--config-file", PYPROJECT),
            'error: Name "{}" is not defined  [name-defined]',
            marks=pytest.mark.proof,
        ),
    ],
    ids=["ruff", "mypy"],
)  # fmt: skip
def test_an_undefined_name_is_seen(tmp_path, command, message):
    (tmp_path / "sound.py").write_text(SOUND)
    expected = set()
    for right, wrong, name in PLANTED:
        assert SOUND.count(right) == 1
        (tmp_path / f"without_{name}.py").write_text(SOUND.replace(right, wrong))
        expected.add((f"without_{name}", message.format(name)))
    found = check(*command, tmp_path)
    lines = [line for line in found.stdout.splitlines() if message.partition("{}")[2] in line]
    pairs = {(Path(line.partition(":")[0]).stem, line.partition(": ")[2].strip()) for line in lines}
    assert pairs == expected, found.stdout + found.stderr


def test_the_axes_declared_to_ruff_are_those_in_use():
    declared = tomllib.loads(PYPROJECT.read_text())["tool"]["ruff"]["builtins"]
    found = check(
        "ruff", "check", "--select", "F821", "--config", "builtins = []", "src", "benchmarks"
    )
    names = {part.split("`")[1] for part in found.stdout.splitlines() if "Undefined name" in part}
    assert names == set(declared)

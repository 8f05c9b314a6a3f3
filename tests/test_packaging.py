"""An installed package has every file it reads: what is not Python must be named to be packed."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "towernet"
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
PATTERNS = SETUPTOOLS["package-data"]["towernet"]


def forgotten(patterns: list[str]) -> set[str]:
    """Return the files of the package that are not Python and that no pattern names."""
    packed = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    files = {
        path
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts
    }
    return {str(path.relative_to(PACKAGE)) for path in files - packed}


def test_every_file_is_packed():
    assert not forgotten(PATTERNS)


@pytest.mark.parametrize("left_out", PATTERNS)
def test_a_forgotten_file_is_noticed(left_out):
    assert forgotten([pattern for pattern in PATTERNS if pattern != left_out])


def test_every_folder_with_code_is_a_package():
    """`find` leaves out a folder without `__init__.py`."""
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert all((folder / "__init__.py").exists() for folder in folders)

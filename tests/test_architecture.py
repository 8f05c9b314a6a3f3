"""Who may import whom (docs/architecture.md), held to the imports; and what imports no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "towernet"
# Rows import lower rows only; within a row nobody imports a neighbour of another part.
ROWS = [
    {"__main__", "door"},
    {"cli"},
    {"api"},
    {"contestants"},
    {"choices"},
    {"testing"},
    {"report", "progress"},
    {"comparison", "explain", "hub"},
    {"predict"},
    {"engine"},
    {"starts"},
    {"models", "data"},
    {"attention", "records"},
    {"native", "shapes", "config", "plugins"},
    {"rng", "files", "registry", "names", "torch_private", "cpus", "resume"},
    {"errors"},
    {"words", "__init__"},
]
DATA = sorted((SOURCE / "data").glob("[!_]*.py"))
ROW_OF = {part: row for row, parts in enumerate(ROWS) for part in parts}


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = (
                [f"towernet.{alias.name}" for alias in node.names]
                if module == "towernet"
                else [module]
            )
        for name in names:
            parts = name.split(".")
            if parts[0] == "towernet" and len(parts) > 1:
                found.add("__init__" if parts[1] == "__version__" else parts[1])
    return found


def part_of(path: Path) -> str:
    name = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    return "door" if name == "__init__" else name  # what the package offers lies further in


def wrong_imports(part: str, imported: set[str]) -> set[str]:
    return {name for name in imported if name != part and ROW_OF[name] <= ROW_OF[part]}


@pytest.mark.parametrize(
    "path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE))
)
def test_imports_point_down(path):
    assert not wrong_imports(part_of(path), imports_of(path))


def test_an_import_that_points_up_is_noticed():
    assert wrong_imports("data", {"engine", "errors"}) == {"engine"}
    assert wrong_imports("models", {"data"}) == {"data"}


@pytest.mark.parametrize(
    "statement",
    [
        "import towernet.cli.main",
        "from towernet.cli.main import main; main(['--help'])",
        "import " + ", ".join(f"towernet.data.{path.stem}" for path in DATA),
    ],
)
def test_torch_is_not_imported_before_it_is_needed(statement):
    code = f"{statement}\nimport sys\nassert not {{'torch', 'torchvision'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("path", DATA, ids=lambda path: path.stem)
def test_data_needs_torch_nowhere(path):
    assert "torch" not in needed_by(ast.parse(path.read_text()))


def needed_by(tree: ast.AST) -> set[str]:
    """Return the packages that code imports when it runs, in functions too."""
    if isinstance(tree, ast.If) and ast.unparse(tree.test) == "TYPE_CHECKING":
        return set()
    if isinstance(tree, ast.Import):
        return {alias.name.partition(".")[0] for alias in tree.names}
    if isinstance(tree, ast.ImportFrom):
        return {(tree.module or "").partition(".")[0]}
    return set().union(*map(needed_by, ast.iter_child_nodes(tree)))


def test_an_import_of_torch_is_noticed():
    late = "def f():\n    from torch.nn import Linear"
    assert needed_by(ast.parse(late)) == {"torch"}
    assert not needed_by(ast.parse("if TYPE_CHECKING:\n    import torch"))


def test_the_torch_test_can_fail():
    code = "import towernet.engine.train\nimport sys\nassert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode

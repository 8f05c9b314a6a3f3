"""No file that somebody could have sent is ever unpickled or run: held to the syntax of all code.

What is forbidden is a name, wherever it stands: called, passed on, or given another name. So
modules that can load programs may only be imported under their own name.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(
    path for part in ("src", "benchmarks", "tests") for path in (ROOT / part).rglob("*.py")
)

USUAL_ALIASES = {"numpy": "np", "pandas": "pd"}
NEVER_IMPORTED = {"_pickle", "cloudpickle", "code", "codeop", "dill", "jsonpickle", "shelve"}
FORBIDDEN = {
    "builtins.compile", "builtins.eval", "builtins.exec", "joblib.load", "marshal.load",
    "marshal.loads", "importlib.machinery", "importlib.util", "os.popen", "os.system",
    "pandas.read_pickle", "pickle.Unpickler", "pickle._Unpickler", "pickle._load", "pickle._loads",
    "pickle.load", "pickle.loads", "torch.hub", "torch.jit", "torch.package",
    "torch.utils.model_zoo", "yaml.full_load", "yaml.load", "yaml.load_all", "yaml.unsafe_load",
}  # fmt: skip
# Forbidden unless it is called with this, written out.
NEEDED = {
    "torch.load": ("weights_only", True),
    "torch.serialization.load": ("weights_only", True),
    "numpy.load": ("allow_pickle", False),
}
# Forbidden unless it is called with a name that is written out.
IMPORTS = {"builtins.__import__", "importlib.__import__", "importlib.import_module"}
ALL = FORBIDDEN | NEEDED.keys() | IMPORTS
# File, what is forbidden there, and why it is right all the same.
ALLOWED = {
    ("src/towernet/models/paddle.py", "pickle.Unpickler"): "with a list of what it may look up",
    ("src/towernet/plugins.py", "importlib.import_module"): "what the user says, no record",
    ("src/towernet/attention/inserted.py", "torch.jit"): "to refuse what it compiled",
    ("tests/test_ablation.py", "a shell"): "to say the command that a message proposes",
    ("tests/test_own_networks.py", "a shell"): "to say the command that a message proposes",
    ("tests/test_attach.py", "torch.jit"): "to have something to refuse",
    ("tests/test_exports.py", "torch.jit"): "to export, and to run what was exported",
    ("tests/test_0_torch_private.py", "torch.jit"): "to have a trace that runs",
    ("tests/test_attention_equations.py", "builtins.exec"): "our own source, changed in a word",
    ("tests/test_attention_equations.py", "sys.modules by another way"): "to read that source",
}


def faults(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of each forbidden thing."""
    excused: set[ast.AST] = set()
    for node in ast.walk(ast.parse(source)):  # what contains comes before what is contained
        match node:
            case ast.Import():
                names = [alias.name for alias in node.names if _wrongly_imported(alias)]
            case ast.ImportFrom():
                names = _wrongly_imported_from(node)
            case ast.Call():
                names = _wrongly_called(node)
                excused.update(_excused(node))
            case ast.Attribute() | ast.Name() if node not in excused:
                name = _full_name(node)
                names = [name] if name in ALL else []
            case ast.Subscript(ctx=ast.Load()) | ast.Assign() | ast.NamedExpr():
                name = _full_name(node.value).removesuffix(".__dict__")
                hides = _holds_forbidden(name) or name in ("sys.modules", "builtins.__builtins__")
                names = [f"{name} by another way"] if hides else []
            case _:
                continue
        yield from ((node.lineno, name) for name in names)


def _wrongly_imported(alias: ast.alias) -> bool:
    renamed = alias.asname not in (None, USUAL_ALIASES.get(alias.name))
    return (
        alias.name.split(".")[0] in NEVER_IMPORTED
        or alias.name in ALL
        or (renamed and _holds_forbidden(alias.name))
    )


def _wrongly_imported_from(node: ast.ImportFrom) -> list[str]:
    module = node.module or ""
    names = [f"{module}.{alias.name}" for alias in node.names]
    if module.split(".")[0] in NEVER_IMPORTED or module in FORBIDDEN:
        return names
    return [name for name in names if name in ALL or _holds_forbidden(name) or name.endswith(".*")]


def _wrongly_called(node: ast.Call) -> list[str]:
    names = []
    if any(word.arg == "shell" and not _is(word.value, False) for word in node.keywords):
        names.append("a shell")
    if _full_name(node.func) == "builtins.getattr" and _holds_forbidden(_full_name(node.args[0])):
        names.append(f"getattr of {ast.unparse(node.args[0])}")
    return names


def _excused(node: ast.Call) -> list[ast.expr]:
    """Return what is forbidden elsewhere and right in this call."""
    name = _full_name(node.func)
    if name == "builtins.Calls":  # of our tests: makes a hostile file, in which these are written
        return node.args
    if name in IMPORTS and isinstance(node.args[0], ast.Constant):
        return [node.func]
    option, value = NEEDED.get(name, ("", True))
    said = any(word.arg == option and _is(word.value, value) for word in node.keywords)
    return [node.func] if said else []


def _holds_forbidden(name: str) -> bool:
    """Whether this is a module of which something is forbidden."""
    return bool(name) and any(full.startswith(f"{name}.") for full in ALL)


def _full_name(node: ast.AST | None) -> str:
    """Return a name with its owners, a usual alias spelled out; '' for what is no name."""
    if isinstance(node, ast.Attribute):
        owner = _full_name(node.value).removeprefix("builtins.")
        return f"{owner}.{node.attr}" if owner else ""
    if isinstance(node, ast.Name):
        modules = {short: full for full, short in USUAL_ALIASES.items()}
        name = modules.get(node.id, node.id)
        return name if _holds_forbidden(name) else f"builtins.{name}"
    return ""


def _is(node: ast.AST, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_loaded_that_could_be_a_program(path):
    name = str(path.relative_to(ROOT))
    found = faults(path.read_text(encoding="utf-8"))
    assert not [(line, what) for line, what in found if (name, what) not in ALLOWED]


def test_every_exception_is_still_needed():
    for name, what in ALLOWED:
        found = [other for _, other in faults((ROOT / name).read_text(encoding="utf-8"))]
        assert found.count(what) == 1


@pytest.mark.parametrize(
    "sabotaged",
    [
        "pickle.loads(content)",
        "pickle.load(stream)",
        "from pickle import loads",
        "from pickle import Unpickler as Reader",
        "from pickle import *",
        "import pickle as p",
        "import _pickle",
        "read = pickle.loads",
        "class Reader(pickle.Unpickler): pass",
        "getattr(pickle, 'lo' + 'ads')(content)",
        "pickle.__dict__['loads'](content)",
        "reader = pickle",
        "(reader := torch).load(path)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=safe)",
        "torch.load(path, **options)",
        "load = torch.load",
        "map(torch.load, paths)",
        "from torch import load",
        "from torch.serialization import load",
        "import torch as t",
        "torch.jit.load(path)",
        "import torch.jit",
        "from torch import jit",
        "torch.package.PackageImporter(path)",
        "torch.hub.load('repository', 'network')",
        "np.load(path)",
        "numpy.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=trusted)",
        "from numpy import load",
        "import numpy as n",
        "pd.read_pickle(path)",
        "from pandas import read_pickle",
        "joblib.load(path)",
        "from joblib import load",
        "marshal.loads(content)",
        "import shelve",
        "import dill",
        "from cloudpickle import loads",
        "eval(text)",
        "exec(text)",
        "builtins.eval(text)",
        "from builtins import eval as calculate",
        "run = exec",
        "__import__(name)",
        "importlib.import_module(name)",
        "from importlib import import_module",
        "yaml.load(text)",
        "yaml.unsafe_load(text)",
        "subprocess.run(words, shell=True)",
        "subprocess.Popen(words, shell=wanted)",
        "os.system(words)",
        "sys.modules['pickle'].loads(content)",
        "__builtins__['eval'](text)",
    ],
)
def test_the_walk_finds_what_is_sabotaged(sabotaged):
    assert list(faults(sabotaged))


@pytest.mark.parametrize(
    "harmless",
    [
        "import pickle",
        "pickle.dumps(value)",
        "pickle.dump(value, stream)",
        "Calls(os.system, words)",
        "import_module('towernet')",
        "importlib.import_module('in_workers')",
        "import numpy.typing as npt",
        "del sys.modules['in_workers']",
        "torch.load(path, weights_only=True)",
        "torch.load(path, map_location='cpu', weights_only=True, mmap=True)",
        "np.load(path, allow_pickle=False)",
        "import numpy as np",
        "import torch.nn.functional as F",
        "from torch import Tensor, nn",
        "json.loads(text)",
        "model.eval()",
        "re.compile(pattern)",
        "yaml.safe_load(text)",
        "subprocess.run(words)",
        "subprocess.run(words, shell=False)",
        "from importlib import resources",
        "'pickle.loads(content)'  # in words only",
        "tensor.load(path)",
    ],
)
def test_the_walk_lets_the_harmless_pass(harmless):
    assert not list(faults(harmless))

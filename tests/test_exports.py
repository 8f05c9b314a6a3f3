"""Which ways of exporting work for a network with blocks, and the table that says so."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from crashlab.lab import compiler
from test_attach import Block, moved, network_of
from towernet.attention import ATTENTION, ShuffleAttention
from towernet.attention.attach import attach

onnxruntime = pytest.importorskip("onnxruntime", reason="pip install -e '.[dev]'")
pytest.importorskip("onnxscript", reason="pip install -e '.[dev]'")

DOCS = Path(__file__).parent.parent / "docs" / "attention.md"
# Sums of up to 300 products in float32, added in another order by another program.
TOLERANCE = 1e-4
WITHOUT_WARNINGS = pytest.mark.filterwarnings("ignore")


def jit(name: str) -> Any:
    """Return something of torch.jit."""
    return getattr(torch.jit, name)


def with_block(name: str, start: str, *, is_trained: bool) -> nn.Module:
    torch.manual_seed(1)
    network = network_of(Block(32), Block(32)).eval()
    attach(network, name, start=start, input_shape=(1, 3, 32, 32))
    return moved(network) if is_trained else network


def run_onnx(model: bytes, x: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return torch.from_numpy(session.run(None, {given.name: x.numpy()})[0])


def by_dynamo(network: nn.Module, x: Tensor) -> Tensor:
    program = torch.onnx.export(network, (x,), dynamo=True, verbose=False)
    return run_onnx(program.model_proto.SerializeToString(), x)


def by_old_exporter(network: nn.Module, x: Tensor) -> Tensor:
    stream = io.BytesIO()
    torch.onnx.export(network, (x,), stream, dynamo=False)
    return run_onnx(stream.getvalue(), x)


def by_trace(network: nn.Module, x: Tensor) -> Tensor:
    return jit("trace")(network, x)(x)


def by_export(network: nn.Module, x: Tensor) -> Tensor:
    return torch.export.export(network, (x,)).module()(x)


def by_script(network: nn.Module, x: Tensor) -> Tensor:
    return jit("script")(network)(x)


def by_compile(network: nn.Module, x: Tensor) -> Tensor:
    return torch.compile(network)(x)


WAYS: dict[str, tuple[Callable[[nn.Module, Tensor], Tensor], bool]] = {
    "torch.onnx.export(dynamo=True)": (by_dynamo, True),
    "torch.onnx.export(dynamo=False)": (by_old_exporter, True),
    "torch.export.export": (by_export, True),
    "torch.jit.trace": (by_trace, True),
    "torch.compile": (by_compile, True),
    "torch.jit.script": (by_script, False),
}
SLOW = ("torch.onnx.export(dynamo=True)", "torch.compile")


def check(way: str, network: nn.Module) -> None:
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        wanted = network(x)
    found = WAYS[way][0](copy.deepcopy(network), x).detach()
    assert float((found - wanted).abs().max() / wanted.abs().max()) <= TOLERANCE


@WITHOUT_WARNINGS
@pytest.mark.parametrize("start", ["paper", "identity"])
@pytest.mark.parametrize("is_trained", [True, False], ids=["trained", "new"])
@pytest.mark.parametrize("name", sorted(ATTENTION))
@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=pytest.mark.proof) if way in SLOW else way for way in WAYS]
)
def test_each_way_of_exporting_does_what_the_table_says(way, name, is_trained, start):
    if way == "torch.compile" and not compiler():
        pytest.skip("torch.compile needs a C++ compiler")
    network = with_block(name, start, is_trained=is_trained)
    if WAYS[way][1]:
        check(way, network)
    else:
        with pytest.raises((RuntimeError, jit("frontend").NotSupportedError)):
            check(way, network)


def test_the_table_in_the_docs_is_what_was_tested():
    rows = [f"| `{way}` | {'every' if works else 'no'} block |" for way, (_, works) in WAYS.items()]
    table = "\n".join(["| way | works with |", "|---|---|", *rows])
    assert f"<!-- ways of exporting -->\n{table}\n<!-- end -->" in DOCS.read_text()


class TracedOtherwise(ShuffleAttention):
    """It computes something else while it is traced."""

    def attention_map(self, x_BCHW):
        return super().attention_map(x_BCHW) * (0.5 if jit("is_tracing")() else 1)

    def forward(self, x_BCHW):
        return x_BCHW * self.attention_map(x_BCHW)


@WITHOUT_WARNINGS
@pytest.mark.parametrize("way", ["torch.onnx.export(dynamo=False)", "torch.jit.trace"])
def test_an_export_that_computes_something_else_is_rejected(way):
    network = network_of(Block(32)).eval()
    attach(network, TracedOtherwise, start="paper", input_shape=(1, 3, 32, 32))
    with pytest.raises((AssertionError, jit("TracingCheckError"))):
        check(way, moved(network))

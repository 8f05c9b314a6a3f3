"""Attention and torch.compile: a program compiled for one network is not used for another."""

from __future__ import annotations

import subprocess
import sys

import pytest

# In a process without the tests' shape checks, which the compiler cannot read. The network first
# without attention, then with it, in one process, as in an ablation script.
FACTORIAL = """
import sys
import torch
from torchvision.models import resnet18
from towernet.attention import attach
from towernet.attention.inserted import attention_parameters

if "sabotaged" in sys.argv:
    import torch._dynamo
    torch._dynamo.reset = lambda: None

x = torch.randn(2, 3, 64, 64)
torch.compile(resnet18(), backend="aot_eager")(x).sum().backward()
network = resnet18()
attach(network, "se", start="paper")
compiled = torch.compile(network, backend="aot_eager")
compiled(x).sum().backward()
parameters = list(attention_parameters(network))
print(len(parameters), sum(parameter.grad is not None for parameter in parameters))
with torch.no_grad():
    network.eval()
    print(torch.allclose(compiled(x), network(x), rtol=1e-4, atol=1e-5))
"""


def printed(*words: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", FACTORIAL, *words], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.proof
def test_attention_is_in_the_program_even_after_compiling_the_network_without_it():
    assert printed() == ["32", "32", "True"]


@pytest.mark.proof
def test_a_reused_program_is_detected():
    assert printed("sabotaged")[:2] == ["32", "0"]


def test_a_compiled_network_is_refused():
    import torch
    from torchvision.models import resnet18

    from towernet.attention import attach
    from towernet.errors import ConfigError

    with pytest.raises(ConfigError, match=r"compiled already; attach attention before torch.comp"):
        attach(torch.compile(resnet18()), "se")

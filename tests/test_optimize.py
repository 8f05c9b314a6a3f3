"""A network prepared for inference: the same outputs, folded norms, absorbed shuffles."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from crashlab.lab import compiler
from towernet.attention.shuffle import UnshuffledAttention, came_from
from towernet.models.catalogue import build
from towernet.models.optimize import absorb_shuffles, fold, foldable, optimize
from towernet.models.towernet import TowerNet
from towernet.native import ops


def trained(model: nn.Module, size_px: int = 128) -> nn.Module:
    """Move statistics, norms and gates off their initial values."""
    model.train()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
        model(torch.randn(8, 3, size_px, size_px) + 0.5)
    return model.eval()


def relative_error(got, wanted):
    return ((got - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize(
    ("name", "num_norms"),
    [
        ("towernet", 4),
        ("mobilenet_v2", 52),
        ("resnet18", 20),
        ("googlenet", 57),
        ("vgg11", 0),
        ("vgg11_bn", 8),
        # Its norms come before the convolutions: only those between two of them can be folded.
        ("densenet121", 59),
        ("shufflenet_v2_x0_5", 56),
        ("regnet_y_400mf", 53),
        ("convnext_tiny", 0),
        # timm's norms include an activation: they stay.
        ("timm:efficientnet_lite0", 0),
        ("timm:resnet18", 20),
    ],
)
@torch.no_grad()
def test_every_norm_after_a_convolution_is_folded_and_no_output_changes(name, num_norms):
    model = trained(build(name, 5, 128))
    assert len(foldable(model, 128)) == num_norms
    x = torch.randn(2, 3, 128, 128)
    fast = optimize(model, size_px=128)
    assert relative_error(fast(x), model(x)) < 1e-5
    norms_left = sum(isinstance(m, nn.BatchNorm2d) for m in fast.modules())
    assert norms_left == sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) - num_norms


def test_the_network_itself_stays_as_it_was():
    model = trained(TowerNet(4)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimize(model, size_px=128)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


@torch.no_grad()
def test_shuffles_are_absorbed_by_the_layers_that_read_them():
    model = trained(TowerNet(5)).double()
    x = torch.randn(2, 3, 127, 140, dtype=torch.float64)
    wanted = model(x)
    absorb_shuffles(model)
    assert not any(getattr(m, "shuffles", False) for m in model.modules())
    assert relative_error(model(x), wanted) < 1e-12


@torch.no_grad()
def test_an_absorbed_shuffle_that_is_still_done_is_detected():
    model = trained(TowerNet(5))
    x = torch.randn(2, 3, 128, 128)
    wanted = model(x)
    absorb_shuffles(model)
    model.attention_4.shuffles = True
    assert relative_error(model(x), wanted) > 1e-3


class ReadsTwice(nn.Module):
    """The convolution's output is used without the norm as well."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)

    def forward(self, x):
        x = self.conv(x)
        return (self.norm(x) + x).mean((2, 3))


class CallsTwice(nn.Module):
    """One convolution, two norms."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm_1, self.norm_2 = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm_2(self.conv(self.norm_1(self.conv(x)))).mean((2, 3))


class DoesMore(nn.BatchNorm2d):
    """A norm with an activation, like timm's."""

    def forward(self, x):
        return super().forward(x).relu()


class WithMore(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), DoesMore(8)

    def forward(self, x):
        return self.norm(self.conv(x)).mean((2, 3))


class Reparametrised(nn.Module):
    """Its weight is recomputed at every call."""

    def __init__(self):
        super().__init__()
        self.conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3))
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x):
        return self.norm(self.conv(x)).mean((2, 3))


@pytest.mark.parametrize("make", [WithMore, Reparametrised])
@torch.no_grad()
def test_layers_that_do_more_than_their_kind_are_not_folded(make):
    model = trained(make(), 16)
    assert foldable(model, 16) == []
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(optimize(model, size_px=16)(x), model(x))


@pytest.mark.parametrize("make", [ReadsTwice, CallsTwice])
@torch.no_grad()
def test_a_convolution_with_several_readers_is_not_folded(make):
    model = trained(make(), 16)
    assert foldable(model, 16) == []
    # If it were folded, the outputs would change: the check is needed.
    x = torch.randn(2, 3, 16, 16)
    wanted = model(x)
    fold(model, "conv", "norm" if make is ReadsTwice else "norm_1")
    assert relative_error(model(x), wanted) > 1e-3


@torch.no_grad()
def test_bf16_keeps_its_weights_in_bf16_and_its_outputs_within_rounding():
    model = trained(build("resnet18", 5, 128))
    x = torch.randn(4, 3, 128, 128)
    fast = optimize(model, size_px=128, dtype=torch.bfloat16)
    assert fast.conv1.weight.dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert relative_error(fast(x).float(), model.float()(x)) < 0.05


@pytest.mark.skipif(compiler() is None, reason="no C compiler")
@torch.no_grad()
def test_with_the_kernels_the_outputs_are_the_same():
    model = trained(TowerNet(5))
    x = torch.randn(2, 3, 128, 128).contiguous(memory_format=torch.channels_last)
    wanted = model(x)
    with ops.enabled(True):
        fast = optimize(model, size_px=128, absorb=False)
        assert fast.attention_3.shuffles
        assert relative_error(fast(x), wanted) < 1e-5
        assert relative_error(model.to(memory_format=torch.channels_last)(x), wanted) < 1e-5


def test_the_package_offers_it_without_importing_torch_at_once():
    import subprocess
    import sys

    code = (
        "import sys, towernet\nassert 'torch' not in sys.modules\n"
        "from towernet import optimize\nassert 'torch' in sys.modules\n"
        "try:\n    towernet.optimise\nexcept AttributeError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "module 'towernet' has no attribute 'optimise'\n"


@pytest.mark.parametrize("name", ["resnet18+shuffle", "resnet18+shuffle@stages"])
def test_the_shuffle_of_attention_after_a_folded_norm_is_absorbed(name):
    model, images = trained(build(name, 7, 64), 64), torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        wanted = optimize(model, size_px=64, absorb=False)(images)
        fast = optimize(model, size_px=64)
        found = fast(images)
    num_folded = sum(isinstance(module, UnshuffledAttention) for module in fast.modules())
    # A stage ends with a ReLU, which is not folded: there the block shuffles itself.
    assert num_folded == (0 if "stages" in name else 8)
    assert (found - wanted).abs().max() <= 1e-6 * wanted.abs().max()


def test_a_shuffle_absorbed_the_other_way_is_detected(monkeypatch):
    model, images = trained(build("resnet18+shuffle", 7, 64), 64), torch.randn(3, 3, 64, 64)
    monkeypatch.setattr(
        "towernet.models.optimize.came_from", lambda channels: torch.argsort(came_from(channels))
    )
    with torch.no_grad():
        wanted, found = model(images), optimize(model, size_px=64)(images)
    assert (found - wanted).abs().max() > 1e-3 * wanted.abs().max()

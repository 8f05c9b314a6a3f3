"""TowerNet: the notebook's network, its sizes, its initial weights, and its parts."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from towernet.attention import ShuffleAttention
from towernet.errors import ConfigError
from towernet.models.blocks import ConvNormPool, ResidualInception, start_as_paddle
from towernet.models.summary import count_parameters, layers, multiply_adds
from towernet.models.towernet import PatchTowerNet, TowerNet
from towernet.shapes import run_on_meta


class InTheNotebooksOrder(nn.Module):
    """The notebook's network with its order of operations and another network's weights."""

    def __init__(self, network: TowerNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, x):
        n = self.network
        for stage, attention in (
            (n.stage_1, None),
            (n.stage_2, None),
            (n.stage_3, n.attention_3),
            (n.stage_4, n.attention_4),
        ):
            x = F.max_pool2d(F.relu(stage.norm(stage.conv(x))), 2)
            x = attention(x) if attention is not None else x
        x = n.attention_5(F.max_pool2d(self.inception(n.inception_5, x), 2))
        x = n.attention_6(F.max_pool2d(self.inception(n.inception_6, x), 2))
        x = F.avg_pool2d(self.inception(n.inception_7, x), 2)
        return n.head(x.flatten(1))

    def inception(self, block, x):
        branches = [
            F.relu(block.branch_1(x)),
            F.relu(block.branch_3(F.relu(block.branch_3_reduce(x)))),
            F.relu(block.branch_5(F.relu(block.branch_5_reduce(x)))),
            F.relu(block.branch_pool(F.max_pool2d(x, 3, 1, 1))),
        ]
        return F.relu(torch.cat(branches, 1) + block.shortcut(x))


def gradients(network: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    network.zero_grad()
    network(x).square().sum().backward()
    return [parameter.grad.clone() for parameter in network.parameters()]


def test_it_is_the_notebooks_network_values_and_gradients():
    torch.manual_seed(3)
    network, x = TowerNet(5).double(), torch.randn(2, 3, 256, 256).double()
    notebook = InTheNotebooksOrder(network)
    torch.testing.assert_close(network(x), notebook(x))
    torch.testing.assert_close(gradients(network, x), gradients(notebook, x))


def test_relu_commutes_with_max_pooling_to_the_bit():
    torch.manual_seed(3)
    block, x = ConvNormPool(3, 7), torch.randn(2, 3, 11, 13, requires_grad=True)
    wanted = F.max_pool2d(F.relu(block.norm(block.conv(x))), 2)
    found = block(x)
    assert torch.equal(found, wanted)
    grad = torch.randn_like(found)
    of_found, of_wanted = (torch.autograd.grad(y, x, grad)[0] for y in (found, wanted))
    assert torch.equal(of_found, of_wanted)


def test_it_has_the_notebooks_number_of_parameters_and_multiply_adds():
    network = TowerNet(16)
    assert count_parameters(network) == 1_559_600
    attention = [module for module in network.modules() if isinstance(module, ShuffleAttention)]
    assert (len(attention), sum(map(count_parameters, attention))) == (4, 48)
    assert round(multiply_adds(network, 256) / 1e9, 3) == 0.800


def test_its_maps_are_the_notebooks():
    shapes = {row.name: row.output_shape for row in layers(TowerNet(16), 256)}
    assert shapes["attention_3"] == (256, 16, 16)
    assert shapes["attention_4"] == (256, 8, 8)
    assert shapes["attention_6"] == (256, 2, 2)
    assert shapes["inception_7.shortcut"] == (256, 2, 2)
    assert shapes["head"] == (16,)


@pytest.mark.parametrize(("size_px", "num_classes"), [(127, 2), (131, 3), (254, 7), (300, 1000)])
def test_any_size_and_any_number_of_classes(size_px, num_classes):
    with torch.device("meta"):
        assert run_on_meta(TowerNet(num_classes), 1, 3, size_px, size_px).shape == (1, num_classes)


def test_127_pixels_are_enough_for_training():
    network = TowerNet(3)
    assert all(torch.isfinite(g).all() for g in gradients(network, torch.randn(2, 3, 127, 127)))


def test_126_pixels_are_refused_with_a_sentence():
    message = (
        "^towernet cannot take 126-px images, since its maps halve seven times;"
        r" give --size 127 or more \(smaller images are enlarged\)$"
    )
    with pytest.raises(ConfigError, match=message):
        TowerNet(3)(torch.randn(2, 3, 200, 126))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_trains_under_bf16_autocast_in_either_layout(layout):
    torch.manual_seed(3)
    network = TowerNet(3).to(memory_format=layout)
    x = torch.randn(4, 3, 128, 128).contiguous(memory_format=layout)
    exact = network(x)
    with torch.autocast("cpu", torch.bfloat16):
        found = network(x)
    assert found.dtype == torch.bfloat16
    # bf16 has 8 significant bits and there are 17 layers; the logits are about 1.
    torch.testing.assert_close(found.float(), exact, rtol=0.1, atol=0.1)
    found.float().square().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())


def test_channels_last_stays_channels_last_all_the_way():
    network = TowerNet(3).to(memory_format=torch.channels_last)
    seen = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | ShuffleAttention | ConvNormPool | ResidualInception):
            module.register_forward_hook(lambda _m, _x, y, name=name: seen.update({name: y}))
    network(torch.randn(2, 3, 256, 256).contiguous(memory_format=torch.channels_last))
    assert len(seen) == 4 * 2 + 3 * 8 + 4
    for name, y in seen.items():
        assert y.is_contiguous(memory_format=torch.channels_last), name


def test_it_has_paddles_initial_weights():
    torch.manual_seed(3)
    network = TowerNet(16)
    weight = network.stage_4.conv.weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 256)), rel=0.01)
    bound = math.sqrt(6 / (256 + 16))
    assert 0.97 * bound < network.head.weight.abs().max() <= bound
    for name, parameter in network.named_parameters():
        if name.endswith(".bias"):
            assert not parameter.any(), name
        if name.endswith("norm.weight"):
            assert (parameter == 1).all()
    assert (network.attention_3.channel_bias == 1).all()


def test_a_grouped_convolution_counts_all_input_channels_as_paddle_does():
    torch.manual_seed(3)
    depthwise = nn.Conv2d(512, 512, 3, groups=512)
    start_as_paddle(depthwise)
    assert depthwise.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 512)), rel=0.05)


def test_a_seed_determines_the_initial_weights():
    first, again, other = (
        (torch.manual_seed(seed), TowerNet(3).state_dict())[1] for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


class PatchInFunctions(nn.Module):
    """The patch variant from another network's weights, written with functions only."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def conv(self, block, x, stride=1, relu=True):
        conv, norm = block[0], block[1]
        side = conv.weight.shape[2]
        padding = 0 if stride > 1 else side // 2
        x = F.conv2d(x, conv.weight, None, stride, padding)
        x = F.batch_norm(x, None, None, norm.weight, norm.bias, training=True)
        return F.relu(x) if relu else x

    def inception(self, block, x):
        branches = [
            self.conv(block.branch_1, x),
            self.conv(block.branch_3[1], self.conv(block.branch_3[0], x)),
            self.conv(block.branch_5[1], self.conv(block.branch_5[0], x)),
            self.conv(block.branch_pool[1], F.max_pool2d(x, 3, 1, 1)),
        ]
        return F.relu(torch.cat(branches, 1) + self.conv(block.shortcut, x, relu=False))

    def forward(self, x):
        n = self.network
        x = self.conv(n.stem, x, stride=4)
        for stage in (n.stage_2, n.stage_3):
            x = F.conv2d(x, stage.conv.weight, stage.conv.bias, padding=1)
            x = F.batch_norm(
                x, None, None, stage.norm.weight, stage.norm.bias, training=True, eps=1e-3
            )
            x = F.max_pool2d(F.relu(x), 2)
        x = F.max_pool2d(self.inception(n.inception_4, n.attention_3(x)), 2)
        x = self.inception(n.inception_5, n.attention_4(x))
        return n.head(self.inception(n.inception_6, x).mean((2, 3)))


def test_the_patch_variant_computes_its_formula_values_and_gradients():
    network, x = PatchTowerNet(5).double().train(), torch.randn(3, 3, 64, 96).double()
    formula = PatchInFunctions(network)
    torch.testing.assert_close(network(x), formula(x))
    torch.testing.assert_close(gradients(network, x), gradients(formula, x))
    assert count_parameters(PatchTowerNet(16)) == 972_040
    assert multiply_adds(PatchTowerNet(16), 128) == 173_068_288


def test_the_patch_variant_takes_small_images():
    from towernet.models.catalogue import build, require_size

    assert build("towernet_patch", 3, 32)(torch.rand(2, 3, 32, 32)).shape == (2, 3)
    with pytest.raises(ConfigError, match=r"cannot take 16-px images; give --size 32"):
        require_size("towernet_patch", 16)


def test_both_lists_of_built_in_networks_agree():
    from towernet import names
    from towernet.models import catalogue

    assert tuple(catalogue.OURS) == names.OURS

"""The recipe's `train.layer_decay` and `train.norm_statistics`, for networks with a start."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from conftest import TINY_NETWORK
from towernet.attention.inserted import attention_parameters
from towernet.config import Recipe, RunConfig, TrainConfig
from towernet.engine.batches import Batch
from towernet.engine.device import Policy
from towernet.engine.learner import Learner
from towernet.engine.optimizer import layer_rates, make_optimizer, set_learning_rate
from towernet.engine.step import norms_to_fix
from towernet.models.catalogue import build
from towernet.records.contract import Contract
from towernet.records.run import Plan

SIZE_PX = 64
NETWORKS = ["mobilenet_v2", "resnet18", "timm:tf_efficientnet_lite0", "towernet_patch"]


def parts_of(model, config):
    """Return the names of each group's parameters, and the rest of the group."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [
        ([names[p] for p in group["params"]], group["orthogonal"], group["rate"])
        for group in make_optimizer(model, config, "any").param_groups
    ]


@pytest.mark.parametrize("name", NETWORKS)
def test_rates_rise_with_depth_in_the_order_in_which_layers_compute(name):
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    model = build(name, 5, SIZE_PX).eval()
    rates = layer_rates(model, 0.1)
    assert list(rates) == list(model.parameters())
    order = []
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    of_attention = set(attention_parameters(model))
    for layer in layers:
        layer.register_forward_hook(lambda module, *_: order.append(module))
    model(torch.zeros(1, 3, SIZE_PX, SIZE_PX))
    computed = [rates[layer.weight] for layer in order if layer.weight not in of_attention]
    assert computed == sorted(computed)
    assert computed[0] == pytest.approx(0.1)
    assert computed[-1] == 1.0
    assert len(set(computed)) == len(computed)


def test_norms_and_biases_have_the_rate_of_the_layer_before_them():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Flatten(),
        nn.Linear(4, 2),
    )  # fmt: skip
    rates = dict(
        zip(dict(model.named_parameters()), layer_rates(model, 0.04).values(), strict=True)
    )
    for layer, wanted in (("0", 0.04), ("1", 0.04), ("2", 0.2), ("3", 0.2), ("5", 1.0)):
        assert rates[f"{layer}.weight"] == rates[f"{layer}.bias"] == pytest.approx(wanted)


def test_attention_learns_at_the_full_rate_and_is_no_layer():
    plain, inserted = build("mobilenet_v2", 5, SIZE_PX), build("mobilenet_v2+se", 5, SIZE_PX)
    rates, of_attention = layer_rates(inserted, 0.1), set(attention_parameters(inserted))
    assert of_attention
    assert all(rates[parameter] == 1 for parameter in of_attention)
    rest = [rate for parameter, rate in rates.items() if parameter not in of_attention]
    assert rest == list(layer_rates(plain, 0.1).values())


@pytest.mark.parametrize("optimizer", ["muon", "sgd"])
def test_a_step_is_as_much_smaller_as_the_rate(optimizer):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8, 2))
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    moved = {}
    for layer_decay in (1.0, 0.25):
        torch.manual_seed(0)
        config = TrainConfig(
            layer_decay=layer_decay, optimizer=optimizer, weight_decay=0, muon_weight_decay=0
        )
        for name, parameter in model.named_parameters():
            parameter.data.copy_(start[name])
            parameter.grad = torch.randn_like(parameter)
        stepper = make_optimizer(model, config, "any")
        set_learning_rate(stepper, 0.1)
        stepper.step()
        moved[layer_decay] = {
            name: p.detach() - start[name] for name, p in model.named_parameters()
        }
    for name, rate in {"0.weight": 0.25, "0.bias": 0.25, "1.weight": 0.5, "3.weight": 1.0}.items():
        torch.testing.assert_close(moved[0.25][name], rate * moved[1.0][name], atol=1e-6, rtol=1e-3)


def test_the_default_groups_are_as_before_and_not_recorded():
    model = build("towernet_patch", 5, SIZE_PX)
    names, filters = dict(model.named_parameters()), set()
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module.groups == 1:
            filters.add(f"{name}.weight")
    of_attention = {n for n, p in names.items() if p in set(attention_parameters(model))}
    orthogonal = [n for n in names if n in filters - of_attention]
    decayed = [
        n for n, p in names.items()
        if n not in {*orthogonal, *of_attention} and sum(length > 1 for length in p.shape) > 1
    ]  # fmt: skip
    plain = [n for n in names if n not in {*orthogonal, *decayed}]
    assert parts_of(model, TrainConfig()) == [
        (orthogonal, True, 0.4), (decayed, False, 1.0), (plain, False, 1.0),
    ]  # fmt: skip
    assert len(parts_of(model, TrainConfig(layer_decay=0.5))) > 3
    recorded = TrainConfig().model_dump()
    assert not {"layer_decay", "norm_statistics"} & set(recorded)
    given = {"layer_decay": 0.5, "norm_statistics": "fixed"}
    assert given.items() <= TrainConfig(**given).model_dump().items()


def learner_of(name, **train):
    recipe = Recipe(train=TrainConfig(epochs=1, learning_rate=0.01, **train))
    contract = Contract(("a", "b", "c"), SIZE_PX, "crop", (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    policy = Policy("cpu", "float32", True, 1, "test")
    config = RunConfig(model=name, recipe=recipe)
    return Learner(config, recipe, Plan(4, 0.01, policy), contract, np.array([4, 4, 4]))


def after_steps(learner):
    torch.manual_seed(1)
    images = torch.randn(4, 3, SIZE_PX, SIZE_PX).contiguous(memory_format=torch.channels_last)
    labels = torch.tensor([0, 1, 2, 0])
    start = {name: tensor.clone() for name, tensor in learner.tensors().items()}
    with torch.no_grad():
        expected = learner.model.eval()(images)
    _, logits = learner.take_step(Batch(images, labels, labels), 0.01, seed=0)
    learner.take_step(Batch(images, labels, labels), 0.01, seed=1)
    end = learner.tensors()
    changed = {name for name, tensor in start.items() if not torch.equal(tensor, end[name])}
    return changed, (logits - expected).abs().max().item()


def is_statistic(name):
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))


@pytest.mark.parametrize("name", [TINY_NETWORK, "timm:tf_efficientnet_lite0"])
def test_fixed_statistics_do_not_move_in_the_network_or_its_average(name):
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    changed, difference = after_steps(learner_of(name, norm_statistics="fixed"))
    assert not any(is_statistic(tensor) for tensor in changed)
    assert any(".bias" in tensor or ".weight" in tensor for tensor in changed)
    # The first step saw the network that evaluation sees.
    assert difference < 1e-4
    changed, difference = after_steps(learner_of(name))
    assert any(is_statistic(tensor) for tensor in changed)
    assert difference > 1e-3


def test_norms_of_attention_blocks_are_not_fixed():
    learner = learner_of("mobilenet_v2+coordinate", norm_statistics="fixed")
    changed, _ = after_steps(learner)
    moved = {name for name in changed if is_statistic(name)}
    assert moved
    fixed = set(learner.fixed_norms)
    of_attention = {
        f"{part}.{name}.{statistic}"
        for name, module in learner.model.named_modules()
        if isinstance(module, nn.BatchNorm2d) and module not in fixed
        for part in ("model", "averaged.module")
        for statistic in ("running_mean", "running_var", "num_batches_tracked")
    }
    assert moved <= of_attention
    assert norms_to_fix(learner.model, TrainConfig()) == []

"""The recipe's `train.logit_adjustment`, for uneven classes; where it is off, no bit changes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from towernet.config import Recipe, RunConfig, load_recipe, override
from towernet.engine.device import Policy
from towernet.engine.learner import logit_adjustment
from towernet.engine.record import identity
from towernet.engine.step import train_step
from towernet.errors import ConfigError
from towernet.records.run import Plan

NUM = np.array([80, 15, 5])


class Pooled(nn.Module):
    """The means of the channels as logits, times one weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x_BCHW):
        return self.weight * x_BCHW.mean(dim=(2, 3))


def loss_of(adjustment, targets):
    model = Pooled()
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.5, 0.0, 1.0]])
    return train_step(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        logits[:, :, None, None].expand(2, 3, 2, 2).contiguous(),
        targets,
        label_smoothing=0.0,
        policy=Policy("cpu", "float32", False, 1, "test"),
        adjustment_K=adjustment,
    )


@pytest.mark.parametrize("tau", [0.5, 1.0])
def test_the_loss_is_that_of_the_paper(tau):
    """Equation 10, with plain sums: -log of the share of exp(f_y) · π_y^τ."""
    share = (NUM + 0.5) / (NUM + 0.5).sum()
    expected = 0.0
    for logits, label in (((2.0, 1.0, 0.0), 2), ((0.5, 0.0, 1.0), 0)):
        weighed = [math.exp(value) * part**tau for value, part in zip(logits, share, strict=True)]
        expected -= math.log(weighed[label] / sum(weighed)) / 2
    adjustment = torch.from_numpy(logit_adjustment(NUM, tau))
    found, logits = loss_of(adjustment, torch.tensor([2, 0]))
    assert found.item() == pytest.approx(expected, rel=1e-6)
    # What is returned, and so predicted, is not adjusted.
    assert logits[0].tolist() == [2.0, 1.0, 0.0]
    for wrong in (-adjustment, torch.from_numpy(NUM / NUM.sum()).float(), None):
        assert loss_of(wrong, torch.tensor([2, 0]))[0].item() != pytest.approx(expected, rel=1e-3)
    mixed = torch.tensor([[0.3, 0.0, 0.7], [1.0, 0.0, 0.0]])
    parts = [loss_of(adjustment, torch.tensor([label, 0]))[0].item() for label in (0, 2)]
    assert loss_of(adjustment, mixed)[0].item() == pytest.approx(
        0.3 * parts[0] + 0.7 * parts[1], rel=1e-6
    )


def test_classes_of_one_size_are_not_affected():
    even = torch.from_numpy(logit_adjustment(np.array([20, 20, 20]), 1.0))
    with_it, _ = loss_of(even, torch.tensor([2, 0]))
    without, _ = loss_of(None, torch.tensor([2, 0]))
    assert with_it.item() == pytest.approx(without.item(), rel=1e-6)
    assert np.isfinite(logit_adjustment(np.array([20, 0]), 1.0)).all()


def test_a_run_without_it_is_recorded_as_before():
    recipe = Recipe()
    assert recipe.train.logit_adjustment == 0
    assert "logit_adjustment" not in recipe.model_dump()["train"]
    plan = Plan(10, 0.1, Policy("cpu", "float32", True, 1, "test"))
    adjusted = override(recipe, train={"logit_adjustment": 1.0})
    of_both = [
        identity(RunConfig(model="resnet18", recipe=each), plan) for each in (recipe, adjusted)
    ]
    assert of_both[0] != of_both[1]
    assert Recipe(**adjusted.model_dump()) == adjusted
    with pytest.raises(ConfigError, match=r"train\.logit_adjustment is -1\.0; give at least 0"):
        override(recipe, train={"logit_adjustment": -1.0})


def test_a_recipe_can_contain_it(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[train]\nlogit_adjustment = 1\n", encoding="utf-8")
    assert load_recipe(str(path)).train.logit_adjustment == 1


@pytest.mark.proof
@pytest.mark.timeout(300)
def test_only_a_run_with_a_setting_for_uneven_classes_is_another_run(tmp_path):
    """Off, by default or in a recipe, the bytes are the same; on, they are others."""
    import towernet

    chance = np.random.default_rng(0)
    for name, num in (("a", 20), ("b", 6)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(num):
            pixels = chance.integers(0, 255, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    lines = {}
    for name, settings in (
        ("default", ""),
        ("off", "logit_adjustment = 0.0\nbalanced_drawing = false"),
        ("adjusted", "logit_adjustment = 1.0"),
        ("drawn", "balanced_drawing = true"),
    ):
        recipe = "default"
        if settings:
            recipe = str(tmp_path / f"{name}.toml")
            Path(recipe).write_text(f"[train]\n{settings}\n", encoding="utf-8")
        found = towernet.train(
            tmp_path / "images",
            model="towernet_patch",
            recipe=recipe,
            epochs=1,
            size=32,
            batch_size=8,
            threads=1,
            workers=1,
            out=tmp_path / name,
        )
        lines[name] = (tmp_path / name / "metrics.jsonl").read_bytes()
        assert found.results.balances_classes == (name in ("adjusted", "drawn"))
    assert lines["default"] == lines["off"]
    assert len(set(lines.values())) == 3

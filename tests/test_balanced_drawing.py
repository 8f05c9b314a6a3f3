"""The recipe's `train.balanced_drawing`: all classes are seen equally often."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from test_rates import images
from towernet.config import Recipe, override
from towernet.engine.batches import drawn_by_class, epoch_batches
from towernet.engine.device import Policy
from towernet.errors import ConfigError

SIZES = (400, 40, 8)
ON = override(Recipe(), train={"balanced_drawing": True})


def test_all_classes_are_drawn_equally_often_and_so_are_the_images_of_each():
    part = images(SIZES).train
    sizes = np.bincount(part.labels)
    of_images = dict.fromkeys(part.paths, 0)
    classes = np.zeros(3)
    for epoch in range(60):
        drawn = drawn_by_class(part, seed=1, epoch=epoch)
        assert len(drawn) == len(part)
        assert (drawn.keys == part.keys).all()
        label_of = dict(zip(part.paths, part.labels.tolist(), strict=True))
        row_of = dict(zip(part.paths, part.rows.tolist(), strict=True))
        assert [label_of[path] for path in drawn.paths] == drawn.labels.tolist()
        assert [row_of[path] for path in drawn.paths] == drawn.rows.tolist()
        classes += np.bincount(drawn.labels, minlength=3)
        for path in drawn.paths:
            of_images[path] += 1
    num = classes.sum()
    # Four standard deviations; without the drawing the largest class has nine tenths.
    assert abs(classes / num - 1 / 3).max() < 4 * np.sqrt(2 / 9 / num)
    for label, size in enumerate(sizes):
        counts = [
            of_images[p] for p, of in zip(part.paths, part.labels, strict=True) if of == label
        ]
        expected = num / 3 / size
        assert abs(np.array(counts) - expected).max() < 5 * np.sqrt(expected) + 1


def test_draws_depend_on_the_seed_and_the_epoch_alone():
    part = images(SIZES).train
    first = drawn_by_class(part, seed=1, epoch=3)
    assert (first.rows == drawn_by_class(part, seed=1, epoch=3).rows).all()
    for seed, epoch in ((2, 3), (1, 4)):
        assert (first.rows != drawn_by_class(part, seed=seed, epoch=epoch).rows).any()


def test_an_epoch_can_start_in_its_middle():
    dataset = images((5, 2))
    pixels = np.random.default_rng(0).integers(0, 255, (len(dataset.train), 10, 10, 3))
    dataset = replace(dataset, open_train_pixels=lambda: pixels.astype(np.uint8))
    policy = Policy("cpu", "float32", False, 1, "test", "torch")

    def batches(first: int = 0, recipe: Recipe = ON):
        recipe = override(recipe, train={"batch_size": 4})
        return list(
            epoch_batches(
                dataset, recipe, policy, seed=0, epoch=2, size_px=lambda step: 8, first=first
            )
        )

    whole, rest = batches(), batches(2)
    assert len(whole) == len(rest) + 2
    for one, other in zip(whole[2:], rest, strict=True):
        assert torch.equal(one.images_BCHW, other.images_BCHW)
        assert torch.equal(one.targets, other.targets)
    labels = torch.cat([batch.labels_B for batch in whole])
    usual = torch.cat([batch.labels_B for batch in batches(recipe=Recipe())])
    assert len(labels) == len(usual)
    assert sorted(labels.tolist()) != sorted(usual.tolist())


def test_it_replaces_logit_adjustment():
    assert "balanced_drawing" not in Recipe().model_dump()["train"]
    assert ON.train.balances_classes and not Recipe().train.balances_classes
    message = r"balanced_drawing is true and train\.logit_adjustment is 1; give only one of them"
    with pytest.raises(ConfigError, match=message):
        override(ON, train={"logit_adjustment": 1.0})

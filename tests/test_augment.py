"""Augmentation: what it must not change, and the notebook's rotation in plain loops."""

import math

import numpy as np
import pytest
import torch

from towernet.config import AugmentConfig
from towernet.engine.augment import NUM_DRAWS, augment, draws, mix, mixing_shares, to_input

STILL = AugmentConfig(
    crop_scale_min=1, crop_ratio_max=1, flip=False, rotation_degrees=0, brightness=0, contrast=0
)


@pytest.fixture
def images():
    pixels = np.random.default_rng(1).integers(0, 256, (5, 23, 23, 3), dtype=np.uint8)
    return torch.from_numpy(pixels)


def half(num: int) -> np.ndarray:
    return np.full((num, NUM_DRAWS), 0.5)


def test_without_augmentation_the_image_stays(images):
    x = augment(images, half(5), STILL, size_px=23)
    torch.testing.assert_close(x, images.permute(0, 3, 1, 2) / 255, atol=1e-5, rtol=0)


def test_a_flip_mirrors_left_and_right(images):
    flipped = half(5)
    flipped[:, 4] = 0.1
    config = STILL.model_copy(update={"flip": True})
    x = augment(images, flipped, config, size_px=23)
    torch.testing.assert_close(x, images.permute(0, 3, 1, 2).flip(3) / 255, atol=1e-5, rtol=0)
    # With flip off, the same draw mirrors nothing.
    still = augment(images, flipped, STILL, size_px=23)
    torch.testing.assert_close(still, images.permute(0, 3, 1, 2) / 255, atol=1e-5, rtol=0)


def test_images_of_a_batch_do_not_affect_each_other(images):
    config, numbers = AugmentConfig(), draws(3, 1, np.arange(5, dtype=np.uint64))
    together = augment(images, numbers, config, size_px=17)
    for i in range(5):
        alone = augment(images[i : i + 1], numbers[i : i + 1], config, size_px=17)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-6)


def test_values_stay_in_range_and_crops_stay_inside(images):
    config = AugmentConfig(rotation_degrees=0, brightness=0, contrast=0)
    for epoch in range(20):
        numbers = draws(0, epoch, np.arange(5, dtype=np.uint64))
        x = augment(torch.full_like(images, 200), numbers, config, size_px=17)
        torch.testing.assert_close(x, torch.full_like(x, 200 / 255), atol=1e-5, rtol=0)
        x = augment(images, numbers, AugmentConfig(), size_px=17)
        assert x.min() >= 0
        assert x.max() <= 1


def test_the_notebook_rotation_is_opencvs_nearest_about_half_the_width():
    size = 21
    image = np.random.default_rng(2).integers(0, 256, (size, size, 3), dtype=np.uint8)
    config = STILL.model_copy(update={"rotation_degrees": 10.0, "interpolation": "nearest"})
    for turn in (0.07, 0.31, 0.5, 0.93):
        numbers = half(1)
        numbers[:, 5] = turn
        x = augment(torch.from_numpy(image[None]), numbers, config, size_px=size)[0]
        angle = math.radians(10) * (2 * turn - 1)
        expected = np.zeros((size, size, 3))
        on_an_edge = np.zeros((size, size), bool)
        for row in range(size):
            for column in range(size):
                dx, dy = column - size / 2, row - size / 2
                source_x = math.cos(angle) * dx - math.sin(angle) * dy + size / 2
                source_y = math.sin(angle) * dx + math.cos(angle) * dy + size / 2
                on_an_edge[row, column] = any(
                    abs(value % 1 - 0.5) < 1e-4 for value in (source_x, source_y)
                )
                nearest_x, nearest_y = round(source_x), round(source_y)
                if 0 <= nearest_x < size and 0 <= nearest_y < size:
                    expected[row, column] = image[nearest_y, nearest_x]
        close = np.abs(x.permute(1, 2, 0).numpy() * 255 - expected).max(axis=2) < 0.01
        assert (close | on_an_edge).all()


def test_input_is_the_normalised_image(images):
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
    x = to_input(images, mean, std)
    expected = (images.numpy() / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(x.permute(0, 2, 3, 1).numpy(), expected, atol=1e-6)


def test_images_and_targets_are_mixed_with_the_next_by_the_same_shares():
    shares = torch.tensor([1.0, 0.75, 0.5])
    images = torch.arange(3.0)[:, None, None, None].repeat(1, 3, 2, 2)
    mixed = mix(images, shares)
    torch.testing.assert_close(mixed[:, 0, 0, 0], torch.tensor([0.0, 0.75 + 0.25 * 2, 1.0]))
    targets = mix(torch.eye(3), shares)
    torch.testing.assert_close(targets, torch.tensor([[1, 0, 0], [0, 0.75, 0.25], [0.5, 0, 0.5]]))


def test_shares_are_the_larger_part_of_a_beta_draw():
    keys = np.arange(4000, dtype=np.uint64)
    shares = mixing_shares(1, 2, keys, 0.2)
    assert shares.min() >= 0.5
    assert shares.max() <= 1
    # E|X − 1/2| of Beta(a, a) at a = 0.2, by numerical integration.
    assert np.mean(shares) == pytest.approx(0.8986, abs=0.01)
    np.testing.assert_array_equal(shares[::-1], mixing_shares(1, 2, keys[::-1], 0.2))


def test_short_runs_mix_nothing():
    from towernet.config import load_recipe

    recipe = load_recipe("default")
    edge = recipe.augment.mixup_from_epochs
    assert recipe.mixes(edge)
    assert not recipe.mixes(edge - 0.1)
    assert not recipe.unmixed().mixes(edge)
    assert recipe.unmixed().train == recipe.train
    assert not load_recipe("notebook").mixes(100.0)

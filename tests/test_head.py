"""The last layer fitted on features: the optimum it must be, its strength, and odd inputs."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from towernet.engine import head
from towernet.engine.head import STRENGTHS, USUAL_STRENGTH, Head, fit_head
from towernet.errors import DataError

NUM_FEATURES = 13


def drawn(counts, *, spread=0.5, seed=0):
    """Return float32 features around one centre per class, and labels, sorted by class."""
    draw = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(len(counts), NUM_FEATURES))
    labels = np.repeat(np.arange(len(counts)), counts)
    features = centres[labels] + spread * draw.normal(size=(len(labels), NUM_FEATURES))
    scale, shift = np.geomspace(0.03, 30, NUM_FEATURES), np.linspace(-50, 50, NUM_FEATURES)
    return (features * scale + shift).astype(np.float32), labels


def fitted(train, validation, num_classes=None, **options) -> Head:
    num_classes = num_classes or int(train[1].max()) + 1
    return fit_head(*train, *validation, num_classes=num_classes, **options)


def logits_of(found: Head, features):
    return features.astype(np.float64) @ found.weight_KD.T.astype(np.float64) + found.bias_K


def probabilities(found: Head, features):
    logits = logits_of(found, features)
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def accuracy(found: Head, features, labels) -> float:
    return float((logits_of(found, features).argmax(1) == labels).mean())


# --- it is the optimum


def check_is_optimum(found: Head, features, labels, weight_of_class=None) -> None:
    """The gradient of the objective, in plain loops, is 0 for the weights of standardised ones."""
    features = features.astype(np.float64)
    mean, std = features.mean(0), features.std(0)
    share = np.ones(len(labels)) if weight_of_class is None else weight_of_class[labels]
    of_images, of_biases = np.zeros((2, *found.weight_KD.shape)), np.zeros(found.bias_K.shape)
    wrong = probabilities(found, features)
    for i, label in enumerate(labels):
        wrong[i, label] -= 1
        for k in range(len(of_biases)):
            of_images[0, k] += share[i] * wrong[i, k] * (features[i] - mean) / std / len(labels)
            of_biases[k] += share[i] * wrong[i, k] / len(labels)
    of_images[1] = found.strength * found.weight_KD * std
    np.testing.assert_allclose(of_images.sum(0), 0, atol=5e-5)
    np.testing.assert_allclose(of_biases, 0, atol=5e-5)


@pytest.mark.parametrize("counts", [(9, 20, 31), (17, 40)])
@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_it_minimises_the_cross_entropy_and_the_squared_weights(counts, spread):
    train = drawn(counts, spread=spread)
    found = fitted(train, drawn((3,) * len(counts), spread=spread, seed=1))
    assert found.weight_KD.shape == (len(counts), NUM_FEATURES)
    assert (found.weight_KD.dtype, found.bias_K.dtype) == (np.float32, np.float32)
    check_is_optimum(found, *train)


def test_balanced_classes_have_the_same_weight():
    train = drawn((5, 40, 15), spread=3)
    found = fitted(train, drawn((3, 3, 3), spread=3, seed=1), balanced=True)
    check_is_optimum(found, *train, weight_of_class=60 / 3 / np.array([5, 40, 15]))
    with pytest.raises(AssertionError):
        check_is_optimum(found, *train)


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_the_check_of_the_optimum_rejects_another_strength(factor):
    train = drawn((9, 20, 31), spread=3)
    found = fitted(train, drawn((3, 3, 3), spread=3, seed=1))
    with pytest.raises(AssertionError):
        check_is_optimum(Head(**(vars(found) | {"strength": found.strength * factor})), *train)


def test_the_scale_of_features_does_not_matter():
    (features, labels), (others, classes) = drawn((20, 20, 20), spread=2), drawn((9, 9, 9), seed=1)
    once = fitted((features, labels), (others, classes))
    scale = (2.0 ** np.arange(5, -6, -10 / 12).round()).astype(np.float32)[:NUM_FEATURES]
    again = fitted((features * scale, labels), (others * scale, classes))
    assert again.strength == once.strength
    np.testing.assert_allclose(
        probabilities(again, others * scale), probabilities(once, others), atol=1e-3
    )


# --- its strength


def test_validation_chooses_the_strength_with_the_least_loss():
    train, (features, labels) = drawn((30, 30, 30), spread=3), drawn((20, 20, 20), spread=3, seed=1)
    found = fitted(train, (features, labels))
    assert found.chosen_on == "validation"
    assert [strength for strength, _ in found.losses] == list(STRENGTHS)
    for strength, loss in found.losses:
        weight_LD, bias_L = head._Fitter(3, balanced=False).fit(*train, strength)
        alone = Head(
            weight_LD.astype(np.float32), bias_L.astype(np.float32), strength, "nothing", ()
        )
        right = probabilities(alone, features)[np.arange(60), labels]
        assert loss == pytest.approx(-np.log(right).mean(), abs=2e-3)
    assert found.strength == min(found.losses, key=lambda tried: tried[1])[0]
    assert STRENGTHS[0] > found.strength > STRENGTHS[-1]


def test_noise_is_held_down_and_clear_classes_are_not():
    noisy = fitted(drawn((30, 30), spread=30), drawn((30, 30), spread=30, seed=1))
    clear = fitted(drawn((30, 30), spread=0.1), drawn((30, 30), spread=0.1, seed=1))
    assert noisy.strength > 100 * clear.strength


def test_of_more_validation_images_than_training_images_none_is_used():
    train, validation = drawn((4, 5, 6), spread=2), drawn((20, 20, 20), spread=2, seed=1)
    found = fitted(train, validation)
    assert found.chosen_on == "folds"
    others = fitted(train, (validation[0] * 7, validation[1][::-1].copy()))
    assert others.losses == found.losses
    assert others.weight_KD.tobytes() == found.weight_KD.tobytes()


def test_no_image_chooses_the_strength_of_a_head_that_was_fitted_on_it():
    """Random features of many dimensions: a head knows by heart what it was fitted on."""
    draw = np.random.default_rng(0)
    features = draw.normal(size=(30, 200)).astype(np.float32)
    found = fitted((features, np.arange(30) % 3), (np.tile(features, (2, 1)), np.arange(60) % 3))
    assert found.chosen_on == "folds"
    assert min(loss for _, loss in found.losses) > np.log(3) - 0.1


def test_with_one_image_a_class_the_validation_images_choose():
    found = fitted(drawn((1, 9, 9)), drawn((20, 20, 20), seed=1))
    assert found.chosen_on == "validation"
    found = fitted(drawn((1, 1, 1)), drawn((20, 20, 20), seed=1))
    assert found.chosen_on == "validation"
    assert accuracy(found, *drawn((20, 20, 20), seed=2)) > 0.6


def test_tied_images_are_left_out_together():
    """Copies of 12 images whose features say nothing: a head knows a copy of what it has seen."""
    draw = np.random.default_rng(0)
    unit = draw.permutation(np.repeat(np.arange(12), 5))
    features = draw.normal(size=(12, 200))[unit] + 0.01 * draw.normal(size=(60, 200))
    train = features.astype(np.float32), unit % 3
    validation = np.zeros((61, 200), np.float32), np.arange(61) % 3

    def least_loss(units) -> float:
        found = fitted(train, validation, units_N=units)
        assert found.chosen_on == "folds"
        return min(loss for _, loss in found.losses)

    assert least_loss(None) < 0.5
    assert least_loss(unit) > np.log(3) - 0.1


def test_where_all_images_of_a_class_are_tied_the_validation_images_choose():
    train, validation = drawn((4, 5, 6), spread=2), drawn((20, 20, 20), spread=2, seed=1)
    unit = np.arange(15)
    unit[:4] = 0
    assert fitted(train, validation, units_N=unit).chosen_on == "validation"
    unit[3] = 3
    assert fitted(train, validation, units_N=unit).chosen_on == "folds"


def test_without_images_to_choose_on_the_usual_strength_is_used():
    found = fitted(drawn((3, 3)), drawn((0, 0)))
    assert (found.chosen_on, found.strength, found.losses) == ("nothing", USUAL_STRENGTH, ())


@pytest.mark.parametrize("counts", [(40, 4), (300, 4)], ids=["folds", "validation"])
def test_balanced_the_mean_over_the_classes_chooses(counts):
    train, validation = drawn(counts, spread=3), drawn((200, 9), spread=3, seed=1)
    usual, balanced = (fitted(train, validation, measure=m) for m in ("accuracy", "balanced"))
    assert usual.chosen_on == balanced.chosen_on == ("folds" if counts[0] == 40 else "validation")
    for one, other in zip(usual.losses, balanced.losses, strict=True):
        assert other[1] > 1.5 * one[1]  # the small class has the larger loss


# --- odd inputs


def test_constant_features_get_no_weight():
    (features, labels), (others, classes) = drawn((9, 9, 9)), drawn((5, 5, 5), seed=1)
    features[:, 4], features[:, 7] = 0.1, 0
    others[:, 4], others[:, 7] = 0.1, 9
    found = fitted((features, labels), (others, classes))
    assert np.isfinite(found.weight_KD).all()
    assert np.isfinite(found.bias_K).all()
    assert np.abs(found.weight_KD[:, [4, 7]]).max() < 1e-12
    assert accuracy(found, others, classes) > 0.9


def test_without_any_difference_all_classes_are_equal():
    constant = np.full((6, 3), 0.3, np.float32)
    found = fitted((constant, np.arange(6) % 3), (constant[:3], np.arange(3)))
    np.testing.assert_allclose(probabilities(found, constant), 1 / 3, atol=1e-6)


def test_a_feature_that_hardly_varied_does_not_outweigh_all_others():
    (features, labels), (others, classes) = drawn((9, 9, 9)), drawn((5, 5, 5), seed=1)
    features[:, 4] = 0
    features[3, 4] = 1e-6
    others[:, 4] = 1.0
    assert accuracy(fitted((features, labels), (others, classes)), others, classes) > 0.9


def test_a_class_without_training_images_is_never_predicted():
    train, validation = drawn((9, 0, 9, 9, 0)), drawn((5, 5, 5, 5, 5), seed=1)
    found = fitted(train, validation, num_classes=5)
    assert found.without_images == (1, 4)
    assert (found.weight_KD[[1, 4]] == 0).all()
    assert probabilities(found, train[0])[:, [1, 4]].max() <= 1.001 / (27 + 1)
    known = np.isin(validation[1], (0, 2, 3))
    assert accuracy(found, validation[0][known], validation[1][known]) > 0.9
    complete = fitted(drawn((9, 9, 9, 9, 9)), validation)
    assert complete.without_images == ()


@pytest.mark.parametrize("counts", [(0, 7, 0), (0, 0, 0)])
def test_images_of_one_class_are_refused(counts):
    num = np.count_nonzero(counts)
    message = (
        rf"^a last layer cannot be fitted: {num} of 3 classes have training images; add images"
    )
    with pytest.raises(DataError, match=message):
        fitted(drawn(counts), drawn((3, 3, 3)), num_classes=3)


# --- its bits

PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from test_head import *
draw = np.random.default_rng(0)
labels = np.arange(300) % 16
features = (draw.normal(size=(16, 640))[labels] + draw.normal(size=(300, 640)) * 9)
features = features.astype(np.float32)
found = fitted((features[:200], labels[:200]), (features[200:], labels[200:]))
print((found.weight_KD.tobytes() + found.bias_K.tobytes()).hex())
"""


def test_the_number_of_threads_changes_no_bit():
    def bits(threads: int) -> bytes:
        names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
        words = [sys.executable, "-c", PROGRAM, str(Path(__file__).parent)]
        environment = os.environ | dict.fromkeys(names, str(threads))
        return subprocess.run(words, env=environment, check=True, capture_output=True).stdout

    one = bits(1)
    assert len(one) == 2 * 4 * 16 * 641 + 1
    assert one == bits(4)


def test_features_too_small_for_32_bits_are_refused():
    draw = np.random.default_rng(0)
    labels = np.arange(40) % 2
    features = (1e-42 * (labels[:, None] + draw.normal(size=(40, 8)))).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match="so close to 0"):
            fit_head(features, labels, features, labels, num_classes=2)

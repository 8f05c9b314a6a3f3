"""Labels that were flipped on purpose are among the first that are doubted."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression


@pytest.fixture(scope="module")
def asked():
    """Real digits, one label in twenty flipped, and runs that each held out a fifth of them."""
    from towernet.comparison.judging.labels import OutOfSample

    draws = np.random.default_rng(0)
    x, true = load_digits(return_X_y=True)
    flipped = np.zeros(len(true), dtype=bool)
    flipped[draws.permutation(len(true))[: len(true) // 20]] = True
    others = (true + draws.integers(1, 10, len(true))) % 10
    labels = np.where(flipped, others, true).astype(np.int64)
    found = OutOfSample(len(true), 10)
    for _ in range(8):
        held_out = draws.random(len(true)) < 0.2
        network = LogisticRegression(C=0.01, max_iter=300).fit(x[~held_out] / 16, labels[~held_out])
        found.add(np.flatnonzero(held_out), network.predict_proba(x[held_out] / 16))
    return found, labels, flipped


def test_most_flips_are_among_the_first_suspects(asked):
    found, labels, flipped = asked
    suspects = found.suspects(labels)
    first = [suspect.row for suspect in suspects[: 2 * flipped.sum()]]
    assert flipped[first].sum() >= 0.6 * flipped.sum()
    assert all(found.num_runs_N[row] for row in first)
    # By chance a tenth of them would be there.
    by_chance = np.random.default_rng(1).permutation(len(labels))[: 2 * flipped.sum()]
    assert flipped[by_chance].sum() < 0.2 * flipped.sum()


def test_the_most_doubtful_comes_first_with_the_class_it_looks_like(asked):
    found, labels, _ = asked
    suspects = found.suspects(labels)
    doubts = [suspect.confidence_in_label for suspect in suspects]
    assert doubts == sorted(doubts)
    _, true = load_digits(return_X_y=True)
    first = suspects[:20]
    assert sum(suspect.looks_like == true[suspect.row] for suspect in first) >= 18


def test_without_an_answer_for_a_class_nothing_is_said():
    from towernet.comparison.judging.labels import OutOfSample

    found = OutOfSample(3, 2)
    found.add(np.array([0]), np.array([[0.1, 0.9]]))
    assert found.suspects(np.array([0, 0, 1])) == []

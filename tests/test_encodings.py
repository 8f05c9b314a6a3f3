"""Names without an encoding: recognised from what they read as, or left to the user."""

import random
from collections import Counter

import pytest

from foreign_names import NAMES, names_of
from towernet.data import encodings
from towernet.data.encodings import ANSI, OEM, guess

SIZES = (2, 3, 5, 10, 40)
NUM_SAMPLES = 12


def outcome(names, codec, usual):
    """Return "right", "wrong" or "refused" for names in an encoding."""
    raws = [name.encode(codec) for name in names]
    found = guess(raws, usual)
    if found is None or not found.plausible or found.others:
        return "refused"
    return "right" if encodings.decoded(raws, found.codec) == tuple(names) else "wrong"


def outcomes(language, codec, usual, sizes=SIZES, num_samples=NUM_SAMPLES):
    """Return how often names of a language are recognised, by how many there are."""
    rng = random.Random(f"{language} {codec}")
    found = {size: Counter() for size in sizes}
    for size in sizes:
        for _ in range(num_samples):
            names = rng.sample(names_of(language), min(size, len(names_of(language))))
            if not all(name.isascii() for name in names):
                found[size][outcome(names, codec, usual)] += 1
    return found


PAIRS = [
    (language, codec, usual)
    for language, (codecs, _) in NAMES.items()
    for codec, usual in zip(codecs * 2, (OEM, ANSI), strict=False)
]


@pytest.mark.parametrize(("language", "codec", "usual"), PAIRS)
def test_names_are_recognised_or_refused(language, codec, usual):
    found = outcomes(language, codec, usual)
    total = sum(found.values(), Counter())
    assert total["wrong"] == 0
    assert total["right"] >= 0.8 * total.total()
    assert found[40]["refused"] == 0

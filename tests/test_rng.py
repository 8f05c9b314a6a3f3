"""Randomness as a function: the generator's published answers, and what follows from it."""

import numpy as np
import pytest

from towernet import rng

# Random123's known answers for philox4x32-10: counter, key, output.
KNOWN = [
    ([0, 0, 0, 0], (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    (
        [0xFFFFFFFF] * 4,
        (0xFFFFFFFF, 0xFFFFFFFF),
        [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
    ),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        (0xA4093822, 0x299F31D0),
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN)
def test_the_generator_gives_its_published_answers(counter, key, output):
    words = rng.philox([np.array([word], np.uint64) for word in counter], key)
    assert [int(word[0]) for word in words] == output


def test_a_draw_depends_on_its_item_alone_and_not_on_its_neighbours():
    items = np.arange(100, dtype=np.uint64) * 977
    together = rng.uniform(7, 3, items, "crop", 5)
    apart = np.concatenate([rng.uniform(7, 3, items[i : i + 1], "crop", 5) for i in range(100)])
    np.testing.assert_array_equal(together, apart)


def test_seed_epoch_purpose_and_column_each_draw_anew():
    items = np.arange(50, dtype=np.uint64)
    draws = [
        rng.uniform(0, 0, items, "crop")[:, 0],
        rng.uniform(1, 0, items, "crop")[:, 0],
        rng.uniform(0, 1, items, "crop")[:, 0],
        rng.uniform(0, 0, items, "flip")[:, 0],
        *rng.uniform(0, 0, items, "crop", 5).T[1:],
    ]
    for i, first in enumerate(draws):
        for second in draws[i + 1 :]:
            assert not np.array_equal(first, second)
            assert abs(np.corrcoef(first, second)[0, 1]) < 0.5


def test_draws_are_uniform():
    draws = rng.uniform(0, 0, np.arange(20_000, dtype=np.uint64), "check", 3)
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = np.histogram(draws, bins=20, range=(0, 1))[0]
    expected = draws.size / 20
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 43.8  # the 99.9 % point of 19 degrees of freedom


def test_keys_are_the_first_64_bits_of_the_content_id():
    assert rng.keys(["ff" * 32, "00" * 31 + "01"]).tolist() == [2**64 - 1, 0]

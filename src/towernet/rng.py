"""Random numbers without state: draws do not depend on workers, prefetching or resuming.

Every draw is a pure function of (seed, epoch, item, purpose): the counter-based generator
Philox-4x32-10 is keyed by seed and purpose, and its counter is (item, epoch, column).

Source: Salmon, Moraes, Dror, Shaw. Parallel random numbers: as easy as 1, 2, 3. SC 2011.
Shapes: N items, D draws for each item.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

_MULTIPLIER_0, _MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = 0x9E3779B9, 0xBB67AE85
_LOW_32 = np.uint64(0xFFFFFFFF)


def philox(
    counter_4N: Sequence[npt.NDArray[np.uint64]], key: tuple[int, int]
) -> list[npt.NDArray[np.uint64]]:
    """Ten rounds of Philox-4x32 on four arrays of 32-bit counters (held in uint64)."""
    c0, c1, c2, c3 = counter_4N
    k0, k1 = key
    for _ in range(10):
        product_0, product_1 = c0 * _MULTIPLIER_0, c2 * _MULTIPLIER_1
        c0, c1, c2, c3 = (
            (product_1 >> np.uint64(32)) ^ c1 ^ np.uint64(k0),
            product_1 & _LOW_32,
            (product_0 >> np.uint64(32)) ^ c3 ^ np.uint64(k1),
            product_0 & _LOW_32,
        )
        k0, k1 = (k0 + _WEYL_0) & 0xFFFFFFFF, (k1 + _WEYL_1) & 0xFFFFFFFF
    return [c0, c1, c2, c3]


def derive(seed: int, *parts: object) -> int:
    """Return a 63-bit seed for one purpose, for example `derive(seed, "weights")`."""
    text = "\0".join([str(int(seed)), *(str(part) for part in parts)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def keys(content_ids: Iterable[str]) -> npt.NDArray[np.uint64]:
    """Return the first 64 bits of each content id (hex of a sha-256), the items to draw for."""
    return np.array([int(content_id[:16], 16) for content_id in content_ids], dtype=np.uint64)


def uniform(
    seed: int, epoch: int, item_keys: npt.NDArray[np.uint64], purpose: str, num: int = 1
) -> npt.NDArray[np.float64]:
    """Draw `num` numbers in [0, 1) for each item; the same arguments give the same numbers.

    Args:
        seed: The run's seed.
        epoch: Which pass over the images this is, in [0, 2^32).
        item_keys: (N,) the images' keys, from `keys`.
        purpose: What the draws are for; other purposes draw independently.
        num: D, how many draws each item gets.

    Returns:
        (N, D) doubles with 53 random bits each.
    """
    key = derive(seed, purpose)
    # Two 32-bit words make one double, so one call of the generator serves two columns.
    num_calls = (num + 1) // 2
    item = np.repeat(item_keys, num_calls)
    call = np.tile(np.arange(num_calls, dtype=np.uint64), len(item_keys))
    counter = [item & _LOW_32, item >> np.uint64(32), np.full_like(item, epoch), call]
    word_0, word_1, word_2, word_3 = philox(counter, (key & 0xFFFFFFFF, key >> 32))
    first = (word_0 >> np.uint64(5)) * 67108864.0 + (word_1 >> np.uint64(6))
    second = (word_2 >> np.uint64(5)) * 67108864.0 + (word_3 >> np.uint64(6))
    draws = np.stack([first, second], axis=1).reshape(len(item_keys), 2 * num_calls)
    return draws[:, :num] / 9007199254740992.0


def order(
    seed: int, epoch: int, item_keys: npt.NDArray[np.uint64], purpose: str = "order"
) -> npt.NDArray[np.int64]:
    """Return a permutation of the items, a function of (seed, epoch, items) alone."""
    return np.argsort(uniform(seed, epoch, item_keys, purpose)[:, 0], kind="stable")

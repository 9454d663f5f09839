"""A permutation computed point by point: a Feistel network with cycle walking (Black and Rogaway 2002).

Row `i` of epoch `e` is a function of (seed, e, i): nothing is stored, nothing is lost by a kill, and the mixing is
global however large the store is.
"""

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 6


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64: every input bit moves every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def counter_key(*counters: int) -> np.uint64:
    """A 64-bit key from any number of counters (seed, purpose, epoch, ...)."""
    key = np.zeros(1, np.uint64)
    with np.errstate(over="ignore"):
        for counter in counters:
            key = _mix(key + np.uint64(counter % 2**64) + np.uint64(0x9E3779B97F4A7C15))
    return key[0]


def shuffled(places: NDArray[np.int64], n: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """The rows that stand at some places of a shuffled epoch.

    Args:
        places: Places in `0..n - 1`.
        n: Number of rows.
        seed: Names the shuffle.
        epoch: Each epoch has an order of its own.

    Returns:
        As many rows in `0..n - 1`; over all places, each row once.
    """
    bits = max(int(n - 1).bit_length(), 2)
    low_bits = np.uint64(bits // 2)
    high_bits = np.uint64(bits - bits // 2)
    keys = [counter_key(seed, epoch, r) for r in range(_ROUNDS)]
    rows = places.astype(np.uint64)
    outside = np.arange(len(rows))
    while len(outside):
        rows[outside] = _feistel(rows[outside], low_bits, high_bits, keys)
        outside = outside[rows[outside] >= n]  # Walk on until inside: at most every second point is outside.
    return rows.astype(np.int64)


def _feistel(
    x: NDArray[np.uint64], low_bits: np.uint64, high_bits: np.uint64, keys: list[np.uint64]
) -> NDArray[np.uint64]:
    one = np.uint64(1)
    with np.errstate(over="ignore"):
        for key in keys:
            low, high = x & ((one << low_bits) - one), x >> low_bits
            # The halves change places each round, so unequal halves change widths too; an even number of rounds
            # brings them back.
            x = (low << high_bits) | (high ^ (_mix(low + key) & ((one << high_bits) - one)))
            low_bits, high_bits = high_bits, low_bits
    return x

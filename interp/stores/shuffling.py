"""A permutation computed point by point: a Feistel network with cycle walking (Black and Rogaway 2002).

Row `i` of epoch `e` is a function of (seed, e, i): nothing is stored, nothing is lost by a kill, and the mixing is
global however large the store is.
"""

import functools
from collections.abc import Callable
from typing import Any

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
    rows = _permuted(places, bits, seed, epoch)
    outside = np.flatnonzero(rows >= n)
    while len(outside):  # Walk on until inside: at most every second point is outside.
        rows[outside] = _permuted(rows[outside], bits, seed, epoch)
        outside = outside[rows[outside] >= n]
    return rows


def _permuted(x: NDArray[np.int64], bits: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The Feistel network over `0..2**bits - 1`."""
    low_bits = bits // 2
    high, low = x >> low_bits, x & ((1 << low_bits) - 1)
    for scrambled in _rounds(bits, seed, epoch):
        # The halves change places each round, so unequal halves change widths too; an even number of rounds brings
        # them back.
        high, low = low, high ^ scrambled(low)
    return (high << low_bits) | low


@functools.lru_cache(maxsize=16)
def _rounds(bits: int, seed: int, epoch: int) -> list[Callable[[NDArray[np.int64]], NDArray[Any]]]:
    """What each round adds to one half, as a function of the other."""
    halves = bits // 2, bits - bits // 2
    return [_round(counter_key(seed, epoch, r), halves[r % 2], halves[1 - r % 2]) for r in range(_ROUNDS)]


def _round(key: np.uint64, taken: int, given: int) -> Callable[[NDArray[np.int64]], NDArray[Any]]:
    """A function of `taken` bits to `given` bits."""
    mask = np.uint64((1 << given) - 1)

    def scrambled(x: NDArray[np.int64]) -> NDArray[np.int64]:
        with np.errstate(over="ignore"):
            return (_mix(x.astype(np.uint64) + key) & mask).astype(np.int64)

    if max(taken, given) > 16:
        return scrambled
    # A half of a store of up to 2**32 rows has few values: looking them up takes a sixth of the time.
    return scrambled(np.arange(1 << taken)).astype(np.uint16).take

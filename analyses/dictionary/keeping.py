"""The n records of smallest key in each of many groups, kept while records stream by."""

import numpy as np
from numpy.typing import NDArray

_EMPTY = np.uint64(2**64 - 1)
_LEAST_BUFFER = 1 << 18


class Kept:
    """A table of the `n` smallest keys of each group; equal keys are settled by (example, position).

    What is kept is a function of the set of records offered, provided they come in stored order: merging and
    resuming change nothing. Memory is O(records kept): a record is buffered only if it beats the n-th of its group.

    Args:
        groups: Number of groups.
        n: Records a group.
        one_per_example: Keep at most one record of an example in a group, that of the smallest key.
    """

    def __init__(self, groups: int, n: int, *, one_per_example: bool = False) -> None:
        self.groups, self.n, self.one_per_example = groups, n, one_per_example
        # The group takes the high bits and the key what is left, so that one integer sorts a record.
        self._key_bits = np.uint64(64 - max(1, (groups - 1).bit_length()))
        self._bound = np.full(groups, _EMPTY)
        self.code = np.empty(0, np.uint64)
        self.example = np.empty(0, np.int64)
        self.position = np.empty(0, np.int64)
        self.value = np.empty(0, np.float32)
        self._buffer: list[tuple[np.ndarray, ...]] = []
        self._buffered = 0

    @property
    def group(self) -> NDArray[np.int64]:
        """The group of each kept record."""
        return (self.code >> self._key_bits).astype(np.int64)

    def offer(
        self,
        group: NDArray[np.int64],
        key: NDArray[np.uint64],
        example: NDArray[np.int64],
        position: NDArray[np.int64],
        value: NDArray[np.float32],
    ) -> None:
        """Take the records that may be among the smallest of their group.

        Args:
            group: Group of each record.
            key: Smaller is better; all 64 bits are meant, the last are cut where there are many groups.
            example: Example of each record.
            position: Position of each record.
            value: Carried along.
        """
        if self.n == 0:
            return
        code = (group.astype(np.uint64) << self._key_bits) | (key >> (np.uint64(64) - self._key_bits))
        accepted = np.flatnonzero(code <= self._bound[group])
        self._buffer.append((code[accepted], example[accepted], position[accepted], value[accepted]))
        self._buffered += len(accepted)
        if self._buffered > max(_LEAST_BUFFER, len(self.code)):
            self.compact()

    def compact(self) -> None:
        """Merge what was buffered; afterwards records are sorted by group, then key."""
        if not self._buffer:
            return
        parts = [(self.code, self.example, self.position, self.value), *self._buffer]
        self._buffer, self._buffered = [], 0
        # Stable: of equal codes the earlier record stays first, and records come in the order of their addresses.
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        columns = _taken(columns, np.argsort(columns[0], kind="stable"))
        if self.one_per_example:
            columns = _taken(columns, self._strongest_of_example(columns[0], columns[1]))
        rank = rank_in_run(columns[0] >> self._key_bits)
        last = np.flatnonzero(rank == self.n - 1)
        bounds = columns[0][last]
        self._bound[(bounds >> self._key_bits).astype(np.int64)] = bounds
        self.code, self.example, self.position, self.value = _taken(columns, np.flatnonzero(rank < self.n))

    def _strongest_of_example(self, code: np.ndarray, example: np.ndarray) -> NDArray[np.int64]:
        order = np.lexsort((example, code >> self._key_bits))
        group, item = code[order] >> self._key_bits, example[order]
        first = np.ones(len(order), bool)
        first[1:] = (group[1:] != group[:-1]) | (item[1:] != item[:-1])
        return np.sort(order[first])

    def rank(self) -> NDArray[np.int64]:
        """Rank of each kept record in its group, from 0."""
        self.compact()
        return rank_in_run(self.code >> self._key_bits)

    def state(self) -> dict[str, np.ndarray]:
        """What a checkpoint holds."""
        self.compact()
        return {"code": self.code, "example": self.example, "position": self.position, "value": self.value}

    def load(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a checkpoint."""
        self.code, self.example, self.position, self.value = (
            state[name] for name in ("code", "example", "position", "value")
        )
        last = self.code[rank_in_run(self.code >> self._key_bits) == self.n - 1]
        self._bound[(last >> self._key_bits).astype(np.int64)] = last


def _taken(columns: list[np.ndarray], rows: NDArray[np.int64]) -> list[np.ndarray]:
    return [column[rows] for column in columns]


def rank_in_run(group: NDArray[np.integer]) -> NDArray[np.int64]:
    """Place of each record among those of its group, which stand together."""
    starts = np.flatnonzero(np.append(True, group[1:] != group[:-1])) if len(group) else np.empty(0, np.int64)
    lengths = np.diff(np.append(starts, len(group)))
    return np.arange(len(group)) - np.repeat(starts, lengths)


def strongest_first(values: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Keys that sort values by falling magnitude, exactly."""
    bits = values.view(np.uint32) & np.uint32(0x7FFFFFFF)
    return (np.uint64(0xFFFFFFFF) - bits.astype(np.uint64)) << np.uint64(32)


def drawn(
    seed: int, features: NDArray[np.int64], rows: NDArray[np.int64], address: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """Random keys that are a function of (seed, feature, example, position): the smallest are a fair sample.

    Args:
        seed: Names the draw.
        features: Feature of each code.
        rows: Row of each code.
        address: Address of each row.
    """
    with np.errstate(over="ignore"):
        base = _mix(np.array([seed % 2**64], np.uint64) + np.uint64(0x9E3779B97F4A7C15))
        by_row = _mix(address.astype(np.uint64) + base)
        return _mix(by_row[rows] + (features.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))

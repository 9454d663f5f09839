"""The activations around each example, and what fires with each feature: a second look at the codes."""

import numpy as np
from numpy.typing import NDArray

from analyses.dictionary.encoding import Codes, address_of
from analyses.dictionary.keeping import Kept
from analyses.dictionary.selecting import Examples


class Windows:
    """Activations of a feature over the positions around its examples, in 8 bits.

    Args:
        examples: The examples, in any order.
        start: First position of each window.
        stop: Position after its last.
        scale: Activation of one step, a feature each.
        zero: Step that stands for no firing.
    """

    def __init__(
        self,
        examples: Examples,
        start: NDArray[np.int64],
        stop: NDArray[np.int64],
        scale: NDArray[np.float32],
        zero: int,
    ) -> None:
        self.start, self.length, self.scale, self.zero = start, stop - start, scale, zero
        width = int(self.length.max()) if len(examples) else 0
        self.heat = np.full((len(examples), width), zero, np.uint8)
        # By (example, position) starts ascend and so do stops: a batch of rows meets one run of windows.
        self._order = np.lexsort((examples.position, examples.example))
        self._feature = examples.feature[self._order]
        self._first = address_of(examples.example, start)[self._order]
        self._end = address_of(examples.example, stop)[self._order]

    def meets(self, first: int, last: int) -> bool:
        """Whether any window reaches into the addresses `first` to `last`."""
        return bool(np.searchsorted(self._first, last, "right") > np.searchsorted(self._end, first, "right"))

    def add(self, codes: Codes) -> None:
        """Fill in what one batch holds of the windows."""
        low = np.searchsorted(self._end, codes.address[0], "right")
        high = np.searchsorted(self._first, codes.address[-1], "right")
        if high <= low:
            return
        n, feature = len(codes), self._feature[low:high]
        order = np.argsort(codes.features.astype(np.uint16 if codes.features.max(initial=0) < 1 << 16 else np.int64),
                           kind="stable")  # fmt: skip
        # Codes sorted by (feature, row): the firings of one feature in a run of rows stand side by side.
        keys = codes.features[order].astype(np.int64) * n + codes.rows[order]
        begin = np.searchsorted(keys, feature * n + np.searchsorted(codes.address, self._first[low:high]))
        end = np.searchsorted(keys, feature * n + np.searchsorted(codes.address, self._end[low:high]))
        hits = order[spread(begin, end)]
        window = np.repeat(self._order[low:high], end - begin)
        column = codes.position[codes.rows[hits]] - self.start[window]
        steps = np.rint(codes.values[hits] / self.scale[codes.features[hits]]).astype(np.int64)
        self.heat[window, column] = np.clip(steps + self.zero, 0, 255)

    def flat(self, rows: slice) -> NDArray[np.uint8]:
        """The windows of some examples, end to end, each of its own length."""
        inside = np.arange(self.heat.shape[1]) < self.length[rows, None]
        return self.heat[rows][inside]


class Partners:
    """How often other features fire where a feature fires, counted over a sample of its firings.

    Every feature gets the same number of sampled firings, so a rare one is seen as well as a frequent one, and one
    with fewer firings than that is counted exactly. Memory is O(d_sae * firings * L0), whatever the store's size.

    Args:
        sampled: The sampled firings, grouped by feature.
        firings: How many of each feature to use.
    """

    def __init__(self, sampled: Kept, firings: int) -> None:
        use = np.flatnonzero(sampled.rank() < firings)
        address = address_of(sampled.example[use], sampled.position[use])
        order = np.argsort(address, kind="stable")
        self._address, self._feature = address[order], sampled.group[use][order]
        self.d_sae = sampled.groups
        self.used = np.bincount(self._feature, minlength=self.d_sae)
        self._pairs: list[NDArray[np.int64]] = [np.empty(0, np.int64)]

    def meets(self, first: int, last: int) -> bool:
        """Whether a sampled firing lies in the addresses `first` to `last`."""
        return bool(np.searchsorted(self._address, last, "right") > np.searchsorted(self._address, first))

    def add(self, codes: Codes) -> None:
        """Count one batch in."""
        low = np.searchsorted(self._address, codes.address[0])
        high = np.searchsorted(self._address, codes.address[-1], "right")
        row = np.searchsorted(codes.address, self._address[low:high])
        begin, end = codes.offsets[row], codes.offsets[row + 1]
        other = codes.features[spread(begin, end)]
        feature = np.repeat(self._feature[low:high], end - begin)
        apart = feature != other
        self._pairs.append(feature[apart] * self.d_sae + other[apart])

    def counts(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Feature, other, and in how many of the feature's sampled firings the other fires too; sorted by both."""
        pairs = np.concatenate(self._pairs)
        pairs.sort()
        starts = np.flatnonzero(np.append(True, pairs[1:] != pairs[:-1])) if len(pairs) else np.empty(0, np.int64)
        feature, other = np.divmod(pairs[starts], self.d_sae)
        return feature, other, np.diff(np.append(starts, len(pairs)))


def spread(begin: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
    """All integers of the runs `begin..end - 1`, run after run."""
    lengths = end - begin
    return np.repeat(begin - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())

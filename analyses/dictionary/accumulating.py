"""The statistics of all features, in one pass over sparse codes: O(d_sae) memory, never [rows, d_sae]."""

import numpy as np
from numpy.typing import NDArray

from analyses.dictionary.encoding import POSITION_BITS, Codes
from analyses.dictionary.histograms import bins_of, number_of_bins
from analyses.dictionary.keeping import Kept, drawn, strongest_first
from analyses.dictionary.recipes import Recipe

_KEPT = ("top", "binned", "sampled")
_COLUMNS = ("count", "total", "low", "high", "histogram", "lengths")


class Accumulators:
    """Running statistics and examples of every feature.

    Every update is a sum taken code after code, a maximum, or a choice of smallest keys: the result does not depend
    on how rows are batched.

    Args:
        d_sae: Number of features.
        signed: Whether codes can be negative.
        examples: Number of examples in the store.
        recipe: How many examples to keep.
    """

    def __init__(self, d_sae: int, signed: bool, examples: int, recipe: Recipe) -> None:
        self.d_sae, self.signed, self.seed = d_sae, signed, recipe.seed
        self.bins = number_of_bins(signed)
        self.rows, self.last_address = 0, -1
        self.count = np.zeros(d_sae, np.int64)
        self.total = np.zeros(d_sae, np.float64)
        self.low = np.full(d_sae, np.inf, np.float32)
        self.high = np.full(d_sae, -np.inf, np.float32)
        self.histogram = np.zeros(d_sae * self.bins, np.int64)
        # Positions of each example, the last row's position + 1; zero for an example without rows.
        self.lengths = np.zeros(examples, np.int64)
        self.top = Kept(d_sae, recipe.top, one_per_example=True)
        self.binned = Kept(d_sae * self.bins, recipe.quantiles[1])
        self.sampled = Kept(d_sae, max(recipe.random, recipe.firings))

    def add(self, codes: Codes) -> None:
        """Count one batch in.

        Raises:
            ValueError: If the rows do not ascend by (example, position), or an example has no item.
        """
        self._check_addresses(codes)
        np.maximum.at(self.lengths, codes.example, codes.position + 1)
        self.rows += len(codes)
        features, values = codes.features.astype(np.int64), codes.values
        # One code after another, so that the float64 sums do not depend on the batches.
        np.add.at(self.total, features, values.astype(np.float64))
        np.add.at(self.count, features, 1)
        np.minimum.at(self.low, features, values)
        np.maximum.at(self.high, features, values)
        groups = features * self.bins + bins_of(values, self.signed)
        np.add.at(self.histogram, groups, 1)
        example, position = codes.example[codes.rows], codes.position[codes.rows]
        self.top.offer(features, strongest_first(values), example, position, values)
        keys = drawn(self.seed, features, codes.rows, codes.address)
        self.binned.offer(groups, keys, example, position, values)
        self.sampled.offer(features, keys, example, position, values)

    def _check_addresses(self, codes: Codes) -> None:
        if not len(codes):
            return
        if codes.position.min() < 0 or codes.position.max() >= 1 << POSITION_BITS:
            raise ValueError(
                f"source has positions from {codes.position.min()} to {codes.position.max()}, but a position is in "
                f"0..{(1 << POSITION_BITS) - 1}: cut longer examples."
            )
        if codes.example.max() >= len(self.lengths):
            raise ValueError(
                f"source has rows of example {codes.example.max()}, but items for {len(self.lengths)} examples: "
                "give an item for each example."
            )
        if codes.address[0] <= self.last_address or (np.diff(codes.address) <= 0).any():
            raise ValueError("source must hold its rows sorted by (example, position), each address once: sort them.")
        self.last_address = int(codes.address[-1])

    def state(self) -> dict[str, NDArray]:
        """All of it, for a checkpoint."""
        state = {name: getattr(self, name) for name in _COLUMNS}
        state["progress"] = np.array([self.rows, self.last_address], np.int64)
        for name in _KEPT:
            state |= {f"{name}.{column}": part for column, part in getattr(self, name).state().items()}
        return state

    def load(self, state: dict[str, NDArray]) -> None:
        """Go on from a checkpoint."""
        for name in _COLUMNS:
            setattr(self, name, state[name])
        self.rows, self.last_address = (int(value) for value in state["progress"])
        for name in _KEPT:
            prefix = f"{name}."
            getattr(self, name).load({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})

    @property
    def by_bin(self) -> NDArray[np.int64]:
        """The histogram, [d_sae, bins]."""
        return self.histogram.reshape(self.d_sae, self.bins)

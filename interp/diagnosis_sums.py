"""What one pass over a store adds up: memory for positions and the square of the width, never for the rows."""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.effective_rank import singular_values
from interp.norms import NormSums, NormTable
from interp.types import Activations

MOST_HASHES = 2_000_000
"""Rows whose hashes are kept to find copies: 16 MB. Of larger stores, those whose hash is small: copies of a row stay
together, so that their share is unbiased."""


@dataclass(frozen=True)
class Measurements:
    """What was measured; vectors and their norms in the model's units.

    Args:
        rows: Finite rows that were read; all else is about these.
        nonfinite_rows: Rows with NaN or infinity.
        zero_rows: Rows that are all 0.
        constant_rows: Rows of one value in all dimensions, those of 0 counted.
        copies: Share of the rows that repeat an earlier one, bit by bit.
        most_copied: How often the most frequent row occurs, among those whose hashes were kept.
        zeros: Share of the values that are exactly 0.
        mean: Mean of each dimension.
        std: Standard deviation of each dimension.
        low: Smallest value of each dimension.
        high: Largest value of each dimension.
        spectrum: Singular values of the rows, largest first, over the square root of their number.
        centred_spectrum: Those of the rows less their mean.
        norms: Norms of the rows, by position.
    """

    rows: int
    nonfinite_rows: int
    zero_rows: int
    constant_rows: int
    copies: float
    most_copied: int
    zeros: float
    mean: Float[Tensor, " d_in"]
    std: Float[Tensor, " d_in"]
    low: Float[Tensor, " d_in"]
    high: Float[Tensor, " d_in"]
    spectrum: Float[Tensor, " d_in"]
    centred_spectrum: Float[Tensor, " d_in"]
    norms: NormTable

    @property
    def d_in(self) -> int:
        """Width of the rows."""
        return len(self.mean)

    @property
    def spread(self) -> float:
        """Root mean squared distance of a row from the mean."""
        return float(self.std.square().sum().sqrt())

    @property
    def constant(self) -> Int[Tensor, " c"]:
        """Dimensions that have one value in all rows."""
        return (self.low == self.high).nonzero().flatten()


class Sums:
    """Adds up batches.

    Args:
        d_in: Width of the rows.
        rows: How many will come.
    """

    def __init__(self, d_in: int, rows: int) -> None:
        self._n = self._nonfinite = self._zero_rows = self._constant_rows = self._zeros = 0
        self._total = torch.zeros(d_in, dtype=torch.float64)
        self._gram = torch.zeros(d_in, d_in, dtype=torch.float64)
        self._low = torch.full((d_in,), float("inf"), dtype=torch.float64)
        self._high = -self._low
        self._norms = NormSums()
        self._bound = min(2**64 - 1, 2**64 * MOST_HASHES // max(rows, 1))
        self._hashes: list[np.ndarray] = []

    def add(self, batch: Activations) -> None:
        """Take rows in, in any order."""
        batch = batch.to("cpu")
        finite = batch.values.isfinite().all(dim=1)
        if not finite.all():
            self._nonfinite += int((~finite).sum())
            batch = batch[finite]
        if len(batch) == 0:
            return
        x = batch.values.double()
        low, high = x.amin(dim=1), x.amax(dim=1)
        self._n += len(x)
        self._zero_rows += int(((low == 0) & (high == 0)).sum())
        self._constant_rows += int((low == high).sum())
        self._zeros += x.numel() - int(x.count_nonzero())
        self._total += x.sum(dim=0)
        self._gram.addmm_(x.T, x)
        torch.minimum(self._low, x.amin(dim=0), out=self._low)
        torch.maximum(self._high, x.amax(dim=0), out=self._high)
        self._norms.add(x.norm(dim=1), batch.example, batch.position)
        hashes = row_hashes(batch.values)
        self._hashes.append(hashes[hashes <= self._bound])

    def measured(self) -> Measurements:
        """What was measured.

        Raises:
            ValueError: If no finite row came.
        """
        n = self._n
        if n == 0:
            raise ValueError(
                f"the store holds no finite row ({self._nonfinite} with NaN or infinity): look at the model's "
                "precision and the data, and harvest again."
            )
        mean, gram = self._total / n, self._gram / n
        centred = gram - torch.outer(mean, mean)
        # What rounding leaves of a constant dimension is not variance.
        centred[self._low == self._high] = centred[:, self._low == self._high] = 0
        counts = np.unique(np.concatenate(self._hashes), return_counts=True)[1]
        return Measurements(
            rows=n,
            nonfinite_rows=self._nonfinite,
            zero_rows=self._zero_rows,
            constant_rows=self._constant_rows,
            copies=float((counts - 1).sum() / max(counts.sum(), 1)),
            most_copied=int(counts.max(initial=1)),
            zeros=self._zeros / (n * len(mean)),
            mean=mean,
            std=centred.diagonal().clamp_min(0).sqrt(),
            low=self._low,
            high=self._high,
            spectrum=singular_values(gram),
            centred_spectrum=singular_values(centred),
            norms=self._norms.table(),
        )


def row_hashes(values: Float[Tensor, "n d_in"]) -> np.ndarray:
    """64 bits of each row's bytes."""
    rows = values.contiguous().view(torch.uint8).numpy()
    digests = b"".join(hashlib.blake2b(row, digest_size=8).digest() for row in rows)
    return np.frombuffer(digests, np.uint64)

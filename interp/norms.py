"""Norms of rows by position: a logarithmic histogram each, so that medians need no rows."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

PER_OCTAVE = 16  # A bin is 4.4 % wide; medians interpolate inside it.
_LOWEST, _HIGHEST = -24, 40  # Powers of 2: norms outside are counted in the end bins.
_BINS = (_HIGHEST - _LOWEST) * PER_OCTAVE
MOST_POSITIONS = 4096
"""Positions told apart; later ones are counted in the last of these. 8 kB each."""
_LARGEST = 8


@dataclass(frozen=True)
class NormTable:
    """Norms of rows, in the model's units.

    Args:
        counts: Rows by position and bin of their norm.
        squares: Sum of the squared norms of each bin.
        largest: Norms of the rows of largest norm, largest first.
        example: Which example each of these comes from.
        position: At which position.
    """

    counts: Int[Tensor, "p bins"]
    squares: Float[Tensor, " bins"]
    largest: Float[Tensor, " top"]
    example: Int[Tensor, " top"]
    position: Int[Tensor, " top"]

    @property
    def edges(self) -> Float[Tensor, " bins_plus_1"]:
        """Borders of the bins."""
        return torch.exp2(torch.arange(_BINS + 1, dtype=torch.float64) / PER_OCTAVE + _LOWEST)

    @property
    def rows(self) -> Int[Tensor, " p"]:
        """Rows at each position."""
        return self.counts.sum(dim=1)

    @property
    def median(self) -> float:
        """Median norm of the rows that are not 0, to within a bin; 0 where all are."""
        counts = self.counts.sum(dim=0, keepdim=True)
        counts[:, 0] = 0
        return float(_quantile(counts, 0.5).nan_to_num(0.0))

    def quantile(self, q: float) -> Float[Tensor, " p"]:
        """Norm below which a share `q` of each position's rows lies, to within a bin; NaN where there is no row."""
        return _quantile(self.counts, q)

    def above(self, norm: float) -> tuple[int, float]:
        """How many rows lie in the bins above a norm, and which share of the sum of squared norms they carry."""
        first = _bins(torch.tensor([norm], dtype=torch.float64)).item() + 1
        total = float(self.squares.sum())
        return int(self.counts[:, first:].sum()), float(self.squares[first:].sum()) / total if total else 0.0


class NormSums:
    """Adds up the norms of batches."""

    def __init__(self) -> None:
        self._counts = torch.zeros(1, _BINS, dtype=torch.long)
        self._squares = torch.zeros(_BINS, dtype=torch.float64)
        self._largest = torch.zeros(0, dtype=torch.float64)
        self._places = torch.zeros(0, 2, dtype=torch.long)

    def add(self, norms: Float[Tensor, " n"], example: Int[Tensor, " n"], position: Int[Tensor, " n"]) -> None:
        """Take the norms of some rows in, with their addresses."""
        place, bins = position.clamp(0, MOST_POSITIONS - 1), _bins(norms)
        new = int(place.max()) + 1 - len(self._counts)
        if new > 0:
            self._counts = torch.cat([self._counts, self._counts.new_zeros(new, _BINS)])
        self._counts.view(-1).index_add_(0, place * _BINS + bins, torch.ones_like(bins))
        self._squares.index_add_(0, bins, norms.square())
        largest = torch.cat([self._largest, norms])
        order = torch.argsort(largest, descending=True, stable=True)[:_LARGEST]
        self._largest = largest[order]
        self._places = torch.cat([self._places, torch.stack([example, position], dim=1)])[order]

    def table(self) -> NormTable:
        """What was counted."""
        return NormTable(self._counts, self._squares, self._largest, self._places[:, 0], self._places[:, 1])


def _bins(norms: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
    octaves = norms.clamp_min(2.0**_LOWEST).log2() - _LOWEST
    return (octaves * PER_OCTAVE).long().clamp_max(_BINS - 1)


def _quantile(counts: Int[Tensor, "p bins"], q: float) -> Float[Tensor, " p"]:
    """By interpolation on the logarithmic axis."""
    running = counts.cumsum(dim=1).double()
    wanted = q * running[:, -1:]
    place = torch.searchsorted(running, wanted, right=False).clamp_max(_BINS - 1)
    inside = counts.gather(1, place).double()
    before = running.gather(1, place) - inside
    octaves = (place + (wanted - before) / inside) / PER_OCTAVE + _LOWEST
    return torch.where(running[:, -1:] > 0, torch.exp2(octaves), math.nan).squeeze(1)

"""What the rows of a store are like: plain facts from one pass, in memory that does not grow with the rows."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.types import Activations, ActivationStore

_BATCH = 4096
# The upper bits of a float32 are a logarithmic histogram: 2048 bins an octave, 2^-11 wide, half of that off at most.
_DROPPED = 23 - 11
_SHARES = {"p1": 0.01, "p50": 0.5, "p99": 0.99}
_LARGEST = torch.finfo(torch.float32).max


@dataclass(frozen=True, eq=False)
class Statistics:
    """Facts about the rows of one site, in the model's units.

    Mean, variance, norms, low, high and zeros are of the rows without NaN or infinity.

    Args:
        rows: All rows.
        examples: Examples that have rows.
        mean: Mean of each dimension.
        variance: Variance of each dimension: the mean squared distance from the mean.
        norms: Norm that 1 %, 50 % and 99 % of the rows do not exceed (`p1`, `p50`, `p99`), to 0.03 %, and `max`.
        low: Smallest value.
        high: Largest value.
        zeros: Share of the values that are exactly 0.
        nan: Values that are NaN.
        infinite: Values that are infinite.
    """

    rows: int
    examples: int
    mean: Float[Tensor, " d_in"]
    variance: Float[Tensor, " d_in"]
    norms: dict[str, float]
    low: float
    high: float
    zeros: float
    nan: int
    infinite: int

    @property
    def total_variance(self) -> float:
        """Mean squared distance of a row from the mean row: the sum over dimensions."""
        return float(self.variance.sum())

    def __str__(self) -> str:
        p1, p50, p99, largest = (self.norms[name] for name in ("p1", "p50", "p99", "max"))
        low, high = float(self.variance.min()), float(self.variance.max())
        lines = [
            f"rows      {self.rows:,} of {self.examples:,} examples, width {len(self.mean)}",
            f"values    {self.low:.4g} to {self.high:.4g}, {self.zeros:.2%} exactly 0",
            f"norm      median {p50:.4g}, 1 % below {p1:.4g}, 1 % above {p99:.4g}, largest {largest:.4g}",
            f"mean      of norm {float(self.mean.norm()):.4g}",
            f"variance  {self.total_variance:.4g} in all, {low:.4g} to {high:.4g} a dimension",
        ]
        if self.nan or self.infinite:
            lines.append(f"damaged   {self.nan:,} NaN, {self.infinite:,} infinite; their rows are not in the above")
        return "\n".join(lines)


def statistics(store: ActivationStore) -> Statistics:
    """Read all rows once, in stored order, and describe them; sums in float64.

    Args:
        store: Any store that ends.

    Returns:
        The facts; NaN where no row is finite.

    Raises:
        ValueError: If the store has no rows.
    """
    sums = _Sums(store.d_in)
    for batch in store.batches(_BATCH, seed=None):
        sums.add(batch)
    return sums.statistics()


class _Sums:
    """Adds up batches that come in stored order."""

    def __init__(self, d_in: int) -> None:
        self._rows = self._examples = self._finite = self._zeros = self._nan = self._infinite = 0
        self._mean = torch.zeros(d_in, dtype=torch.float64)
        self._squares = torch.zeros(d_in, dtype=torch.float64)  # squared distances from the mean, summed
        self._low, self._high, self._largest = math.inf, -math.inf, 0.0
        self._norms = torch.zeros(2 ** (31 - _DROPPED), dtype=torch.long)
        self._last: int | None = None

    def add(self, batch: Activations) -> None:
        """Take the rows of a batch in."""
        self._rows += len(batch)
        self._examples += int((batch.example.diff() != 0).sum()) + (int(batch.example[0]) != self._last)
        self._last = int(batch.example[-1])
        x = batch.values.double()
        norms = x.norm(dim=1)
        if not norms.isfinite().all():
            self._nan += int(x.isnan().sum())
            self._infinite += int(x.isinf().sum())
            finite = x.isfinite().all(dim=1)
            x, norms = x[finite], norms[finite]
        if len(x):
            self._add_finite(x, norms)

    def _add_finite(self, x: Float[Tensor, "n d_in"], norms: Float[Tensor, " n"]) -> None:
        n, mean = len(x), x.mean(dim=0)
        shift, total = mean - self._mean, self._finite + n
        # Chan et al. 1983: exact where the mean is far from 0, as a difference of sums is not.
        self._squares += (x - mean).square().sum(dim=0) + shift.square() * (self._finite * n / total)
        self._mean += shift * (n / total)
        self._finite = total
        self._zeros += x.numel() - int(x.count_nonzero())
        low, high = torch.aminmax(x)
        self._low, self._high = min(self._low, float(low)), max(self._high, float(high))
        self._largest = max(self._largest, float(norms.max()))
        bins = norms.clamp_max(_LARGEST).float().view(torch.int32) >> _DROPPED
        self._norms.index_add_(0, bins, torch.ones_like(bins, dtype=torch.long))

    def statistics(self) -> Statistics:
        """What was found."""
        finite = self._finite or math.nan
        known = 1.0 if self._finite else math.nan
        return Statistics(
            rows=self._rows,
            examples=self._examples,
            mean=self._mean * known,
            variance=self._squares / finite,
            norms={name: self._norm_at(share) for name, share in _SHARES.items()} | {"max": self._largest * known},
            low=self._low * known,
            high=self._high * known,
            zeros=self._zeros / (finite * len(self._mean)),
            nan=self._nan,
            infinite=self._infinite,
        )

    def _norm_at(self, share: float) -> float:
        """The middle of the bin in which the running count reaches a share of the rows."""
        if not self._finite:
            return math.nan
        place = int(torch.searchsorted(self._norms.cumsum(0), math.ceil(share * self._finite)))
        edges = (torch.tensor([place, place + 1], dtype=torch.int32) << _DROPPED).view(torch.float32)
        return min(float(edges.double().mean()), self._largest) if place else 0.0

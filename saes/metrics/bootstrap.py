"""Percentile intervals by resampling examples (Efron 1979, https://doi.org/10.1214/aos/1176344552)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.stores.shuffling import counter_key

_PURPOSE = 0xB007
_MOST_GROUPS = 4096
_AT_ONCE = 256  # Resamples: 8 MB of draws at the most groups.


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval; the ends are None where there is none.

    Args:
        value: On all examples.
        low: 2.5 % of the resamples are below.
        high: 2.5 % of the resamples are above.
    """

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        return f"{self.value:.4g}" + ("" if self.low is None else f" [{self.low:.4g}, {self.high:.4g}]")


def bootstrap(
    statistics: Float[Tensor, "e q"],
    value: Callable[[Float[Tensor, "*r q"]], Float[Tensor, "*r"]],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Value of the summed statistics, with a 95 % interval over examples.

    Examples, not rows, are drawn with replacement: rows of one text are not independent. Beyond 4,096 examples, every
    4096th is first summed into one group and groups are drawn, which has the same variance and a fixed cost.

    Args:
        statistics: Sums of each example, in float64.
        value: The metric as a function of totals.
        resamples: Number of draws; 0 for no interval.
        seed: Names the draws; metrics of equal seed are drawn alike, so their differences are paired.
    """
    statistics = statistics.double().cpu()
    whole = float(value(statistics.sum(dim=0)))
    if resamples == 0 or len(statistics) < 2:
        return Interval(whole)
    if len(statistics) > _MOST_GROUPS:
        groups = torch.arange(len(statistics)) % _MOST_GROUPS
        statistics = statistics.new_zeros(_MOST_GROUPS, statistics.shape[1]).index_add_(0, groups, statistics)
    values = value(_totals(statistics, resamples, seed)).numpy()
    low, high = np.quantile(values, (0.025, 0.975))
    return Interval(whole, float(low), float(high))


def _totals(statistics: Float[Tensor, "e q"], resamples: int, seed: int) -> Float[Tensor, "r q"]:
    """Sums of each resample."""
    e = len(statistics)
    draws = np.random.default_rng(int(counter_key(seed, _PURPOSE)))
    parts = []
    for start in range(0, resamples, _AT_ONCE):
        r = min(_AT_ONCE, resamples - start)
        chosen = draws.integers(e, size=(r, e)) + e * np.arange(r)[:, None]
        times = np.bincount(chosen.reshape(-1), minlength=r * e).reshape(r, e)
        parts.append(torch.from_numpy(times).double() @ statistics)
    return torch.cat(parts)

"""Histograms of active values over bins fixed beforehand, so that one pass fills them and any two can be added."""

import numpy as np
from numpy.typing import NDArray

PER_OCTAVE = 4
LOWEST, HIGHEST = -16, 16
BINS = (HIGHEST - LOWEST) * PER_OCTAVE
# A float32 shifted by 21 bits keeps its exponent and two bits of mantissa: four bins an octave with exact borders.
_SHIFT, _FIRST = 21, (127 + LOWEST) * PER_OCTAVE


def number_of_bins(signed: bool) -> int:
    """Bins of one feature; twice as many where values have a sign."""
    return 2 * BINS if signed else BINS


def bins_of(values: NDArray[np.float32], signed: bool) -> NDArray[np.int64]:
    """The bin of each value; what lies beyond the ends goes to the end bins.

    Args:
        values: Active values, none of them zero.
        signed: Whether the bins are symmetric around zero.
    """
    magnitude = (values.view(np.int32) & 0x7FFFFFFF) >> _SHIFT
    bins = np.clip(magnitude.astype(np.int64) - _FIRST, 0, BINS - 1)
    return np.where(values < 0, BINS - 1 - bins, BINS + bins) if signed else bins


def bin_edges(signed: bool) -> NDArray[np.float64]:
    """Borders of the bins, one more than bins. The bin nearest to zero begins at zero."""
    octaves = 2.0 ** np.arange(LOWEST, HIGHEST)
    edges = np.append((octaves[:, None] * (1 + np.arange(PER_OCTAVE) / PER_OCTAVE)).ravel(), 2.0**HIGHEST)
    edges[0] = 0.0
    return np.concatenate([-edges[:0:-1], edges]) if signed else edges


def occupied(histogram: NDArray[np.int64]) -> slice:
    """The run of bins that any feature uses; one bin where none fires."""
    used = np.flatnonzero(histogram.any(axis=0))
    return slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 1)


def quantiles_of(
    histogram: NDArray[np.int64],
    edges: NDArray[np.float64],
    low: NDArray[np.float32],
    high: NDArray[np.float32],
    shares: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Quantiles of the active values of each feature, interpolated inside a bin: off by less than the bin's width.

    Args:
        histogram: Counts, [features, bins].
        edges: Borders of the bins.
        low: Smallest active value of each feature.
        high: Largest active value of each feature.
        shares: Shares of the active values that lie below, in 0..1.

    Returns:
        [features, shares]; NaN for a feature that never fires.
    """
    cumulative = histogram.cumsum(axis=1)
    count = cumulative[:, -1]
    found = np.full((len(histogram), len(shares)), np.nan, np.float32)
    alive = np.flatnonzero(count)
    for column, share in enumerate(shares):
        target = share * count[alive]
        bins = np.minimum((cumulative[alive] < target[:, None]).sum(axis=1), histogram.shape[1] - 1)
        inside = histogram[alive, bins]
        before = cumulative[alive, bins] - inside
        part = np.divide(target - before, inside, out=np.zeros(len(alive)), where=inside > 0)
        value = edges[bins] + part * (edges[bins + 1] - edges[bins])
        found[alive, column] = np.clip(value, low[alive], high[alive])
    return found

"""The examples of a bundle, chosen from what the pass has kept."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from analyses.dictionary.accumulating import Accumulators
from analyses.dictionary.encoding import address_of
from analyses.dictionary.histograms import bin_edges, quantiles_of
from analyses.dictionary.keeping import Kept, drawn, rank_in_run
from analyses.dictionary.recipes import Recipe

TOP, QUANTILE, RANDOM = 0, 1, 2
BIN_NAMES = ("top", "quantile", "random")


@dataclass(frozen=True)
class Examples:
    """Columns of the examples, sorted by feature, bin, quantile and rank.

    Args:
        feature: The feature shown.
        bin: `TOP`, `QUANTILE` or `RANDOM`.
        quantile: Which quantile bin, 0 for the weakest; -1 elsewhere.
        rank: Place in the bin, from 0.
        example: Example in the store.
        position: Position of the firing.
        value: Activation there.
    """

    feature: NDArray[np.int64]
    bin: NDArray[np.int8]
    quantile: NDArray[np.int8]
    rank: NDArray[np.int32]
    example: NDArray[np.int64]
    position: NDArray[np.int64]
    value: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.feature)

    def __getitem__(self, rows: NDArray[np.int64] | slice) -> "Examples":
        return Examples(*(getattr(self, part.name)[rows] for part in fields(self)))


def choose_examples(accumulators: Accumulators, recipe: Recipe) -> Examples:
    """The strongest firings (one an example), a few of each quantile bin, and a few at random.

    Quantile bins hold equally many firings, their borders read from the histogram. Candidates are a fair sample of
    all firings and one of each histogram bin, so that rare strengths are there too.

    Args:
        accumulators: After the whole pass.
        recipe: How many of each.
    """
    parts = [_first(accumulators.top, recipe.top, TOP), _first(accumulators.sampled, recipe.random, RANDOM)]
    bins, per_bin = recipe.quantiles
    if bins and per_bin:
        parts.append(_by_quantile(accumulators, bins, per_bin, recipe.seed))
    columns = (np.concatenate([getattr(p, part.name) for p in parts]) for part in fields(Examples))
    examples = Examples(*columns)
    return examples[np.lexsort((examples.rank, examples.quantile, examples.bin, examples.feature))]


def _first(kept: Kept, n: int, kind: int) -> Examples:
    rank = kept.rank()
    rows = np.flatnonzero(rank < n)
    group = kept.group[rows]
    return Examples(
        group,
        np.full(len(rows), kind, np.int8),
        np.full(len(rows), -1, np.int8),
        rank[rows].astype(np.int32),
        kept.example[rows],
        kept.position[rows],
        kept.value[rows],
    )


def _by_quantile(accumulators: Accumulators, bins: int, per_bin: int, seed: int) -> Examples:
    a = accumulators
    tables = (a.sampled, a.binned)
    for table in tables:
        table.compact()
    feature = np.concatenate([a.sampled.group, a.binned.group // a.bins])
    example, position, value = (
        np.concatenate([getattr(table, name) for table in tables]) for name in ("example", "position", "value")
    )
    shares = np.arange(1, bins) / bins
    borders = quantiles_of(a.by_bin, bin_edges(a.signed), a.low, a.high, shares)
    quantile = (value[:, None] > borders[feature]).sum(axis=1)
    # The draw that made both samples fair: the smallest of a quantile bin are a fair sample of it.
    address = address_of(example, position)
    draw = drawn(seed, feature, np.arange(len(feature)), address)
    order = np.lexsort((address, draw, quantile, feature))
    again = (np.diff(address[order]) == 0) & (np.diff(feature[order]) == 0)
    order = order[np.append(True, ~again)] if len(order) else order
    rank = rank_in_run((feature * bins + quantile)[order])
    rows, rank = order[rank < per_bin], rank[rank < per_bin]
    return Examples(
        feature[rows],
        np.full(len(rows), QUANTILE, np.int8),
        quantile[rows].astype(np.int8),
        rank.astype(np.int32),
        example[rows],
        position[rows],
        value[rows],
    )

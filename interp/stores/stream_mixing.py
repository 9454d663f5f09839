"""How a stream mixes: each half-window meets the one before it and the one after, in an order made of counters.

The rows of half-window `w` are permuted and cut in two. Stage `w` of the stream is the later part of half-window
`w - 1` and the earlier part of half-window `w`, permuted again. So a row comes out anywhere in two stages, evenly: two
rows of one example stand two thirds of a half-window apart on average, and at most two half-windows. Only the first
stage has half the rows, all of one half-window.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.stores.gathering import gathered
from interp.stores.shuffling import shuffled
from interp.types import Activations


def stage_rows(earlier: int, later: int) -> int:
    """Rows of a stage between half-windows of so many rows."""
    return earlier - earlier // 2 + later // 2


def mixed(places: NDArray[np.int64], earlier: int, later: int, *, seed: int, window: int) -> NDArray[np.int64]:
    """The rows that stand at some places of a stage.

    Args:
        places: Places in `0..stage_rows(earlier, later) - 1`.
        earlier: Rows of half-window `window - 1`.
        later: Rows of half-window `window`.
        seed: Names the shuffle.
        window: Number of the stage, counted on through all passes over the dataset.

    Returns:
        As many rows, numbered over the earlier half-window and on over the later one.
    """
    cut = earlier // 2
    kept = earlier - cut
    drawn = shuffled(places, kept + later // 2, seed=seed, epoch=2 * window + 1)
    old = drawn < kept
    rows = np.empty_like(drawn)
    rows[old] = shuffled(drawn[old] + cut, earlier, seed=seed, epoch=2 * (window - 1))
    rows[~old] = shuffled(drawn[~old] - kept, later, seed=seed, epoch=2 * window) + earlier
    return rows


def picked(parts: Sequence[Activations], rows: NDArray[np.int64], room: dict[str, Tensor]) -> Activations:
    """The rows of the given numbers, in that order and in float32.

    Args:
        parts: Where they are; numbered over one after another.
        rows: The numbers.
        room: As for `gathered`.
    """
    sizes = np.array([len(part) for part in parts])
    ends = sizes.cumsum()
    part_of = np.searchsorted(ends, rows, side="right").astype(np.min_scalar_type(len(parts)))  # Narrow: sorts faster.
    by_part = np.argsort(part_of, kind="stable")
    inside = torch.from_numpy((rows - (ends - sizes)[part_of])[by_part])
    order = np.empty_like(by_part)
    order[by_part] = np.arange(len(by_part))
    numbers = inside.split(np.bincount(part_of, minlength=len(parts)).tolist())
    # Widened last: the copies before it move half as many bytes.
    return gathered(parts, numbers, torch.from_numpy(order), room).to(dtype=torch.float32)

"""Rows of a store for a fit. Batches are counted from the first row, so no result depends on the size of shards."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from interp.types import ActivationStore

_SIZE = 4096


def batches(store: ActivationStore, rows: int | None, *, seed: int) -> Iterator[Float[Tensor, "n d_in"]]:
    """Rows in float64, a batch at a time: all in stored order, or the first `rows` of the shuffle that `seed` names.

    Raises:
        ValueError: If `rows` is not positive, or the store is empty.
    """
    if rows is not None and rows < 1:
        raise ValueError(f"rows is {rows}, but a fit needs some: give a positive number, or None for all.")
    left = rows
    for batch in store.batches(_SIZE, seed=None if rows is None else seed, epochs=1):
        values = batch.values[:left].double()
        yield values
        if left is not None:
            left -= len(values)
            if left == 0:
                return


def sampled(
    store: ActivationStore, rows: int | None, *, seed: int, at_least: int, reason: str
) -> Float[Tensor, "n d_in"]:
    """The same rows at once.

    Args:
        store: The rows.
        rows: How many.
        seed: Names the shuffle.
        at_least: Rows that the fit needs.
        reason: What it needs them for.

    Raises:
        ValueError: If there are fewer rows than that.
    """
    x = torch.cat(list(batches(store, rows, seed=seed)))
    if len(x) < at_least:
        raise ValueError(
            f"there are {len(x)} rows, but {reason} takes at least {at_least}: give more rows, or a smaller d_sae."
        )
    return x


def moments(
    store: ActivationStore, rows: int | None, *, seed: int
) -> tuple[int, Float[Tensor, " d_in"], Float[Tensor, "d_in d_in"]]:
    """Number, mean and covariance (divided by the number) of the rows, from one pass, exact to float64."""
    n, shift = 0, torch.zeros(store.d_in, dtype=torch.float64)
    total, products = torch.zeros_like(shift), torch.zeros(store.d_in, store.d_in, dtype=torch.float64)
    for x in batches(store, rows, seed=seed):
        # Relative to a point among the rows: the covariance of rows far from 0 would cancel.
        shift = x.mean(0) if n == 0 else shift
        x = x - shift
        n, total, products = n + len(x), total + x.sum(0), products.addmm_(x.T, x)
    mean = total / n
    return n, shift + mean, products / n - torch.outer(mean, mean)


def mean_of(store: ActivationStore, rows: int | None, *, seed: int) -> tuple[int, Float[Tensor, " d_in"]]:
    """Number and mean of the rows, in float64."""
    n, total = 0, torch.zeros(store.d_in, dtype=torch.float64)
    for x in batches(store, rows, seed=seed):
        n, total = n + len(x), total + x.sum(0)
    return n, total / n

"""What every store of rows shares: batches in stored or in shuffled order."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from interp.stores.shuffling import shuffled
from interp.types import JSON, Activations, Geometry, Item, Site


class RowStore:
    """A store whose rows can be reached by number; a subclass gives `__len__`, `rows`, `span` and `example_span`."""

    site: Site
    d_in: int
    geometry: Geometry
    items: Sequence[Item]
    fingerprint: str
    provenance: JSON
    # Equal hashes, equal addresses; None where nobody made one.
    address_hash: str | None = None

    def __len__(self) -> int:
        raise NotImplementedError

    def rows(self, numbers: torch.Tensor) -> Activations:
        """The rows of the given numbers, in that order."""
        raise NotImplementedError

    def span(self, start: int, stop: int) -> Activations:
        """A contiguous run of rows."""
        return self.rows(torch.arange(start, stop))

    def addresses(self, start: int, stop: int) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
        """Example and position of a run of at least one row, without its values where those cost more."""
        rows = self.span(start, stop)
        return rows.example, rows.position

    def example_span(self, index: int) -> tuple[int, int]:
        """First row of an example, and the row after its last."""
        raise NotImplementedError

    def example(self, index: int) -> Activations:
        """All rows of one example, in order of position.

        Raises:
            IndexError: If the store has no such example.
        """
        if not 0 <= index < len(self.items):
            raise IndexError(f"example is {index}, but the store holds examples 0 to {len(self.items) - 1}.")
        return self.span(*self.example_span(index))

    def batches(
        self, size: int, *, seed: int | None, start_step: int = 0, epochs: int | None = None
    ) -> Iterator[Activations]:
        """Yield batches of rows.

        Args:
            size: Rows a batch.
            seed: Names the global shuffle; None keeps the stored order.
            start_step: First batch to yield; the sequence is the same wherever one starts.
            epochs: Passes over the store; None is one pass in stored order, and no end when shuffled.

        Raises:
            ValueError: If `size` is not positive or the store is empty.
        """
        if size < 1:
            raise ValueError(f"size is {size}, but a batch needs at least one row: give a positive size.")
        if len(self) == 0:
            raise ValueError("the store holds no rows: check the dataset and what the harvest left out.")
        return (
            self._stored(size, start_step, epochs or 1) if seed is None else self._mixed(size, seed, start_step, epochs)
        )

    def _stored(self, size: int, start_step: int, epochs: int) -> Iterator[Activations]:
        n = len(self)
        per_epoch = -(-n // size)
        for step in range(start_step, per_epoch * epochs):
            start = step % per_epoch * size
            yield self.span(start, min(start + size, n))

    def _mixed(self, size: int, seed: int, start_step: int, epochs: int | None) -> Iterator[Activations]:
        n, step = len(self), start_step
        end = None if epochs is None else epochs * n
        while end is None or step * size < end:
            yield self.rows(torch.from_numpy(shuffled_rows(n, size, seed, step, end)))
            step += 1


def shuffled_rows(n: int, size: int, seed: int, step: int, end: int | None = None) -> np.ndarray:
    """Row numbers of one shuffled batch; epochs follow each other without a gap, so every batch is full."""
    places = np.arange(step * size, (step + 1) * size if end is None else min((step + 1) * size, end))
    epochs = places // n
    parts = [shuffled(places[epochs == e] - e * n, n, seed=seed, epoch=int(e)) for e in np.unique(epochs)]
    return np.concatenate(parts)

"""Batches of whole examples, for training that runs the model on them: its rows need their neighbours."""

import functools
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from interp.stores.aligned import AlignedStore
from interp.stores.base import RowStore
from interp.stores.shuffling import shuffled
from interp.types import Activations


class WholeExamples(AlignedStore):
    """The rows of a store, given out by example. Made by `whole_examples`.

    A shuffled batch holds as many whole examples as fit in its size, none twice; each epoch shuffles them anew. Rows of
    one example are alike, so a batch of them says less than one of as many mixed rows.
    """

    def __init__(self, store: RowStore) -> None:
        super().__init__({"store": store})
        self.site, self.d_in, self.d_out = store.site, store.d_in, getattr(store, "d_out", None)
        self.provenance = {**store.provenance, "batches": "whole examples"}

    def __repr__(self) -> str:
        return f"WholeExamples({self.stores[0]!r})"

    def _joined(self, parts: Sequence[Activations]) -> Activations:
        return parts[0]

    @functools.cached_property
    def _spans(self) -> np.ndarray:
        """First row of each example that has rows, and the row after its last."""
        spans = np.array([self.example_span(i) for i in range(len(self.items))], dtype=np.int64).reshape(-1, 2)
        return spans[spans[:, 1] > spans[:, 0]]

    def _mixed(self, size: int, seed: int, start_step: int, epochs: int | None) -> Iterator[Activations]:
        longest = int((self._spans[:, 1] - self._spans[:, 0]).max())
        if longest > size:
            raise ValueError(
                f"size is {size}, but the longest example of {self.site} has {longest} rows, and examples are kept "
                f"whole: give batches of at least {longest} rows."
            )
        groups = self._groups(size, seed, epochs)
        for group in itertools.islice(groups, start_step, None):
            numbers = [np.arange(*self._spans[example]) for example in group]
            yield self.rows(torch.from_numpy(np.concatenate(numbers)))

    def _groups(self, size: int, seed: int, epochs: int | None) -> Iterator[list[int]]:
        """Examples of each batch."""
        n, group, rows = len(self._spans), dict[int, None](), 0
        lengths = (self._spans[:, 1] - self._spans[:, 0]).tolist()
        for epoch in itertools.count() if epochs is None else range(epochs):
            for example in shuffled(np.arange(n), n, seed=seed, epoch=epoch).tolist():
                if rows + lengths[example] > size or example in group:
                    yield list(group)
                    group, rows = {}, 0
                group[example] = None
                rows += lengths[example]
        if group:
            yield list(group)


def whole_examples(store: RowStore) -> WholeExamples:
    """Give a store's rows out by example, shuffled: for `saes.signals.end_to_end.EndToEnd`.

    Args:
        store: Rows in memory or on disk.

    Returns:
        A store of the same rows; nothing is copied.

    Raises:
        ValueError: If the store cannot be read by row number.
    """
    return WholeExamples(store)

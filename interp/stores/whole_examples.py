"""Batches of whole examples, for training that runs the model on them: its rows need their neighbours."""

import functools
import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from interp.stores.base import RowStore
from interp.stores.shuffling import shuffled
from interp.stores.sources import check_row_stores
from interp.types import JSON, Activations, Item


class WholeExamples(RowStore):
    """The rows of a store, given out by example. Made by `whole_examples`.

    A shuffled batch holds as many whole examples as fit in its size, none twice; each epoch shuffles them anew. Rows of
    one example are alike, so a batch of them says less than one of as many mixed rows.
    """

    def __init__(self, store: RowStore) -> None:
        check_row_stores([store])
        self.store = store
        self.site, self.d_in, self.geometry = store.site, store.d_in, store.geometry
        self.items: Sequence[Item] = store.items
        self.address_hash = store.address_hash
        self.provenance: JSON = {**store.provenance, "batches": "whole examples"}

    def __len__(self) -> int:
        return len(self.store)

    def __repr__(self) -> str:
        return f"WholeExamples({self.store!r})"

    @functools.cached_property
    def fingerprint(self) -> str:  # type: ignore[override]
        """Hash of the store's: other batches, another training run."""
        return hashlib.sha256(json.dumps([type(self).__name__, self.store.fingerprint]).encode()).hexdigest()

    def rows(self, numbers: Tensor) -> Activations:
        """The rows of the given numbers, in that order."""
        return self.store.rows(numbers)

    def span(self, start: int, stop: int) -> Activations:
        """A contiguous run of rows."""
        return self.store.span(start, stop)

    def addresses(self, start: int, stop: int) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
        """Example and position of a contiguous run of rows."""
        return self.store.addresses(start, stop)

    def example_span(self, index: int) -> tuple[int, int]:
        """First row of an example, and the row after its last."""
        return self.store.example_span(index)

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
